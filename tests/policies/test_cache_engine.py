"""Every cache policy in the simulator that checks itself: unequal sizes, staging slots, a prefetcher that wastes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from moesim.check.drive import Variant, label, variants
from moesim.check.toy import ToyCosts, ToyLink, config, shape, trace
from moesim.sim import Inputs, RunResult, simulate

LAYERS, EXPERTS = 3, 4
SIZES = (1000, 2500, 700, 900) * LAYERS


def server(cache: Variant, *, scope: str = "global", staging: int = 0, sizes: Any = SIZES, **changes: Any) -> RunResult:
    """Two requests a step on 7000 bytes or, by layer, a third of that for each, which the largest keys do not fit."""
    rng = random.Random(3)
    routes = [[rng.randrange(EXPERTS) for _ in range(rng.randint(8, 14))] for _ in range(5)]
    inputs = Inputs(
        trace([(made[:3], made[3:]) for made in routes], layers=LAYERS, experts=EXPERTS),
        shape(LAYERS, EXPERTS).model_copy(update={"key_sizes": sizes}),
        ToyCosts(copy_submit=7, decision=3),  # type: ignore[arg-type]
        ToyLink(),  # type: ignore[arg-type]
    )
    settings = {
        "memory": {"bytes": 7000 + staging * max(sizes), "scope": scope, "staging": staging},
        "traffic": {"kind": "all", "requests": 5},
        "cache": {"name": cache[0], **cache[1]},
        "scheduler": {"batch": "decode-first", "max_tokens": 64, "max_requests": 2},
        "machine": {"chunk_bytes": 300},
    }
    return simulate(config(**(settings | changes)), inputs, 0, check=True)


def decoded(result: RunResult) -> int:
    return int(result.steps["decode_tokens"].sum())


@pytest.mark.parametrize("prefetch", ["none", "step-ahead", "stream-everything"])
@pytest.mark.parametrize("variant", variants("cache"), ids=label)
def test_books_balance(variant: Variant, prefetch: str) -> None:
    """What a policy names is there and may go, whatever goes past the cache."""
    tokens = decoded(server(variant, prefetch=prefetch))
    assert decoded(server(variant, prefetch=prefetch, staging=2)) == tokens
    assert decoded(server(variant, prefetch=prefetch, staging=2, scope="layer")) == tokens > 30


def misses(name: str, **params: Any) -> int:
    result = server((name, params), staging=2, sizes=(1000,) * LAYERS * EXPERTS, schedule="frozen")
    return int(result.steps["miss_keys"].sum())


def test_keeping_keys_out_pays() -> None:
    """With room for 7 of 12 keys, MIN that may bypass misses less than MIN that may not, and that less than LRU."""
    assert misses("min") < misses("min", bypass=False) == misses("lookahead", level="oracle") < misses("lru")


def test_what_is_not_popular_is_kept_out() -> None:
    """Nothing is popular, so nothing enters."""
    result = server(("static-popular", {"learn": 0}), staging=3)
    assert result.steps["reuse_keys"].sum() == 0
    assert server(("lru", {}), staging=3).steps["reuse_keys"].sum() > 0
