"""How long requests that were let in waited for others: the longest pass-over that was seen, beside the bound."""

from __future__ import annotations

from collections.abc import Sequence

from moesim.analysis.configurations import Configuration

SEEN, STATED = "longest_pass_over", "pass_over_bound"


def notes(configurations: Sequence[Configuration]) -> list[str]:
    """A line for each batch policy that passed anybody over: of the run in which that went on longest."""
    longest: dict[str, tuple[int, int]] = {}
    for c in configurations:
        if not {SEEN, STATED} <= set(c.runs.columns):
            continue  # a summary of before
        batch = str(c.value("batch"))
        for seen, stated in zip(c.runs[SEEN].tolist(), c.runs[STATED].tolist(), strict=True):
            # Of equals the one that is closest to its bound; -1 is none at all.
            longest[batch] = max(longest.get(batch, (0, 0)), (int(seen), -int(stated)))
    return [_line(batch, seen, -stated) for batch, (seen, stated) in longest.items() if seen]


def _line(batch: str, seen: int, stated: int) -> str:
    text = f"batch {batch}: passed somebody over for {seen:,} step{'s'[: seen != 1]} in a row"
    return f"{text} (bound: {stated:,})" if stated >= 0 else f"{text} (no bound)"
