"""The kinds of policy and what each is asked (docs/model.md).

A policy is one class in one file under `policies/<kind>/`. Its `level` says what it may know; the view it is
handed shows that and no more. Parameters are the keyword arguments of `__init__`.
"""

from __future__ import annotations

import random
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from moesim.policy.queue import Limits, Queued
    from moesim.policy.view import View

LEVELS = ("history", "layer", "predicted", "step", "queue", "oracle")
KINDS = ("cache", "prefetch", "batch", "miss")


@dataclass(frozen=True, slots=True)
class Pool:
    """The part of the expert cache that one cache policy manages: a layer, or everything (scope `global`)."""

    keys: range
    capacity: int
    """bytes"""
    sizes: Sequence[int]
    """bytes of each key, indexed by key"""
    rng: random.Random


class Policy:
    """What all policies have: a name (set by `register`), a kind, an information level, one line of documentation."""

    name: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    source: ClassVar[str] = ""
    """where its rule comes from, paper and section, or textbook; else the docstring's last paragraph, `Source: ...`"""
    cost: ClassVar[str] = ""
    """of one decision, such as O(log n)"""
    level: str = "history"
    unknown: str = "farthest"
    """what the view assumes of a next use that is not known yet: `farthest`, or `persist` (docs/model.md)"""
    reach: int = 1
    """level `predicted`: distance of the farthest predictions that it reads, in layers; the trace must have them"""


class CachePolicy(Policy):
    """Which key to evict. One object manages one pool; keys of other pools are never named to it.

    The order of calls in a layer event: `used_by` and `used` once with all its keys, then per missing key `admit` (if
    there are staging slots), `victim` (until there is room), `evicted`, `inserted`. A key that is pushed out within its
    event and needed again is `used` again. A prefetch calls `admit`, `victim`, `evicted` and `inserted` without `used`;
    one that is cancelled is `evicted`, though this policy chose no victim: who learns from its victims must tell the
    two apart (policies/cache/arc.py remembers which keys it named).
    """

    kind: ClassVar[str] = "cache"

    def start(self, pool: Pool, view: View) -> None:
        """Called once before anything else. `view` stays valid and always shows the present instant."""
        self.pool = pool
        self.view = view

    def used_by(self, requests: Mapping[int, Sequence[int]]) -> None:
        """Which requests use each key that `used` names next, by their numbers; only for policies that define this."""

    def ended(self, requests: Sequence[int]) -> None:
        """These requests have got their last token; called between steps, only for policies that define `used_by`."""

    def used(self, keys: Sequence[int]) -> None:
        """A layer event needs `keys`, ranked by position, then slot; absent ones are inserted in it, or bypass."""

    def admit(self, key: int, prefetched: bool) -> bool:
        """Whether `key`, whose copy could start, takes a place in the cache or bypasses it. Must not change any state.

        Asked only where there are staging slots for keys that bypass; nothing else is said of a key that does.
        """
        return True

    def inserted(self, key: int, prefetched: bool) -> None:
        """The copy of `key` starts: it occupies its bytes from now on."""

    def evicted(self, key: int) -> None:
        """`key` has left. Called for the policy's own victims as well."""

    def victim(self, barred: Container[int]) -> int | None:
        """Name a resident key that is not in `barred`, or None where there is none. Must not change any state.

        Keys of the present layer event that have not been inserted yet are always in `barred`, and so is a key that
        was `used` but bypassed the cache.
        """
        raise NotImplementedError


class PrefetchPolicy(Policy):
    """Which keys to copy before they are needed."""

    kind: ClassVar[str] = "prefetch"
    cost_ns: int = 0
    """what the host pays each time it asks, beyond the decision of the cost table: a predictor's own time"""

    def start(self, view: View) -> None:
        """Called once before anything else."""
        self.view = view

    def plan(self) -> Sequence[int]:
        """Keys to copy, most urgent first. Asked at step start, after each gate, and when the link falls idle.

        The answer replaces what was planned and has not started. Resident and moving keys may be named; they are
        skipped. A key whose place would cost one that is needed no later is dropped by the engine.
        """
        raise NotImplementedError

    def cancel(self, moving: Sequence[int]) -> Sequence[int]:
        """Which of the prefetches under way to give up. Asked before `plan`; what was sent of them is wasted."""
        return ()


