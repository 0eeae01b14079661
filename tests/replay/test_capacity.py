from __future__ import annotations

import pytest

from moesim.replay.capacity import Capacity, sizes_known
from moesim.trace.meta import RoutingMeta


def meta(**changes) -> RoutingMeta:
    known = {"model": "m", "router": "layerwise", "layers": 2, "experts": 4, "key_bytes": 100, "label": "synthetic"}
    return RoutingMeta(**(known | changes))


@pytest.mark.parametrize(
    ("text", "amount", "counted"),
    [("3", 3, True), ("3/layer", 6, True), ("50%", 400, False), ("12.5 %", 100, False), ("0.25kB", 250, False)],
)
def test_amounts(text: str, amount: int, counted: bool) -> None:
    capacity = Capacity.parse(text)
    assert (capacity.amount(meta()), capacity.counted) == (amount, counted)


def test_a_share_is_of_the_bytes_rounded_down() -> None:
    assert Capacity.parse("30%").amount(meta(key_bytes=[1, 2, 3, 4, 5, 6, 7, 9])) == 11
    assert Capacity.parse("500MiB").amount(meta()) == 500 * 2**20


@pytest.mark.parametrize("text", ["", "x", "3/expert", "-1", "1.5", "101%", "3 parsecs", "0", "0%", "0GB", "1e3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"write experts in all|holds nothing|more than all keys"):
        Capacity.parse(text)


def test_too_small_for_a_key() -> None:
    small = Capacity.parse("150B")
    assert small.problem(meta(), "global", True) == ""
    assert "75 for each of 2 layers; the largest key takes 100" in small.problem(meta(), "layer", True)
    assert small.problem(meta(), "layer", False) == ""
    assert "'1' is 1 experts, 0 for each of 2 layers" in Capacity.parse("1").problem(meta(), "layer", True)


def test_bytes_need_the_size_of_keys() -> None:
    unknown = meta(key_bytes=1)
    assert not sizes_known(unknown) and sizes_known(meta())
    assert "import it with --key-bytes" in Capacity.parse("2GB").problem(unknown, "global", True)
    assert Capacity.parse("50%").problem(unknown, "global", True) == ""
