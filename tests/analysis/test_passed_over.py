"""What the table says of requests that were passed over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from moesim.analysis.configurations import Configuration
from moesim.analysis.passed_over import notes


def made(*rows: tuple[str, int, int]) -> list[Configuration]:
    """A configuration a row: its batch policy, the longest pass-over and the bound."""
    found: list[Any] = []
    for batch, seen, stated in rows:
        runs = pd.DataFrame({"batch": [batch] * 2, "longest_pass_over": [0, seen], "pass_over_bound": [7, stated]})
        found.append(Configuration((), "lru", "history", 0, "", "layer", "", (), "", runs))
    return found


def test_the_run_that_went_on_longest_is_told_beside_its_bound() -> None:
    assert notes(made(("a", 3, 71), ("a", 5, 66), ("a", 5, 90), ("b", 1, 9), ("c", 0, 64))) == [
        "batch a: passed somebody over for 5 steps in a row (bound: 66)",
        "batch b: passed somebody over for 1 step in a row (bound: 9)",
    ]


def test_a_policy_without_a_bound_says_so() -> None:
    (told,) = notes(made(("expert-aware", 1200, -1)))
    assert told.endswith("passed somebody over for 1,200 steps in a row (no bound)")


def test_older_summaries_say_nothing() -> None:
    (new,) = made(("a", 3, 71))
    old = replace(new, runs=new.runs.drop(columns="pass_over_bound"))
    assert notes([old]) == []
