"""The quality report of a refactorized model as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from moesim.live.refactorized import Record

COLUMNS = {
    "dense": "dense",
    "routed": "routed",
    "routed_untuned": "routed, untuned",
    "oracle_label": "oracle label",
    "own_expert": "own expert",
    "random_expert": "random expert",
}


def render(record: Record) -> str:
    """The page: what was made, what it loses, and how it routes."""
    body = _domains(record) if record.scheme == "domains" else _fine_grained(record)
    return "\n\n".join([*_head(record), *_losses(record), *body]) + "\n"


def _head(record: Record) -> Iterable[str]:
    report = record.report
    permanent = " (the permanent channels, counted in it; mean over layers)" if record.scheme == "domains" else ""
    yield f"# {record.model}, refactorized: {record.scheme}"
    yield (
        f"{record.layers} layers, {record.experts} experts a layer, {record.k} active. Of {record.channels} channels "
        f"a routed expert has {record.expert_width}, {record.shared_width} are shared by all{permanent}. "
        f"A key (one layer of one expert, 16 bits a weight) has {record.key_bytes:,} bytes."
    )
    training = report["training"]
    tokens = sum(training["tokens"].values())
    yield f"MEASURED {record.date} on {record.device}, {training['corpus']}, {tokens:,} training tokens, with"
    yield f"```\n{record.command or 'moesim refactorize'}\n```"
    held = sum(part["tokens"] for part in report["held_out"].values())
    yield (
        f"Every figure is on {held:,} held-out tokens ({len(report['held_out'])} domains, works that no training text "
        f"came from); products in {report['precision']}."
    )


def _losses(record: Record) -> Iterable[str]:
    report = record.report
    kinds = [kind for kind in COLUMNS if kind in report["loss"]["mean"]]
    yield "## Loss, and perplexity"
    yield "Mean loss in nats a token (perplexity), by who chooses the experts:"
    rows = [
        [name, *(f"{row[kind]:.2f} ({report['perplexity'][name][kind]:.1f})" for kind in kinds)]
        for name, row in report["loss"].items()
    ]
    yield table(["domain", *(COLUMNS[kind] for kind in kinds)], rows)
    worse = [name for name, beats in report["routed_beats_random"].items() if not beats]
    gaps = {name: row["random_expert"] - row["routed"] for name, row in report["loss"].items() if name != "mean"}
    least = min(gaps, key=lambda name: gaps[name])
    if worse:
        yield f"**Routing is not better than a random choice on: {', '.join(worse)}.**"
    else:
        yield (
            f"Routed is better than a random choice of experts on every domain, by {gaps[least]:.2f} nats ({least}) to "
            f"{max(gaps.values()):.2f}."
        )


def _domains(record: Record) -> Iterable[str]:
    report, names = record.report, record.domains
    yield "## Are the experts domain experts?"
    yield "Loss of each expert (columns) when it runs all tokens of a domain (rows):"
    rows = []
    for name, row in zip(names, report["matrix"], strict=True):
        best = min(row)
        rows.append([name, *(f"**{value:.2f}**" if value == best else f"{value:.2f}" for value in row)])
    yield table(["", *names], rows)
    yield f"The own expert is the best on {sum(report['own_expert_is_best'])} of {len(names)} domains."
    yield "## Does the router choose well?"
    agree = report["agreement"]
    rows = [
        [what, f"{agree[key]['all']:.3f}", *(f"{agree[key]['by_domain'][name]:.3f}" for name in names)]
        for what, key in (
            ("router = oracle label", "oracle_label"),
            ("router = true domain", "true_domain"),
            ("oracle label = true domain", "oracle_label_is_true_domain"),
        )
    ]
    yield table(["share of tokens", "all", *names], rows)
    yield "Share of each expert (columns) by the text's domain (rows):"
    rows = [[n, *(f"{v:.3f}" for v in row)] for n, row in zip(names, report["confusion"], strict=True)]
    yield table(["", *names], [*rows, ["all", *(f"{v:.3f}" for v in report["shares"])]])
    yield "## How long does a choice last?"
    yield _repeats(report["repeats"], ("router", "oracle_label"))
    yield (
        f"{report['permanent_share']:.1%} of the channels are in all experts; two experts share "
        f"{_least(report['common_share']):.0%} to {_most(report['common_share']):.0%} of theirs."
    )


def _fine_grained(record: Record) -> Iterable[str]:
    report = record.report
    yield "## How even is the use of the experts?"
    shares = report["shares"]
    yield (
        f"Even use would be {1 / record.experts:.3f} of the choices each. Over the layers the least used expert has "
        f"{min(map(min, shares)):.3f} to {max(map(min, shares)):.3f}, the most used {min(map(max, shares)):.3f} to "
        f"{max(map(max, shares)):.3f}."
    )
    yield "## How long does a choice last?"
    yield _repeats(report["repeats"], ("gates",))
    yield "## What do neighbouring layers tell about each other?"
    info = report["information"]
    if info["mean"] is not None:
        yield (
            f"Mutual information of the best experts of neighbouring layers: {info['mean']:.3f} bits on average "
            f"({min(info['neighbours']):.3f} to {max(info['neighbours']):.3f}); a layer's own entropy is "
            f"{info['mean_entropy']:.3f} bits on average. {info['tokens']:,} tokens. ({info['paper']}.)"
        )


def _repeats(repeats: dict[str, Any], who: Sequence[str]) -> str:
    lags = list(repeats[who[0]])
    rows = [[name.replace("_", " "), *(_number(repeats[name][lag]) for lag in lags)] for name in who]
    head = "Share of the choices that were made so many tokens before, too, in the same text"
    return f"{head} ({repeats['paper']}):\n\n" + table(["lag", *lags], rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _least(rows: list[list[float]]) -> float:
    return min(value for i, row in enumerate(rows) for j, value in enumerate(row) if i != j)


def _most(rows: list[list[float]]) -> float:
    return max(value for i, row in enumerate(rows) for j, value in enumerate(row) if i != j)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
