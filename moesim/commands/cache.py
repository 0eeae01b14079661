"""`moesim cache`: how much a cache of each size and policy would have hit, without any time in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from moesim.commands import source
from moesim.commands.terminal import JSON, Gather, bad_input, dump
from moesim.curves import POLICIES, SIZES

T = TypeVar("T")
OPTIONS = ("policies", "sizes", "scope", "room", "order", "start", "between", "rank")


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
    with bad_input():
        from moesim.analysis.cache_table import render
        from moesim.curves import cache as replayed

        gather = Gather()
        chosen = gather(lambda: source.options(form, "", router, layers, experts, k, key_bytes, prompt_tokens))
        given: dict[str, Any] = {"order": order, "start": start, "between": between, "rank": rank}
        given |= {"scope": scope, "room": room, "bypass": bypass, "sequences": sequences, "seed": seed}
        given |= {"policies": policies or POLICIES, "sizes": sizes, "options": chosen}
        curves = gather(lambda: _as_options(lambda: replayed({str(file): file for file in traces}, **given)))
        gather.check()
        assert curves is not None
        documents = curves.documents
        text = "\n".join(render(one) for one in documents)
        if out is not None:
            _write(out, documents, text)
    if as_json:
        print(dump({"traces": documents}))
        return
    print(text, end="")
    if out is not None:
        print(f"\nFiles: {out}")


def _as_options(make: Callable[[], T]) -> T:
    """What `make` gives; its mistakes are named as the options of this command are."""
    from moesim.errors import InputError, Problem

    try:
        return make()
    except InputError as error:
        named = (Problem(f"--{p.place}" if p.place in OPTIONS else p.place, p.text) for p in error.problems)
        raise InputError(named) from None


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
