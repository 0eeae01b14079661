"""The whole suite on one policy: shipped ones pass, and each planted mistake fails the check that is there for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moesim.check.suite import CONTRACTS, Outcome, outcomes
from moesim.errors import InputError
from moesim.experiment import PolicySpec

HEAD = '''
from moesim.policy import BatchPolicy, CachePolicy, PrefetchPolicy, register
from moesim.policy.batch import fill
from tests.sim.cheats import routes_in_the_queue, tokens_still_to_come


'''
CACHE = '''@register("mine")
class Mine(CachePolicy):
    """Evicts the lowest key."""

    source, cost = "ours", "O(n)"

    def start(self, pool, view):
        self.there = set()

    def inserted(self, key, prefetched):
        self.there.add(key)

    def evicted(self, key):
        self.there.remove(key)

    def victim(self, barred):
        return {answer}
'''
PREFETCH = '''@register("mine")
class Mine(PrefetchPolicy):
    """Plans something."""

    source, cost = "ours", "O(1)"

    def plan(self):
        {before}
        return {answer}

    def cancel(self, moving):
        return {cancel}
'''
BATCH = '''@register("mine")
class Mine(BatchPolicy):
    """Takes what came first."""

    source, cost = "ours", "O(queue)"

    def form(self, queue, limits):
        return {answer}
'''


def run(folder: Path, kind: str, text: str) -> list[Outcome]:
    path = folder / "mine.py"
    path.write_text(HEAD + text)
    return list(outcomes(kind, PolicySpec(name="mine.py"), folder))


def failed(found: list[Outcome]) -> dict[str, str]:
    return {outcome.check: outcome.text for outcome in found if outcome.status == "fail"}


def cache(folder: Path, answer: str) -> list[Outcome]:
    return run(folder, "cache", CACHE.format(answer=answer))


def prefetch(folder: Path, answer: str, before: str = "pass", cancel: str = "()") -> list[Outcome]:
    return run(folder, "prefetch", PREFETCH.format(answer=answer, before=before, cancel=cancel))


def test_a_good_cache_passes_every_check(tmp_path: Path) -> None:
    found = cache(tmp_path, "min((key for key in self.there if key not in barred), default=None)")
    assert {outcome.status for outcome in found} == {"pass"}
    assert {outcome.level for outcome in found} == {"", "history"}
    assert len(found) == 15


def test_who_breaks_the_contract_is_not_asked_what_it_knows(tmp_path: Path) -> None:
    found = cache(tmp_path, "min(self.there, default=None)")
    assert "which is barred" in failed(found)["names a key that is there and may go, if there is one"]
    assert found[-1].status == "skip" and "breaks the contract" in found[-1].text


def test_who_raises_is_shown_where(tmp_path: Path) -> None:
    text = failed(cache(tmp_path, "self.nobody"))["names none where nothing may go"]
    line = (tmp_path / "mine.py").read_text().splitlines().index("        return self.nobody") + 1
    assert text.startswith("call 2, victim(()): raised AttributeError(")
    assert f"(mine.py:{line})" in text


def test_a_cache_that_knows_too_much_is_found(tmp_path: Path) -> None:
    """It behaves wherever there is no server to look into."""
    text = CACHE.format(answer="self._choose(sorted(key for key in self.there if key not in barred))")
    found = run(
        tmp_path,
        "cache",
        text
        + '''
    def _choose(self, free):
        try:
            return free[routes_in_the_queue(None) % len(free)] if free else None
        except LookupError:
            return free[0]
''',
    )
    assert set(failed(found)) >= {"knows no more than 'history' shows (decoupled router)"}
    assert all(name.startswith("knows no more than") for name in failed(found))
    text = failed(found)["knows no more than 'history' shows (decoupled router)"]
    assert "was drawn anew, and victim" in text and "became" in text


def test_every_level_of_a_policy_that_takes_several_is_checked() -> None:
    found = list(outcomes("cache", PolicySpec(name="lookahead")))
    assert {outcome.level for outcome in found} == {"", "step", "queue", "oracle"}
    assert [o.status for o in found if o.level == "oracle" and o.check.startswith("knows")] == ["skip"]
    only = list(outcomes("cache", PolicySpec(name="lookahead", params={"level": "step"})))
    assert {outcome.level for outcome in only} == {"", "step"}
    assert not failed(found)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"answer": "[99]"}, "planned 99, which is no key of 0 to 14"),
        ({"answer": "[True]"}, "planned True, which is no key"),
        ({"answer": "[3, 3]"}, "names a key twice"),
        ({"answer": "[self.turn % 15]", "before": "self.turn = getattr(self, 'turn', 0) + 1"}, "asked twice"),
        ({"answer": "[self.view.step % 15]", "cancel": "[7]"}, "gave up [7], and not all of them are under way"),
        ({"answer": "1 / 0"}, "raised ZeroDivisionError"),
        ({"answer": "None"}, "answered None, which is no list of keys"),
    ],
)
def test_a_prefetcher_that_breaks_a_rule_is_found(tmp_path: Path, given: dict[str, Any], says: str) -> None:
    texts = failed(prefetch(tmp_path, **given)).values()
    assert texts and all(says in text for text in texts)


def test_a_good_prefetcher_passes(tmp_path: Path) -> None:
    found = prefetch(tmp_path, "[(self.view.layer + 1) % 3 * 5]", cancel="[key for key in moving if key == 5]")
    assert {outcome.status for outcome in found} == {"pass"}


def test_a_prefetcher_that_knows_too_much_is_found(tmp_path: Path) -> None:
    found = prefetch(tmp_path, "[5 * ((self.view.layer + 1) % 3) + tokens_still_to_come(None) % 5]")
    for router in ("decoupled", "layerwise"):
        assert f"knows no more than 'history' shows ({router} router)" in failed(found)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("[]", "chose nothing although requests wait"),
        ("[(q, 1) for q in queue]", "more than"),
        ("fill(queue[1:] or queue, limits)", ""),
        ("[(queue[0], queue[0].experts[0])]", "raised AssertionError"),
        ("[(queue[0], 1.0)]", "chose (Queued(0, position=3, known=1, skipped=1), 1.0), which is no pair of a Queued"),
    ],
)
def test_a_batcher_that_breaks_a_rule_is_found(tmp_path: Path, answer: str, says: str) -> None:
    texts = list(failed(run(tmp_path, "batch", BATCH.format(answer=answer))).values())
    assert any(says in text for text in texts) if says else not texts


def test_a_batcher_that_says_it_goes_in_order_and_does_not_is_found(tmp_path: Path) -> None:
    answer = "[(queue[-1], 1)]"
    assert not failed(run(tmp_path, "batch", BATCH.format(answer=answer)))
    text = BATCH.format(answer=answer).replace("    def form", "    in_order = True\n\n    def form")
    assert any("it is not in_order" in says for says in failed(run(tmp_path, "batch", text)).values())


def test_undocumented_is_a_failure(tmp_path: Path) -> None:
    text = BATCH.format(answer="fill(queue, limits)").replace('    source, cost = "ours", "O(queue)"\n', "")
    found = failed(run(tmp_path, "batch", text.replace('    """Takes what came first."""\n', "")))
    assert list(found.values()) == ["it lacks a docstring, source, cost, which the list of policies shows"]


@pytest.mark.parametrize("kind", CONTRACTS)
def test_what_is_not_there_is_bad_input(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"unknown {kind} policy 'nobody'"):
        list(outcomes(kind, PolicySpec(name="nobody")))


MISS = '''@register("mine")
class Mine(MissPolicy):
    """Answers something."""

    source, cost = "ours", "O(n)"
    turn = 0

    def decide(self, missing):
        self.turn += 1
        return {answer}
'''


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("[Handling.WAIT] * len(missing)", ""),
        ("[Handling.SKIP] * len(missing)", ""),
        ("[]", "one answer for each key is the rule"),
        ("None", "answered None, which is no list of answers"),
        ("['wait'] * len(missing)", "answers are Handling"),
        ("[Handling.CPU] * len(missing)", "must say so with uses_cpu = True"),
        ("[Handling.SMALL] * len(missing)", "must have a small_ratio"),
        ("[Handling.SKIP if self.turn % 2 else Handling.WAIT] * len(missing)", "asked twice"),
    ],
)
def test_a_miss_policy_that_breaks_a_rule_is_found(tmp_path: Path, answer: str, says: str) -> None:
    text = "from moesim.policy import Handling, MissPolicy\n" + MISS.format(answer=answer)
    texts = list(failed(run(tmp_path, "miss", text)).values())
    assert texts and all(says in text for text in texts) if says else not texts


def test_a_miss_policy_that_knows_too_much_is_found(tmp_path: Path) -> None:
    answer = "[(Handling.WAIT, Handling.SKIP)[tokens_still_to_come(None) % 2]] * len(missing)"
    text = "from moesim.policy import Handling, MissPolicy\n" + MISS.format(answer=answer)
    assert "knows no more than 'layer' shows (layerwise router)" in failed(run(tmp_path, "miss", text))
