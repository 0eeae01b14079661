"""Continuous batched generation: sequences join a running batch as others leave it; every token is run once.

A prompt is run alone, so its routing does not depend on what else runs; while decoding, other sequences can change a
sequence by the rounding of floating point only. A forced continuation is run in one pass with its prompt.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from moesim.live.kv import Lanes, can_join
from moesim.live.prompts import Prompt

EndOfText = Literal["stop", "ban", "ignore"]


class Watcher(Protocol):
    """Told before each pass which sequences it holds and how many tokens of each; none is padding."""

    def expect(self, rows: Sequence[int], tokens: int) -> None: ...

    def collect(self) -> None:
        """The pass is over."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws the next token of each sequence with a random stream of its own, keyed by seed and sequence.

    `temperature` 0 takes the likeliest. End of text: "stop" ends a sequence with one of `ends`, "ban" never draws one
    of `special`, "ignore" goes on behind it.
    """

    temperature: float
    seed: int
    ends: tuple[int, ...] = ()
    special: tuple[int, ...] = ()
    end_of_text: EndOfText = "stop"

    def chances(self, sequence: int, tokens: int) -> np.ndarray:
        """float64 [tokens] in [0, 1): what decides each draw of a sequence."""
        return np.random.default_rng((self.seed, 7, sequence)).random(tokens)

    def draw(self, logits: Tensor, chances: Sequence[float]) -> list[int]:
        """A token for each row of `logits` [rows, vocabulary]: the first whose cumulated probability exceeds it."""
        logits = logits.float()
        if self.end_of_text == "ban" and self.special:
            logits = logits.index_fill(1, torch.tensor(self.special, device=logits.device), -torch.inf)
        if not self.temperature:
            return [int(token) for token in logits.argmax(dim=-1).tolist()]
        summed = (logits / self.temperature).softmax(dim=-1).double().cumsum(dim=-1)
        wanted = torch.tensor(chances, dtype=torch.float64, device=logits.device)[:, None] * summed[:, -1:]
        drawn = torch.searchsorted(summed, wanted, right=True).flatten().clamp(max=logits.shape[1] - 1)
        return [int(token) for token in drawn.tolist()]

    def ended(self, token: int) -> bool:
        return self.end_of_text == "stop" and token in self.ends


@dataclass(frozen=True, slots=True)
class Generator:
    """`model` is called as a Hugging Face causal language model; at most `slots` sequences are decoded together."""

    model: Any
    sampler: Sampler
    slots: int
    device: str = "cpu"

    def run(
        self, prompts: Sequence[tuple[int, Prompt]], watcher: Watcher | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(number, output ids int32) of each of the numbered prompts, as they finish.

        The longest begin first: the batch stays full to its end, and what runs together is of like length.
        """
        batch = _Batch(self, watcher)
        order = sorted(prompts, key=lambda item: (-item[1].tokens, item[0]))
        waiting = deque(_Going(n, prompt, self.sampler.chances(n, prompt.output)) for n, prompt in order)
        while waiting or batch.running:
            done = batch.begin(waiting.popleft()) if waiting and batch.free else batch.step()
            for one in done:
                yield one.number, np.array(one.tokens, np.int32)


@dataclass(slots=True)
class _Going:
    """A sequence on its way: `tokens` were drawn, the last of them is not yet run."""

    number: int
    prompt: Prompt
    chances: np.ndarray
    tokens: list[int] = field(default_factory=list)
    last: bool = False

    def take(self, token: int, sampler: Sampler) -> None:
        self.tokens.append(token)
        self.last = len(self.tokens) >= self.prompt.output or sampler.ended(token)


class _Batch:
    """What runs together: `running` sequences, in the order of the rows of `lanes`."""

    def __init__(self, settings: Generator, watcher: Watcher | None) -> None:
        self._settings, self._watcher = settings, watcher
        self._takes = set(inspect.signature(settings.model.forward).parameters)
        self._alone = "position_ids" not in self._takes
        self.lanes = Lanes()
        self.running: list[_Going] = []

    @property
    def free(self) -> bool:
        """Whether one more can begin; where caches cannot be joined, each sequence runs alone."""
        return len(self.running) < (1 if self._alone else self._settings.slots)

    @torch.no_grad()
    def begin(self, one: _Going) -> list[_Going]:
        """Run a prompt, and what is forced behind it; gives it back where nothing is left to do."""
        prompt = one.prompt
        forced = prompt.continuation if prompt.continuation is not None else prompt.ids[:0]
        ids = torch.from_numpy(np.concatenate([prompt.ids, forced]).astype(np.int64))[None]
        decode = prompt.continuation is None and prompt.output > 0
        out = self._pass([one], ids, use_cache=decode)
        if not decode:
            one.tokens = [int(token) for token in forced]
            return [one]
        self._alone = self._alone or not can_join(out.past_key_values)
        self.lanes.join(out.past_key_values, ids.shape[1])
        one.take(self._settings.sampler.draw(out.logits[:, -1], [one.chances[0]])[0], self._settings.sampler)
        self.running.append(one)
        return []

    @torch.no_grad()
    def step(self) -> list[_Going]:
        """One token of each running sequence; gives back those that have left."""
        ids = torch.tensor([[one.tokens[-1]] for one in self.running])
        position = torch.tensor(self.lanes.lengths)[:, None]
        out = self._pass(
            self.running, ids, mask=self.lanes.mask(), position=position, cache=self.lanes.cache, use_cache=True
        )
        self.lanes.cache = out.past_key_values
        self.lanes.advance()
        gone = [one for one in self.running if one.last]
        stay = [row for row, one in enumerate(self.running) if not one.last]
        logits = out.logits[:, -1]
        if gone:
            self.lanes.keep(stay)
            self.running, logits = [self.running[row] for row in stay], logits[torch.tensor(stay, dtype=torch.long)]
        if self.running:
            chances = [float(one.chances[len(one.tokens)]) for one in self.running]
            for one, token in zip(self.running, self._settings.sampler.draw(logits, chances), strict=True):
                one.take(token, self._settings.sampler)
        return gone

    def _pass(
        self,
        rows: Sequence[_Going],
        ids: Tensor,
        *,
        mask: Tensor | None = None,
        position: Tensor | None = None,
        cache: Any = None,
        use_cache: bool,
    ) -> Any:
        device = self._settings.device
        given: dict[str, Any] = {"input_ids": ids.to(device), "use_cache": use_cache, "past_key_values": cache}
        given["attention_mask"] = None if mask is None else mask.to(device)
        given["position_ids"] = None if position is None else position.to(device)
        given["logits_to_keep"] = 1
        if self._watcher is not None:
            self._watcher.expect([one.number for one in rows], ids.shape[1])
        out = self._settings.model(**{name: value for name, value in given.items() if name in self._takes})
        if self._watcher is not None:
            self._watcher.collect()
        return out
