from __future__ import annotations

from typing import Any
from unittest.mock import patch

from moesim import policy
from moesim.check.drive import Drive, pushed_out
from moesim.check.toy import as_requests, run, trace
from moesim.policy import find
from moesim.replay import Capacity, Settings, players, replay


def drive(slots: int, *requests: int) -> Drive:
    made = Drive(find("cache", "lfu-per-sequence")(), slots)  # type: ignore[arg-type]
    made.requests = requests
    return made


def test_what_a_request_used_is_forgotten_when_it_leaves() -> None:
    # Request 7 uses 0 three times, then 1: 2 pushes out 1. Of request 8, which comes when 7 has left, 2 has one use and
    # 0 none, so that 0 makes room for 1; an LFU that counts on would send 2 away, with two uses against three.
    lfu = drive(2, 7)
    assert pushed_out(lfu, 0, 0, 0, 1, 2) == [1]
    lfu.policy.ended([7])
    lfu.requests = (8,)
    assert pushed_out(lfu, 2, 1) == [0]
    assert lfu.use(3) == [2]  # 2 and 1 have one use each of request 8, and that of 2 is older


def test_uses_of_the_requests_in_service_add_up() -> None:
    # 0 has a use of each of two requests, 1 has one of request 2: 1 goes, although 0 is older.
    lfu = drive(2, 1, 2)
    lfu.use(0)
    lfu.requests = (2,)
    assert pushed_out(lfu, 1, 2) == [1]
    # Once request 1 has left, 0 has one use, as 2 has, and is older.
    lfu.policy.ended([1])
    assert pushed_out(lfu, 1, 3) == [0, 2]


def test_counts_outlive_eviction_and_equals_go_by_recency() -> None:
    assert pushed_out(drive(2, 1), 0, 0, 1, 2, 1, 2) == [1, 2, 0]  # as LFU


def test_a_prefetch_is_no_use_but_sets_recency() -> None:
    lfu = drive(2, 1)
    lfu.prefetch(0)
    lfu.use(1)
    assert lfu.use(2) == [0]  # no use against one


def test_it_counts_as_lfu_does_while_nobody_leaves() -> None:
    events = [[n * n % 7, n * 5 % 8] if n * n % 7 != n * 5 % 8 else [n % 8] for n in range(300)]
    per_sequence, lfu = drive(3, 1), Drive(find("cache", "lfu")(), 3)  # type: ignore[arg-type]
    assert pushed_out(per_sequence, *events) == pushed_out(lfu, *events)


# One layer of 4 experts and room for 2. The first sequence makes 0 popular, the second goes to and fro between 1 and 2.
FIRST, SECOND = ([0], [0, 0, 0]), ([1], [2, 1, 2, 1, 2, 3, 2])


def test_in_the_simulator_one_request_at_a_time() -> None:
    """The last token of a request is not run: 0 0 0, then 1 2 1 2 1 2 3.

    LFU: 0 has three uses, so that 1 and 2 push each other out five times (1, 2, 1, 2, 1), until 2 has three uses as
    well and pushes out 0, and then 3 comes. Per sequence 0 has none, and 2 pushes it out when it first comes.
    """
    misses = {}
    for name in ("lfu", "lfu-per-sequence"):
        result = run(as_requests([FIRST, SECOND]), cache=name, traffic={"kind": "all", "requests": 2})
        misses[name] = int(result.steps["miss_keys"].sum())
    assert misses == {"lfu": 8, "lfu-per-sequence": 4}


def test_in_the_untimed_replay_each_sequence_is_a_request() -> None:
    """All tokens: 0 0 0 0, of which three hit, then 1 2 1 2 1 2 3 2, where LFU keeps 0, with its four uses, throughout.

    Per sequence 1, 2 and 3 are loaded once each, and 3 pushes out 1.
    """
    rows = replay(trace([FIRST, SECOND]), players(["lfu,lfu-per-sequence"]), [Capacity.parse("2")], Settings())
    assert {(row.policy, row.decode_hits) for row in rows} == {("lfu", 3), ("lfu-per-sequence", 8)}
    assert {row.prompt_hits for row in rows} == {0}


def test_requests_of_a_batch_are_told_apart() -> None:
    """What a policy is told where two requests run in a step."""
    told: list[object] = []
    make = policy.make

    def listening(*args: Any) -> Any:
        made = make(*args)
        if made.kind == "cache":
            used_by, ended = made.used_by, made.ended
            made.used_by = lambda requests: (told.append(requests), used_by(requests))
            made.ended = lambda requests: (told.append(requests), ended(requests))
        return made

    pairs = as_requests([([0, 1], [2, 3]), ([1], [2, 0, 1])])
    rest = {"cache": "lfu-per-sequence", "traffic": {"kind": "all", "requests": 2}}
    with patch.object(policy, "make", listening):
        run(pairs, scheduler={"batch": "decode-first", "max_tokens": 64, "max_requests": 2}, **rest)
    # Both prompts; both with their first output token, after which request 0 has its second and last; request 1 alone.
    assert told == [{0: [0], 1: [0, 1]}, {2: [0, 1]}, [0], {0: [1]}, [1]]
