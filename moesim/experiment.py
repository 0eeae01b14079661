"""The schema of an experiment: one point of a grid, every value checked and frozen.

An experiment file holds these fields; `moesim.grid` turns its lists, named sets and cases into points first, so nothing
here is ever a list. Times are integer nanoseconds and sizes integer bytes wherever a unit is not named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
MOST_TOKENS = 10**7  # of a synthetic trace
LARGEST = 2**53  # still exact when a table reads it as a float


def parse_bytes(value: object) -> object:
    """Bytes of "12GB" (10^9) or "16MiB" (2^20); anything but text is given back as it is.

    Raises ValueError for text that is not a number followed by one of `UNITS`.
    """
    if not isinstance(value, str):
        return value
    match = SIZE.fullmatch(value)
    if not match or (match[2] or "B") not in UNITS:
        rule = f"is no size; write a number of bytes, or one with a unit of {', '.join(UNITS)}"
        raise PydanticCustomError("size", "{value} {rule}", {"value": repr(value), "rule": rule})
    return round(float(match[1]) * UNITS[match[2] or "B"])




def _size_schema(least: int) -> WithJsonSchema:
    text = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*[kKMGT]?i?B?$"}
    return WithJsonSchema({"anyOf": [{"type": "integer", "minimum": least}, text]})


ByteSize = Annotated[int, BeforeValidator(parse_bytes), Field(ge=1, le=LARGEST), _size_schema(1)]
NoneOrBytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0, le=LARGEST), _size_schema(0)]
Count = Annotated[int, Field(ge=1, le=10**9)]


def _scalar(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise PydanticCustomError("scalar", "{value} is no single value", {"value": repr(value)})


Scalar = Annotated[bool | int | float | str | None, BeforeValidator(_scalar)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


def broken(text: str) -> PydanticCustomError:
    return PydanticCustomError("rule", "{text}", {"text": text})


class PolicySpec(Frozen):
    """A policy by name, with its parameters. In a file: `lru`, or `{name: lookahead, level: queue, horizon: 64}`."""

    name: str = Field(min_length=1, description="name of a policy, or a path to its file")
    params: dict[str, Scalar] = Field(default_factory=dict, description="its parameters; each policy checks its own")

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and not isinstance(value.get("params"), Mapping):
            rest = {key: item for key, item in value.items() if key != "name"}
            return {key: value[key] for key in ("name",) if key in value} | {"params": rest}
        return value

    @model_serializer
    def _to_file(self) -> str | dict[str, Scalar]:
        return {"name": self.name, **self.params} if self.params else self.name


class KVMemory(Frozen):
    """Paged memory for keys and values: of a given size, or what the experts leave of `memory.gpu`."""

    blocks: Count | None = Field(None, description="blocks")
    bytes: ByteSize | None = Field(None, description='bytes, such as "4GB"; cut to whole blocks')
    share: float | None = Field(
        None, gt=0, le=1, description="share of memory.gpu without static weights and workspace, 0 to 1"
    )
    block_tokens: Annotated[int, Field(ge=1, le=10**6)] = Field(16, description="tokens of a block, in all layers")
    preempt: Literal["recompute", "swap"] = Field(
        "recompute",
        description="what becomes of a request that has to give up its blocks: it runs again as a prompt, or its "
        "blocks go to the host and come back",
    )
    watermark: float = Field(
        0.01, ge=0, lt=1, description="share of the blocks that stays free when a request is let in"
    )


class Memory(Frozen):
    """GPU memory of the expert cache (slots, bytes or share) and of KV memory; out of one budget with `gpu`."""

    gpu: ByteSize | None = Field(
        None,
        description="bytes of the GPU for everything: static weights, workspace, experts, staging, KV memory; of the "
        "experts' size and the size of kv one may be left out and gets what is left",
    )
    workspace: NoneOrBytes = Field(0, description="bytes of gpu for activations and the like")
    slots: Count | None = Field(None, description="experts per layer (in either scope; a global cache shares them all)")
    bytes: ByteSize | None = Field(None, description='bytes, such as "12GB" or 16MiB, over all layers')
    share: float | None = Field(None, gt=0, le=1, description="share of the bytes of all experts, 0 to 1")
    scope: Literal["layer", "global"] = Field("layer", description="one cache per layer, or one for all layers")
    staging: Annotated[int, Field(ge=0, le=10**6)] = Field(
        0,
        description="slots, as large as the largest expert, for experts that bypass the cache; on top of slots, out of "
        "bytes or share",
    )
    kv: KVMemory | None = Field(None, description="memory for keys and values; no limit if it is not given")

    @model_validator(mode="after")
    def _sized(self) -> Memory:
        if texts := memory_rules(self.model_dump()):
            raise broken("; ".join(texts))
        return self


Weights = Annotated[dict[str, Annotated[float, Field(ge=0, le=10**9)]], Field(min_length=1)]


class Drift(Frozen):
    """A domain mix that moves in a straight line from the first request to the last one."""

    start: Weights = Field(alias="from", description="weight of each domain at the first request")
    end: Weights = Field(alias="to", description="weight of each domain at the last request")
    model_config = ConfigDict(serialize_by_alias=True)


def _kind_of_mix(value: object) -> str:
    if isinstance(value, Drift) or (isinstance(value, Mapping) and {"from", "to"} & value.keys()):
        return "<drift>"
    return "<weights>" if isinstance(value, Mapping) else "<name>"


Mix = Annotated[
    Annotated[Literal["uniform"], Tag("<name>")]
    | Annotated[Weights, Tag("<weights>")]
    | Annotated[Drift, Tag("<drift>")],
    Discriminator(_kind_of_mix),
]


Tokens = Annotated[int, Field(ge=1, le=10**7)]
EVERY = 10**9
"""requests of a traffic that names no number: all that its arrivals file has"""
KINDS = ("closed", "all", "poisson", "gamma", "trace")
OWNERS = {"concurrency": ("closed",), "rate": ("poisson", "gamma"), "cv": ("gamma",), "arrivals": ("trace",)}
"""kinds of traffic that need a key; it belongs to no other"""
LENGTHS = {"fixed": ("tokens",), "uniform": ("min", "max"), "lognormal": ("mean", "cv"), "captured": ()}
"""distributions of lengths, and the keys that each needs"""


class Lengths(Frozen):
    """Lengths of prompts or outputs, drawn by rule. In a file: `128`, or `{kind: lognormal, mean: 300, cv: 1.2}`."""

    kind: Literal["fixed", "uniform", "lognormal", "captured"] = Field(
        description="fixed: `tokens`; uniform: `min` to `max`; lognormal: `mean`, `cv`, cut to `min` .. `max`; "
        "captured: any of those of the captured sequences"
    )
    tokens: Tokens | None = Field(None, description="tokens (kind fixed)")
    min: Tokens | None = Field(None, description="fewest tokens (kinds uniform, lognormal)")
    max: Tokens | None = Field(None, description="most tokens (kinds uniform, lognormal)")
    mean: float | None = Field(None, ge=1, le=10**7, description="mean of the law before it is cut (kind lognormal)")
    cv: float | None = Field(None, gt=0, le=100, description="its standard deviation / mean (kind lognormal)")

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, value: Any) -> Any:
        plain = isinstance(value, int) and not isinstance(value, bool)
        return {"kind": "fixed", "tokens": value} if plain else value

    @model_validator(mode="after")
    def _fits(self) -> Lengths:
        if texts := lengths_rules(self.model_dump()):
            raise broken("; ".join(texts))
        return self


class ArrivalsFile(Frozen):
    """A file of arrivals and what is taken of it: first from .. to, then a sample, then the rate is scaled."""

    file: str = Field(min_length=1, description="arrivals file, a path relative to this file, or a shipped name")
    format: Literal["auto", "moesim", "azure", "mooncake", "burstgpt", "csv"] = Field(
        "auto", description="format of the file (docs/traffic.md)"
    )
    empty: Literal["refuse", "drop"] = Field("refuse", description="requests without prompt or output tokens")
    start: float = Field(0, ge=0, le=10**9, alias="from", description="seconds into the file at which to begin")
    end: float | None = Field(None, gt=0, le=10**9, alias="to", description="seconds into the file at which to end")
    sample: float = Field(1, gt=0, le=1, description="each request is kept with this probability")
    scale: float = Field(1, gt=0, le=10**9, description="the rate is multiplied by it: 2 halves every gap")
    context_max: Tokens | None = Field(
        None, description="requests with more prompt and output tokens than this are left out"
    )
    model_config = ConfigDict(serialize_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> ArrivalsFile:
        if texts := arrivals_rules(self.model_dump()):
            raise broken("; ".join(texts))
        return self


class Traffic(Frozen):
    """The requests: how they arrive, how many, how long they are, and of which captured sequences."""

    kind: Literal["closed", "all", "poisson", "gamma", "trace"] = Field(
        description="closed: `concurrency` users, each sends its next request when the last is answered; "
        "all: every request is there at time 0; poisson: `rate` requests per second; gamma: the same with gaps of "
        "coefficient of variation `cv`; trace: as an `arrivals` file has them"
    )
    concurrency: Count | None = Field(None, description="requests in the system (kind closed)")
    rate: float | None = Field(None, gt=0, le=10**9, description="requests per second (kinds poisson, gamma)")
    cv: float | None = Field(
        None, ge=0.01, le=100, description="burstiness: standard deviation / mean of the gaps (kind gamma; 1: poisson)"
    )
    arrivals: ArrivalsFile | None = Field(None, description="arrivals file: its path, or {file: ..., scale: ...}")
    requests: Count = Field(
        64, description="requests of a run; if not given, 64, all of the file (kind trace), or what a window takes"
    )
    mix: Mix = Field("uniform", description="uniform, {domain: weight, ...}, or {from: {...}, to: {...}}")
    prompt: Lengths | None = Field(
        None, description="prompt tokens: a number or a distribution; those of the captured sequence if not given"
    )
    output: Lengths | None = Field(
        None, description="output tokens: a number or a distribution; those of the captured sequence if not given"
    )
    longer: Literal["stitch", "recycle"] = Field(
        "stitch",
        description="a request longer than its captured sequence goes on with others of its domain, or with its own "
        "again",
    )
    prompt_min: Count | None = Field(None, description="take only sequences with at least so many prompt tokens")
    prompt_max: Count | None = Field(None, description="take only sequences with at most so many prompt tokens")
    output_max: Count | None = Field(None, description="at most so many output tokens of a request")

    @model_validator(mode="before")
    @classmethod
    def _all_of_a_trace(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("kind") == "trace" and value.get("requests") is None:
            return {**value, "requests": EVERY}
        return value

    @model_validator(mode="after")
    def _fits(self) -> Traffic:
        if texts := traffic_rules(self.model_dump()):
            raise broken("; ".join(texts))
        return self


class Scheduler(Frozen):
    """Continuous batching: who runs in the next step, and how much of it."""

    batch: PolicySpec = Field(PolicySpec(name="decode-first"), description="batch policy")
    max_tokens: Count = Field(2048, description="most tokens of a step")
    max_requests: Count = Field(8, description="most requests of a step")


LEAST_REQUESTS = 40
"""requests of a window whose warm-up is found: MSER-5 looks at means of five of them"""
STEPS_OF_A_WINDOW = 10**6
"""steps after which a run with a window or of a search is given up, where the file does not say"""
COMING = 4
"""times as many requests as are awaited may come, where the file does not say: more would come only to a server that is
hopelessly overloaded, or that lets some starve"""


class Window(Frozen):
    """The requests that are measured, by their number: the same of all that are compared (docs/statistics.md)."""

    requests: Count = Field(description="requests that are measured, those after the warm-up")
    warmup: (
        Annotated[Literal["auto"], Tag("<auto>")] | Annotated[Annotated[int, Field(ge=0, le=10**8)], Tag("<number>")]
    ) = Field(
        "auto",
        discriminator=Discriminator(lambda value: "<auto>" if isinstance(value, str) else "<number>"),
        description="requests before them, not measured: a number, or auto (found by MSER-5, at most half as many)",
    )

    @property
    def candidates(self) -> list[int]:
        """How many requests may have to be left out: a number that is given, or every 5 % of the window up to half."""
        if self.warmup != "auto":
            return [self.warmup]
        return [self.requests * part // 20 for part in range(11)]

    @property
    def awaited(self) -> int:
        """Requests that must have left before a run ends, the first of all that come."""
        return self.candidates[-1] + self.requests


class Machine(Frozen):
    """How the server starts experts and copies them."""

    expert_start: Literal["eager", "barrier", "index"] = Field(
        "eager",
        description="eager: every ready expert as soon as the stream is free; barrier: all at once when the last is "
        "there; index: one by one in order",
    )
    chunk_bytes: ByteSize = Field(16 * 2**20, description="a key is copied in chunks of so many bytes")
    copies_in_flight: Annotated[int, Field(ge=1, le=1024)] = Field(
        2, description="chunks that are submitted and cannot be recalled"
    )
    router: Literal["critical", "side"] = Field(
        "critical", description="a decoupled router runs on the critical path, or on a side resource"
    )


Seconds = Annotated[float, Field(gt=0, le=10**9)]
LIMITS = ("ttft", "tpot", "e2e")


class Objective(Frozen):
    """What users were promised: limits that a request must all keep, and the share of requests that must keep them."""

    ttft: Seconds | None = Field(None, description="most seconds to the first token")
    tpot: Seconds | None = Field(None, description="most seconds per output token after the first")
    e2e: Seconds | None = Field(None, description="most seconds from arrival to last token")
    share: float = Field(0.9, gt=0, le=1, description="the objective is met where this share of the requests kept all")

    @model_validator(mode="after")
    def _fits(self) -> Objective:
        if texts := objective_rules(self.model_dump()):
            raise broken("; ".join(texts))
        return self


class Search(Frozen):
    """The largest load that still meets the objective, found by halving the interval that it is in."""

    over: Literal["traffic.rate", "traffic.concurrency", "traffic.arrivals.scale"] = Field(
        "traffic.rate", description="what is raised: traffic.rate, traffic.concurrency or traffic.arrivals.scale"
    )
    start: float = Field(gt=0, le=10**9, alias="from", description="least value to try")
    end: float = Field(gt=0, le=10**9, alias="to", description="largest value to try")
    tolerance: float = Field(
        0.02, ge=0.0001, le=1, description="it ends when the least that failed is so little above the largest that met"
    )
    model_config = ConfigDict(serialize_by_alias=True)


Reveal = Literal["as-routed", "at-gate"]
REVEAL = (
    "when routes are known: as-routed (as the trace's router knows them), or at-gate (those of a decoupled router at "
    "each layer's gate and no sooner, as if a layer-wise router had chosen the same)"
)


class Captured(Frozen):
    """A trace file, and when its routes are known. In a file: `t.parquet`, or `{file: t.parquet, reveal: at-gate}`."""

    file: str = Field(min_length=1, description="routing trace, a path relative to this file, or a shipped name")
    reveal: Reveal = Field("as-routed", description=REVEAL)


class Validation(Frozen):
    """How a setting is held against a live run of it (docs/validation.md)."""

    role: Literal["judge", "calibrate"] = Field(
        "judge", description="calibrate: costs were fitted to this setting, so that its error is no evidence"
    )
    limit: float = Field(0.1, gt=0, le=10, description="most that the median error of a regime may be (0.1: 10 %)")
    resident: float = Field(
        0.02, ge=0, le=1, description="a setting that stalls for less than this share of its measured time is resident"
    )
    transfer_bound: float = Field(
        0.5, ge=0, le=1, description="one that stalls for at least this share is transfer-bound, between is mixed"
    )


class Synthetic(Frozen):
    """Routing made up by rule: a labelled control, never in the place of real routing."""

    synthetic: Literal["iid", "sticky", "zipf"] = Field(description="rule that makes the routing")
    router: Literal["decoupled", "layerwise"] = Field(
        "decoupled", description="decoupled: one decision for all layers; layerwise: one in each"
    )
    sequences: Annotated[int, Field(ge=1, le=10**6)] = Field(64, description="sequences")
    prompt_tokens: Annotated[int, Field(ge=1, le=10**6)] = Field(128, description="prompt tokens of each sequence")
    output_tokens: Annotated[int, Field(ge=1, le=10**6)] = Field(128, description="output tokens of each sequence")
    persistence: float | None = Field(
        None, ge=0, le=1, description="sticky: probability that a token keeps its experts [that of Read-ME 5.3]"
    )
    alpha: float | None = Field(None, ge=0, le=100, description="zipf: exponent, 0 being iid [1]")
    recall_1: float | None = Field(
        None, ge=0, le=1, description="layerwise: predict the next layer, finding each expert with this probability"
    )
    recall_2: float | None = Field(None, ge=0, le=1, description="the same of the layer after it")
    recall_3: float | None = Field(None, ge=0, le=1, description="and of the one after that")
    predicted: Count | None = Field(None, description="experts that a prediction names [twice as many as a token uses]")
    seed: Annotated[int, Field(ge=0, le=LARGEST)] = Field(0, description="seed of the routing alone")
    reveal: Reveal = Field("as-routed", description=REVEAL)

    @model_validator(mode="after")
    def _fits(self) -> Synthetic:
        if texts := synthetic_rules(self.model_dump()):
            raise broken("; ".join(texts))
        return self


def _kind_of_source(value: object) -> str:
    if isinstance(value, Captured) or (isinstance(value, Mapping) and "synthetic" not in value):
        return "<captured>"
    return "<synthetic>" if isinstance(value, Mapping | Synthetic) else "<file>"


Source = Annotated[
    Annotated[str, Field(min_length=1), Tag("<file>")]
    | Annotated[Captured, Tag("<captured>")]
    | Annotated[Synthetic, Tag("<synthetic>")],
    Discriminator(_kind_of_source),
]


class Experiment(Frozen):
    """One point of an experiment's grid. See `experiments/README.md` for the file."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the results folder: letters, digits, . _ -"
    )
    question: str = Field("", description="one sentence: what the experiment asks")
    trace: Source = Field(
        description="routing trace: a path relative to this file or a shipped name, {file: ..., reveal: at-gate}, or "
        "{synthetic: iid|sticky|zipf, ...}"
    )
    model: str = Field(min_length=1, description="model shape: a shipped name, or a path to a shape or a config.json")
    costs: str = Field(min_length=1, description="kernel cost table: a shipped name or a path")
    link: str = Field(min_length=1, description="host-to-device link: a shipped name or a path")
    allow_extrapolation: bool = Field(False, description="let costs be extrapolated outside their measured range")
    memory: Memory = Field(description="GPU memory of the expert cache")
    traffic: Traffic = Field(description="the requests")
    scheduler: Scheduler = Field(default_factory=Scheduler, description="continuous batching")
    cache: PolicySpec = Field(PolicySpec(name="lru"), description="cache policy: which expert leaves")
    prefetch: PolicySpec = Field(PolicySpec(name="none"), description="prefetch policy: which experts come early")
    miss: PolicySpec = Field(
        PolicySpec(name="wait"), description="miss policy: what becomes of experts that are not there"
    )
    machine: Machine = Field(default_factory=Machine, description="how experts are started and copied")
    preset: str | None = Field(
        None,
        min_length=1,
        description="policies of a published system, under all that is said here: a shipped name, a path, {name: ..., "
        "and changes}, or a part of an experiment",
    )
    objective: Objective | None = Field(None, description="latencies to keep: what attainment and goodput count")
    validation: Validation | None = Field(None, description="how it is held against a live run (moesim validate)")
    search: Search | None = Field(None, description="find the largest load that meets the objective, in each run")
    schedule: Literal["free", "frozen"] = Field(
        "free", description="free: the server as it runs; frozen: every policy replays the same recorded steps"
    )
    steps: Annotated[int, Field(ge=1, le=10**8)] = Field(1000, description="a run ends after so many steps")
    warmup_steps: Annotated[int, Field(ge=0, le=10**8)] = Field(0, description="first steps that are not counted")
    window: Window | None = Field(
        None, description="measure so many requests, the same of every policy, in place of steps (schedule free)"
    )
    seed: Annotated[int, Field(ge=0, le=LARGEST)] = Field(0, description="seed of every random stream")
    replications: Annotated[int, Field(ge=1, le=10**4)] = Field(
        1, description="runs of each point, other random streams"
    )

    @model_validator(mode="before")
    @classmethod
    def _until_the_window_is_over(cls, value: Any) -> Any:
        """With a window, arrivals go on until it is over. There and in a search, steps are no more than a limit."""
        if not isinstance(value, Mapping) or (value.get("window") is None and value.get("search") is None):
            return value
        given = {"steps": STEPS_OF_A_WINDOW, **{key: item for key, item in value.items() if item is not None}}
        traffic, awaited = value.get("traffic"), awaited_of(value.get("window"))
        if awaited and isinstance(traffic, Mapping) and traffic.get("requests") is None and not _drifts(traffic):
            given["traffic"] = {**traffic, "requests": min(COMING * awaited, EVERY)}
        return given

    @model_validator(mode="after")
    def _warmup(self) -> Experiment:
        if text := warmup_rule(self.steps, self.warmup_steps):
            raise broken(text)
        if texts := window_rules(self.model_dump()):
            raise broken("window " + "; ".join(texts))
        return self

    @model_validator(mode="after")
    def _search(self) -> Experiment:
        if self.search is not None and (texts := search_rules(self.model_dump())):
            raise broken("; ".join(texts))
        return self


