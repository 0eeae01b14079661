"""A machine whose every cost is a round number, and traces written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from moesim.experiment import Experiment
from moesim.hardware.keys import Keys
from moesim.hardware.shape import ModelShape
from moesim.sim import Inputs, RunResult, simulate
from moesim.sim.workload import Workload
from moesim.trace.meta import RoutingMeta
from moesim.trace.routing import RoutingTrace


@dataclass(frozen=True)
class ToyCosts:
    """Kernel and host times in ns; an expert kernel takes `expert` per active expert."""

    launch: int = 0
    sync: int = 0
    copy_submit: int = 0
    decision: int = 0
    attention: int = 10
    expert: int = 100
    gate_ns: int = 5
    router_ns: int = 0
    sample: int = 0
    cpu: int | None = None
    """an expert's token on the CPU"""
    name: str = "toy"
    device: str = "none"
    label: str = "ESTIMATED"
    digest: str = "toy"
    formed: int | None = None
    """forming a step; as `decision` if it is not given"""
    planned: int | None = None
    """handing over a key to prefetch; as `copy_submit` if it is not given"""

    @property
    def forming(self) -> int:
        return self.decision if self.formed is None else self.formed

    @property
    def planning(self) -> int:
        return self.copy_submit if self.planned is None else self.planned

    @property
    def has_cpu(self) -> bool:
        return self.cpu is not None

    def cpu_expert(self, tokens: int) -> int:
        assert self.cpu is not None
        return self.cpu * tokens

    def attention_prefill(self, tokens: int, context: int) -> int:
        return self.attention

    def attention_decode(self, batch: int, context: int) -> int:
        return self.attention

    def layer_rest(self, tokens: int) -> int:
        return 0

    def gate(self, tokens: int) -> int:
        return self.gate_ns

    def router(self, tokens: int) -> int:
        return self.router_ns

    def experts(self, tokens: int, active: int, largest: int) -> int:
        return self.expert * active

    def step_rest(self, tokens: int) -> int:
        return self.sample


@dataclass(frozen=True)
class ToyLink:
    """`fixed` ns a copy and one ns a byte; while both directions are busy 2 to the device and 1.5 to the host."""

    fixed: int = 0
    name: str = "toy"
    device: str = "none"
    label: str = "ESTIMATED"
    digest: str = "toy"
    most: int | None = None

    @property
    def lacks(self) -> Sequence[str]:
        return ()

    @property
    def both_ways(self) -> tuple[Fraction, Fraction]:
        return Fraction(2), Fraction(3, 2)

    def copy(self, bytes: int) -> int:
        return self.fixed + bytes

    def to_host(self, bytes: int) -> int:
        return self.fixed + bytes


def shape(layers: int = 1, experts: int = 4, key_bytes: int = 1000) -> ModelShape:
    """One key weighs `key_bytes`: its three matrices have `key_bytes / 8` weights of 64/3 bits."""
    made = ModelShape(
        name="toy", layers=layers, d_model=1, expert_width=key_bytes, experts=experts, top_k=1, heads=1, kv_heads=1,
        head_dim=1, vocab=1, expert_matrices=1, expert_bits=8,
    )  # fmt: skip
    assert made.key_bytes == key_bytes
    return made


def keys(layers: int = 1, experts: int = 4) -> Keys:
    """Keys of `shape`."""
    return Keys.of(shape(layers, experts))


def trace(
    sequences: list[tuple[list[Any], list[Any]]],
    *,
    layers: int = 1,
    experts: int = 4,
    router: str = "decoupled",
    k: int = 1,
    domains: tuple[str, ...] | None = None,
    predicted: dict[int, Any] | None = None,
    weights: Any = None,
) -> RoutingTrace:
    """From (prompt, output) pairs; a token is an expert (a list of `k`), or a list of them per layer (layer-wise).

    `predicted` has for each distance a list [tokens of all sequences][layers][p], `weights` the gate weights in the
    shape of the experts (1 each).
    """
    rows = 1 if router == "decoupled" else layers
    tokens = [np.atleast_1d(t) for prompt, output in sequences for t in (*prompt, *output)]
    chosen = np.array(tokens, dtype=np.int16).reshape(-1, rows, k)
    lengths = [len(prompt) + len(output) for prompt, output in sequences]
    ahead = {distance: np.array(ids, dtype=np.int16) for distance, ids in (predicted or {}).items()}
    p = ahead[1].shape[-1] if ahead else 0
    return RoutingTrace(
        meta=RoutingMeta(
            model="toy", router=router, layers=layers, experts=experts, k=k, p=p, key_bytes=1000, label="synthetic"
        ),
        experts=chosen,
        predicted=ahead,
        weights=np.array(np.ones_like(chosen) if weights is None else weights, np.float16).reshape(chosen.shape),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        prompt_tokens=np.array([len(prompt) for prompt, _ in sequences], dtype=np.int32),
        domains=domains or ("d",) * len(sequences),
    )  # fmt: skip


def as_requests(sequences: list[tuple[list[Any], list[Any]]]) -> list[tuple[list[Any], list[Any]]]:
    """`sequences` in the order in which a trace must hold them for request r of a `run` to replay the r-th of them."""
    drawn = Workload(trace(sequences), config().traffic, 0, 0, 1)
    arranged = list(sequences)
    for number, wanted in enumerate(sequences):
        arranged[drawn[number].sequence] = wanted
    return arranged


def config(**changes: Any) -> Experiment:
    """All requests at once, 2 slots a layer, one request a step, everything measured."""
    plain: dict[str, Any] = {
        "name": "toy",
        "trace": "toy.parquet",
        "model": "toy",
        "costs": "toy",
        "link": "toy",
        "memory": {"slots": 2, "scope": "layer"},
        "traffic": {"kind": "all", "requests": 1},
        "scheduler": {"batch": "decode-first", "max_tokens": 64, "max_requests": 1},
        "machine": {"chunk_bytes": 1000},
        "schedule": "free",
    }
    return Experiment(**(plain | changes))


def run(
    sequences: list[tuple[list[Any], list[Any]]] | RoutingTrace,
    *,
    layers: int = 1,
    experts: int = 4,
    costs: ToyCosts | None = None,
    link: ToyLink | None = None,
    router: str = "decoupled",
    check: bool = True,
    direct: bool = False,
    transfers: bool = False,
    progress: Callable[[int], None] | None = None,
    **changes: Any,
) -> RunResult:
    """Simulate a toy server; `changes` go to `config`."""
    made = (
        sequences
        if isinstance(sequences, RoutingTrace)
        else trace(sequences, layers=layers, experts=experts, router=router)
    )
    inputs = Inputs(made, shape(layers, experts), costs or ToyCosts(), link or ToyLink())  # type: ignore[arg-type]
    return simulate(
        config(**changes), inputs, 0, check=check, direct=direct, progress=progress, transfers=transfers
    )


def classes(result: RunResult) -> dict[str, int]:
    """Keys by access class over the whole run, those that occurred."""
    found = {c: int(result.steps[f"{c}_keys"].sum()) for c in ("reuse", "prefetch", "late", "miss")}
    return {c: n for c, n in found.items() if n}


def ends(result: RunResult) -> list[int]:
    return result.steps["end_ns"].tolist()
