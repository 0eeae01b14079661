"""What changed, in words computed from the numbers: for a terminal, for a job's summary, for the page."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from moesim.analysis.regression.numbers import SEPARATOR, Change, Number, Verdict
from moesim.analysis.regression.rules import is_blank

CASE = "case"
POLICY_AXES = ("preset", "cache", "prefetch", "scheduler.batch", "miss")
SAID_BY_VALUE = (CASE, "cache", "preset", "prefetch", "miss", "scheduler.batch", "memory.scope")
MOST = 30
"""differences beside numbers that are told one by one"""


def axes(point: str) -> dict[str, str]:
    """A point's axes with their labels."""
    pairs = (part.partition("=") for part in point.split(SEPARATOR))
    return {axis if equals else CASE: label if equals else axis for axis, equals, label in pairs}


def short(point: str, points: Collection[str]) -> str:
    """A point in a few words: what all points have in common is left out, and names of axes that say nothing."""
    mine, all_axes = axes(point), [axes(other) for other in points]
    differing = [axis for axis in mine if len({other.get(axis) for other in all_axes}) > 1]
    words = (mine[a] if a in SAID_BY_VALUE else f"{a.split('.')[-1].replace('_', ' ')} {mine[a]}" for a in differing)
    return " · ".join(words) or point.replace(SEPARATOR, " · ")


def run_words(run: str, verdict: Verdict) -> str:
    """A run, or a point, in a few words, with its replication where there are several."""
    runs = verdict.now.runs if verdict.now else {}
    found = runs.get(run)
    name = short(found.point if found else run, sorted({other.point for other in runs.values()}))
    several = len({other.replication for other in runs.values()}) > 1
    return f"{name}, replication {found.replication}" if found and several else name


def percent(relative: float) -> str:
    """A relative change with its sign, with as many decimals as show that it is none."""
    if math.isnan(relative):
        return ""
    if math.isinf(relative):
        return "from 0"
    value = relative * 100
    digits = 0 if abs(value) >= 9.95 else 1 if abs(value) >= 0.095 else 2 if abs(value) >= 0.0095 else 4
    text = f"{value:+,.{digits}f}"
    return f"{text} %" if float(text.replace(",", "")) else f"{'+' if value > 0 else '-'}<0.0001 %"


def number(value: Number) -> str:
    """With separators; floats to six digits, more where they are needed to tell two apart."""
    if is_blank(value):
        return "blank"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def pair(change: Change) -> str:
    """`1,204 -> 1,702 (+41 %)`."""
    before, after = number(change.before), number(change.after)
    if before == after:
        before, after = repr(change.before), repr(change.after)
    told = percent(change.relative)
    return f"{before} -> {after}" + (f" ({told})" if told else "")


def who(changed: Collection[str], everyone: Collection[str]) -> str:
    """Which runs changed, by what they and no others have in common: `the 6 runs with cache lru, and in no other`."""
    chosen, of_axes = set(changed), {run: axes(run.rpartition(f"{SEPARATOR}r")[0] or run) for run in everyone}
    if chosen == set(everyone):
        return "every run" if len(chosen) > 1 else "the only run"
    pairs = sorted({pair for run in chosen for pair in of_axes.get(run, {}).items()})
    for size in (1, 2):
        for some in itertools.combinations(pairs, size):
            if len(dict(some)) == size and {r for r, found in of_axes.items() if _has(found, some)} == chosen:
                return f"{_runs(len(chosen))} with {_and(some)}, and in no other"
    around = [(sum(_has(found, (p,)) for found in of_axes.values()), p) for p in pairs]
    holding = sorted((n, p) for n, p in around if n < len(of_axes) and all(_has(of_axes[r], (p,)) for r in chosen))
    if holding:
        return f"{len(chosen)} of the {holding[0][0]} runs with {_and((holding[0][1],))}, and in no other"
    return f"{len(chosen)} of {_runs(len(of_axes), '')}{_most_of(chosen, of_axes)}"