def specs_of(config: Experiment) -> dict[str, PolicySpec]:
    """The policies of a point, by kind."""
    named = {"cache": config.cache, "prefetch": config.prefetch, "miss": config.miss}
    return named | {"batch": config.scheduler.batch}


class RunConfig(Experiment):
    """One point of a grid, with the labels of the axes that lead to it: dotted path -> label ("case" for cases)."""

    labels: dict[str, str] = Field(default_factory=dict, description="axis -> label of this point")

    def experiment(self) -> dict[str, Any]:
        """The point as plain data that an experiment file may hold (no labels, no unset values)."""
        return self.model_dump(mode="json", exclude={"labels"}, exclude_none=True)


SIZES = ("slots", "bytes", "share")
"""of the experts"""
KV_SIZES = ("blocks", "bytes", "share")


def memory_rules(memory: Mapping[str, Any]) -> list[str]:
    """What is wrong with the way that a memory section gives its sizes."""
    kv, gpu = memory.get("kv"), memory.get("gpu") is not None
    experts = [key for key in SIZES if memory.get(key) is not None]
    texts = []
    if len(experts) > 1 or not (experts or gpu):
        less = "" if experts else ", or gpu, of which the experts get what is left"
        texts.append(f"needs exactly one of slots, bytes and share{less}; it has {' and '.join(experts) or 'none'}")
    if not gpu and memory.get("workspace"):
        texts.append("workspace is a part of gpu, which is not given")
    if not isinstance(kv, Mapping):
        return texts
    sizes = [key for key in KV_SIZES if kv.get(key) is not None]
    if len(sizes) > 1:
        texts.append(f"kv takes one of blocks, bytes and share; it has {' and '.join(sizes)}")
    elif not gpu and sizes in ([], ["share"]):
        what = "its share" if sizes else "what is left"
        texts.append(f"kv needs blocks or bytes: {what} would be of gpu, which is not given")
    elif gpu and not (sizes or experts):
        texts.append(
            "may leave out the experts' size (slots, bytes or share) or the size of kv (blocks, bytes or share), which "
            "then gets what is left of gpu; both are left out"
        )
    return texts


