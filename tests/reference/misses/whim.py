from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import Handling, LayerView, Missing, MissPolicy, register


@register("whim")
class Whim(MissPolicy):
    """Any of the four answers, by the key, the layer event and all that it is told of the key."""

    uses_cpu = True
    view: LayerView

    def __init__(self, ratio: float = 0.4, unpack_ns: float = 0.0, cost_ns: int = 0) -> None:
        self.small_ratio, self.unpack_ns, self.cost_ns = ratio, unpack_ns, cost_ns

    def decide(self, missing: Sequence[Missing]) -> Sequence[Handling]:
        return [self._of(m) for m in missing]

    def _of(self, m: Missing) -> Handling:
        told = (m.tokens, m.small, m.nbytes, m.free_bytes, m.copy_ns, m.queue_ns, m.cpu_ns)
        shares = (round(m.weight * 64), round(m.before * 64))
        number = 5 * m.key + 3 * self.view.event + sum(n * int(value or 0) for n, value in enumerate(told + shares, 1))
        return list(Handling)[number % 7 % 4]
