"""Every policy passes the scramble test at its level; a planted cheat of every level and kind fails it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from moesim.check.drive import Variant, label, variants
from moesim.check.scramble import differences, draw_world, observe, scrambled
from moesim.policy import Policy, find, register, registry
from moesim.sim.server import Server
from moesim.sim.users import Users
from moesim.sim.work import Work
from tests.sim import cheats

ROUTERS = ("decoupled", "layerwise")
KNOWING = ("history", "layer", "step", "queue")
"""levels that a decoupled router can serve, but for the oracle"""


def spec(variant: Variant) -> dict[str, Any]:
    return {"name": variant[0], **variant[1]}


def level_of(kind: str, variant: Variant) -> str:
    made = find(kind, variant[0])(**variant[1])
    assert isinstance(made, Policy)
    return made.level


def of_level(kind: str, *levels: str) -> list[Variant]:
    return [v for v in variants(kind) if level_of(kind, v) in levels]


@pytest.mark.parametrize("variant", of_level("cache", *KNOWING), ids=label)
def test_caches_know_what_their_level_shows(variant: Variant) -> None:
    assert differences(level_of("cache", variant), cache=spec(variant)) == []


@pytest.mark.parametrize("variant", of_level("cache", "history", "layer", "predicted"), ids=label)
def test_caches_behind_a_layerwise_router(variant: Variant) -> None:
    assert differences(level_of("cache", variant), router="layerwise", cache=spec(variant)) == []


@pytest.mark.parametrize("variant", of_level("cache", "history", "layer"), ids=label)
def test_caches_where_routes_are_revealed_at_each_gate(variant: Variant) -> None:
    assert differences(level_of("cache", variant), router="at-gate", cache=spec(variant)) == []


@pytest.mark.parametrize("variant", of_level("prefetch", "history", "layer"), ids=label)
def test_prefetchers_where_routes_are_revealed_at_each_gate(variant: Variant) -> None:
    rest = {"memory": {"slots": 3, "scope": "global"}, "machine": {"chunk_bytes": 300}}
    assert differences(level_of("prefetch", variant), router="at-gate", prefetch=spec(variant), **rest) == []


@pytest.mark.parametrize("variant", of_level("cache", *KNOWING), ids=label)
def test_caches_on_a_frozen_schedule(variant: Variant) -> None:
    assert differences(level_of("cache", variant), cache=spec(variant), schedule="frozen") == []


@pytest.mark.parametrize("variant", of_level("cache", *KNOWING), ids=label)
def test_caches_that_may_be_bypassed(variant: Variant) -> None:
    memory = {"slots": 1, "staging": 2, "scope": "global"}
    assert differences(level_of("cache", variant), cache=spec(variant), memory=memory) == []


@pytest.mark.parametrize("batch", ["prefill-first", "expert-aware", "expert-aware-aged"])
@pytest.mark.parametrize("variant", of_level("cache", "queue"), ids=label)
def test_caches_that_roll_a_batcher_forward(variant: Variant, batch: str) -> None:
    assert differences("queue", cache=spec(variant), batch=batch) == []


@pytest.mark.parametrize("router", ["critical", "side"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_caches_beside_a_prefetcher(scope: str, router: str) -> None:
    for level in ("step", "queue"):
        cache = {"name": "lookahead", "level": level, "unknown": "persist"}
        rest = {"memory": {"slots": 2, "scope": scope}, "machine": {"router": router, "chunk_bytes": 300}}
        assert differences(level, cache=cache, prefetch="step-ahead", **rest) == []


@pytest.mark.parametrize("variant", of_level("prefetch", *KNOWING), ids=label)
def test_prefetchers_know_what_their_level_shows(variant: Variant) -> None:
    assert differences(level_of("prefetch", variant), prefetch=spec(variant)) == []


@pytest.mark.parametrize("variant", of_level("prefetch", "history", "layer", "predicted"), ids=label)
def test_prefetchers_behind_a_layerwise_router(variant: Variant) -> None:
    rest = {"memory": {"slots": 3, "scope": "global"}, "machine": {"chunk_bytes": 300}}
    assert differences(level_of("prefetch", variant), router="layerwise", prefetch=spec(variant), **rest) == []


@pytest.mark.parametrize("name", sorted({name for name, _ in of_level("cache", "history")}))
def test_caches_beside_a_prefetcher_that_guesses(name: str) -> None:
    rest = {"memory": {"slots": 2, "scope": "global"}, "machine": {"chunk_bytes": 300}}
    assert differences("layer", router="layerwise", worlds=2, cache=name, prefetch="edgemoe", **rest) == []


@pytest.mark.parametrize("variant", of_level("prefetch", "predicted"), ids=label)
def test_prefetchers_that_give_up_copies(variant: Variant) -> None:
    """Chunks so small that a gate finds a copy of a wrong guess half done."""
    rest = {"machine": {"chunk_bytes": 100}, "memory": {"slots": 2, "scope": "global"}}
    assert differences("predicted", router="layerwise", prefetch=spec(variant), **rest) == []


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("variant", variants("miss"), ids=label)
def test_miss_policies_know_what_their_level_shows(variant: Variant, router: str) -> None:
    prefetch = "speculative" if router == "layerwise" else "step-ahead"
    for beside in ("none", prefetch):
        assert differences("step" if beside == "step-ahead" else "predicted" if beside == prefetch else "layer",
                           router=router, miss=spec(variant), prefetch=beside) == []  # fmt: skip


@pytest.mark.parametrize("variant", of_level("batch", *KNOWING), ids=label)
def test_batchers_know_what_their_level_shows(variant: Variant) -> None:
    assert differences(level_of("batch", variant), batch=spec(variant)) == []


@pytest.mark.parametrize("variant", of_level("batch", "history", "layer"), ids=label)
def test_batchers_before_a_layerwise_router(variant: Variant) -> None:
    assert differences(level_of("batch", variant), router="layerwise", batch=spec(variant)) == []


@pytest.mark.parametrize("variant", of_level("prefetch", *KNOWING), ids=label)
def test_prefetchers_on_a_frozen_schedule(variant: Variant) -> None:
    assert differences(level_of("prefetch", variant), prefetch=spec(variant), schedule="frozen") == []


@pytest.mark.parametrize("schedule", ["free", "frozen"])
@pytest.mark.parametrize("preempt", ["recompute", "swap"])
def test_where_kv_memory_is_short(preempt: str, schedule: str) -> None:
    """Who is let in and who is preempted depends on nothing that is not there yet, and hides nothing that was."""
    memory = {"slots": 2, "kv": {"blocks": 8, "block_tokens": 2, "watermark": 0.0, "preempt": preempt}}
    rest = {"memory": memory, "schedule": schedule}
    for level in ("step", "queue"):
        cache = {"name": "lookahead", "level": level, "unknown": "persist"}
        assert differences(level, cache=cache, prefetch="step-ahead", **rest) == []
    for batch in ("first-come", "prefill-first", "chunked-prefill"):
        assert differences("history", batch=batch, **rest) == []
    servers = [observe(draw_world(random.Random(f"{n}/decoupled"), "decoupled"), **rest).server for n in range(4)]
    assert sum(r.preemptions for server in servers if server for r in server.workload.requests) > 0


# ---- the test itself: whoever looks where its level does not is found, and nobody else

KINDS: dict[str, Any] = {
    "cache": cheats.SecretCache,
    "prefetch": cheats.SecretPrefetch,
    "miss": cheats.SecretMiss,
    "batch": cheats.SecretBatch,
}


def plant(monkeypatch: pytest.MonkeyPatch, kind: str, level: str, secret: cheats.Secret) -> None:
    """Make a policy known as `planted` that says it is of `level` and decides by `secret`."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    register("planted")(type("Planted", (KINDS[kind],), {"level": level, "secret": staticmethod(secret)}))


