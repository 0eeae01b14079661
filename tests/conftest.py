"""Coverage is measured where a test is about a few lines, not where it repeats them in thousands of random cases."""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest

REPEATING = (
    "tests/policies/test_batch.py::test_steps_keep_the_limits_use_known_tokens_and_change_nothing",
    "tests/policies/test_batch_starvation.py",
    "tests/policies/test_cache_contract.py::test_memory_stays_flat",
    "tests/policies/test_cache_engine.py::test_books_balance",
    "tests/reference/",
    "tests/sim/test_claims.py",
    "tests/sim/test_conservation.py",
    "tests/sim/test_patterns.py",
    "tests/sim/test_scramble.py",
)
"""these take two to seven times as long under coverage, and others reach the lines that they reach"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Not with the marker `no_cover`: in the processes of pytest-xdist it has no effect (pytest-cov 7.1)."""
    tracer = sys.gettrace()
    if item.nodeid.startswith(REPEATING):
        sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)
