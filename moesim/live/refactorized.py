"""A refactorized model as a folder: what was made of a dense model, without its weights.

refactorized.json says what it is and where the dense model is found; experts.npz holds the channels of the experts,
router.npz (scheme domains) or gates.npz (fine-grained) what chooses them, deltas.npz what was tuned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from moesim.errors import InputError, Problem
from moesim.files import write_aside
from moesim.live.deltas import PROJECTIONS, LayerDeltas, reach_of
from moesim.live.dense import Dense, digest_of, load_dense
from moesim.live.domains import DomainModel
from moesim.live.experts import ExpertSet
from moesim.live.fine_grained import FineGrainedBlock, Gate, Partition, TuningFFN
from moesim.live.router import PreGatingRouter, RouterConfig
from moesim.live.settings import Scheme
from moesim.live.stages import Arrays, read_arrays

RECORD = "refactorized.json"
FORMAT: Literal["moesim-refactorized"] = "moesim-refactorized"
Count = Annotated[int, Field(ge=1)]


class Base(BaseModel):
    """The dense model: `found` is {"package", "file"}, {"hub"} or {"path"}; `sha256` is of its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    found: dict[str, str]


class Record(BaseModel):
    """refactorized.json. `expert_width` counts the channels of one expert in one layer, `shared_width` those that all
    tokens run: in scheme domains these are copied into each expert and counted in its width."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["moesim-refactorized"] = FORMAT
    version: Literal[1] = 1
    scheme: Scheme
    model: str
    base: Base
    domains: list[str]
    layers: Count
    experts: Count
    k: Count
    channels: Count
    expert_width: Count
    shared_width: Annotated[int, Field(ge=0)]
    d_model: Count
    key_bytes: Count
    rank: Annotated[int, Field(ge=0)]
    shared_rank: Annotated[int, Field(ge=0)]
    seed: int
    settings: dict[str, Any]
    versions: dict[str, str]
    device: str
    date: str
    command: str
    files: dict[str, str]
    report: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Refactorized:
    """A loaded refactorized model. `model` is called as a Hugging Face causal LM; `router` is None in scheme
    fine-grained, whose gates are in the layers; `meta` is refactorized.json."""

    model: Any
    router: PreGatingRouter | None
    tokenizer: Any
    meta: dict[str, Any]
    dense: Dense


# ---- writing


def save_refactorized(folder: Path, fields: Mapping[str, Any], parts: Mapping[str, Arrays]) -> Record:
    """Write `parts` (arrays by file name) and the record of `fields`, the record last: without it there is no model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    for name in ("experts.npz", "router.npz", "gates.npz", "deltas.npz"):
        if name not in parts:
            (folder / name).unlink(missing_ok=True)
    for name, arrays in parts.items():
        with write_aside(folder / name) as aside, open(aside, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    record = Record.model_validate({**fields, "files": {name: digest_of([folder / name]) for name in sorted(parts)}})
    write_record(folder, record)
    return record


def write_record(folder: Path, record: Record) -> None:
    with write_aside(folder / RECORD) as aside:
        aside.write_text(json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n", "utf-8")


def domain_parts(model: DomainModel, experts: ExpertSet, tuned: Arrays) -> dict[str, Arrays]:
    """The files of scheme domains."""
    router = {name: value.detach().cpu().numpy() for name, value in model.router.state_dict().items()}
    sizes = model.router.config
    router["sizes"] = np.array([sizes.vocabulary, sizes.experts, sizes.width, sizes.heads, sizes.mlp])
    parts = {"experts.npz": {"masks": experts.masks.numpy()}, "router.npz": router}
    return parts | ({"deltas.npz": tuned} if tuned else {})


def fine_grained_parts(partition: Partition, ffns: list[TuningFFN], tuned: Arrays) -> dict[str, Arrays]:
    """The files of scheme fine-grained."""
    gates = {
        "weight": np.stack([ffn.gate.weight.detach().cpu().numpy() for ffn in ffns]),
        "scale": np.stack([ffn.gate.scale.detach().cpu().numpy() for ffn in ffns]),
    }
    parts = {"experts.npz": {"owner": partition.owner}, "gates.npz": gates}
    return parts | ({"deltas.npz": tuned} if tuned else {})


def delta_arrays(deltas: list[LayerDeltas | None]) -> Arrays:
    """float16 arrays of low-rank deltas, by layer and projection."""
    found = {}
    for layer, parts in enumerate(deltas):
        for name, value in (parts.named_parameters() if parts is not None else ()):
            found[f"{layer}.{name}"] = value.detach().half().cpu().numpy()
    return found


def ffn_arrays(before: Mapping[str, Tensor], ffns: list[Any]) -> Arrays:
    """float16 differences of tuned FFN weights from those `before`."""
    return {
        f"{layer}.{name}": (getattr(ffn, name).weight.detach().cpu() - before[f"{layer}.{name}"]).half().numpy()
        for layer, ffn in enumerate(ffns)
        for name in PROJECTIONS
    }


def ffn_weights(dense: Any) -> dict[str, Tensor]:
    """Copies of all FFN weights, by layer and projection."""
    return {
        f"{layer}.{name}": getattr(block.mlp, name).weight.detach().cpu().clone()
        for layer, block in enumerate(dense.model.layers)
        for name in PROJECTIONS
    }


# ---- reading


def load_refactorized(folder: Path | str, *, model: Any = None, device: str = "cpu") -> Refactorized:
    """Load a folder that `moesim refactorize` wrote, in float32.

    `model` is the dense model where it is not where the record says: a path, a hub id, or a loaded `Dense`. Raises
    InputError where the folder is cut short, damaged, or made from another dense model.
    """
    folder = Path(folder)
    record = read_record(folder)
    parts = _read_parts(folder, record)
    dense = model if isinstance(model, Dense) else load_dense(model or _where(record.base), device)
    _check(folder, record, parts, dense)
    build = _domains if record.scheme == "domains" else _fine_grained
    made, router = build(record, parts, dense)
    made.eval().requires_grad_(False)
    return Refactorized(made, router, dense.tokenizer, record.model_dump(mode="json"), dense)


def read_record(folder: Path | str) -> Record:
    """The checked refactorized.json of a folder. Raises InputError."""
    path = Path(folder) / RECORD
    if not path.is_file():
        raise InputError(Problem(str(folder), f"holds no {RECORD}; expected a finished folder of moesim refactorize"))
    try:
        return Record.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(Problem(str(path), f"is truncated or damaged ({error})")) from error
    except ValidationError as error:
        raise InputError(
            Problem(str(path), f"{'.'.join(map(str, e['loc']))}: {e['msg']}") for e in error.errors()
        ) from error


def _where(base: Base) -> str | None:
    return base.found.get("path") or base.found.get("hub")


def _read_parts(folder: Path, record: Record) -> dict[str, Arrays]:
    chooser = "router.npz" if record.scheme == "domains" else "gates.npz"
    needed = {"experts.npz", chooser} | ({"deltas.npz"} & set(record.files))
    problems = []
    for name in sorted(needed | set(record.files)):
        if name not in needed or name not in record.files:
            problems.append(Problem(str(folder / RECORD), f"files: {name} does not fit scheme {record.scheme}"))
        elif not (folder / name).is_file():
            problems.append(Problem(str(folder / name), "is missing; the folder is not whole"))
        elif digest_of([folder / name]) != record.files[name]:
            problems.append(Problem(str(folder / name), f"is truncated or damaged: its sha256 is not that of {RECORD}"))
    if problems:
        raise InputError(problems)
    return {name: read_arrays(folder / name) for name in needed}


def _check(folder: Path, record: Record, parts: dict[str, Arrays], dense: Dense) -> None:
    problems = []
    if record.k > record.experts:
        problems.append(Problem(str(folder / RECORD), f"k is {record.k}, but there are {record.experts} experts"))
    if dense.digest != record.base.sha256:
        text = f"was made from {record.base.name} ({record.base.sha256[:12]}...), not from {dense.name} "
        problems.append(Problem(str(folder), text + f"({dense.digest[:12]}...)"))
    shape = dense.model.config
    for name, value in (
        ("layers", shape.num_hidden_layers),
        ("channels", shape.intermediate_size),
        ("d_model", shape.hidden_size),
    ):
        if getattr(record, name) != value:
            problems.append(Problem(str(folder / RECORD), f"{name} is {getattr(record, name)}; the model has {value}"))
    for name, arrays in parts.items():
        for key, size in _expected(record, name).items():
            found = arrays[key].shape if key in arrays else None
            if found != size:
                problems.append(Problem(str(folder / name), f"{key} has shape {found}; {RECORD} asks for {size}"))
    if problems:
        raise InputError(problems)


def _expected(record: Record, name: str) -> dict[str, tuple[int, ...]]:
    experts, layers, channels, d = record.experts, record.layers, record.channels, record.d_model
    if name == "experts.npz":
        return {"masks": (experts, layers, channels)} if record.scheme == "domains" else {"owner": (layers, channels)}
    if name == "router.npz":
        return {"sizes": (5,)}
    if name == "gates.npz":
        return {"weight": (layers, experts, d), "scale": (layers, experts)}
    ends = {"gate_proj": (channels, d), "up_proj": (channels, d), "down_proj": (d, channels)}
    ranks = ranks_of(record)
    found: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        for part, (out, into) in ends.items():
            if ranks:
                found |= {f"{layer}.{part}.down": (ranks, into), f"{layer}.{part}.up": (out, ranks)}
            else:
                found[f"{layer}.{part}"] = (out, into)
    return found


def ranks_of(record: Record) -> int:
    """Ranks of the stored deltas; 0 where they are whole differences of FFN weights."""
    return record.shared_rank + (record.rank * record.experts if record.scheme == "domains" else 0)


@torch.no_grad()
def _domains(record: Record, parts: dict[str, Arrays], dense: Dense) -> tuple[DomainModel, PreGatingRouter]:
    arrays = dict(parts["router.npz"])
    vocabulary, experts, width, heads, mlp = (int(value) for value in arrays.pop("sizes"))
    router = PreGatingRouter(RouterConfig(vocabulary, experts, width, heads, mlp))
    try:
        router.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    except RuntimeError as error:
        raise InputError(Problem("router.npz", f"holds another router than its sizes say ({error})")) from error
    made = DomainModel(dense.model, router, ExpertSet(torch.from_numpy(parts["experts.npz"]["masks"])))
    tuned, device = parts.get("deltas.npz"), dense.model.device
    if tuned is not None and ranks_of(record):
        reach = reach_of(record.experts, record.rank, record.shared_rank).to(device) if record.rank else None
        for layer, ffn in enumerate(made.ffns):
            ffn.deltas, ffn.reach = _layer_deltas(record, tuned, layer).to(device), reach
    elif tuned is not None:
        for layer, ffn in enumerate(made.ffns):
            _add_whole(ffn.dense, tuned, layer)
    return made, router


@torch.no_grad()
def _fine_grained(record: Record, parts: dict[str, Arrays], dense: Dense) -> tuple[Any, None]:
    partition, gates = Partition(parts["experts.npz"]["owner"]), parts["gates.npz"]
    tuned, device = parts.get("deltas.npz"), dense.model.device
    for layer, block in enumerate(dense.model.model.layers):
        if tuned is not None and ranks_of(record):
            deltas: Any = _layer_deltas(record, tuned, layer).to(device)
            for name in PROJECTIONS:
                getattr(block.mlp, name).weight += deltas[name].up @ deltas[name].down
        elif tuned is not None:
            _add_whole(block.mlp, tuned, layer)
        gate = Gate(torch.from_numpy(gates["weight"][layer]), torch.from_numpy(gates["scale"][layer]), record.k)
        block.mlp = FineGrainedBlock(block.mlp, partition, layer, gate.to(device))
    return dense.model, None


def _layer_deltas(record: Record, tuned: Arrays, layer: int) -> LayerDeltas:
    made = LayerDeltas(record.d_model, record.channels, ranks_of(record))
    for name, value in made.named_parameters():
        value.copy_(torch.from_numpy(tuned[f"{layer}.{name}"]).float())
    return made


def _add_whole(ffn: Any, tuned: Arrays, layer: int) -> None:
    for name in PROJECTIONS:
        weight = getattr(ffn, name).weight
        weight += torch.from_numpy(tuned[f"{layer}.{name}"]).to(weight)
