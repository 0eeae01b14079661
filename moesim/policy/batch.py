"""Parts that batch policies share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moesim.policy.queue import Limits, Queued


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


def longest_expert_first(
    queue: Sequence[Queued], limits: Limits, filing: str, batch: list[tuple[Queued, int]] | None = None
) -> list[tuple[Queued, int]]:
    """Read-ME's Algorithm 1: take tokens from the longest expert queue until the step is full, then the next longest.

    A request is filed once, under the expert of its next maximal same-expert span (`filing` span) or with all its
    known tokens under the commonest expert of them (`majority`); a queue's length is its tokens. Mended against the
    paper's listing: its `[k]` inside the loop is read as `[E]`, and the loop stops when every queue is empty.
    Equal lengths go to the queue whose first request is ahead. `batch` holds what the caller has already taken.
    """
    batch = [] if batch is None else batch
    taken = {queued.request for queued, _ in batch}
    left = limits.max_tokens - sum(tokens for _, tokens in batch)
    queues: dict[int, list[tuple[Queued, int]]] = {}
    for queued in queue:
        if queued.request not in taken:
            expert, tokens = _filed(queued, filing, limits.max_tokens)
            queues.setdefault(expert, []).append((queued, tokens))
    length = {expert: sum(tokens for _, tokens in filed) for expert, filed in queues.items()}
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
