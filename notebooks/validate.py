# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Are simulated times those of a real run?
#
# A simulator is worth what its agreement with a machine is worth. `moesim live` executes an experiment for real: the same
# policy objects and the same schedule, with real kernels in torch and real copies into expert slots. `moesim profile`
# measures what kernels and copies cost on that machine, and the simulator has nothing but these tables. This notebook
# holds the two against each other, setting by setting and step by step, and computes what may be said of the errors.
#
# The measured runs are committed under `traces/`, so that none of this needs torch. `moesim validate` does the same on the
# command line, with an exit code; `docs/validation.md` defines every quantity.

# %%
import re

import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

import moesim
from moesim.analysis.palette import COLOURS, MARKERS, PART_COLOURS, PART_NAMES
from moesim.analysis.validate import COUNTS, METRICS, PARTS, REGIMES, by_regime, compare, row, summarize
from moesim.files import shipped

plt.rcParams.update({"figure.dpi": 100, "font.size": 9})
pd.set_option("display.max_colwidth", None)
LOOKS = {regime: {"color": COLOURS[i], "marker": MARKERS[i]} for i, regime in enumerate(REGIMES)}

# %% [markdown]
# ## What was run, and what is simulated now
#
# Each folder of measured runs under `traces/` is of an experiment in `experiments/`, which is simulated here. By the share of
# its measured time that a setting stalls for experts it is *resident*, *mixed* or *transfer-bound* (the shares are in the
# table): in the first only kernels and the host can be wrong, in the last mostly the link. Settings that were used for
# calibration are marked, and never judge.

# %%
found = []
for summary in sorted(shipped("traces").rglob("summary.csv")):
    measured = moesim.load(summary.parent)
    experiment = shipped("experiments", f"{measured.name}.yaml")
    if "label_live" in measured.summary and experiment.is_file():
        simulated = moesim.run(experiment, out=f"results/{measured.name}", save=["steps"], figures=False)
        found.append((simulated, measured, compare(simulated, measured)))
settings = [setting for _, _, of_one in found for setting in of_one]


def called(setting) -> str:
    """A setting's name, without the sections of the experiment file in front of its keys."""
    return re.sub(r"\b\w+\.(\w+)", r"\1", setting.name)


def legend(ax, handles: dict) -> None:
    """Beside the axes: regimes in their order, then the other things."""
    order = sorted(handles, key=lambda name: (name not in REGIMES, REGIMES.index(name) if name in REGIMES else 0))
    look = {"fontsize": 8, "frameon": False, "loc": "upper left", "bbox_to_anchor": (1.01, 1)}
    ax.legend([handles[name] for name in order], order, **look)


def without_date(label: str) -> str:
    """A label as far as its date, which the files have."""
    return re.sub(r", 20\d\d-\d\d-\d\d.*", ")", label)


pd.DataFrame(
    [
        {
            "experiment": measured.name,
            "settings": len(of_one),
            "of these for calibration": sum(setting.role == "calibrate" for setting in of_one),
            "measured runs": len(measured.summary),
            "stalls: mixed, transfer-bound from": " %, ".join(f"{100 * share:.0f}" for share in of_one[0].limits) + " %",
            "measured on": without_date(measured.summary["label_live"].iloc[0]),
            "measured link": without_date(measured.summary["label_link"].iloc[0]),
            "simulated with costs": without_date(simulated.summary["label_costs"].iloc[0]),
            "simulated with link": without_date(simulated.summary["label_link"].iloc[0]),
        }
        for simulated, measured, of_one in found
    ]
).set_index("experiment").T

# %% [markdown]
# ## Simulated against measured
#
# **What to see.** A mark per setting: its mean step time as measured (along) and as simulated (up), both logarithmic. On the
# line they are equal; the band is 10 % either way. The second panel has the slowest steps (95th percentile), the third the
# end-to-end latency of requests, in which errors of steps add up or cancel. Blue are resident settings, orange-red mixed ones, green transfer-bound
# ones; hollow marks were used for calibration.


