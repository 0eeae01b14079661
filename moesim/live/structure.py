"""Where a model routes: its MoE blocks, found by structure and by one small forward pass, not by a list of names.

A block is a module with two children: *experts*, a list of at least two like modules or a module whose parameters have
three dimensions, the first of them the expert; and a *gate* with a weight [experts, width]. What the pass shows decides
how the choice is read (`Form`), so that what is recorded is what the experts were really given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from moesim.errors import InputError, Problem
from moesim.live.probe import PROBE, Candidate, Seen, candidates_in, probe, rows_of, tensors

Form = Literal["called", "scored", "counted", "router"]
"""called: the experts get (states, indices, weights), as in current transformers; scored: the gate gives a score for
each expert, zero but for the chosen; counted: experts are called one by one, and the gate's best k agree with how many
tokens each got; router: a router apart from the backbone."""

LOOKED_FOR = (
    "looked for a module with experts (a list of like modules, or parameters [experts, ...] of three dimensions) "
    "beside a gate with a weight [experts, width], the experts being given each token's indices and weights"
)


@dataclass(frozen=True, slots=True)
class MoEBlock:
    """One MoE layer. `experts` counts those that have weights: higher ids are experts without, and are nobody's.

    `logits`, `index`, `weights` are places in the gate's output, `probable` says that its logits are probabilities.
    `extra` is what the gate is given beside its input, None where it cannot be asked about another layer's input. An
    expert has `weights_of_key` weights in floating point and `other_bytes` of packed ones.
    """

    name: str
    form: Form
    experts: int
    k: int
    gate: nn.Module | None
    called: nn.Module | None = None
    choice_at: tuple[Any, Any] = (None, None)
    logits: int | None = None
    index: int | None = None
    weights: int | None = None
    probable: bool = False
    extra: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None
    weights_of_key: int = 0
    other_bytes: int = 0

    def read(self, output: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """(logits [tokens, E], indices [tokens, k], weights [tokens, k]) of a gate's output, as far as it has them."""
        parts = tensors(output)
        found = [None if at is None else _flat(parts[at]) for at in (self.logits, self.index, self.weights)]
        logits, index, weights = found
        if self.form == "scored" and index is None and weights is not None:
            weights, index = weights.topk(self.k, dim=-1)
        elif index is None and logits is not None:
            index = logits.topk(self.k, dim=-1).indices
        if weights is None and logits is not None and index is not None:
            weights = (logits.float() if self.probable else logits.float().softmax(dim=-1)).gather(1, index)
        return logits, index, weights


def router_block(router: nn.Module, experts: int, k: int) -> MoEBlock:
    """A pre-gating router: its output is logits [batch, tokens, experts], its choice the best k."""
    return MoEBlock("router", "router", experts, k, router, logits=0)


def find_blocks(model: Any, place: str, device: str = "cpu") -> list[MoEBlock]:
    """The MoE blocks of a causal language model, in the order in which they run.

    Raises InputError with what was looked for and what was found, where there is none or one cannot be traced.
    """
    candidates = list(candidates_in(model))
    if not candidates:
        text = f"has no MoE block: {LOOKED_FOR}; none of its {sum(1 for _ in model.modules())} modules is that. "
        raise InputError(Problem(place, text + "Of a dense model --text-only captures the continuations"))
    try:
        seen = probe(model, candidates, device)
    except (RuntimeError, ValueError, IndexError) as error:  # a config that does not fit itself, such as k > experts
        text = f"does not run on a few tokens ({str(error).splitlines()[0][:200]}); is its config.json damaged?"
        raise InputError(Problem(place, text)) from error
    known = {id(value) for value in (*model.parameters(), *model.buffers())}
    blocks, problems = [], []
    for candidate, mine in sorted(zip(candidates, seen, strict=True), key=lambda pair: pair[1].order):
        found = _block(candidate, mine, known)
        if isinstance(found, MoEBlock):
            blocks.append(found)
        elif found:
            problems.append(Problem(f"{place}: {candidate.name}.{candidate.child}", found))
    if problems or not blocks:
        lacking = [] if blocks else [Problem(place, f"has no MoE block that can be traced: {LOOKED_FOR}")]
        raise InputError(lacking + problems[:8])
    return blocks


def _flat(value: Tensor) -> Tensor:
    return value.reshape(-1, value.shape[-1])


# ---- from both to a block


def _block(candidate: Candidate, seen: Seen, known: set[int]) -> MoEBlock | str:
    """The block, or why it cannot be traced; "" where it is no MoE block at all."""
    if not seen.calls and not seen.rows:
        return ""  # was not run, or is a list of layers: nothing is routed here
    if len(seen.calls) > 1:
        return f"its experts are called {len(seen.calls)} times in a pass; expected once"
    gates = [one for given in seen.gates if (one := _gate(candidate, given, known)) is not None]
    size = _size(candidate)
    called = _called(candidate, seen)
    if called is not None:
        index, at = called
        facts = {"k": index.shape[-1], "called": candidate.experts, "choice_at": at, **size}
        best = max(gates, key=lambda one: (one.chosen(index), one.facts["logits"] is not None), default=None)
        gate = best.facts if best is not None else {"gate": None}
        return MoEBlock(candidate.name, "called", min(candidate.counts), **{**gate, **facts})
    for one in gates:
        found = one.scored() if seen.calls else one.counted(seen.rows)
        if found is not None:
            form: Form = "scored" if seen.calls else "counted"
            return MoEBlock(candidate.name, form, min(candidate.counts), **{**one.facts, **found, **size})
    if not gates:
        return ""
    what = ", ".join(f"{type(one.facts['gate']).__name__} gives {one.shapes()}" for one in gates)
    got = _shapes(seen.calls[0]) if seen.calls else f"tokens one expert at a time, {dict(sorted(seen.rows.items()))}"
    count = min(candidate.counts)
    return f"{count} experts and a gate, but what a token chose cannot be seen: {what}; experts get {got}"


