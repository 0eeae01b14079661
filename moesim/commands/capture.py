"""`moesim capture`: the routing of a model on prompts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from moesim.commands.terminal import JSON, Gather, bad_input, dump

LIVE = "needs PyTorch and transformers: pip install 'moesim[live]'"


def capture(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A folder of moesim refactorize, a Hugging Face folder or id, a GGUF file, or smollm2-135m.",
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
    with bad_input(), stopping():
        from moesim.errors import InputError, Problem

        try:
            import torch  # noqa: F401
            import transformers  # noqa: F401
        except ImportError as error:
            raise InputError(Problem("moesim capture", LIVE)) from error
        found = _run(
            model, prompts, out, work, continuations, limit, values, device, threads, created, trust, quiet or as_json
        )
    if as_json:
        print(dump(found))
    else:
        print(_told(found))


def stopping() -> Any:
    """Ctrl-C ends the command with a line."""
    from contextlib import contextmanager

    @contextmanager
    def block() -> Any:
        try:
            yield
        except KeyboardInterrupt:
            print("moesim: stopped; the same command goes on from the parts that are done", file=sys.stderr)
            raise typer.Exit(130) from None

    return block()


def _run(
    model: str,
    prompts: Path,
    out: Path,
    work: Path | None,
    continuations: Path | None,
    limit: int | None,
    values: dict[str, Any],
    device: str,
    threads: int | None,
    created: str,
    trust: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Check everything, do the work, and say what came of it."""
    import logging
    import os

    import torch

    from moesim.errors import InputError, Problem
    from moesim.live.capture import Capture
    from moesim.live.capture_files import write_traces
    from moesim.live.capture_settings import CaptureConfig, checked
    from moesim.live.prompts import CONTINUATIONS, Limits, Prompt, forced, read_prompts, write_prompts
    from moesim.live.target import Target, load_target

    if quiet:
        import transformers

        transformers.utils.logging.disable_progress_bar()
        logging.getLogger("transformers").setLevel(logging.ERROR)
    threads = threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads)
    gather = Gather()
    gather(lambda: _out_problems(out, values["text_only"]))
    config = gather(lambda: checked(values))
    target: Target | None = gather(lambda: load_target(model, device=device, dtype=values["dtype"], trust=trust))

    def read() -> list[Prompt]:
        limits = target.limits if target else Limits(2**31)
        encode = target.encode if target else (lambda text: [0])
        found = read_prompts(prompts, encode, limits, output=values["output"], first=limit)
        return forced(found, continuations, limits, limit) if continuations else found

    todo = gather(read)
    gather.check()
    assert isinstance(config, CaptureConfig) and target is not None and todo is not None
    job = Capture(target, todo, config, work or Path("results") / "capture" / out.stem, device, quiet, created)
    if not config.text_only:
        _top_problems(job)
    job.run()
    try:
        if config.text_only:
            write_prompts(out, job.continued())
            files = [out]
        else:
            files = write_traces(job, out, command_of(sys.argv), threads)
    except OSError as error:
        raise InputError(Problem(str(out), f"cannot be written ({error.strerror})")) from error
    tokens = sum(len(prompt.ids) for prompt in todo), sum(int(a["outputs"].sum()) for _, a in job.parts())
    return {
        "files": {str(file): file.stat().st_size for file in files},
        "continuations": str(job.work / CONTINUATIONS),
        "sequences": len(todo),
        "prompt_tokens": tokens[0],
        "output_tokens": tokens[1],
        "layers": len(job.blocks),
        "overhead": job.facts()["overhead"],
    }


def _out_problems(out: Path, text_only: bool) -> None:
    from moesim.errors import InputError, Problem

    suffix = ".jsonl" if text_only else ".parquet"
    if out.suffix != suffix:
        raise InputError(Problem("--out", f"is {out}; expected a name that ends in {suffix}"))
    if out.is_dir():
        raise InputError(Problem("--out", f"{out} is a folder; expected a file"))


def _top_problems(job: Any) -> None:
    from moesim.errors import InputError, Problem

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
