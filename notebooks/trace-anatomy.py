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
# # What real routing looks like
#
# A cache lives on habits: an expert that was used a moment ago is used again. Whether a router has such habits decides
# what any cache, prefetcher or batcher can be worth, and no synthetic trace tells. This notebook takes routing that
# real models took on real texts apart: how long a choice lasts, what a text's domain says about it, how soon an expert
# is used again, how many experts a batch needs - and, at the end, what a cache of each size makes of it.
#
# All of it is counted, nothing is timed. `traces/README.md` says where the traces come from and what is weak about
# them; `moesim trace stats` prints the same in plain words for a trace of yours.

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap

import moesim
from moesim.analysis.palette import COLOURS
from moesim.files import shipped
from moesim.trace.routing import read_routing
from moesim.trace.stats import statistics

plt.rcParams.update({"figure.dpi": 100, "font.size": 9})

# %% [markdown]
# ## The traces
#
# The pair of one model where it is there: `domains` decides once per token for all layers (a decoupled, pre-gating
# router), `fine-grained` in each layer anew, on the same tokens. Else the trace on which the experiments rest.

# %%
folder = shipped("traces", "routing")
pair = ["smollm2-135m-domains", "smollm2-135m-fine-grained"]
names = pair if all((folder / f"{name}.parquet").is_file() for name in pair) else ["smollm2-135m-decoupled"]
files = {name.removeprefix("smollm2-135m-"): folder / f"{name}.parquet" for name in names}
traces = {name: read_routing(path) for name, path in files.items()}
found = {name: statistics(trace) for name, trace in traces.items()}

pd.DataFrame(
    {
        name: {
            "model": trace.meta.model,
            "routing": trace.meta.label,
            "router": trace.meta.router,
            "layers": trace.meta.layers,
            "experts a layer": trace.meta.experts,
            "experts a token (k)": trace.meta.k,
            "sequences": f"{trace.sequences:,}",
            "prompt tokens": f"{trace.prompt_tokens.sum():,}",
            "output tokens": f"{trace.output_tokens.sum():,}",
            "domains of text": len(set(trace.domains)),
        }
        for name, trace in traces.items()
    }
)

# %% [markdown]
# ## One request
#
# **What to see.** The first expert that each token of one request chose (colours), in each layer (up) for each position
# (along); left of the white line is the prompt. A decoupled router has one decision for all layers, so that its
# columns have one colour. Look at how long a colour lasts along the text.

# %%
SHOWN = 160  # tokens


def one_request(ax, trace) -> None:
    """The request whose prompt is nearest to 60 tokens, among those with at least 60 output tokens."""
    long = np.flatnonzero(trace.output_tokens >= 60)
    chosen = long[np.argmin(abs(trace.prompt_tokens[long] - 60))]
    rows = trace.experts[trace.offsets[chosen] :][:SHOWN][: trace.lengths[chosen], :, 0].T
    image = np.repeat(rows, trace.meta.layers // len(rows), axis=0)
    experts = trace.meta.experts
    look = {"cmap": ListedColormap([COLOURS[e % len(COLOURS)] for e in range(experts)]), "interpolation": "none"}
    ax.imshow(image, aspect="auto", origin="lower", vmin=-0.5, vmax=experts - 0.5, **look)
    ax.axvline(trace.prompt_tokens[chosen] - 0.5, color="white", linewidth=2)
    ax.set_xlabel("position in the request (tokens)")
    ax.set_ylabel("layer")
    ax.set_title(f"{trace.meta.router} router · text: {trace.domains[chosen]}", fontsize=10, loc="left")


figure, axes = plt.subplots(len(traces), 1, figsize=(8, 2.4 * len(traces)), layout="constrained", squeeze=False)
for ax, trace in zip(axes[:, 0], traces.values(), strict=True):
    one_request(ax, trace)

# %% [markdown]
# ## How long does a choice last?
#
# **What to see.** The share of its experts that a token has in common with the one so many tokens before it in the
# same output. Dotted: what popularity alone would give. A line that stays high far from the dots means that a
# *request* has its experts; one that falls to the dots means that only the last few tokens say anything.

# %%
figure, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
for (name, one), colour, marker in zip(found.items(), COLOURS, "oD", strict=False):
    lags = {int(lag): 100 * share for lag, share in one["overlap"]["by_lag"].items() if share is not None}
    ax.plot(list(lags), list(lags.values()), color=colour, marker=marker, label=name)
    ax.axhline(100 * one["overlap"]["popular"], color=colour, linestyle=":", label=f"{name}, by popularity")
ax.set_xscale("log", base=2)
ax.set_xticks(list(lags), list(lags))
ax.minorticks_off()
ax.set_ylim(0, 100)
ax.set_xlabel("tokens before")
ax.set_ylabel("experts in common (%)")
ax.grid(color="#E5E5E5")
ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1));

