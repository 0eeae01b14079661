"""One phase of training: AdamW steps with a cosine schedule, kept in the work folder, resumed to the same bytes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from moesim.errors import InputError, Problem
from moesim.live.stages import Arrays, Stages

SAVE_EVERY = 40.0  # seconds between checkpoints: what an interruption can lose
SAY_EVERY = 10.0


@dataclass(frozen=True, slots=True)
class Phase:
    """`name` is the stage; `rates` gives a learning rate to parameters whose name starts with the key."""

    name: str
    steps: int
    rate: float
    rates: tuple[tuple[str, float], ...] = ()
    decay: float = 0.01

    def rate_of(self, parameter: str, step: int) -> float:
        rate = next((value for start, value in self.rates if parameter.startswith(start)), self.rate)
        return rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def fit(
    phase: Phase, parameters: Mapping[str, nn.Parameter], loss_of: Callable[[int], Tensor], stages: Stages
) -> list[float]:
    """Train `parameters` in place with the loss of each step (a function of the step alone); returns the losses.

    A finished phase is read from the work folder, an interrupted one goes on from its checkpoint.
    """
    done = stages.read(phase.name)
    if done is None:
        done = _train(phase, parameters, loss_of, stages)
        stages.keep(phase.name, done)
        stages.drop(_unfinished(phase))
        mean = np.mean(done["losses"][-10:]) if phase.steps else float("nan")
        stages.say(f"{phase.name} done, {phase.steps} steps, loss {mean:.3f}")
    _load(done, parameters, phase.name)
    return [float(value) for value in done["losses"]]


def _train(
    phase: Phase, parameters: Mapping[str, nn.Parameter], loss_of: Callable[[int], Tensor], stages: Stages
) -> Arrays:
    groups = [{"params": [value], "name": name} for name, value in parameters.items()]
    optimizer = torch.optim.AdamW(groups, lr=phase.rate, weight_decay=phase.decay)
    losses = _resume(phase, parameters, optimizer, stages)
    start = saved = said = time.monotonic()
    first = len(losses)
    for step in range(first, phase.steps):
        for group in optimizer.param_groups:
            group["lr"] = phase.rate_of(group["name"], step)
        loss = loss_of(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        now = time.monotonic()
        if now - said > SAY_EVERY or step == first:
            each = (now - start) / (step + 1 - first)
            stages.say(f"{phase.name}: step {step + 1} of {phase.steps}, loss {losses[-1]:.3f}, {each:.1f} s a step")
            said = now
        if now - saved > SAVE_EVERY and step + 1 < phase.steps:
            stages.keep(_unfinished(phase), _checkpoint(parameters, optimizer, losses))
            saved = time.monotonic()
    return _values(parameters) | {"losses": np.array(losses, np.float64)}


def _unfinished(phase: Phase) -> str:
    return f"{phase.name}-unfinished"


def _values(parameters: Mapping[str, nn.Parameter]) -> Arrays:
    return {f"value/{name}": value.detach().cpu().numpy().copy() for name, value in parameters.items()}


def _checkpoint(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW, losses: list[float]) -> Arrays:
    kept = _values(parameters) | {"losses": np.array(losses, np.float64)}
    for name, value in parameters.items():
        state = optimizer.state.get(value, {})
        kept |= {f"{key}/{name}": state[key].cpu().numpy() for key in ("exp_avg", "exp_avg_sq") if key in state}
    return kept


def _resume(
    phase: Phase, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW, stages: Stages
) -> list[float]:
    kept = stages.read(_unfinished(phase))
    if kept is None:
        return []
    _load(kept, parameters, _unfinished(phase))
    losses = [float(value) for value in kept["losses"]]
    for name, value in parameters.items():
        if f"exp_avg/{name}" in kept:
            moments = {key: torch.from_numpy(kept[f"{key}/{name}"]).to(value) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[value] = {"step": torch.tensor(float(len(losses))), **moments}
    stages.say(f"{phase.name}: goes on after step {len(losses)}")
    return losses


@torch.no_grad()
def _load(kept: Arrays, parameters: Mapping[str, nn.Parameter], name: str) -> None:
    expected = {f"value/{key}": tuple(value.shape) for key, value in parameters.items()} | {"losses": None}
    found = {key: array.shape for key, array in kept.items()}
    wrong = [key for key, shape in expected.items() if key not in found or (shape is not None and found[key] != shape)]
    if wrong:
        text = f"does not hold this job's arrays ({', '.join(wrong[:3])}); remove it, and it will be made again"
        raise InputError(Problem(f"stage {name}", text))
    for key, value in parameters.items():
        value.copy_(torch.from_numpy(kept[f"value/{key}"]))
