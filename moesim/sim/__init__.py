"""The discrete-event model of the server."""

from moesim.sim.inputs import check
from moesim.sim.result import RunResult
from moesim.sim.setup import Inputs
from moesim.sim.simulate import schedule_key, simulate

__all__ = ["Inputs", "RunResult", "check", "schedule_key", "simulate"]
