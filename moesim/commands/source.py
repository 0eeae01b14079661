"""Options that say what a trace of another program does not say itself, for all commands that read one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from moesim.trace.importers import Options

Format = Annotated[
    str, typer.Option("--format", help="What the file is: auto, moesim, bigmoe, llamacpp, npy, npz, csv or jsonl.")
]
Model = Annotated[str, typer.Option("--model", help="Name of the model, where the source has none.")]
Router = Annotated[str, typer.Option("--router", help="layerwise or decoupled, where the source does not say.")]
Layers = Annotated[
    int | None, typer.Option("--layers", min=1, help="Layers of a decoupled router, which decides once for all.")
]
Experts = Annotated[
    int | None, typer.Option("--experts", min=1, help="Experts of a layer (default: the source's, or largest id + 1).")
]
PerToken = Annotated[int | None, typer.Option("--k", min=1, help="Experts of a token, for sources without them.")]
KeyBytes = Annotated[
    str, typer.Option("--key-bytes", metavar="SIZE", help="Bytes of one expert of one layer, such as 9437184 or 9MiB.")
]
Prompt = Annotated[
    int | None,
    typer.Option(
        "--prompt-tokens", min=0, help="Prompt tokens of each sequence, where the source does not say; 0: all."
    ),
]


def options(
    form: str,
    model: str,
    router: str,
    layers: int | None,
    experts: int | None,
    k: int | None,
    key_bytes: str,
    prompt: int | None,
) -> Options:
    """The options, checked. Raises InputError with every one that makes no sense."""
    from moesim.errors import InputError, Problem, unknown
    from moesim.experiment import parse_bytes
    from moesim.trace.importers import FORMATS, Options

    problems = []
    if form not in ("auto", *FORMATS):
        problems.append(Problem("--format", unknown("format", form, ("auto", *FORMATS))))
    if router not in ("", "layerwise", "decoupled"):
        problems.append(Problem("--router", unknown("router", router, ("layerwise", "decoupled"))))
    size = None
    if key_bytes:
        try:
            size = parse_bytes(key_bytes)
        except ValueError as error:
            problems.append(Problem("--key-bytes", str(error)))
        if size == 0:
            problems.append(Problem("--key-bytes", "0 is no size; a key takes 1 byte or more"))
    if problems:
        raise InputError(problems)
    return Options(form, model, router, layers, experts, k, size, prompt)  # type: ignore[arg-type]
