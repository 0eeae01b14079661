"""From the parts of a capture to its files: X.parquet with every token, X-sample.parquet with more of some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from moesim.live.capture import Capture
from moesim.live.machine import installed
from moesim.live.prompts import Prompt
from moesim.live.stages import Arrays
from moesim.trace.meta import PromptSource, RoutingMeta
from moesim.trace.routing import RoutingTrace
from moesim.trace.writing import RoutingWriter, routing_writer

PACKAGES = ("torch", "transformers", "numpy", "pyarrow")
SLOTS = "experts of a token stand in the order of their weights. "
WEIGHTS = {
    "called": "weights are those that the experts' outputs are multiplied by. ",
    "scored": "weights are the gate's scores, which the experts' inputs are multiplied by. ",
    "counted": "weights are the gate's, or the softmax of its logits where it gives none. ",
    "router": "weights are the router's softmax, which is not multiplied in. ",
}
TOPS = (
    "top_weights are the softmax of the gate's logits over all experts{probable}. "
)
BIASED = (
    "Where a gate adds a bias or limits groups, the chosen are not always the first of top_experts: "
    "report.capture.chosen_are_top_k is the share of choices that are. "
)
AHEAD = "predicted_d: what the gate d MoE layers ahead chooses on this layer's gate input, then its next best. "


def sample_path(out: Path) -> Path:
    return out.with_name(f"{out.stem}-sample{out.suffix}")


def write_traces(capture: Capture, out: Path, command: str, threads: int) -> list[Path]:
    """Write the trace, and the sample's where one was asked for. Returns the files. Memory holds one part."""
    whole = capture.config.sample is None
    facts = capture.facts()
    counts = _counts(capture)
    domains = {prompt.domain for prompt in capture.prompts}
    files = [out] if whole else [out, sample_path(out)]
    with ExitStack() as stack:
        writers = []
        for number, file in enumerate(files):
            full = whole or number == 1
            meta = _meta(capture, facts, counts, command, threads, full=full, sample=number == 1)
            writers.append(stack.enter_context(routing_writer(file, meta, domains)))
        for rows, arrays in capture.parts():
            _add(capture, writers, rows, arrays, whole)
    return files


def _add(capture: Capture, writers: Sequence[RoutingWriter], rows: list[int], arrays: Arrays, whole: bool) -> None:
    arrays = _rounded(arrays, capture.config.weights_bits)
    rich = {name: values for name, values in arrays.items() if name.startswith(("top_", "predicted_"))}
    plain = {name: arrays[name] for name in ("experts", "weights")}
    writers[0].add(_trace(capture, writers[0].meta, rows, arrays["outputs"], plain | (rich if whole else {})))
    if whole:
        return
    chosen = np.array([row in capture.full for row in rows])
    if chosen.any():
        prompts = np.array([len(capture.prompts[row].ids) for row in rows])
        mine = np.repeat(chosen, prompts + arrays["outputs"])
        kept = {name: values[mine] for name, values in plain.items()} | rich
        some = [row for row, there in zip(rows, chosen, strict=True) if there]
        writers[1].add(_trace(capture, writers[1].meta, some, arrays["outputs"][chosen], kept))


def _trace(
    capture: Capture, meta: RoutingMeta, rows: list[int], outputs: np.ndarray, arrays: dict[str, np.ndarray]
) -> RoutingTrace:
    prompts = [capture.prompts[row] for row in rows]
    sizes = np.array([len(prompt.ids) for prompt in prompts], np.int64)
    predicted = {int(name[-1]): values for name, values in arrays.items() if name.startswith("predicted_")}
    return RoutingTrace(
        meta=meta,
        experts=arrays["experts"],
        weights=arrays["weights"],
        offsets=np.concatenate([[0], np.cumsum(sizes + outputs)]).astype(np.int64),
        prompt_tokens=sizes.astype(np.int32),
        domains=tuple(prompt.domain for prompt in prompts),
        predicted=predicted,
        top_experts=arrays.get("top_experts"),
        top_weights=arrays.get("top_weights"),
    )


def rounded(weights: np.ndarray, bits: int) -> np.ndarray:
    """float16 weights with only `bits` of the 10 bits of their fraction, to nearest: 2^-(bits + 1) off at most."""
    step = 10 - bits
    raw = weights.view(np.uint16).astype(np.uint32)
    return ((raw + ((1 << step) >> 1)) >> step << step).astype(np.uint16).view(np.float16)


def _rounded(arrays: Arrays, bits: int | None) -> Arrays:
    if bits is None:
        return arrays
    names = [name for name in arrays if name.endswith("weights")]
    return arrays | {name: rounded(arrays[name], bits) for name in names}


# ---- what a trace says about itself


