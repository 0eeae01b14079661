"""`moesim policies`, its check, and its presets, as a user calls them."""

from __future__ import annotations

import json
import signal
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from moesim import policy, presets
from moesim.cli import app
from moesim.policy import registry
from tests.test_cli import imported_by

GOOD = '''
from moesim.policy import BatchPolicy, register
from moesim.policy.batch import fill


@register("mine")
class Mine(BatchPolicy):
    """Takes what came first. And nothing else."""

    source, cost = "ours", "O(queue)"

    def __init__(self, depth: int = 3) -> None:
        if depth < 0:
            raise ValueError(f"depth {depth} must be 0 or more")

    def form(self, queue, limits):
        return fill(queue, limits)
'''


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["policies", *map(str, words)])


def test_the_list_says_everything_of_every_policy() -> None:
    document = json.loads(call("--json").stdout)
    named = {(row["kind"], row["name"]): row for row in document["policies"]}
    assert {kind for kind, _ in named} <= set(policy.KINDS)
    for kind in policy.KINDS:
        assert {name for of, name in named if of == kind} == set(policy.names(kind))
    assert all(row[key] for row in named.values() for key in ("levels", "cost", "source", "about"))
    assert named["cache", "lookahead"]["levels"] == ["step", "queue", "oracle"]
    assert named["cache", "lookahead"]["parameters"] == {"level": "queue", "horizon": None, "unknown": "farthest"}
    assert named["cache", "lru"]["about"].startswith("Evict the key used longest ago; a prefetch counts as a use")
    assert [row["name"] for row in document["presets"]] == presets.names()


def test_the_table_has_a_row_for_each() -> None:
    text = call().stdout
    words = {line.split()[0] for line in text.splitlines() if line.strip()}
    assert {name for kind in policy.KINDS for name in policy.names(kind)} <= words
    assert set(presets.names()) <= words
    assert max(map(len, text.splitlines())) <= 100


def test_one_kind_alone() -> None:
    assert {row["kind"] for row in json.loads(call("--kind", "batch", "--json").stdout)["policies"]} == {"batch"}
    only = json.loads(call("--kind", "preset", "--json").stdout)
    assert (only["policies"], len(only["presets"])) == ([], len(presets.names()))
    wrong = call("--kind", "cash")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "--kind: unknown kind 'cash'; did you mean 'cache'?" in wrong.stderr


def test_a_broken_package_is_a_message_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("broken", "package_that_is_not_there:Policy", "moesim.cache"),
        EntryPoint("number", "math:pi", "moesim.cache"),
    ]

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [p for p in points if p.group == group and name in (None, p.name)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    listed = call("--kind", "cache")
    assert listed.exit_code == 2 and "lru" in listed.stdout
    first, second = listed.stderr.splitlines()
    assert "'broken' of an installed package (package_that_is_not_there:Policy) does not load: ModuleNotFound" in first
    assert "'number' of an installed package (math:pi) is 3.14" in second and "no subclass of CachePolicy" in second
    checked = call("check", "broken")
    assert (checked.exit_code, checked.stdout) == (2, "")
    assert "does not load" in checked.stderr and "Traceback" not in checked.stderr


def test_show_prints_a_preset_or_a_policy() -> None:
    text = call("show", "read-me").stdout
    assert text.startswith("read-me\nrepresents: ") and "\nleaves out: " in text and "\nsource: " in text
    assert "cache:\n  name: lookahead\n  level: queue\n" in text
    shown = json.loads(call("show", "read-me", "--json").stdout)
    assert shown["settings"]["prefetch"] == "next-layer"
    text = call("show", "hobbit", "--kind", "cache").stdout
    assert text.startswith("cache policy hobbit\nlevel: history\n") and "parameters: lru=0.4" in text
    several = call("show", "moe-infinity-paper", "--kind", "cache")
    assert several.stdout.startswith("cache policy moe-infinity-paper")
    wrong = call("show", "read-mee")
    assert wrong.exit_code == 2 and "unknown policy 'read-mee'; did you mean 'read-me'?" in wrong.stderr


def test_check_passes_a_good_policy(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    done = call("check", path)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("batch policy mine (") and "all 8 checks passed" in done.stdout
    document = json.loads(call("check", path, "--json").stdout)
    assert document["passed"] and {row["status"] for row in document["checks"]} == {"pass"}


def test_a_file_that_was_edited_is_checked_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GOOD.replace("return fill(queue, limits)", "return []"))
    done = call("check", path)
    assert done.exit_code == 1
    assert "FAILED" in done.stdout and "chose nothing although requests wait" in done.stdout
    assert "checks failed" in done.stdout.splitlines()[-1]
    path.write_text(GOOD)
    assert call("check", path).exit_code == 0


LOOPS = """
        while True:
            try:
                self.turns = 1
            except Exception:
                pass
"""


def test_a_policy_that_loops_for_ever_is_told_of_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GOOD.replace("        return fill(queue, limits)", LOOPS.strip("\n")))
    done = call("check", path, "--limit", "0.2")
    assert done.exit_code == 1, done.output
    failed = [line for line in done.stdout.splitlines() if "FAILED" in line]
    assert len(failed) == 4 and "took longer than 0.2 s, when it was in form (mine.py:" in done.stdout
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0) and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_one_that_loops_when_it_is_made_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GOOD.replace("        if depth < 0:", LOOPS + "        if depth < 0:"))
    done = call("check", path, "--limit", "0.2")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "making this policy took longer than 0.2 s, when it was in __init__ (mine.py:" in done.stderr


def test_parameters_of_what_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    assert call("check", f"{path}(depth=1)").exit_code == 0
    wrong = call("check", f"{path}(depth=-1)")
    assert (wrong.exit_code, wrong.stdout) == (2, "") and "depth -1 must be 0 or more" in wrong.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Broken(:", "this policy file does not load: SyntaxError"),
        ("x = 1", "holds no policy: a subclass of"),
        (GOOD + GOOD.replace('"mine"', '"other"').replace("class Mine", "class Other"), "holds 2 registered batch"),
    ],
)
def test_a_bad_file_is_one_message(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    done = call("check", path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("moesim: bad input\n") and says in done.stderr and len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nobody"], "unknown policy 'nobody'"),
        (["nobody.py"], "no such policy file"),
        (["lru", "--kind", "batch"], "unknown policy 'lru'"),
        (["lookahead(level=all)"], "level 'all' must be step, queue or oracle"),
        (["lookahead(level)"], "'level' has no value; write PARAMETER=VALUE"),
        (["lru@layer"], "has a scope"),
        (["moe-infinity", "--kind", "preset"], "--kind: unknown kind 'preset'"),
    ],
)
def test_check_refuses(words: list[str], says: str) -> None:
    done = call("check", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr


def test_help_imports_nothing_heavy() -> None:
    assert not {"numpy", "pydantic", "yaml", "simpy", "moesim.check"} & imported_by("import moesim.commands.policies")
    assert call("--help").exit_code == call("check", "--help").exit_code == 0


@pytest.mark.parametrize("words", [[], ["--kind", "preset"]])
def test_the_page_has_the_list_as_it_is(words: list[str]) -> None:
    """`moesim policies --markdown` prints what to put there."""
    page = (Path(__file__).parent.parent / "docs" / "policies.md").read_text()
    command = " ".join(["moesim policies --markdown", *words])
    start, end = f"<!-- from here: {command} -->\n\n", "\n<!-- to here -->"
    assert page.split(start)[1].split(end)[0] == call("--markdown", *words).stdout
