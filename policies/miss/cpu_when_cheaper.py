from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import Handling, Missing, MissPolicy, register


@register("cpu-when-cheaper")
class CpuWhenCheaper(MissPolicy):
    """A missing expert is computed by the CPU where that is cheaper than copying it (Fiddler, arXiv 2402.07033).

    `rule: sum` is what Fiddler's code does: it minimises the sum of all times, so that each expert goes by itself, to
    the CPU if that takes less than its copy. `rule: max` is what its comment says: CPU and link work side by side, and
    the later of the two is to end as early as it can; what the link has to carry first counts. Times are those of the
    cost table, not Fiddler's constants of 7 and 70. Fiddler puts the most popular experts on the GPU beforehand, and
    they stay. Here, with `fill`, what still fits is copied whatever it takes, so that an empty cache fills with those
    that come first; without it a cache stays as empty as it is while the CPU is cheaper.

    Source: Fiddler (2402.07033), its code and the comment in it (code, no section).
    """

    cost = "O(k log k)"
    uses_cpu = True

    def __init__(self, rule: str = "sum", fill: bool = True) -> None:
        if rule not in ("sum", "max"):
            raise ValueError(f"rule {rule!r} must be sum or max")
        self.rule = rule
        self.fill = fill

    def decide(self, missing: Sequence[Missing]) -> Sequence[Handling]:
        left = missing[_fitting(missing) :] if self.fill else missing
        if self.rule == "sum":
            chosen = {m.key for m in left if _cpu(m) < m.copy_ns}
        else:
            chosen = _balanced(left)
        return [Handling.CPU if m.key in chosen else Handling.WAIT for m in missing]


def _fitting(missing: Sequence[Missing]) -> int:
    """How many of the first keys fit into what is free."""
    free = missing[0].free_bytes
    for number, m in enumerate(missing):
        free -= m.nbytes
        if free < 0:
            return number
    return len(missing)


def _cpu(missing: Missing) -> int:
    assert missing.cpu_ns is not None
    return missing.cpu_ns


def _balanced(missing: Sequence[Missing]) -> set[int]:
    """Keys for the CPU, cheapest first against their copy, as many as make the later of CPU and link end soonest.

    Best of all choices where copies are equal; the fewest keys of choices that are as good.
    """
    order = sorted(missing, key=lambda m: (_cpu(m) / m.copy_ns, m.key))
    cpu, link = 0, sum(m.copy_ns for m in missing)
    best, count = link + (order[0].queue_ns if order else 0), 0
    for number, m in enumerate(order, 1):
        cpu, link = cpu + _cpu(m), link - m.copy_ns
        latest = max(cpu, link + m.queue_ns if link else 0)
        if latest < best:
            best, count = latest, number
    return {m.key for m in order[:count]}
