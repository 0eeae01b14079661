"""`moesim cache`: how much a cache of each size and policy would have hit, without any time in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moesim.commands import source
from moesim.commands.terminal import JSON, Gather, bad_input, dump

if TYPE_CHECKING:
    from moesim.replay import Capacity

POLICIES = "random,fifo,lru,lfu,min"
SIZES = "5%,10%,20%,30%,40%,50%,60%,80%"
SCOPES, ROOMS = ("global", "layer"), ("strict", "event")
CHOICES = {
    "--order": ("event", "key"),
    "--start": ("warm", "cold"),
    "--between": ("keep", "reset"),
    "--rank": ("first", "last"),
}


def cache(
    traces: Annotated[list[Path], typer.Argument(metavar="TRACE...", help="Routing: ours, or any that is imported.")],
    policies: Annotated[
        list[str] | None,
        typer.Option(
            "--policies",
            metavar="NAME,...",
            help="NAME, NAME@SCOPE, NAME(PARAMETER=VALUE) or a path; min and min-bypass know the future. "
            f"(default: {POLICIES})",
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Of the whole cache: experts (400), experts a layer (8/layer), bytes (2GB, 500MiB) or a share (10%). "
            f"(default: those of {SIZES} that hold a key in every pool)",
        ),
    ] = None,
    scope: Annotated[str, typer.Option(help="global (one cache), layer (one each), or both.")] = "global,layer",
    room: Annotated[
        str,
        typer.Option(help="strict (never more than the size), event (never less than an event's own keys), or both."),
    ] = "strict",
    order: Annotated[str, typer.Option(help="event (a layer's keys at once) or key (one by one).")] = "event",
    start: Annotated[str, typer.Option(help="warm (prompts fill the cache) or cold (prompts left out).")] = "warm",
    between: Annotated[str, typer.Option(help="Sequences: keep the cache, or reset it.")] = "keep",
    rank: Annotated[str, typer.Option(help="Recency in an event: by a key's first use in it, or its last.")] = "first",
    bypass: Annotated[bool, typer.Option("--bypass", help="Ask policies which keys to admit (staging slots).")] = False,
    sequences: Annotated[int | None, typer.Option(min=1, help="Only the first so many sequences.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of policies that draw.")] = 0,
    form: source.Format = "auto",
    router: source.Router = "",
    layers: source.Layers = None,
    experts: source.Experts = None,
    k: source.PerToken = None,
    key_bytes: source.KeyBytes = "",
    prompt_tokens: source.Prompt = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for cache.csv, cache.json, table.txt and the curves (PNG, SVG).")
    ] = None,
    as_json: JSON = False,
) -> None:
    """How big a cache, and which policy? Replays routing without time: hits of every policy at every size."""
    choices = {"--order": order, "--start": start, "--between": between, "--rank": rank}
    with bad_input():
        from moesim.analysis.cache_table import render
        from moesim.replay import Settings, players, replay
        from moesim.replay.document import document
        from moesim.trace.importers import read_any

        gather = Gather()
        gather(lambda: _check_choices(choices))
        scopes = gather(lambda: _several("--scope", scope, SCOPES))
        rooms = gather(lambda: _several("--room", room, ROOMS))
        who = gather(lambda: players(policies or [POLICIES]))
        how_much = gather(lambda: _capacities(sizes or SIZES))
        chosen = gather(lambda: source.options(form, "", router, layers, experts, k, key_bytes, prompt_tokens))
        found = {str(file): gather(lambda file=file: read_any(file, chosen)) for file in traces}  # type: ignore[misc]
        gather.check()
        settings = Settings(scopes, rooms, order, start, between, sequences, seed, bypass, rank)  # type: ignore[arg-type]
        documents = []
        for name, trace in found.items():
            assert trace and who and how_much
            fitting = how_much if sizes else settings.fitting(trace.meta, how_much)
            documents.append(document(name, trace, settings, replay(trace, who, fitting, settings)))
        text = "\n".join(render(one) for one in documents)
        if out is not None:
            _write(out, documents, text)
    if as_json:
        print(dump({"traces": documents}))
        return
    print(text, end="")
    if out is not None:
        print(f"\nFiles: {out}")


def _check_choices(given: dict[str, str]) -> None:
    from moesim.errors import InputError, Problem, unknown

    wrong = [
        Problem(option, unknown("value", value, CHOICES[option]))
        for option, value in given.items()
        if value not in CHOICES[option]
    ]
    if wrong:
        raise InputError(wrong)


def _several(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Names between commas, of those that are known."""
    from moesim.errors import InputError, Problem, unknown

    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if wrong := [Problem(option, unknown("value", name, known)) for name in names if name not in known]:
        raise InputError(wrong)
    return names


def _capacities(text: str) -> list[Capacity]:
    from moesim.errors import InputError, Problem
    from moesim.replay import Capacity

    found, problems = [], []
    for part in text.split(","):
        try:
            found.append(Capacity.parse(part))
        except ValueError as error:
            problems.append(Problem("--sizes", str(error)))
    if problems:
        raise InputError(problems)
    return list(dict.fromkeys(found))


def _write(folder: Path, documents: list[dict[str, Any]], text: str) -> None:
    """cache.csv, cache.json, table.txt, and the curves of each trace."""
    import matplotlib

    from moesim.analysis.cache_curves import curves
    from moesim.analysis.plots import STYLE, save
    from moesim.commands.terminal import write_texts
    from moesim.replay.document import table_csv

    texts = {"cache.csv": table_csv(documents), "cache.json": dump({"traces": documents}) + "\n", "table.txt": text}
    write_texts(folder, texts)
    with matplotlib.rc_context(STYLE):
        for number, document in enumerate(documents, 1):
            figure = curves(document)
            if figure is not None:
                save(figure, folder, "cache" if len(documents) == 1 else f"cache-{number}")
