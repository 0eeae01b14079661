from __future__ import annotations

from collections.abc import Container, Sequence

from moesim.policy import CachePolicy, Pool, View, find, register


@register("min")
class MIN(CachePolicy):
    """Evict the key used farthest ahead in the whole future and, with `bypass`, keep out keys used later than it.

    Belady's MIN at level `oracle`: an upper bound under a frozen schedule, and what Belady would do in a free one. With
    `bypass`, a key is admitted if there is room for it, or if its next use is sooner than that of the farthest key that
    may leave for it. Keys of the present layer event count only if there are no others, as they are evicted last.
    Bypassing takes staging slots; where there are none, nobody asks `admit`, and this is `lookahead` at level `oracle`.

    Source: Belady, IBM Systems Journal 5(2), 1966, the algorithm called MIN (section not known); Mattson et al., IBM
    Systems Journal 9(2), 1970, OPT (section not known); Tanenbaum and Bos, Modern Operating Systems, 4th edition,
    section 3.4.1.
    """

    cost = "O(n)"
    level = "oracle"

    def __init__(self, bypass: bool = True) -> None:
        if not isinstance(bypass, bool):
            raise ValueError(f"bypass {bypass!r} must be true or false")
        self.bypass = bypass

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        self.inner: CachePolicy = find("cache", "lookahead")(level="oracle")  # type: ignore[assignment]
        self.inner.start(pool, view)
        self.held = 0
        self.event: Sequence[int] = ()

    def used(self, keys: Sequence[int]) -> None:
        if len(keys) > 1 or keys[0] not in self.event:  # else it was pushed out in its event, and is used again
            self.event = keys
        self.inner.used(keys)

    def inserted(self, key: int, prefetched: bool) -> None:
        self.held += self.pool.sizes[key]
        self.inner.inserted(key, prefetched)

    def evicted(self, key: int) -> None:
        self.held -= self.pool.sizes[key]
        self.inner.evicted(key)

    def victim(self, barred: Container[int]) -> int | None:
        return self.inner.victim(barred)

    def admit(self, key: int, prefetched: bool) -> bool:
        if not self.bypass or self.held + self.pool.sizes[key] <= self.pool.capacity:
            return True
        farthest = self.inner.victim(self.event)
        if farthest is None:
            farthest = self.inner.victim(())
        uses = self.view.next_uses  # type: ignore[attr-defined]
        return farthest is None or bool(uses[key] < uses[farthest])
