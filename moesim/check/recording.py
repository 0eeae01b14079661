"""Runs a small server and writes down what its policies decide, and when."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, TypeVar
from unittest.mock import patch

from moesim import policy
from moesim.check.toy import ToyCosts, run
from moesim.check.world import EXPERTS, LAYERS, Scripted, World, draw_world
from moesim.policy import CachePolicy, MissPolicy, Policy, PrefetchPolicy
from moesim.sim.scheduler import Scheduler
from moesim.sim.server import FreeServer
from moesim.sim.work import Part

WORLDS = 3  # for each check that runs servers
Guard = TypeVar("Guard", bound=Policy)
SIMULATE = import_module("moesim.sim.simulate")  # moesim.sim.simulate is the function
Instant = tuple[int, int]
"""step and layer; -1 before the first layer"""


@dataclass
class Run:
    """What a server decided, and when what became visible."""

    server: FreeServer | None = None
    decisions: list[tuple[Instant, str, Any]] = field(default_factory=list)
    step: int = -1

    def until(self, instant: Instant) -> list[tuple[Instant, str, Any]]:
        return [decision for decision in self.decisions if decision[0] <= instant]


@contextmanager
def recording(world: World, listen: Callable[[Policy, Run], Policy] | None = None) -> Iterator[Run]:
    """Runs within are of `world`, and what they decide is written down, by `listen` where it is given."""
    found = Run()
    make, form, init = policy.make, Scheduler.form, FreeServer.__init__
    listen = listen or _listen

    def new_form(self: Scheduler) -> tuple[Part, ...]:
        found.step += 1
        parts = form(self)
        found.decisions.append(((found.step, -1), "batch", parts))
        return parts

    def new_init(self: FreeServer, *args: Any) -> None:
        init(self, *args)
        found.server = self
        self.recording = True

    with (
        patch.object(SIMULATE, "_workload", lambda config, inputs, replication: Scripted(world, inputs.trace)),
        patch.object(policy, "make", lambda *args: listen(make(*args), found)),
        patch.object(Scheduler, "form", new_form),
        patch.object(FreeServer, "__init__", new_init),
    ):
        yield found


ANSWERS: dict[type[Policy], dict[str, Callable[..., Any]]] = {
    CachePolicy: {
        "victim": lambda key, barred: key,
        "admit": lambda admitted, key, prefetched: (key, admitted),
    },
    PrefetchPolicy: {
        "plan": lambda keys: tuple(keys),
        "cancel": lambda keys, moving: (tuple(moving), tuple(keys)),
    },
    MissPolicy: {"decide": lambda answers, missing: (tuple(missing), tuple(answers))},
}
"""methods that decide, and what is written down of an answer and what it answers"""


def _listen(made: Policy, found: Run) -> Policy:
    """Write down what a cache, prefetch or miss policy answers, at the instant that its view shows."""
    methods = next((methods for kind, methods in ANSWERS.items() if isinstance(made, kind)), {})
    views: list[Any] = []

    def begin(start: Callable[..., Any], *args: Any) -> None:
        views.append(args[-1])
        start(*args)

    def ask(name: str, method: Callable[..., Any], *args: Any) -> Any:
        answer = method(*args)
        found.decisions.append(((views[0].step, views[0].layer), name, methods[name](answer, *args)))
        return answer

    if methods:
        vars(made)["start"] = partial(begin, made.start)  # type: ignore[attr-defined]
    for name in methods:
        vars(made)[name] = partial(ask, name, getattr(made, name))
    return made


def observe(world: World, listen: Callable[[Policy, Run], Policy] | None = None, **policies: Any) -> Run:
    """Run a server on `world` with these policies: 2 slots a layer, up to 2 requests and 8 tokens a step."""
    batch = policies.pop("batch", "decode-first")
    kind = {"kind": "closed", "concurrency": world.users} if world.users else {"kind": "poisson", "rate": 1.0}
    with recording(world, listen) as found:
        run(
            world.trace(),
            layers=LAYERS,
            experts=EXPERTS,
            traffic={**kind, "requests": world.requests},
            scheduler={"batch": batch, "max_requests": 2, "max_tokens": 8},
            costs=ToyCosts(copy_submit=7, decision=3, router_ns=150, sample=11, cpu=400),
            **policies,
        )
    return found


def guarded(kind: type[Policy], guard: Callable[[Any], Guard], router: str, **policies: Any) -> list[Guard]:
    """Run servers on a few worlds, each policy of a kind behind the guard that is made for it; these guards."""
    found: list[Guard] = []

    def listen(made: Policy, seen: Run) -> Policy:
        if not isinstance(made, kind):
            return made
        found.append(guard(made))
        return found[-1]

    for number in range(WORLDS):
        observe(draw_world(random.Random(f"{number}/{router}"), router), listen, **policies)
    return found
