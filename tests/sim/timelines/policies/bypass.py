from __future__ import annotations

from collections.abc import Container, Sequence

from moesim.policy import CachePolicy, Pool, View, register


@register("bypass")
class Bypass(CachePolicy):
    """First in, first out; the keys named in `around` ("1 2") go past the cache."""

    def __init__(self, around: str) -> None:
        self.around = {int(key) for key in around.split()}

    def start(self, pool: Pool, view: View) -> None:
        self.order: dict[int, None] = {}

    def used(self, keys: Sequence[int]) -> None:
        """Does not matter here."""

    def admit(self, key: int, prefetched: bool) -> bool:
        return key not in self.around

    def inserted(self, key: int, prefetched: bool) -> None:
        self.order[key] = None

    def evicted(self, key: int) -> None:
        del self.order[key]

    def victim(self, barred: Container[int]) -> int | None:
        return next((key for key in self.order if key not in barred), None)
