from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import Handling, Missing, MissPolicy, register


@register("smaller-copy")
class SmallerCopy(MissPolicy):
    """A missing expert that its tokens weigh little is served by a smaller copy, or skipped (HOBBIT, arXiv 2411.01433).

    s is the share of gate weight that a token gives to experts it weighs more; of several tokens the least counts. Up
    to `t1` the expert is copied in full, up to `t2` as a smaller copy of `ratio` of its bytes, beyond that its tokens
    go without it. HOBBIT on Mixtral: 0.6 and 0.9, with 4 of 16 bits (`ratio` 0.25 and scales). `t1` null: no missing
    expert is copied in full, as where all of them are kept in few bits (QMoE, arXiv 2310.16795: `ratio` 0.05, and
    `unpack_ns` for each byte of the full expert whenever it is used). `t2` 1: nothing is skipped. Not here: D2MoE's
    copies that are completed bit by bit (arXiv 2504.15299), and a width of each expert's own (EdgeMoE, arXiv
    2308.14352), which are sizes of keys (`key_sizes` of the shape).

    Source: HOBBIT (2411.01433), its precision by gate weight (section not known); QMoE (2310.16795), its size alone
    (section not known).
    """

    cost = "O(k)"

    def __init__(
        self, ratio: float = 0.25, t1: float | None = 0.6, t2: float = 1.0, unpack_ns: float = 0.0
    ) -> None:
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio {ratio!r} must be a share of the expert's bytes, above 0, up to 1")
        if not 0 <= (t1 or 0) <= t2 <= 1:
            raise ValueError(f"t1 {t1!r} and t2 {t2!r} must be shares of gate weight, 0 to 1, t1 null or not above t2")
        if not 0 <= unpack_ns < 1e6:
            raise ValueError(f"unpack_ns {unpack_ns!r} must be a time for each byte, 0 or more")
        self.small_ratio = ratio
        self.t1, self.t2 = t1, t2
        self.unpack_ns = unpack_ns

    def decide(self, missing: Sequence[Missing]) -> Sequence[Handling]:
        return [self._of(m) for m in missing]

    def _of(self, missing: Missing) -> Handling:
        if self.t1 is not None and missing.before <= self.t1:
            return Handling.WAIT
        return Handling.SMALL if missing.before <= self.t2 else Handling.SKIP