def traffic_rules(traffic: Mapping[str, Any]) -> list[str]:
    """What is wrong between the keys of a traffic section."""
    kind, texts = traffic.get("kind"), []
    for key, owners in OWNERS.items():
        if kind in owners and traffic.get(key) is None:
            texts.append(f"kind {kind} needs {key}")
        elif kind in KINDS and kind not in owners and traffic.get(key) is not None:
            texts.append(f"{key} belongs to kind {' or '.join(owners)}, and the kind is {kind}")
    if kind == "trace":
        lengths = [key for key in ("prompt", "output") if traffic.get(key) is not None]
        texts += [f"{key} belongs to the other kinds: an arrivals file has its own lengths" for key in lengths]
    low, high = traffic.get("prompt_min"), traffic.get("prompt_max")
    if isinstance(low, int) and isinstance(high, int) and low > high:
        texts.append(f"prompt_min ({low}) must not exceed prompt_max ({high})")
    mix = traffic.get("mix")
    if isinstance(mix, Mapping):
        for weights in (mix.get("from"), mix.get("to")) if {"from", "to"} & mix.keys() else (mix,):
            if isinstance(weights, Mapping) and weights and not any(weights.values()):
                texts.append("mix needs a domain with a weight above 0")
    return texts


def lengths_rules(lengths: Mapping[str, Any]) -> list[str]:
    """What is wrong between the keys of a distribution of lengths."""
    kind = lengths.get("kind")
    if kind not in LENGTHS:
        return []
    takes = (*LENGTHS[kind], *(("min", "max") if kind == "lognormal" else ()))
    texts = [f"kind {kind} needs {key}" for key in LENGTHS[kind] if lengths.get(key) is None]
    given = [key for key in ("tokens", "min", "max", "mean", "cv") if lengths.get(key) is not None]
    texts += [f"{key} does not belong to kind {kind}, which takes {', '.join(takes) or 'nothing'}"
              for key in given if key not in takes]  # fmt: skip
    low, high = lengths.get("min"), lengths.get("max")
    if isinstance(low, int) and isinstance(high, int) and low > high:
        texts.append(f"min ({low}) must not exceed max ({high})")
    return texts


