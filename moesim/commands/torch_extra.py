"""Commands that measure need torch, which an installation may not have."""

from __future__ import annotations

from importlib.util import find_spec

from moesim.errors import InputError, Problem


def needs_torch(command: str) -> None:
    """Raises InputError where torch is not installed, saying how to get it."""
    if find_spec("torch") is None:
        raise InputError(Problem(f"moesim {command}", "needs torch: pip install 'moesim[live]'"))
