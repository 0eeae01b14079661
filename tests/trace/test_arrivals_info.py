"""What `moesim trace info` says of arrivals, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from moesim.files import shipped
from moesim.trace.arrivals import Arrivals, ArrivalsMeta, read_arrivals
from moesim.trace.arrivals_info import describe, is_arrivals, render


def arrivals(*times: int, domains: tuple[str, ...] | None = None) -> Arrivals:
    count = len(times)
    tokens = np.arange(1, count + 1, dtype=np.int32)
    meta = ArrivalsMeta(name="t", label="recorded", requests=count)
    return Arrivals(np.array(times, dtype=np.int64), 10 * tokens, tokens, domains, meta, "d")


def test_rate_burstiness_and_lengths() -> None:
    # Gaps of 1, 3, 1 and 3 s: mean 2, standard deviation 1. Five requests in 8 s have four gaps: 0.5 a second.
    info = describe(arrivals(*(second * 10**9 for second in (2, 3, 6, 7, 10)), domains=("a", "b", "a", "a", "a")))
    assert (info["requests"], info["first_s"], info["last_s"]) == (5, 2.0, 10.0)
    assert (info["rate"], info["cv"], info["shape"]) == (0.5, 0.5, 4.0)
    assert info["gaps_s"] == {"least": 1, "mean": 2, "p50": 1, "p90": 3, "p95": 3, "p99": 3, "most": 3}
    prompts = {"least": 10, "mean": 30, "p50": 30, "p90": 50, "p95": 50, "p99": 50, "most": 50}
    assert info["lengths"]["prompt"] == prompts
    assert info["lengths"]["both"]["mean"] == 33
    assert (info["prompt_tokens"], info["output_tokens"], info["domains"]) == (150, 15, {"a": 4, "b": 1})
    assert json.loads(json.dumps(info)) == info
    text = render(info)
    assert "0.5 a second, at most 5 in a minute" in text
    assert "cv of the gaps 0.5 (gamma shape 4); a Poisson process has 1" in text
    assert "a 4, b 1" in text


def test_a_minute_is_not_one_of_the_clock() -> None:
    seconds = (0, 50, 70, 109, 110, 200)
    assert describe(arrivals(*(second * 10**9 for second in seconds)))["most_in_a_minute"] == 3  # 50, 70, 109


@pytest.mark.parametrize("times", [(0,), (5, 5, 5)])
def test_what_comes_all_at_once_has_no_rate(times: tuple[int, ...]) -> None:
    info = describe(arrivals(*times))
    assert (info["rate"], info["cv"], info["shape"]) == (None, None, None)
    assert "all at once" in render(info)
    assert json.loads(json.dumps(info)) == info


def test_even_gaps_have_no_burstiness() -> None:
    info = describe(arrivals(0, 10, 20))
    assert (info["cv"], info["shape"]) == (0.0, None)
    assert "cv of the gaps 0; a Poisson process has 1" in render(info)


def test_a_poisson_process_has_cv_1() -> None:
    rng = np.random.default_rng(0)
    info = describe(arrivals(*np.cumsum(rng.exponential(1e9, 20_000)).astype(int).tolist()))
    assert abs(info["cv"] - 1) < 0.02
    assert abs(info["rate"] - 1) < 0.02


def test_arrivals_and_routing_are_told_apart(tmp_path: Path) -> None:
    ours = shipped("traces", "arrivals", "chat-bursty.parquet")
    assert is_arrivals(ours)
    assert describe(read_arrivals(ours))["format"] == "moesim"
    assert not is_arrivals(shipped("traces", "routing", "smollm2-135m-decoupled.parquet"))
    for name, data, wanted in (
        ("a.csv", b"arrival_s", True),
        ("empty", b"", True),
        ("cut.parquet", b"PAR1junk", False),
        ("cut2.parquet", b"PAR1junkPAR1", False),
    ):
        (tmp_path / name).write_bytes(data)
        assert is_arrivals(tmp_path / name) == wanted
    assert is_arrivals(tmp_path / "gone.csv")
    assert not is_arrivals(tmp_path / "gone.parquet")
