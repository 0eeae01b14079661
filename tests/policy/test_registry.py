"""Policies are found by name, by path, by entry point and by `register`; what is wrong is said with what is right."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from moesim import policy
from moesim.experiment import PolicySpec
from moesim.policy import CachePolicy, PrefetchPolicy, register, registry

MINE = '''
from moesim.policy import CachePolicy, register


@register("{name}")
class Mine(CachePolicy):
    """Keeps what it has."""

    def __init__(self, depth: int = 3) -> None:
        if depth < 0:
            raise ValueError(f"depth {{depth}} must be 0 or more")

    def victim(self, barred):
        return None
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A policy file of a user."""
    path = tmp_path / "mine.py"
    path.write_text(MINE.format(name="mine"))
    return path


@pytest.fixture(autouse=True)
def _own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


def problems(kind: str, name: str, **params: Any) -> list[str]:
    return [str(p) for p in policy.check(kind, PolicySpec(name=name, params=params))]


def test_shipped_names() -> None:
    assert {"fifo", "lfu", "lookahead", "lru", "min", "random", "s3-fifo"} <= set(policy.names("cache"))
    assert {"next-layer", "none", "queue-ahead", "speculative", "step-ahead"} <= set(policy.names("prefetch"))
    expert_aware = ["expert-aware", "expert-aware-aged"]
    plain = ["first-come", "prefill-first"]
    assert policy.names("batch") == ["cache-aware", "chunked-prefill", "decode-first", *expert_aware, *plain]
    assert policy.names("miss") == ["cpu-when-cheaper", "smaller-copy", "wait"]


@pytest.mark.parametrize("kind", policy.KINDS)
def test_every_name_is_found_says_its_name_and_is_documented(kind: str) -> None:
    for name in policy.names(kind):
        cls = policy.find(kind, name)
        assert (cls.kind, cls.name) == (kind, name)
        assert cls.__doc__
        assert policy.make(kind, PolicySpec(name=name)).level in policy.LEVELS
        assert problems(kind, name) == []


def test_a_wrong_name_names_what_exists_and_the_nearest() -> None:
    there = ", ".join(policy.names("cache"))
    assert problems("cache", "lruu") == [f"unknown cache policy 'lruu'; did you mean 'lru'? There is: {there}"]
    assert "did you mean" not in problems("cache", "xyzzy")[0]
    assert problems("prefetch", "lru")[0].startswith("unknown prefetch policy 'lru'")


def test_a_wrong_parameter_lists_what_the_policy_takes() -> None:
    there = "There is: horizon, level, unknown"
    assert problems("cache", "lookahead", horizn=3, depth=0) == [
        f"cache policy 'lookahead': unknown parameter 'horizn'; did you mean 'horizon'? {there}",
        f"cache policy 'lookahead': unknown parameter 'depth'. {there}",
    ]
    assert problems("cache", "lru", depth=3) == ["cache policy 'lru': unknown parameter 'depth'. There is: none"]


def test_a_wrong_value_says_the_rule() -> None:
    assert "'lookahead': horizon -1 must be null or a whole number of layer events" in problems(
        "cache", "lookahead", horizon=-1
    )[0]  # fmt: skip


    (found,) = problems("prefetch", "speculative", distance="far")
    assert found.endswith("; it takes distance=1, width=0, cancel=true, latency_ns=0")


@pytest.mark.parametrize(
    ("kind", "said", "text"),
    [
        ("Prefetch", "cost_ns = -1000", "cost_ns -1000 must be a whole number of ns, 0 or more"),
        ("Prefetch", "cost_ns = 0.5", "cost_ns 0.5 must be a whole number of ns, 0 or more"),
        ("Prefetch", "level, reach = 'predicted', 9", "reach 9 must be a distance in layers, 1 to 3"),
        ("Cache", "level = 'psychic'", "level 'psychic' must be one of history, layer, predicted, step, queue, oracle"),
        ("Cache", "unknown = 'near'", "unknown 'near' must be farthest or persist"),
        ("Miss", "small_ratio = 2.0", "small_ratio 2.0 must be null or a share above 0, up to 1"),
        ("Miss", "unpack_ns = -1", "unpack_ns -1 must be a number of ns a byte, 0 or more"),
    ],
)
def test_what_a_policy_says_of_itself_must_make_sense(tmp_path: Path, kind: str, said: str, text: str) -> None:
    """A negative cost would give time back."""
    path = tmp_path / "mine.py"
    path.write_text(f"from moesim.policy import *\n\n\n@register('mine')\nclass Mine({kind}Policy):\n    {said}\n")
    assert problems(kind.lower(), str(path)) == [f"{kind.lower()} policy {str(path)!r}: {text}"]


def test_an_init_that_fails_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE.format(name="mine").replace("raise ValueError", "raise OSError").replace("< 0", "> 0"))
    (found,) = problems("cache", str(path))
    assert found == f"cache policy {str(path)!r}: its __init__ raised OSError('depth 3 must be 0 or more')"


