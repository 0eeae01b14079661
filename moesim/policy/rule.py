"""What some cache policies can say of themselves: the order in which their keys go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Rule:
    """The victim is, of the keys that may go, the one that is first by `by` and, among equals, has the oldest stamp.

    A policy class with such a `rule` (an attribute, or a property of its parameters) promises that its methods
    answer accordingly; the simulator may then run compiled code in its place. `by`: nothing; fewest `uses`, counted
    from the start of the run, here or not; or farthest `next_use` that its level shows, those more than `horizon` layer
    events ahead and unknown ones being equally far (None: no such limit). A key's stamp is its last `use` (a prefetch
    counts as one) or its last `insertion`. It holds for the class that declares it, not for those derived from it.
    """

    by: Literal["", "uses", "next_use"] = ""
    stamp: Literal["use", "insertion"] = "use"
    horizon: int | None = None


def rule_of(policy: object) -> Rule | None:
    """The rule that this policy's own class declares."""
    return getattr(policy, "rule", None) if "rule" in vars(type(policy)) else None