def arrivals_rules(arrivals: Mapping[str, Any]) -> list[str]:
    """What is wrong between the keys of an arrivals section."""
    start, end = arrivals.get("from", 0), arrivals.get("to")
    if isinstance(start, int | float) and isinstance(end, int | float) and start >= end > 0:
        return [f"from ({start:g}) must be less than to ({end:g}), both in seconds"]
    return []


def objective_rules(objective: Mapping[str, Any]) -> list[str]:
    """What is wrong with an objective, if anything is."""
    if any(objective.get(key) is not None for key in LIMITS):
        return []
    return [f"limits nothing; give at least one of {', '.join(LIMITS)}, in seconds"]


def search_rules(values: Mapping[str, Any]) -> list[str]:
    """What is wrong between the search of an experiment and the rest of it."""
    search, traffic = values.get("search"), values.get("traffic")
    if not isinstance(search, Mapping):
        return []
    texts = []
    if values.get("objective") is None:
        texts.append("needs an objective: what it looks for is the largest load that meets one")
    if values.get("schedule", "free") == "frozen":
        texts.append("needs schedule: free; a frozen schedule replays the steps of a server without misses")
    window = values.get("window")
    if isinstance(window, Mapping) and window.get("warmup", "auto") == "auto":
        texts.append("needs a window whose warmup is a number: the requests that count must be the same at every load")
    start, end = search.get("from"), search.get("to")
    if isinstance(start, int | float) and isinstance(end, int | float) and start >= end:
        texts.append(f"from ({start:g}) must be less than to ({end:g})")
    over = search.get("over", "traffic.rate")
    kind = traffic.get("kind") if isinstance(traffic, Mapping) else None
    owners = OWNERS.get(str(over).split(".")[1] if "." in str(over) else "", ())
    if owners and kind in KINDS and kind not in owners:
        texts.append(f"over {over} belongs to traffic of kind {' or '.join(owners)}, and the kind is {kind}")
    elif kind in owners:
        texts += _searched_rules(over, start, end, traffic)
    return texts


