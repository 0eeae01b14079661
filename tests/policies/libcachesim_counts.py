"""Print libCacheSim's miss counts as JSON. Run as a program: its wheel may abort the process, and is for tests only.

Arguments: a .npy file of keys, then POLICY:CAPACITY, each naming a class of libcachesim.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import libcachesim
import numpy as np

RECORD = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])


def records(keys: np.ndarray) -> np.ndarray:
    """What libCacheSim's oracleGeneral reader expects: `next` is the index of the next use of the same key, or -1."""
    made = np.zeros(len(keys), RECORD)
    made["time"], made["id"], made["size"] = np.arange(len(keys)), keys, 1
    seen: dict[int, int] = {}
    for number in range(len(keys) - 1, -1, -1):
        made["next"][number] = seen.get(int(keys[number]), -1)
        seen[int(keys[number])] = number
    return made


def main() -> None:
    keys = np.load(sys.argv[1])
    counts = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.bin")
        records(keys).tofile(path)
        for asked in sys.argv[2:]:
            name, capacity = asked.split(":")
            reader = libcachesim.TraceReader(
                str(path),
                libcachesim.TraceType.ORACLE_GENERAL_TRACE,
                libcachesim.ReaderInitParam(ignore_obj_size=True),
            )
            ratio = getattr(libcachesim, name)(cache_size=int(capacity), hashpower=12).process_trace(reader)[0]
            counts.append(round(ratio * len(keys)))
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
