"""`moesim trace info`, `import` and `stats`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from moesim.commands import source
from moesim.commands.terminal import JSON, Gather, bad_input, dump


def info(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Routing traces (Parquet), arrivals in any format.")
    ],
    form: Annotated[str, typer.Option("--format", help="Of arrivals: auto, moesim, azure, mooncake, ...")] = "auto",
    empty: Annotated[
        str, typer.Option(help="Arrivals without prompt or output tokens: refuse the file, or drop them.")
    ] = "refuse",
    as_json: JSON = False,
) -> None:
    """What is in a trace. Routing: model, domains, shares, persistence; arrivals: rate, burstiness, lengths."""
    with bad_input():
        gather = Gather()
        read = {str(file): gather(lambda file=file: _described(file, form, empty)) for file in files}  # type: ignore[misc]
        gather.check()
        found = {file: both for file, both in read.items() if both}
    if as_json:
        print(dump({"traces": [{"file": file} | described for file, (described, _) in found.items()]}))
    else:
        print("\n\n".join(f"{file}\n{text}" for file, (_, text) in found.items()))


def _described(file: Path, form: str, empty: str) -> tuple[dict[str, Any], str]:
    """What a file holds, as plain data and as text."""
    from moesim.trace import arrivals_info, info
    from moesim.trace.arrivals import read_arrivals
    from moesim.trace.routing import read_routing

    if form != "auto" or arrivals_info.is_arrivals(file):
        described = arrivals_info.describe(read_arrivals(file, form, empty))
        return {"kind": "arrivals"} | described, arrivals_info.render(described)
    described = info.describe(read_routing(file))
    return {"kind": "routing"} | described, info.render(described)


def import_trace(
    file: Annotated[Path, typer.Argument(metavar="IN", help="Routing of another program.")],
    out: Annotated[Path, typer.Option(metavar="X.parquet", help="The trace to write.")],
    form: source.Format = "auto",
    model: source.Model = "",
    router: source.Router = "",
    layers: source.Layers = None,
    experts: source.Experts = None,
    k: source.PerToken = None,
    key_bytes: source.KeyBytes = "",
    prompt_tokens: source.Prompt = None,
    as_json: JSON = False,
) -> None:
    """Write routing of another program as a trace of ours (docs/traces.md has the formats)."""
    with bad_input():
        from dataclasses import replace

        from moesim.errors import InputError, Problem
        from moesim.trace.importers import read_any
        from moesim.trace.info import describe, render
        from moesim.trace.routing import read_routing, write_routing

        chosen = source.options(form, model, router, layers, experts, k, key_bytes, prompt_tokens)
        trace = read_any(file, chosen)
        command = f"moesim trace import {' '.join(_words(sys.argv))}".strip()
        trace = replace(trace, meta=trace.meta.model_copy(update={"command": command}))
        try:
            write_routing(out, trace)
        except OSError as error:
            raise InputError(Problem(str(out), f"cannot be written ({error.strerror})")) from error
        described = describe(read_routing(out))
    print(dump({"file": str(out)} | described) if as_json else f"{out}\n{render(described)}")


def stats(
    traces: Annotated[list[Path], typer.Argument(metavar="TRACE...", help="Routing: ours, or any that is imported.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the batches that are drawn.")] = 0,
    form: source.Format = "auto",
    router: source.Router = "",
    layers: source.Layers = None,
    experts: source.Experts = None,
    k: source.PerToken = None,
    key_bytes: source.KeyBytes = "",
    prompt_tokens: source.Prompt = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for stats.json, stats.txt and the figure (PNG, SVG).")
    ] = None,
    as_json: JSON = False,
) -> None:
    """What routing means for a cache: balance, reuse, overlap, batches, foresight; measured, in plain words."""
    with bad_input():
        from moesim.trace.importers import read_any
        from moesim.trace.stats import render, statistics

        chosen = source.options(form, "", router, layers, experts, k, key_bytes, prompt_tokens)
        gather = Gather()
        read = {str(file): gather(lambda file=file: read_any(file, chosen)) for file in traces}  # type: ignore[misc]
        gather.check()
        found = [{"trace": name} | statistics(trace, seed) for name, trace in read.items() if trace]
        text = "\n\n".join(f"{one['trace']}\n{render(one)}" for one in found) + "\n"
        if out is not None:
            _write(out, found, text)
    print(dump({"traces": found}) if as_json else text, end="\n" if as_json else "")
    if out is not None and not as_json:
        print(f"\nFiles: {out}")


def _words(argv: list[str]) -> list[str]:
    """The command's own words, paths without their folders."""
    words = argv[argv.index("import") + 1 :] if "import" in argv else []
    return [Path(word).name if "/" in word or "\\" in word else word for word in words]


def _write(folder: Path, found: list[dict[str, object]], text: str) -> None:
    import matplotlib

    from moesim.analysis.plots import STYLE, save
    from moesim.analysis.trace_figures import statistics_figure
    from moesim.commands.terminal import write_texts

    write_texts(folder, {"stats.json": dump({"traces": found}) + "\n", "stats.txt": text})
    with matplotlib.rc_context(STYLE):
        for number, one in enumerate(found, 1):
            save(statistics_figure(one), folder, "stats" if len(found) == 1 else f"stats-{number}")
