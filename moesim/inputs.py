"""What a run reads besides its configuration: routing trace, model shape, cost table, link, arrivals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from moesim.errors import InputError, Problem, unknown
from moesim.experiment import ArrivalsFile, Captured, Reveal, Synthetic
from moesim.files import shipped

if TYPE_CHECKING:
    from moesim.experiment import Experiment, PolicySpec, RunConfig
    from moesim.hardware.costs import CostTable
    from moesim.hardware.link import LinkTable
    from moesim.hardware.shape import ModelShape
    from moesim.sim import Inputs
    from moesim.trace.arrivals import Arrivals
    from moesim.trace.routing import RoutingTrace

FIELDS = ("trace", "model", "costs", "link", "traffic.arrivals")


@dataclass(frozen=True, slots=True)
class Sources:
    """Names and paths of a run's inputs, as its configuration has them; None where the configuration has no valid one.

    `trace` is a path, a shipped name, or the JSON of a synthetic one, and `reveal` says when its routes are known;
    `arrivals` is there for traffic of kind trace. Paths are relative to `base`.
    """

    trace: str | None
    model: str | None
    costs: str | None
    link: str | None
    allow_extrapolation: bool
    base: str
    arrivals: str | None = None
    arrivals_format: str = "auto"
    arrivals_empty: str = "refuse"
    reveal: Reveal = "as-routed"

    @classmethod
    def of(cls, config: Experiment, base: Path | str) -> Sources:
        return cls.of_plain(config.model_dump(mode="json", exclude_none=True), base)

    @classmethod
    def of_plain(cls, values: Mapping[str, Any], base: Path | str) -> Sources:
        """The sources that an unchecked configuration names; what cannot be a source is None."""
        trace, reveal = _source(values.get("trace"))
        model, costs, link = (_text(values.get(field)) for field in FIELDS[1:4])
        extrapolate = values.get("allow_extrapolation") is True
        return cls(trace, model, costs, link, extrapolate, str(base), *_arrivals_file(values.get("traffic")), reveal)


def _arrivals_file(traffic: object) -> tuple[str | None, str, str]:
    """File, format and way with empty requests, of a traffic section whose other keys may be wrong."""
    given = traffic.get("arrivals") if isinstance(traffic, Mapping) else None
    plain = {"file": given} if isinstance(given, str) else given if isinstance(given, Mapping) else {}
    try:
        read = {key: plain[key] for key in ("file", "format", "empty") if key in plain}
        spec = ArrivalsFile.model_validate(read)
    except ValidationError:
        return None, "auto", "refuse"
    return spec.file, spec.format, spec.empty


def _source(trace: object) -> tuple[str | None, Reveal]:
    """Name or path of a trace, or the JSON of a synthetic one's rule; and when its routes are known."""
    if not isinstance(trace, Mapping):
        return _text(trace), "as-routed"
    try:
        if "synthetic" not in trace:
            captured = Captured.model_validate(trace)
            return captured.file, captured.reveal
        rule = Synthetic.model_validate(trace)
    except ValidationError:
        return None, "as-routed"
    return json.dumps(rule.model_dump(exclude_none=True, exclude={"reveal"}), sort_keys=True), rule.reveal


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def load(sources: Sources) -> Inputs:
    """Read all inputs, once per process. Raises InputError with every problem, placed at the name of its field."""
    from moesim.sim import Inputs

    problems = problems_of(sources)
    if problems:
        raise InputError(problems)
    return _inputs(sources, Inputs)


@lru_cache(maxsize=256)
def _inputs(sources: Sources, make: Callable[..., Inputs]) -> Inputs:
    read = _routing(sources), _model(sources), _costs(sources), _link(sources.link or "", sources.base)
    return make(*read, _arrivals(sources) if sources.arrivals else None)


@lru_cache(maxsize=256)
def problems_of(sources: Sources) -> tuple[Problem, ...]:
    """Everything that is wrong with the inputs; the place of each is the field's name."""
    readers: dict[str, Callable[[], object]] = {
        "model": lambda: _model(sources),
        "trace": lambda: _routing(sources),
        "costs": lambda: _costs(sources),
        "link": lambda: _link(sources.link or "", sources.base),
        "traffic.arrivals": lambda: _arrivals(sources),
    }
    found: dict[str, list[Problem]] = {}
    for field, read in readers.items():
        try:
            if getattr(sources, field.rpartition(".")[2]) is not None:
                read()
        except InputError as error:
            found[field] = [Problem(field, _told(problem, field)) for problem in error.problems]
    if "model" in found:  # what needs the shape says the same once more
        repeated = {problem.text for problem in found["model"]}
        for field in ("trace", "costs"):
            found[field] = [problem for problem in found.get(field, ()) if problem.text not in repeated]
    return tuple(problem for field in FIELDS for problem in found.get(field, ()))


def _told(problem: Problem, field: str) -> str:
    return problem.text if problem.place in ("", field) else str(problem)


def resolve(name: str, base: str) -> str:
    """A name as it is; a path (it has a slash or the suffix of a file) relative to `base`."""
    return str(Path(base, name)) if "/" in name or Path(name).suffix in (".yaml", ".yml", ".json") else name


