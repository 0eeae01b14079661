from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.replay import Capacity, Row, Settings, players, replay
from moesim.replay.document import document, table_csv
from moesim.trace.synthetic import synthetic
from tests.replay.test_stream import layerwise

SIZES = [7, 7, 7, 7, 11, 11, 11, 11]
TRACE = layerwise(
    [[[2, 0], [1, 3]], [[0, 3], [1, -1]], [[3, 2], [0, 1]], [[3, 1], [0, -1]], [[0, 1], [2, 3]], [[0, 1], [2, 3]]],
    [0, 4, 6],
    [2, 1],
    key_bytes=SIZES,
)


def rows(texts: str, sizes: str, **settings) -> list[Row]:
    return replay(TRACE, players([texts]), [Capacity.parse(s) for s in sizes.split(",")], Settings(**settings))


def test_prompts_and_outputs_are_counted_apart() -> None:
    """Everything fits. Prompts: {2 0 3} {1 3}, {0 1} {2 3}: misses but for 0 (kept), 1 (used by an output) and 3 of
    layer 1. Outputs: {3 2} {0 1}, {3 1} {0}, {0 1} {2 3}: misses are 0 of layer 1 and 1 of layer 0, once each."""
    (row,) = rows("lru", "100%", scopes=("global",))
    assert (row.prompt_accesses, row.prompt_hits, row.prompt_loaded_bytes) == (9, 3, 3 * 7 + 3 * 11)
    assert (row.decode_accesses, row.decode_hits, row.decode_loaded_bytes) == (11, 9, 7 + 11)
    assert (row.decode_tokens, row.misses_per_token, row.bytes_per_token) == (3, 2 / 3, 6)
    assert (row.amount, row.peak) == (72, 72)
    assert row.decode_hit_pct == pytest.approx(100 * 9 / 11)


def test_cold_leaves_the_prompts_out() -> None:
    (row,) = rows("lru", "100%", scopes=("global",), start="cold")
    assert (row.prompt_accesses, row.decode_accesses) == (0, 11)
    assert row.decode_hits == 3 and math.isnan(row.prompt_hit_pct)


def test_reset_empties_the_cache_before_each_sequence() -> None:
    (row,) = rows("lru", "100%", scopes=("global",), between="reset")
    assert (row.prompt_hits, row.decode_hits) == (0, 9)
    (row,) = rows("lru", "100%", scopes=("layer",), between="reset")
    assert (row.prompt_hits, row.decode_hits) == (0, 9)


def test_a_layer_has_its_share_of_the_bytes() -> None:
    """46 bytes: 23 a layer hold three keys of 7 and two of 11."""
    whole, share = rows("lru", "46B,45B", scopes=("layer",))
    assert (whole.amount, whole.peak, share.peak) == (46, 43, 43)
    counted, each = rows("lru", "4,2/layer", scopes=("layer",))
    assert (counted.peak, counted.decode_hits) == (each.peak, each.decode_hits) == (4, each.decode_hits)
    assert counted.counted and not whole.counted


def test_scopes_rooms_and_a_policys_own_scope() -> None:
    found = rows("lru,fifo@layer", "3/layer", rooms=("strict", "event"))
    assert [(row.policy, row.scope, row.room) for row in found] == [
        ("lru", "global", "strict"),
        ("lru", "layer", "strict"),
        ("fifo", "layer", "strict"),
        ("lru", "global", "event"),
        ("lru", "layer", "event"),
        ("fifo", "layer", "event"),
    ]


def test_key_by_key_is_another_order() -> None:
    """Two keys in turns, {0 1} each time, room for one: as events one is there each time, key by key none ever is."""
    trace = layerwise([[[0, 1]]] * 6, [0, 6], [1])
    for order, hits in (("event", 5), ("key", 0)):
        (row,) = replay(trace, players(["lru"]), [Capacity.parse("1")], Settings(("global",), order=order))
        assert (row.decode_accesses, row.decode_hits) == (10, hits)


