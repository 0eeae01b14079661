"""Small models that a live engine runs in a moment, and the same runs simulated."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from moesim.check.toy import ToyCosts, ToyLink, config, trace
from moesim.hardware.shape import ModelShape
from moesim.live.engine.differences import COUNTED
from moesim.live.engine.machine import Options, weights_for
from moesim.live.engine.run import run_live
from moesim.sim import Inputs, RunResult, simulate

OPTIONS = Options()


def shape(layers: int, experts: int) -> ModelShape:
    """A key is 3 x 8 x 4 numbers of 4 bytes."""
    return ModelShape(
        name="small", layers=layers, d_model=8, expert_width=4, experts=experts, top_k=1, heads=2, kv_heads=1,
        head_dim=4, vocab=32, dense_bits=32, expert_bits=32, kv_bits=32,
    )  # fmt: skip


def inputs_of(
    sequences: list[Any], *, layers: int = 2, experts: int = 4, router: str = "decoupled", **more: Any
) -> Inputs:
    made = trace(sequences, layers=layers, experts=experts, router=router, **more)
    return Inputs(made, shape(layers, experts), ToyCosts(), ToyLink())  # type: ignore[arg-type]


@lru_cache(maxsize=32)
def weights(layers: int, experts: int, router: str, device: str = "cpu") -> Any:
    sequences = [([0] if router == "decoupled" else [[0] * layers], [0] if router == "decoupled" else [[0] * layers])]
    return weights_for(inputs_of(sequences, layers=layers, experts=experts, router=router), Options(device))


def both(
    inputs: Inputs, *, options: Options = OPTIONS, check: bool = True, **changes: Any
) -> tuple[RunResult, RunResult]:
    """(simulated, executed)."""
    asked = config(**({"machine": {"chunk_bytes": 150}} | changes))
    simulated = simulate(asked, inputs, 0, check=True)
    meta = inputs.trace.meta
    full = weights(meta.layers, meta.experts, meta.router, options.device)
    return simulated, run_live(asked, inputs, 0, full, options, check=check)


def counts(result: RunResult) -> list[list[int]]:
    """What is counted, step by step."""
    return [result.steps[name].tolist() for name in COUNTED]
