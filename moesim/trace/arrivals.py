"""Arrivals: when requests come and how many tokens each has; read from files, scaled, sliced and sampled.

Files are in one of the formats of `moesim.trace.formats`: our own Parquet, Azure LLM inference trace CSV, Mooncake JSON
lines, BurstGPT CSV, plain CSV (docs/traffic.md). Everything but reading and writing is a pure function.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from moesim.errors import InputError, Problem, unknown
from moesim.trace.formats import azure, burstgpt, mooncake, own, plain
from moesim.trace.formats.mooncake import Mooncake
from moesim.trace.formats.own import ArrivalsMeta
from moesim.trace.formats.sheet import Sheet
from moesim.trace.formats.table import Table

TEXT: dict[str, Table | Mooncake] = {
    made.name: made for made in (azure.FORMAT, mooncake.FORMAT, burstgpt.FORMAT, plain.FORMAT)
}
FORMATS = ("moesim", *TEXT)
FOREIGN = {
    b"\x1f\x8b": "is gzip data; unpack it first",
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "is zstd data; unpack it first",
    b"\xfd7zXZ": "is xz data; unpack it first",
    b"BZh": "is bzip2 data; unpack it first",
    b"\xff\xfe\0\0": "is UTF-32 text; save it as UTF-8",
    b"\0\0\xfe\xff": "is UTF-32 text; save it as UTF-8",
    b"\xff\xfe": "is UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "is UTF-16 text; save it as UTF-8",
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself; fetch that",
}


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests sorted by time. digest: sha256 of the file; dropped: requests without tokens that were left out."""

    arrival: np.ndarray
    """int64 [requests], ns from the start of the trace"""
    prompt: np.ndarray
    """int32 [requests], prompt tokens, 1 or more"""
    output: np.ndarray
    """int32 [requests], output tokens, 1 or more"""
    domains: tuple[str, ...] | None = None
    """of each request; None where the file does not say"""
    meta: ArrivalsMeta = field(default_factory=lambda: ArrivalsMeta(name="", label="synthetic", requests=1))
    digest: str = ""
    dropped: int = 0
    format: str = "moesim"
    """of the file that it was read from"""

    def __len__(self) -> int:
        return len(self.arrival)

    @property
    def seconds(self) -> float:
        """From the start of the trace to the last arrival."""
        return float(self.arrival[-1]) / 1e9 if len(self) else 0.0


# ---- files


def read_arrivals(path: Path | str, format: str = "auto", empty: str = "refuse") -> Arrivals:
    """Read an arrivals file; `auto` tells the format by the file's beginning.

    `empty`: what to do with requests that have no prompt or no output tokens (failed ones), `refuse` the file or
    `drop` them. Raises InputError with every mistake and its line, at most 20 of them.
    """
    path = Path(path)
    texts = [] if format in ("auto", *FORMATS) else [unknown("arrivals format", format, ("auto", *FORMATS))]
    texts += [] if empty in ("refuse", "drop") else [unknown("way with empty requests", empty, ("refuse", "drop"))]
    if texts:
        raise InputError(Problem(str(path), text) for text in texts)
    data = _bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    if data[:4] == b"PAR1" and format in ("auto", "moesim"):
        (arrival, prompt, output, domains), meta = own.read(path, data)
        return Arrivals(arrival, prompt, output, domains, meta, digest)
    made, sheet = _sheet(path, data, format, empty == "drop")
    return _arrivals(made, sheet, path.stem, digest)


def write_arrivals(path: Path | str, arrivals: Arrivals) -> None:
    """Write arrivals in our own format, with their metadata."""
    meta = arrivals.meta.model_copy(update={"requests": len(arrivals)})
    own.write(path, (arrivals.arrival, arrivals.prompt, arrivals.output, arrivals.domains), meta)


def _bytes(path: Path) -> bytes:
    expected = f"expected arrivals in one of the formats {', '.join(FORMATS)}"
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise InputError(Problem(str(path), f"{what}; {expected}"))
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be read ({error.strerror}); {expected}")) from error


def _sheet(path: Path, data: bytes, format: str, drop_empty: bool) -> tuple[Table | Mooncake, Sheet]:
    text = _text(path, data)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    made = _format(path, lines, format)
    sheet = Sheet(str(path), drop_empty)
    made.read(lines, text.endswith(("\n", "\r")), sheet)
    sheet.finish(len(lines))
    return made, sheet


