"""Which requests use the keys of a layer event, for cache policies that want to know."""

from __future__ import annotations

from collections.abc import Sequence

from moesim.hardware.keys import Keys
from moesim.policy import CachePolicy
from moesim.policy.cache import wants_users
from moesim.sim.rows import StepRows


class Users:
    """Whom a key serves, for the policies that define `used_by`; and tells them, and nobody else, who has ended."""

    def __init__(self, step: StepRows, keys: Keys, policies: Sequence[CachePolicy]) -> None:
        self._step, self._keys = step, keys
        self._policies = [policy for policy in policies if wants_users(policy)]

    def of(self, layer: int) -> dict[int, list[int]]:
        """By key of the layer: numbers of the requests whose tokens use it, in the order of the step."""
        experts, row = self._step.trace.experts, self._keys.table[layer]
        chosen = experts[self._step.rows, layer if experts.shape[1] > 1 else 0]
        found: dict[int, dict[int, None]] = {}
        first = 0
        for part in self._step.parts:
            for expert in chosen[first : first + part.tokens].ravel().tolist():
                if expert >= 0:
                    found.setdefault(row[expert], {})[part.request] = None
            first += part.tokens
        return {key: list(requests) for key, requests in found.items()}

    def ended(self, requests: Sequence[int]) -> None:
        """These requests have got their last token."""
        for policy in self._policies if requests else ():
            policy.ended(requests)