def _called(candidate: Candidate, seen: Seen) -> tuple[Tensor, tuple[Any, Any]] | None:
    """Indices that the experts were given, and where they and their weights stand among the arguments."""
    if not seen.calls:
        return None
    args, kwargs = seen.calls[0]
    given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    whole = {
        at: value
        for at, value in given.items()
        if isinstance(value, Tensor)
        and not value.is_floating_point()
        and value.dtype != torch.bool
        and value.ndim >= 2
        and rows_of(value) == PROBE
        and value.shape[-1] <= max(candidate.counts)
    }
    for at, index in whole.items():
        beside = [a for a, v in given.items() if isinstance(v, Tensor) and v.is_floating_point()]
        same = [a for a in beside if given[a].shape == index.shape]
        if same:
            return _flat(index), (at, same[-1])
    return None


@dataclass(frozen=True, slots=True)
class _Gate:
    facts: dict[str, Any]
    output: list[Tensor]

    def chosen(self, index: Tensor) -> bool:
        """Whether the gate itself gave these indices."""
        at = self.facts["index"]
        return at is not None and torch.equal(_flat(self.output[at]), index)

    def scored(self) -> dict[str, Any] | None:
        """Places of scores that are zero but for the same number of experts of each token."""
        for at, part in enumerate(self.output):
            if not part.numel():
                continue
            chosen = (_flat(part) != 0).sum(dim=-1)
            k = int(chosen[0])
            wide = self.facts["logits"] is not None and part.shape[-1] == self.output[self.facts["logits"]].shape[-1]
            if wide and 0 < k < part.shape[-1] and bool((chosen == k).all()):
                others = [a for a, other in enumerate(self.output) if a != at and other.shape == part.shape]
                return {"k": k, "weights": at, "logits": others[0] if others else at, "index": None}
        return None

    def counted(self, rows: Mapping[int, int]) -> dict[str, Any] | None:
        """k, where the gate's choice explains how many tokens each expert was given."""
        k, rest = divmod(sum(rows.values()), PROBE)
        logits = self.facts["logits"]
        if rest or not k or (self.facts["index"] is None and logits is None):
            return None
        at = self.facts["index"]
        chosen = _flat(self.output[at]) if at is not None else _flat(self.output[logits]).topk(k, dim=-1).indices
        counts = chosen.flatten().bincount(minlength=max(rows, default=0) + 1).tolist()
        explained = all(count == rows.get(expert, 0) for expert, count in enumerate(counts))
        return {"k": k} if explained and chosen.shape[-1] == k else None

    def shapes(self) -> str:
        return _shapes((tuple(self.output), {}))


def _gate(candidate: Candidate, seen: tuple[Any, ...], known: set[int]) -> _Gate | None:
    module, args, kwargs, output = seen
    index = weights = logits = None
    for at, part in enumerate(output):
        if part.ndim < 2 or rows_of(part) != PROBE or part.dtype == torch.bool:
            continue
        if not part.is_floating_point():
            index = at if index is None else index
        elif part.shape[-1] in candidate.counts and logits is None:
            logits = at
    if index is not None:
        same = [a for a, part in enumerate(output) if part.is_floating_point() and part.shape == output[index].shape]
        weights = next((a for a in same if a != logits or len(same) == 1), None)
        logits = None if weights == logits else logits
    if logits is None and index is None:
        return None
    probable = False
    if logits is not None:
        rows = _flat(output[logits]).float()
        sums = rows.sum(dim=-1)
        probable = bool((rows >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-2))
    facts = {"gate": module, "logits": logits, "index": index, "weights": weights, "probable": probable}
    return _Gate(facts | {"extra": _extra(args, kwargs, known)}, output)


def _extra(args: tuple[Any, ...], kwargs: dict[str, Any], known: set[int]) -> Any:
    """What a gate gets beside its input, if that is the same in every pass: weights and plain values."""
    rest = [*args[1:], *kwargs.values()]
    fixed = all(id(one) in known if isinstance(one, Tensor) else not tensors(one) for one in rest)
    return (args[1:], kwargs) if args and fixed else None


def _size(candidate: Candidate) -> dict[str, int]:
    """What one expert holds."""
    own = [*candidate.experts.parameters(), *candidate.experts.buffers()]
    count = min(candidate.counts)
    plain = sum(value.numel() for value in own if value.is_floating_point())
    packed = sum(value.numel() * value.element_size() for value in own if not value.is_floating_point())
    return {"weights_of_key": plain // count, "other_bytes": packed // count}


def _shapes(call: tuple[tuple[Any, ...], Mapping[str, Any]]) -> str:
    found = [*call[0], *call[1].values()]
    return ", ".join(
        f"{str(one.dtype).removeprefix('torch.')} {list(one.shape)}" if isinstance(one, Tensor) else type(one).__name__
        for one in found
    )
