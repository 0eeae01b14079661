from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from moesim.replay.stream import Stream, stream_of
from moesim.trace.routing import RoutingMeta, RoutingTrace
from tests.trace.test_routing import traces


def layerwise(ids: list[list[list[int]]], offsets: list[int], prompts: list[int], **changes) -> RoutingTrace:
    experts = np.array(ids, np.int16)
    known = {"model": "m", "router": "layerwise", "layers": experts.shape[1], "experts": 4, "k": experts.shape[2]}
    meta = RoutingMeta(**(known | {"key_bytes": 10, "label": "synthetic"} | changes))
    return RoutingTrace(
        meta,
        experts,
        np.ones(experts.shape, np.float16),
        np.array(offsets, np.int64),
        np.array(prompts, np.int32),
        ("d",) * len(prompts),
    )


def events(stream: Stream) -> list[tuple[int, int, bool, list[int]]]:
    """(step, layer, output, keys) of each event."""
    return [
        (int(stream.steps[e]), int(stream.layers[e]), bool(stream.output[e]), stream.keys[a:b].tolist())
        for e, (a, b) in enumerate(zip(stream.bounds[:-1], stream.bounds[1:], strict=True))
    ]


TRACE = layerwise(
    [[[2, 0], [1, 3]], [[0, 3], [1, -1]], [[3, 2], [0, 1]], [[1, 0], [-1, -1]], [[0, 1], [2, 3]]], [0, 3, 5], [2, 1]
)


def test_a_prompt_is_one_step_with_each_key_once_in_order_of_first_use() -> None:
    assert events(stream_of(TRACE)) == [
        (0, 0, False, [2, 0, 3]),
        (0, 1, False, [5, 7]),
        (1, 0, True, [3, 2]),
        (1, 1, True, [4, 5]),
        (2, 0, False, [1, 0]),  # the second sequence; its prompt names no expert in layer 1
        (3, 0, True, [0, 1]),
        (3, 1, True, [6, 7]),
    ]


def test_cold_leaves_prompts_out_and_keeps_the_numbers_of_steps() -> None:
    assert [e[:2] for e in events(stream_of(TRACE, prompts=False))] == [(1, 0), (1, 1), (3, 0), (3, 1)]


def test_only_the_first_sequences() -> None:
    assert len(events(stream_of(TRACE, sequences=1))) == 4
    assert events(stream_of(TRACE, sequences=9)) == events(stream_of(TRACE))


def test_a_decoupled_choice_holds_in_every_layer() -> None:
    trace = layerwise([[[2]], [[1]]], [0, 2], [1], router="decoupled", layers=3)
    assert [e[3] for e in events(stream_of(trace))] == [[2], [6], [10], [1], [5], [9]]


def test_layers_that_share_keys() -> None:
    trace = layerwise([[[2], [3]], [[1], [1]]], [0, 2], [1], key_map=[[0, 1, 2, 3], [0, 1, 2, 3]])
    assert [e[3] for e in events(stream_of(trace))] == [[2], [3], [1], [1]]


def test_key_by_key_is_an_event_per_access() -> None:
    whole = stream_of(TRACE)
    split = whole.by_key()
    assert split.events == whole.accesses == 15
    assert [e[3] for e in events(split)] == [[key] for key in whole.keys]
    assert split.steps.tolist() == whole.steps[whole.event_of].tolist()


def test_next_access() -> None:
    stream = stream_of(layerwise([[[0]], [[1]], [[0]], [[0]]], [0, 4], [1]))
    assert stream.next_access.tolist() == [2, 4 + 1, 3, 4 + 0]


def test_parts_of_layers_and_sequences_are_all_of_it() -> None:
    stream = stream_of(TRACE)
    layers = {layer: events(part) for layer, part in stream.of_each_layer()}
    assert [e[3] for e in layers[1]] == [[5, 7], [4, 5], [6, 7]]
    assert [len(events(part)) for part in stream.of_each_sequence()] == [4, 3]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(traces())
def test_blocks_do_not_show(trace: RoutingTrace) -> None:
    from moesim.replay import stream as module

    whole, most = events(stream_of(trace)), module.BLOCK
    try:
        module.BLOCK = 1
        assert events(stream_of(trace)) == whole
    finally:
        module.BLOCK = most
    assert all(len(set(keys)) == len(keys) for *_, keys in whole)
