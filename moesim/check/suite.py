"""Every check of a kind run on one policy: contract first, then what it knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from moesim import policy
from moesim.check import batch, cache, miss, prefetch
from moesim.check.broken import Broken, where
from moesim.check.limit import SECONDS, TooLong, limited
from moesim.check.scramble import differences
from moesim.errors import InputError, Problem
from moesim.experiment import PolicySpec
from moesim.policy import LEVELS, BatchPolicy, CachePolicy, Policy
from moesim.policy.catalogue import source
from moesim.policy.registry import levels
from moesim.policy.rule import rule_of
from moesim.trace.reveal import AT_GATE

BYPASS = {"slots": 1, "staging": 2, "scope": "global"}
CHUNKS = {"chunk_bytes": 300}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check of a policy at one level. `text` says what happened where it failed, or why it was left out."""

    level: str
    check: str
    status: str
    """pass, fail or skip"""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """What is asked of a policy, and how; `run` raises where it fails."""

    name: str
    run: Callable[[], object]


def outcomes(
    kind: str, spec: PolicySpec, base: Path | str = ".", seconds: float = SECONDS
) -> Iterator[Outcome]:
    """Run every check on a policy, at each level that it takes unless `spec` says which. InputError if it is none.

    A check that takes longer than so many `seconds` has failed.
    """
    cls = policy.find(kind, spec.name, base)
    if kind not in CONTRACTS:
        raise InputError(Problem("", f"there are checks of {', '.join(CONTRACTS)} policies, none of {kind}"))
    yield from _documented(cls)
    given = "level" in policy.parameters(cls) and "level" not in spec.params
    for level in levels(cls) if given else [policy.make(kind, spec, base).level]:
        params = spec.params | {"level": level} if given else spec.params
        named = PolicySpec(name=_located(spec.name, base), params=params)
        keeps = True
        for check in CONTRACTS[kind](named, level):
            outcome = _outcome(level, check, seconds)
            keeps &= outcome.status == "pass"
            yield outcome
        if keeps:
            yield from _knowledge(kind, named, level, seconds)
        else:
            yield Outcome(level, _knows(level), "skip", "it breaks the contract, so that no server can run with it")


def _located(name: str, base: Path | str) -> str:
    return str(Path(base, name)) if name.endswith(".py") else name


def _documented(cls: type[Policy]) -> Iterator[Outcome]:
    missing = [name for name, said in (("source", source(cls)), ("cost", cls.cost)) if not said]
    if not (cls.__doc__ or "").strip():
        missing.insert(0, "a docstring")
    status = "fail" if missing else "pass"
    text = f"it lacks {', '.join(missing)}, which the list of policies shows" if missing else ""
    yield Outcome("", "says what it does, where its rule comes from and what it costs", status, text)


def _outcome(level: str, check: Check, seconds: float) -> Outcome:
    try:
        with limited(seconds):
            check.run()
    except (Broken, TooLong) as error:
        return Outcome(level, check.name, "fail", str(error))
    except Exception as error:
        return Outcome(level, check.name, "fail", f"raised {error!r}{where(error)}")
    return Outcome(level, check.name, "pass")


def _cache(spec: PolicySpec, level: str) -> list[Check]:
    def make() -> CachePolicy:
        made = policy.make("cache", spec)
        assert isinstance(made, CachePolicy)
        return made

    def all_slots(check: Callable[..., object], *slots: int) -> None:
        for number in slots:
            check(make, number)

    ruled = [Check("answers by the rule that it declares", partial(cache.keeps_its_rule, make))]
    return [
        Check("names a key that is there and may go, if there is one", partial(all_slots, cache.victims, 1, 3, 6, 11)),
        Check("does so with keys of unequal sizes", partial(cache.unequal_sizes, make)),
        Check("does so in a large pool", partial(cache.large_pool, make)),
        Check("does so in a pool of several layers", partial(all_slots, cache.layers, 2, 6, 9)),
        Check("names none where nothing may go", partial(cache.nothing_may_go, make)),
        Check("changes nothing when it is asked", partial(cache.asking_changes_nothing, make)),
        Check("answers equal calls equally", partial(cache.equal_drives, make)),
        Check("keeps its memory flat", partial(all_slots, cache.memory, 5, 12)),
        *(ruled if rule_of(make()) is not None else ()),
    ]


