"""The statistics of a trace together, and a plain sentence on what each means for a cache."""

from __future__ import annotations

from typing import Any

from moesim.trace.routing import RoutingTrace
from moesim.trace.stats import ahead, measures, ties
from moesim.trace.stats.sample import sample_of


def statistics(trace: RoutingTrace, seed: int = 0) -> dict[str, Any]:
    """Everything that is measured, as plain values, with its `findings`."""
    sample = sample_of(trace)
    found: dict[str, Any] = {
        "digest": trace.digest,
        "model": trace.meta.model,
        "label": trace.meta.label,
        "router": trace.meta.router,
        "layers": trace.meta.layers,
        "experts": trace.meta.experts,
        "k": trace.meta.k,
        "of": sample.of,
        "tokens": sample.tokens,
        "sequences": len(sample.offsets) - 1,
        "balance": measures.balance(sample),
        "reuse": measures.reuse(sample),
        "overlap": measures.overlap(sample),
        "breadth": measures.breadth(sample, seed),
        "foresight": ahead.foresight(sample),
        "domains": ties.specialisation(sample),
        "layer_ties": ties.layer_ties(sample),
    }
    return found | {"findings": findings(found)}


def findings(found: dict[str, Any]) -> dict[str, str]:
    """A sentence for each measure."""
    texts = {
        "balance": _balance(found),
        "reuse": _reuse(found),
        "overlap": _overlap(found),
        "breadth": _breadth(found),
        "foresight": _foresight(found),
        "recorded": _recorded(found),
        "domains": _domains(found),
        "layers": _layers(found),
    }
    return {name: text for name, text in texts.items() if text}


def render(found: dict[str, Any]) -> str:
    """The findings as text for a terminal."""
    import textwrap

    head = f"{found['model']} ({found['label']}, {found['router']}): {found['layers']} layers of {found['experts']} "
    head += f"experts, k = {found['k']}; {found['tokens']:,} {found['of']} in {found['sequences']:,} sequences"
    lines = textwrap.wrap(head, 100)
    for name, text in found["findings"].items():
        lines += textwrap.wrap(text, 100, initial_indent=f"{name:<10} ", subsequent_indent=" " * 11)
    return "\n".join(lines)


def _balance(found: dict[str, Any]) -> str:
    data = found["balance"]
    (part, experts), covered = next(iter(data["parts"].items())), data["covered"]
    pinned = data["pinned"][part]
    even = experts / found["experts"]
    advice = "a fixed set hits well above chance" if pinned > 1.5 * even else "pinning a fixed set is worth little"
    return (
        f"The busiest {experts} of {found['experts']} experts of a layer take {_pct(covered[part])} of its choices "
        f"({_pct(even)} if all were used alike); chosen on the first half and kept, they would hit {_pct(pinned)} of "
        f"the second: {advice}."
    )


def _reuse(found: dict[str, Any]) -> str:
    data, wanted = found["reuse"], found["reuse"]["experts_for"]
    parts = [f"{share} with {size}" for share, size in wanted.items() if size is not None]
    never = [share for share, size in wanted.items() if size is None]
    reach = f"An LRU cache per layer hits {', '.join(parts)} of {found['experts']} experts" if parts else "No LRU cache"
    rest = f"; {', '.join(never)} it cannot reach, {_pct(data['first_uses'])} being first uses" if never else ""
    gap = data["median_tokens"]
    span = f" Half of all reuses come within {gap:.0f} tokens." if gap is not None else ""
    return f"{reach}{rest}.{span}"


def _overlap(found: dict[str, Any]) -> str:
    lags = {lag: value for lag, value in found["overlap"]["by_lag"].items() if value is not None}
    if not lags:
        return ""
    several = ", ".join(f"{lag}: {_pct(value)}" for lag, value in lags.items())
    same = f"; exactly the same ones: {_pct(found['overlap']['same_by_lag']['1'])}" if found["k"] > 1 else ""
    near, far = next(iter(lags.items())), list(lags.items())[-1]
    chance = found["overlap"]["popular"]
    if far[1] > 1.5 * chance:
        advice = "a sequence keeps to its own experts, so recency serves, and counts only within a sequence"
    elif near[1] > 1.5 * chance:
        advice = "recency helps for the next few tokens; farther on only popularity is left, which counts know"
    else:
        advice = "what a token used says little beyond popularity, which counts know as well as recency"
    return (
        f"A token shares {_pct(near[1])} of its experts with the one before it and {_pct(far[1])} with the one "
        f"{far[0]} before ({_pct(chance)} by popularity alone): {advice}. By lag {several}{same}."
    )


