"""moesim: expert caches, prefetchers and batchers of mixture-of-experts servers, replayed on real routing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["InputError", "Results", "__version__", "load", "run"]

if TYPE_CHECKING:
    from moesim.errors import InputError
    from moesim.results import Results
    from moesim.runner import run

    load = Results.load

_HOMES = {"InputError": "moesim.errors", "Results": "moesim.results", "run": "moesim.runner"}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import moesim` takes no time."""
    from importlib import import_module

    if name == "load":
        return import_module("moesim.results").Results.load
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
