"""Steps of the batch policies by hand, and what every one of them must do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check import batch as contract
from moesim.check.broken import Broken, Calls
from moesim.check.drive import Variant, label, variants
from moesim.policy import BatchPolicy, Limits, Queued, find, names
from moesim.policy.batch import Aged, fill
from moesim.policy.residency import Residency
from tests.policies.queues import decode, form, prompt, queues

VARIANTS = variants("batch")


# ---- decode first, prefill first


def test_decode_first_takes_every_decode_token_then_prompts_in_queue_order() -> None:
    queue = [prompt(0, 1, 1), decode(1, 2), prompt(2, 3, 3, 3), decode(3, 0)]
    assert form("decode-first", queue, 16, 8) == [(1, 1), (3, 1), (0, 2), (2, 3)]


def test_prefill_first_takes_prompts_alone_as_long_as_there_are_any() -> None:
    queue = [prompt(0, 1, 1), decode(1, 2), prompt(2, 3, 3, 3), decode(3, 0)]
    assert form("prefill-first", queue, 16, 8) == [(0, 2), (2, 3)]
    assert form("prefill-first", [decode(1, 2), decode(3, 0)], 16, 8) == [(1, 1), (3, 1)]


def test_first_come_takes_the_queue_as_it_is() -> None:
    queue = [prompt(0, 1, 1), decode(1, 2), prompt(2, 3, 3, 3), decode(3, 0)]
    assert form("first-come", queue, 16, 3) == [(0, 2), (1, 1), (2, 3)]
    assert form("first-come", queue, 5, 2) == [(0, 2), (1, 1)]
    assert form("first-come", queue[2:], 3, 2) == [(2, 3)]


@pytest.mark.parametrize(("requests", "chosen"), [(1, [(1, 1)]), (2, [(1, 1), (3, 1)]), (3, [(1, 1), (3, 1), (0, 2)])])
def test_a_step_has_no_more_requests_than_allowed(requests: int, chosen: list[tuple[int, int]]) -> None:
    queue = [prompt(0, 1, 1), decode(1, 2), prompt(2, 3, 3, 3), decode(3, 0)]
    assert form("decode-first", queue, 16, requests) == chosen


def test_a_prompt_that_does_not_fit_waits_whole_and_nothing_overtakes_it() -> None:
    # 8 tokens, at most 2 requests: a prompt of 6 always fits beside a full step's decode tokens, so it is not cut.
    queue = [prompt(0, *[1] * 5), prompt(1, *[1] * 6), prompt(2, 1)]
    assert form("decode-first", queue, 8, 2) == [(0, 5)]


def test_a_prompt_that_might_never_fit_is_cut_into_what_is_left() -> None:
    # 7 tokens are more than 8 - 2: they could wait forever beside two decode tokens.
    assert form("decode-first", [prompt(0, *[1] * 7), decode(1, 0)], 8, 2) == [(1, 1), (0, 7)]
    assert form("decode-first", [prompt(0, *[1] * 5), prompt(1, *[1] * 7)], 8, 2) == [(0, 5), (1, 3)]
    assert form("prefill-first", [prompt(0, *[1] * 30)], 8, 2) == [(0, 8)]


def test_nothing_is_chosen_when_no_token_is_left() -> None:
    assert form("decode-first", [decode(0, 1), decode(1, 1), prompt(2, *[1] * 9)], 2, 4) == [(0, 1), (1, 1)]


# ---- chunked prefill (Sarathi-Serve)


def test_chunks_of_prompts_fill_what_decode_tokens_leave() -> None:
    queue = [prompt(0, *[1] * 5), decode(1, 2), prompt(2, 3, 3, 3), decode(3, 0)]
    assert form("chunked-prefill", queue, 16, 8) == [(1, 1), (3, 1), (0, 5), (2, 3)]
    assert form("chunked-prefill", queue, 5, 8) == [(1, 1), (3, 1), (0, 3)]
    assert form("decode-first", queue, 16, 8) == form("chunked-prefill", queue, 16, 8)
    assert form("decode-first", queue, 12, 4) == [(1, 1), (3, 1), (0, 5), (2, 3)]
    assert form("decode-first", queue, 9, 4) == [(1, 1), (3, 1), (0, 5)]  # the second prompt does not fit whole
    assert form("chunked-prefill", queue, 9, 4) == [(1, 1), (3, 1), (0, 5), (2, 2)]


def test_a_prompt_under_way_goes_on_before_others_start() -> None:
    begun = prompt(2, *[1] * 6)
    begun.advance(2)
    assert form("chunked-prefill", [prompt(0, *[1] * 5), begun, decode(1, 2)], 6, 8) == [(1, 1), (2, 4), (0, 1)]


def test_no_prompt_is_cut_by_the_number_of_requests() -> None:
    queue = [prompt(0, 1, 1), decode(1, 2), prompt(2, 3, 3, 3), decode(3, 0)]
    assert form("chunked-prefill", queue, 16, 3) == [(1, 1), (3, 1), (0, 2)]


# ---- Algorithm 1 (Read-ME 4.2)


def test_algorithm_1_takes_whole_expert_queues_longest_first() -> None:
    # Lengths: expert 0 two, expert 1 three, expert 2 one. All fit: 1, then 0, then 2, each in queue order.
    queue = [decode(0, 0), decode(1, 1), decode(2, 2), decode(3, 1), decode(4, 0), decode(5, 1)]
    assert [r for r, _ in form("expert-aware", queue, 16, 8)] == [1, 3, 5, 0, 4, 2]


def test_algorithm_1_cuts_the_queue_that_does_not_fit_and_stops() -> None:
    # Four tokens: all three of expert 1 and the first of expert 0's two.
    queue = [decode(0, 0), decode(1, 1), decode(2, 2), decode(3, 1), decode(4, 0), decode(5, 1)]
    assert [r for r, _ in form("expert-aware", queue, 4, 8)] == [1, 3, 5, 0]
    assert [r for r, _ in form("expert-aware", queue, 16, 2)] == [1, 3]


def test_equal_lengths_go_to_the_queue_whose_first_request_is_ahead() -> None:
    queue = [decode(0, 3), decode(1, 0), decode(2, 0), decode(3, 3)]
    assert [r for r, _ in form("expert-aware", queue, 2, 8)] == [0, 3]


def test_algorithm_1_ends_when_every_queue_is_empty() -> None:
    """The paper's listing goes on taking from queues of length 0 as long as tokens are left."""
    assert form("expert-aware", [decode(0, 0)], 1000, 8) == [(0, 1)]


