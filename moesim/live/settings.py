"""Settings of a refactorization: everything that decides its result, but for the texts and the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from moesim.errors import InputError, Problem, unknown

Count = Annotated[int, Field(ge=1)]
Span = tuple[Count, Count]
Share = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]
Scheme = Literal["domains", "fine-grained"]
Tuned = Literal["deltas", "ffn", "nothing"]
Precision = Literal["bfloat16", "float32"]


class RefactorConfig(BaseModel):
    """One refactorization. Counts of texts are per domain; lengths are in tokens, each span from least to most.

    Training: `rounds` times `router_steps` steps of the router and `expert_steps` steps of the experts (Read-ME,
    Table 2: 8 x (100, 200)); each round's rates are `rate_decay` times those of the one before, with a cosine inside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Scheme = "domains"
    seed: Annotated[int, Field(ge=0)] = 0
    # texts
    train: Count = 48
    train_length: Span = (128, 512)
    calibration: Count = 8
    prompts: Count = 144
    short: Span = (16, 128)
    long: Span = (256, 1024)
    output: Span = (8, 256)
    output_mean: Count = 63
    # domain experts and their router
    share: Share = 0.5
    label: Literal["overlap", "published"] = "overlap"
    router_width: Count = 512
    router_heads: Count = 4
    router_mlp: Count = 512
    router_rate: Rate = 1e-3
    router_batch: Count = 8
    router_steps: Count = 42
    # fine-grained experts and their gates
    experts: Annotated[int, Field(ge=2)] = 8
    k: Count = 2
    shared: Annotated[float, Field(ge=0, lt=1)] = 1 / 3
    cluster_texts: Count = 3
    gate_steps: Annotated[int, Field(ge=0)] = 200
    # tuning with the language-model loss
    rounds: Count = 2
    rate_decay: Annotated[float, Field(gt=0, le=1)] = 0.8
    tune: Tuned = "deltas"
    rank: Annotated[int, Field(ge=0)] = 0
    shared_rank: Annotated[int, Field(ge=0)] = 8
    expert_rate: Rate = 4e-3
    expert_steps: Annotated[int, Field(ge=0)] = 50
    expert_batch: Count = 4
    precision: Precision = "bfloat16"
    # the report
    report_texts: Count = 4
    report_length: Annotated[int, Field(ge=2)] = 384

    @model_validator(mode="after")
    def _consistent(self) -> RefactorConfig:
        wrong = [
            f"{name} runs from {low} to {high}; the least must not be above the most"
            for name in ("train_length", "short", "long", "output")
            for low, high in [getattr(self, name)]
            if low > high
        ]
        if self.calibration > self.train:
            wrong.append(f"calibration is {self.calibration}, but there are {self.train} training texts a domain")
        if self.cluster_texts > self.train:
            wrong.append(f"cluster_texts is {self.cluster_texts}, but there are {self.train} training texts a domain")
        if self.router_width % (2 * self.router_heads):
            wrong.append(f"router_width is {self.router_width}; it must be a multiple of twice router_heads")
        if self.k > self.experts:
            wrong.append(f"k is {self.k}, but there are {self.experts} experts")
        if self.tune == "deltas" and not self.rank and not self.shared_rank:
            wrong.append("tune is deltas, but rank and shared_rank are both 0; give one, or tune=nothing")
        if wrong:
            raise PydanticCustomError("refactorize", "{text}", {"text": "; ".join(wrong)})
        return self


QUICK: dict[str, Any] = {
    "train": 6,
    "calibration": 3,
    "cluster_texts": 2,
    "prompts": 8,
    "long": (128, 320),
    "router_steps": 20,
    "rounds": 1,
    "expert_steps": 6,
    "expert_batch": 2,
    "gate_steps": 60,
    "report_texts": 1,
    "report_length": 256,
}


def fast_precision(device: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> Precision:
    """bfloat16 where the device multiplies it natively; elsewhere it would be slower than float32, not faster."""
    if device.startswith("cuda"):
        return "bfloat16"
    try:
        flags = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        flags = ""
    return "bfloat16" if re.search(r"\b(avx512_bf16|amx_bf16)\b", flags) else "float32"


def config_from(
    scheme: Scheme, settings: Sequence[str], *, quick: bool = False, precision: Precision = "bfloat16"
) -> RefactorConfig:
    """The configuration of `name=value` texts (YAML values) over the defaults. Raises InputError with all mistakes."""
    import yaml

    known = RefactorConfig.model_fields
    values: dict[str, Any] = {**(QUICK if quick else {}), "scheme": scheme, "precision": precision}
    problems = []
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            problems.append(Problem("--set", f"{text!r} is no NAME=VALUE"))
        elif name not in known or name == "scheme":
            problems.append(Problem("--set", unknown("setting", name, sorted(set(known) - {"scheme"}))))
        else:
            try:
                values[name] = yaml.safe_load(value)
            except yaml.YAMLError:
                problems.append(Problem(f"--set {name}", f"{value!r} is no YAML value"))
    try:
        config = RefactorConfig.model_validate(values)
    except ValidationError as error:
        places = [(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()]
        problems += [Problem(f"--set {place}" if place else "--set", text) for place, text in places]
    if problems:
        raise InputError(problems)
    return config
