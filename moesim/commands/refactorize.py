"""`moesim refactorize`: a dense LLM as domain experts with one router, or as fine-grained experts with gates."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from moesim.commands.terminal import Gather, bad_input, stopping


class SchemeName(StrEnum):
    domains = "domains"
    fine_grained = "fine-grained"


def refactorize(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="LLaMA-like: a GGUF file, a folder, a hub id. [default: SmolLM2]"),
    ] = None,
    scheme: Annotated[
        SchemeName, typer.Option(help="domains: Read-ME's experts and one router; fine-grained: a gate in each layer.")
    ] = SchemeName.domains,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The folder to write [default: results/refactorized-SCHEME].")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Finished stages, to go on from [default: OUT-work].")
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help='Your texts: {"domain": ..., "text": ...} a line.')
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Development corpus [default: ../shared/data, if there].")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=V", help="Change a setting (docs/refactorize.md).")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small budget: minutes on two CPU cores.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    prompts: Annotated[
        Path | None, typer.Option("--write-prompts", metavar="FILE.jsonl", help="Write the held-out prompts, too.")
    ] = None,
    created: Annotated[str | None, typer.Option(help="Date to record [default: today].")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Make experts of a dense LLM and learn to choose them; report what that loses. No weights are copied."""
    with bad_input(), stopping("stages"):
        from moesim.commands.torch_extra import needs_torch

        needs_torch("refactorize")
        from moesim.live.refactorize import Request, check, refactorize
        from moesim.live.settings import RefactorConfig, config_from, fast_precision

        folder = out or Path("results") / f"refactorized-{scheme.value}"
        found = Gather()
        config = found(
            lambda: config_from(scheme.value, settings or (), quick=quick, precision=fast_precision(device))
        )
        request = Request(
            config=config or RefactorConfig(scheme=scheme.value),
            out=folder,
            work=work or folder.with_name(folder.name + "-work"),
            model=model,
            data=data,
            texts=texts,
            prompts=prompts,
            device=device,
            command=command_of(model, scheme.value, texts, settings or (), quick, device),
            created=created,
            quiet=quiet,
        )
        found(lambda: check(request))
        found.check()
        record = refactorize(request)
    mean = record.report["loss"]["mean"]
    print(
        f"{folder}: loss {mean['dense']:.3f} dense, {mean['routed']:.3f} routed, {mean['random_expert']:.3f} with "
        f"random experts ({folder / 'report.md'})"
    )


def command_of(
    model: str | None, scheme: str, texts: Path | None, settings: list[str] | tuple[str, ...], quick: bool, device: str
) -> str:
    """The command to record: what decides the result, without the paths of one machine."""
    words = ["moesim refactorize"]
    words += [Path(model).name if Path(model).exists() else model] if model else []
    words += [f"--scheme {scheme}"]
    words += [f"--texts {texts.name}"] if texts else []
    words += [f"--set {text}" for text in settings]
    words += ["--quick"] if quick else []
    words += [f"--device {device}"] if device != "cpu" else []
    return " ".join(words)
