"""The contract of prefetch policies, checked on a small server while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moesim.check.broken import Calls, listed, require, whole
from moesim.check.recording import guarded
from moesim.check.world import EXPERTS, LAYERS
from moesim.policy import PrefetchPolicy, View

DECLARED = ("level", "unknown", "reach", "cost_ns")  # what a policy says of itself and the engine reads
SMALL = {"slots": 3, "scope": "global"}


class CarefulPrefetch(PrefetchPolicy):
    """Stands between engine and policy: checks every plan, and asks for it a second time."""

    def __init__(self, made: PrefetchPolicy) -> None:
        self.made, self.calls = made, Calls()
        vars(self).update((name, getattr(made, name)) for name in DECLARED if hasattr(made, name))
        self.plans = 0

    def start(self, view: View) -> None:
        self.calls(self.made.start, view)
        self.made.view = view

    def plan(self) -> Sequence[int]:
        keys = self._plan()
        require(self._plan() == keys, self.calls, f"asked twice at one instant, it plans {keys} and then another list")
        self.plans += bool(keys)
        return keys

    def _plan(self) -> list[int]:
        keys = listed(self.calls(self.made.plan), self.calls, "keys")
        for key in keys:
            require(_is_key(key), self.calls, f"planned {key!r}, which is no key of 0 to {LAYERS * EXPERTS - 1}")
        require(len(set(keys)) == len(keys), self.calls, f"planned {keys}, which names a key twice")
        return [int(key) for key in keys]

    def cancel(self, moving: Sequence[int]) -> Sequence[int]:
        keys = listed(self.calls(self.made.cancel, moving), self.calls, "keys")
        require(set(keys) <= set(moving), self.calls, f"gave up {keys}, and not all of them are under way")
        return keys


def _is_key(key: Any) -> bool:
    return whole(key) and bool(0 <= key < LAYERS * EXPERTS)


def plans(spec: dict[str, Any], router: str, **changes: Any) -> int:
    """Run servers whose prefetcher is `spec`, books balanced after every step; how many plans were not empty."""
    return sum(careful.plans for careful in guarded(PrefetchPolicy, CarefulPrefetch, router, prefetch=spec, **changes))
