"""What the present device is called, what runs on it, and the most it moves and computes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path

import torch

from moesim import __version__
from moesim.errors import InputError, Problem
from moesim.live.timing import Timer

PACKAGES = ("torch", "numpy")
WORK = 2**28
"""bytes that are read for the bandwidth"""
SIDE = {"cuda": 8192, "cpu": 2048}


def device_of(name: str) -> torch.device:
    """The device of that name. Raises InputError where there is none, saying what there is."""
    if name not in ("cpu", "cuda"):
        raise InputError(Problem("--device", f"unknown device {name!r}; known: cpu, cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(Problem("--device", "torch finds no CUDA device; --device cpu measures this processor"))
    return torch.device(name, torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def describe(device: torch.device, threads: int) -> str:
    """Name of the device as tables carry it: a GPU's own; of a CPU the processor's, and the threads that compute."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    plural = "s" if threads > 1 else ""
    return f"CPU: {processor()}, {threads} thread{plural}"


def processor() -> str:
    """The processor's name, with family and model where the name alone does not tell generations apart."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.+)$", text, re.MULTILINE))
    if "model name" not in found:
        return platform.machine()
    return f"{found['model name'].strip()} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"


def slug(text: str) -> str:
    """A name for files: lower case, words joined by dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("nvidia", "")).strip("-")


def short_name(device: torch.device) -> str:
    """`cpu` or the GPU's name, as the first part of a table's name."""
    return "cpu" if device.type == "cpu" else slug(torch.cuda.get_device_name(device))


def installed(*packages: str) -> dict[str, str]:
    """Versions of Python, of this program and of those packages that are there."""
    found = {"python": platform.python_version(), "moesim": __version__}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def versions(device: torch.device) -> dict[str, str]:
    """Of what the times depend on."""
    found = installed(*PACKAGES) | {"system": f"{platform.system()} {platform.release()}"}
    if device.type == "cuda":
        found["cuda"] = str(torch.version.cuda)
        found["compute_capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
    else:
        found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
        found["cpus"] = str(os.cpu_count())
    return found


def peaks(device: torch.device, dtype: torch.dtype, timer: Timer) -> dict[str, float]:
    """The most that was seen: bytes a second of reading memory once, and FLOPs a second of a large square product."""
    numbers = torch.ones(WORK // 4, device=device)
    reading = timer(lambda number: numbers.sum())
    side = SIDE[device.type]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = timer(lambda number: left @ right)
    return {"bytes_per_second": WORK * 1e9 / reading.ns, "flops_per_second": 2 * side**3 * 1e9 / product.ns}
