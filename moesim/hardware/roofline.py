"""ESTIMATED cost tables from data sheets: every kernel takes max(bytes / bandwidth, FLOPs / peak), plus a floor.

`python -m moesim.hardware.roofline` writes the tables that moesim ships; `--shape`, `--device` and `--out` write one
for a shape of your own. Measured tables have the same format and take the same place.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.errors import InputError
from moesim.hardware import read_me_table_8
from moesim.hardware.costs import FREE
from moesim.hardware.files import data_dir, write
from moesim.hardware.shape import ModelShape, load_shape, shipped_shapes, stored

COMMAND = "python -m moesim.hardware.roofline"
BANDWIDTH_SHARE = 0.80
GEMM_SHARE = 0.60
KERNEL_NS = 2_000
EXPERT_NS = 1_000
HOST_NS = {"launch": 5_000, "sync": 10_000, "copy_submit": 5_000, "decision": 2_000}
CPU_BANDWIDTH_SHARE = 0.60
CPU_FLOPS_SHARE = 0.50
CPU_NS = 20_000
ROUTER_WEIGHTS = 6 * 512 * 512
ROUTER_WIDTH = 512
ASSUMPTION = "assumption, to be replaced by a measurement"
CPU_SHARE_SOURCE = (
    f"{ASSUMPTION}: a Mixtral expert (352 MB) then takes 1.9 to 2.9 ms; Fiddler has 3 ms and llama.cpp 5 ms, both as "
    "HOBBIT (arXiv 2411.01433) reports"
)

TOKENS = [1, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192]
PAST = [0, 256, 1024, 4096, 16384, 32768]
BATCH = [1, 64, 512]
CONTEXT = [1, 1024, 16384, 131072, 1048576, 2097152]
ROUTED = [1, 8, 64, 512, 1024, 8192, 65536, 1048576]
SAMPLED = [1, 8, 16, 32, 64, 128, 256, 512, 1024]


@dataclass(frozen=True, slots=True)
class Processor:
    """One socket as its data sheet has it: bytes of memory and FLOPs a second (at the base clock)."""

    name: str
    bandwidth: float
    flops: float
    sheet: str
    flops_source: str


EPYC_7763 = Processor(
    "AMD EPYC 7763", 204.8e9, 5.02e12, "AMD EPYC 7763 product page: 8 channels of DDR4-3200, 204.8 GB/s a socket",
    "64 cores x 2.45 GHz x 32 FLOPs a cycle: two 256-bit fused multiply-adds in fp32, as it has no bf16 of its own",
)  # fmt: skip
XEON_8480 = Processor(
    "Intel Xeon Platinum 8480+", 307.2e9, 114.7e12,
    "Intel Xeon Platinum 8480+ product page: 8 channels of DDR5-4800, 38.4 GB/s each",
    "56 cores x 2.0 GHz x 1024 FLOPs a cycle: one AMX tile product in bf16, 16 x 16 x 32 in 16 cycles",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as its data sheet has it: bytes and dense bf16 FLOPs a second, and how much of those attention reaches.

    `cpu` is the processor of a server that such a GPU is found in.
    """

    name: str
    bandwidth: float
    flops: float
    attention_share: float
    sheet: str
    attention_source: str
    cpu: Processor


DEVICES = {
    "a100-pcie4": Device(
        "NVIDIA A100 80GB PCIe", 1935e9, 312e12, 0.50, "NVIDIA A100 data sheet, column A100 80GB PCIe",
        "FlashAttention-2 (arXiv 2307.08691), abstract: 50 to 73 % of peak on an A100; the lower end", EPYC_7763,
    ),
    "h100-pcie5": Device(
        "NVIDIA H100 PCIe 80GB", 2000e9, 756e12, 0.35, "NVIDIA H100 data sheet, column H100 PCIe (without sparsity)",
        "FlashAttention-3 (arXiv 2407.08608), abstract: FlashAttention-2 reaches 35 % of peak on an H100", XEON_8480,
    ),
}  # fmt: skip