# %%
Markdown("\n".join(f"* **{name}**: {one['findings']['overlap']}" for name, one in found.items()))

# %% [markdown]
# ## Is it the domain of the text?
#
# **What to see.** A row per domain of text, a column per expert; dark is a large share of the row's choices. If experts
# were of domains, each row would have one dark cell, and no two rows the same one. Of a layer-wise router the layer
# shown is the one in the middle; experts of different layers have nothing to do with each other.


# %%
def shares(trace) -> pd.DataFrame:
    """Share of each expert in the choices of each domain's output tokens, in one layer."""
    layer = trace.experts.shape[1] // 2
    position = np.arange(trace.tokens) - np.repeat(trace.offsets[:-1], trace.lengths)
    output = position >= np.repeat(trace.prompt_tokens, trace.lengths)
    domain = np.repeat(np.array(trace.domains), trace.lengths)[output]
    chosen = trace.experts[output, layer]
    frame = pd.DataFrame({"domain": np.repeat(domain, chosen.shape[1]), "expert": chosen.ravel()})
    counted = pd.crosstab(frame["domain"], frame["expert"], normalize="index")
    return counted.loc[counted.idxmax(axis=1).sort_values(kind="stable").index]


tables = {name: shares(trace) for name, trace in traces.items()}
figure, axes = plt.subplots(1, len(tables), figsize=(5.6 * len(tables), 3.2), layout="constrained", squeeze=False)
for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
    image = ax.imshow(table * 100, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    ax.set_xticks(range(table.shape[1]), table.columns)
    ax.set_yticks(range(len(table)), table.index)
    ax.set_xlabel("expert")
    ax.set_title(name, fontsize=10, loc="left")
    for (row, column), share in np.ndenumerate(table.to_numpy()):
        look = {"ha": "center", "va": "center", "fontsize": 7, "color": "w" if share > 0.5 else "k"}
        ax.text(column, row, f"{100 * share:.0f}", **look)
figure.colorbar(image, ax=axes, label="share of the domain's choices (%)");

# %%
lines = []
for name, table in tables.items():
    largest = 100 * table.max(axis=1)
    lines.append(
        f"* **{name}**: the commonest expert of a domain has {largest.min():.0f} to {largest.max():.0f} % of its choices "
        f"(if all were used alike it would be {100 / traces[name].meta.experts:.0f} %), "
        f"and {len(table)} domains have {table.idxmax(axis=1).nunique()} different ones."
    )
Markdown("\n".join(lines))

# %% [markdown]
# ## How soon is an expert used again?
#
# **What to see.** Reuse distance: how many other experts of its layer were used since an expert's last use. The share of
# uses below a distance is what an LRU cache of that size per layer hits (Mattson et al., 1970), a request at a time. A
# curve that rises at once needs a small cache; the dashed line is what choices that ignore the past would give.

# %%
figure, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
for (name, one), colour, marker in zip(found.items(), COLOURS, "oD", strict=False):
    experts, k = one["experts"], one["k"]
    hits = 100 * np.array(one["reuse"]["hit_share"])
    sizes = np.arange(len(hits))
    ax.plot(sizes[k:], hits[k:], color=colour, marker=marker, markersize=4, label=f"{name}, measured")
    even = 100 * sizes[k:] / experts
    ax.plot(sizes[k:], even, color=colour, linestyle="--", linewidth=1, label=f"{name}, without habits")
ax.set_xlim(left=0)
ax.set_ylim(0, 102)
ax.set_xlabel("cache size (experts a layer)")
ax.set_ylabel("uses whose last use is still there (%)")
ax.grid(color="#E5E5E5")
ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1));

# %%
Markdown("\n".join(f"* **{name}**: {one['findings']['reuse']}" for name, one in found.items()))

# %% [markdown]
# ## How many experts does a batch need?
#
# **What to see.** The unique experts of a layer in a batch of tokens drawn from different requests. Solid: measured; dashed:
# if tokens chose alike and on their own. The thin line on top is all experts of the layer. Habits of a request do not help
# here: other requests have other habits. Where the solid line meets the top, every step needs everything, and no cache
# smaller than that can avoid loading.

