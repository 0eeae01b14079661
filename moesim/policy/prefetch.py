"""Parts that prefetchers share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.policy.cache import layer_of
from moesim.policy.view import LayerView, StepView


def soonest(view: StepView, until: int) -> list[int]:
    """Keys whose next use is shown and lies at layer event `until` at the latest, the soonest used first."""
    uses = view.next_uses
    near = np.flatnonzero(uses <= until)
    return near[np.argsort(uses[near], kind="stable")].tolist()


def outdated(view: LayerView, moving: Sequence[int]) -> list[int]:
    """Keys fetched for a layer that has come without needing them."""
    return [key for key in moving if layer_of(view, key) <= view.layer and key not in view.current]
