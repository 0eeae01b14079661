"""The policies of a replay as a user names them: `lru`, `lfu@layer`, `lookahead(level=step, horizon=0)`, `min`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.errors import InputError, Problem, unknown
from moesim.files import shipped
from moesim.policy import CachePolicy, find, make, names
from moesim.policy.text import parse_scoped, split
from moesim.policy.view import FAR_VIEWS, NEAR_VIEWS
from moesim.replay import kernels
from moesim.replay.drive import drive
from moesim.replay.kernels import Kernel, Outcome
from moesim.replay.sight import sight_for
from moesim.replay.stream import Stream
from moesim.trace.meta import RoutingMeta

OFFLINE: dict[str, Kernel] = {"min": kernels.belady, "min-bypass": kernels.belady_bypass}
KERNELS: dict[str, Kernel] = {"lru": kernels.lru, "lfu": kernels.lfu, "lfu-in-cache": kernels.lfu_in_cache}
ALIASES = {"belady": "min", "belady-bypass": "min-bypass"}
SCOPES = ("global", "layer")


@dataclass(frozen=True, slots=True)
class Player:
    """A policy and its parameters; `scope` is its own, or '' for those of the whole replay."""

    name: str
    params: dict[str, Any]
    scope: str = ""

    @property
    def label(self) -> str:
        inside = ", ".join(f"{key}={value}" for key, value in self.params.items())
        return f"{self.name}({inside})" if inside else self.name

    @property
    def offline(self) -> bool:
        return self.name in OFFLINE

    @property
    def oracle(self) -> bool:
        """Whether it knows the future."""
        return self.offline or self.policy().level == "oracle"

    def policy(self) -> CachePolicy:
        """A fresh policy object (not for the offline ones)."""
        made = make("cache", self)
        assert isinstance(made, CachePolicy)
        return made

    def kernel(self) -> Kernel | None:
        """The loop that stands for the shipped policy of this name; None where the object itself must run."""
        if self.offline:
            return OFFLINE[self.name]
        if self.params or self.name not in KERNELS:
            return None
        return KERNELS[self.name] if _is_shipped(self.name) else None

    def problem(self, meta: RoutingMeta) -> str:
        """Why it cannot play on such a trace; '' where it can."""
        if self.offline:
            return ""
        level = self.policy().level
        if level not in NEAR_VIEWS and level not in FAR_VIEWS:
            return f"{self.label!r} needs level {level!r}, which an untimed replay does not show"
        if level in ("step", "queue") and meta.router == "layerwise":
            return f"{self.label!r} needs level {level!r}: a layer-wise router shows later layers to nobody"
        return ""

    def play(self, stream: Stream, sizes: Sequence[int], capacity: int, strict: bool, pooled: Pooled) -> Outcome:
        """Replay the events of one pool."""
        kernel = self.kernel()
        if kernel is not None:
            return kernel(stream, sizes, capacity, strict)
        policy = self.policy()
        sight = sight_for(policy, stream, pooled.experts, len(sizes))
        return drive(policy, stream, sizes, capacity, strict, pooled.keys, sight, pooled.seed, pooled.bypass)


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a policy object meets beside the room: the pool's keys, experts a layer, a seed, whether keys may bypass."""

    keys: range
    experts: int
    seed: int
    bypass: bool


def players(texts: Iterable[str], base: Path | str = ".") -> list[Player]:
    """The policies named in `texts`, each a comma-separated list. Raises InputError with every mistake."""
    found, problems = [], []
    for text in (part for given in texts for part in split(given)):
        try:
            found.append(_player(text, base))
        except InputError as error:
            problems += [Problem("--policies", problem.text) for problem in error.problems]
    if not found and not problems:
        problems.append(Problem("--policies", "names no policy"))
    if problems:
        raise InputError(problems)
    return list({(p.label, p.scope): p for p in found}.values())


def _player(text: str, base: Path | str) -> Player:
    name, params, scope = parse_scoped(text)
    name = ALIASES.get(name, name)
    if scope and scope not in SCOPES:
        raise InputError(Problem("", f"{text!r}: {unknown('scope', scope, SCOPES)}"))
    if name == "min" and set(params) == {"bypass"} and isinstance(params["bypass"], bool):
        name, params = ("min-bypass" if params["bypass"] else "min"), {}
    if name in OFFLINE and params:
        raise InputError(Problem("", f"{text!r}: {name} takes no parameters; there is: {', '.join(OFFLINE)}"))
    if name not in OFFLINE:
        _known(name, base)
        if name.endswith(".py"):
            name = str(Path(base, name))
        make("cache", Player(name, params))
    return Player(name, params, scope)


def _known(name: str, base: Path | str) -> None:
    known = {*names("cache"), *OFFLINE}
    if name not in known and not name.endswith(".py"):
        raise InputError(Problem("", unknown("cache policy", name, known)))
    find("cache", name, base)


def _is_shipped(name: str) -> bool:
    """Whether `name` finds the file that we ship: a class registered by hand may have taken its name."""
    import inspect

    file = shipped("policies", "cache", f"{name.replace('-', '_')}.py")
    return Path(inspect.getfile(find("cache", name))).resolve() == file.resolve()
