"""Synthetic routing: labelled controls for theory and sweeps, never in the place of real routing.

`iid` draws every choice uniformly, `zipf` from a Zipf law over a shuffled order of experts, `sticky` keeps the previous
token's experts with a given probability and otherwise takes other ones, uniformly. A layer-wise router can be given
predictions of later layers that are as good as one likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from moesim.errors import InputError, Problem, unknown
from moesim.trace.meta import RoutingMeta
from moesim.trace.routing import RoutingTrace

KINDS = ("iid", "sticky", "zipf")
# Read-ME, section 5.3: 2921 of 4096 tokens repeat the choice of the token before them.
READ_ME_PERSISTENCE = 2921 / 4096


def synthetic(
    kind: str,
    *,
    layers: int,
    experts: int,
    key_bytes: int | list[int],
    router: Literal["decoupled", "layerwise"] = "decoupled",
    k: int = 1,
    sequences: int = 64,
    prompt_tokens: int = 128,
    output_tokens: int = 128,
    persistence: float = READ_ME_PERSISTENCE,
    alpha: float = 1.0,
    recall: Sequence[float] = (),
    predicted: int | None = None,
    seed: int = 0,
) -> RoutingTrace:
    """Routing of `sequences` independent sequences, each of `prompt_tokens` and `output_tokens`, one domain.

    `persistence` (kind sticky) is exactly P(a token takes the same experts as the one before it); `alpha` (kind zipf)
    the exponent, 0 being iid. The k experts of a token are distinct and weigh the same. A layer-wise router decides in
    every layer independently. Equal arguments give equal traces.

    `recall` (layer-wise) adds predictions for distance 1, 2, 3, as many as it has values: each of a token's k experts
    of the later layer is, independently, one of the first k of `predicted` predicted ones with that probability; wrong
    ones take the places that are left, and what comes behind the first k is drawn from all others, uniformly. The first
    k stand in no order. `predicted` is 2k unless given, and at most all experts.

    Raises InputError with every argument that makes no sense.
    """
    given = {name: value for name, value in locals().items() if name != "key_bytes"}
    if problems := [Problem("trace", text) for text in _mistakes(given)]:
        raise InputError(problems)
    decisions = 1 if router == "decoupled" else layers
    rng = np.random.default_rng([seed, KINDS.index(kind), layers, experts, k])
    shape = (sequences, prompt_tokens + output_tokens, decisions)
    if kind == "sticky":
        chosen = _sticky(rng, shape, experts, k, persistence)
    else:
        chosen = _independent(rng, shape, experts, k, alpha if kind == "zipf" else 0.0)
    tokens = sequences * shape[1]
    width = min(2 * k, experts) if predicted is None else predicted
    guess = np.random.default_rng([seed, len(KINDS), layers, experts, k])
    return RoutingTrace(
        meta=_meta(given, key_bytes, width if recall else 0),
        experts=chosen.reshape(tokens, decisions, k),
        predicted={
            distance: _predicted(guess, chosen, distance, hit, experts, width).reshape(tokens, decisions, width)
            for distance, hit in enumerate(recall, 1)
        },
        weights=np.full((tokens, decisions, k), 1 / k, dtype=np.float16),
        offsets=np.arange(sequences + 1, dtype=np.int64) * shape[1],
        prompt_tokens=np.full(sequences, prompt_tokens, dtype=np.int32),
        domains=("synthetic",) * sequences,
    )


def _mistakes(given: dict[str, Any]) -> list[str]:
    texts = [] if given["kind"] in KINDS else [unknown("synthetic routing", given["kind"], KINDS)]
    least = {"layers": 1, "experts": 1, "k": 1, "sequences": 1, "prompt_tokens": 1, "output_tokens": 0, "seed": 0}
    texts += [f"{name} is {given[name]}; it must be at least {low}" for name, low in least.items() if given[name] < low]
    if given["router"] not in ("decoupled", "layerwise"):
        texts.append(unknown("router", given["router"], ("decoupled", "layerwise")))
    if given["k"] > given["experts"]:
        texts.append(f"k is {given['k']}; there are {given['experts']} experts, and those of a token are distinct")
    if not 0 <= given["persistence"] <= 1:
        texts.append(f"persistence is {given['persistence']}; it is a probability, 0 to 1")
    if given["kind"] == "sticky" and given["k"] == given["experts"] and given["persistence"] < 1:
        texts.append("persistence below 1 needs k below experts: there are no other experts to take")
    if not 0 <= given["alpha"] <= 100:
        texts.append(f"alpha is {given['alpha']}; it must be 0 to 100")
    return texts + _recall_mistakes(given)


def _recall_mistakes(given: dict[str, Any]) -> list[str]:
    recall, width, k, experts = given["recall"], given["predicted"], given["k"], given["experts"]
    if not recall:
        return [] if width is None else ["predicted needs recall: it is how many experts a prediction names"]
    texts = []
    if given["router"] == "decoupled":
        texts.append("recall needs router: layerwise; a decoupled one has no later decision to predict")
    if len(recall) > 3 or not all(0 <= value <= 1 for value in recall):
        texts.append(f"recall is {list(recall)}; it must be one to three probabilities, for distance 1, 2 and 3")
    if width is not None and not k <= width <= experts:
        texts.append(f"predicted is {width}; it must be k ({k}) to all experts ({experts})")
    if min(recall) < 1 and 2 * k > experts:
        texts.append(f"recall below 1 needs k ({k}) wrong experts beside k right ones, and there are {experts}")
    return texts


def _independent(
    rng: np.random.Generator, shape: tuple[int, int, int], experts: int, k: int, alpha: float
) -> np.ndarray:
    """k distinct experts a decision, drawn without replacement with weights rank^-alpha (the Gumbel top-k trick)."""
    sequences, tokens, decisions = shape
    ranks = rng.permuted(np.tile(np.arange(1, experts + 1), (decisions, 1)), axis=1)
    penalty = alpha * np.log(ranks)
    chosen = np.empty((*shape, k), dtype=np.int16)
    for sequence in range(sequences):  # one at a time: the scores of all would not fit for many layers and experts
        scores = rng.gumbel(size=(tokens, decisions, experts)) - penalty
        chosen[sequence] = np.argsort(-scores, axis=-1)[..., :k]
    return chosen


def _sticky(
    rng: np.random.Generator, shape: tuple[int, int, int], experts: int, k: int, persistence: float
) -> np.ndarray:
    sequences, tokens, decisions = shape
    chosen = np.empty((sequences, tokens, decisions, k), dtype=np.int16)
    current = _independent(rng, (sequences, 1, decisions), experts, k, 0.0)[:, 0]
    for token in range(tokens):
        if token:
            leaves = rng.random((sequences, decisions)) >= persistence
            current = current.copy()
            current[leaves] = _others(rng, current[leaves], experts)
        chosen[:, token] = current
    return chosen


def _others(rng: np.random.Generator, held: np.ndarray, experts: int) -> np.ndarray:
    """For each row of `held`, uniformly one of the sets of experts that differ from it."""
    fresh = held.copy()
    same = np.ones(len(held), dtype=bool)
    while same.any():
        drawn = np.argsort(rng.random((int(same.sum()), experts)), axis=1)
        fresh[same] = drawn[:, : held.shape[1]]
        same = (np.sort(fresh, axis=1) == np.sort(held, axis=1)).all(axis=1)
    return fresh


def _predicted(
    rng: np.random.Generator, chosen: np.ndarray, distance: int, recall: float, experts: int, width: int
) -> np.ndarray:
    """int16 [sequences, tokens, layers, width] of choices [sequences, tokens, layers, k]; -1 beyond the last layer."""
    *shape, layers, k = chosen.shape
    found = np.full((*shape, layers, width), -1, dtype=np.int16)
    for sequence in range(shape[0] if distance < layers else 0):  # one at a time, as in `_independent`
        truth = chosen[sequence, :, distance:].astype(np.int64)
        score = rng.random((*truth.shape[:-1], experts))
        hit = rng.random(truth.shape) < recall
        np.put_along_axis(score, truth, np.where(hit, 2.0, -1.0), axis=-1)
        best = np.argsort(-score, axis=-1)[..., :k]
        # What stands behind the first k has its chance, an expert that they missed as well as any other.
        rest = rng.random(score.shape)
        np.put_along_axis(rest, best, 1.0 + rng.random(best.shape), axis=-1)
        found[sequence, :, : layers - distance] = np.argsort(-rest, axis=-1)[..., :width]
    return found


def _meta(given: dict[str, Any], key_bytes: int | list[int], predicted: int) -> RoutingMeta:
    unused = {"sticky": {"alpha"}, "zipf": {"persistence"}}.get(given["kind"], {"alpha", "persistence"})
    unused |= set() if predicted else {"recall", "predicted"}
    drawn = " Its predictions are drawn around the routes with the recall that was asked for." if predicted else ""
    rule = ", ".join(f"{name}={value!r}" for name, value in given.items() if name not in unused)
    return RoutingMeta(
        model=f"synthetic {given['kind']}",
        router=given["router"],
        layers=given["layers"],
        experts=given["experts"],
        k=given["k"],
        p=predicted,
        key_bytes=key_bytes,
        label="synthetic",
        command=f"moesim.trace.synthetic.synthetic({rule})",
        outputs="drawn by the same rule as the prompts",
        notes=f"A control for theory and sweeps, not the routing of any model.{drawn}",
    )