def _searched_rules(over: str, start: object, end: object, traffic: Any) -> list[str]:
    value: Any = {"traffic": traffic}
    for key in over.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    texts = []
    told = isinstance(start, int | float) and value is not None and value != start
    if told and not (over.endswith("scale") and value == 1):
        texts.append(f"{over} ({value}) is what it looks for, from {start} on: leave it out")
    if over.endswith("concurrency") and any(isinstance(v, float) and not v.is_integer() for v in (start, end)):
        texts.append(f"from ({start:g}) and to ({end:g}) must be whole numbers of users")
    return texts


def synthetic_rules(trace: Mapping[str, Any]) -> list[str]:
    """What is wrong between the keys of a synthetic trace."""
    rule, texts = trace.get("synthetic"), []
    for key, owner in (("persistence", "sticky"), ("alpha", "zipf")):
        if trace.get(key) is not None and rule in ("iid", "sticky", "zipf") and rule != owner:
            texts.append(f"{key} belongs to the rule {owner}, and the rule is {rule}")
    texts += _prediction_rules(trace)
    defaults = {"sequences": 64, "prompt_tokens": 128, "output_tokens": 128}
    sizes = [trace.get(key, default) for key, default in defaults.items()]
    if all(isinstance(size, int) for size in sizes) and sizes[0] * (sizes[1] + sizes[2]) > MOST_TOKENS:
        texts.append(f"{sizes[0]} sequences of {sizes[1] + sizes[2]} tokens are more than {MOST_TOKENS:,} tokens")
    return texts


