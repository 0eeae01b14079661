"""A measured cost or link table as a person reads it: times, spreads, and how far interpolation is off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

UNITS = (("s", 1e9), ("ms", 1e6), ("us", 1e3), ("ns", 1.0))


def render(document: Mapping[str, Any]) -> str:
    """A line per component, or per direction of a link."""
    head = f"  {document['label']} on {document['device']}, {document.get('date', '')}"
    lines = _components(document) if "components" in document else _directions(document)
    return "\n".join([head, *lines])


def _components(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {'':18}{'least':>10}{'most':>10}{'spread':>9}  interpolation is off by (median, largest)"
    for name, component in {**document["components"], **document.get("variants", {})}.items():
        rows = list(_rows(component))
        off = component.get("left_out")
        text = f"{off['median']:.1%}, {off['largest']:.1%} at {off['worst']}" if off else "-"
        wide = _median([(high - low) / max(1, ns) for ns, low, high in rows])
        yield f"  {name:18}{time(min(r[0] for r in rows)):>10}{time(max(r[0] for r in rows)):>10}{wide:>9.0%}  {text}"
    host = ", ".join(f"{name} {time(ns)}" for name, ns in document["host_ns"].items())
    yield f"  host: {host}"


def _directions(document: Mapping[str, Any]) -> Iterator[str]:
    for name in ("pinned", "pageable", "to_host"):
        if speed := document.get(name):
            nbytes, ns = speed["points"][-1]
            first = speed["points"][0]
            off = speed.get("left_out", {}).get("median")
            text = "" if off is None else f"; interpolation is off by {off:.1%} (median)"
            yield f"  {name:9} {first[0]:,} bytes in {time(first[1])}, {nbytes:,} at {nbytes / ns:.2f} GB/s{text}"
    if both := document.get("both_ways"):
        yield f"  both ways: {both['to_device']} times as long to the device, {both['to_host']} to the host"
    if busy := document.get("while_computing"):
        yield f"  computing: copies take {busy['copy_to_device']} times as long, kernels {busy['kernel']} times"


def _rows(component: Mapping[str, Any]) -> Iterator[tuple[int, int, int]]:
    columns = [_flat(component["ns"]), _flat(component.get("p10")), _flat(component.get("p90"))]
    for at, ns in enumerate(columns[0]):
        yield ns, columns[1][at] if columns[1] else ns, columns[2][at] if columns[2] else ns


def _flat(values: Any) -> list[int]:
    if values is None:
        return []
    return [item for value in values for item in _flat(value)] if isinstance(values, list) else [values]


def _median(values: list[float]) -> float:
    ranked = sorted(values)
    return ranked[len(ranked) // 2]


def time(ns: float) -> str:
    """`1.23 ms`."""
    unit, scale = next(((unit, scale) for unit, scale in UNITS if ns >= scale), UNITS[-1])
    return f"{ns / scale:.3g} {unit}"
