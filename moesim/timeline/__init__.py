"""`moesim run --timeline`: some steps of a run as a trace that Perfetto and Chrome open (docs/timeline.md)."""

from moesim.timeline.record import Window, record, window

__all__ = ["Window", "record", "window"]
