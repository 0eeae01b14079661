"""Untimed replay from Python: `moesim.cache` is `moesim cache`, and gives curves instead of printing a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from moesim.errors import InputError, Problem, unknown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from moesim.replay import Capacity
    from moesim.trace.importers import Options

T = TypeVar("T")
POLICIES = "random,fifo,lru,lfu,min"
SIZES = "5%,10%,20%,30%,40%,50%,60%,80%"
SCOPES, ROOMS = ("global", "layer"), ("strict", "event")
CHOICES = {
    "order": ("event", "key"),
    "start": ("warm", "cold"),
    "between": ("keep", "reset"),
    "rank": ("first", "last"),
}
MEASURES = {"hits": "decode_hit_pct", "misses": "misses_per_token", "bytes": "mb_per_token"}
DROPPED = ("prompt_loaded_bytes", "decode_loaded_bytes", "bytes_per_token", "amount", "peak", "counted")


class Curves:
    """What caches of several policies and sizes would have hit on some traces, without any time in it.

    `frame` is tidy, `plot()` draws it, `documents` is what `moesim cache --json` prints.
    """

    def __init__(self, documents: Sequence[dict[str, Any]]) -> None:
        self.documents = list(documents)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per trace, policy, scope, room and size.

        `capacity` as it was given; `experts_per_layer` and `share` (0 to 1) of all keys that it holds, whatever the
        scope; `oracle`: knows the future; `decode_hit_pct`, `prompt_hit_pct` in percent of the keys of layer events;
        `misses_per_token` in expert keys, `mb_per_token` (10^6 bytes) loaded, per output token; accesses and hits as
        counts; `gap_captured`: 0 is LRU, 1 is MIN. docs/cache.md defines them.
        """
        import pandas as pd

        rows = [_row(found, row) for found in self.documents for row in found["rows"]]
        return pd.DataFrame(rows)

    def table(self) -> str:
        """The tables that `moesim cache` prints."""
        from moesim.analysis.cache_table import render

        return "\n".join(render(found) for found in self.documents)

    def plot(
        self, ax: Axes | None = None, *, measure: str = "hits", scope: str | None = None, trace: str | None = None
    ) -> Axes:
        """A line per policy and scope against the cache's size; an oracle dashed, a cache per layer hollow.

        measure: "hits" (%), "misses" (expert keys) or "bytes" (MB), the latter two per output token; scope, trace:
        only this one. Raises InputError where there is none of that name, or several traces and none is chosen.
        """
        from moesim.analysis.cache_axes import draw

        problems = []
        if measure not in MEASURES:
            problems.append(Problem("measure", unknown("measure", measure, MEASURES)))
        for name, value in (("scope", scope), ("trace", trace)):
            there = list(dict.fromkeys(self.frame[name]))
            if value is not None and value not in there:
                problems.append(Problem(name, unknown(name, value, there)))
        traces = list(dict.fromkeys(self.frame["trace"]))
        if trace is None and len(traces) > 1:
            problems.append(Problem("trace", f"there are several; choose one: {', '.join(traces)}"))
        if problems:
            raise InputError(problems)
        kept = self.frame[self.frame["trace"] == (trace or traces[0])]
        kept = kept if scope is None else kept[kept["scope"] == scope]
        document = next(found for found in self.documents if found["trace"] == (trace or traces[0]))
        return draw(kept, document, MEASURES[measure], ax)

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        from moesim.analysis.report.card import of_curves

        return of_curves(self)


