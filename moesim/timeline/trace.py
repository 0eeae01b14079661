"""What was watched as a trace in Chrome's JSON format, which Perfetto reads.

Tracks: one process for the machine - steps, compute stream, host, link, CPU, router - and one with a track per request.
Slices of a track never overlap. `ts` and `dur` are microseconds from the start of the window, exact to the nanosecond.
Source: Trace Event Format (Google, 2016), sections "JSON Object Format", "Complete", "Counter", "Instant" and "Metadata
Events".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from moesim.hardware.keys import Keys
from moesim.sim.watch import STREAM_WAITS, Mark, Sample, Span, Step, Watch
from moesim.sim.work import Part

Event = dict[str, Any]
MACHINE, REQUESTS = 1, 2
STEPS = "steps"
TRACKS = {
    STEPS: "steps",
    "stream": "GPU stream",
    "host": "host",
    "link": "link, host to GPU",
    "to host": "link, GPU to host",
    "cpu": "CPU experts",
    "router": "router on the side",
}
"""lanes of the machine, in their order, and what they are called"""
OPTIONAL = ("to host", "cpu", "router")
"""lanes that are left out where nothing happens on them"""
WAITS = {
    "host": "wait: host",
    "miss stall": "stall: miss",
    "late stall": "stall: late hit",
    "cpu stall": "stall: CPU",
    "kv stall": "stall: KV memory",
}
assert set(WAITS) >= set(STREAM_WAITS.values())
COPIES = ("demand", "prefetch", "promoted")


def trace(watch: Watch, requests: Mapping[str, Any], keys: Keys, about: Mapping[str, Any]) -> dict[str, Any]:
    """The document. `requests` is the table of the run; `about` says what it is of, and goes into `otherData`.

    Raises ValueError where no step was seen.
    """
    if not watch.steps:
        raise ValueError("no step was watched, so that there is nothing to show")
    made = _Trace(watch, requests, Names(keys))
    other = {"origin_ns": made.origin, "steps": f"{watch.steps[0].number}:{watch.steps[-1].number + 1}"}
    other |= {key: value for key, value in about.items() if value != ""}
    return {
        "displayTimeUnit": "ns",
        "otherData": {key: str(value) for key, value in other.items()},
        "traceEvents": list(made.events()),
    }


class Names:
    """What keys are called: the layer and the expert that they are of."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.places: dict[int, tuple[int, int]] = {}
        for layer in reversed(range(keys.layers)):
            for expert in reversed(range(keys.experts)):
                self.places[keys.table[layer][expert]] = layer, expert

    def expert(self, key: int, layer: int | None = None) -> int:
        """The expert that a key is in a layer, or in the first that has it."""
        if layer is not None and key in self.keys.table[layer]:
            return self.keys.table[layer].index(key)
        return self.places[key][1]

    def of(self, key: int, layer: int | None = None) -> str:
        if key < 0:
            return "KV memory"  # as the link names what it moves of it
        return f"layer {self.places[key][0] if layer is None else layer} expert {self.expert(key, layer)}"


