"""One GPU's memory: what a size that is left out gets, and what is settled."""

from __future__ import annotations

from typing import Any

import pytest

from moesim.check.toy import keys, shape
from moesim.experiment import Memory
from moesim.hardware.budget import budget, pools, settled

SHAPE = shape(2, 4)
STATIC = SHAPE.static_bytes
BLOCK = 2 * 4 * 10
"""bytes of ten tokens' keys and values in two layers"""


def of(**memory: Any) -> Any:
    return budget(Memory(**memory), keys(2, 4), SHAPE)


def test_bytes_of_a_block() -> None:
    assert SHAPE.kv_bytes_per_token == 8
    assert of(slots=2, kv={"blocks": 3, "block_tokens": 10}).kv == 3 * BLOCK


def test_kv_gets_what_the_experts_leave() -> None:
    found = of(gpu=STATIC + 500 + 4000 + 1000, workspace=500, slots=2, kv={"block_tokens": 10})
    assert (found.experts, found.blocks, found.kv, found.left) == (4000, 12, 960, 40)


def test_experts_get_what_kv_leaves_but_no_more_than_there_are() -> None:
    kv = {"blocks": 5, "block_tokens": 10}
    found = of(gpu=STATIC + 5000, kv=kv)
    assert (found.experts, found.left) == (5000 - 5 * BLOCK, 0)
    found = of(gpu=STATIC + 20_000, staging=1, kv=kv)
    assert (found.experts, found.staging, found.left) == (9000, 1000, 20_000 - 9000 - 5 * BLOCK)
    assert of(gpu=STATIC + 5000).experts == 5000


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_share_of_kv_is_one_of_what_static_weights_and_workspace_leave(share: float) -> None:
    found = of(gpu=STATIC + 100 + 8000, workspace=100, kv={"share": share, "block_tokens": 10})
    assert found.blocks == int(share * 8000) // BLOCK
    assert found.experts == 8000 - found.kv


def test_slots_and_staging_are_counted() -> None:
    found = of(gpu=STATIC + 10_000, slots=3, staging=2, kv={"bytes": 999, "block_tokens": 10})
    assert (found.experts, found.staging, found.blocks) == (8000, 2000, 12)
    assert found.left == 10_000 - 8000 - 960
    parts = f"static weights {STATIC}, workspace 0, experts 8,000 (staging 2,000), KV 960 (12 blocks of 80)"
    assert str(found) == f"{STATIC + 10_000:,} bytes: {parts}"


def test_too_much_is_left_below_nothing() -> None:
    assert of(gpu=STATIC + 5000, slots=3, kv={"blocks": 1, "block_tokens": 10}).left == -1080
    assert of(gpu=STATIC - 1, kv={"blocks": 1, "block_tokens": 10}).left < 0


def test_settled_sizes_are_bytes_and_blocks_and_settling_again_changes_nothing() -> None:
    made = Memory(gpu=STATIC + 8000, kv={"share": 0.5, "block_tokens": 10})
    once = settled(made, keys(2, 4), SHAPE)
    assert (once.bytes, once.kv and once.kv.blocks, once.kv and once.kv.share) == (4000, 50, None)
    assert settled(once, keys(2, 4), SHAPE) == once
    assert pools(once, keys(2, 4)) == [(range(4), 2000), (range(4, 8), 2000)]
    plain = Memory(slots=2)
    assert settled(plain, keys(2, 4), SHAPE) is plain