# %%
figure, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
for (name, one), colour, marker in zip(found.items(), COLOURS, "oD", strict=False):
    data = one["breadth"]
    ax.plot(data["batches"], data["unique"], color=colour, marker=marker, markersize=4, label=f"{name}, measured")
    ax.plot(data["batches"], data["even"], color=colour, linestyle="--", linewidth=1, label=f"{name}, by chance")
    ax.axhline(one["experts"], color=colour, linewidth=0.7)
ax.set_xscale("log", base=2)
ax.set_xticks(data["batches"], data["batches"])
ax.minorticks_off()
ax.set_ylim(bottom=0)
ax.set_xlabel("tokens in the batch, each of another request")
ax.set_ylabel("unique experts a layer")
ax.grid(color="#E5E5E5")
ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1));

# %%
Markdown("\n".join(f"* **{name}**: {one['findings']['breadth']}" for name, one in found.items()))

# %% [markdown]
# ## What does it mean for a cache?
#
# **What to see.** What must be loaded per output token in an untimed replay, one request after the other, against the cache's
# size: LRU (blue circles) and LFU (green squares), in one cache for all layers and, hollow, in one per layer; dashed
# with stars MIN, which knows the future. The axis is logarithmic and in bytes, because experts of different models are of
# different sizes. Look at how far the honest ones are from MIN, and how soon a larger cache pays.

# %%
sizes = {name: range(max(trace.meta.k, 1), trace.meta.experts) for name, trace in traces.items()}
curves = {
    name: moesim.cache({name: files[name]}, policies="lru,lfu,min", sizes=[f"{n}/layer" for n in sizes[name]], sequences=42)
    for name in traces
}
figure, axes = plt.subplots(len(curves), 1, figsize=(7.5, 3.4 * len(curves)), layout="constrained", squeeze=False, sharey=True)
for ax, (name, curve) in zip(axes[:, 0], curves.items(), strict=True):
    curve.plot(ax=ax, measure="bytes")
    ax.set_title(f"{name}: {traces[name].meta.router} router", fontsize=10, loc="left")
for ax in axes[:, 0]:
    ax.set_yscale("log")
    ax.autoscale(axis="y")

# %%
def keys(name: str) -> int:
    """Expert keys that a token uses."""
    return traces[name].meta.layers * traces[name].meta.k


lines = []
for name, curve in curves.items():
    frame = curve.frame
    middle = sorted(frame["experts_per_layer"].unique())[frame["experts_per_layer"].nunique() // 2]
    here = frame[frame["experts_per_layer"] == middle].set_index(["policy", "scope"])["mb_per_token"]
    honest = here.drop("min", level="policy")
    scopes = {"layer": "per layer", "global": "for all layers"}
    least, most = (f"{policy} {scopes[scope]}" for policy, scope in (honest.idxmin(), honest.idxmax()))
    lines.append(
        f"* **{name}**, {middle:.0f} of {traces[name].meta.experts} experts a layer: {least} is the best without foresight "
        f"and loads {honest.min():.3g} MB a token, {most} is the worst with {honest.max():.3g}; MIN loads "
        f"{here['min'].min():.3g}. Without a cache it would be {traces[name].meta.key_bytes * keys(name) / 1e6:.3g}."
    )
Markdown("\n".join(lines))

# %% [markdown]
# ## And with requests beside each other?
#
# A server runs several requests in a step, and what they need together is the figure before the last. The timed
# experiments start there: `lookahead.ipynb` asks what a cache can still do, and what knowing routes ahead adds.
#
# ## What may be concluded

# %%
lines = []
for number, (name, one) in enumerate(found.items(), 1):
    lags = {lag: share for lag, share in one["overlap"]["by_lag"].items() if share is not None}
    first, (far, last) = next(iter(lags.values())), list(lags.items())[-1]
    chance = one["overlap"]["popular"]
    if last > 1.5 * chance:
        habit = "a request keeps its experts."
    elif last > 1.1 * chance:
        habit = "little of a request's habits lasts beyond what is popular anyway."
    else:
        habit = "habits do not last."
    breadth = one["breadth"]
    eight = dict(zip(breadth["batches"], breadth["unique"], strict=True))[8]
    half = one["reuse"]["experts_for"]["80 %"]
    lines.append(
        f"{number}. **{name}**: a token shares {100 * first:.0f} % of its experts with the one before it and "
        f"{100 * last:.0f} % with the one {far} before, where popularity alone gives {100 * chance:.0f} %: "
        f"{habit} For one request, an LRU of {half} of {one['experts']} experts a layer hits 80 % of the uses; "
        f"eight requests together need {eight:.1f} of them in each step."
    )
Markdown("\n".join(lines))
