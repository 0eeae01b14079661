"""What does not fit together in what a run reads: the machine's part of it (moesim.sim.setup), batcher, arrivals."""

from __future__ import annotations

from moesim import policy
from moesim.errors import InputError, Problem, unknown
from moesim.experiment import Experiment
from moesim.sim import setup
from moesim.sim.room import check_lengths
from moesim.sim.setup import Inputs
from moesim.sim.traffic import chosen
from moesim.sim.workload import eligible, stream
from moesim.trace.arrivals import Arrivals


def check(config: Experiment, inputs: Inputs) -> list[Problem]:
    """What is wrong between a valid configuration and valid inputs, all of it."""
    of_setup = setup.check(config, inputs)
    kv = [] if of_setup else _check_kv(config, inputs)
    return [*of_setup, *kv, *_check_arrivals(config, inputs), *_check_batch(config)]


def _check_kv(config: Experiment, inputs: Inputs) -> list[Problem]:
    if config.memory.kv is None:
        return []
    kv = setup.settle(config, inputs).memory.kv
    assert kv is not None and kv.blocks is not None
    return check_lengths(config, inputs.trace, kv.blocks, inputs.arrivals)


def _check_batch(config: Experiment) -> list[Problem]:
    spec = config.scheduler.batch
    try:
        watches = hasattr(policy.find("batch", spec.name), "watch")
    except InputError:
        return []  # reported where names are looked up
    if config.schedule != "frozen" or not watches:
        return []
    why = "looks at the expert cache, and a frozen schedule is recorded with every expert there; use schedule: free"
    return [Problem("scheduler.batch", f"{spec.name!r} {why}")]


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
    elif config.window is not None and min(left) < config.window.awaited:
        needed = f"{config.window.awaited:,} requests with its warm-up"
        found.append(Problem("window", f"needs {needed}, and traffic.arrivals leaves {min(left):,}"))
    if arrivals.domains is not None:
        trace = inputs.trace
        there = {trace.domains[s] for s in eligible(trace, config.traffic)}
        missing = sorted(set(arrivals.domains) - there)
        found += [Problem("traffic.arrivals", unknown("domain", domain, there)) for domain in missing if there]
    return found


def traffic_label(arrivals: Arrivals | None, requests: int) -> dict[str, str]:
    """Whose arrivals drove the run, for results; nothing where a rule made them."""
    if arrivals is None:
        return {}
    meta = arrivals.meta
    return {"arrivals": f"arrivals: {meta.name} ({meta.label}), {requests:,} of {len(arrivals):,} requests"}
