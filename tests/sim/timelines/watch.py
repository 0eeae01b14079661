"""What the simulator does, as `moesim.sim.watch` sees it, in the words of the timelines that were written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from moesim.check import toy
from moesim.sim import Inputs, RunResult, simulate
from moesim.sim.watch import STREAM_WAITS, Span, Watch
from tests.sim.timelines.timeline import Bar, Mark, Panel, Server

POLICIES = Path(__file__).parent / "policies"
LANES = ("stream", "host", "link", "cache", "router")


class View(NamedTuple):
    """What was seen, as the hand writes it: bars by lane, and marks."""

    lanes: dict[str, list[Bar]]
    marks: list[Mark]


def view(watch: Watch, origin: int) -> View:
    """Everything from `origin` on, in ns from there."""
    lanes = {name: [_bar(span) for span in watch.lanes[name]] for name in LANES}
    lanes["stream"] = _joined(lanes["stream"], {step.start for step in watch.steps})
    lanes["cache"] += [Bar(start, None, f"{kind} {key}") for (kind, key), start in watch.held.items()]
    shown = {name: [_moved(bar, origin) for bar in bars if _within(bar, name, origin)] for name, bars in lanes.items()}
    marks = [Mark(mark.at - origin, _named(mark.kind, mark.keys)) for mark in watch.marks if mark.at >= origin]
    return View(shown, marks)


def _within(bar: Bar, lane: str, origin: int) -> bool:
    return bar.end is None or bar.end > origin or (lane == "cache" and bar.end == origin)


def _bar(span: Span) -> Bar:
    return Bar(span.start, span.end, _named(span.kind, span.keys))


def _named(kind: str, keys: Sequence[int]) -> str:
    return " ".join([kind, *map(str, keys)])


def _joined(bars: list[Bar], starts: set[int]) -> list[Bar]:
    """Waiting on the stream that goes on within a step is one bar."""
    found: list[Bar] = []
    for bar in bars:
        goes_on = found and bar.what in STREAM_WAITS.values() and found[-1][1:] == (bar.start, bar.what)
        if goes_on and bar.start not in starts:
            found[-1] = Bar(found[-1].start, bar.end, bar.what)
        else:
            found.append(bar)
    return found


def _moved(bar: Bar, origin: int) -> Bar:
    start = None if bar.start < origin and bar.what.split()[0] in ("key", "staged") else bar.start - origin
    return Bar(start, None if bar.end is None else bar.end - origin, bar.what)


def inputs(made: Server) -> Inputs:
    """Its trace, shape and tables. The n-th request of a run replays the n-th of `requests`."""
    places = toy.as_requests([([n], [0]) for n in range(len(made.requests))])
    sequences = [made.requests[p[0]] for p, _ in places]
    trace = toy.trace(sequences, layers=made.layers, experts=made.experts, router=made.router)  # type: ignore[arg-type]
    fields = {"key_sizes": made.key_sizes, "key_map": made.key_map}
    shape = toy.shape(made.layers, made.experts, made.key_bytes).model_copy(update=fields)
    return Inputs(trace, shape, made.costs, toy.ToyLink(made.copy_fixed))  # type: ignore[arg-type]


def run(panel: Panel, **machine: Any) -> tuple[Any, Inputs]:
    """Configuration and inputs of a panel: its run ends with the window, and the window is what is measured."""
    made = panel.server
    settings: dict[str, Any] = {
        "memory": made.memory,
        "machine": {"chunk_bytes": 1000} | made.machine | machine,
        "traffic": {"kind": "all", "requests": len(made.requests)},
        "warmup_steps": panel.first,
        "steps": panel.first + len(panel.steps),
    }
    named = {kind: _found(made.changes[kind]) for kind in ("cache", "prefetch") if kind in made.changes}
    return toy.config(**(settings | made.changes | named)), inputs(made)


def _found(spec: Any) -> Any:
    """A policy of this folder by its name, any other as it is."""
    name = spec["name"] if isinstance(spec, dict) else spec
    own = POLICIES / f"{name}.py"
    return {**spec, "name": str(own)} if own.is_file() else spec


def watched(panel: Panel, **machine: Any) -> tuple[RunResult, dict[str, list[Bar]], list[Mark]]:
    """Run a panel's server and look on: the result, the lanes and the marks of its window."""
    watch = Watch()
    config, given = run(panel, **machine)
    result = simulate(config, given, 0, check=True, watch=watch)
    return result, *view(watch, panel.origin)


def recorded(panel: Panel) -> RunResult:
    """Run a panel's server, and keep a row per copy."""
    config, given = run(panel)
    return simulate(config, given, 0, check=True, transfers=True)