def test_a_path_relative_to_the_experiment(mine: Path) -> None:
    made = policy.make("cache", PolicySpec(name="mine.py", params={"depth": 5}), mine.parent)
    assert (made.name, type(made).__name__) == ("mine", "Mine")
    assert policy.find("cache", "mine.py", mine.parent) is policy.find("cache", str(mine))
    assert policy.check("cache", PolicySpec(name=str(mine), params={"depth": -1}))[0].text.startswith(
        f"cache policy {str(mine)!r}: depth -1 must be 0 or more; it takes depth"
    )


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    assert problems("cache", str(tmp_path / "no.py")) == [f"{tmp_path / 'no.py'}: no such policy file"]


def test_a_file_with_a_syntax_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("class Broken(:\n")
    (found,) = problems("cache", str(path))
    assert found.startswith(f"{path}: this policy file does not load: SyntaxError")
    path.write_text(MINE.format(name="broken"))
    assert problems("cache", str(path)) == []  # once mended it loads


def test_a_file_holds_one_policy_of_its_kind(tmp_path: Path, mine: Path) -> None:
    two = tmp_path / "two.py"
    two.write_text(MINE.format(name="one") + MINE.format(name="other").replace("Mine", "Other"))
    assert problems("cache", str(two)) == [f"{two}: holds 2 registered cache policies; one a file is the rule"]
    assert problems("batch", str(mine)) == [f"{mine}: holds 0 registered batch policies; one a file is the rule"]
    bare = tmp_path / "bare.py"
    bare.write_text(MINE.format(name="bare").replace('@register("bare")', ""))
    assert problems("cache", str(bare)) == [f"{bare}: holds 0 registered cache policies; one a file is the rule"]


def test_two_files_of_one_name_are_two_policies(tmp_path: Path, mine: Path) -> None:
    other = tmp_path / "other" / "mine.py"
    other.parent.mkdir()
    other.write_text(MINE.format(name="mine"))
    assert policy.find("cache", str(mine)) is not policy.find("cache", str(other))


def test_a_file_that_calls_itself_lru_does_not_take_the_place_of_lru(tmp_path: Path) -> None:
    """As the copy of a shipped file does whose author forgot to change the name."""
    path = tmp_path / "copy.py"
    path.write_text(MINE.format(name="lru"))
    shipped = policy.find("cache", "lru")
    assert policy.find("cache", str(path)).__name__ == "Mine"
    assert policy.find("cache", "lru") is shipped


def test_a_file_found_by_path_is_not_found_by_name(mine: Path) -> None:
    """Else a run would depend on what its process has run before."""
    policy.find("cache", str(mine))
    assert problems("cache", "mine")[0].startswith("unknown cache policy 'mine'")


def test_register_makes_a_class_known() -> None:
    @register("eager-beaver")
    class Beaver(PrefetchPolicy):
        """Plans nothing, eagerly."""

    assert Beaver.name == "eager-beaver"
    assert policy.find("prefetch", "eager-beaver") is Beaver
    assert "eager-beaver" in policy.names("prefetch")
    assert "eager-beaver" not in policy.names("cache")


def test_an_entry_point_of_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("elsewhere", f"{__name__}:Elsewhere", "moesim.cache")
    monkeypatch.setattr(EntryPoint, "load", lambda self: Elsewhere)

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [point] if group == "moesim.cache" and name in (None, "elsewhere") else []

    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert policy.find("cache", "elsewhere") is Elsewhere
    assert "elsewhere" in policy.names("cache")
    assert "elsewhere" in problems("cache", "elsewher")[0]
    assert problems("prefetch", "elsewhere")[0].startswith("unknown prefetch policy")


class Elsewhere(CachePolicy):
    """Lives in another package."""


def test_an_edited_file_is_read_again(mine: Path) -> None:
    """Within one second, and even where the new text is as long as the old one was."""
    first = policy.find("cache", str(mine))
    assert policy.find("cache", str(mine)) is first
    mine.write_text(MINE.format(name="mine").replace("Keeps what it has", "Keeps what it had"))
    os.utime(mine, ns=(mine.stat().st_atime_ns, mine.stat().st_mtime_ns + 1))
    second = policy.find("cache", str(mine))
    assert second is not first and second.__doc__ == "Keeps what it had."


def test_an_edit_that_does_not_load_is_said_and_the_next_one_is_read(mine: Path) -> None:
    assert policy.find("cache", str(mine))
    mine.write_text("1 / 0")
    assert problems("cache", str(mine))[0].startswith(f"{mine}: this policy file does not load: ZeroDivisionError")
    mine.write_text(MINE.format(name="mine") + "\n")
    assert problems("cache", str(mine)) == []


def test_a_package_that_does_not_load_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("elsewhere", "a_package_that_is_not_there:Policy", "moesim.cache")
    monkeypatch.setattr(registry, "entry_points", lambda *, group, name=None: [point])
    assert problems("cache", "elsewhere")[0].startswith(
        "the cache policy 'elsewhere' of an installed package (a_package_that_is_not_there:Policy) does not load: "
    )


def test_the_levels_and_parameters_of_a_policy() -> None:
    lookahead = policy.find("cache", "lookahead")
    assert policy.levels(lookahead) == ("step", "queue", "oracle")
    assert policy.parameters(lookahead) == {"level": "queue", "horizon": None, "unknown": "farthest"}
    lru = policy.find("cache", "lru")
    assert (policy.levels(lru), policy.parameters(lru)) == (("history",), {})
