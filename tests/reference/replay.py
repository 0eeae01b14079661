"""The server of the reference on a frozen schedule (docs/model.md, "Requests and steps")."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from moesim.experiment import Experiment
from tests.reference.free import FreeServer
from tests.reference.server import Frame, Parts, Run, Server
from tests.reference.sight import Use


class ReplayServer(Server):
    """Replays recorded steps in their order, each as soon as the one before it and its requests allow."""

    def __init__(self, config: Experiment, inputs: Any, frames: Sequence[Frame], replication: int = 0) -> None:
        super().__init__(config, inputs, replication=replication)
        self.frames = frames

    def _over(self, number: int) -> bool:
        return number == len(self.frames)

    def _ready(self, number: int) -> bool:
        if number == len(self.frames):
            return False
        frame = self.frames[number]
        lacking = {request for request, tokens in frame.goals.items() if tokens > self.known.get(request, 0)}
        self.machine.count["waits for one that is preempted"] += bool(lacking) and lacking <= frame.moved.goals.keys()
        return not lacking

    def _form(self, number: int) -> Frame:
        frame = self.frames[number]
        self.goal |= frame.goals
        return frame

    def _follow(self, number: int, finished: int) -> None:
        for request in self.frames[number].brought:
            self._arrive(self.workload[request])

    def _beyond(self, kind: tuple[str, str], number: int, parts: Parts) -> list[Use]:
        level, unknown = kind
        if level == "oracle":
            coming = enumerate(self.frames[number + 1 :], number + 1)
            return [use for step, frame in coming for use in self._uses(step, frame.parts)]
        if level == "queue":
            return self._foreseen(number, parts, self.frames[number].queue, unknown)
        return self._keeping(number, parts) if unknown == "persist" else []


def serve(config: Experiment, inputs: Any, replication: int = 0) -> Run:
    """Run one replication, free or frozen."""
    if config.schedule == "free":
        return FreeServer(config, inputs, replication=replication).run()
    ahead = inputs.trace.ahead  # the steps are those of the server that knows its routes
    known = inputs if ahead is None else dataclasses.replace(inputs, trace=ahead)
    recording = FreeServer(config, known, resident=True, replication=replication)
    recording.run()
    return ReplayServer(config, inputs, recording.frames, replication).run()
