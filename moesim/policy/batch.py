"""Parts that batch policies share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from moesim.policy.base import BatchPolicy
from moesim.policy.queue import Limits, Queued

PATIENCE = 64
"""steps that may pass a request over before it goes first, where the file does not say"""


class Aged(BatchPolicy):
    """A batch policy with an age limit: requests passed over `patience` steps in a row go first, in queue order.

    `patience` None is the policy as its authors have it, without a limit; then a request may starve. Prompts that have
    not started age only where `ages_unstarted`: elsewhere they wait to be admitted, as in a server's waiting queue, and
    letting them in because they waited would, in an overloaded server, put every prompt before the decode tokens.
    """

    ages_unstarted: ClassVar[bool] = False

    def __init__(self, patience: int | None = PATIENCE) -> None:
        if patience is not None and (isinstance(patience, bool) or not isinstance(patience, int) or patience < 0):
            raise ValueError(f"patience {patience!r} must be null or a number of steps, 0 or more")
        self.patience = patience

    def bound(self, limits: Limits, ahead: int) -> int | None:
        """B = patience + `ahead`; None without patience.

        For: in each step after its patience is over, the first in the queue of those whose patience is over runs to its
        last known token, or with `max_tokens` of them. That one is ahead of the request or is the request, since others
        join behind. Where prompts start last, one ahead that had not started does not count: in the step in which it
        starts the request runs as well. With at most N ahead, of at most P known tokens each, it waits no longer than
        patience + N ceil(P / max_tokens).
        """
        return None if self.patience is None else self.patience + ahead

    def waited(self, queue: Sequence[Queued]) -> list[Queued]:
        """Those whose patience is over, in queue order."""
        patience = self.patience
        if patience is None:
            return []
        every = self.ages_unstarted
        return [q for q in queue if q.skipped >= patience and (every or q.position or not q.prompt_left)]

    def aged(self, queue: Sequence[Queued], rest: Iterable[Queued]) -> list[Queued]:
        """Those whose patience is over, and behind them `rest` without them."""
        first = self.waited(queue)
        if not first:
            return list(rest)
        gone = {queued.request for queued in first}
        return [*first, *(queued for queued in rest if queued.request not in gone)]


def fill(order: Iterable[Queued], limits: Limits) -> list[tuple[Queued, int]]:
    """Take requests in `order`, each with all its known tokens, until the next does not fit.

    A prompt runs whole in one step. One that might never fit beside the decode tokens of a full step, being longer
    than `max_tokens - max_requests`, is cut into chunks of what is left instead, so that it cannot starve.
    """
    batch: list[tuple[Queued, int]] = []
    left = limits.max_tokens
    for queued in order:
        if len(batch) == limits.max_requests or left == 0:
            break
        if queued.known <= left:
            tokens = queued.known
        elif queued.known > limits.max_tokens - limits.max_requests:
            tokens = left
        else:
            break
        batch.append((queued, tokens))
        left -= tokens
    return batch


def pack(order: Iterable[Queued], limits: Limits) -> list[tuple[Queued, int]]:
    """Take requests in `order`, each with as many of its known tokens as are left of the token budget."""
    batch: list[tuple[Queued, int]] = []
    left = limits.max_tokens
    for queued in order:
        if len(batch) == limits.max_requests or left == 0:
            break
        batch.append((queued, min(queued.known, left)))
        left -= batch[-1][1]
    return batch


def check_filing(filing: str) -> str:
    """`filing` if it is one. Raises ValueError."""
    if filing not in ("span", "majority"):
        raise ValueError(f"filing {filing!r} must be span or majority")
    return filing


def longest_expert_first(
    queue: Sequence[Queued],
    limits: Limits,
    filing: str,
    batch: list[tuple[Queued, int]] | None = None,
    worth: Callable[[int, int], float] = lambda expert, tokens: tokens,
) -> list[tuple[Queued, int]]:
    """Read-ME's Algorithm 1: take tokens from the longest expert queue until the step is full, then the next longest.

    A request is filed once, under the expert of its next maximal same-expert span (`filing` span) or with all its
    known tokens under the commonest expert of them (`majority`); a queue's length is its tokens. Mended against the
    paper's listing: its `[k]` inside the loop is read as `[E]`, and the loop stops when every queue is empty.
    Equal lengths go to the queue whose first request is ahead. `batch` holds what the caller has already taken; with
    `worth(expert, tokens)` queues are taken by that instead of by their tokens.
    """
    batch = [] if batch is None else batch
    taken = {queued.request for queued, _ in batch}
    left = limits.max_tokens - sum(tokens for _, tokens in batch)
    queues: dict[int, list[tuple[Queued, int]]] = {}
    for queued in queue:
        if queued.request not in taken:
            expert, tokens = _filed(queued, filing, limits.max_tokens)
            queues.setdefault(expert, []).append((queued, tokens))
    length = {expert: worth(expert, sum(tokens for _, tokens in filed)) for expert, filed in queues.items()}
    while length and left > 0 and len(batch) < limits.max_requests:
        expert = max(length, key=length.__getitem__)
        del length[expert]
        for queued, tokens in queues[expert]:
            if left == 0 or len(batch) == limits.max_requests:
                break
            batch.append((queued, min(tokens, left)))
            left -= batch[-1][1]
    return batch


def _filed(queued: Queued, filing: str, max_tokens: int) -> tuple[int, int]:
    if filing == "span":
        return queued.span()
    tokens = min(queued.known, max_tokens)
    experts = queued.experts[:tokens].tolist()
    return max(dict.fromkeys(experts), key=experts.count), tokens