def _text(path: Path, data: bytes) -> str:
    for mark, what in FOREIGN.items():
        if data.startswith(mark):
            raise InputError(Problem(f"{path}:1", what))
    if data[:4] == b"PAR1":
        raise InputError(Problem(f"{path}:1", "is a Parquet file, which only the format moesim is"))
    if not data.strip():
        raise InputError(Problem(f"{path}:1", "is empty; expected arrivals"))
    try:
        text = data.decode("utf-8-sig")
        bad = text.find("\0")
    except UnicodeDecodeError as error:
        bad, text = error.start, data[: error.start].decode("utf-8-sig")
    if bad >= 0:
        line = text.count("\n", 0, bad) + 1
        what = f"is no UTF-8 text (byte {bad}); expected CSV, JSON lines or Parquet"
        raise InputError(Problem(f"{path}:{line}", what))
    return text


def _format(path: Path, lines: list[str], format: str) -> Table | Mooncake:
    head = plain.FORMAT.first_line(lines)
    expected = "; ".join(f"{made.name}: {made.header}" for made in TEXT.values())
    if head == len(lines):
        raise InputError(Problem(f"{path}:{head}", f"holds only comments. Known are {expected}"))
    first = lines[head]
    fitting = [made for made in TEXT.values() if made.fits(first)]
    if format == "auto" and (made := fitting[0] if fitting else _nearest(first)):
        return made
    if format == "auto":
        text = f"begins with {first[:60]!r}, which is no header of arrivals"
        for mark in (";", "\t"):
            if any(made.fits(first.replace(mark, ",")) for made in TEXT.values()):
                text += f" (its values are separated by {mark!r}; expected commas)"
        raise InputError(Problem(f"{path}:{head + 1}", f"{text}. Known are {expected}"))
    if format == "moesim":
        raise InputError(Problem(f"{path}:1", "is no Parquet file, as the format moesim is"))
    if fitting and TEXT[format] not in fitting:
        text = f"looks like the format {fitting[0].name} ({fitting[0].about}), not {format}: {TEXT[format].header}"
        raise InputError(Problem(f"{path}:{head + 1}", text))
    return TEXT[format]


def _nearest(first: str) -> Table | None:
    """The CSV format that has most of the header's columns; it says what is wrong with the others."""
    tables = [made for made in TEXT.values() if isinstance(made, Table)]
    best = max(tables, key=lambda made: made.known(first))
    return best if best.known(first) else None


def _arrivals(made: Table | Mooncake, sheet: Sheet, name: str, digest: str) -> Arrivals:
    arrival = np.array(sheet.times, dtype=np.int64)
    if made is azure.FORMAT:
        arrival -= arrival[0]  # its timestamps are dates
    domains = tuple(sheet.domains) if any(sheet.domains) else None
    meta = ArrivalsMeta(name=name, label="recorded", requests=len(arrival), source=made.about)
    prompt, output = (np.array(tokens, dtype=np.int32) for tokens in (sheet.prompts, sheet.outputs))
    return Arrivals(arrival, prompt, output, domains, meta, digest, sheet.dropped, made.name)


# ---- pure functions


def scaled(arrivals: Arrivals, factor: float) -> Arrivals:
    """The same requests at `factor` times the rate: 2 halves every gap."""
    return replace(arrivals, arrival=np.rint(arrivals.arrival / factor).astype(np.int64))


def sliced(arrivals: Arrivals, start: int = 0, end: int | None = None) -> Arrivals:
    """Requests that come at `start` .. `end` (not included), ns; `start` becomes time 0."""
    first = np.searchsorted(arrivals.arrival, start)
    last = len(arrivals) if end is None else np.searchsorted(arrivals.arrival, end)
    part = _kept(arrivals, np.arange(first, max(first, last)))
    return replace(part, arrival=part.arrival - start)


def sampled(arrivals: Arrivals, share: float, rng: np.random.Generator) -> Arrivals:
    """Each request is kept with probability `share`, independently; times stay, so that bursts do."""
    return _kept(arrivals, np.flatnonzero(rng.random(len(arrivals)) < share))


def fitting(arrivals: Arrivals, context: int) -> Arrivals:
    """Without requests whose prompt and output together exceed `context` tokens, as a server refuses them."""
    return _kept(arrivals, np.flatnonzero(arrivals.prompt.astype(np.int64) + arrivals.output <= context))


def first(arrivals: Arrivals, requests: int) -> Arrivals:
    """The first so many requests."""
    return _kept(arrivals, np.arange(min(requests, len(arrivals))))


def _kept(arrivals: Arrivals, rows: np.ndarray) -> Arrivals:
    domains = arrivals.domains
    return replace(
        arrivals,
        arrival=arrivals.arrival[rows],
        prompt=arrivals.prompt[rows],
        output=arrivals.output[rows],
        domains=None if domains is None else tuple(domains[row] for row in rows.tolist()),
    )
