"""Settings of a capture: everything that decides its bytes, but for the model and the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moesim.errors import InputError, Problem
from moesim.live.generate import EndOfText
from moesim.live.prompts import Prompt

Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0)]


class CaptureConfig(BaseModel):
    """What the options of `moesim capture` say; docs/capture.md has their meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Size = 0
    output: Size = 64
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.8
    end_of_text: EndOfText = "stop"
    batch: Count = 16
    part: Count = 64
    top: Size | None = None
    distances: Annotated[int, Field(ge=0, le=3)] = 3
    sample: Count | None = None
    weights_bits: Annotated[int, Field(ge=1, le=10)] | None = None
    overhead: Size = 4
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    text_only: bool = False

    def kept(self) -> dict[str, Any]:
        """What decides the parts in a work folder; the rest only decides how they are written."""
        return self.model_dump(mode="json", exclude={"weights_bits", "overhead", "output"})


def checked(values: dict[str, Any]) -> CaptureConfig:
    """The settings. Raises InputError naming every wrong option."""
    try:
        return CaptureConfig.model_validate(values)
    except ValidationError as error:
        found = [("--" + str(e["loc"][0]).replace("_", "-"), f"is {e['input']}: {e['msg']}") for e in error.errors()]
        raise InputError(Problem(place, text) for place, text in found) from error


def sampled(prompts: Sequence[Prompt], tokens: int | None, seed: int, end_of_text: EndOfText) -> frozenset[int]:
    """Numbers of the sequences that are kept in full: drawn in turn from each domain until they hold `tokens` tokens.

    None: all. Where a sequence may end early, only its prompt counts.
    """
    if tokens is None:
        return frozenset(range(len(prompts)))
    random = np.random.default_rng((seed, 11))
    stock: dict[str, list[int]] = {}
    for number in random.permutation(len(prompts)).tolist():
        stock.setdefault(prompts[number].domain, []).append(number)
    found: list[int] = []
    held = 0
    while held < tokens and any(stock.values()):
        for name in sorted(stock):
            if stock[name] and held < tokens:
                number = stock[name].pop()
                sure = prompts[number].continuation is not None or end_of_text != "stop"
                held += prompts[number].tokens if sure else len(prompts[number].ids)
                found.append(number)
    return frozenset(found)
