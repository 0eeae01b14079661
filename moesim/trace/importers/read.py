"""Reads any trace: our own form as it is, others through their importer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from moesim.errors import InputError, Problem, unknown
from moesim.trace.importers import arrays, bigmoe, llamacpp, plain
from moesim.trace.importers.assemble import Part, trace_of
from moesim.trace.importers.options import FORMATS, Options, Source
from moesim.trace.importers.text import lines_of
from moesim.trace.routing import RoutingTrace, read_routing

TEXTS: dict[str, Callable[[Path, list[str], Options], tuple[list[Part], Source]]] = {
    "bigmoe": bigmoe.read,
    "llamacpp": llamacpp.read,
    "csv": plain.read_csv,
    "jsonl": plain.read_jsonl,
}
BINARIES: dict[str, Callable[[Path, bytes, Options], tuple[list[Part], Source]]] = {
    "npy": arrays.read_npy,
    "npz": arrays.read_npz,
}
EXPECTED = "expected one of: " + "; ".join(f"{name}: {text}" for name, text in FORMATS.items())


def read_any(path: Path | str, options: Options | None = None) -> RoutingTrace:
    """The routing in a file of any known format. Raises InputError with every mistake of the file.

    Options that our own form answers itself are refused for it.
    """
    path, options = Path(path), options or Options()
    if options.format not in ("auto", *FORMATS):
        raise InputError(Problem("--format", unknown("format", options.format, ("auto", *FORMATS))))
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise InputError(Problem(str(path), f"{what}; {EXPECTED}"))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be read ({error.strerror})")) from error
    name = options.format if options.format != "auto" else detect(path, data)
    if name == "moesim":
        _check_unneeded(path, options)
        return read_routing(path)
    if name in BINARIES:
        parts, source = BINARIES[name](path, data, options)
    else:
        lines = lines_of(path, data)
        if not any(line.strip() for line in lines):
            raise InputError(Problem(str(path), f"is empty; {EXPECTED}"))
        parts, source = TEXTS[name](path, lines, options)
    return trace_of(path, parts, source, options, hashlib.sha256(data).hexdigest())


def _check_unneeded(path: Path, options: Options) -> None:
    given = [field.name for field in fields(options) if field.name != "format" and getattr(options, field.name)]
    if given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(Problem(str(path), f"is a trace of ours and says this itself: leave {named} out"))


def detect(path: Path, data: bytes) -> str:
    """The format of a file by what is in it. Raises InputError, saying what is known, where it is none."""
    for mark, name in ((b"PAR1", "moesim"), (b"\x93NUMPY", "npy"), (b"PK\x03\x04", "npz")):
        if data.startswith(mark):
            return name
    lines = [line for line in data[:65536].decode("utf-8-sig", "replace").splitlines() if line.strip()]
    if lines and lines[0].startswith(bigmoe.MARK):
        return "bigmoe"
    first = next((line.strip() for line in lines if not line.startswith("#")), "")
    columns = [name.strip() for name in first.split(",")]
    if first == bigmoe.HEADER:
        return "bigmoe"
    if len(columns) == 2 and all(column.isdigit() for column in columns):
        return "llamacpp"
    if columns[:4] == list(llamacpp.HEADER[:4]):
        return "llamacpp"
    if first.startswith("{"):
        return "jsonl"
    if {"position", "layer"} <= set(columns):
        return "csv"
    begins = f"begins with {first[:60]!r}" if first else "is empty"
    raise InputError(Problem(str(path), f"is of no known format ({begins}); {EXPECTED}"))