UNKNOWN = (
    cheats.second_token_of_the_waiting,
    cheats.tokens_still_to_come,
    cheats.next_arrival,
    cheats.prompts_that_have_not_come,
)
RUNNING = (cheats.next_token_of_the_running, *UNKNOWN)
CHEATS = [
    *(("cache", level, "decoupled", secret) for level in ("history", "layer", "step", "queue") for secret in RUNNING),
    *(("cache", level, "decoupled", cheats.routes_in_the_queue) for level in ("history", "layer", "step")),
    *(("cache", level, "layerwise", cheats.rest_of_the_step) for level in ("history", "layer")),
    *(("cache", level, "layerwise", secret) for level in ("history", "layer") for secret in RUNNING),
    *(("prefetch", level, "decoupled", secret) for level in ("step", "queue") for secret in RUNNING),
    *(("prefetch", level, "decoupled", cheats.routes_in_the_queue) for level in ("history", "step")),
    *(("batch", level, "decoupled", secret) for level in ("history", "queue") for secret in UNKNOWN),
    *(
        (kind, "predicted", "layerwise", secret)
        for kind in ("cache", "prefetch")
        for secret in (*RUNNING, cheats.rest_of_the_step, cheats.predictions_of_the_next_gate)
    ),
    *(("cache", level, "layerwise", cheats.predictions_of_the_next_gate) for level in ("history", "layer")),
    *(("miss", "layer", router, secret) for router in ROUTERS for secret in RUNNING),
    ("miss", "layer", "decoupled", cheats.routes_in_the_queue),
    ("miss", "layer", "layerwise", cheats.rest_of_the_step),
    ("batch", "history", "decoupled", cheats.routes_in_the_queue),
    *(("cache", level, "at-gate", secret) for level in ("history", "layer") for secret in RUNNING),
    *(("prefetch", "layer", "at-gate", secret) for secret in (*RUNNING, cheats.keys_before_the_first_gate)),
    *(("batch", "history", "at-gate", secret) for secret in UNKNOWN),
    *(("batch", "history", "layerwise", secret) for secret in UNKNOWN),
]


