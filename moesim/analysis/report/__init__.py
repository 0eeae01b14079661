"""`moesim report`: a results folder as one HTML page (docs/report.md)."""

from moesim.analysis.report.page import render

__all__ = ["render"]
