"""The same random cases for several tests: made once, without looking for small ones."""

from __future__ import annotations

from functools import lru_cache

from hypothesis import HealthCheck, Phase, given, settings

from moesim.sim import check
from tests.reference.cases import Case, cases


@lru_cache
def collected(number: int) -> tuple[Case, ...]:
    """`number` cases, less those that the simulator refuses."""
    found: list[Case] = []

    @settings(
        max_examples=number, phases=[Phase.generate], derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases())
    def collect(case: Case) -> None:
        if not check(*case.build()):
            found.append(case)

    collect()
    return tuple(found)