def _in_servers(what: str, check: Callable[..., int], spec: PolicySpec, level: str) -> list[Check]:
    """A check that runs servers: with either router that the level allows, each with a small cache as well."""
    plain = _plain(spec)
    small: dict[str, Any] = {"memory": prefetch.SMALL, "machine": CHUNKS}
    return [
        Check(f"{what} ({router} router{text})", run)
        for router in _routers(level)
        for text, run in (
            ("", partial(check, plain, router)),
            (", small cache", partial(check, plain, router, **small)),
        )
    ]


def _prefetch(spec: PolicySpec, level: str) -> list[Check]:
    return _in_servers("plans keys of the model once, the same when asked twice", prefetch.plans, spec, level)


def _batch(spec: PolicySpec, level: str) -> list[Check]:
    def make() -> BatchPolicy:
        made = policy.make("batch", spec)
        assert isinstance(made, BatchPolicy)
        return made

    return [
        Check(f"{text} ({router} router)", lambda run=run, router=router: run(make(), router))  # type: ignore[misc]
        for router in _routers(level)
        for text, run in (
            ("keeps to the limits, to known tokens and to a pure function of the queue", batch.forms),
            ("serves all that waits where nothing more comes", batch.drains),
        )
    ]


def _miss(spec: PolicySpec, level: str) -> list[Check]:
    return _in_servers("answers for each missing key, the same when asked twice", miss.decisions, spec, level)


CONTRACTS: dict[str, Callable[[PolicySpec, str], list[Check]]] = {
    "cache": _cache,
    "prefetch": _prefetch,
    "batch": _batch,
    "miss": _miss,
}


def _routers(level: str) -> list[str]:
    """The routers on which a policy of this level can run."""
    if level in ("history", "layer"):
        return ["decoupled", "layerwise"]
    return ["layerwise"] if level == "predicted" else ["decoupled"]


def _knowledge(kind: str, spec: PolicySpec, level: str, seconds: float) -> Iterator[Outcome]:
    """The scramble test in several settings."""
    name = _knows(level)
    if level == LEVELS[-1]:
        yield Outcome(level, name, "skip", "an oracle knows everything, and is marked in every table")
        return
    plain = _plain(spec)
    settings: list[tuple[str, dict[str, Any]]] = [(f"{r} router", {"router": r}) for r in _routers(level)]
    first = _routers(level)[0]
    if level in ("history", "layer"):
        settings.append(("routes revealed at each gate", {"router": AT_GATE}))
    if kind != "batch":  # what a batcher decides is recorded, and the rest replays it
        settings.append(("frozen schedule", {"router": first, "schedule": "frozen"}))
    if kind == "cache":
        settings.append(("keys may bypass the cache", {"router": first, "memory": BYPASS}))
    if kind == "cache" and level in ("history", "layer"):
        guess = {"prefetch": "edgemoe", "memory": prefetch.SMALL, "machine": CHUNKS}
        settings.append(("beside a prefetcher", {"router": "layerwise", "level": "layer", **guess}))
    if kind == "cache" and level in ("step", "queue"):
        settings.append(("beside a prefetcher", {"prefetch": "step-ahead", "machine": CHUNKS}))
    if kind in ("prefetch", "miss"):
        settings.append(("small cache", {"router": first, "memory": prefetch.SMALL, "machine": CHUNKS}))
    for text, setting in settings:
        at = {"level": level, kind: plain} | setting
        yield _outcome(level, Check(f"{name} ({text})", partial(_same_decisions, at)), seconds)


def _knows(level: str) -> str:
    return f"knows no more than {level!r} shows"


def _same_decisions(setting: dict[str, Any]) -> None:
    found = differences(setting["level"], **{key: value for key, value in setting.items() if key != "level"})
    if found:
        raise Broken(found[0])


def _plain(spec: PolicySpec) -> dict[str, Any]:
    return {"name": spec.name, **spec.params}
