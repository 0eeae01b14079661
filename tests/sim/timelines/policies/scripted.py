from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import PrefetchPolicy, register


@register("scripted")
class Scripted(PrefetchPolicy):
    """In step `step`, the n-th answer is the n-th part of `plans` ("3 1 / 2": keys 3 and 1, then 2 for good).

    `cancels` is read in the same way. In other steps it asks for nothing.
    """

    def __init__(self, plans: str, cancels: str = "", step: int = 0, level: str = "history") -> None:
        self.plans, self.cancels = _keys(plans), _keys(cancels)
        self.step = step
        self.level = level
        self.asked = 0

    def cancel(self, moving: Sequence[int]) -> Sequence[int]:
        given_up = self._of(self.cancels)
        return [key for key in moving if key in given_up]

    def plan(self) -> Sequence[int]:
        answer = self._of(self.plans)
        self.asked += self.view.step == self.step
        return answer

    def _of(self, answers: list[list[int]]) -> list[int]:
        return answers[min(self.asked, len(answers) - 1)] if self.view.step == self.step else []


def _keys(text: str) -> list[list[int]]:
    return [[int(key) for key in part.split()] for part in text.split("/")]
