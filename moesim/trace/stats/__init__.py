"""What the routing of a trace means for a cache: measured from the trace, and said in plain words (docs/traces.md)."""

from moesim.trace.stats.report import render, statistics

__all__ = ["render", "statistics"]
