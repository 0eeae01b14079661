"""The simulator and the slow reference do the same to the nanosecond: steps, parts, classes, bytes, requests."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec

from hypothesis import HealthCheck, assume, given, settings

from moesim import policy
from moesim.sim import check
from moesim.trace.reveal import at_gate
from tests.reference.cases import Case, cases
from tests.reference.collected import collected
from tests.reference.compare import WAYS, differences, fitting, referred, simulated
from tests.reference.coverage import PER, REQUIRED, occurred
from tests.reference.replay import serve

USUAL = 800
CASES = int(os.environ.get("MOESIM_REFERENCE_CASES", USUAL))
"""more of them: MOESIM_REFERENCE_CASES=20000 pytest tests/reference/test_agreement.py"""


def test_simulator_and_reference_agree() -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=CASES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(cases())
    def agree(case: Case) -> None:
        config, inputs = case.build()
        assume(not check(config, inputs))
        run = serve(config, inputs, case.replication)
        slow = referred(run)
        compiled = fitting(config, inputs)
        for way in WAYS if compiled else WAYS[:2]:
            told = differences(simulated(config, inputs, way, case.replication), slow)
            assert not told, (way, case, told)
        seen.update(occurred(case, run, compiled))
        seen["cases"] += 1

    agree()
    assert seen["cases"] > 0.95 * CASES
    least = {name: number * min(CASES, PER) // PER for name, number in REQUIRED.items()}
    if find_spec("numba") is None:
        del least["compiled"], least["KV memory of compiled steps"]  # need the fast extra
    rare = {name: (seen[name], number) for name, number in least.items() if seen[name] < number}
    assert not rare, f"of {seen['cases']} cases too few had (number, least): {rare}"
    if CASES >= USUAL:
        kinds = ("batch", "cache", "prefetch", "miss")
        missing = [f"{kind} {name}" for kind in kinds for name in policy.names(kind)]
        missing = [name for name in missing if not seen[name]]
        assert not missing, f"no case had {missing}"


def test_they_agree_where_routes_are_revealed_at_each_gate() -> None:
    """The decoupled ones of the random cases again, those that ask for no more than such a server can show."""
    seen: Counter[str] = Counter()
    for case in collected(CASES // 2):
        config, inputs = case.build()
        if case.router != "decoupled":
            continue
        inputs = replace(inputs, trace=at_gate(inputs.trace, case.layers))
        if check(config, inputs):
            continue
        slow = referred(serve(config, inputs, case.replication))
        for way in WAYS if fitting(config, inputs) else WAYS[:2]:
            told = differences(simulated(config, inputs, way, case.replication), slow)
            assert not told, (way, case, told)
        seen[config.schedule] += 1
    assert min(seen["free"], seen["frozen"]) > CASES // 50
