"""What does not fit into GPU memory is refused before the run, in one message with all the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.check.toy import ToyCosts, ToyLink, config, shape, trace
from moesim.sim import Inputs, check
from moesim.trace.arrivals import Arrivals, ArrivalsMeta

STATIC = shape().static_bytes
LAW = {"kind": "lognormal", "mean": 9, "cv": 1}
SEQUENCES = [([0] * 6, [1] * 5), ([2] * 3, [3] * 9)]  # 11 and 12 tokens


def problems(link: Any = None, arrivals: Arrivals | None = None, **changes: Any) -> list[tuple[str, str]]:
    inputs = Inputs(trace(SEQUENCES), shape(), ToyCosts(), link or ToyLink(), arrivals)  # type: ignore[arg-type]
    return [(p.place, p.text) for p in check(config(**changes), inputs)]


def kv(blocks: int, **more: Any) -> dict[str, Any]:
    return {"slots": 2, "kv": {"blocks": blocks, "block_tokens": 1, **more}}


def test_parts_that_do_not_fit_together_are_all_named() -> None:
    memory = {"gpu": STATIC + 2100, "workspace": 50, "slots": 2, "kv": {"blocks": 20, "block_tokens": 1}}
    ((place, text),) = problems(memory=memory)
    assert place == "memory"
    assert text == (
        f"toy needs 30 bytes more than gpu has, {STATIC + 2100:,} bytes: static weights {STATIC}, workspace 50, "
        "experts 2,000 (staging 0), KV 80 (20 blocks of 4)"
    )


def test_a_model_that_does_not_fit_at_all() -> None:
    ((place, text),) = problems(memory={"gpu": 10, "kv": {"blocks": 20}})
    assert place == "memory"
    assert text.startswith(f"toy needs {STATIC + 1270:,} bytes more than gpu has, 10 bytes: static weights {STATIC}, ")
    assert f"needs {STATIC + 1990:,} bytes more" in problems(memory={"gpu": 10, "slots": 2})[0][1]
    assert f"needs {STATIC - 10} bytes more" in problems(memory={"gpu": 10})[0][1]


def test_nothing_left_for_experts_or_for_one_block() -> None:
    ((_, text),) = problems(memory={"gpu": STATIC + 999, "kv": {"blocks": 20, "block_tokens": 1}})
    assert text.startswith("gives a layer 919 bytes, but one key of toy takes 1,000 (gpu ")
    ((_, text),) = problems(memory={"gpu": STATIC + 2003, "slots": 2, "kv": {"block_tokens": 1}})
    assert text.startswith("leaves KV memory less than one block of 4 bytes; gpu has ")
    assert problems(memory={"slots": 2, "kv": {"bytes": 3, "block_tokens": 1}}) == [
        ("memory", "leaves KV memory less than one block of 4 bytes")
    ]


def test_the_longest_captured_request_must_fit_without_its_last_token() -> None:
    assert problems(memory=kv(11)) == []
    text = (
        "has 10 blocks of 1 tokens, room for a request of 11 tokens with its output; the traffic asks for up to 12; "
        "what limits them: traffic.prompt_max, traffic.output_max"
    )
    assert problems(memory=kv(10)) == [("memory.kv", text)]


@pytest.mark.parametrize(
    ("traffic", "tokens", "keys"),
    [
        ({"output_max": 2}, 8, "traffic.prompt_max, traffic.output_max"),
        ({"prompt_max": 3}, 12, "traffic.prompt_max, traffic.output_max"),
        ({"prompt_max": 3, "output_max": 4}, 7, "traffic.prompt_max, traffic.output_max"),
        ({"prompt": 20}, 29, "traffic.prompt.tokens, traffic.output_max"),
        ({"prompt": {"kind": "captured"}, "output": 3}, 9, "traffic.prompt_max, traffic.output.tokens"),
        ({"output": {"kind": "uniform", "min": 1, "max": 7}}, 13, "traffic.prompt_max, traffic.output.max"),
        (
            {"prompt": {"kind": "lognormal", "mean": 9, "cv": 1, "max": 30}, "output_max": 2},
            32,
            "traffic.prompt.max, traffic.output_max",
        ),
        ({"output": LAW, "output_max": 5}, 11, "traffic.prompt_max, traffic.output.max"),
    ],
)
def test_the_longest_request_of_a_traffic(traffic: dict[str, Any], tokens: int, keys: str) -> None:
    made = {"kind": "all", "requests": 2, **traffic}
    assert problems(memory=kv(tokens - 1), traffic=made) == []
    ((place, text),) = problems(memory=kv(tokens - 2), traffic=made)
    assert place == "memory.kv"
    assert f"the traffic asks for up to {tokens}; what limits them: {keys}" in text


def test_lengths_without_a_limit_never_fit() -> None:
    made = {"kind": "all", "requests": 2, "output": LAW}
    ((_, text),) = problems(memory=kv(10**6), traffic=made)
    assert "the traffic may ask for any number; what limits them: traffic.prompt_max, traffic.output.max" in text


def test_the_longest_request_of_an_arrivals_file() -> None:
    meta = ArrivalsMeta(name="a", label="synthetic", requests=3, created="", command="none", versions={})
    lengths = np.array([5, 40, 7], np.int32)
    made = Arrivals(np.array([0, 1, 2]), lengths, np.array([3, 2, 9], np.int32), meta=meta)
    traffic: dict[str, Any] = {"kind": "trace", "arrivals": {"file": "a.csv"}}
    assert problems(memory=kv(41), traffic=traffic, arrivals=made) == []
    ((_, text),) = problems(memory=kv(40), traffic=traffic, arrivals=made)
    assert "up to 42; what limits them: traffic.arrivals.context_max, traffic.output_max" in text
    shorter = {"kind": "trace", "arrivals": {"file": "a.csv", "context_max": 20}}
    assert problems(memory=kv(15), traffic=shorter, arrivals=made) == []
    assert problems(memory=kv(14), traffic=shorter, arrivals=made) != []
    assert problems(memory=kv(10), traffic={**shorter, "output_max": 2}, arrivals=made) == []
    assert problems(memory=kv(8), traffic={**shorter, "requests": 1}, arrivals=made) == []


class OneWay(ToyLink):
    lacks = ("to_host", "both_ways")


def test_a_link_must_say_what_swapping_takes() -> None:
    assert problems(memory=kv(11, preempt="swap")) == []
    assert problems(memory=kv(11), link=OneWay()) == []
    ((place, text),) = problems(memory=kv(11, preempt="swap"), link=OneWay())
    assert place == "memory.kv.preempt"
    assert text.endswith("and link toy does not say what that takes: it has no to_host and no both_ways")


def test_the_shipped_links_can_swap(tmp_path: Path) -> None:
    from moesim.hardware.link import load_link

    for name in ("a100-pcie4", "h100-pcie5", "pcie3"):
        assert load_link(name).lacks == []