def test_a_queue_is_as_long_as_its_tokens_not_its_requests() -> None:
    queue = [decode(0, 0), decode(1, 0), prompt(2, 1, 1, 1)]
    assert form("expert-aware", queue, 3, 8) == [(2, 3)]


def test_filing_by_majority_runs_a_whole_prompt_under_its_commonest_expert() -> None:
    # The prompt counts four tokens for expert 1, though only three use it; the decode of expert 1 shares its queue.
    queue = [decode(0, 0), decode(1, 0), decode(2, 0), prompt(3, 0, 1, 1, 1), decode(4, 1)]
    assert form("expert-aware", queue, 16, 8, filing="majority") == [(3, 4), (4, 1), (0, 1), (1, 1), (2, 1)]


def test_equally_common_experts_of_a_prompt_go_by_the_first_of_them() -> None:
    queue = [decode(0, 0), decode(1, 2), prompt(2, 2, 0)]
    assert form("expert-aware", queue, 3, 8, filing="majority") == [(1, 1), (2, 2)]


def test_filing_by_span_runs_a_prompt_up_to_where_its_expert_changes() -> None:
    # The prompt's next span is one token of expert 0: four for expert 0, one for expert 1. Its other spans wait.
    queue = [decode(0, 0), decode(1, 0), decode(2, 0), prompt(3, 0, 1, 1, 1), decode(4, 1)]
    assert form("expert-aware", queue, 16, 8, filing="span") == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]


