"""The simulator and the slow reference end at the same nanosecond, with the same classes, bytes and stalls."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from moesim.sim import check
from tests.reference.cases import Case, cases
from tests.reference.disagreements import EXAMPLES
from tests.reference.replay import compare, record

CASES = int(os.environ.get("MOESIM_REFERENCE_CASES", "300"))
"""more of them: MOESIM_REFERENCE_CASES=2000 pytest tests/reference"""
EVERYTHING = list(HealthCheck)


@pytest.mark.parametrize("direct", [False, True], ids=["patterns", "direct"])
def test_simulator_and_reference_agree(direct: bool) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=CASES // 2, deadline=None, derandomize=True, database=None, suppress_health_check=EVERYTHING)
    @given(cases())
    def agree(case: Case) -> None:
        config, inputs = case.build()
        assert not check(config, inputs)
        steps = record(config, inputs, direct=direct)
        compared = compare(config, inputs, steps)
        assert not compared.differences, (case, compared.differences)
        seen["steps"] += len(steps)
        seen["compared"] += compared.steps

    agree()
    # What is contested must stay rare, or the test would say nothing.
    assert seen["compared"] > 0.9 * seen["steps"] > 0


@pytest.mark.parametrize("name", EXAMPLES)
def test_known_disagreements_are_met_and_set_aside(name: str) -> None:
    config, inputs = EXAMPLES[name].build()
    assert name in compare(config, inputs, record(config, inputs, direct=True)).contested


@pytest.mark.xfail(reason="known disagreement, see disagreements.py")
@pytest.mark.parametrize("name", EXAMPLES)
def test_known_disagreements(name: str) -> None:
    config, inputs = EXAMPLES[name].build()
    steps = record(config, inputs, direct=True)
    assert not compare(config, inputs, steps, set_aside=False).differences