class Handling(Enum):
    """What becomes of a missing key."""

    WAIT = "wait"
    """its tokens wait for it to be copied in full"""
    CPU = "cpu"
    """the CPU computes its tokens"""
    SMALL = "small"
    """a smaller copy serves its tokens, one that is there or is copied now"""
    SKIP = "skip"
    """its tokens go without it"""


@dataclass(frozen=True, slots=True)
class Missing:
    """A key of the present layer event that is absent, or there only as a smaller copy. Times are estimates in ns."""

    key: int
    tokens: int
    """tokens of the event that use it"""
    weight: float
    """share of these tokens' gate weight that is the key's, 0 to 1, their mean"""
    before: float
    """share of a token's gate weight that goes to experts which it weighs more, 0 to 1; the least of these tokens"""
    small: bool
    """a smaller copy of it is there"""
    nbytes: int
    """of it in full"""
    free_bytes: int
    """in its pool, the same for all keys of the event: what fits comes without anybody leaving"""
    copy_ns: int
    """copying it in full, with nothing else on the link"""
    queue_ns: int
    """what the link has to carry before any missing key"""
    cpu_ns: int | None
    """the CPU's time for it, its tokens' activations carried there and back; None: the cost table does not know"""


class MissPolicy(Policy):
    """What becomes of missing keys, of which not a byte is on its way. Asked once a layer event, if there are any."""

    kind: ClassVar[str] = "miss"
    level: str = "layer"
    cost_ns: int = 0
    """what the host pays each time it asks, beyond the decision of the cost table"""
    uses_cpu: bool = False
    """whether it may answer CPU, so that the cost table must know what that takes"""
    small_ratio: float | None = None
    """bytes of a smaller copy as a share of the key's, above 0, up to 1; None: it never answers SMALL"""
    unpack_ns: float = 0.0
    """what a smaller copy adds to the kernel that uses it, for each byte of the key in full"""

    def start(self, view: View) -> None:
        """Called once before anything else."""
        self.view = view

    def decide(self, missing: Sequence[Missing]) -> Sequence[Handling]:
        """One answer for each of `missing`, which are ranked as the event's keys are."""
        raise NotImplementedError


class BatchPolicy(Policy):
    """Which tokens run in the next step."""

    kind: ClassVar[str] = "batch"
    ages_unstarted: ClassVar[bool] = True
    """whether prompts that have not started are admitted, so that `bound` is said of them; of what has started it is"""
    starts_last: ClassVar[bool] = False
    """whether a prompt starts only in a step that has room for all that have started"""
    in_order: ClassVar[bool] = False
    """whether prompts that have not started are chosen in queue order, and nothing else of them is looked at: a step
    has at most `max_requests` of them, and where many wait only so many are shown"""

    def form(self, queue: Sequence[Queued], limits: Limits) -> list[tuple[Queued, int]]:
        """Choose (request, tokens) pairs within `limits`; `queue` is in the order in which tokens became ready.

        Tokens are a request's next contiguous positions, at most `Queued.known`. Must be a pure function of its
        arguments: the `queue` level foresees steps by calling it on copies.
        """
        raise NotImplementedError

    def bound(self, limits: Limits, ahead: int) -> int | None:
        """B: an admitted request is passed over in at most B consecutive steps. None: it may starve.

        `ahead`: the steps that those before it in the queue, when it was admitted, would take one after another: the
        sum of ceil(known tokens / max_tokens); if the policy `starts_last`, of those that were admitted themselves.
        """
        return None