FORMULA = {
    "all": "kernels x kernel_floor + max(bytes / (peak_bandwidth x bandwidth_share), FLOPs / (peak_flops x share)); "
    "share is gemm_share, or attention_share for prefill and decode attention",
    "attention_prefill": "1 kernel; bytes: keys and values of past and new tokens, queries, outputs; "
    "FLOPs: 4 x heads x head_dim x (tokens x past + tokens x (tokens + 1) / 2)",
    "attention_decode": "1 kernel; bytes: keys and values of the context, queries, outputs; "
    "FLOPs: 4 x heads x head_dim x context",
    "layer_rest": "5 kernels (8 with a shared expert); bytes: weights of projections and shared expert, and "
    "10 x d_model values a token for norms and residuals; FLOPs: 2 x weights x tokens",
    "gate": "2 kernels; bytes: gate weights and inputs; FLOPs: 2 x d_model x experts x tokens",
    "router": "12 kernels; bytes: router weights but its embedding, and 12 x 512 values a token; "
    "FLOPs: 2 x weights x tokens",
    "experts": "expert_matrices kernels + active x expert_tail + time of the largest expert + time of the others, "
    "which share the other tokens evenly; time of n experts = max(bytes of their keys and activations, FLOPs of their "
    "tokens); experts of few bits are dequantised on the way (weight-only): fewer bytes, same FLOPs. `largest` counts "
    "only where the largest expert is compute-bound and is held within tokens / active .. tokens; padding of small "
    "experts to matrix tiles is not in it",
    "step_rest": "4 kernels; bytes: LM head, and 8 bytes x vocab a sampled token; FLOPs: 2 x d_model x vocab x tokens; "
    "plus the weights of layers without experts, read once",
    "cpu_expert": "cpu_floor + max(bytes / (cpu_bandwidth x cpu_bandwidth_share), FLOPs / (cpu_flops x "
    "cpu_flops_share)), on one socket; bytes: the key and its tokens' activations; FLOPs: as for experts",
}

LEAVES_OUT = [
    "Padding of matrix multiplications to tiles, and kernels that slow each other down.",
    "Dequantisation itself: expert weights of fewer bits cost fewer bytes and the same FLOPs.",
    "The decoupled router's own attention over its context, and its embedding's rows.",
    "Attention over the context, and token-dependent work, of layers without experts.",
    "Latent attention is counted with its heads and its compressed keys and values, not with absorbed matrices.",
    "On the CPU: a second socket, turbo clocks, caches, and dequantisation of experts of few bits.",
]


