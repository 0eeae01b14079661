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
# # How much of Belady's gain does a finite lookahead buy?
#
# A mixture-of-experts server keeps some of its experts in GPU memory and loads the others over the link when a token
# needs them. Belady's rule - evict what is needed farthest in the future - is the best that a cache can do, and no
# server can follow it, because the future is not known. A *pre-gating* router, as in Read-ME, knows some of it: the
# experts of a token in **all** layers before its forward pass, and those of tokens that still wait in a queue. This
# notebook asks what that is worth, from the runs to the conclusions.
#
# What runs here is `experiments/lookahead.yaml` with fewer policies, steps and replications, so that it takes half a
# minute. The routing is real: captured from SmolLM2-135M, refactorized into seven domain experts. The times are
# **ESTIMATED**: a roofline of an H100 on PCIe 5 with the shape of Read-ME's Llama-2-7B, int4 experts.
# Every number in a sentence below a figure is computed from the runs above it.

# %%
import yaml
from IPython.display import Markdown
from matplotlib import pyplot as plt

import moesim
from moesim.files import shipped

plt.rcParams.update({"figure.dpi": 100, "font.size": 9})

# %% [markdown]
# ## The runs
#
# Four cases of the shipped file. Eight requests are served in a step; in the first case there are only these eight, in
# the others 24 more are in the server, and their next tokens wait *with their routes known*. `step` knows the step
# that runs, `queue` also what waits, `queue, persist` assumes beyond it that a request keeps its expert, `oracle`
# knows everything. Each policy replays the same recorded steps (`schedule: frozen`), in one cache for all layers
# (`global`) and in one for each layer, of equal bytes.

# %%
experiment = yaml.safe_load(shipped("experiments", "lookahead.yaml").read_text(encoding="utf-8"))
cases = experiment["cases"]
experiment["cases"] = {name: cases[name] for name in ("nothing waits", "decodes wait", "larger batch", "horizon")}
experiment["trace"] = "smollm2-135m-decoupled"
experiment["memory"]["slots"] = [3, 4, 5]
for unused in ("random", "fifo"):
    del experiment["cache"]["each"][unused]
for unused in ("queue 16", "oracle 16", "oracle 128"):
    del cases["horizon"]["cache"]["each"][unused]

results = moesim.run(experiment, out="results/lookahead", figures=False, steps=72, warmup_steps=16, replications=4)
results.where(case=["nothing waits", "decodes wait"], experts_per_layer=4)

# %% [markdown]
# ## Does it help where no work waits?
#
# **What to see.** Each line is a policy in one cache for all layers, against the size of the cache; 0 is the best policy
# that knows only the past, *at equal bytes and in either scope*. Below 0 is faster. Black and dashed is the oracle:
# it shows how much there is to gain. On the left nothing is known beyond the step; on the right three steps' worth
# of tokens wait with their routes known. Look at where the orange lines lie between 0 and the oracle. LRU in one cache for
# all layers is beyond the frame, above: it evicts the very layers that come next.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.6), sharey=True, layout="constrained")
for ax, case in zip(axes, ("nothing waits", "decodes wait"), strict=True):
    results.where(case=case, scope="global").plot.difference(ax=ax)
axes[0].get_legend().remove()
axes[0].set_ylim(-40, 60)
axes[1].set_ylabel("");

# %%
waits = ("nothing waits", "decodes wait")
compared = {case: moesim.compare(results.where(case=case, scope="global")) for case in waits}


def worth(case: str, policy: str) -> str:
    """What the paired intervals say of a policy against the best history policy, over the sizes of the cache."""
    rows = compared[case].frame.query("policy == @policy")
    lower, higher = rows[rows["shown"] == "lower"], rows[rows["shown"] == "higher"]
    said = []
    if len(lower):
        said.append(f"saves {span(-lower['percent'])} of the time at {len(lower)} of {len(rows)} sizes")
    if len(higher):
        said.append(f"takes {span(higher['percent'])} longer at {len(higher)} of {len(rows)}")
    if open_ones := len(rows) - len(lower) - len(higher):
        said.append(f"is not shown to differ at {open_ones} of {len(rows)}")
    return " and ".join(said)


def span(values) -> str:
    """`7 to 12 %`, or one of them where they are alike."""
    ends = dict.fromkeys(f"{value:.0f}" for value in (min(values), max(values)))
    return " to ".join(ends) + " %"


lines = []
for case in compared:
    lines.append(f"* **{case}**, in one cache for all layers, each against the best history policy at equal bytes:")
    names = {
        "knowing the step": "lookahead step",
        "knowing the queue": "lookahead queue",
        "knowing the queue and assuming that a request keeps its expert": "lookahead queue persist",
        "the oracle": "lookahead oracle",
    }
    lines += [f"    * {name} {worth(case, policy)};" for name, policy in names.items()]
Markdown("\n".join(lines))

# %% [markdown]
# Where nothing waits, a queue that is empty shows no more than the step: `queue` and `step` decide alike. What is
# gained there comes from an assumption about the requests, not from knowledge.

# %%
same = results.where(case="nothing waits").means("misses").pivot_table(
    index=["scope", "experts_per_layer"], columns="policy", values="mean"
)
alike = (same["lookahead step"] == same["lookahead queue"]).all()
Markdown(f"`step` and `queue` miss {'exactly the same' if alike else 'not the same'} in all {len(same)} settings.")

