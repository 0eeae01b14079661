"""The figures of other models in traces/README.md, counted again from the data that their authors published."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.trace.importers import Options, read_any
from moesim.trace.stats import statistics
from moesim.trace.stats.ties import apart, entropy, mutual

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
DOMAINS = ("arxiv", "book", "c4", "github", "wikipedia")
MODELS = {"olmoe": 64, "mistral": 8}


def third_party(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"third-party data is not here: ../shared/data/{name}")
    return path


@pytest.fixture(scope="module")
def counts() -> Any:
    """Choices by expert of three layers, and by pairs of experts of neighbours among them."""
    return json.loads(gzip.decompress(third_party("olmoe_routing/routing_counts.json.gz").read_bytes()))


def by_domain(counts: Any, model: str, kind: str) -> dict[str, np.ndarray]:
    experts = MODELS[model]
    return {
        domain: np.array([[layer.get(str(e), 0) for e in range(experts)] for layer in counts[model][kind][domain]])
        for domain in DOMAINS
    }


@pytest.mark.parametrize(
    ("model", "kind", "found"),
    [
        ("olmoe", "expert_counts", {"mean_apart": 0.273, "bits": 0.356, "of_bits": 5.868}),
        ("olmoe", "expert_counts_top1", {"mean_apart": 0.446, "bits": 0.877, "of_bits": 5.355}),
        ("mistral", "expert_counts", {"mean_apart": 0.031, "bits": 0.005, "of_bits": 2.990}),
        ("mistral", "expert_counts_top1", {"mean_apart": 0.055, "bits": 0.016, "of_bits": 2.973}),
    ],
)
def test_domains_of_olmoe_and_mixtral(counts: Any, model: str, kind: str, found: dict[str, float]) -> None:
    measured = apart(by_domain(counts, model, kind))
    assert {name: round(measured[name], 3) for name in found} == found


def test_balance_of_olmoe_and_mixtral(counts: Any) -> None:
    found = {}
    for model, experts in MODELS.items():
        every = by_domain(counts, model, "expert_counts").values()
        shares = np.mean([of / of.sum(axis=1, keepdims=True) for of in every], axis=0)
        evenness, largest = (entropy(shares) / np.log2(experts)).mean(), shares.max(axis=1).mean()
        found[model] = round(float(evenness), 3), round(float(largest), 3)
    assert found == {"olmoe": (0.978, 0.039), "mistral": (0.997, 0.142)}


def test_first_experts_of_layers_that_are_some_apart(counts: Any) -> None:
    found = {}
    for model, experts in MODELS.items():
        for pair in range(2):
            joint = np.zeros((experts, experts), dtype=np.int64)
            for domain in DOMAINS:
                for key, times in counts[model]["expert_counts_crosslayer_top1"][domain][pair].items():
                    joint[tuple(map(int, key.split(",")))] += times
            found[model, pair] = round(mutual(joint), 2)
    assert found == {("olmoe", 0): 0.77, ("olmoe", 1): 1.51, ("mistral", 0): 0.06, ("mistral", 1): 0.12}


def test_overlap_of_qwen3() -> None:
    """BigMoeOnEdge publishes 38.0 % for lag 1 and 26.7 % for lag 8."""
    found = statistics(read_any(third_party("bigmoe/qwen.route.csv"), Options()))
    by_lag = found["overlap"]["by_lag"]
    assert (round(by_lag["1"], 3), round(by_lag["8"], 3)) == (0.380, 0.267)
    assert found["layer_ties"] is None, "128 tokens are too few for pairs of 128 experts"
    assert found["foresight"]["token_before"] < found["foresight"]["table"] < 0.55
