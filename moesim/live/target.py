"""The model to capture: a refactorized folder, a Hugging Face folder or id, or a GGUF file, loaded and named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moesim.errors import InputError, Problem
from moesim.live.dense import PACKAGE, check_device, check_whole, load_dense, no_bars
from moesim.live.prompts import Limits

EXPECTED = f"expected a folder of moesim refactorize, a Hugging Face folder or id, a GGUF file, or {PACKAGE}"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Target:
    """A loaded causal language model. `refactorized` is what moesim.live.refactorized gave, or None.

    `weight_bytes` is the size of a weight in the checkpoint, by which keys are counted whatever the pass runs in.
    """

    model: Any
    name: str
    encode: Callable[[str], list[int]] | None
    ends: tuple[int, ...]
    special: tuple[int, ...]
    weight_bytes: int
    dtype: str
    refactorized: Any = None

    @property
    def limits(self) -> Limits:
        config = self.model.config.get_text_config()
        longest = getattr(config, "max_position_embeddings", None)
        return Limits(int(config.vocab_size), longest if isinstance(longest, int) else None)

    def fingerprint(self) -> str:
        """sha256 of the names, shapes and of some values of all weights: tells another checkpoint from this one."""
        found = hashlib.sha256()
        for name, value in self.model.state_dict().items():
            found.update(f"{name} {list(value.shape)} {value.dtype}".encode())
            flat = value.detach().reshape(-1)
            found.update(flat[:: max(len(flat) // 256, 1)].float().cpu().numpy().tobytes())
        return found.hexdigest()


def load_target(
    model: str, *, device: str = "cpu", dtype: str = "auto", trust: bool = False, dense: str | None = None
) -> Target:
    """Load a model; `dense` is where the dense model of a refactorized one is, if not where its folder says.

    Raises InputError where it is missing, truncated, damaged or not a causal language model."""
    check_device(device)
    path = Path(model)
    if (path / "refactorized.json").is_file():
        return _refactorized(path, device, dtype, dense)
    if dense is not None:
        raise InputError(Problem("--dense", f"is {dense}, but {model} is no folder of moesim refactorize"))
    if model == PACKAGE or path.suffix == ".gguf":
        return _gguf(model, device, dtype)
    if path.exists() and not (path / "config.json").is_file():
        raise InputError(Problem(model, f"holds no config.json and no refactorized.json; {EXPECTED}"))
    return _hugging_face(model, device, dtype, trust)


def _refactorized(folder: Path, device: str, dtype: str, dense: str | None) -> Target:
    from moesim.live.refactorized import load_refactorized

    found = load_refactorized(folder, model=dense, device=device)
    if dtype != "auto":
        found.model.to(DTYPES[dtype])
    return _target(found.model, found.tokenizer, f"{found.meta['model']} ({found.meta['scheme']})", 2, found)


def _gguf(model: str, device: str, dtype: str) -> Target:
    dense = load_dense(model, device)
    dense.model.to(DTYPES.get(dtype, torch.float32))
    return _target(dense.model, dense.tokenizer, dense.name, 2)


def _hugging_face(model: str, device: str, dtype: str, trust: bool) -> Target:
    from transformers import AutoModelForCausalLM

    given: Any = {"dtype": "auto" if dtype == "auto" else DTYPES[dtype], "trust_remote_code": trust}
    given |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # both for check_whole
    try:
        with no_bars():
            found: Any = AutoModelForCausalLM.from_pretrained(model, device_map={"": device}, **given)
    except Exception as error:  # transformers, safetensors and the hub raise whatever they like
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(Problem(model, f"cannot be loaded ({reason[0]}); {EXPECTED}")) from error
    loaded, info = found
    check_whole(info, model, getattr(loaded.config.get_text_config(), "num_hidden_layers", None))
    stored = getattr(loaded.config.get_text_config(), "dtype", None)
    width = stored.itemsize if isinstance(stored, torch.dtype) else 2
    return _target(loaded, _tokenizer(model, trust), Path(model).name if Path(model).exists() else model, width)


def _tokenizer(model: str, trust: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, trust_remote_code=trust)
    except Exception:  # no tokenizer there: prompts must then be ids, and a line with text is told so
        return None


def _target(model: Any, tokenizer: Any, name: str, weight_bytes: int, refactorized: Any = None) -> Target:
    model.eval().requires_grad_(False)
    config = model.config.get_text_config()
    generation = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends: set[int] = set()
    for value in (generation, config.eos_token_id, getattr(tokenizer, "eos_token_id", None)):
        ends |= set(value) if isinstance(value, list | tuple) else {value} if isinstance(value, int) else set()
    special = tuple(sorted(ends | set(getattr(tokenizer, "all_special_ids", ()))))
    encode = None if tokenizer is None else (lambda text: list(tokenizer(text).input_ids))
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return Target(model, name, encode, tuple(sorted(ends)), special, weight_bytes, dtype, refactorized)


def describe_device(device: str, threads: int) -> str:
    """How the metadata names the machine: the GPU, or the processor's kind and threads."""
    import platform

    if device.partition(":")[0] == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"CPU ({platform.machine()}), {threads} threads"