# %%
def scatter(ax, metric: str) -> None:
    """A mark per setting; the colour is its regime."""
    pairs = [(setting, np.array(setting.of(metric)) / 1e6) for setting in settings]
    pairs = [(setting, values) for setting, values in pairs if (values > 0).all()]  # nobody was finished: no latency
    ax.set(xscale="log", yscale="log", xlabel="measured (ms)", ylabel="simulated (ms)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    ax.set_title(METRICS[metric], fontsize=10, loc="left")
    for setting, (simulated, measured) in pairs:
        hollow = {"markerfacecolor": "white"} if setting.role == "calibrate" else {}
        label = setting.regime + (", calibration" if hollow else "")
        ax.plot(measured, simulated, linestyle="", label=label, **LOOKS[setting.regime], **hollow)
    every = np.array([values for _, values in pairs])
    ends = np.array([every.min() / 1.3, every.max() * 1.3])
    ax.plot(ends, ends, color="#444444", linewidth=1)
    ax.fill_between(ends, 0.9 * ends, 1.1 * ends, color="#DDDDDD", label="within 10 %", zorder=0)


metrics = [m for m in ("step_mean", "step_p95", "e2e_mean") if any(min(s.of(m)) > 0 for s in settings)]
figure, axes = plt.subplots(1, len(metrics), figsize=(3.4 * len(metrics) + 2, 3.4), layout="constrained")
for ax, metric in zip(axes, metrics, strict=True):
    scatter(ax, metric)
handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
legend(axes[-1], handles)

# %% [markdown]
# ## How large are the errors, and how large is the machine's own spread?
#
# **What to see.** A row per setting, sorted by regime: the error of its mean step time, simulated / measured - 1, with the 95 %
# interval over runs where there are several. The grey bar is how far repeats of the *measured* run lie apart: no simulator
# can be held to less. Left of 0 the simulator is too fast.

# %%
ordered = sorted(settings, key=lambda setting: (REGIMES.index(setting.regime), setting.stalled))
figure, ax = plt.subplots(figsize=(9.5, 0.24 * len(ordered) + 0.8), layout="constrained")
for place, setting in enumerate(ordered):
    values = setting.error("step_mean"), setting.interval("step_mean"), setting.spread("step_mean")
    error, half, spread = (100 * value for value in values)
    if not np.isnan(spread):
        ax.barh(place, spread, left=-spread / 2, color="#DDDDDD", height=0.8, label="spread of repeats" if place == 0 else None)
    look = LOOKS[setting.regime] | ({"markerfacecolor": "white"} if setting.role == "calibrate" else {})
    label = setting.regime + (", calibration" if setting.role == "calibrate" else "")
    ax.errorbar(error, place, xerr=None if np.isnan(half) else half, linestyle="", elinewidth=0.9, label=label, **look)
ax.axvline(0, color="#444444", linewidth=0.8)
ax.set_yticks(range(len(ordered)), [called(setting) for setting in ordered], fontsize=8)
ax.set_ylim(len(ordered) - 0.4, -0.6)
ax.set_xlabel("error of the mean step time, simulated / measured - 1 (%)")
ax.grid(axis="x", color="#E5E5E5")
legend(ax, dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True)))

# %% [markdown]
# The same for every metric, in the median over the settings that judge. Where every expert is resident there is hardly a
# stall to be off by, and its error means little.

# %%
regimes = by_regime(settings)
table = pd.DataFrame(
    [
        {
            "regime": f"{regime} ({len(of_regime)})",
            "metric": words,
            "median error, %": 100 * errors.median,
            "95 % interval": f"{100 * errors.low:.1f} to {100 * errors.high:.1f}",
            "largest, %": 100 * errors.largest,
            "repeats apart, %": 100 * errors.spread,
        }
        for regime, of_regime in regimes.items()
        for metric, words in METRICS.items()
        if (errors := summarize(of_regime, metric)) is not None
    ]
)
table.set_index(["regime", "metric"]).round(1)

# %% [markdown]
# ## Step by step
#
# A mean may be right for the wrong reasons. **What to see.** One setting of each regime that is there, the middle one of
# those whose steps are the same in both (where arrivals form the schedule, other times form other steps): the duration of each measured step in the order of the schedule, as measured (grey, a line per repeat) and as simulated
# (colour). Steps with a prompt stand out. Where the colour follows the grey, the simulator knows *which* steps are slow.


# %%
def durations(results, run: int) -> np.ndarray:
    """Of the measured steps of a run, in ms."""
    steps = results.steps
    steps = steps[(steps["run"] == run) & steps["measured"]]
    return (steps["end_ns"] - steps["start_ns"]).to_numpy() / 1e6


def run_pairs(simulated, measured, setting) -> list[tuple[int, int]]:
    """Numbers of the simulated and measured runs of a setting: rows with the same labels and replication."""
    ours, theirs = simulated.summary.set_index("run"), measured.summary.set_index("run")
    place = [config.labels for config in simulated.configs].index(setting.labels)
    first = sum(config.replications for config in simulated.configs[:place])
    same = [name for name in ours.columns[: list(ours.columns).index("steps")] if name in theirs]
    equal = (theirs[same].astype(str) == ours.loc[first, same].astype(str)).all(axis=1)
    return [(first, run) for run in theirs.index[equal]]


