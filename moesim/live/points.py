"""Which points of each component `moesim profile` measures, and which it leaves out to check interpolation on them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from moesim.errors import InputError, Problem, unknown
from moesim.hardware.files import ARGUMENTS
from moesim.hardware.roofline import actives
from moesim.hardware.shape import ModelShape

Axes = dict[str, list[int]]
KIB, MIB = 2**10, 2**20
SIZES = [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB, 400 * 10**6]
QUICK_SIZES = [4 * KIB, 64 * KIB, MIB, 16 * MIB]
MOST_POINTS = 20_000


def doubling(low: int, high: int, factor: int = 2) -> list[int]:
    """low, low x factor, ... and high."""
    found = []
    while low < high:
        found.append(low)
        low = max(low * factor, low + 1)
    return [*found, high]


def default_points(shape: ModelShape, device: str, *, quick: bool) -> dict[str, Axes]:
    """Component -> axes. A CPU's reach to 512 tokens a step, a GPU's to 8192; quick ones are three or four an axis."""
    most = 8192 if device == "cuda" else 512
    tokens = doubling(1, 64, 8) if quick else doubling(1, most)
    batch = [1, 8] if quick else doubling(1, 64 if device == "cuda" else 32)
    context = [1, 256, 1024] if quick else [1, 64, *doubling(256, 2**20 if device == "cuda" else 2**15, 4)]
    past = [0, 64, 256] if quick else [0, 128, 512, *doubling(2048, 8192 if device == "cuda" else 2048)]
    pairs = [*tokens, *doubling(2 * tokens[-1], tokens[-1] * shape.top_k)] if shape.top_k > 1 else tokens
    sampled = [1, 8] if quick else doubling(1, 128 if device == "cuda" else 32)
    active = [value for value in (actives(shape.experts)) if value <= max(shape.experts, 1)]
    if quick:
        active = sorted({1, 2, shape.experts})
    return {
        "attention_prefill": {"tokens": tokens, "past": past},
        "attention_decode": {"batch": batch, "context": context},
        "layer_rest": {"tokens": tokens},
        "gate": {"tokens": tokens},
        "router": {"tokens": tokens},
        "experts": {"tokens": pairs, "active": active},
        "step_rest": {"tokens": sampled},
        "cpu_expert": {"tokens": [1, 8] if quick else doubling(1, min(most, 256), 4)},
    }


def with_points(known: dict[str, Axes], given: Iterable[str], shape: ModelShape) -> dict[str, Axes]:
    """The axes with what `--points` says: `component.axis=1,2,4` or `axis=1..512` (doubling) in every component.

    `experts.largest=...` adds the axis that the default leaves out. Raises InputError with every mistake.
    """
    found, problems = {name: dict(axes) for name, axes in known.items()}, []
    for text in given:
        name, _, values = text.partition("=")
        component, _, axis = name.strip().rpartition(".")
        try:
            points = _points(values)
        except ValueError as error:
            problems.append(Problem(f"--points {text}", str(error)))
            continue
        those = [component] if component else [c for c in found if axis in found[c]]
        if component and component not in found:
            problems.append(Problem(f"--points {text}", unknown("component", component, found)))
        elif not those or any(axis not in ARGUMENTS[c] for c in those):
            names = {axis for c in ([component] if component else found) for axis in ARGUMENTS[c]}
            problems.append(Problem(f"--points {text}", unknown("axis", axis, sorted(names))))
        for each in those if not problems else []:
            found[each][axis] = points
            found[each] = {a: found[each][a] for a in ARGUMENTS[each] if a in found[each]}
    problems += [Problem("--points", text) for text in _wrong(found, shape)]
    if problems:
        raise InputError(problems)
    return found


def _points(text: str) -> list[int]:
    points: list[int] = []
    for part in text.split(","):
        if not (match := re.fullmatch(r"\s*(\d+)\s*(?:\.\.\s*(\d+)\s*)?", part)):
            raise ValueError(f"{part.strip()!r} is no number, nor two with .. between them")
        low, high = int(match[1]), match[2]
        points += [low] if high is None else doubling(low, int(high)) if low < int(high) else []
    if len(set(points)) < len(points) or points != sorted(points) or not points:
        raise ValueError("points must be whole numbers, each above the one before it")
    return points


def _wrong(found: dict[str, Axes], shape: ModelShape) -> Iterable[str]:
    for component, axes in found.items():
        for axis, points in axes.items():
            least = 0 if axis == "past" else 1
            if points[0] < least:
                yield f"{component}.{axis} starts at {points[0]}; {least} is the least"
        if (active := axes.get("active")) and active[-1] > shape.experts:
            yield f"{component}.active reaches {active[-1]}; {shape.name} has {shape.experts} experts a layer"
    if (count := sum(map(size_of, found.values()))) > MOST_POINTS:
        yield f"are {count:,} in all; {MOST_POINTS:,} are the most"


def size_of(axes: Axes) -> int:
    """Points of a grid."""
    count = 1
    for points in axes.values():
        count *= len(points)
    return count


def real(component: str, point: Sequence[int], axes: Axes) -> tuple[int, ...]:
    """The point that is measured for one of the grid: corners of a product that cannot be are the nearest that can.

    Experts that are active have a token each, and a request that decodes one of context. So `attention_decode` has at
    least `batch` of context, and `experts` at least `active` tokens; `largest` is from their even share to what the
    others leave. Without the axis `largest` tokens are shared evenly. Full arguments come back, in the order of
    `ARGUMENTS`.
    """
    given = dict(zip(axes, point, strict=True))
    if component == "attention_decode":
        batch = given.get("batch", 1)
        return batch, max(batch, given.get("context", batch))
    if component == "experts":
        active = given.get("active", 1)
        tokens = max(active, given.get("tokens", active))
        even = -(-tokens // active)
        return tokens, active, min(max(given.get("largest", even), even), tokens - active + 1)
    return tuple(given.get(axis, 0 if axis == "past" else 1) for axis in ARGUMENTS[component])


def split(tokens: int, active: int, largest: int) -> list[int]:
    """Tokens of each active expert: the first has `largest`, the others share what is left evenly, one at least."""
    if active == 1:
        return [tokens]
    left, others = tokens - largest, active - 1
    return [largest] + [left // others + (1 if i < left % others else 0) for i in range(others)]
