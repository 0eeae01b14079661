"""Capture a routing trace of a model on prompts: parts in a work folder, then one file (docs/capture.md)."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moesim.errors import InputError, Problem
from moesim.live.capture_settings import CaptureConfig, sampled
from moesim.live.generate import Generator, Sampler
from moesim.live.overhead import measure
from moesim.live.prompts import CONTINUATIONS, Prompt, digest, write_prompts
from moesim.live.stages import Arrays, Stages
from moesim.live.structure import MoEBlock, find_blocks, router_block
from moesim.live.target import Target
from moesim.live.tracer import Routing, RoutingTracer

SAID_S = 10.0


@dataclass(slots=True)
class Progress:
    """Tokens a second and what is left, on standard error, at most every 10 seconds."""

    tokens: int
    quiet: bool
    done: int = 0
    skipped: int = 0
    begun: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def add(self, tokens: int, *, kept: bool = False) -> None:
        self.done += tokens
        self.skipped += tokens if kept else 0
        now = time.monotonic()
        if not self.quiet and now - self.said >= SAID_S:
            self.said = now
            rate = (self.done - self.skipped) / max(now - self.begun, 1e-9)
            left = f", {(self.tokens - self.done) / rate:,.0f} s left" if rate else ""
            print(f"{self.done:,} of {self.tokens:,} tokens, {rate:,.0f} tokens/s{left}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Capture:
    """One capture: `target` runs `prompts` under `config`; finished parts are kept in `work`.

    Raises InputError where the model cannot be traced, or the work folder holds the parts of another capture.
    """

    target: Target
    prompts: Sequence[Prompt]
    config: CaptureConfig
    work: Path
    device: str = "cpu"
    quiet: bool = False
    created: str = ""

    @cached_property
    def blocks(self) -> list[MoEBlock]:
        """The MoE layers in the order in which they run, or the one pre-gating router; none for text only."""
        if self.config.text_only:
            return []
        refactorized = self.target.refactorized
        if refactorized is not None and refactorized.router is not None:
            router = refactorized.router
            return [router_block(router, int(router.config.experts), int(refactorized.meta["k"]))]
        return find_blocks(self.target.model, self.target.name, self.device)

    @property
    def decoupled(self) -> bool:
        return bool(self.blocks) and self.blocks[0].form == "router"

    @property
    def k(self) -> int:
        return max(block.k for block in self.blocks)

    @property
    def experts(self) -> int:
        return max(block.experts for block in self.blocks)

    @property
    def top(self) -> int:
        """m: stored best experts; 0 where a gate's logits cannot be seen."""
        if not self.blocks or any(block.gate is None or block.logits is None for block in self.blocks):
            return 0
        least = min(max(2 * self.k, 3), self.experts)
        return least if self.config.top is None else self.config.top

    @property
    def distances(self) -> int:
        """How many layers ahead gates are asked; 0 where they cannot be asked about another layer's input."""
        able = self.top and not self.decoupled and all(block.extra is not None for block in self.blocks)
        return min(self.config.distances, len(self.blocks) - 1) if able else 0

    @cached_property
    def full(self) -> frozenset[int]:
        """Numbers of the sequences whose best m and predictions are kept."""
        return sampled(self.prompts, self.config.sample, self.config.seed, self.config.end_of_text)

    @property
    def router_only(self) -> bool:
        """Whether the model behind a pre-gating router need not run: it would decide nothing."""
        return self.decoupled and all(prompt.continuation is not None for prompt in self.prompts)

    def generator(self, model: Any) -> Generator:
        config, target = self.config, self.target
        sampler = Sampler(config.temperature, config.seed, target.ends, target.special, config.end_of_text)
        return Generator(model, sampler, config.batch, self.device)

    @cached_property
    def stages(self) -> Stages:
        identity = {
            "capture": self.config.kept(),
            "model": self.target.fingerprint(),
            "prompts": digest(self.prompts),
            "device": self.device.partition(":")[0],
        }
        return Stages(self.work, identity, quiet=True)

    # ---- the work

    def run(self) -> None:
        """Do all parts that are not there yet, and write the continuations beside them."""
        _ = self.blocks, self.stages
        self.facts()
        progress = Progress(sum(prompt.tokens for prompt in self.prompts), self.quiet)
        for name, rows in self._parts():
            kept = (self.work / f"{name}.npz").exists()
            if kept:
                progress.add(sum(self.prompts[row].tokens for row in rows), kept=True)
            else:
                self.stages.keep(name, self._part(rows, progress))
        write_prompts(self.work / CONTINUATIONS, self.continued())

    def facts(self) -> dict[str, Any]:
        """What is found out once and kept: the date, and the cost of tracing."""
        kept = self.stages.read("facts")
        if kept is None:
            created = self.created or datetime.datetime.now(datetime.UTC).date().isoformat()
            cost = self._overhead() if self.blocks and self.config.overhead else {}
            kept = {"created": np.array(created)} | {f"overhead {name}": np.array(v) for name, v in cost.items()}
            self.stages.keep("facts", kept)
        if "created" not in kept:
            text = "does not say when it was made; remove it, and it will be made again"
            raise InputError(Problem(str(self.work / "facts.npz"), text))
        cost = {name.removeprefix("overhead "): v.item() for name, v in kept.items() if name != "created"}
        return {"created": str(kept["created"]), "overhead": cost}

    def parts(self) -> Iterator[tuple[list[int], Arrays]]:
        """(numbers of the sequences, arrays) of every part, in order."""
        for name, rows in self._parts():
            yield rows, self._kept(name, rows)

    def _kept(self, name: str, rows: list[int]) -> Arrays:
        """The arrays of a finished part. Raises InputError where they are not those of the sequences `rows`."""
        arrays = self.stages.read(name) or {}
        outputs = arrays.get("outputs", np.zeros(0, np.int64))
        tokens = int(outputs.sum()) + sum(len(self.prompts[row].ids) for row in rows)
        layers = len(self.blocks)
        expected: dict[str, tuple[int, ...]] = {"outputs": (len(rows),), "ids": (int(outputs.sum()),)}
        if layers:
            expected |= dict.fromkeys(("experts", "weights"), (tokens, layers, self.k))
        wrong = [key for key, shape in expected.items() if key not in arrays or arrays[key].shape != shape]
        if wrong:
            text = f"is not this capture's ({', '.join(wrong)} missing or of another size); remove it, and it will be "
            raise InputError(Problem(str(self.work / f"{name}.npz"), text + "made again"))
        return arrays

    def continued(self) -> Iterator[Prompt]:
        """The prompts, each with the continuation that it got."""
        from dataclasses import replace

        for rows, arrays in self.parts():
            outputs = np.split(arrays["ids"], np.cumsum(arrays["outputs"])[:-1])
            for row, output in zip(rows, outputs, strict=True):
                by = self.prompts[row].continuation_by or self.says_who()
                yield replace(self.prompts[row], output=len(output), continuation=output, continuation_by=by)

    def says_who(self) -> str:
        """Who wrote the continuations that were not forced."""
        config = self.config
        end = {"stop": "ends at end of text", "ban": "special tokens banned", "ignore": "goes on behind end of text"}
        way = f"temperature {config.temperature:g}" if config.temperature else "greedy"
        return f"{self.target.name}, {self.target.dtype}, {way}, seed {config.seed}, {end[config.end_of_text]}"

    def _parts(self) -> Iterator[tuple[str, list[int]]]:
        for number, at in enumerate(range(0, len(self.prompts), self.config.part)):
            yield f"part-{number:05d}", list(range(at, min(at + self.config.part, len(self.prompts))))

    def tracer(self, full: frozenset[int] | None = None) -> RoutingTracer:
        chosen = self.full if full is None else full
        ahead = self.top if self.distances else 0
        return RoutingTracer(
            self.blocks, top=self.top, distances=self.distances, ahead=ahead, full=lambda number: number in chosen
        )

    def _part(self, rows: list[int], progress: Progress) -> Arrays:
        todo = [(row, self.prompts[row]) for row in rows]
        generator = self.generator(_RouterOnly(self.blocks[0].gate) if self.router_only else self.target.model)
        outputs: dict[int, np.ndarray] = {}
        traced: dict[int, Routing] = {}
        if not self.blocks:
            for row, output in generator.run(todo):
                outputs[row] = output
                progress.add(self.prompts[row].tokens)
        else:
            with self.tracer() as tracer:
                for row, output in generator.run(todo, tracer):
                    outputs[row], traced[row] = output, tracer.take(row)
                    self._check_finite(traced[row])
                    progress.add(self.prompts[row].tokens)
        found = {
            "ids": np.concatenate([outputs[row] for row in rows]),
            "outputs": np.array([len(outputs[row]) for row in rows], np.int64),
        }
        if traced:
            kept = [traced[row].arrays() for row in rows]
            for name in sorted({name for arrays in kept for name in arrays}):
                found[name] = np.concatenate([arrays[name] for arrays in kept if name in arrays])
        return found

    def _check_finite(self, routing: Routing) -> None:
        if not np.isfinite(routing.weights).all():
            text = f"its gates give weights that are not finite; is the checkpoint damaged, or {self.target.dtype} too "
            raise InputError(Problem(self.target.name, text + "narrow for it (--dtype)?"))

    def _overhead(self) -> dict[str, Any]:
        everyone = frozenset(range(len(self.prompts)))
        return measure(
            self.generator(self.target.model),
            self.prompts,
            lambda full: self.tracer(everyone if full else frozenset()),
            min(self.config.overhead, len(self.prompts)),
        )


class _RouterOnly(torch.nn.Module):
    """A pre-gating router in the place of its model, for sequences of which every token is given."""

    def __init__(self, router: Any) -> None:
        super().__init__()
        self.router = router

    def forward(self, input_ids: torch.Tensor) -> None:
        self.router(input_ids)
