"""What level `queue` foresees, by hand: the experts of each step after the present one."""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.check.toy import as_requests, run, trace
from moesim.policy import BatchPolicy, Limits, Queued, find
from moesim.sim.forecast import Forecaster
from moesim.sim.foresight import first_uses
from moesim.sim.schedule import routes_of
from moesim.sim.work import Part
from moesim.trace.routing import RoutingTrace


class Server:
    """A queue in front of a batcher; request r replays sequence r."""

    def __init__(self, made: RoutingTrace, batch: str = "decode-first", tokens: int = 8, requests: int = 2) -> None:
        policy = find("batch", batch)()
        assert isinstance(policy, BatchPolicy)
        self.trace = made
        self.forecaster = Forecaster(policy, Limits(tokens, requests), made, list(range(made.sequences)))
        self.queue: list[Queued] = []

    def prompt(self, request: int) -> None:
        length = int(self.trace.prompt_tokens[request])
        self.queue.append(Queued(request, 0, length, length, routes_of(self.trace, request, 0, length)))

    def token(self, request: int, position: int) -> None:
        self.queue.append(Queued(request, position, 0, 1, routes_of(self.trace, request, position, 1)))

    def steps(self, *running: Part, persist: bool = False) -> list[set[int]]:
        return list(self.forecaster.steps(self.queue, running, persist))


def decoding(*experts: int, **kwargs: Any) -> Server:
    """Requests that wait with one token each: request r's is of the r-th expert, and its later ones of expert 3."""
    server = Server(trace([([0], [e, 3, 3, 3]) for e in experts]), **kwargs)
    for request in range(len(experts)):
        server.token(request, 1)
    return server


def test_a_backlog_of_decode_tokens_runs_in_queue_order() -> None:
    # Two requests a step: 0 and 1, then 2 and 0, then 1. What follows each token is not known.
    assert decoding(0, 1, 2, 0, 1).steps() == [{0, 1}, {2, 0}, {1}]


def test_nothing_known_nothing_shown() -> None:
    server = Server(trace([([0], [1, 1])]))
    running = Part(request=0, start=0, tokens=1, prefill=True)
    assert server.steps() == []
    assert server.steps(running) == []
    assert server.steps(running, persist=True) == [{0}]


def test_decode_tokens_go_before_prompts_and_a_prompt_shows_all_its_experts() -> None:
    server = Server(trace([([0, 2, 2], [3, 3]), ([0], [1, 3]), ([1, 0], [3])]))
    server.prompt(0)
    server.token(1, 1)
    server.prompt(2)
    assert server.steps() == [{1, 0, 2}, {1, 0}]


def test_a_prompt_that_is_cut_shows_each_chunk_in_its_step() -> None:
    # 4 tokens a step, 2 requests: the prompt of 6 is more than 4 - 2, so it runs 4 and 2; then the next prompt.
    server = Server(trace([([0, 0, 1, 1, 2, 2], [3]), ([3, 3], [3])]), tokens=4)
    server.prompt(0)
    server.prompt(1)
    assert server.steps() == [{0, 1}, {2, 3}]


def test_a_prompt_of_the_present_step_that_goes_on_is_known_and_not_assumed() -> None:
    server = Server(trace([([0, 0, 1, 1, 2, 2], [3])]), tokens=4)
    server.prompt(0)
    server.queue[0].advance(4)
    running = Part(request=0, start=0, tokens=4, prefill=True)
    assert server.steps(running) == [{2}]
    assert server.steps(running, persist=True) == [{2}, {2}]  # then one more token, like its last


def test_persist_expects_one_more_token_of_each_request_like_its_last() -> None:
    # Request 0 runs with its token of expert 1, request 1 waits with one of expert 2; one request a step.
    # The known token of 1 is ahead in the queue; then the assumed one of 0, then the assumed one of 1.
    server = Server(trace([([0], [1, 3, 3]), ([0], [2, 3, 3])]), requests=1)
    server.token(1, 1)
    running = Part(request=0, start=1, tokens=1, prefill=False)
    assert server.steps(running) == [{2}]
    assert server.steps(running, persist=True) == [{2}, {1}, {2}]


def test_persist_after_a_prompt_expects_the_expert_of_its_last_token() -> None:
    server = Server(trace([([0, 1, 2], [3, 3])]))
    server.prompt(0)
    assert server.steps(persist=True) == [{0, 1, 2}, {2}]


def test_an_assumed_token_is_filed_under_the_expert_that_is_assumed() -> None:
    # Request 0 runs with expert 1 (its next token, not sampled yet, will be of expert 2). Waiting: 2 of request 2, 1 of
    # request 1. With the assumed 1 of request 0 the queue of expert 1 is the longer: 1 and 0 go; then ties, by turns.
    server = Server(trace([([0], [1, 2, 2]), ([0], [1, 3]), ([0], [2, 3])]), batch="expert-aware", requests=1)
    server.token(2, 1)
    server.token(1, 1)
    running = Part(request=0, start=1, tokens=1, prefill=False)
    assert server.steps(running, persist=True) == [{1}, {1}, {2}, {1}, {2}]


def test_what_the_batcher_passes_over_grows_older() -> None:
    """The aged batcher's patience runs out within the forecast as it would in the server."""
    server = Server(trace([([0], [1, 1])] + [([0], [0, 0])] * 12), batch="expert-aware-aged", requests=1)
    for request in range(13):
        server.token(request, 1)
    # Expert 0 has the longer queue; request 0 waits eight steps (its patience) and goes ninth.
    assert server.steps() == [{0}] * 8 + [{1}] + [{0}] * 4


def test_the_queue_itself_is_left_alone() -> None:
    server = decoding(0, 1, 2)
    server.steps(persist=True)
    assert [(q.request, q.position, q.known, q.skipped) for q in server.queue] == [(r, 1, 1, 0) for r in range(3)]


def test_every_expert_of_a_token_is_shown_and_no_expert_is_none() -> None:
    """k = 2, and -1 where a token has only one: it must not count as the last expert."""
    server = Server(trace([([[0, 1], [2, -1]], [[1, -1], [0, 0]])], k=2, experts=4))
    server.prompt(0)
    assert server.steps(persist=True) == [{0, 1, 2}, {2}]
    assert first_uses(server.steps(), 0, 4, 99).tolist() == [1, 1, 1, 99]


def test_first_uses_counts_steps_from_the_present_one() -> None:
    assert first_uses(iter([{1}, {0, 1}, set(), {3}]), 10, 5, 99).tolist() == [12, 11, 99, 14, 99]


def test_lookahead_at_queue_acts_on_it() -> None:
    # Two slots, one request a step. Prompts of 0, 1, 2 wait with 0 and 1 again behind them (other requests): when 2
    # comes, 0 is next and 1 after it, so 1 leaves, not 0 as LRU would have it. Then 1 pushes out 2 (not shown), not 0.
    sequences = as_requests([([e], [3]) for e in (0, 1, 2, 0, 1)])
    traffic = {"kind": "all", "requests": 5}
    lru = run(sequences, cache="lru", traffic=traffic)
    look = run(sequences, cache={"name": "lookahead", "level": "queue"}, traffic=traffic)
    assert lru.steps["miss_keys"].tolist() == [1, 1, 1, 1, 1]
    assert look.steps["miss_keys"].tolist() == [1, 1, 1, 0, 1]


def test_a_longer_roll_than_any_queue_ends() -> None:
    server = decoding(*np.arange(200) % 4, requests=1)
    assert len(server.steps(persist=True)) == 400
