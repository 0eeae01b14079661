"""moesim: expert caches, prefetchers and batchers of mixture-of-experts servers, replayed on real routing.

    results = moesim.run("experiments/lookahead.yaml", memory__slots=[4, 5])
    moesim.compare(results, against="lru").plot()
    moesim.cache("traces/routing/smollm2-135m-decoupled.parquet").plot()

docs/python.md shows what there is. Everything is imported on first use, so that `import moesim` takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Comparison", "Curves", "InputError", "Results", "__version__", "cache", "compare", "load", "run"]

if TYPE_CHECKING:
    from moesim.analysis.contrast import Comparison, compare
    from moesim.curves import Curves, cache
    from moesim.errors import InputError
    from moesim.results import Results
    from moesim.runner import run

    load = Results.load

_HOMES = {
    "Comparison": "moesim.analysis.contrast",
    "Curves": "moesim.curves",
    "InputError": "moesim.errors",
    "Results": "moesim.results",
    "cache": "moesim.curves",
    "compare": "moesim.analysis.contrast",
    "run": "moesim.runner",
}


def __getattr__(name: str) -> Any:
    """Import on first use."""
    from importlib import import_module

    if name == "load":
        return import_module("moesim.results").Results.load
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
