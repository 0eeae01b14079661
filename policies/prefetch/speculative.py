from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import PredictedView, PrefetchPolicy, register


@register("speculative")
class Speculative(PrefetchPolicy):
    """Copy what the next gates make of the present state: `distance` layers, nearest first, most votes first.

    Of each token the `k + width` likeliest experts of a layer. With `cancel`, what is under way for a layer is given up
    once that layer's gate did not choose it. `latency_ns` is what predicting costs the host each time it is asked.
    Mixtral-offloading (arXiv 2312.17238, 3.2) and AdapMoE (arXiv 2408.10284): distance 1, `width` 0; the latter copies
    only one guess at a time, which this does not. Fate (arXiv 2502.12224): distance 1, `width` as many experts as the
    link carries beside a layer's compute. HOBBIT (arXiv 2411.01433): distance up to 3.

    Source: Mixtral-offloading (2312.17238), section 3.2; AdapMoE (2408.10284), its code (section not known); Fate
    (2502.12224), from notes (section not known); HOBBIT (2411.01433), its stacked gates (section not known).
    """

    cost = "O(tokens * places)"
    level = "predicted"
    view: PredictedView

    def __init__(self, distance: int = 1, width: int = 0, cancel: bool = True, latency_ns: int = 0) -> None:
        if type(distance) is not int or not 1 <= distance <= 3:
            raise ValueError(f"distance {distance!r} must be 1, 2 or 3 layers")
        if width < 0:
            raise ValueError(f"width {width!r} must be 0 or more experts beyond those that a token uses")
        if isinstance(latency_ns, bool) or not isinstance(latency_ns, int) or latency_ns < 0:
            raise ValueError(f"latency_ns {latency_ns!r} must be a whole number of nanoseconds, 0 or more")
        self.reach = distance
        self.width = width
        self.gives_up = cancel
        self.cost_ns = latency_ns
        self.due: dict[int, int] = {}
        """the latest layer event for which a key was planned"""

    def plan(self) -> Sequence[int]:
        view, places = self.view, self.view.k + self.width
        for ahead in range(1, self.reach + 1):
            self.due.update((key, view.event + ahead) for key, _ in view.predicted(ahead, places))
        return list(dict.fromkeys(key for d in range(1, self.reach + 1) for key, _ in view.predicted(d, places)))

    def cancel(self, moving: Sequence[int]) -> Sequence[int]:
        # What the gate did choose is no prefetch any more: it was demanded.
        return [key for key in moving if self.due[key] <= self.view.event] if self.gives_up else ()