@dataclass(frozen=True, slots=True)
class Roofline:
    """Kernel times, as floats in ns, of one model shape on one device."""

    shape: ModelShape
    device: Device

    def time(self, kernels: int, read: float, flops: float, share: float = GEMM_SHARE) -> float:
        """`kernels` floors and the longer of moving `read` bytes and doing `flops`."""
        moving = read / (self.device.bandwidth * BANDWIDTH_SHARE)
        doing = flops / (self.device.flops * share)
        return kernels * KERNEL_NS + max(moving, doing) * 1e9

    def attention(self, tokens: int, pairs: float, context: int) -> float:
        width = self.shape.heads * self.shape.head_dim
        read = context * self.shape.layer_kv_bytes + 2 * 2 * tokens * width
        return self.time(1, read, 4 * width * pairs, self.device.attention_share)

    def attention_prefill(self, tokens: int, past: int) -> float:
        return self.attention(tokens, tokens * past + tokens * (tokens + 1) / 2, tokens + past)

    def attention_decode(self, batch: int, context: int) -> float:
        return self.attention(batch, context, context)

    def layer_rest(self, tokens: int) -> float:
        shape = self.shape
        weights = shape.attention_weights + shape.shared_weights
        kernels = 5 + (3 if shape.shared_expert_width else 0)
        read = stored(shape.attention_weights, shape.dense_bits) + shape.shared_bytes + 2 * 10 * shape.d_model * tokens
        return self.time(kernels, read, 2 * weights * tokens)

    def gate(self, tokens: int) -> float:
        weights = self.shape.d_model * self.shape.experts
        return self.time(2, 2 * (weights + self.shape.d_model * tokens), 2 * weights * tokens)

    def router(self, tokens: int) -> float:
        weights = ROUTER_WEIGHTS + ROUTER_WIDTH * self.shape.experts
        return self.time(12, 2 * (weights + 12 * ROUTER_WIDTH * tokens), 2 * weights * tokens)

    def experts(self, tokens: int, active: int, largest: int) -> float:
        largest = min(max(largest, -(-tokens // active)), tokens)
        fixed = active * EXPERT_NS
        return fixed + self.ffn(self.shape.expert_matrices, largest, 1) + self.ffn(0, tokens - largest, active - 1)

    def ffn(self, kernels: int, tokens: int, experts: int) -> float:
        """`experts` equal experts with `tokens` tokens in all."""
        shape = self.shape
        activations = 2 * 2 * (shape.d_model + shape.expert_width) * tokens
        flops = 2 * shape.expert_matrices * shape.d_model * shape.expert_width * tokens
        return self.time(kernels, experts * shape.key_bytes + activations, flops)

    def cpu_expert(self, tokens: int) -> float:
        shape, cpu = self.shape, self.device.cpu
        read = shape.key_bytes + 2 * 2 * (shape.d_model + shape.expert_width) * tokens
        flops = 2 * shape.expert_matrices * shape.d_model * shape.expert_width * tokens
        moving, doing = read / (cpu.bandwidth * CPU_BANDWIDTH_SHARE), flops / (cpu.flops * CPU_FLOPS_SHARE)
        return CPU_NS + max(moving, doing) * 1e9

    def step_rest(self, tokens: int) -> float:
        shape = self.shape
        dense = shape.attention_weights + shape.expert_matrices * shape.d_model * shape.dense_width
        once = stored(shape.dense_layers * dense, shape.dense_bits) / (self.device.bandwidth * BANDWIDTH_SHARE) * 1e9
        read = stored(shape.head_weights, shape.dense_bits) + 8 * shape.vocab * tokens
        return once + self.time(4, read, 2 * shape.head_weights * tokens)


def document(shape: ModelShape, device: str) -> dict[str, Any]:
    """The cost table of `shape` on the device of that name in DEVICES, as its JSON document."""
    gpu = DEVICES[device]
    return {
        "format": "moesim-costs",
        "version": 1,
        "name": f"{device}-{shape.name}",
        "label": "ESTIMATED",
        "device": gpu.name,
        "command": COMMAND,
        "formula": FORMULA,
        "constants": constants(gpu),
        "leaves_out": LEAVES_OUT,
        "shape": shape.model_dump(mode="json", exclude={"key_map", "key_sizes"}, exclude_none=True),
        "host_ns": HOST_NS,
        "components": components(Roofline(shape, gpu)),
    }


def constants(gpu: Device) -> list[dict[str, Any]]:
    """Every number of the formula with its unit and source."""
    micro = "assumption: a few microseconds, as profiles of eager PyTorch show; to be replaced by a measurement"
    rows = [
        ("peak_bandwidth", gpu.bandwidth, "bytes/s", gpu.sheet),
        ("peak_flops", gpu.flops, "FLOP/s, bf16 dense", gpu.sheet),
        ("bandwidth_share", BANDWIDTH_SHARE, "of peak", ASSUMPTION),
        ("gemm_share", GEMM_SHARE, "of peak", ASSUMPTION),
        ("attention_share", gpu.attention_share, "of peak", gpu.attention_source),
        ("kernel_floor", KERNEL_NS, "ns", f"{ASSUMPTION}: shortest kernel, with its tail"),
        ("expert_tail", EXPERT_NS, "ns per active expert", ASSUMPTION),
        ("router_weights", ROUTER_WEIGHTS, "weights", "Read-ME (arXiv 2410.19123), Table 1; code: 6 x 512 x 512"),
        ("cpu_bandwidth", gpu.cpu.bandwidth, "bytes/s", gpu.cpu.sheet),
        ("cpu_flops", gpu.cpu.flops, "FLOP/s", gpu.cpu.flops_source),
        ("cpu_bandwidth_share", CPU_BANDWIDTH_SHARE, "of peak", CPU_SHARE_SOURCE),
        ("cpu_flops_share", CPU_FLOPS_SHARE, "of peak", ASSUMPTION),
        ("cpu_floor", CPU_NS, "ns", f"{ASSUMPTION}: waking the threads, once an expert"),
        *((f"host {name}", ns, "ns", micro) for name, ns in HOST_NS.items()),
    ]
    return [dict(zip(("name", "value", "unit", "source"), row, strict=True)) for row in rows]


def components(roofline: Roofline) -> dict[str, Any]:
    """Every component on its grid."""
    shape = roofline.shape
    pairs = [*TOKENS, *(TOKENS[-1] * 2**i for i in range(1, (shape.top_k - 1).bit_length() + 1))]
    tokens = {"tokens": TOKENS}
    return {
        "attention_prefill": component(roofline.attention_prefill, {"tokens": TOKENS, "past": PAST}),
        "attention_decode": component(roofline.attention_decode, {"batch": BATCH, "context": CONTEXT}),
        "layer_rest": component(roofline.layer_rest, tokens),
        "gate": component(roofline.gate, tokens),
        "router": component(roofline.router, {"tokens": ROUTED}),
        "experts": component(roofline.experts, {"tokens": pairs, "active": actives(shape.experts), "largest": pairs}),
        "step_rest": component(roofline.step_rest, {"tokens": SAMPLED}),
        "cpu_expert": component(roofline.cpu_expert, tokens),
    }


def actives(experts: int) -> list[int]:
    """Points of the axis `active`: all of up to eight experts, else powers of two and all."""
    if experts <= 8:
        return list(range(1, experts + 1))
    return [2**i for i in range((experts - 1).bit_length())] + [experts]


def component(function: Callable[..., float], axes: dict[str, list[int]]) -> dict[str, Any]:
    return {"axes": axes, "ns": nested(function, list(axes.values()), ())}


def nested(function: Callable[..., float], axes: list[list[int]], point: tuple[int, ...]) -> Any:
    if not axes:
        return round(function(*point))
    return [nested(function, axes[1:], (*point, value)) for value in axes[0]]


def shipped_documents() -> dict[str, dict[str, Any]]:
    """Name -> document of every table that moesim ships; one serves all shapes that it does not tell apart."""
    shapes = {load_shape(name).model_dump_json(exclude=FREE): name for name in reversed(shipped_shapes())}
    made = [document(load_shape(name), device) for device in DEVICES for name in sorted(shapes.values())]
    made.append(read_me_table_8.document(load_shape(read_me_table_8.SHAPE), COMMAND))
    return {table["name"]: table for table in made}


def main(arguments: list[str] | None = None) -> int:
    """Write the shipped tables, or one table. Exit code 2, and nothing written, where the shape is wrong."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--shape", help="a shipped shape, a shape file or a config.json; all shipped ones")
    parser.add_argument("--device", choices=sorted(DEVICES), default="h100-pcie5")
    parser.add_argument("--out", type=Path, help="file with --shape, else folder; where the shipped ones are")
    given = parser.parse_args(arguments)
    if given.shape is None:
        for name, table in shipped_documents().items():
            write((given.out or data_dir("kernels")) / f"{name}.json", table)
        return 0
    try:
        table = document(load_shape(given.shape), given.device)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    write(given.out or Path(f"{table['name']}.json"), table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
