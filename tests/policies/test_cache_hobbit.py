from __future__ import annotations

from typing import Any

import pytest

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int, **params: Any) -> Drive:
    """Three layers of four keys: 0 to 3, 4 to 7, 8 to 11."""
    return Drive(find("cache", "hobbit")(**{"reset": None} | params), slots, range(12), layers=3)  # type: ignore[arg-type]


def test_recency_and_frequency_weigh_together() -> None:
    hobbit = drive(2, lru=0.4, lfu=0.6, fld=0)
    # One key of layer 0 a step; steps count from 1, the first here is the second. R and F are 3, 2 for 0 and 4, 1 for
    # 1. 0 scores 1.2 + 1.2 = 2.4 and 1 1.6 + 0.6 = 2.2 (times T): 1 leaves for 2. 2 scores 2.0 + 0.6 = 2.6: 0 leaves.
    assert pushed_out(hobbit, 0, 0, 1, 2, 3) == [1, 0]


def test_keys_of_the_layer_that_comes_last_leave() -> None:
    hobbit = drive(3, lru=0, lfu=0, fld=1)
    # At layer 0: layer 1 is 1 ahead, layer 2 is 2 ahead, the present one 0.
    assert pushed_out(hobbit, 0, 4, 8, 1) == [8]
    # At layer 1: layer 0 is 2 ahead, and layer 1 itself 0. Of equals the lower key leaves.
    assert pushed_out(hobbit, 5) == [0]


def test_all_three_terms() -> None:
    # Steps 1 and 2 use 0, step 2 also 4 and then, at layer 2, 9. T = 3 there, and R = 3 for both. 0 scores
    # (0.2 * 3 + 0.2 * 2) / 3 + 0.6 * (1 - 1/3) = 0.73, 4 scores (0.2 * 3 + 0.2 * 1) / 3 + 0.6 * (1 - 2/3) = 0.47.
    assert pushed_out(drive(2, lru=0.2, lfu=0.2, fld=0.6), 0, 0, 4, 9) == [4]
    assert pushed_out(drive(2, lru=1, lfu=0, fld=0), 0, 0, 4, 9) == [0]  # of equals, the lower layer met first


def test_reset_forgets() -> None:
    # 0 was used three times; after the reset it counts for nothing, and 1 for one use.
    assert pushed_out(drive(2, lru=0, lfu=1, fld=0), 0, 0, 0, 1, 1, 2) == [1]
    assert pushed_out(drive(2, lru=0, lfu=1, fld=0, reset=4), 0, 0, 0, 1, 1, 2) == [0]


def test_counts_are_a_sequences_own() -> None:
    # Request 1 uses 0 three times. Of request 2, which comes when that has left, 1 has a use and 0 none.
    hobbit = drive(2, lru=0, lfu=1, fld=0, reset="sequence")
    hobbit.requests = (1,)
    hobbit.use(0), hobbit.use(0), hobbit.use(0), hobbit.use(1)
    hobbit.policy.ended([1])
    hobbit.requests = (2,)
    assert pushed_out(hobbit, 1, 2) == [0]
    # Request 3 joins request 2; when 2 has left, all count anew, although 3 has used 1 twice: 1 and 2 have a use each.
    hobbit.requests = (2, 3)
    hobbit.use(1), hobbit.use(1)
    hobbit.policy.ended([2])
    hobbit.requests = (3,)
    hobbit.use(2), hobbit.use(1)
    assert hobbit.use(3) == [1]  # of equals in a layer, the lower key


@pytest.mark.parametrize(
    ("params", "text"),
    [({"lru": 0.5}, "add up to 1.1, and must"), ({"lfu": -1}, "lfu -1 must be"), ({"reset": 0}, "reset 0 must be")],
)
def test_parameters(params: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        drive(2, **params)