class _Trace:
    def __init__(self, watch: Watch, requests: Mapping[str, Any], names: Names) -> None:
        self.watch, self.requests, self.names = watch, requests, names
        self.origin, self.end = watch.steps[0].start, watch.steps[-1].end
        lanes = [lane for lane in TRACKS if lane not in OPTIONAL or watch.lanes[lane]]
        self.tracks = {lane: number for number, lane in enumerate(lanes, 1)}

    def events(self) -> Iterator[Event]:
        served = self._present()
        yield from self._metadata(served)
        for step in self.watch.steps:
            yield self._slice(MACHINE, self.tracks[STEPS], f"step {step.number}", "step", step, _batch(step))
        for lane, track in self.tracks.items():
            for span in [] if lane == STEPS else self._of_lane(lane):
                if span.end > self.origin:
                    name, kind = self._named(lane, span)
                    yield self._slice(MACHINE, track, name, kind, span, self._about(span))
        for number in served:
            yield from self._request(number)
        yield from map(self._instant, self._shown(self.watch.marks))
        yield from map(self._counter, sorted(self._shown(self.watch.samples), key=lambda sample: sample.at))

    def _of_lane(self, lane: str) -> Sequence[Span]:
        """Its slices; between steps the stream has nothing to do, unless it waits for KV memory."""
        spans = self.watch.lanes[lane]
        if lane != "stream":
            return spans
        edges = sorted((span.start, span.end) for span in spans)
        idle = [Span(before[1], after[0], "idle") for before, after in pairwise(edges) if before[1] < after[0]]
        return [*spans, *idle]

    def _shown(self, seen: Sequence[Any]) -> Iterator[Any]:
        return (one for one in seen if self.origin <= one.at <= self.end)

    # -- events ------------------------------------------------------------------------------------------------

    def _time(self, at: int) -> float:
        return (at - self.origin) / 1000

    def _slice(self, process: int, track: int, name: str, kind: str, span: Any, about: Mapping[str, Any]) -> Event:
        start = max(span.start, self.origin)
        event = {"name": name, "cat": kind, "ph": "X", "ts": self._time(start), "dur": (span.end - start) / 1000}
        return event | {"pid": process, "tid": track, "args": dict(about)}

    def _instant(self, mark: Mark) -> Event:
        track = self.tracks["host" if mark.kind == "asked" else "link"]
        name = " ".join([mark.kind, *map(self.names.of, mark.keys)])
        event = {"name": name, "cat": mark.kind, "ph": "i", "s": "t", "ts": self._time(mark.at)}
        return event | {"pid": MACHINE, "tid": track, "args": self._keys(mark.keys)}

    def _counter(self, sample: Sample) -> Event:
        event = {"name": sample.counter, "ph": "C", "ts": self._time(sample.at), "pid": MACHINE}
        return event | {"args": sample.values}

    def _metadata(self, served: Sequence[int]) -> Iterator[Event]:
        names = [(MACHINE, 0, "process", "machine"), (REQUESTS, 0, "process", "requests")]
        names += [(MACHINE, track, "thread", TRACKS[lane]) for lane, track in self.tracks.items()]
        names += [(REQUESTS, number + 1, "thread", f"request {number}") for number in served]
        for process, track, what, name in names:
            place = {"ph": "M", "pid": process, "tid": track}
            order = process if what == "process" else track
            yield place | {"name": f"{what}_name", "args": {"name": name}}
            yield place | {"name": f"{what}_sort_index", "args": {"sort_index": order}}

    # -- the machine -------------------------------------------------------------------------------------------

    def _named(self, lane: str, span: Span) -> tuple[str, str]:
        """Name and category of a slice of the machine."""
        notes, layer = span.notes, span.notes.get("layer")
        if lane == "stream" and span.kind in WAITS:
            key, reason = notes.get("waits_for"), notes.get("for") or notes.get("moves")
            what = self.names.of(key, layer) if key is not None else reason
            return f"{WAITS[span.kind]}" + (f", {what}" if what else ""), WAITS[span.kind]
        if lane == "link" and span.kind in COPIES:
            kind = f"{span.kind} (wasted)" if notes.get("wasted") else span.kind
            return f"{kind}, {self.names.of(span.keys[0])}", kind
        if span.kind == "experts":
            return "experts " + " ".join(str(self.names.expert(key, layer)) for key in span.keys), span.kind
        if lane == "router":
            return f"route {span.keys[0]} tokens", span.kind
        if span.kind in ("submit", "hand over", "expert on the CPU"):
            shown = f"{len(span.keys)} keys" if len(span.keys) > 1 else "".join(map(self.names.of, span.keys))
            return f"{span.kind} {shown}", span.kind
        return span.kind, span.kind

    def _about(self, span: Span) -> dict[str, Any]:
        """What a slice says of itself: layer, experts, class, bytes."""
        notes = dict(span.notes)
        key = notes.pop("waits_for", None)
        if span.kind == "route":
            return {"tokens": span.keys[0]}
        if key is not None:
            notes |= self._keys((key,), notes.get("layer"))
        return notes | self._keys(span.keys, notes.get("layer"))

    def _keys(self, keys: Sequence[int], layer: int | None = None) -> dict[str, Any]:
        found = [key for key in keys if key >= 0]
        if not found:
            return {}
        if len(found) == 1:
            return {
                "key": found[0],
                "layer": self.names.places[found[0]][0] if layer is None else layer,
                "expert": self.names.expert(found[0], layer),
            }
        return {"keys": found, "experts": [self.names.of(key, layer) for key in found]}

    # -- requests ----------------------------------------------------------------------------------------------

    def _present(self) -> list[int]:
        """Requests that are there in the window, though they only wait."""
        times = zip(*(self.requests[name] for name in ("request", "arrival_ns", "finished_ns")), strict=True)
        return [int(n) for n, came, done in times if 0 <= came < self.end and (done < 0 or done > self.origin)]

    def _request(self, number: int) -> Iterator[Event]:
        """Routing, queue, and what it does in each step; what is left between is waiting."""
        place = list(self.requests["request"]).index(number)
        row = {name: column[place] for name, column in self.requests.items()}
        arrival, visible = int(row["arrival_ns"]), int(row["visible_ns"])
        steps = [(step, part) for step in self.watch.steps for part in step.parts if part.request == number]
        begun = int(row["started_ns"])
        queued_until = self.end if begun < 0 else min(begun, self.end)
        about = {"domain": str(row["domain"]), "prompt": int(row["prompt_tokens"]), "output": int(row["output_tokens"])}
        seen: list[tuple[Span, dict[str, Any]]] = [
            (Span(arrival, visible, "route"), about),
            (Span(visible, queued_until, "queue"), about),
            *(_done(step, part) for step, part in steps),
        ]
        first = max(self.origin, queued_until)
        edges = [(first, first), *((step.start, step.end) for step, _ in steps), (self._left(row), self.end)]
        seen += [(Span(before[1], after[0], "between steps"), {}) for before, after in pairwise(edges)]
        for span, what in sorted(seen, key=lambda pair: pair[0].start):
            if span.end > max(span.start, self.origin):
                yield self._slice(REQUESTS, number + 1, span.kind, span.kind.split()[0], span, what)

    def _left(self, row: Mapping[str, Any]) -> int:
        """Until when a request is there, within the window."""
        finished = int(row["finished_ns"])
        return self.end if finished < 0 else min(finished, self.end)


def _done(step: Step, part: Part) -> tuple[Span, dict[str, Any]]:
    """What a request does in a step."""
    kind = f"prefill {part.tokens} tokens" if part.prefill else "decode"
    return Span(step.start, step.end, kind), {"step": step.number, "first": part.start, "tokens": part.tokens}


def _batch(step: Step) -> dict[str, Any]:
    prefill = sum(part.tokens for part in step.parts if part.prefill)
    decode = sum(part.tokens for part in step.parts if not part.prefill)
    return {"requests": len(step.parts), "prefill_tokens": prefill, "decode_tokens": decode}
