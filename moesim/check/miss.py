"""The contract of miss policies, checked on a small server while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moesim.check.broken import Calls, listed, require
from moesim.check.recording import guarded
from moesim.policy import Handling, Missing, MissPolicy, View

DECLARED = ("level", "unknown", "reach", "cost_ns", "uses_cpu", "small_ratio", "unpack_ns")  # what the engine reads


class CarefulMiss(MissPolicy):
    """Stands between engine and policy: checks every answer, and asks for it a second time."""

    def __init__(self, made: MissPolicy) -> None:
        self.made, self.calls, self.answers = made, Calls(), 0
        vars(self).update((name, getattr(made, name)) for name in DECLARED)

    def start(self, view: View) -> None:
        self.calls(self.made.start, view)
        self.made.view = view

    def decide(self, missing: Sequence[Missing]) -> Sequence[Handling]:
        found = self._decide(missing)
        require(self._decide(missing) == found, self.calls, f"asked twice, it answers {_words(found)}, then otherwise")
        self.answers += len(found)
        return found

    def _decide(self, missing: Sequence[Missing]) -> list[Handling]:
        found = listed(self.calls(self.made.decide, missing), self.calls, "answers")
        text = f"answered {_words(found)} for keys {', '.join(str(m.key) for m in missing)}"
        require(len(found) == len(missing), self.calls, f"{text}; one answer for each key is the rule")
        require(all(isinstance(answer, Handling) for answer in found), self.calls, f"{text}; answers are Handling")
        cpu, small = Handling.CPU in found and not self.made.uses_cpu, Handling.SMALL in found
        require(not cpu, self.calls, f"{text}; who answers CPU must say so with uses_cpu = True")
        declared = self.made.small_ratio is not None
        require(declared or not small, self.calls, f"{text}; who answers SMALL must have a small_ratio")
        return found


def _words(answers: Sequence[Any]) -> str:
    return ", ".join(answer.name if isinstance(answer, Handling) else repr(answer) for answer in answers) or "nothing"


def decisions(spec: dict[str, Any], router: str, **changes: Any) -> int:
    """Run servers whose miss policy is `spec`, books balanced after every step; how many answers it gave."""
    return sum(careful.answers for careful in guarded(MissPolicy, CarefulMiss, router, miss=spec, **changes))
