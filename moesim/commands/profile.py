"""`moesim profile`: what kernels, host and copies take on the present device, as cost and link tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moesim.commands.terminal import JSON, Gather, bad_input, cpus, dump, stopping

if TYPE_CHECKING:
    import torch

    from moesim.live.copies import Throttle
    from moesim.live.profiler import Settings

WAYS = ("auto", "looped", "grouped")


def profile(
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="NAME",
            help="A shipped shape, a shape file or a config.json. Repeatable. [default: smollm2-135m-readme]",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cuda or cpu. [default: cuda where there is one]")] = "",
    what: Annotated[
        str, typer.Option(help="Sections, with commas: all, kernels, link, host, peaks, or a component's name.")
    ] = "all",
    points: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS=N,...",
            help="Points of an axis in all components, or COMPONENT.AXIS=...; 1..512 doubles. Repeatable.",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Most calls of each point.")] = 40,
    seconds: Annotated[float, typer.Option(min=0.0, help="After which a point needs no more than 5 calls.")] = 0.4,
    experts: Annotated[
        str, typer.Option(help="looped, grouped, or auto (grouped on a GPU, as moesim live): which is the table's.")
    ] = "auto",
    sizes: Annotated[str, typer.Option(help="Bytes of copies, with commas (4KiB, 1MiB, 400MB).")] = "",
    throttle: Annotated[
        str, typer.Option(metavar="RATE", help="Copies held to so many bytes a second (2GB), for a slower link.")
    ] = "",
    throttle_fixed: Annotated[
        float, typer.Option(metavar="US", min=0, help="With --throttle: microseconds of each copy beside its bytes.")
    ] = 0.0,
    host_from: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Take host times from live runs that calibrate (docs/validation.md)."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads that compute [default: all but one].")] = None,
    memory: Annotated[str, typer.Option(help="Most bytes for weights (8GB). [default: half of what is free]")] = "",
    name: Annotated[str, typer.Option(help="First part of the tables' names. [default: cpu, or the GPU's name]")] = "",
    out: Annotated[Path, typer.Option(help="Tables go to kernels/ and links/ in it.")] = Path("results/profile"),
    quick: Annotated[bool, typer.Option("--quick", help="Few points and repeats: a try, in seconds.")] = False,
    as_json: JSON = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Measure cost and link tables of shapes on this device; an interrupted profile goes on where it was."""
    with bad_input(), stopping("sections"):
        from moesim.commands.torch_extra import needs_torch

        needs_torch("profile")
        from moesim.errors import InputError, Problem, unknown
        from moesim.files import why_not_in
        from moesim.hardware.shape import load_shape
        from moesim.live import machine
        from moesim.live.host_costs import host_of_runs
        from moesim.live.points import QUICK_SIZES, SIZES, default_points, with_points
        from moesim.live.profiler import Settings, check_what
        from moesim.live.timing import Effort
        from moesim.live.weights import dtype_of

        gather = Gather()
        models = [gather(lambda text=text: load_shape(text)) for text in shapes or ["smollm2-135m-readme"]]  # type: ignore[misc]
        for model in models:
            if model:
                gather(lambda model=model: dtype_of(model))  # type: ignore[misc]
        there = gather(lambda: _device(device))
        sections = gather(lambda: check_what([part.strip() for part in what.split(",")]))
        if experts not in WAYS:
            gather.problems.append(Problem("--experts", unknown("way", experts, WAYS)))
        given_sizes = gather(lambda: [_bytes("--sizes", part) for part in sizes.split(",")] if sizes else None)
        held = gather(lambda: _throttle(throttle, throttle_fixed))
        gather(lambda: host_of_runs(host_from) if host_from else None)
        if why := why_not_in(out):
            gather.problems.append(Problem("--out", f"{out} cannot be written: {why}"))
        room = gather(lambda: _bytes("--memory", memory) if memory else None)
        if given_sizes and (len(given_sizes) < 2 or given_sizes != sorted(set(given_sizes))):
            gather.problems.append(Problem("--sizes", "needs two sizes or more, each above the one before it"))
        kind = there.type if there else "cpu"
        grids = {
            model.name: gather(
                lambda model=model: with_points(default_points(model, kind, quick=quick), points or (), model)  # type: ignore[misc]
            )
            for model in models
            if model
        }
        try:
            gather.check()
        except InputError as error:
            raise InputError(dict.fromkeys(error.problems)) from None
        assert there is not None and sections is not None
        made = [
            Settings(
                shape=model, device=there, threads=threads or _threads(), name=name or machine.short_name(there),
                points=grids[model.name] or {}, what=sections, experts=_way(experts, kind),
                sizes=given_sizes or (QUICK_SIZES if quick else SIZES), memory=room, throttle=held, command=_command(),
                host_from=host_from,
                effort=Effort(min(repeats, 10), 3, min(seconds, 0.05), 2) if quick else Effort(repeats, 5, seconds),
            )
            for model in models
            if model
        ]  # fmt: skip
        written = _measure(made, out, quiet or as_json)
    if as_json:
        print(dump({"tables": written}))
    elif not quiet:
        _show(written)


