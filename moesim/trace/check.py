"""Every inconsistency of a routing trace, in the words of its user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.errors import Problem

if TYPE_CHECKING:
    import pyarrow as pa

    from moesim.trace.meta import RoutingMeta
    from moesim.trace.routing import RoutingTrace

MISSING = -1


def column_problems(table: pa.Table, meta: RoutingMeta, place: str) -> list[Problem]:
    """What is wrong with the columns of a file: missing, of another type or list size, with gaps, out of order."""
    expected = _expected_columns(meta, table.column_names)
    wrong = [
        Problem(place, f"column {name!r} is missing; expected {kind}")
        for name, kind in expected.items()
        if name not in table.column_names
    ]
    for name in table.column_names:
        kind = expected.get(name)
        if kind is None:
            wrong.append(Problem(place, f"column {name!r} is unknown; there is: {', '.join(expected)}"))
        elif _kind(table, name) != kind:
            wrong.append(Problem(place, f"column {name!r} holds {_kind(table, name)}; expected {kind}"))
        elif table[name].null_count:
            wrong.append(Problem(place, f"column {name!r} has {table[name].null_count} missing values; expected none"))
    if not table.num_rows:
        wrong.append(Problem(place, "holds no tokens"))
    return wrong or _order_problems(table, place)


def trace_problems(trace: RoutingTrace, place: str = "trace") -> list[Problem]:
    """What is wrong with the arrays of a trace; values are looked at only where all shapes are right."""
    texts = _shape_problems(trace) or [*_sequence_problems(trace), *_value_problems(trace)]
    return [Problem(place, text) for text in texts]


# ---- columns of a file


def _expected_columns(meta: RoutingMeta, present: list[str]) -> dict[str, str]:
    wide = meta.decisions * meta.k
    kinds = {
        "sequence": "int32",
        "position": "int32",
        "phase": "string",
        "domain": "string",
        "experts": f"lists of {wide} int16",
        "weights": f"lists of {wide} halffloat",
    }
    if meta.m:
        kinds |= {
            "top_experts": f"lists of {meta.decisions * meta.m} int16",
            "top_weights": f"lists of {meta.decisions * meta.m} halffloat",
        }
    for distance in (1, 2, 3) if meta.p else ():
        name, width = f"predicted_{distance}", meta.decisions * meta.p
        if distance == 1 or name in present:
            kinds[name] = f"lists of {width} int16"
        if f"{name}_weights" in present:
            kinds[f"{name}_weights"] = f"lists of {width} halffloat"
    return kinds


def _kind(table: pa.Table, name: str) -> str:
    import pyarrow as pa

    kind = table.schema.field(name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_fixed_size_list(kind):
        return f"lists of {kind.list_size} {kind.value_type}"
    return "string" if pa.types.is_large_string(kind) else str(kind)


def _order_problems(table: pa.Table, place: str) -> list[Problem]:
    import pyarrow as pa

    sequence, position = table["sequence"].to_numpy(), table["position"].to_numpy()
    phase = np.asarray(table["phase"].cast(pa.string()).to_numpy(), dtype=object)
    domain = np.asarray(table["domain"].cast(pa.string()).to_numpy(), dtype=object)
    new = np.diff(sequence, prepend=-1)
    same = new == 0
    starts = np.flatnonzero(~same)
    count = np.arange(len(sequence)) - np.repeat(starts, np.diff(np.append(starts, len(sequence))))
    output = phase == "output"
    back = same & ~output & np.roll(output, 1)
    other = same & (domain != np.roll(domain, 1))
    rules = {
        "sequences must be numbered 0, 1, 2, ... in contiguous rows": (new != 0) & (new != 1),
        "positions of a sequence must run 0, 1, 2, ...": position != count,
        "phase must be 'prompt' or 'output'": ~output & (phase != "prompt"),
        "prompt rows must stand before output rows": back,
        "all rows of a sequence must have one domain": other,
    }
    return [Problem(place, f"row {int(np.argmax(bad))}: {rule}") for rule, bad in rules.items() if bad.any()]


# ---- arrays of a trace


def _shape_problems(trace: RoutingTrace) -> list[str]:
    meta, tokens, sequences = trace.meta, len(trace.experts), len(trace.offsets) - 1
    chosen = (tokens, meta.decisions, meta.k)
    top, ahead = (tokens, meta.decisions, meta.m), (tokens, meta.decisions, meta.p)
    arrays = {
        "experts": (trace.experts, chosen, np.int16),
        "weights": (trace.weights, chosen, np.float16),
        "offsets": (trace.offsets, (sequences + 1,), np.int64),
        "prompt_tokens": (trace.prompt_tokens, (sequences,), np.int32),
    }
    for name, array, kind in (
        ("top_experts", trace.top_experts, np.int16),
        ("top_weights", trace.top_weights, np.float16),
    ):
        if array is not None:
            arrays[name] = (array, top, kind)
    arrays |= {f"predicted_{d}": (a, ahead, np.int16) for d, a in trace.predicted.items()}
    arrays |= {f"predicted_{d}_weights": (a, ahead, np.float16) for d, a in trace.predicted_weights.items()}
    wrong = [
        f"{name} is {array.dtype} {list(array.shape)}; expected {np.dtype(kind)} {list(shape)}"
        for name, (array, shape, kind) in arrays.items()
        if array.shape != shape or array.dtype != kind
    ]
    return wrong + _presence_problems(trace)


def _presence_problems(trace: RoutingTrace) -> list[str]:
    meta, wrong = trace.meta, []
    stored = (trace.top_experts is not None) + (trace.top_weights is not None)
    if stored != (2 if meta.m else 0):
        wrong.append(f"m is {meta.m}, but {stored} of top_experts and top_weights are stored; both or (m = 0) neither")
    if bool(trace.predicted) != bool(meta.p):
        wrong.append(f"p is {meta.p}, but predictions for distances {sorted(trace.predicted)} are stored")
    if set(trace.predicted) - {1, 2, 3} or (trace.predicted and 1 not in trace.predicted):
        wrong.append(f"predictions have distances {sorted(trace.predicted)}; expected 1, and then 2 and 3")
    if set(trace.predicted_weights) - set(trace.predicted):
        wrong.append(f"prediction weights have distances {sorted(trace.predicted_weights)} without predictions")
    if len(trace.domains) != len(trace.offsets) - 1:
        wrong.append(f"there are {len(trace.domains)} domains for {len(trace.offsets) - 1} sequences")
    return wrong


def _sequence_problems(trace: RoutingTrace) -> list[str]:
    wrong = []
    if trace.offsets[0] != 0 or trace.offsets[-1] != trace.tokens:
        wrong.append(
            f"offsets run from {trace.offsets[0]} to {trace.offsets[-1]}; expected 0 to {trace.tokens} (tokens)"
        )
    empty = np.flatnonzero(np.diff(trace.offsets) < 1)
    if not trace.sequences:
        wrong.append("there are no sequences")
    if len(empty):
        wrong.append(f"sequence {empty[0]} has no tokens; each needs at least one")
    elif len(bad := np.flatnonzero((trace.prompt_tokens < 1) | (trace.prompt_tokens > trace.lengths))):
        rows = f"{trace.prompt_tokens[bad[0]]} prompt tokens in {trace.lengths[bad[0]]} rows"
        wrong.append(f"sequence {bad[0]} has {rows}; expected 1 to all of its rows")
    return wrong


def _value_problems(trace: RoutingTrace) -> list[str]:
    chosen = {"experts": trace.experts, "top_experts": trace.top_experts}
    chosen |= {f"predicted_{d}": a for d, a in trace.predicted.items()}
    weights = {"weights": trace.weights, "top_weights": trace.top_weights}
    weights |= {f"predicted_{d}_weights": a for d, a in trace.predicted_weights.items()}
    wrong = [
        text
        for name, array in chosen.items()
        if array is not None
        for text in _id_problems(name, array, trace.meta.experts)
    ]
    wrong += [
        f"{name} has a value that is not finite, in row {int(np.argwhere(~np.isfinite(a))[0][0])}"
        for name, a in weights.items()
        if a is not None and not np.isfinite(a).all()
    ]
    return wrong + [text for d, a in trace.predicted.items() for text in _beyond_problems(d, a)]


def _id_problems(name: str, ids: np.ndarray, experts: int) -> list[str]:
    bad = (ids < MISSING) | (ids >= experts)
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        return [f"{name} has expert {ids[bad][0]} in row {row}; expected 0..{experts - 1}, or -1 for none"]
    ordered = np.sort(ids, axis=2)
    twice = (np.diff(ordered, axis=2) == 0) & (ordered[:, :, 1:] != MISSING)
    return [f"{name} names an expert twice in row {int(np.argwhere(twice)[0][0])}"] if twice.any() else []


def _beyond_problems(distance: int, predicted: np.ndarray) -> list[str]:
    beyond = predicted[:, max(predicted.shape[1] - distance, 0) :] != MISSING
    return [f"predicted_{distance} predicts beyond the last layer; expected -1 there"] if beyond.any() else []