def _row(found: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    whole = found["keys"] if row["counted"] else found["all_bytes"]
    share = row["amount"] / whole
    size = row["bytes_per_token"]
    nothing = float("nan")
    kept = {name: nothing if value is None else value for name, value in row.items() if name not in DROPPED}
    head = {name: kept.pop(name) for name in ("policy", "scope", "room", "capacity", "oracle")}
    known = found["key_bytes_known"] and size is not None
    measured = {"mb_per_token": size / 1e6 if known else nothing}
    sizes = {"experts_per_layer": share * found["experts"], "share": share}
    return {"trace": found["trace"], **head, **sizes, **kept, **measured}


def cache(
    traces: Path | str | Iterable[Path | str] | Mapping[str, Path | str],
    *,
    policies: str | Sequence[str] = POLICIES,
    sizes: str | Sequence[str] | None = None,
    scope: str | Sequence[str] = SCOPES,
    room: str | Sequence[str] = "strict",
    order: str = "event",
    start: str = "warm",
    between: str = "keep",
    rank: str = "first",
    bypass: bool = False,
    sequences: int | None = None,
    seed: int = 0,
    options: Options | None = None,
) -> Curves:
    """How big a cache, and which policy? Replays routing without time: hits of every policy at every size.

    traces: files, ours or any that `moesim trace import` reads (options: what such a file does not say), under names of
    your own where they are a mapping and by their file names elsewhere; policies:
    "lru", "lfu@layer", "lookahead(level=step)", a path, or "min", which knows the future; sizes of the whole cache:
    experts ("400"), experts a layer ("8/layer"), bytes ("2GB") or a share ("10%"), by default those of 5 % to 80 % that
    hold a key in every pool; the others as in `moesim cache --help`. Raises InputError with every mistake.
    """
    from moesim.replay import Settings, players, replay
    from moesim.replay.document import document
    from moesim.trace.importers import read_any

    problems: list[Problem] = []
    given = _named(traces)
    if not given:
        problems.append(Problem("traces", "names no file"))
    wrong = {"order": order, "start": start, "between": between, "rank": rank}
    for name, value in wrong.items():
        if value not in CHOICES[name]:
            problems.append(Problem(name, unknown("value", value, CHOICES[name])))
    scopes = _several("scope", scope, SCOPES, problems)
    rooms = _several("room", room, ROOMS, problems)
    who = _tried(lambda: players([policies] if isinstance(policies, str) else list(policies)), problems)
    how_much = _capacities(sizes or SIZES, problems)
    found = {
        name: _tried(lambda file=file: read_any(file, options), problems)  # type: ignore[misc]
        for name, file in given.items()
    }
    if problems or who is None:
        raise InputError(dict.fromkeys(problems))
    settings = Settings(scopes, rooms, order, start, between, sequences, seed, bypass, rank)  # type: ignore[arg-type]
    documents = []
    for name, trace in found.items():
        assert trace is not None
        fitting = how_much if sizes else settings.fitting(trace.meta, how_much)
        rows = _tried(lambda trace=trace, fitting=fitting: replay(trace, who, fitting, settings), problems)  # type: ignore[misc]
        documents.append(document(name, trace, settings, rows or ()))
    if problems:
        raise InputError(dict.fromkeys(problems))
    return Curves(documents)


def _named(traces: Path | str | Iterable[Path | str] | Mapping[str, Path | str]) -> dict[str, Path | str]:
    """Files by what they are called: by their paths where names of files do not tell them apart."""
    if isinstance(traces, Mapping):
        return dict(traces)
    files = [traces] if isinstance(traces, Path | str) else list(traces)
    stems = [Path(file).stem for file in files]
    return dict(zip(stems if len(set(stems)) == len(stems) else map(str, files), files, strict=True))


def _several(name: str, given: str | Sequence[str], known: Sequence[str], problems: list[Problem]) -> tuple[str, ...]:
    """Names, between commas or in a sequence, of those that are known."""
    names = tuple(dict.fromkeys(part.strip() for part in _parts(given)))
    problems += [Problem(name, unknown("value", one, known)) for one in names if one not in known]
    return names


def _capacities(given: str | Sequence[str], problems: list[Problem]) -> list[Capacity]:
    """Sizes, between commas or in a sequence."""
    from moesim.replay import Capacity

    found = []
    for part in _parts(given):
        try:
            found.append(Capacity.parse(str(part)))
        except ValueError as error:
            problems.append(Problem("sizes", str(error)))
    return list(dict.fromkeys(found))


def _parts(given: str | Sequence[str]) -> Sequence[str]:
    return given.split(",") if isinstance(given, str) else given


def _tried(make: Callable[[], T], problems: list[Problem]) -> T | None:
    """What `make` gives, or None where it raises InputError; options of the command are called by their parameters."""
    try:
        return make()
    except InputError as error:
        problems += [Problem(problem.place.removeprefix("--"), problem.text) for problem in error.problems]
        return None

