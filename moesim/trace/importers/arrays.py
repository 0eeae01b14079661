"""Arrays of expert ids [tokens, layers, k], as vLLM and SGLang return routed experts, in .npy or .npz files.

A 2-D array is [tokens, layers] with one expert each, or [tokens, k] of a decoupled router. An .npz holds

* `experts`, and if wanted `weights` of its shape, `offsets` [sequences + 1] and `prompt_tokens` [sequences]; or
* `prompt_routed_experts` and `routed_experts`, as one vLLM response has them: a prompt and its output; or
* any other names: each array is a sequence, in the order of names (numbers in them count as numbers), with
  `prompt_tokens` [sequences] if wanted.

A layer in which every token names expert 0 in all of its k > 1 slots is a dense layer that the engine fills with
zeros: it is left out.
"""

from __future__ import annotations

import io
import re
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np

from moesim.errors import InputError, Problem
from moesim.trace.importers.assemble import Part
from moesim.trace.importers.options import Options, Source

VLLM = ("prompt_routed_experts", "routed_experts")
EXPECTED = "expected an array [tokens, layers, k] of expert ids"


def read_npy(path: Path, data: bytes, options: Options) -> tuple[list[Part], Source]:
    """One sequence."""
    return _finish([Part(_ids(path, "the array", _load(path, data), options))], Source("npy"))


def read_npz(path: Path, data: bytes, options: Options) -> tuple[list[Part], Source]:
    """One or more sequences, told apart by names or offsets."""
    arrays = _members(path, data)
    if not arrays:
        raise InputError(Problem(str(path), f"holds no arrays; {EXPECTED}"))
    if "experts" in arrays:
        parts = _with_offsets(path, arrays, options)
    elif set(VLLM) <= set(arrays):
        prompt, output = (_ids(path, name, arrays[name], options) for name in VLLM)
        if prompt.shape[1:] != output.shape[1:]:
            text = f"{VLLM[0]} is {list(prompt.shape)}, {VLLM[1]} {list(output.shape)}; all but tokens must be equal"
            raise InputError(Problem(str(path), text))
        parts = [Part(np.concatenate([prompt, output]), prompt_tokens=len(prompt))]
    else:
        parts = _by_name(path, arrays, options)
    return _finish(parts, Source("npz"))


def _load(path: Path, data: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(Problem(str(path), f"is no array that can be read ({error}); {EXPECTED}")) from error


def _members(path: Path, data: bytes) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(Problem(str(path), f"is no archive of arrays ({error}); {EXPECTED}")) from error


def _ids(path: Path, name: str, array: np.ndarray, options: Options) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.integer) or array.ndim not in (2, 3):
        text = f"{name} is {array.dtype} {list(array.shape)}; {EXPECTED}"
        raise InputError(Problem(str(path), text))
    if array.ndim == 2:
        array = array[:, None, :] if options.router == "decoupled" else array[:, :, None]
    return array.astype(np.int64)


def _numbers(path: Path, arrays: dict[str, np.ndarray], name: str, count: int) -> list[int] | None:
    if name not in arrays:
        return None
    array = np.atleast_1d(arrays[name])
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        text = f"{name} is {array.dtype} {list(array.shape)}; expected {count} whole numbers"
        raise InputError(Problem(str(path), text))
    return array.tolist()


def _with_offsets(path: Path, arrays: dict[str, np.ndarray], options: Options) -> list[Part]:
    known = {"experts", "weights", "offsets", "prompt_tokens"}
    if strange := sorted(set(arrays) - known):
        raise InputError(Problem(str(path), f"unknown arrays {strange} beside 'experts'; there is: {sorted(known)}"))
    experts = _ids(path, "experts", arrays["experts"], options)
    weights = arrays.get("weights")
    if weights is not None:
        weights = weights.reshape(experts.shape) if weights.size == experts.size else weights
        if weights.shape != experts.shape or not np.issubdtype(weights.dtype, np.floating):
            text = f"weights are {weights.dtype} {list(weights.shape)}; expected floats {list(experts.shape)}"
            raise InputError(Problem(str(path), text))
    offsets = [0, len(experts)]
    if "offsets" in arrays:
        offsets = _numbers(path, arrays, "offsets", arrays["offsets"].size) or []
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(experts) or min(np.diff(offsets)) < 1:
            text = f"offsets are {offsets[:5]}...; expected growing from 0 to {len(experts)} (tokens)"
            raise InputError(Problem(str(path), text))
    prompts = _numbers(path, arrays, "prompt_tokens", len(offsets) - 1)
    return [
        Part(
            experts[first:last],
            None if weights is None else weights[first:last],
            None if prompts is None else prompts[number],
        )
        for number, (first, last) in enumerate(pairwise(offsets))
    ]


def _by_name(path: Path, arrays: dict[str, np.ndarray], options: Options) -> list[Part]:
    names = sorted((name for name in arrays if name != "prompt_tokens"), key=_natural)
    prompts = _numbers(path, arrays, "prompt_tokens", len(names))
    return [
        Part(_ids(path, name, arrays[name], options), None, None if prompts is None else prompts[number], name=name)
        for number, name in enumerate(names)
    ]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _finish(parts: list[Part], source: Source) -> tuple[list[Part], Source]:
    if len({part.experts.shape[1:] for part in parts}) == 1 and parts[0].experts.shape[2] > 1:
        dense = np.all([(part.experts == 0).all(axis=(0, 2)) for part in parts], axis=0)
        if dense.any() and not dense.all():
            for part in parts:
                part.experts = part.experts[:, ~dense]
                part.weights = None if part.weights is None else part.weights[:, ~dense]
            left_out = ", ".join(map(str, np.flatnonzero(dense).tolist()))
            source.notes.append(f"layers {left_out} hold zeros only and are left out as dense ones")
    return parts, source