def _counts(capture: Capture) -> dict[str, Any]:
    """Counts over all parts: tokens, and how often the chosen are the gate's best by its logits alone."""
    outputs = agreeing = looked = 0
    for _, arrays in capture.parts():
        outputs += int(arrays["outputs"].sum())
    for rows, arrays in capture.parts() if capture.top else ():
        top = arrays.get("top_experts")
        if top is None:
            continue
        prompts = np.array([len(capture.prompts[row].ids) for row in rows])
        mine = np.repeat([row in capture.full for row in rows], prompts + arrays["outputs"])
        chosen = np.sort(arrays["experts"][mine], axis=-1)
        agreeing += int((np.sort(top[..., : capture.k], axis=-1) == chosen).all(axis=-1).sum())
        looked += chosen.shape[0] * chosen.shape[1]
    found: dict[str, Any] = {"prompt_tokens": sum(len(p.ids) for p in capture.prompts), "output_tokens": outputs}
    return found | ({"chosen_are_top_k": round(agreeing / looked, 4)} if looked else {})


def _meta(
    capture: Capture,
    facts: dict[str, Any],
    counts: dict[str, Any],
    command: str,
    threads: int,
    *,
    full: bool,
    sample: bool,
) -> RoutingMeta:
    from moesim.live.target import describe_device

    target, blocks = capture.target, capture.blocks
    numbers = sorted(capture.full) if sample else range(len(capture.prompts))
    prompts = [capture.prompts[number] for number in numbers]
    return RoutingMeta(
        model=target.name,
        router="decoupled" if capture.decoupled else "layerwise",
        layers=target.model.config.get_text_config().num_hidden_layers if capture.decoupled else len(blocks),
        experts=capture.experts,
        k=capture.k,
        m=capture.top if full else 0,
        p=capture.top if full and capture.distances else 0,
        key_bytes=_key_bytes(capture),
        label="captured",
        device=describe_device(capture.device, threads),
        dtype=target.dtype,
        created=facts["created"],
        command=command,
        versions=installed(*PACKAGES) | {"model_fingerprint": target.fingerprint()},
        prompts=list(_sources(prompts)),
        outputs=_outputs(capture),
        report={"capture": _report(capture, counts, sample) | {"overhead": facts["overhead"]}} | _of_model(capture),
        notes=_notes(capture, full, sample),
    )


def _key_bytes(capture: Capture) -> int | list[int]:
    refactorized = capture.target.refactorized
    if refactorized is not None:
        return int(refactorized.meta["key_bytes"])
    scale = capture.target.weight_bytes
    sizes = [block.weights_of_key * scale + block.other_bytes for block in capture.blocks]
    if len(set(sizes)) == 1:
        return sizes[0]
    return [size for size in sizes for _ in range(capture.experts)]


def _outputs(capture: Capture) -> str:
    forced = [prompt for prompt in capture.prompts if prompt.continuation is not None]
    by = sorted({prompt.continuation_by or "another model" for prompt in forced})
    found = [f"forced, text of: {'; '.join(by)}"] if forced else []
    if len(forced) < len(capture.prompts):
        found.append(f"text of: {capture.says_who()}")
    return "; ".join(found)


def _report(capture: Capture, counts: dict[str, Any], sample: bool) -> dict[str, Any]:
    config, full = capture.config, sorted(capture.full)
    found = counts | config.model_dump(mode="json", exclude={"text_only", "dtype", "sample"})
    found["blocks"] = [block.name for block in capture.blocks]
    found["found_as"] = sorted({block.form for block in capture.blocks})
    if config.sample is not None:
        found["sample"] = {"asked_tokens": config.sample, "sequences": full} if sample else {"sequences": len(full)}
    return found


def _of_model(capture: Capture) -> dict[str, Any]:
    """What the refactorized model's folder says of itself."""
    refactorized = capture.target.refactorized
    if refactorized is None:
        return {}
    meta = dict(refactorized.meta)
    meta["base"] = {name: value for name, value in meta.get("base", {}).items() if name != "found"}
    return {"refactorized": meta}


def _notes(capture: Capture, full: bool, sample: bool) -> str:
    forms = sorted({block.form for block in capture.blocks})
    text = SLOTS + "".join(WEIGHTS[form] for form in forms)
    if full and capture.top:
        probable = " (of gates that give probabilities, those)" if any(b.probable for b in capture.blocks) else ""
        text += TOPS.format(probable=probable)
        text += "" if capture.decoupled else BIASED
    if full and capture.distances:
        text += AHEAD
    if capture.config.weights_bits is not None:
        text += f"Weights are rounded to {capture.config.weights_bits} bits of their fraction (float16 has 10). "
    if capture.router_only:
        text += "All tokens were given, so only the router ran, not the model behind it. "
    if sample:
        text += "Some sequences of the whole capture, whole, in its order; report.capture.sample has their numbers. "
    return text.strip()


def _sources(prompts: Sequence[Prompt]) -> Iterator[PromptSource]:
    for kind in sorted({(p.domain, p.source, p.licence, p.split) for p in prompts}):
        mine = [p for p in prompts if (p.domain, p.source, p.licence, p.split) == kind]
        domain, source, licence, split = kind
        yield PromptSource(
            domain=domain,
            source=source,
            licence=licence,
            split=split,
            sequences=len(mine),
            tokens=sum(len(prompt.ids) for prompt in mine),
        )
