"""Model shapes: the sizes that decide what an expert weighs and what the rest of the model takes.

A shape is configuration. Shipped ones are in `moesim/hardware/shapes/*.yaml`; `load_shape` also reads a shape file of
your own, or a Hugging Face `config.json` (see `moesim.hardware.hf_config`).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from moesim.errors import InputError, Problem, unknown
from moesim.hardware.validate import problems_of

SHAPES = Path(__file__).parent / "shapes"

Count = Annotated[int, Field(ge=1, le=10**7, strict=True)]
Size = Annotated[int, Field(ge=0, le=2**53, strict=True)]
Bytes = Annotated[int, Field(ge=1, le=2**53, strict=True)]
Bits = Annotated[float, Field(gt=0, le=64)]


class ModelShape(BaseModel):
    """Sizes of a mixture-of-experts transformer. Counts are tokens' dimensions; `*_bits` are bits a stored weight.

    `layers` counts the layers that hold experts, `dense_layers` those that do not (DeepSeek's first). `expert_bits` may
    carry the scales of a quantised format: 4-bit weights with one fp16 scale per group of 64 are 4 + 16/64 = 4.25. A
    shared expert is stored in `shared_bits` (None: `dense_bits`).
    `attention_parameters` and `kv_values` are per layer and replace what heads imply (latent attention); 0: derived.
    `key_map[layer][expert]` are dense key numbers, where layers share experts' weights; empty: every one has its own.
    `key_sizes` are bytes of each key, where they differ (mixed precision); empty: what the dimensions say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1)
    layers: Count
    d_model: Count
    expert_width: Count
    experts: Count
    top_k: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    vocab: Count
    expert_matrices: Count = 3
    dense_bits: Bits = 16
    expert_bits: Bits = 16
    kv_bits: Bits = 16
    shared_expert_width: Size = 0
    shared_bits: Bits | None = None
    dense_layers: Size = 0
    dense_width: Size = 0
    tied_embeddings: bool = False
    attention_parameters: Size = 0
    kv_values: Size = 0
    router_bytes: Size = 0
    key_map: tuple[tuple[Size, ...], ...] = ()
    key_sizes: tuple[Bytes, ...] = ()
    source: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> ModelShape:
        wrong = []
        if self.top_k > self.experts:
            wrong.append(f"top_k is {self.top_k}, but there are {self.experts} experts")
        if self.heads % self.kv_heads:
            wrong.append(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.dense_layers and not self.dense_width:
            wrong.append(f"dense_layers is {self.dense_layers}, so dense_width must say how wide their FFN is")
        wrong += _key_problems(self)
        if wrong:
            raise PydanticCustomError("shape", "{text}", {"text": "; ".join(wrong)})
        return self

    @property
    def key_bytes(self) -> int:
        """Bytes of one expert key: one layer's weights of one expert."""
        return stored(self.expert_matrices * self.d_model * self.expert_width, self.expert_bits)

    @property
    def keys(self) -> int:
        """Number of expert keys: `layers * experts`, fewer where layers share them."""
        return len({key for row in self.key_map for key in row}) or self.layers * self.experts

    @property
    def attention_weights(self) -> int:
        """Weights of one layer's attention: query, key, value and output projections."""
        projected = 2 * self.heads * self.head_dim + 2 * self.kv_heads * self.head_dim
        return self.attention_parameters or self.d_model * projected

    @property
    def shared_weights(self) -> int:
        """Weights of one layer's shared expert, which every token uses."""
        return self.expert_matrices * self.d_model * self.shared_expert_width

    @property
    def shared_bytes(self) -> int:
        """Bytes of one layer's shared expert."""
        return stored(self.shared_weights, self.shared_bits or self.dense_bits)

    @property
    def head_weights(self) -> int:
        """Weights of the LM head (tied or not, it is read once a step)."""
        return self.vocab * self.d_model

    @property
    def static_bytes(self) -> int:
        """Bytes of everything else that stays on the GPU: attention, norms, shared experts, embeddings, router."""
        per_layer = self.attention_weights + 2 * self.d_model
        weights = (self.layers + self.dense_layers) * per_layer + self.d_model
        weights += self.dense_layers * self.expert_matrices * self.d_model * self.dense_width
        weights += self.head_weights * (1 if self.tied_embeddings else 2)
        return stored(weights, self.dense_bits) + self.layers * self.shared_bytes + self.router_bytes

    @property
    def layer_kv_bytes(self) -> int:
        """Bytes of one token's keys and values in one layer."""
        return stored(self.kv_values or 2 * self.kv_heads * self.head_dim, self.kv_bits)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of one token's keys and values over all layers."""
        return (self.layers + self.dense_layers) * self.layer_kv_bytes

    @classmethod
    def from_hf_config(cls, config: dict[str, Any], **overrides: Any) -> ModelShape:
        """Shape of a Hugging Face `config.json` (already parsed); `overrides` are fields of this class.

        Raises InputError naming every field that is missing or makes no sense.
        """
        from moesim.hardware.hf_config import shape_fields

        return build(shape_fields(config) | overrides, str(config.get("_name_or_path") or "config.json"))


def _key_problems(shape: ModelShape) -> list[str]:
    wrong, keys = [], shape.layers * shape.experts
    if shape.key_map:
        if len(shape.key_map) != shape.layers or {len(row) for row in shape.key_map} != {shape.experts}:
            wrong.append(f"key_map must have {shape.layers} rows (layers) of {shape.experts} keys (experts)")
        used = sorted({key for row in shape.key_map for key in row})
        keys = len(used)
        if used != list(range(keys)):
            wrong.append(f"key_map must use dense keys 0..{keys - 1}; its largest is {used[-1] if used else 'missing'}")
        twice = [layer for layer, row in enumerate(shape.key_map) if len(set(row)) < len(row)]
        if twice:
            wrong.append(f"key_map gives two experts of one layer the same key (layers {', '.join(map(str, twice))})")
    if shape.key_sizes and len(shape.key_sizes) != keys:
        wrong.append(f"key_sizes lists {len(shape.key_sizes)} sizes; there are {keys} keys")
    return wrong


def stored(weights: int, bits: float) -> int:
    """Bytes of `weights` values of `bits` bits each, rounded up to whole bytes."""
    return math.ceil(weights * bits / 8)


def build(fields: dict[str, Any], place: str) -> ModelShape:
    """A shape from plain fields. Raises InputError with every mistake, each placed under `place`."""
    try:
        return ModelShape.model_validate(fields)
    except ValidationError as error:
        raise InputError(problems_of(error, place)) from error


def shipped_shapes() -> list[str]:
    """Names of the shapes that come with moesim."""
    return sorted(path.stem for path in SHAPES.glob("*.yaml"))


def load_shape(name_or_path: str | Path) -> ModelShape:
    """A shipped shape by name, or the shape in a `.yaml` file, or that of a Hugging Face `config.json`.

    Raises InputError where there is no such name or file (listing what exists), or where the file is not a shape.
    """
    shipped = SHAPES / f"{name_or_path}.yaml"
    path = shipped if str(name_or_path) in shipped_shapes() else Path(name_or_path)
    if not path.is_file():
        raise InputError(Problem("model", unknown("model shape", str(name_or_path), shipped_shapes())))
    fields = _fields(path)
    if path.suffix == ".json":
        return ModelShape.from_hf_config(fields, **({} if "_name_or_path" in fields else {"name": path.parent.name}))
    return build({"name": path.stem} | fields, str(path))


def _fields(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        fields = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise InputError(Problem(str(path), f"cannot be read as a model shape: {error}")) from error
    if not isinstance(fields, dict):
        raise InputError(Problem(str(path), "is not a model shape: expected a mapping of field to value"))
    return fields