def _most_of(chosen: Collection[str], of_axes: Mapping[str, Mapping[str, str]]) -> str:
    """Which policies or presets the chosen runs have, most of them first."""
    for axis in POLICY_AXES:
        if len({found.get(axis) for found in of_axes.values()}) > 1:
            counts = Counter(of_axes[run].get(axis, "none") for run in sorted(chosen)).most_common()
            told = ", ".join(f"{label} {count}" for label, count in counts[:3])
            rest = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
            return f" ({axis.split('.')[-1]} {told}{rest})"
    return ""


def _has(found: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> bool:
    return all(found.get(axis) == label for axis, label in pairs)


def _and(pairs: Sequence[tuple[str, str]]) -> str:
    return " and ".join(f"{axis.split('.')[-1]} {label}" for axis, label in pairs)


def _runs(count: int, the: str = "the ") -> str:
    return f"{the}{count} runs" if count != 1 else f"{the or '1 '}run"


def everyone(verdict: Verdict, metric: str) -> list[str]:
    """The runs, or with intervals the points, that were compared in a metric."""
    if verdict.now is None:
        return []
    if verdict.rules[metric].kind == "interval":
        return list(dict.fromkeys(verdict.now.runs[name].point for name in verdict.compared))
    return verdict.compared


def in_all(verdict: Verdict) -> str:
    """Where all changes of an experiment are: what tells the runs that changed in anything from the others."""
    points = {change.point for change in verdict.changes}
    runs = [name for name in verdict.compared if verdict.now and verdict.now.runs[name].point in points]
    if set(runs) == set(verdict.compared):
        return "Something changed in every run" if runs else ""
    return f"All that changed is in {who(runs, verdict.compared)}"


def of_metric(verdict: Verdict, metric: str, changes: Sequence[Change]) -> str:
    """What became of a metric, to go on behind its name: `fell by 3 to 65 % in ..., and in no other; most ...`."""
    largest = changes[0]
    where = who([c.run for c in changes], everyone(verdict, metric))
    most = f"{pair(largest)} in {run_words(largest.run, verdict)}"
    return f"{moved(changes)} in {where}; {'most' if len(changes) > 1 else 'namely'} {most}"


def moved(changes: Sequence[Change]) -> str:
    """Up or down, and by how much."""
    told = [c.relative for c in changes if not math.isnan(c.relative)]
    if len(told) < len(changes):
        return "changed (a blank is no number)"
    sizes = sorted(map(abs, told))
    low, high = (percent(size).lstrip("+") for size in (sizes[0], sizes[-1]))
    if min(told) < 0 < max(told):
        finite = [size for size in told if math.isfinite(size)]
        rest = " (and from 0)" if len(finite) < len(told) else ""
        return f"moved by {percent(min(finite))} to {percent(max(finite))}{rest}"
    verb = "rose" if told[0] > 0 else "fell"
    if math.isinf(sizes[-1]):
        return f"{verb} from 0" if math.isinf(sizes[0]) else f"{verb} by {low} and more"
    return f"{verb} by {high}" if low == high else f"{verb} by {low.removesuffix(' %')} to {high}"


def plot_of(name: str, metric: str = "") -> str:
    """File name of a plot: of all metrics of an experiment, or close up of one that changed."""
    return f"{name}-{metric}.png" if metric else f"{name}.png"


def lines_of(verdict: Verdict, folder: str = "") -> Iterator[str]:
    """A line for each thing that differs, that of a metric with its plot."""
    yield from notes_of(verdict)
    if len(verdict.changed()) > 1:
        yield in_all(verdict)
    for metric, changes in verdict.changed().items():
        plot = f" [{folder}/{plot_of(verdict.name, metric)}]" if folder else ""
        yield f"{metric} {of_metric(verdict, metric, changes)}{plot}"


def notes_of(verdict: Verdict) -> list[str]:
    """What differs beside numbers; only so many of a kind."""
    found: list[str] = []
    for kind, notes in itertools.groupby(verdict.notes, key=lambda note: note.kind):
        texts = [note.text for note in notes]
        found += texts[:MOST]
        if len(texts) > MOST:
            found.append(f"{len(texts) - MOST} more of the same kind ({kind})")
    return found


def headline(verdicts: Sequence[Verdict]) -> str:
    """The whole in one sentence."""
    changed = sum(len(v.changes) for v in verdicts)
    notes = sum(len(v.notes) for v in verdicts)
    compared = sum(len(v.compared) * len(v.metrics) for v in verdicts)
    if not changed and not notes:
        return f"Nothing changed: {compared:,} numbers of {_several(len(verdicts), 'experiment')} equal their baselines"
    red = sum(not v.passed for v in verdicts)
    parts = [f"{changed:,} of {compared:,} numbers changed"] * bool(changed)
    if notes:
        parts.append(_several(notes, "other difference" if changed else "difference"))
    return f"{' and '.join(parts)} in {red} of {_several(len(verdicts), 'experiment')}"


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def terminal(verdicts: Sequence[Verdict], folder: str, again: str) -> list[str]:
    """What the command prints."""
    found = []
    for verdict in verdicts:
        runs = len(verdict.now.runs) if verdict.now else 0
        size = f"{_several(runs, 'run')}, {_several(len(verdict.rules), 'metric')}"
        found.append(f"{'ok     ' if verdict.passed else 'CHANGED'} {verdict.name}: {size}")
        found += [f"    {line}" for line in lines_of(verdict, folder)]
    found += ["", headline(verdicts)]
    if not all(verdict.passed for verdict in verdicts):
        found.append(advice(verdicts, f"{again} --update"))
    return found


def advice(verdicts: Sequence[Verdict], update: str) -> str:
    """What to do about what differs; where runs fail, `--update` writes nothing."""
    if any(verdict.failed for verdict in verdicts):
        return "Mend what failed first: the page has the place, and --update writes nothing while runs fail."
    return f"If that is meant: {update}, look at the diff of the baselines, commit it."


def markdown(verdicts: Sequence[Verdict], page: str, again: str) -> str:
    """The summary of a job in continuous integration."""
    passed = all(verdict.passed for verdict in verdicts)
    found = [f"## {'✅' if passed else '❌'} moesim regress", "", f"{headline(verdicts)}.", ""]
    found += ["| experiment | runs | metrics | result |", "|---|---:|---:|---|"]
    for verdict in verdicts:
        runs = len(verdict.now.runs) if verdict.now else 0
        result = "same" if verdict.passed else ", ".join(_results(verdict))
        found.append(f"| {_cell(verdict.name)} | {runs} | {len(verdict.rules)} | {_cell(result)} |")
    for verdict in (v for v in verdicts if not v.passed):
        found += ["", f"### {verdict.name}", "", *(f"* {_cell(line)}" for line in lines_of(verdict))]
    if not passed:
        found += ["", f"Page and plots: `{page}`, in the job's artifacts."]
        found += ["", advice(verdicts, f"`{again} --update`")]
    return "\n".join(found) + "\n"


def _results(verdict: Verdict) -> list[str]:
    metrics = verdict.changed()
    found = [f"**{_several(len(verdict.changes), 'number')} changed** ({', '.join(metrics)})"] if metrics else []
    return found + [f"**{_several(len(verdict.notes), 'other difference')}**"] * bool(verdict.notes)


def _cell(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def document(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """What `--json` prints of the experiments."""
    return [
        {
            "name": verdict.name,
            "passed": verdict.passed,
            "runs": len(verdict.now.runs) if verdict.now else 0,
            "rules": {metric: rule.text for metric, rule in verdict.rules.items()},
            "differences": [{"kind": note.kind, "text": note.text} for note in verdict.notes],
            "changes": [_change(change, verdict) for some in verdict.changed().values() for change in some],
            "plots": {"": plot_of(verdict.name)} if verdict.compared else {},
        }
        for verdict in verdicts
    ]


def _change(change: Change, verdict: Verdict) -> dict[str, Any]:
    found = {
        "metric": change.metric,
        "run": change.run,
        "before": _plain(change.before),
        "after": _plain(change.after),
        "relative": _plain(change.relative),
        "plot": plot_of(verdict.name, change.metric),
    }
    limits = {"relative_low": change.low, "relative_high": change.high}
    return found | {key: value for key, value in limits.items() if not math.isnan(value)}


def _plain(value: Number) -> Number | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