def _model(sources: Sources) -> ModelShape:
    return _shape(resolve(sources.model or "", sources.base))


@lru_cache(maxsize=64)
def _shape(name: str) -> ModelShape:
    from moesim.hardware.shape import load_shape

    return load_shape(name)


def _routing(sources: Sources) -> RoutingTrace:
    name = sources.trace or ""
    trace = _made(name, _model(sources)) if name.startswith("{") else _read(name, sources.base)
    return trace if sources.reveal == "as-routed" else _revealed(name, sources.base, _model(sources))


@lru_cache(maxsize=64)
def _revealed(name: str, base: str, shape: ModelShape) -> RoutingTrace:
    """The trace with its routes at each gate of the model."""
    from moesim.trace.reveal import at_gate

    return at_gate(_made(name, shape) if name.startswith("{") else _read(name, base), shape.layers)


@lru_cache(maxsize=64)
def _read(name: str, base: str) -> RoutingTrace:
    from moesim.trace.routing import read_routing

    if "/" in name or Path(name).suffix:
        return read_routing(Path(base, name))
    known = {path.stem: path for path in shipped("traces", "routing").glob("*.parquet")}
    if name not in known:
        raise InputError(Problem("trace", f"{unknown('shipped trace', name, known)}; or a path to a .parquet file"))
    return read_routing(known[name])


@lru_cache(maxsize=64)
def _made(rule: str, shape: ModelShape) -> RoutingTrace:
    """Synthetic routing in the model's layers, experts and k; its digest is that of its decisions and predictions."""
    from moesim.trace.synthetic import synthetic

    arguments: dict[str, Any] = json.loads(rule)
    kind = arguments.pop("synthetic")
    arguments |= {"layers": shape.layers, "experts": shape.experts, "k": shape.top_k, "key_bytes": shape.key_bytes}
    given = (arguments.pop(f"recall_{distance}", None) for distance in (1, 2, 3))
    arguments["recall"] = [recall for recall in given if recall is not None]
    trace = synthetic(kind, **arguments)
    digest = hashlib.sha256(trace.experts.tobytes())
    for _, predicted in sorted(trace.predicted.items()):
        digest.update(predicted.tobytes())
    return replace(trace, digest=digest.hexdigest())


def _arrivals(sources: Sources) -> Arrivals:
    return _read_arrivals(sources.arrivals or "", sources.arrivals_format, sources.arrivals_empty, sources.base)


@lru_cache(maxsize=16)
def _read_arrivals(name: str, format: str, empty: str, base: str) -> Arrivals:
    from moesim.trace.arrivals import read_arrivals

    if "/" in name or Path(name).suffix:
        return read_arrivals(Path(base, name), format, empty)
    known = {path.stem: path for path in shipped("traces", "arrivals").glob("*.parquet")}
    if name not in known:
        text = unknown("shipped arrivals", name, known)
        raise InputError(Problem("traffic.arrivals", f"{text}; or a path to a file"))
    return read_arrivals(known[name], format, empty)


def _costs(sources: Sources) -> CostTable:
    try:
        _model(sources)
    except InputError:
        _cost_file(resolve(sources.costs or "", sources.base))  # says what is wrong with the table itself, if anything
        raise
    return _cost_table(resolve(sources.costs or "", sources.base), _model(sources), sources.allow_extrapolation)


def _cost_file(name: str) -> None:
    from moesim.hardware.files import CostFile, read

    read(CostFile, "kernels", name, "costs")


@lru_cache(maxsize=64)
def _cost_table(name: str, shape: ModelShape, allow_extrapolation: bool) -> CostTable:
    from moesim.hardware.costs import load_costs

    return load_costs(name, shape=shape, allow_extrapolation=allow_extrapolation)


@lru_cache(maxsize=64)
def _link(name: str, base: str) -> LinkTable:
    from moesim.hardware.link import load_link

    return load_link(resolve(name, base))


def located(config: RunConfig, base: str) -> RunConfig:
    """The configuration with the paths of policy files put relative to the working directory."""

    def moved(spec: PolicySpec) -> PolicySpec:
        return spec.model_copy(update={"name": str(Path(base, spec.name))}) if spec.name.endswith(".py") else spec

    scheduler = config.scheduler.model_copy(update={"batch": moved(config.scheduler.batch)})
    policies = {"cache": moved(config.cache), "prefetch": moved(config.prefetch), "miss": moved(config.miss)}
    return config.model_copy(update={**policies, "scheduler": scheduler})


def digests(inputs: Inputs) -> dict[str, str]:
    """sha256 of what the inputs hold: trace, model, costs, link, and arrivals where there are some.

    Of the model's shape it is of what decides results: not its source, and no key that is as where it is not given, so
    that a key that is new to shapes changes the digest of none.
    """
    sizes = inputs.shape.model_dump_json(exclude={"source"}, exclude_defaults=True)
    shape = hashlib.sha256(sizes.encode()).hexdigest()
    return {
        "trace": inputs.trace.digest,
        "model": shape,
        "costs": inputs.costs.digest,
        "link": inputs.link.digest,
        **({"arrivals": inputs.arrivals.digest} if inputs.arrivals else {}),
    }