@pytest.mark.parametrize(("kind", "level", "router", "secret"), CHEATS)
def test_a_cheat_is_found(
    monkeypatch: pytest.MonkeyPatch, kind: str, level: str, router: str, secret: cheats.Secret
) -> None:
    plant(monkeypatch, kind, level, secret)
    assert differences(level, router=router, **{kind: "planted"})


HONEST = [
    *(("cache", level, router, cheats.steps) for level in ("history", "layer") for router in ROUTERS),
    *(("cache", "layer", router, cheats.keys_of_the_event) for router in (*ROUTERS, "at-gate")),
    *(("miss", "layer", router, cheats.keys_of_the_event) for router in ROUTERS),
    *((kind, "predicted", "layerwise", cheats.keys_of_the_event) for kind in ("cache", "prefetch")),
    *((kind, "predicted", "layerwise", cheats.shown_predictions) for kind in ("cache", "prefetch")),
    *((kind, "step", "decoupled", cheats.keys_of_the_step) for kind in ("cache", "prefetch")),
    *((kind, level, "decoupled", cheats.shown_uses) for kind in ("cache", "prefetch") for level in ("step", "queue")),
    *(("cache", "queue", "decoupled", secret) for secret in (cheats.routes_in_the_queue, cheats.keys_of_the_step)),
    *(("batch", "history", router, cheats.lengths) for router in ROUTERS),
    ("batch", "queue", "decoupled", cheats.experts),
]


@pytest.mark.parametrize(("kind", "level", "router", "secret"), HONEST)
def test_who_keeps_to_its_level_is_not_taken_for_a_cheat(
    monkeypatch: pytest.MonkeyPatch, kind: str, level: str, router: str, secret: cheats.Secret
) -> None:
    plant(monkeypatch, kind, level, secret)
    assert differences(level, router=router, **{kind: "planted"}) == []


@pytest.mark.parametrize(
    ("kind", "name", "params", "level", "below"),
    [
        ("cache", "lookahead", {"level": "queue"}, "queue", "step"),
        ("cache", "lookahead", {"level": "oracle"}, "oracle", "queue"),
        ("prefetch", "step-ahead", {}, "step", "history"),
        ("batch", "expert-aware", {}, "queue", "history"),
    ],
)
def test_an_honest_policy_does_not_pass_below_its_level(
    kind: str, name: str, params: dict[str, Any], level: str, below: str
) -> None:
    """But a cache of level `step` passes as `history`: its first gate shows what a decoupled router does in a step."""
    assert level_of(kind, (name, params)) == level
    assert differences(below, worlds=8, **{kind: {"name": name, **params}})


@pytest.mark.parametrize("below", ["history", "layer"])
def test_who_reads_predictions_does_not_pass_below_their_level(below: str) -> None:
    assert level_of("prefetch", ("speculative", {})) == "predicted"
    assert differences(below, router="layerwise", worlds=8, prefetch="speculative")


@pytest.mark.parametrize("below", ["history", "step", "queue"])
def test_an_oracle_is_found_out_on_a_frozen_schedule(below: str) -> None:
    assert differences(below, worlds=8, cache={"name": "lookahead", "level": "oracle"}, schedule="frozen")


@pytest.mark.parametrize("router", ROUTERS)
def test_to_be_told_early_that_a_request_ends_is_to_know_too_much(
    monkeypatch: pytest.MonkeyPatch, router: str
) -> None:
    """The step that makes its last token is not over, and only the future can say that it is the last."""
    run_step, told = Server.run_step, Users.ended

    def hasty(server: Server, step: int, work: Work, *rest: Any) -> int:
        if server.setup.engine.users is not None:
            yielding, _ = server.sampling(work.parts)
            told(server.setup.engine.users, [r.number for r in yielding if r.produced + 1 == r.output])
        return run_step(server, step, work, *rest)

    assert differences("history", router=router, cache="lfu-per-sequence") == []
    monkeypatch.setattr(Server, "run_step", hasty)
    monkeypatch.setattr(Users, "ended", lambda self, requests: None)
    assert differences("history", router=router, worlds=12, cache="lfu-per-sequence")


@pytest.mark.parametrize("router", ROUTERS)
def test_worlds_are_worth_scrambling(router: str) -> None:
    """Servers decide often, and most of what is scrambled is drawn anew indeed."""
    victims = changed = 0
    for number in range(8):
        rng = random.Random(number)
        world = draw_world(rng, router)
        seen = observe(world)
        victims += sum(what == "victim" for _, what, _ in seen.decisions)
        other = scrambled(world, seen, (seen.step // 2, 0), "history", rng)
        changed += other.trace().experts.tolist() != world.trace().experts.tolist()
    assert victims > 200
    assert changed == 8
