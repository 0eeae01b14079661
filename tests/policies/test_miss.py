"""What miss policies answer, by hand, and what every one of them must do."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.check import miss as contract
from moesim.check.drive import Variant, label, variants
from moesim.policy import Handling, LayerView, Missing, MissPolicy, find

WAIT, CPU, SMALL, SKIP = Handling


def missing(
    key: int, cpu_ns: int = 0, copy_ns: int = 1000, *, queue_ns: int = 0, before: float = 0.0, free: int = 0
) -> Missing:
    return Missing(key, 1, 0.5, before, False, 100, free, copy_ns, queue_ns, cpu_ns)


def answers(name: str, *keys: Missing, **params: Any) -> list[Handling]:
    made = find("miss", name)(**params)
    assert isinstance(made, MissPolicy)
    made.start(LayerView(4, 8))
    return list(made.decide(keys))


def test_wait_waits() -> None:
    assert answers("wait", missing(3, 1), missing(5, 10**9)) == [WAIT, WAIT]


def test_by_the_sum_each_expert_goes_by_itself() -> None:
    keys = missing(3, 999), missing(5, 1000), missing(4, 10), missing(6, 500, copy_ns=400)
    assert answers("cpu-when-cheaper", *keys) == [CPU, WAIT, CPU, WAIT]
    # What the link has to carry first does not count.
    assert answers("cpu-when-cheaper", missing(3, 1500, queue_ns=9000)) == [WAIT]


def test_by_the_later_of_the_two_some_are_copied_meanwhile() -> None:
    # Copies take 1000 each. The cheapest for the CPU goes first: 300 and two copies 2000; 300 + 600 and one copy: 1000;
    # 300 + 600 + 700 and none: 1600. So two on the CPU.
    keys = missing(3, 700), missing(5, 300), missing(4, 600)
    assert answers("cpu-when-cheaper", *keys, rule="max") == [WAIT, CPU, CPU]
    # If the link has 700 to carry first, one copy would end at 1700, and all three on the CPU end at 1600.
    late = missing(3, 700, queue_ns=700), missing(5, 300, queue_ns=700), missing(4, 600, queue_ns=700)
    assert answers("cpu-when-cheaper", *late, rule="max") == [CPU, CPU, CPU]
    # An expert by itself goes where it is over sooner; of equals it is copied.
    assert answers("cpu-when-cheaper", missing(3, 1000), rule="max") == [WAIT]
    assert answers("cpu-when-cheaper", missing(3, 1000, queue_ns=1), rule="max") == [CPU]


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=7), st.integers(0, 2000))
def test_no_other_choice_ends_sooner_where_copies_are_equal(times: list[int], queue_ns: int) -> None:
    keys = [missing(key, cpu_ns, queue_ns=queue_ns) for key, cpu_ns in enumerate(times)]

    def latest(on_cpu: tuple[bool, ...]) -> int:
        copies = on_cpu.count(False)
        cpu = sum(ns for ns, there in zip(times, on_cpu, strict=True) if there)
        return max(cpu, copies * 1000 + queue_ns if copies else 0)

    chosen = tuple(answer is CPU for answer in answers("cpu-when-cheaper", *keys, rule="max"))
    assert latest(chosen) == min(latest(on_cpu) for on_cpu in product([True, False], repeat=len(times)))


@pytest.mark.parametrize(
    ("free", "found"), [(99, [CPU] * 3), (100, [WAIT, CPU, CPU]), (299, [WAIT, WAIT, CPU]), (300, [WAIT] * 3)]
)
def test_what_still_fits_is_copied(free: int, found: list[Handling]) -> None:
    keys = [missing(key, 10, free=free) for key in (5, 3, 4)]
    assert answers("cpu-when-cheaper", *keys) == found
    assert answers("cpu-when-cheaper", *keys, rule="max") == found
    assert answers("cpu-when-cheaper", *keys, fill=False) == [CPU] * 3


def test_the_more_weight_comes_before_an_expert_the_less_of_it_is_copied() -> None:
    keys = [missing(n, before=before) for n, before in enumerate((0.0, 0.6, 0.61, 0.9, 0.91))]
    assert answers("smaller-copy", *keys, t2=0.9) == [WAIT, WAIT, SMALL, SMALL, SKIP]
    assert answers("smaller-copy", *keys) == [WAIT, WAIT, SMALL, SMALL, SMALL]
    assert answers("smaller-copy", *keys, t1=None, t2=0.0) == [SMALL, SKIP, SKIP, SKIP, SKIP]
    assert answers("smaller-copy", *keys, t1=1.0) == [WAIT] * 5


@pytest.mark.parametrize(
    ("name", "params", "text"),
    [
        ("cpu-when-cheaper", {"rule": "min"}, "rule 'min' must be sum or max"),
        ("smaller-copy", {"ratio": 0}, "ratio 0 must be a share"),
        ("smaller-copy", {"ratio": 1.5}, "ratio 1.5 must be a share"),
        ("smaller-copy", {"t1": 0.9, "t2": 0.6}, "t1 null or not above t2"),
        ("smaller-copy", {"unpack_ns": -1}, "unpack_ns -1 must be a time"),
    ],
)
def test_parameters_that_make_no_sense(name: str, params: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        find("miss", name)(**params)


@pytest.mark.parametrize("variant", variants("miss"), ids=label)
@given(keys=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 5000), st.floats(0, 1)), min_size=1, max_size=9))
def test_every_policy_answers_for_each_key_what_it_says_it_can(
    variant: Variant, keys: list[tuple[int, int, float]]
) -> None:
    name, params = variant
    told = [missing(n, cpu, copy, before=before) for n, (cpu, copy, before) in enumerate(keys)]
    found = answers(name, *told, **params)
    assert len(found) == len(told)
    assert found == answers(name, *told, **params)
    made = find("miss", name)(**params)
    assert isinstance(made, MissPolicy)
    assert made.uses_cpu or CPU not in found
    assert made.small_ratio is not None or SMALL not in found


@pytest.mark.parametrize("router", ["decoupled", "layerwise"])
@pytest.mark.parametrize("variant", variants("miss"), ids=label)
def test_every_policy_keeps_the_contract_in_a_server(variant: Variant, router: str) -> None:
    name, params = variant
    assert (contract.decisions({"name": name, **params}, router) > 0) == (name != "wait")
