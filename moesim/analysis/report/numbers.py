"""Numbers that say where they come from, so that each can be held against `summary.csv`.

A number is a `<data>` element. `value` is the exact figure and `data-of` says what it is, of the runs that the nearest
`data-runs` around it lists (and of those of `data-base`, which it is compared with). Its text is the value times
`data-scale`, rounded.

* `mean COLUMN`: the mean over the runs, those of a `cluster` counting as one; `half COLUMN`: half of its 95 % interval.
* `relative COLUMN`, `relative-low`, `relative-high`: (runs - base) / base, paired by replication, and its interval.
* `cell COLUMN`: the cell, which is the same in all these runs.
* `count WHAT`: how many.
"""

from __future__ import annotations

import math

from moesim.analysis import compare
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import Configuration
from moesim.analysis.layout import decimals
from moesim.analysis.report.html import Html, join, tag


def runs_of(configuration: Configuration | None) -> str | None:
    """Numbers of its runs, as `data-runs` has them."""
    return None if configuration is None else " ".join(map(str, configuration.runs["run"]))


def number(value: float, of: str, scale: float = 1.0, digits: int | None = None, sign: bool = False) -> Html:
    """One number, with three significant digits unless `digits` says how many decimals; nothing for NaN."""
    if math.isnan(value):
        return Html()
    shown = value * scale
    places = decimals(shown) if digits is None else digits
    shown = shown if round(shown, places) else 0.0  # no negative nothing
    text = f"{shown:+.{places}f}" if sign and shown else f"{shown:.{places}f}"
    return tag("data", text.replace("-", "−"), value=repr(float(value)), data_of=of, data_scale=scale_text(scale))


def scale_text(scale: float) -> str | None:
    return None if scale == 1 else repr(scale)


def count(amount: int, what: str) -> Html:
    """How many there are."""
    return tag("data", f"{amount:,}", value=str(amount), data_of=f"count {what}")


def mean(configuration: Configuration, column: str, scale: float = 1.0) -> Html:
    """The mean of a column over the replications and, where there is one, half of its interval."""
    found = compare.mean(configuration.values(column))
    if math.isnan(found.value):
        return Html()
    digits = decimals(found.value * scale)
    shown = number(found.value, f"mean {column}", scale, digits)
    if not found.bounded:
        return shown
    return join(shown, tag("small", "±", number(found.half, f"half {column}", scale, digits), class_="interval"))


def plain_mean(configuration: Configuration, column: str, scale: float = 1.0, digits: int | None = None) -> Html:
    """The mean without its interval, where it is not to be compared."""
    return number(configuration.mean(column), f"mean {column}", scale, digits)


def relative(found: Interval, column: str) -> Html:
    """A paired relative difference in percent, with its limits where it has some."""
    if math.isnan(found.value):
        return Html()
    digits = percent_digits(found)
    shown = join(number(found.value, f"relative {column}", 100, digits, sign=True), " %")
    if not found.half > 0:
        return shown
    low, high = (
        number(part, f"relative-{end} {column}", 100, digits, sign=True)
        for end, part in (("low", found.low), ("high", found.high))
    )
    return join(shown, tag("small", "[", low, ", ", high, "]", class_="interval"), between=" ")


def percent_digits(found: Interval) -> int:
    """Decimals of a percentage: one where it is below ten, unless its interval is wide; one also where the interval is
    narrow, or where a limit beside 0 would look as if it were 0."""
    if found.value == 0 or not found.half > 0:
        return 0 if found.value == 0 or abs(found.value) >= 0.0995 else 1
    nearest = min(abs(found.low), abs(found.high))
    coarse = (abs(found.value) >= 0.0995 and found.half >= 0.005) or found.half >= 0.05
    return 0 if coarse and nearest >= 0.005 else 1


def gap(configuration: Configuration, measure: str) -> Html:
    """The gap captured as the summary has it, in percent, with its limits; `unclear` where they are very wide."""
    name = f"gap_{measure}"
    found = Interval(*(float(configuration.value(f"{name}{limit}")) for limit in ("", "_low", "_high")))
    if math.isnan(found.value):
        return Html()
    if found.bounded and found.half >= 1:
        return tag("span", "unclear", class_="unclear", title="the interval is wider than ± 100 %")
    shown = number(found.value, f"cell {name}", 100, 0)
    if not found.bounded or found.half < 0.005:
        return shown
    low, high = (number(part, f"cell {name}_{end}", 100, 0) for end, part in (("low", found.low), ("high", found.high)))
    return join(shown, tag("small", "[", low, ", ", high, "]", class_="interval"), between=" ")

