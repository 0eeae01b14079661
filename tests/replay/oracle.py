"""libCacheSim's misses on a stream of keys, in a process of its own: `oracle.py KEYS.npy NAME:SIZE ...`

Prints a JSON list of [misses, seconds]. Only tests use the library (GPL-3.0), which aborts the process on some sizes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def main(path: str, *asked: str) -> None:
    import libcachesim

    keys = np.load(path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.bin")
        records(keys).tofile(file)
        found = []
        for one in asked:
            name, size = one.split(":")
            reader = libcachesim.TraceReader(
                str(file),
                libcachesim.TraceType.ORACLE_GENERAL_TRACE,
                libcachesim.ReaderInitParam(ignore_obj_size=True),
            )
            cache = getattr(libcachesim, name)(cache_size=int(size), hashpower=12)
            begin = time.perf_counter()
            ratio = cache.process_trace(reader)[0]
            found.append([round(ratio * len(keys)), time.perf_counter() - begin])
    print(json.dumps(found))


def records(keys: np.ndarray) -> np.ndarray:
    """The packed records of its oracleGeneral traces; ids begin with 1."""
    table = np.zeros(len(keys), dtype=[("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
    table["time"], table["id"], table["size"] = np.arange(len(keys)), keys.astype(np.uint64) + 1, 1
    order = np.argsort(keys, kind="stable")
    table["next"] = -1
    same = np.diff(keys[order]) == 0
    table["next"][order[:-1][same]] = order[1:][same]
    return table


if __name__ == "__main__":
    main(*sys.argv[1:])