middle = {}
for regime in REGIMES:
    members = [(s, m, x) for s, m, of_one in found for x in of_one if x.regime == regime and not x.recomposed]
    if members:
        middle[regime] = sorted(members, key=lambda member: member[2].stalled)[len(members) // 2]
figure, axes = plt.subplots(len(middle), 1, figsize=(8.5, 2.2 * len(middle)), layout="constrained", squeeze=False)
follow = {}
for ax, (regime, (simulated, measured, setting)) in zip(axes[:, 0], middle.items(), strict=True):
    pairs = run_pairs(simulated, measured, setting)
    ours = durations(simulated, pairs[0][0])
    repeats = [durations(measured, run) for _, run in pairs]
    for number, theirs in enumerate(repeats):
        ax.plot(theirs, color="#999999", linewidth=0.9, label="measured" if number == 0 else None)
    ax.plot(ours, color=LOOKS[regime]["color"], linewidth=1.4, label="simulated")
    ax.set_ylim(bottom=0)
    ax.set_ylabel("step (ms)")
    ax.set_title(f"{regime}: {called(setting)}", fontsize=10, loc="left")
    ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))
    typical = np.median(repeats, axis=0)
    follow[regime] = (np.corrcoef(ours, typical)[0, 1], 100 * np.median(abs(ours / typical - 1)))
axes[-1, 0].set_xlabel("measured step");

# %%
Markdown(
    "\n".join(
        f"* **{regime}**: of single steps the median error is {error:.1f} %, the correlation over the schedule "
        f"{correlation:.2f}."
        for regime, (correlation, error) in follow.items()
    )
)

# %% [markdown]
# ## Which part of a step is off?
#
# **What to see.** The mean step of these settings in two bars: measured above, simulated below, in the same order of parts:
# kernels, host, and stalls for missing experts. A part that is wider in one of them is where the tables, or the model of
# the machine, say something else than the clock.

# %%
figure, axes = plt.subplots(len(middle), 1, figsize=(8.5, 1.35 * len(middle) + 0.5), layout="constrained", squeeze=False)
apart = {}
for ax, (regime, (_, _, setting)) in zip(axes[:, 0], middle.items(), strict=True):
    values = row(setting)
    for place, kind in enumerate(("measured", "simulated")):
        left = 0.0
        for part in PARTS:
            width = (values[f"{part}_ns_{kind}"] or 0.0) / 1e6
            if width:
                ax.barh(place, width, left=left, color=PART_COLOURS[part], label=PART_NAMES[part])
            left += width
    ax.set_yticks([0, 1], ["measured", "simulated"])
    ax.invert_yaxis()
    ax.set_title(f"{regime}: {called(setting)}", fontsize=10, loc="left")
    total = values["step_mean_measured"] / 1e6
    gaps = {part: (values[f"{part}_ns_simulated"] - values[f"{part}_ns_measured"]) / 1e6 for part in PARTS}
    apart[regime] = (max(gaps, key=lambda part: abs(gaps[part])), gaps, total)
handles = {}
for ax in axes[:, 0]:
    handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
axes[0, 0].legend(handles.values(), handles.keys(), fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.1))
axes[-1, 0].set_xlabel("mean step (ms)");

# %%
Markdown(
    "\n".join(
        f"* **{regime}**: the part that differs most is *{PART_NAMES[part]}*, by {gaps[part]:+.2f} ms of a measured step of "
        f"{total:.2f} ms ({100 * gaps[part] / total:+.1f} %)."
        for regime, (part, gaps, total) in apart.items()
    )
)

# %% [markdown]
# ## Do they take the same decisions?
#
# Under demand loading on a frozen schedule no decision depends on time, so that hits, misses and evictions must be *equal*, one
# by one. That is no measurement, it is a proof that both run the same policies.

# %%
exact = [setting for setting in settings if setting.exact]
equal = [setting for setting in exact if not setting.differing and not setting.recomposed]
counted = sum(setting.counts[1][name] for setting in exact for name in COUNTS)
Markdown(
    f"Counts must be equal in {len(exact)} of {len(settings)} settings, and are equal in {len(equal)} of these: "
    f"{counted:,} hits, misses and evictions, one by one."
)

# %% [markdown]
# ## What may be said

# %%
lines = []
for regime in REGIMES:
    errors = summarize(regimes.get(regime, []), "step_mean")
    if errors is None:
        lines.append(f"* **{regime}**: no setting judges; nothing may be said.")
        continue
    repeats = "" if np.isnan(errors.spread) else f"; the machine's own repeats are {100 * errors.spread:.1f} % apart"
    lines.append(
        f"* **{regime}**, {errors.settings} settings that were not used for calibration: the mean step time is off by "
        f"{100 * errors.median:.1f} % in the median [{100 * errors.low:.1f}, {100 * errors.high:.1f}], by "
        f"{100 * errors.largest:.1f} % at most{repeats}."
    )
devices = sorted({without_date(measured.summary["label_live"].iloc[0]) for _, measured, _ in found})
Markdown("\n".join(lines) + "\n\nAll of it on: " + "; ".join(devices) + ". Nothing here says what the errors are elsewhere.")