def _prediction_rules(trace: Mapping[str, Any]) -> list[str]:
    given = [trace.get(f"recall_{distance}") is not None for distance in (1, 2, 3)]
    texts = []
    if any(given) and trace.get("router") != "layerwise":
        texts.append("recall_1 to recall_3 belong to router: layerwise; a decoupled router has nothing to predict")
    if given != sorted(given, reverse=True):
        texts.append("recall_2 needs recall_1, and recall_3 needs recall_2")
    if trace.get("predicted") is not None and not any(given):
        texts.append("predicted needs recall_1: it is how many experts a prediction names")
    return texts


def window_rules(values: Mapping[str, Any]) -> list[str]:
    """What is wrong between a measured window and the rest of an experiment."""
    window, traffic = values.get("window"), values.get("traffic")
    if not isinstance(window, Mapping) or not isinstance(traffic, Mapping):
        return []
    texts = []
    if values.get("schedule") == "frozen":
        texts.append("belongs to schedule free; a frozen one replays recorded steps, so give steps and warmup_steps")
    if values.get("warmup_steps"):
        texts.append("has a warmup of its own; leave out warmup_steps")
    if traffic.get("kind") == "all":
        texts.append("needs traffic that goes on; of kind all everything comes at once, so give steps")
    requests, awaited = window.get("requests"), awaited_of(window)
    if awaited and window.get("warmup", "auto") == "auto" and awaited < LEAST_REQUESTS * 3 // 2:
        texts.append(f"of {requests} requests is too short to find its warm-up: {LEAST_REQUESTS} or more, or a warmup")
    coming = traffic.get("requests")
    if coming is None and _drifts(traffic):
        texts.append("needs traffic.requests where the mix drifts: it drifts over them")
    elif isinstance(coming, int) and awaited and coming < awaited:
        texts.append(f"needs {awaited:,} requests with its warm-up, and traffic.requests is {coming:,}")
    return texts


def _drifts(traffic: Mapping[str, Any]) -> bool:
    mix = traffic.get("mix")
    return traffic.get("kind") != "trace" and (isinstance(mix, Drift) or (isinstance(mix, Mapping) and "from" in mix))


def awaited_of(window: object) -> int:
    """Requests that a window section waits for, the first of all that come; 0 where it does not say."""
    if isinstance(window, Window):
        return window.awaited
    given = dict(window) if isinstance(window, Mapping) else {}
    requests, warmup = given.get("requests"), given.get("warmup", "auto")
    if type(requests) is not int or not (warmup == "auto" or type(warmup) is int):
        return 0
    return requests + (requests // 2 if warmup == "auto" else warmup)


def warmup_rule(steps: object, warmup: object) -> str | None:
    """What is wrong between the steps of a run and those that are not counted."""
    if isinstance(steps, int) and isinstance(warmup, int) and warmup >= steps > 0:
        return f"warmup_steps ({warmup}) must be fewer than steps ({steps}): nothing would be measured"
    return None
