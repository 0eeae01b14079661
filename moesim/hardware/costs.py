"""What kernels and the host cost on one device for one model shape (docs/costs.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moesim.errors import InputError, Problem
from moesim.hardware.files import ARGUMENTS, CostFile, data_dir, read
from moesim.hardware.grid import CostRangeError, Grid
from moesim.hardware.shape import ModelShape

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CostRangeError", "CostTable", "data_dir", "load_costs"]

REMEMBERED = 1 << 20  # answers kept, so that an endless run does not fill memory
# Of a shape, what no kernel's time of the table depends on: names, how many layers the one layer of the table is
# repeated, which of them share keys, and what single keys weigh.
FREE = {"name", "source", "layers", "top_k", "router_bytes", "key_map", "key_sizes"}


class CostTable:
    """Times of one device for one model shape, integer nanoseconds, interpolated between the table's points.

    Every method gives 0 for 0 tokens, and raises CostRangeError outside the table's range unless extrapolation was
    allowed. `launch`, `sync`, `copy_submit`, `decision`, `forming` and `planning` are host times: one kernel launch,
    one device-to-host round trip, submitting one copy, one policy decision, forming a step, handing over a key to
    prefetch.
    """

    def __init__(self, file: CostFile, digest: str = "", *, allow_extrapolation: bool = False) -> None:
        self.file, self.digest, self.allow_extrapolation = file, digest, allow_extrapolation
        self.name, self.label, self.device, self.shape = file.name, file.label, file.device, file.shape
        host = file.host_ns
        self.launch, self.sync = host.launch, host.sync
        self.copy_submit, self.decision = host.copy_submit, host.decision
        self.forming = host.decision if host.forming is None else host.forming
        self.planning = host.copy_submit if host.planning is None else host.planning
        self._grids = {
            name: Grid(file.name, name, component.axes, component.flat(), extrapolate=allow_extrapolation)
            for name, component in file.components.items()
        }
        self._used = {name: [ARGUMENTS[name].index(axis) for axis in grid.axes] for name, grid in self._grids.items()}
        self._known: dict[tuple[object, ...], int] = {}

    @property
    def estimated(self) -> bool:
        """Whether the times come from a formula and not from a measurement."""
        return self.label == "ESTIMATED"

    def attention_prefill(self, tokens: int, context: int) -> int:
        """One layer's attention of one request's `tokens` new tokens over `context` tokens in all (them included)."""
        return self._cost("attention_prefill", tokens, context - tokens)

    def attention_decode(self, batch: int, context: int) -> int:
        """One layer's attention of `batch` decode tokens; `context` is the sum of their requests' tokens."""
        return self._cost("attention_decode", batch, context)

    def layer_rest(self, tokens: int) -> int:
        """Projections, norms, residuals and shared experts of one layer, for all tokens of the step."""
        return self._cost("layer_rest", tokens)

    def gate(self, tokens: int) -> int:
        """A layer-wise gate, one layer."""
        return self._cost("gate", tokens)

    def router(self, tokens: int) -> int:
        """A decoupled router, all layers at once, for `tokens` new tokens."""
        return self._cost("router", tokens)

    def experts(self, tokens: int, active: int, largest: int) -> int:
        """One layer's expert FFNs run together: `tokens` (token, expert) pairs over `active` experts.

        `largest` is the number of tokens of the expert that has most, from tokens / active up to tokens.
        """
        return self._cost("experts", tokens, active, largest)

    def step_rest(self, tokens: int) -> int:
        """What a step does once: embedding, layers without experts, and LM head and sampling of `tokens` tokens."""
        return self._cost("step_rest", tokens)

    def flat(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All components as arrays for compiled code (`moesim.sim.kernel`): grids, points of the axes, times in ns.

        A row of `grids` [components in the order of ARGUMENTS, 15] is: number of axes; where its times start; whether
        it may extrapolate; and per axis the argument it stands for, where its points start, how many they are, stride.
        """
        import numpy as np

        grids = np.zeros((len(ARGUMENTS), 15), dtype=np.int64)
        points: list[int] = []
        times: list[int] = []
        for row, name in zip(grids, ARGUMENTS, strict=True):
            grid = self._grids.get(name)
            if grid is None:  # compiled code does not ask for what a table need not have
                continue
            row[:3] = len(grid.axes), len(times), grid.extrapolate
            for axis, (argument, of_axis, stride) in enumerate(
                zip(self._used[name], grid.points, grid.strides, strict=True)
            ):
                row[3 + 4 * axis : 7 + 4 * axis] = argument, len(points), len(of_axis), stride
                points += of_axis
            times += grid.ns
        return grids, np.array([*points, 0], dtype=np.int64), np.array(times, dtype=np.int64)

    def at(self, component: str, *arguments: int) -> int:
        """A component by name; `arguments` are those of ARGUMENTS[component]."""
        return self._cost(component, *arguments[: len(ARGUMENTS[component])])

    @property
    def has_cpu(self) -> bool:
        """Whether the table says what an expert takes on the CPU."""
        return "cpu_expert" in self._grids

    def cpu_expert(self, tokens: int) -> int:
        """One layer's FFN of one expert for `tokens` tokens, computed by the CPU; only where `has_cpu`."""
        return self._cost("cpu_expert", tokens)

    def _cost(self, *asked: str | int) -> int:
        known = self._known
        if asked in known:
            return known[asked]
        if len(known) >= REMEMBERED:
            known.clear()
        component, *values = asked
        used = self._used[component]  # type: ignore[index]
        grid = self._grids[component]  # type: ignore[index]
        ns = grid.at(tuple(values[i] for i in used)) if values[0] else 0  # type: ignore[misc]
        known[asked] = ns
        return ns


def load_costs(name_or_path: str | Path, *, shape: ModelShape, allow_extrapolation: bool = False) -> CostTable:
    """The cost table of that shipped name or path, for a model of that shape.

    Raises InputError where there is no such table, where the file is truncated or foreign, and where it was made for a
    model of other sizes.
    """
    file, digest = read(CostFile, "kernels", name_or_path, "costs")
    other = [
        f"{name} {given} (the model's is {wanted})"
        for name, given in file.shape.model_dump(exclude=FREE).items()
        if given != (wanted := getattr(shape, name))
    ]
    if other:
        text = f"{file.name} is for the shape {file.shape.name!r}, and the model is {shape.name!r}: {', '.join(other)}"
        raise InputError(Problem("costs", text))
    return CostTable(file, digest, allow_extrapolation=allow_extrapolation)
