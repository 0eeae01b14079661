"""The resolved configuration: what all points have in common once, and of each point what it does not share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moesim.analysis.report.html import Html, join, tag

Path = tuple[str, ...]


def shown(resolved: Mapping[str, Any]) -> Html:
    """Settings in common, those that differ, and the digests of what was read; folded."""
    points = resolved["points"]
    experiments = [point["experiment"] for point in points]
    common, differing = split(experiments)
    several = f" ({len(differing)} settings differ, of {len(points)} configurations)" if differing else ""
    blocks = [_folded("All settings" + " in common" * bool(differing), tag("pre", tag("code", yaml(common))))]
    if differing:
        blocks.append(_folded(f"What differs{several}", _differences(points, experiments, differing)))
    blocks.append(_folded("Digests of what was read (sha256)", tag("pre", tag("code", yaml(resolved["inputs"])))))
    return join(*blocks)


def split(experiments: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[Path]]:
    """What all have in common, as one tree, and the paths of what they do not."""
    common: dict[str, Any] = {}
    differing: list[Path] = []
    for path, values in _leaves(experiments):
        if all(value == values[0] for value in values):
            at = common
            for key in path[:-1]:
                at = at.setdefault(key, {})
            at[path[-1]] = values[0]
        else:
            differing.append(path)
    return common, differing


def _leaves(trees: Sequence[Any], path: Path = ()) -> Iterator[tuple[Path, list[Any]]]:
    """Paths at which not every tree goes on; one that lacks the key has None there, as one that says null."""
    for key in dict.fromkeys(key for tree in trees for key in tree):
        values = [tree.get(key) for tree in trees]
        if all(isinstance(value, Mapping) and value for value in values):
            yield from _leaves(values, (*path, key))
        else:
            yield (*path, key), values


def _differences(points: Sequence[Mapping[str, Any]], experiments: Sequence[Any], differing: Sequence[Path]) -> Html:
    runs, first = [], 0
    for experiment in experiments:
        last = first + experiment["replications"] - 1
        runs.append(f"{first}" if last == first else f"{first}–{last}")
        first = last + 1
    case = any("case" in point["labels"] for point in points)
    heads = ["runs", *["case"] * case, *(".".join(path) for path in differing)]
    rows = []
    for point, run in zip(points, runs, strict=True):
        cells = [*[point["labels"].get("case", "")] * case, *(flow(_at(point["experiment"], p)) for p in differing)]
        rows.append(tag("tr", tag("th", run, scope="row"), *(tag("td", cell) for cell in cells)))
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in heads)))
    return tag("div", tag("table", head, tag("tbody", *rows), class_="settings"), class_="scroll")


def _at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _folded(title: str, content: Html) -> Html:
    return tag("details", tag("summary", title), content)


def yaml(value: Any) -> str:
    """As in a file."""
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def flow(value: Any) -> str:
    """On one line; nothing for null."""
    import yaml

    if value is None:
        return ""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=True)
    return text.removesuffix("\n").removesuffix("\n...")