def test_the_gap_captured() -> None:
    trace = synthetic("zipf", layers=2, experts=12, key_bytes=5, router="layerwise", k=2, sequences=4)
    found = replay(trace, players(["lru,lfu,min,min-bypass"]), [Capacity.parse("40%")], Settings())
    by_name = {(row.policy, row.scope): row for row in found}
    for scope in ("global", "layer"):
        lru, lfu, best = (by_name[name, scope] for name in ("lru", "lfu", "min"))
        assert (lru.gap_captured, best.gap_captured) == (0, 1)
        expected = (lfu.decode_hits - lru.decode_hits) / (best.decode_hits - lru.decode_hits)
        assert lfu.gap_captured == pytest.approx(expected)
        assert by_name["min-bypass", scope].gap_captured > 1
    (alone,) = replay(trace, players(["lru"]), [Capacity.parse("40%")], Settings(("global",)))
    assert math.isnan(alone.gap_captured)


def test_more_room_never_hurts_lru_and_min() -> None:
    trace = synthetic("sticky", layers=3, experts=10, key_bytes=5, router="layerwise", k=2, sequences=5)
    sizes = [Capacity.parse(f"{n}/layer") for n in range(2, 11)]
    for scope in ("global", "layer"):
        for name in ("lru", "min", "min-bypass"):
            found = replay(trace, players([name]), sizes, Settings((scope,)))
            hits = [row.decode_hits + row.prompt_hits for row in found]
            assert (np.diff(hits) >= 0).all() and hits[0] < hits[-1]


def test_random_draws_by_seed() -> None:
    trace = synthetic("iid", layers=2, experts=10, key_bytes=5, router="layerwise", k=2, sequences=5)

    def hits(seed: int) -> int:
        return replay(trace, players(["random"]), [Capacity.parse("50%")], Settings(seed=seed))[0].decode_hits

    assert hits(1) == hits(1) and len({hits(seed) for seed in range(5)}) > 1


def test_every_mistake_at_once() -> None:
    with pytest.raises(InputError) as caught:
        rows("lru,lookahead(level=step)", "10B,1")
    found = [str(problem) for problem in caught.value.problems]
    assert [text.split(":")[0] for text in found] == ["--policies", "--sizes", "--sizes", "--sizes"]
    assert sum("10B" in text for text in found) == 2 and "'1' is 1 experts, 0 for each" in found[-1]


def test_nothing_to_replay() -> None:
    prompts = layerwise([[[0]], [[1]]], [0, 2], [2])
    with pytest.raises(InputError, match="no output tokens, and a cold start leaves the prompts out"):
        replay(prompts, players(["lru"]), [Capacity.parse("50%")], Settings(start="cold"))


def test_shared_keys_have_one_cache() -> None:
    shared = layerwise([[[2], [3]], [[1], [1]]], [0, 2], [1], key_map=[[0, 1, 2, 3]] * 2)
    with pytest.raises(InputError, match="layers of this model share keys"):
        replay(shared, players(["lru"]), [Capacity.parse("50%")], Settings())
    (row,) = replay(shared, players(["lru"]), [Capacity.parse("100%")], Settings(("global",)))
    assert (row.prompt_accesses, row.decode_accesses, row.decode_hits) == (2, 2, 1)


def test_the_document_has_plain_values_and_the_csv_has_a_line_a_row() -> None:
    settings = Settings(start="cold")
    found = document("t", TRACE, settings, rows("lru,min", "50%,80%", start="cold"))
    assert found["rows"][0]["prompt_hit_pct"] is None and found["cycle"] == {"keys": 11 / 3, "bytes": 32}
    lines = list(csv.DictReader(io.StringIO(table_csv([found, found | {"trace": "u"}]))))
    assert len(lines) == 16 and {line["trace"] for line in lines} == {"t", "u"}
    assert lines[0]["decode_hits"] == str(found["rows"][0]["decode_hits"])
