"""What was measured, and what could not be: said above and below every table."""

from __future__ import annotations

from collections.abc import Sequence

from moesim.analysis.configurations import Configuration
from moesim.analysis.searched import largest_of, promise


def warnings(configurations: Sequence[Configuration]) -> list[str]:
    """Said before anything else: configurations whose latencies mean nothing."""
    found = []
    total = len(configurations)
    over = sum(c.holds("overloaded") and not largest_of([c]) for c in configurations)
    cut = sum(c.holds("cut_off") for c in configurations)
    if over:
        found.append(f"OVERLOADED: {over} of {total} configurations cannot keep up; their latencies grow with the run.")
    if cut:
        found.append(f"CUT OFF: {cut} of {total} configurations ran out of `steps` before their requests had left.")
    return found


def notes(configurations: Sequence[Configuration]) -> list[str]:
    """Which requests are measured, whether the beginning shows in them, and which replications count as one."""
    said = (_windows, _unfinished, _unsettled, _open, _searched, _clusters, _same_arrivals)
    return [text for note in said for text in note(configurations)]


def _windows(configurations: Sequence[Configuration]) -> list[str]:
    with_one = [c for c in configurations if (c.value("window_requests") or -1) > 0]
    if not with_one:
        return []
    spans = sorted({(int(c.value("window_first")), int(c.value("window_requests"))) for c in with_one})
    text = " or ".join(f"{first:,} to {first + count - 1:,}" for first, count in spans[:3])
    more = f" (or others, {len(spans)} in all)" if len(spans) > 3 else ""
    return [f"requests {text}{more} of each run are measured, the same of all policies (warm-up: docs/statistics.md)"]


def _unfinished(configurations: Sequence[Configuration]) -> list[str]:
    """Where the steps were over before all measured requests had left: whose the latencies are."""
    shown = [c for c in configurations if not c.unmeasured]
    runs = [counts for c in shown for counts in c.together("finished_requests", "measured_requests")]
    lucky = sorted({counts for counts in runs if counts[0] < counts[1]}, key=lambda counts: counts[0] / counts[1])
    if not lucky:
        return []
    (finished, count), *others = lucky
    of = f"{finished:,.0f} of the {count:,.0f} measured requests"
    if others or len(set(runs)) > 1:
        return [f"TTFT, TPOT and other latencies are of those that had left, in one run {of}"]
    return [f"TTFT, TPOT and other latencies are of {of}: the others had not left"]


def _unsettled(configurations: Sequence[Configuration]) -> list[str]:
    texts = {
        "unsettled": "may not have settled when measuring began (MSER-5); measure more requests",
        "steps_ended": "ran out of `steps` before all their requests had come and left; give more, or a window",
        "arrivals_ended": "had no more arrivals before all that are measured had left: their end is too quiet",
    }
    runs = sum(len(c.runs) for c in configurations)
    found = {name: sum(c.count(name) for c in configurations) for name in texts}
    return [f"{count} of {runs} runs {texts[name]}" for name, count in found.items() if count]


def _open(configurations: Sequence[Configuration]) -> list[str]:
    if not any(c.holds("open_traffic") and not largest_of([c]) for c in configurations):
        return []
    return [
        "open traffic: ms per token is the mean normalized latency (end-to-end / output tokens), by which B and * are",
        "  chosen; where all are overloaded it is the time per output token, what the server can do",
    ]


def _searched(configurations: Sequence[Configuration]) -> list[str]:
    found = dict.fromkeys(promise(c) for c in configurations if largest_of([c]))
    return [
        *(f"largest load: at which {text}; by it B and * are chosen" for text in found),
        *["  their runs are each at a load of its own: times and misses (summary.csv) are not compared"] * bool(found),
    ]


def _clusters(configurations: Sequence[Configuration]) -> list[str]:
    shared = {(len(c.runs), len(c.units)) for c in configurations if len(c.units) < len(c.runs)}
    return [
        f"{runs} replications share {units} sets of captured sequences and count as {units}: a domain has too few"
        for runs, units in sorted(shared)
    ]


def _same_arrivals(configurations: Sequence[Configuration]) -> list[str]:
    if not any(c.holds("same_arrivals") for c in configurations):
        return []
    return ["all replications have the arrivals of the file (sample: 1): intervals do not cover how arrivals vary"]