def _breadth(found: dict[str, Any]) -> str:
    data = found["breadth"]
    sizes = data["batches"]
    place = min(range(len(sizes)), key=lambda i: abs(sizes[i] - 8))
    last = len(sizes) - 1
    text = f"A batch of {sizes[place]} tokens needs {data['unique'][place]:.1f} of {found['experts']} experts a layer"
    text += f" ({data['even'][place]:.1f} if tokens chose alike and on their own)"
    if last > place:
        text += f", one of {sizes[last]} needs {data['unique'][last]:.1f}"
    full = next((s for s, u in zip(sizes, data["unique"], strict=True) if u > 0.9 * found["experts"]), None)
    advice = "a cache smaller than that loads in every layer of every step"
    if full is not None:
        advice = f"from {full} tokens a step on nearly every expert is needed, and only batching, not a cache, helps"
    return f"{text}: {advice}."


def _foresight(found: dict[str, Any]) -> str:
    data = found["foresight"]
    if data is None:
        return ""
    numbers = (
        f"foretells {_pct(data['table'])} of the {data['of']}'s experts on the held-out half; the popular ones are "
        f"{_pct(data['popular'])}, those of the token before {_pct(data['token_before'])}"
    )
    if found["router"] == "decoupled":
        return f"All layers of a token are known before it runs. From token to token a table {numbers}."
    best = max(data["table"], data["token_before"])
    return (
        f"A table from one layer's experts to the next's {numbers}: of what a prefetcher without the gate's own "
        f"state would fetch, at best about {_pct(best)} is wanted."
    )


def _recorded(found: dict[str, Any]) -> str:
    """Of the predictions that the trace has recorded."""
    data = found["foresight"] or {}
    rows = {distance: of for distance, of in data.get("by_distance", {}).items() if "recorded" in of}
    if not rows:
        return ""
    wide = data["named"] > found["k"]
    parts = []
    for distance, of in rows.items():
        more = f", all {data['named']} named {_pct(of['recorded_all'])}" if wide else ""
        parts.append(
            f"{distance} ahead {_pct(of['recorded'])}{more} (first named: {_pct(of['first'])}; popular "
            f"{_pct(of['popular'])}, token before {_pct(of['token_before'])})"
        )
    near = rows["1"]
    advice = "fetching what they name pays where the link has time"
    if near["recorded"] <= near["token_before"]:
        advice = "what the token before used is as good a guess, and costs nothing"
    return f"The trace's own predictions find, layers ahead: {'; '.join(parts)}: {advice}."


def _domains(found: dict[str, Any]) -> str:
    data = found["domains"]
    if data is None:
        return ""
    far = max(data["apart"], key=data["apart"].get)
    share = data["bits"] / data["of_bits"] if data["of_bits"] else 0.0
    advice = "what serves one domain serves the others"
    if share > 0.1:
        advice = "the mix of domains decides what a cache hits, and batching by domain helps"
    return (
        f"In the mean {_pct(data['mean_apart'])} of a domain's choices would have to move to be spread as those of "
        f"all ({far}: {_pct(data['apart'][far])}); the domain tells {data['bits']:.2f} of an expert's "
        f"{data['of_bits']:.2f} bits: {advice}."
    )


def _layers(found: dict[str, Any]) -> str:
    data = found["layer_ties"]
    if data is None:
        return ""
    return (
        f"A token's first expert in a layer tells {data['bits']:.2f} of the {data['of_bits']:.2f} bits of that in the "
        f"next (mutual information, mean over layers)."
    )


def _pct(share: float) -> str:
    return f"{100 * share:.1f} %"