def test_a_prompt_counts_no_more_than_a_step_takes() -> None:
    # 20 tokens, the first 4 of which (all that a step takes) are of expert 1, the rest of expert 0.
    queue = [prompt(0, *[1] * 4, *[0] * 16), decode(1, 0), decode(2, 1)]
    assert form("expert-aware", queue, 4, 8) == [(0, 4)]


def test_wrong_parameters_are_refused() -> None:
    for name, params, says in (
        ("expert-aware", {"filing": "all"}, "filing 'all' must be span or majority"),
        ("expert-aware-aged", {"filing": "all"}, "filing 'all' must be span or majority"),
        ("expert-aware-aged", {"patience": -1}, "patience -1 must be null or a number of steps"),
        ("decode-first", {"patience": 1.5}, "patience 1.5 must be null or a number of steps"),
        ("prefill-first", {"patience": True}, "patience True must be null or a number of steps"),
        ("cache-aware", {"filing": "all"}, "filing 'all' must be span or majority"),
        ("cache-aware", {"load": -1}, "load -1 must be a number of tokens"),
        ("cache-aware", {"load": float("nan")}, "load nan must be a number of tokens"),
    ):
        with pytest.raises(ValueError, match=says):
            find("batch", name)(**params)  # type: ignore[arg-type]


# ---- aged


def test_those_passed_over_for_too_long_go_first_in_queue_order() -> None:
    queue = [decode(0, 0), decode(1, 0), decode(2, 1, skipped=3), decode(3, 0), prompt(4, 2, 2, skipped=4)]
    assert form("expert-aware-aged", queue, 4, 8, patience=3) == [(2, 1), (4, 2), (0, 1)]
    assert form("expert-aware-aged", queue, 4, 8, patience=4) == [(4, 2), (0, 1), (1, 1)]
    assert form("expert-aware-aged", queue, 4, 8, patience=5) == form("expert-aware", queue, 4, 8)


AGED = [name for name in names("batch") if issubclass(find("batch", name), Aged)]


def test_all_but_the_plain_algorithm_1_have_an_age_limit() -> None:
    assert [name for name in names("batch") if name not in AGED] == ["expert-aware"]


@pytest.mark.parametrize("name", AGED)
def test_what_has_waited_too_long_goes_first_under_every_batcher(name: str) -> None:
    queue = [prompt(0, 0, 0, skipped=2), decode(1, 0), decode(2, 1, skipped=3), prompt(3, 2, 2, 2)]
    queue[3].advance(1)
    queue[3].skipped = 3
    assert form(name, queue, 16, 2, patience=3) == [(2, 1), (3, 2)]


@pytest.mark.parametrize("name", AGED)
def test_a_prompt_that_has_not_started_ages_under_the_expert_aware_ones_alone(name: str) -> None:
    queue = [decode(0, 0), decode(1, 0), prompt(2, 1, skipped=3)]
    ages = name in ("expert-aware-aged", "cache-aware")
    assert ((2, 1) in form(name, queue, 16, 2, patience=3)) == (ages or name == "prefill-first")


# ---- cache-aware


def formed(there: list[float] | None, queue: list[Queued], tokens: int, requests: int, **params: Any) -> list[int]:
    """Requests that `cache-aware` chooses when such shares of the experts are on the GPU."""
    made: Any = find("batch", "cache-aware")(**params)
    if there is not None:
        # Ten layers, in as many of which the key of an expert is there.
        table = [[layer * len(there) + expert for expert in range(len(there))] for layer in range(10)]
        state = bytearray(int(layer < round(10 * share)) for layer in range(10) for share in there)
        made.watch(Residency(table, state))
    return [queued.request for queued, _ in made.form(queue, Limits(tokens, requests))]


