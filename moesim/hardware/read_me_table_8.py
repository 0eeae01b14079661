"""The cost table that Read-ME's Table 8 gives: an eager A100, four batch sizes (arXiv 2410.19123, appendix A.4)."""

from __future__ import annotations

from typing import Any

from moesim.hardware.shape import ModelShape

SHAPE = "llama-2-7b-readme"
LAYERS = 32
BATCH = [5, 10, 20, 30]
# Milliseconds of a whole step; TR is the layer-wise router, AR Read-ME's decoupled one.
ROUTER_TR = [1.76, 1.80, 1.78, 1.93]
ROUTER_AR = [0.61, 0.61, 0.61, 0.61]
ATTENTION_AR = [18.18, 18.13, 18.36, 19.66]
EXPERT_AR = [21.75, 22.53, 22.99, 28.31]
SOURCE = "Read-ME (arXiv 2410.19123), Table 8"

FORMULA = {
    "all": "derived from published measurements: the table's milliseconds of a step, divided by 32 layers",
    "layer_rest": "column Attention, AR / 32: attention over the context is in it, so both attention components are 0",
    "gate": "column Router, TR / 32",
    "router": "column Router, AR",
    "experts": "column Expert, AR / 32, whatever the number of active experts",
    "step_rest": "0: the table has no row for embedding, LM head and sampling",
}

LEAVES_OUT = [
    "All but 5 to 30 tokens a step: prompts are out of range, and so are small groups of experts. Use expert_start: "
    "barrier, because every group of experts that starts by itself would be charged as a whole layer.",
    "Context length, number of active experts and precision: the paper does not give them.",
    "Embedding, LM head and sampling.",
    "Host time of its own: the measurements ran eagerly, so launches are inside them, and all host costs are 0.",
]


def document(shape: ModelShape, command: str) -> dict[str, Any]:
    """The table as its JSON document."""
    columns = {"Router TR": ROUTER_TR, "Router AR": ROUTER_AR, "Attention AR": ATTENTION_AR, "Expert AR": EXPERT_AR}
    return {
        "format": "moesim-costs",
        "version": 1,
        "name": "read-me-table-8",
        "label": "ESTIMATED",
        "device": "NVIDIA A100 80GB, eager, as in Read-ME",
        "command": command,
        "formula": FORMULA,
        "constants": [
            {"name": f"{column}, batch {batch}", "value": value, "unit": "ms per step", "source": SOURCE}
            for column, values in columns.items()
            for batch, value in zip(BATCH, values, strict=True)
        ],
        "leaves_out": LEAVES_OUT,
        "shape": shape.model_dump(mode="json", exclude={"key_map", "key_sizes"}, exclude_none=True),
        "host_ns": {"launch": 0, "sync": 0, "copy_submit": 0, "decision": 0},
        "components": {
            "attention_prefill": {"axes": {}, "ns": 0},
            "attention_decode": {"axes": {}, "ns": 0},
            "layer_rest": _by_tokens(ATTENTION_AR, LAYERS),
            "gate": _by_tokens(ROUTER_TR, LAYERS),
            "router": _by_tokens(ROUTER_AR, 1),
            "experts": _by_tokens(EXPERT_AR, LAYERS),
            "step_rest": {"axes": {}, "ns": 0},
        },
    }


def _by_tokens(milliseconds: list[float], layers: int) -> dict[str, Any]:
    return {"axes": {"tokens": BATCH}, "ns": [round(value * 1e6 / layers) for value in milliseconds]}