def _measure(settings: list[Settings], out: Path, quiet: bool) -> list[dict[str, Any]]:
    from moesim.live.tables import profile as measure

    found = []
    for one in settings:
        files = measure(one, out, quiet=quiet)
        figure = _figure(files, out / "figures", one.label) if "costs" in files else []
        found.append({"shape": one.shape.name, **{k: str(path) for k, path in files.items()}, "figure": figure})
    return found


def _figure(files: dict[str, Path], folder: Path, name: str) -> list[str]:
    """Draw a table against the roofline; the figures' paths."""
    import json

    import matplotlib

    from moesim.analysis.plots import STYLE, save
    from moesim.analysis.roofline_figure import documents_figure
    from moesim.live.tables import amounts_of

    documents = {kind: json.loads(path.read_text(encoding="utf-8")) for kind, path in files.items()}
    costs = documents["costs"]
    with matplotlib.rc_context(STYLE):
        figure = documents_figure(amounts_of(costs), costs, documents.get("link"))
        return [str(path) for path in save(figure, folder, f"roofline-{name}")]


def _show(written: list[dict[str, Any]]) -> None:
    import json

    from moesim.analysis.profile_table import render

    for row in written:
        for kind in ("costs", "link"):
            if kind in row:
                print(f"{row[kind]}\n{render(json.loads(Path(row[kind]).read_text(encoding='utf-8')))}")
        for path in row["figure"]:
            print(path)


def _device(name: str) -> torch.device:
    import torch

    from moesim.live.machine import device_of

    return device_of(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def _way(experts: str, kind: str) -> str:
    return experts if experts != "auto" else "grouped" if kind == "cuda" else "looped"


def _threads() -> int:
    """All processors but one, which copies."""
    return max(1, cpus() - 1)


def _bytes(option: str, text: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    from moesim.errors import InputError, Problem

    try:
        found = int(TypeAdapter(ByteSize).validate_python(text.strip()))
    except ValidationError:
        found = 0
    if found <= 0:
        raise InputError(Problem(option, f"{text.strip()!r} is no size; write bytes, or 4KiB, 16MiB, 2GB"))
    return found


def _throttle(rate: str, fixed_us: float) -> Throttle | None:
    from moesim.errors import InputError, Problem
    from moesim.live.copies import Throttle

    if rate:
        return Throttle(_bytes("--throttle", rate), round(fixed_us * 1000))
    if fixed_us:
        raise InputError(Problem("--throttle-fixed", "belongs to --throttle, which is not given"))
    return None


def _command() -> str:
    """The command as it was given, paths without their folders."""
    words = sys.argv[sys.argv.index("profile") :] if "profile" in sys.argv else ["profile"]
    return "moesim " + " ".join(Path(word).name if "/" in word else word for word in words)
