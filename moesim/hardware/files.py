"""Cost and link tables as JSON files that a person can review: the schema, and how they are read and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from moesim.errors import InputError, Problem, unknown
from moesim.files import shipped, write_aside
from moesim.hardware.shape import ModelShape
from moesim.hardware.validate import problems_of

Nanoseconds = Annotated[int, Field(ge=0, le=10**15, strict=True)]
Point = Annotated[int, Field(ge=0, le=2**53, strict=True)]
Label = Literal["ESTIMATED", "MEASURED"]

# What each component is a function of. A table may leave axes out: the component does not depend on them there.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "attention_prefill": ("tokens", "past"),
    "attention_decode": ("batch", "context"),
    "layer_rest": ("tokens",),
    "gate": ("tokens",),
    "router": ("tokens",),
    "experts": ("tokens", "active", "largest"),
    "step_rest": ("tokens",),
    "cpu_expert": ("tokens",),
}
OPTIONAL = {"cpu_expert"}


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Constant(Record):
    """One number that a formula uses, and where it comes from."""

    name: str
    value: float
    unit: str
    source: str = Field(min_length=1)


class Provenance(Record):
    """What a table says about itself. MEASURED needs device, date and command; ESTIMATED a formula for everything."""

    name: str = Field(min_length=1)
    label: Label
    device: str = Field(min_length=1)
    date: str = ""
    command: str = Field(min_length=1)
    formula: dict[str, str] = {}
    constants: list[Constant] = []
    leaves_out: list[str] = []
    method: str = ""
    """of a measurement: what was timed, and how"""
    versions: dict[str, str] = {}

    @model_validator(mode="after")
    def _labelled(self) -> Provenance:
        if self.label == "MEASURED" and not self.date:
            raise _rule("a MEASURED table must say the date it was measured")
        if self.label == "ESTIMATED" and not (self.formula and self.constants):
            raise _rule("an ESTIMATED table must give its formula and the source of each constant")
        return self


class HostCosts(Record):
    """Host time in ns: one kernel launch, one device-to-host round trip, submitting one copy, one policy decision.

    `forming` is that of forming a step, `planning` that of handing over one key of a prefetcher's plan; as `decision`
    and as `copy_submit` where a table does not have them.
    """

    launch: Nanoseconds
    sync: Nanoseconds
    copy_submit: Nanoseconds
    decision: Nanoseconds
    forming: Nanoseconds | None = None
    planning: Nanoseconds | None = None


class LeftOut(Record):
    """How far interpolation is off, relative to what was measured at points between those of the grid.

    `worst` is the point of the largest error. The same call measured again (`again`, median) differs by itself.
    """

    points: Annotated[int, Field(ge=1, strict=True)]
    median: Annotated[float, Field(ge=0)]
    p90: Annotated[float, Field(ge=0)]
    largest: Annotated[float, Field(ge=0)]
    worst: dict[str, Point]
    again: Annotated[float, Field(ge=0)] | None = None


class Component(Record):
    """Nanoseconds on a grid: `ns` is nested as the axes are, the first axis outermost.

    Measured ones are medians of repeated calls; `p10` and `p90` are nested in the same way.
    """

    axes: dict[str, list[Point]]
    ns: Any
    p10: Any = None
    p90: Any = None
    repeats: Annotated[int, Field(ge=1, strict=True)] | None = None
    """the fewest that any point has"""
    left_out: LeftOut | None = None

    @model_validator(mode="after")
    def _shaped(self) -> Component:
        wrong = [f"axis {n} must have strictly increasing points" for n, p in self.axes.items() if not increasing(p)]
        for name in ("ns", "p10", "p90"):
            if (values := getattr(self, name)) is not None or name == "ns":
                wrong += _shape_problems(name, values, [len(points) for points in self.axes.values()])
        if wrong:
            raise _rule("; ".join(wrong))
        return self

    def flat(self) -> list[int]:
        """The values in row-major order."""
        values = [self.ns]
        for _ in self.axes:
            values = [item for row in values for item in row]
        return values


class CostFile(Provenance):
    """A cost table of one device for one model shape."""

    format: Literal["moesim-costs"]
    version: Literal[1]
    shape: ModelShape
    host_ns: HostCosts
    components: dict[str, Component]
    variants: dict[str, Component] = {}
    """measured beside, and used by no run: experts in the other way, launches, peaks"""

    @model_validator(mode="after")
    def _complete(self) -> CostFile:
        wrong = [f"component {name} is missing" for name in ARGUMENTS if name not in {*self.components, *OPTIONAL}]
        wrong += [unknown("component", name, ARGUMENTS) for name in self.components if name not in ARGUMENTS]
        for name, component in self.components.items():
            known = ARGUMENTS.get(name, ())
            if list(component.axes) != [axis for axis in known if axis in component.axes]:
                wrong.append(f"{name} has axes {list(component.axes)}; they must be of {list(known)}, in this order")
        if wrong:
            raise _rule("; ".join(wrong))
        return self


class Speed(Record):
    """Time of one copy: fixed_ns + bytes / bytes_per_second; or measured `points`, [bytes, ns], linear between them.

    Measured ones are medians; `spread` has the 10th and 90th percentile of each.
    """

    fixed_ns: Nanoseconds | None = None
    bytes_per_second: Annotated[int, Field(ge=1, strict=True)] | None = None
    points: list[tuple[Point, Nanoseconds]] = []
    spread: list[tuple[Nanoseconds, Nanoseconds]] = []
    left_out: LeftOut | None = None
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _one_form(self) -> Speed:
        formula = self.fixed_ns is not None and self.bytes_per_second is not None
        partial = self.fixed_ns is not None or self.bytes_per_second is not None
        if partial if self.points else not formula:
            raise _rule("needs fixed_ns with bytes_per_second, or points, and not both")
        if self.points and (len(self.points) < 2 or not all(map(increasing, zip(*self.points, strict=True)))):
            raise _rule("points must be two or more, with both bytes and ns strictly increasing")
        if self.spread and len(self.spread) != len(self.points):
            raise _rule(f"spread has {len(self.spread)} rows; there are {len(self.points)} points")
        return self


class BothWays(Record):
    """How many times as long a copy takes in each direction while the other one is busy."""

    to_device: Annotated[float, Field(ge=1, le=100)]
    to_host: Annotated[float, Field(ge=1, le=100)]
    source: str = Field(min_length=1)


class WhileComputing(Record):
    """How many times as long a copy to the device takes while the device computes, and a kernel while it is copied to.

    Measured beside, and used by no run (docs/model.md: copies and kernels do not slow each other down there).
    """

    copy_to_device: Annotated[float, Field(gt=0, le=100)]
    kernel: Annotated[float, Field(gt=0, le=100)]
    source: str = Field(min_length=1)


class LinkFile(Provenance):
    """A host-to-device link. Swapped KV memory needs `to_host`, into pinned memory, and `both_ways` as well."""

    format: Literal["moesim-link"]
    version: Literal[1]
    pinned: Speed
    pageable: Speed | None = None
    to_host: Speed | None = None
    both_ways: BothWays | None = None
    while_computing: WhileComputing | None = None


def increasing(values: Iterable[int]) -> bool:
    """Whether there is a value, and each is above the one before it."""
    values = list(values)
    return bool(values) and all(a < b for a, b in pairwise(values))


def _rule(text: str) -> PydanticCustomError:
    return PydanticCustomError("rule", "{text}", {"text": text})


def _shape_problems(name: str, ns: Any, sizes: list[int]) -> Iterable[str]:
    rows = [ns]
    for size in sizes:
        if not all(isinstance(row, list) and len(row) == size for row in rows):
            yield f"{name} must be nested as the axes are, {' x '.join(map(str, sizes))} values"
            return
        rows = [item for row in rows for item in row]
    if not all(type(value) is int and 0 <= value <= 10**15 for value in rows):
        yield f"{name} must be whole nanoseconds, 0 or more"


FileModel = TypeVar("FileModel", CostFile, LinkFile)


def names(kind: str) -> list[str]:
    """Names of the shipped tables of a kind: "kernels" or "links"."""
    return sorted(path.stem for path in data_dir(kind).glob("*.json"))


def data_dir(kind: str) -> Path:
    """Folder of the shipped tables of a kind, in the checkout or in the installed package."""
    return shipped("traces", kind)


def read(model: type[FileModel], kind: str, name_or_path: str | Path, place: str) -> tuple[FileModel, str]:
    """The table of that name or path, and the sha256 of its file.

    Raises InputError where there is none (listing what exists), and where the file is truncated, foreign or wrong.
    """
    path = Path(name_or_path)
    if str(name_or_path) in names(kind):
        path = data_dir(kind) / f"{name_or_path}.json"
    if not path.is_file():
        raise InputError(Problem(place, unknown(f"table in traces/{kind}", str(name_or_path), names(kind))))
    data = path.read_bytes()
    document = _document(path, data, str(model.model_fields["format"].annotation.__args__[0]))  # type: ignore[union-attr]
    try:
        return model.model_validate(document), hashlib.sha256(data).hexdigest()
    except ValidationError as error:
        raise InputError(problems_of(error, str(path))) from error


def _document(path: Path, data: bytes, format: str) -> Mapping[str, Any]:
    expected = f"expected a JSON file of format {format!r}, version 1"
    try:
        document = json.loads(data)
    except (UnicodeDecodeError, ValueError) as error:
        text = f"is not JSON, or truncated ({len(data)} bytes; {error}); {expected}"
        raise InputError(Problem(str(path), text)) from error
    found = (document.get("format"), document.get("version")) if isinstance(document, dict) else (None, None)
    if found != (format, 1):
        raise InputError(Problem(str(path), f"holds format {found[0]!r}, version {found[1]!r}; {expected}"))
    return document


def write(path: Path | str, document: Mapping[str, Any]) -> None:
    """Write a table so that a person can review it: a row of numbers and a constant stand on one line each."""
    with write_aside(path) as aside:
        aside.write_text(text_of(document), encoding="utf-8")


def text_of(document: Mapping[str, Any]) -> str:
    """The file's text."""
    return _pretty(document, "") + "\n"


def _pretty(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, Mapping) and value:
        items = [f"{inner}{json.dumps(key)}: {_pretty(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and value and not isinstance(value[0], int | float):
        rows = [_row(item, inner) for item in value]
        return "[\n" + ",\n".join(inner + row for row in rows) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)


def _row(item: Any, indent: str) -> str:
    return _pretty(item, indent) if isinstance(item, list) else json.dumps(item, ensure_ascii=False)
