"""When a number counts as changed: exactly, beyond a tolerance, or beyond what replications differ by."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from moesim.analysis.metrics import ACCESS

UNITS = ("keys", "tokens", "bytes")
SUMS = {
    **{f"{kind}_{unit}": (f"{kind}_{unit}_prefill", f"{kind}_{unit}_decode") for kind in ACCESS for unit in UNITS},
    "moved_bytes": ("demand_bytes", "prefetch_bytes"),
}
"""metrics that are sums of columns of `summary.csv`"""
PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
FORMS = "exact, a tolerance such as 2%, or interval"


@dataclass(frozen=True, slots=True)
class Rule:
    """How a metric is compared. `share`: of the baseline, how much `within` lets it differ."""

    kind: Literal["exact", "within", "interval"] = "exact"
    share: float = 0.0

    @property
    def text(self) -> str:
        """As a regression file has it."""
        return f"{self.share * 100:.12g}%" if self.kind == "within" else self.kind

    @property
    def words(self) -> str:
        """What it lets pass, for a reader of the page."""
        if self.kind == "interval":
            return "no change that replications show: the 95 % interval of paired differences holds 0"
        return "equal" if self.kind == "exact" else f"within {self.text} of the baseline"


EXACT = Rule()
GOLDEN = (
    *("steps", "output_tokens", "reuse_keys", "prefetch_keys", "late_keys", "miss_keys", "evictions"),
    *("demand_bytes", "prefetch_bytes", "wasted_bytes", "span_ns"),
)
"""what is compared, exactly, where a file does not say"""


def rule_of(text: object) -> Rule | None:
    """The rule that a file means; None if it is none."""
    if text in ("exact", "interval"):
        return Rule(text)
    match = PERCENT.fullmatch(text.strip()) if isinstance(text, str) else None
    return Rule("within", float(match[1]) / 100) if match else None


MEANINGS = {
    "steps": "steps that were measured",
    "output_tokens": "output tokens of the measured steps",
    "reuse_keys": "reuse hits: experts of a layer event that were there, from an earlier use",
    "prefetch_keys": "prefetch hits: experts that were there, used for the first time since a prefetch brought them",
    "late_keys": "late hits: experts whose copy was under way when their layer needed them",
    "miss_keys": "misses: experts that were not there when their layer needed them, and of which nothing was under way",
    "evictions": "experts that left the cache",
    "demand_bytes": "bytes copied to the GPU because they were needed at once",
    "prefetch_bytes": "bytes copied to the GPU ahead of their use",
    "wasted_bytes": "bytes that were prefetched and left unused",
    "moved_bytes": "all bytes copied to the GPU: demand_bytes and prefetch_bytes",
    "span_ns": "simulated time from the start of the first measured step to the end of the last",
    "ns_per_output_token": "simulated time per output token",
    "ns_per_step": "simulated time per step",
    "misses_per_output_token": "experts that were not there in time (misses and late hits), per output token",
    "normalized_mean_ns": "mean over requests of end-to-end time / output tokens",
    "ttft_mean_ns": "mean time from arrival to first token",
    "tpot_mean_ns": "mean time per output token after the first",
    "e2e_mean_ns": "mean time from arrival to last token",
    "preemptions_recompute": "requests that had to give up their KV memory and were computed again",
    "preemptions_swap": "requests whose KV memory was swapped out",
}
"""of metrics that need no look into the documentation"""


def meaning(metric: str) -> str:
    """What a metric is, in a line."""
    return MEANINGS.get(metric, "a column of summary.csv (docs/results.md, docs/metrics.md)")


Number = int | float


def same(rule: Rule, before: Number, after: Number) -> bool:
    """Whether a run's number passes; NaN (blank) equals NaN only. `interval` is not of one run: then, whether equal."""
    if is_blank(before) or is_blank(after):
        return is_blank(before) and is_blank(after)
    return before == after or (rule.kind == "within" and abs(after - before) <= rule.share * abs(before))


def is_blank(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
