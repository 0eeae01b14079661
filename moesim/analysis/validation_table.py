"""The comparison of simulated and measured as text, and as a figure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from moesim.analysis.drawing import panels_of
from moesim.analysis.palette import COLOURS, MARKERS
from moesim.analysis.validate import METRICS, REGIMES, Setting, by_regime, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = 110
"""characters of a line above the figure"""
SHOWN = ("step_mean", "step_p95", "ttft_mean", "tpot_mean", "e2e_mean")
HEADS = {"step_mean": "step", "step_p95": "step p95", "ttft_mean": "TTFT", "tpot_mean": "TPOT", "e2e_mean": "e2e"}
DRAWN = ("step_mean", "step_p95", "tpot_mean", "e2e_mean")
LEGEND = (
    "error: simulated / measured - 1, of means over runs",
    "±: half of the error's 95 % interval (Student's) over replications, or over the repeats of the only one",
    "repeats: largest over least measured mean step time of a replication, less 1: how far the machine is from itself",
    "stalled: share of the measured time of steps in which the stream waited for experts; it decides the regime",
    "hits: equal, or runs in which hits, misses or evictions differ of all; must: no decision depends on timing",
    "c: used for calibration, and not judged",
)


def render(settings: Sequence[Setting], metrics: Sequence[str], limit: float, labels: Sequence[str]) -> str:
    """A line per setting, then the errors of each regime, then what the words mean."""
    lines = [*labels, "", *_rows(settings), "", *_regimes(settings, metrics, limit), "", *LEGEND]
    return "\n".join(lines) + "\n"


def _rows(settings: Sequence[Setting]) -> Iterator[str]:
    longest = max([len(setting.name) for setting in settings] + [8])
    heads = "".join(f"{HEADS[metric]:>10}" for metric in SHOWN)
    yield f"{'setting':{longest}}   {'regime':15}{'stalled':>8}{'measured':>11}{heads}{'±':>8}{'repeats':>9}  hits"
    for setting in sorted(settings, key=lambda s: (REGIMES.index(s.regime), s.stalled)):
        mark = "c" if setting.role == "calibrate" else " "
        errors = "".join(f"{percent(setting.error(metric)):>10}" for metric in SHOWN)
        head = f"{setting.name:{longest}} {mark} {setting.regime:15}{setting.stalled:>8.1%}"
        time = f"{setting.of('step_mean')[1] / 1e6:>8.2f} ms"
        wide = setting.interval("step_mean"), setting.spread("step_mean")
        around, apart = (percent(value, signed=False) for value in wide)
        yield f"{head}{time}{errors}{around:>8}{apart:>9}  {_hits(setting)}"


def _hits(setting: Setting) -> str:
    said = f"{setting.differing} of {len(setting.pairs)} differ" if setting.differing else "equal"
    more = f", {setting.recomposed} steps composed otherwise" if setting.recomposed else ""
    return said + (" (must)" if setting.exact else "") + more


def _regimes(settings: Sequence[Setting], metrics: Sequence[str], limit: float) -> Iterator[str]:
    yield "Median absolute error over the settings that judge, with its 95 % interval; largest; repeats:"
    for regime, of_regime in by_regime(settings).items():
        yield f"  {regime}, {len(of_regime)} settings"
        for metric, words in METRICS.items():
            if (found := summarize(of_regime, metric)) is not None:
                over = f"  over the limit of {limit:.0%}" if metric in metrics and found.median > limit else ""
                interval = f"{found.median:7.1%}  [{found.low:.1%}, {found.high:.1%}]"
                apart = percent(found.spread, signed=False)
                yield f"    {words:28}{interval:26} largest {found.largest:6.1%}, repeats {apart}{over}"


def percent(value: float, *, signed: bool = True) -> str:
    """`+3.2 %`; a dash for what is no number."""
    if math.isnan(value):
        return "-"
    return f"{value:+.1%}" if signed else f"{value:.1%}"


def scatter(settings: Sequence[Setting], title: str) -> Figure:
    """Simulated over measured, a panel per metric: colours are regimes, hollow ones were used for calibration."""
    figure, panels = panels_of(2, 2, (3.6, 3.2))
    for panel, metric in zip(panels.flat, DRAWN, strict=True):
        _panel(panel, settings, metric)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    lines = [line for part in title.splitlines() for line in textwrap.wrap(part, TITLE, subsequent_indent="  ")]
    figure.suptitle("\n".join(lines), fontsize=8, x=0.01, horizontalalignment="left")
    return figure


def _panel(panel: Axes, settings: Sequence[Setting], metric: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for setting in settings:
        simulated, measured = (value / 1e6 for value in setting.of(metric))
        if simulated > 0 and measured > 0:
            points.setdefault((setting.regime, setting.role), []).append((measured, simulated))
    panel.set_title(METRICS[metric], fontsize=9, loc="left")
    if not points:
        return
    every = [value for of_kind in points.values() for pair in of_kind for value in pair]
    ends = [min(every) / 1.2, max(every) * 1.2]
    panel.plot(ends, ends, color="#444444", linewidth=1, label="equal")
    panel.fill_between(ends, [0.9 * e for e in ends], [1.1 * e for e in ends], color="#DDDDDD", label="within 10 %")
    for (regime, role), of_kind in sorted(points.items(), key=lambda item: REGIMES.index(item[0][0])):
        colour, marker = COLOURS[REGIMES.index(regime)], MARKERS[REGIMES.index(regime)]
        fitted = role == "calibrate"
        panel.plot(
            *zip(*of_kind, strict=True), linestyle="", marker=marker, markersize=5, color=colour,
            markerfacecolor="none" if fitted else colour, label=f"{regime}, calibration" if fitted else regime,
        )  # fmt: skip
    panel.set(xscale="log", yscale="log", xlabel="measured (ms)", ylabel="simulated (ms)")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
