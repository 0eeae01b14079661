"""Settings of a capture, and the texts that follow from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from moesim.live.corpus import DOMAINS, Split, Work
from moesim.live.passages import Encode, Passage, cut, lengths

Count = Annotated[int, Field(ge=1)]
Span = tuple[Count, Count]


class CaptureConfig(BaseModel):
    """Everything that decides the bytes of a capture, but for the texts and the model.

    Counts of texts are per domain; lengths are in tokens, each span from least to most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Annotated[int, Field(ge=0)] = 0
    train: Count = 48
    train_length: Span = (128, 512)
    calibration: Count = 8
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    width: Count = 512
    heads: Count = 4
    mlp: Count = 512
    epochs: Count = 3
    batch: Count = 8
    rate: Annotated[float, Field(gt=0)] = 1e-3
    prompts: Count = 72
    short: Span = (16, 128)
    long: Span = (256, 1024)
    output: Span = (8, 160)
    output_mean: Count = 50
    temperature: Annotated[float, Field(gt=0)] = 0.8
    decode_batch: Count = 24
    loss_texts: Count = 2
    loss_length: Annotated[int, Field(ge=2)] = 384
    top: Annotated[int, Field(ge=2)] = 3

    @model_validator(mode="after")
    def _consistent(self) -> CaptureConfig:
        wrong = [
            f"{name} runs from {low} to {high}; the least must not be above the most"
            for name in ("train_length", "short", "long", "output")
            for low, high in [getattr(self, name)]
            if low > high
        ]
        if self.calibration > self.train:
            wrong.append(f"calibration is {self.calibration}, but there are {self.train} training texts a domain")
        if self.width % (2 * self.heads):
            wrong.append(f"width is {self.width}; it must be a multiple of twice the heads ({self.heads})")
        if self.top > len(DOMAINS):
            wrong.append(f"top is {self.top}, but there are {len(DOMAINS)} experts")
        if wrong:
            raise PydanticCustomError("capture", "{text}", {"text": "; ".join(wrong)})
        return self


@dataclass(frozen=True, slots=True)
class Texts:
    """Training texts by domain, and prompts in the order of the trace's sequences (domains take turns)."""

    train: tuple[tuple[Passage, ...], ...]
    prompts: tuple[Passage, ...]

    def digest(self) -> str:
        """sha256 of all token ids."""
        found = hashlib.sha256()
        for passage in (*(p for domain in self.train for p in domain), *self.prompts):
            found.update(len(passage.ids).to_bytes(4, "little") + passage.ids.tobytes())
        return found.hexdigest()


def choose_texts(works: list[Work], encode: Encode, config: CaptureConfig) -> Texts:
    """Training passages and prompts of every domain. Raises InputError where a domain has too little text."""
    least, most = config.train_length
    train, prompts = [], []
    for index, domain in enumerate(DOMAINS):
        sizes = lengths(config.prompts, config.short, config.long, (config.seed, index, 1))
        mine = _of(works, domain, "train")
        train.append(tuple(cut(mine, encode, [(most, least)] * config.train, (config.seed, index, 0))))
        prompts.append(cut(_of(works, domain, "held-out"), encode, sizes, (config.seed, index, 2)))
    return Texts(tuple(train), tuple(passage for turn in zip(*prompts, strict=True) for passage in turn))


def _of(works: list[Work], domain: str, split: Split) -> list[Work]:
    return [work for work in works if work.domain == domain and work.split == split]