# %% [markdown]
# ## In milliseconds, beside the bounds
#
# **What to see.** The same policies where decodes wait, in time per output token with 95 % intervals over replications.
# The intervals are wide because replications serve other texts; what is shown of policies is their *paired*
# difference, in the figure above. Two lines are bounds that no cache can beat on these steps: the bytes that Belady's
# MIN must load, over the link (dash-dotted), and every expert resident (dotted). The gap between the oracle and the
# upper of the two is what prefetching could hide.

# %%
results.where(case="decodes wait", scope="global").plot.against();

# %%
four = results.where(case="decodes wait", experts_per_layer=4)
bounds = four.runs[["bound_transfer_ms_per_output_token", "bound_resident_ms_per_output_token"]].mean()
times = four.means("time").set_index(["policy", "scope"])["mean"]
history = min(times[policy, scope] for policy in ("lru", "lfu") for scope in ("layer", "global"))
oracle, ahead = times["lookahead oracle", "global"], times["lookahead queue", "global"]
Markdown(
    f"At 4 experts a layer the oracle takes {oracle:.2f} ms a token, the lookahead over the queue {ahead:.2f}, the best "
    f"history policy {history:.2f}. Loading what MIN loads would keep the link busy for "
    f"{bounds.iloc[0]:.2f} ms a token; with every expert resident a token would take {bounds.iloc[1]:.2f} ms."
)

# %% [markdown]
# ## Where the time goes
#
# **What to see.** Stacked bars, one per policy, the fastest above: kernels on the left, then the host, then in orange-red
# the stalls, in which the GPU waits for experts that are not there. The dotted line is the same step with every expert
# resident. All that a cache policy can change lies to the right of it.

# %%
four.plot.parts();

# %%
stalls = four.runs.groupby(["policy", "scope"])["miss_stall_share"].mean() * 100
Markdown(
    f"Waiting for experts takes {stalls.min():.0f} to {stalls.max():.0f} % of the time: least with "
    f"{', '.join(stalls.idxmin())}, most with {', '.join(stalls.idxmax())}."
)

# %% [markdown]
# ## How far ahead does one have to look?
#
# **What to see.** The share of the oracle's gain that a lookahead captures (0: best history policy, 100: oracle)
# against its horizon, in layer events; 32 of them are one step. A horizon of 0 is LRU, which is far below 0 in a
# cache for all layers, so that the axis is logarithmic there. Look for the horizon from which the line stays flat.

# %%
horizon = results.where(case="horizon")
horizon.plot.gap();

# %%
gaps = horizon.runs.query("scope == 'global' and level == 'queue'").groupby("horizon")["gap_time"].first() * 100
best = gaps.max()
enough = gaps[gaps >= best - 2].index[0]
Markdown(
    "In one cache for all layers the lookahead over the queue captures "
    + ", ".join(f"{value:.0f} % with {events:.0f}" for events, value in gaps.items() if events < float("inf"))
    + f" and {gaps.iloc[-1]:.0f} % with an unlimited horizon. "
    f"From {enough:.0f} layer events on ({enough / 32:g} steps) it is within two points of its best."
)

# %% [markdown]
# ## Against a larger batch
#
# The same server with the same 32 requests could run all of them in each step instead of eight. **What to see.** A row
# per configuration at 4 experts a layer, the fastest first, with 95 % intervals: do the caches of eight requests a step
# reach those of 32?

# %%
shown = ["lru", "lfu", "lookahead queue"]
results.where(case=["decodes wait", "larger batch"], experts_per_layer=4, policy=shown).plot.policies();

# %%
best_large = results.where(case="larger batch", experts_per_layer=4, policy="lfu", scope="layer")
best_ahead = results.where(case="decodes wait", experts_per_layer=4, policy="lookahead queue", scope="global")
batching = moesim.compare(best_ahead, best_large, names=["8 a step, lookahead queue", "32 a step, lfu"])
larger = batching.frame.iloc[0]
verdict = {"lower": "faster", "higher": "slower"}.get(larger["shown"], "not shown to differ")
Markdown(
    f"All 32 in a step take {larger['value']:.2f} ms a token with an LFU per layer and no foresight, eight in a step "
    f"{larger['against_value']:.2f} with the lookahead over the queue. "
    f"Paired over replications the larger batch is {verdict}: "
    f"{larger['percent']:+.0f} % [{larger['percent_low']:+.0f}, {larger['percent_high']:+.0f}]."
)

# %% [markdown]
# ## What may be concluded

# %%
decodes = compared["decodes wait"].frame.query("policy == 'lookahead queue'")
most = compared["decodes wait"].frame.query("policy == 'lookahead oracle'")
captured = decodes["percent"].to_numpy() / most["percent"].to_numpy() * 100
replications = results.means("time")["replications"].max()
Markdown(f"""
1. **Where work waits with its routes known**, a lookahead over the queue in one cache for all layers
    {worth('decodes wait', 'lookahead queue')}. That is {captured.min():.0f} to {captured.max():.0f} % of what the oracle saves.
2. **Where nothing waits**, the same policy {worth('nothing waits', 'lookahead queue')}.
3. **{enough / 32:g} steps ahead are enough** in the case `horizon`: {gaps[enough]:.0f} % of the gain, {best:.0f} % at best.
4. **A larger batch** without foresight is {verdict}, held against the best of these caches: {larger['percent']:+.0f} % of
    the time.

These are paired intervals of {replications} replications, each comparison by itself; times are estimated.
`moesim run experiments/lookahead.yaml` runs all cases, policies and steps, and `moesim report results/lookahead` writes
the page. The full experiment's findings are in the README.
""")
