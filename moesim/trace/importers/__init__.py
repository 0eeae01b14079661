"""Routing of other programs, read into our own form (docs/traces.md). One module a format."""

from moesim.trace.importers.options import FORMATS, Options
from moesim.trace.importers.read import detect, read_any

__all__ = ["FORMATS", "Options", "detect", "read_any"]
