"""What a set of configurations is called: by what tells it from the others, and not by what all have in common.

A set holds the configurations that share all but the cache's memory, scope and policy: case, traffic, prefetcher,
batcher, schedule. A group is a part of a set, with equal memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from moesim.analysis.configurations import BUDGET, SIZE, Configuration

Set = tuple[tuple[str, str], ...]
CASE = "case"


def set_of(configuration: Configuration) -> Set:
    """What all configurations of its set have in common."""
    budget = any(key == BUDGET for key, _ in configuration.group)
    sizes = (*SIZE, *(f"memory.kv.{size}" for size in ("share", "bytes", "blocks") if budget))
    return tuple(pair for pair in configuration.group if pair[0] not in sizes)


def sets(configurations: Iterable[Configuration]) -> dict[Set, list[Configuration]]:
    """The configurations by set, those of one case beside each other, else in the order of the file."""
    found: dict[Set, list[Configuration]] = {}
    for c in configurations:
        found.setdefault(set_of(c), []).append(c)
    cases = list(dict.fromkeys(_case(key) for key in found))
    return dict(sorted(found.items(), key=lambda pair: cases.index(_case(pair[0]))))


def distinctions(key: Set, keys: Iterable[Set]) -> list[str]:
    """In words what tells a set from all others: its case, then each value that the sets of its case differ in."""
    mine, case = dict(key), [dict(other) for other in keys if _case(other) == _case(key)]
    differing = [k for k in _columns(key) if len({other.get(k) for other in case}) > 1]
    return [*filter(None, [_case(key)]), *(in_words(k, mine[k]) for k in differing if mine[k])]


def heading(key: Set, keys: Sequence[Set]) -> list[str]:
    """Its distinctions, and each value that is not the usual one; read with `usual` it says everything."""
    mine, common = dict(key), usual(keys)
    strange = [in_words(k, mine[k]) for k in _columns(key) if mine[k] and mine[k] != common.get(k)]
    named = distinctions(key, keys)
    return [*named, *(words for words in strange if words not in named)]


def usual(keys: Sequence[Set]) -> dict[str, str]:
    """Of each column the value that more than half of the sets have; a heading says it only where a case has others."""
    found = {}
    for k in dict.fromkeys(k for key in keys for k in _columns(key)):
        value, count = Counter(dict(key).get(k, "") for key in keys).most_common(1)[0]
        if 2 * count > len(keys):
            found[k] = value
    return found


def usual_words(keys: Sequence[Set]) -> str:
    """The usual values, for a note below; blank where there are none."""
    named = [in_words(k, value) for k, value in usual(keys).items() if value]
    return f"where nothing else is said: {', '.join(named)}" if named else ""


def _case(key: Set) -> str:
    return dict(key).get(CASE, "")


def _columns(key: Set) -> list[str]:
    """The columns to name: all but the case, and labels of what has a column of its own."""
    names = [k for k, _ in key]
    return [k for k in names if k != CASE and not (k.endswith(".label") and k.removesuffix(".label") in names)]


def in_words(column: str, value: str) -> str:
    """A column and its value, as titles have them."""
    if column == BUDGET:
        return f"GPU memory {float(value) / 1e9:.3g} GB"
    return f"{column.removesuffix('.label').split('.')[-1].replace('_', ' ')} {value}"