def test_an_absent_expert_counts_so_many_tokens_less() -> None:
    queue = [decode(0, 0), decode(1, 1), decode(2, 1), decode(3, 1), decode(4, 0)]  # expert 0 two, expert 1 three
    assert formed([1.0, 1.0], queue, 3, 8, load=16) == [1, 2, 3]
    assert formed([1.0, 0.0], queue, 3, 8, load=16) == [0, 4, 1]
    assert formed([1.0, 0.0], queue, 3, 8, load=0.5) == [1, 2, 3]  # 2.5 against 2
    assert formed([1.0, 0.5], queue, 3, 8, load=4) == [0, 4, 1]  # 3 - 2 against 2
    assert formed([1.0, 0.9], queue, 3, 8, load=4) == [1, 2, 3]  # 3 - 0.4


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=queues(), filing=st.sampled_from(["span", "majority"]), patience=st.integers(0, 7))
def test_without_a_cost_of_loading_it_is_the_aged_algorithm_1(
    case: tuple[list[Queued], Limits], filing: str, patience: int
) -> None:
    queue, limits = case
    tokens, requests = limits.max_tokens, limits.max_requests
    aged = [r for r, _ in form("expert-aware-aged", queue, tokens, requests, filing=filing, patience=patience)]
    assert formed([0.3, 1, 0, 0.7], queue, tokens, requests, filing=filing, patience=patience, load=0) == aged
    assert formed([0.5] * 4, queue, tokens, requests, filing=filing, patience=patience) == aged
    assert formed(None, queue, tokens, requests, filing=filing, patience=patience) == aged


def test_residency_counts_layers_and_what_is_on_its_way() -> None:
    table, state = [[0, 1], [2, 1], [3, 4], [5, 6]], bytearray(7)
    seen = Residency(table, state)
    assert seen.shares() == [0.0, 0.0]
    state[0], state[1], state[6] = 3, 1, 2  # key 1 serves expert 1 in two layers
    assert seen.shares() == [0.25, 0.75]


# ---- every batch policy


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=queues())
def test_steps_keep_the_limits_use_known_tokens_and_change_nothing(
    variant: Variant, case: tuple[list[Queued], Limits]
) -> None:
    queue, limits = case
    made = find("batch", variant[0])(**variant[1])
    assert isinstance(made, BatchPolicy)
    contract.form(made, queue, limits, Calls())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(queues(), st.randoms(use_true_random=False))
def test_fill_keeps_the_order_and_never_leaves_out_its_head(case: tuple[list[Queued], Limits], rng: Any) -> None:
    queue, limits = case
    rng.shuffle(queue)
    chosen = fill(queue, limits)
    assert [q for q, _ in chosen] == queue[: len(chosen)]
    assert chosen[0][1] == min(queue[0].known, limits.max_tokens)
    cut = [q for q, n in chosen if n < q.known]
    assert all(q.known > limits.max_tokens - limits.max_requests for q in cut)


class Wrong(BatchPolicy):
    """Takes what `how` says."""

    def __init__(self, how: str) -> None:
        self.how, self.steps = how, 0

    def form(self, queue: Any, limits: Limits) -> list[tuple[Queued, int]]:
        self.steps += 1
        head = queue[0]
        if self.how == "changes":
            head.skipped += 1
        return {
            "nothing": [],
            "changes": [(head, 1)],
            "twice": [(head, 1), (head, 1)],
            "stranger": [(head.copy(), 1)],
            "unknown": [(head, head.known + 1)],
            "greedy": [(q, q.known) for q in queue],
            "moody": [(head, 1)] if self.steps % 2 else [(q, 1) for q in queue[:2]],
        }[self.how]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("nothing", "chose nothing although requests wait"),
        ("changes", "changed the queue"),
        ("twice", "a request is there twice"),
        ("stranger", "not all of them are queued"),
        ("unknown", "from 1 token to all that are known"),
        ("greedy", "more than"),
        ("moody", "it must be a pure function"),
    ],
)
def test_a_batcher_that_breaks_a_rule_is_caught(how: str, says: str) -> None:
    with pytest.raises(Broken, match=says) as caught:
        contract.forms(Wrong(how), "decoupled")
    assert str(caught.value).startswith("call ")
