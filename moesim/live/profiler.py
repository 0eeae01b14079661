"""Measuring a shape on the present device, section by section (`moesim profile`, docs/costs.md).

A section that is done is kept beside the output until the tables are written, so that an interrupted profile goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from moesim.errors import InputError, Problem, unknown
from moesim.files import write_aside
from moesim.hardware.files import ARGUMENTS
from moesim.hardware.interpolation import between, left_out
from moesim.hardware.shape import ModelShape
from moesim.live import machine
from moesim.live.bench import Bench, Room, room_of
from moesim.live.copies import Throttle
from moesim.live.host_costs import host_costs, host_of_runs
from moesim.live.links import LinkBench
from moesim.live.points import SIZES, Axes, real, size_of
from moesim.live.timing import Effort, Spread, Timer

KERNELS = tuple(ARGUMENTS)
SECTIONS = ("peaks", *KERNELS, "host", "link")
AGAIN = 5
"""grid points of each component that are measured a second time"""
MOST_LEFT_OUT = 8
LINE_S = 10.0

@dataclass(frozen=True)
class Settings:
    """What to measure, and how thoroughly."""

    shape: ModelShape
    device: torch.device
    threads: int
    name: str
    points: dict[str, Axes]
    what: tuple[str, ...] = SECTIONS
    experts: str = "looped"
    sizes: Sequence[int] = tuple(SIZES)
    effort: Effort = field(default_factory=Effort)
    memory: int | None = None
    throttle: Throttle | None = None
    command: str = "moesim profile"
    check: bool = True
    """measure the points that are left out"""
    host_from: Path | None = None
    """results of live runs, whose host times are taken in place of those that are measured by themselves"""

    @property
    def label(self) -> str:
        return f"{self.name}-{self.shape.name}"

    def identity(self, section: str) -> dict[str, Any]:
        """What the times of a section depend on."""
        of_shape = None if section in ("host", "peaks", "link") else self.shape.model_dump(mode="json")
        points = self.points.get(section) or (list(self.sizes) if section == "link" else None)
        throttle = [self.throttle.bytes_per_second, self.throttle.fixed_ns] if self.throttle else None
        effort = [self.effort.repeats, self.effort.least, self.effort.seconds, self.check]
        device = [machine.describe(self.device, self.threads), machine.versions(self.device)]
        runs = str(self.host_from) if section == "host" and self.host_from else ""
        known = {"device": device, "shape": of_shape, "points": points, "effort": effort, "throttle": throttle}
        return known | ({"runs": runs} if runs else {})


class Sections:
    """Finished sections in a folder; one that was measured otherwise is measured again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str, identity: dict[str, Any]) -> Any:
        """What a section found, or None."""
        path = self.folder / f"{name}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return kept["found"] if kept.get("identity") == json.loads(json.dumps(identity)) else None

    def write(self, name: str, identity: dict[str, Any], found: Any) -> None:
        with write_aside(self.folder / f"{name}.json") as aside:
            aside.write_text(json.dumps({"identity": identity, "found": found}), encoding="utf-8")

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Say:
    """Progress on standard error: a line per section, and every ten seconds how far it is."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.begun, self.said = quiet, time.monotonic(), 0.0

    def __call__(self, text: str) -> None:
        self.said = time.monotonic()
        if not self.quiet:
            print(f"{self.said - self.begun:7.1f} s  {text}", file=sys.stderr, flush=True)

    def now_and_then(self, text: str) -> None:
        if time.monotonic() - self.said > LINE_S:
            self(text)


class Profiler:
    """Measures the sections of one shape."""

    def __init__(self, settings: Settings, folder: Path, *, quiet: bool = False) -> None:
        self.settings, self.say = settings, Say(quiet)
        digest = hashlib.sha256(settings.label.encode()).hexdigest()[:8]
        self.sections = Sections(folder / f".profile-{settings.label}-{digest}")
        self.timer = Timer(settings.device, settings.effort)
        self.room: Room = room_of(settings.device, settings.memory)
        self.bench = Bench(settings.shape, settings.device, self.room)
        self._spreads: dict[tuple[str, tuple[int, ...], bool], Spread] = {}

    def run(self) -> dict[str, Any]:
        """Measure what is asked for and not done yet; section -> what it found, of all that are done."""
        found = {}
        for name in SECTIONS:
            identity = self.settings.identity(name)
            kept = self.sections.read(name, identity)
            if kept is None and name in self.settings.what:
                self.say(f"{self.settings.label}: {name}")
                # Kernels as the engine's stream runs them; what other threads write must not be inference tensors.
                with torch.no_grad() if name in ("host", "link") else torch.inference_mode():
                    kept = self._measure(name)
                self.sections.write(name, identity, kept)
                self.bench.forget()
            if kept is not None:
                found[name] = kept
        return found

    def _measure(self, name: str) -> Any:
        settings = self.settings
        if name == "peaks":
            return machine.peaks(settings.device, self.bench.dtype, self.timer)
        if name == "host":
            spreads = host_costs(settings.shape, settings.device, settings.effort)
            if settings.host_from is not None:
                # What a live run takes until its first demand is on its way is no measure of a key that is planned.
                spreads |= {"planning": spreads["copy_submit"]} | host_of_runs(settings.host_from)
            return {key: [spread.ns, spread.p10, spread.p90, spread.repeats] for key, spread in spreads.items()}
        if name == "link":
            return self._link()
        if name == "experts":
            return {way: self.component(name, grouped=way == "grouped") for way in ("looped", "grouped")}
        return self.component(name)

    def component(self, name: str, *, grouped: bool = False) -> dict[str, Any]:
        """A component of a cost table: its grid with spreads, and how far interpolation is off beside it."""
        axes, spreads = self.settings.points[name], {}
        total = size_of(axes)
        for done, point in enumerate(grid_points(axes)):
            spreads[point] = self._spread(name, real(name, point, axes), grouped)
            self.say.now_and_then(f"{name}: {done + 1} of {total} points")
        grid = [spreads[point] for point in grid_points(axes)]
        found = component(axes, grid)
        if self.settings.check:
            found |= self._left_out(name, axes, grid, grouped)
        return found

    def _spread(self, name: str, point: tuple[int, ...], grouped: bool) -> Spread:
        """Corners that cannot be share the time of the point that stands for them."""
        key = (name, point, grouped)
        if key not in self._spreads:
            self._spreads[key] = self.timer(self.bench.call(name, point, grouped=grouped))
        return self._spreads[key]

    def _left_out(self, name: str, axes: Axes, grid: list[Spread], grouped: bool) -> dict[str, Any]:
        measured = {}
        for point in between(axes, MOST_LEFT_OUT):
            if real(name, point, axes) == as_asked(name, point, axes):
                measured[point] = self.timer(self.bench.call(name, real(name, point, axes), grouped=grouped)).ns
        points = list(grid_points(axes))
        again = []
        for at in range(0, len(points), max(1, len(points) // AGAIN)):
            second = self.timer(self.bench.call(name, real(name, points[at], axes), grouped=grouped)).ns
            again.append(abs(second - grid[at].ns) / max(1, grid[at].ns))
        error = left_out(axes, [spread.ns for spread in grid], measured, again)
        return {"left_out": error} if error else {}

    def _link(self) -> dict[str, Any]:
        settings = self.settings
        bench = LinkBench(settings.device, settings.sizes, self.room, settings.effort, settings.throttle)
        found: dict[str, Any] = {"pinned": bench.to_device(), "to_host": bench.to_host()}
        if settings.device.type == "cuda":
            found["pageable"] = bench.to_device(pinned=False)
        if both := bench.both_ways():
            found["both_ways"] = both
        found["while_computing"] = bench.while_computing(self.bench)
        if bench.left:
            found["left"] = bench.left
        return found


def grid_points(axes: Axes) -> list[tuple[int, ...]]:
    """Points of a grid in row-major order."""
    found: list[tuple[int, ...]] = [()]
    for points in axes.values():
        found = [(*point, value) for point in found for value in points]
    return found


def as_asked(name: str, point: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    """A point's full arguments with nothing put right."""
    given = dict(zip(axes, point, strict=True))
    if name == "experts" and "largest" not in given:
        given["largest"] = -(-given.get("tokens", 1) // given.get("active", 1))
    return tuple(given.get(axis, 0 if axis == "past" else 1) for axis in ARGUMENTS[name])


def component(axes: Axes, spreads: Sequence[Spread]) -> dict[str, Any]:
    """A component with its spreads, nested as the axes are."""
    sizes = [len(points) for points in axes.values()]
    columns = {name: nested([getattr(spread, name) for spread in spreads], sizes) for name in ("ns", "p10", "p90")}
    return {"axes": axes, **columns, "repeats": min(spread.repeats for spread in spreads)}


def nested(values: Sequence[int], sizes: Sequence[int]) -> Any:
    if not sizes:
        return values[0]
    step = len(values) // sizes[0]
    return [nested(values[i * step : (i + 1) * step], sizes[1:]) for i in range(sizes[0])]


def check_what(names: Sequence[str]) -> tuple[str, ...]:
    """Sections by name; `kernels` are all components with peaks and host. Raises InputError for others."""
    groups = {"kernels": ("peaks", *KERNELS, "host"), "all": SECTIONS}
    known = {**groups, **{name: (name,) for name in SECTIONS}}
    if wrong := [Problem("--what", unknown("section", name, known)) for name in names if name not in known]:
        raise InputError(wrong)
    asked = {section for name in names for section in known[name]}
    return tuple(name for name in SECTIONS if name in asked)
