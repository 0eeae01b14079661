"""What a policy says of itself and the simulator believes: that it makes sense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moesim.policy.base import LEVELS, Policy

UNKNOWN = ("farthest", "persist")
DISTANCES = (1, 2, 3)
"""at which a trace has predictions of later layers"""


def wrong(made: Policy) -> list[str]:
    """What is wrong with the level, the costs and so on of a policy, all of it."""
    return [f"{name} {getattr(made, name)!r} must be {rule}" for name, holds, rule in _rules(made) if not holds]


def _rules(made: Policy) -> Iterator[tuple[str, bool, str]]:
    """(attribute, whether it is as it must be, how that is)"""
    yield "level", made.level in LEVELS, f"one of {', '.join(LEVELS)}"
    yield "unknown", made.unknown in UNKNOWN, " or ".join(UNKNOWN)
    yield "reach", made.level != "predicted" or made.reach in DISTANCES, "a distance in layers, 1 to 3"
    said: dict[str, Any] = {name: getattr(made, name) for name in ("cost_ns", "unpack_ns") if hasattr(made, name)}
    if "cost_ns" in said:
        holds = isinstance(said["cost_ns"], int) and not isinstance(said["cost_ns"], bool) and said["cost_ns"] >= 0
        yield "cost_ns", holds, "a whole number of ns, 0 or more"
    if "unpack_ns" in said:
        yield "unpack_ns", _number(said["unpack_ns"]) and said["unpack_ns"] >= 0, "a number of ns a byte, 0 or more"
    ratio = getattr(made, "small_ratio", None)
    yield "small_ratio", ratio is None or (_number(ratio) and 0 < ratio <= 1), "null or a share above 0, up to 1"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
