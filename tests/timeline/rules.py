"""The rules of Chrome's trace format that Perfetto relies on, and ours: what is wrong with a document, in words."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

Event = dict[str, Any]
GROWING = ("accesses, keys", "link, bytes copied")
METADATA = ("process_name", "process_sort_index", "thread_name", "thread_sort_index")


def ns(microseconds: float) -> int:
    """Nanoseconds; they are whole."""
    return round(microseconds * 1000)


def whole(microseconds: Any) -> bool:
    return isinstance(microseconds, int | float) and abs(microseconds * 1000 - ns(microseconds)) < 1e-4


def slices(document: Any) -> dict[tuple[int, int], list[Event]]:
    """Slices by process and track, in time."""
    found = defaultdict(list)
    for event in document["traceEvents"]:
        if event["ph"] == "X":
            found[event["pid"], event["tid"]].append(event)
    return {track: sorted(events, key=lambda event: event["ts"]) for track, events in found.items()}


def track(document: Any, name: str) -> list[Event]:
    """Slices of the track of a name; raises ValueError if there is not one such track."""
    named = [e for e in document["traceEvents"] if e["name"] == "thread_name" and e["args"]["name"] == name]
    (only,) = named
    return slices(document).get((only["pid"], only["tid"]), [])


def wrong(document: Any) -> list[str]:
    """Everything that breaks a rule."""
    found = []
    if json.loads(json.dumps(document, allow_nan=False)) != document:
        found.append("it does not survive JSON")
    if document["displayTimeUnit"] not in ("ms", "ns") or not all(
        isinstance(value, str) for value in document["otherData"].values()
    ):
        found.append("its head is not as the format has it")
    for event in document["traceEvents"]:
        found += [f"{rule}: {event}" for rule in _wrong(event)]
    return found or [*_tracks(document), *_counters(document)]


def _wrong(event: Event) -> list[str]:
    kind = event.get("ph")
    found = []
    if not (isinstance(event.get("name"), str) and event["name"]):
        found.append("no name")
    if not isinstance(event.get("pid"), int) or (kind != "C" and not isinstance(event.get("tid"), int)):
        found.append("no place")
    if not isinstance(event.get("args"), dict):
        found.append("no arguments")
    if kind == "M":
        return found + ["unknown metadata"] * (event["name"] not in METADATA)
    if not whole(event.get("ts")) or event["ts"] < 0:
        found.append("no time in whole ns from 0 on")
    if kind == "X" and (not whole(event.get("dur")) or event["dur"] <= 0 or not event.get("cat")):
        found.append("no duration above 0, or no category")
    if kind == "i" and event.get("s") != "t":
        found.append("an instant that is not of a track")
    return found + ["unknown phase"] * (kind not in ("X", "C", "i"))


def _tracks(document: Any) -> list[str]:
    events = document["traceEvents"]
    processes = [e["pid"] for e in events if e["name"] == "process_name"]
    tracks = [(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"]
    named = [(e["pid"], e["args"]["name"]) for e in events if e["name"] == "thread_name"]
    found = ["a name that comes twice"] * any(len(set(one)) < len(one) for one in (processes, tracks, named))
    used = {(e["pid"], e["tid"]) for e in events if e["ph"] in "Xi"}
    found += [f"no name for {one}" for one in used - set(tracks)]
    found += [f"no name for process {one}" for one in {e["pid"] for e in events} - set(processes)]
    for one in slices(document).values():
        for before, after in pairwise(one):
            if ns(before["ts"]) + ns(before["dur"]) > ns(after["ts"]):
                found.append(f"overlap: {before} and {after}")
    return found


def _counters(document: Any) -> list[str]:
    found = []
    counters = defaultdict(list)
    for event in document["traceEvents"]:
        if event["ph"] == "C":
            counters[event["name"]].append(event)
    for name, events in counters.items():
        if any(set(event["args"]) != set(events[0]["args"]) for event in events):
            found.append(f"series of {name} change")
        if any(not isinstance(value, int) or value < 0 for event in events for value in event["args"].values()):
            found.append(f"{name} has values that are no counts")
        for before, after in pairwise(events):
            if after["ts"] < before["ts"]:
                found.append(f"{name} goes back in time")
            if name in GROWING and any(after["args"][key] < value for key, value in before["args"].items()):
                found.append(f"{name} falls at {after['ts']}")
    return found
