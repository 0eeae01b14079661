"""What a run reads, with the arrivals where its traffic has a file of them; and what does not fit together."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.errors import Problem, unknown
from moesim.experiment import Experiment
from moesim.sim import setup
from moesim.sim.traffic import chosen
from moesim.sim.workload import Workload, eligible, stream
from moesim.trace.arrivals import Arrivals


@dataclass(frozen=True, slots=True)
class Inputs(setup.Inputs):
    """Everything that a run reads; `arrivals` is there for traffic of kind trace."""

    arrivals: Arrivals | None = None


def check(config: Experiment, inputs: Inputs) -> list[Problem]:
    """What is wrong between a valid configuration and valid inputs, all of it."""
    return [*setup.check(config, inputs), *_check_arrivals(config, inputs)]


def _check_arrivals(config: Experiment, inputs: Inputs) -> list[Problem]:
    spec, arrivals = config.traffic.arrivals, inputs.arrivals
    if spec is None or arrivals is None:
        return []
    found = []
    left = [len(chosen(arrivals, spec, stream(config.seed, r, "sample"))) for r in range(config.replications)]
    if not all(left):
        which = "" if not any(left) else f" in replication {left.index(0)}"
        text = f"leaves none of the {len(arrivals):,} requests, which come in 0 to {arrivals.seconds:,.1f} s{which}"
        found.append(Problem("traffic.arrivals", text))
    if arrivals.domains is not None:
        trace = inputs.trace
        there = {trace.domains[s] for s in eligible(trace, config.traffic)}
        missing = sorted(set(arrivals.domains) - there)
        found += [Problem("traffic.arrivals", unknown("domain", domain, there)) for domain in missing if there]
    return found


def traffic_label(workload: Workload, inputs: Inputs) -> dict[str, str]:
    """Whose arrivals drove the run, for results; nothing where a rule made them."""
    arrivals, taken = inputs.arrivals, workload.arrivals
    if arrivals is None or taken is None:
        return {}
    text = f"arrivals: {arrivals.meta.name} ({arrivals.meta.label}), {workload.traffic.requests:,} of {len(arrivals):,}"
    return {"arrivals": text}
