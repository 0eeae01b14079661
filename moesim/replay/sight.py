"""What a policy's view shows in an untimed replay, where each sequence runs alone.

No queue stands behind a request that runs alone, so that level `queue` shows what `step` shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.policy import FAR, CachePolicy, LayerView, View
from moesim.policy.view import FAR_VIEWS, NEAR_VIEWS, StepView
from moesim.replay.stream import Stream


class Sight:
    """A view of level `history` or `layer`, moved from event to event."""

    view: View

    def __init__(self, view: View, stream: Stream) -> None:
        self.view = view
        self._steps = stream.steps.tolist()
        self._layers = stream.layers.tolist()

    def enter(self, event: int, keys: Sequence[int]) -> None:
        """Layer event number `event` of the stream, which needs `keys`, is the present one."""
        self.view.step = self._steps[event]
        self.view.layer = self._layers[event]
        if isinstance(self.view, LayerView):
            self.view.current = keys


class FarSight(Sight):
    """A view that shows next uses: those of the present step, or with `whole` all of them.

    With `persist` a key that an output token uses is taken to be used again one step later. `uses` is what the view
    shows.
    """

    def __init__(self, view: StepView, uses: np.ndarray, stream: Stream, whole: bool, persist: bool) -> None:
        super().__init__(view, stream)
        self.far, self.uses = view, uses
        self.stream, self.whole = stream, whole
        number = stream.numbers
        self._after = _next_numbers(stream)
        if not whole:
            again = number + stream.layer_count if persist else np.full(stream.events, FAR)
            unseen = np.where(stream.output, again, FAR)[stream.event_of]
            this_step = self._after // stream.layer_count == stream.steps[stream.event_of]
            self._after = np.where(this_step, self._after, unseen)
        self._bounds = stream.bounds.tolist()
        self._ends = np.searchsorted(stream.steps, stream.steps, side="right").tolist()
        self._step = -1
        if whole:
            keys, first = stream.first_access
            self.uses[keys] = number[stream.event_of[first]]

    def enter(self, event: int, keys: Sequence[int]) -> None:
        super().enter(event, keys)
        if self.view.step != self._step:
            self._step = self.view.step
            self._show_step(event)
        self.uses[keys] = self._after[self._bounds[event] : self._bounds[event + 1]]

    def _show_step(self, event: int) -> None:
        """All that the pool's keys are needed for in the step; one that several layers use, by the first of them."""
        stream = self.stream
        first, last = self._bounds[event], self._bounds[self._ends[event]]
        upcoming: list[list[int]] = [[] for _ in range(stream.layer_count)]
        for ahead in range(event, self._ends[event]):
            upcoming[self._layers[ahead]] = stream.keys[self._bounds[ahead] : self._bounds[ahead + 1]].tolist()
        self.far.upcoming = upcoming
        if self.whole:
            return
        self.uses[:] = FAR
        self.uses[stream.keys[first:last][::-1]] = stream.numbers[stream.event_of[first:last]][::-1]


def sight_for(policy: CachePolicy, stream: Stream, experts: int, keys: int) -> Sight:
    """The view that the policy's level allows; `stream` has the events that this policy object will meet."""
    layers = stream.layer_count
    if policy.level in NEAR_VIEWS:
        return Sight(NEAR_VIEWS[policy.level](layers, experts), stream)
    uses = np.full(keys, FAR, dtype=np.int64)
    view = FAR_VIEWS[policy.level](layers, experts, uses)
    return FarSight(view, uses, stream, policy.level == "oracle", policy.unknown == "persist")


def _next_numbers(stream: Stream) -> np.ndarray:
    """int64 [accesses]: number of the event that uses the key next, FAR if none does."""
    following = stream.next_access
    never = following >= stream.accesses
    number = stream.numbers[stream.event_of]
    return np.where(never, FAR, number[np.where(never, 0, following)]) if len(number) else number
