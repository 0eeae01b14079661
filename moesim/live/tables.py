"""The tables that a profile makes: its sections as the files of `moesim.hardware.files`."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from moesim.files import write_aside
from moesim.hardware.amounts import amount
from moesim.hardware.files import CostFile, LinkFile, text_of
from moesim.hardware.fitted import unfitted
from moesim.live import machine
from moesim.live.bench import Room
from moesim.live.points import real
from moesim.live.profiler import KERNELS, Profiler, Settings, as_asked, grid_points
from moesim.live.weights import DTYPES

OTHER = {"looped": "grouped", "grouped": "looped"}
SPREAD = ("ns", "p10", "p90", "repeats")
UNTOLD: dict[str, Any] = {"key_map": (), "key_sizes": ()}
"""of a shape, what a table does not hold"""
HOST, TOLD = ("launch", "sync", "copy_submit", "decision"), ("forming", "planning")
"""host times that every table has, and those that only live runs tell from a decision and from a demand"""
PEAKS = {
    "bytes_per_second": ("bytes/s", "measured: reading 256 MiB once"),
    "flops_per_second": ("FLOP/s", "measured: a large square product"),
}
METHOD = (
    "ns are medians of repeated calls after a warm-up, p10 and p90 their percentiles; {clock}; random weights in "
    "{dtype}, other ones each call, out of a set of at least {flush:,} bytes where memory allows, so that they come "
    "from memory and not from a cache. Corners of a grid that cannot be (fewer tokens than active experts, less "
    "context than requests) hold the nearest point that can. experts: {experts}, tokens shared evenly unless there is "
    "an axis largest; the other way is among the variants. left_out: interpolation at points that were measured and "
    "are not in the grid, relative; again: the same grid point measured twice."
)
FITTED = (
    "host_ns are not of single calls: they are medians over the live runs in {folder} that calibrate, "
    "as the engine paid them, threads that wake each other included."
)
CLOCKS = {
    "cpu": "by the wall clock, dispatch included",
    "cuda": "by device events around each call: what the stream was busy, or the host's time of issuing it if longer",
}
LEAVES_OUT = [
    "Kernels that other kernels or copies slow down: each was alone on the device (while_computing in the link's table "
    "says how much that is).",
    "What the server does between the pieces: its own bookkeeping is neither in them nor in host_ns.",
    "layer_rest is of decode tokens up to 64 a step, of one prompt above; step_rest of embedding, FFNs of layers "
    "without experts and head for as many tokens as are sampled. The decoupled router looks back at its prompt only.",
]
HOW = {
    "cpu": "by another thread that copies memory, as moesim live has it: 'the device' is other memory of the machine",
    "cuda": "by events of a copy stream",
}
LATENT = "Latent attention is run absorbed, all heads over the compressed vector of each token."


def provenance(settings: Settings, name: str) -> dict[str, Any]:
    """What both tables say about themselves."""
    return {
        "version": 1,
        "name": name,
        "label": "MEASURED",
        "device": machine.describe(settings.device, settings.threads),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": settings.command,
        "versions": machine.versions(settings.device),
    }


def cost_document(settings: Settings, found: dict[str, Any], room: Room) -> dict[str, Any]:
    """The cost table of all sections; raises KeyError where one is missing."""
    shape, way = settings.shape, settings.experts
    dtype = str(DTYPES[shape.dense_bits]).removeprefix("torch.")
    method = METHOD.format(clock=CLOCKS[settings.device.type], dtype=dtype, flush=room.flush, experts=way)
    if settings.host_from is not None:
        method += f" {FITTED.format(folder=settings.host_from.name)}"
    host = {name: found["host"][name] for name in (*HOST, *(told for told in TOLD if told in found["host"]))}
    return {
        "format": "moesim-costs",
        **provenance(settings, settings.label),
        "method": method,
        "constants": [
            {"name": f"peak {name}", "value": round(found["peaks"][name]), "unit": unit, "source": text}
            for name, (unit, text) in PEAKS.items()
        ],
        "leaves_out": [*LEAVES_OUT, *([LATENT] if shape.kv_values else [])],
        "shape": shape.model_dump(mode="json", exclude={"key_map", "key_sizes"}),
        "host_ns": {name: values[0] for name, values in host.items()},
        "components": {name: found[name][way] if name == "experts" else found[name] for name in KERNELS},
        "variants": {
            f"experts_{OTHER[way]}": found["experts"][OTHER[way]],
            **{f"host_{name}": constant(values) for name, values in host.items()},
        },
    }


def constant(values: Sequence[int]) -> dict[str, Any]:
    """A component without axes: [ns, p10, p90, repeats]."""
    return {"axes": {}, **dict(zip(SPREAD, values, strict=True))}


def link_document(settings: Settings, found: dict[str, Any]) -> dict[str, Any]:
    """The link table."""
    link = dict(found["link"])
    leaves = [f"Copies of {nbytes:,} bytes: memory did not allow them." for nbytes in link.pop("left", [])]
    leaves.append("What copies and kernels cost each other: while_computing says it, and no run uses it.")
    name, held = settings.name, ""
    if throttle := settings.throttle:
        name += f"-{throttle.bytes_per_second // 10**6}mb"
        held = f"; held to {throttle.bytes_per_second:,} bytes/s and {throttle.fixed_ns:,} ns a copy, for a slower link"
    how = HOW[settings.device.type]
    return {
        "format": "moesim-link",
        **provenance(settings, name),
        "method": f"ns are medians of copies in a row, each from other memory, {how}{held}; spread: p10 and p90",
        "leaves_out": leaves,
        **link,
    }


def profile(settings: Settings, folder: Path, *, quiet: bool = False) -> dict[str, Path]:
    """Measure and write `kernels/NAME.json` and `links/NAME.json` under `folder`; "costs" and "link" -> the files.

    What is not asked for stays as a table that is there has it, if that was measured on this device for this shape. A
    table that lacks a section all the same is not written; what was measured is kept for the next call.
    """
    if settings.device.type == "cpu":
        torch.set_num_threads(settings.threads)
    profiler = Profiler(settings, folder, quiet=quiet)
    found = profiler.run()
    there = known_sections(settings, folder / "kernels" / f"{settings.label}.json")
    needs = {"costs": {*KERNELS, "host", "peaks"}, "link": {"link"}}
    written: dict[str, Path] = {}
    for kind, sections in needs.items():
        if not sections & set(settings.what):
            continue
        kept = {name: there[name] for name in sections - found.keys() if name in there}
        if missing := sorted(sections - found.keys() - kept.keys()):
            profiler.say(f"{kind}: not written yet, not measured are {', '.join(missing)}")
            continue
        if kind == "costs":
            document = cost_document(settings, found | kept, profiler.room)
            if kept:
                document["command"] = f"{there['command']}; {document['command']}"
        else:
            document = link_document(settings, found)
        written[kind] = write_table(folder, kind, document)
        profiler.say(f"{kind}: {written[kind]}")
    if {kind for kind, sections in needs.items() if sections & set(settings.what)} == written.keys():
        profiler.sections.remove()
    return written


def known_sections(settings: Settings, path: Path) -> dict[str, Any]:
    """Sections of a table measured on this device for this shape, and its command; nothing where it was not.

    They are as they were measured: what was fitted to the table (`moesim.hardware.fitted`) is not in them.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        file = CostFile.model_validate(document)
    except (OSError, ValueError):
        return {}
    here = machine.describe(settings.device, settings.threads), settings.shape.model_copy(update=UNTOLD)
    if file.label != "MEASURED" or (file.device, file.shape) != here:
        return {}
    document = unfitted(document)
    parts, variants = document["components"], document["variants"]
    found = {name: parts[name] for name in KERNELS if name in parts}
    other = next((way for way in OTHER if f"experts_{way}" in variants), "grouped")
    found["experts"] = {OTHER[other]: parts["experts"], other: variants[f"experts_{other}"]}
    found["peaks"] = {row["name"].removeprefix("peak "): row["value"] for row in document["constants"]}
    host = (*HOST, *(told for told in TOLD if f"host_{told}" in variants))
    found["host"] = {name: [variants[f"host_{name}"][key] for key in SPREAD] for name in host}
    return found | {"command": document["command"]}


def write_table(folder: Path, kind: str, document: dict[str, Any]) -> Path:
    """Check a table and write it where tables of its kind are; its path."""
    sub, model = ("kernels", CostFile) if kind == "costs" else ("links", LinkFile)
    model.model_validate(document)
    path = folder / sub / f"{document['name']}.json"
    with write_aside(path) as aside:
        aside.write_text(text_of(document), encoding="utf-8")
    return path


def amounts_of(costs: dict[str, Any]) -> dict[str, list[tuple[float, float, int]]]:
    """Of each component of a cost table's document: (bytes, FLOPs, ns) of the points that can be."""
    file = CostFile.model_validate(costs)
    found = {}
    for name, part in file.components.items():
        if name == "cpu_expert" and not file.device.startswith("CPU"):
            continue  # another device's roof
        rows = {}
        for point, ns in zip(grid_points(part.axes), part.flat(), strict=True):
            full = real(name, point, part.axes)
            if full == as_asked(name, point, part.axes):
                needs = amount(file.shape, name, full)
                rows[full] = needs.bytes, needs.flops, ns
        found[name] = list(rows.values())
    return found
