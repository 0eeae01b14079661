"""Requests of any length, bound to captured sequences: the rule by hand, what is counted, and its statistics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.toy import trace
from moesim.experiment import Traffic
from moesim.files import shipped
from moesim.sim.binding import SETTLED, Binder, Borrowed, Gathered, RowIndex, Supply, settled
from moesim.sim.schedule import routes_of
from moesim.sim.work import Part, make_work
from moesim.sim.workload import Workload
from moesim.trace.arrivals import read_arrivals
from moesim.trace.routing import RoutingTrace, read_routing

LONG = 2 * SETTLED + 3
SHORT = trace([([0, 1], [2]), ([1, 2, 3], [3, 0]), ([2], [1])])
"""prompts of 2, 3 and 1 tokens (rows 0-1, 3-5, 8), outputs of 1, 2 and 1 (rows 2, 6-7, 9)"""


def binder(made: RoutingTrace = SHORT, longer: str = "stitch", share: Any = None, seed: int = 0) -> Binder:
    shares = [np.arange(made.sequences) if share is None else np.array(share)]
    return Binder(made, shares, longer, np.random.default_rng(seed))


def rows(of: Binder, request: int) -> list[int]:
    start, end = of.offsets[request], of.offsets[request + 1]
    return of.index.rows[start:end].tolist()


# ---- the rule


def test_a_request_as_long_as_its_sequence_is_its_sequence() -> None:
    made = binder()
    assert made.bind(0, 1, 3, 2) == Borrowed(stitched=0, recycled=0, either=0)
    assert made.bind(0, 1, 3, 2) == Borrowed(stitched=0, recycled=5, either=5)
    assert rows(made, 0) == rows(made, 1) == [3, 4, 5, 6, 7]


def test_a_shorter_request_is_cut_at_the_end_of_prompt_and_of_output() -> None:
    made = binder()
    made.bind(0, 1, 2, 1)
    assert rows(made, 0) == [3, 4, 6]


def test_a_longer_request_goes_on_with_other_sequences_prompts_in_prompts_outputs_in_outputs() -> None:
    made = binder(share=[0, 1])  # one other sequence: 0 goes on with 1, each time it is asked
    found = made.bind(0, 0, 7, 4)
    assert rows(made, 0) == [0, 1, 3, 4, 5, 3, 4, 2, 6, 7, 6]
    assert (found.stitched, found.recycled, found.either) == (5 + 3, 2 + 1, 5 + 3)


def test_recycling_goes_on_with_its_own() -> None:
    made = binder(longer="recycle")
    found = made.bind(0, 1, 7, 5)
    assert rows(made, 0) == [3, 4, 5, 3, 4, 5, 3, 6, 7, 6, 7, 6]
    assert (found.stitched, found.recycled, found.either) == (4 + 3, 4 + 3, 4 + 3)


def test_a_lone_sequence_goes_on_with_itself() -> None:
    one, other = binder(share=[1]), binder(longer="recycle")
    assert one.bind(0, 1, 8, 3) == other.bind(0, 1, 8, 3)
    assert rows(one, 0) == rows(other, 0)


def test_prompts_go_on_where_texts_have_settled() -> None:
    """Sequences 0 and 1 are long; 2 is short: it is gone on from, never with."""
    made = trace([([0] * LONG, [0]), ([1] * LONG, [1]), ([2, 2], [2])])
    assert settled(made, [0, 1, 2]) == {0: (SETTLED, LONG), 1: (LONG + 1 + SETTLED, 2 * LONG + 1)}
    assert settled(made, [2]) == {2: (2 * LONG + 2, 2 * LONG + 4)}
    of = binder(made)
    of.bind(0, 2, 2 + 2 * (LONG - SETTLED), 1)
    taken = rows(of, 0)
    assert taken[:2] == [2 * LONG + 2, 2 * LONG + 3]
    both = [*range(SETTLED, LONG), *range(LONG + 1 + SETTLED, 2 * LONG + 1)]
    assert sorted(taken[2:-1]) == both


def test_recycling_a_long_prompt_begins_where_it_has_settled() -> None:
    made = trace([([0] * LONG, [0])])
    of = binder(made, "recycle")
    of.bind(0, 0, LONG + 2, 1)
    assert rows(of, 0) == [*range(LONG), SETTLED, SETTLED + 1, LONG]


def test_a_supply_gives_all_once_before_any_comes_again_and_not_the_one_that_asks() -> None:
    made = Supply({n: (n, n + 1) for n in range(5)}, np.random.default_rng(0))
    rounds = [[made.next(but=-1)[0] for _ in range(5)] for _ in range(200)]
    assert all(sorted(once) == list(range(5)) for once in rounds)
    assert len({tuple(once) for once in rounds}) > 60
    assert {made.next(but=3)[0] for _ in range(200)} == {0, 1, 2, 4}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    asked=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=8),
    longer=st.sampled_from(["stitch", "recycle"]),
    seed=st.integers(0, 9),
)
def test_counts_are_those_of_the_rows(asked: list[tuple[int, int, int]], longer: str, seed: int) -> None:
    made = binder(longer=longer, seed=seed)
    seen: set[int] = set()
    prompts, outputs = [{0, 1, 3, 4, 5, 8}, {2, 6, 7, 9}]
    lengths = SHORT.prompt_tokens.tolist(), SHORT.output_tokens.tolist()
    for number, (sequence, prompt, output) in enumerate(asked):
        found = made.bind(0, sequence, prompt, output)
        taken = rows(made, number)
        assert len(taken) == prompt + output
        assert set(taken[:prompt]) <= prompts and set(taken[prompt:]) <= outputs
        own = [min(n, of[sequence]) for n, of in zip((prompt, output), lengths, strict=True)]
        start = int(SHORT.offsets[sequence])
        assert taken[: own[0]] == list(range(start, start + own[0]))
        stitched = [i for i in range(len(taken)) if own[0] <= i < prompt or i >= prompt + own[1]]
        again = []
        for place, row in enumerate(taken):
            again += [place] if row in seen else []
            seen.add(row)
        assert (found.stitched, found.recycled) == (len(stitched), len(again))
        assert found.either == len({*stitched, *again})


# ---- read by the server


def test_gathered_reads_like_the_array_that_it_stands_for() -> None:
    base, index = np.arange(60, dtype=np.int16).reshape(10, 3, 2), RowIndex()
    made = Gathered(base, index)
    order = np.random.default_rng(0).integers(0, 10, 3000).astype(np.int32)
    for part in np.array_split(order, 7):  # it grows beyond its first room
        index.extend(part)
    whole = base[order]
    assert (len(made), made.shape, made.dtype, made.ndim) == (3000, (3000, 3, 2), np.int16, 3)
    for key in (5, slice(7, 19), (slice(7, 9), 1), (2999, 0), (slice(0, 3), 0, 0), np.array([1, 2999, 4])):
        assert (made[key] == whole[key]).all()
        assert np.shape(made[key]) == whole[key].shape


@pytest.mark.parametrize("router", ["decoupled", "layerwise"])
def test_a_bound_request_is_served_like_a_sequence_with_its_rows(router: str) -> None:
    """What the server reads of the bound trace is what it would read of a trace that holds the rows themselves."""
    layers = 1 if router == "decoupled" else 2
    rng = np.random.default_rng(1)
    pairs = [
        tuple([rng.integers(0, 4, layers).tolist() for _ in range(rng.integers(1, 6))] for _ in range(2))
        for _ in range(6)
    ]
    captured = trace(pairs, layers=layers, router=router)  # type: ignore[arg-type]
    asked = Traffic.model_validate({"kind": "all", "requests": 9, "prompt": {"kind": "uniform", "min": 1, "max": 12},
                                    "output": {"kind": "uniform", "min": 1, "max": 9}})  # fmt: skip
    made = Workload(captured, asked, 0, 0, 1)
    drawn = [made[n] for n in range(9)]
    assert made.binder is not None
    held = [captured.experts[rows(made.binder, n)] for n in range(9)]
    real = trace([(list(h[: r.prompt]), list(h[r.prompt :])) for h, r in zip(held, drawn, strict=True)],
                 layers=layers, router=router)  # fmt: skip
    for number, request in enumerate(drawn):
        assert request.sequence == number == made.sequences[number]
        length = request.prompt + request.output
        parts = tuple(Part(number, at, 1, at < request.prompt) for at in range(length))
        for part in (*parts, Part(number, 0, length, True)):
            ours = make_work((part,), made.trace, made.sequences)
            theirs = make_work((part,), real, list(range(9)))
            assert [layer.experts for layer in ours.layers] == [layer.experts for layer in theirs.layers]
            assert [layer.tokens for layer in ours.layers] == [layer.tokens for layer in theirs.layers]
            known = [routes_of(of, number, part.start, part.tokens) for of in (made.trace, real)]
            assert known == [None, None] if router == "layerwise" else (known[0] == known[1]).all()  # type: ignore[union-attr]


# ---- statistics on the shipped capture (docs/traffic.md has the same figures for the Azure trace)


def same(parts: list[np.ndarray], lag: int, first: int) -> float:
    """Share of tokens from position `first` on that choose the expert of `lag` tokens before."""
    pairs = [(part[first:], part[first - lag : len(part) - lag]) for part in parts if len(part) > first >= lag]
    return float(np.mean(np.concatenate([now == before for now, before in pairs])))


@pytest.fixture(scope="module")
def capture() -> RoutingTrace:
    return read_routing(shipped("traces", "routing", "smollm2-135m-decoupled.parquet"))


Parts = tuple[list[np.ndarray], list[np.ndarray], list[str]]
"""experts of prompts, experts of outputs, domains"""


def like_azure(capture: RoutingTrace, longer: str) -> Parts:
    """1,500 requests with lengths like those of the Azure conversation trace."""
    prompt, output = ({"kind": "lognormal", "mean": mean, "cv": cv} for mean, cv in ((1150, 1), (210, 0.8)))
    plain = {"kind": "all", "requests": 1500, "longer": longer, "prompt": prompt, "output": output}
    return bound_parts(Workload(capture, Traffic.model_validate(plain), 0, 0, 1))


def bound_parts(made: Workload) -> Parts:
    prompts, outputs, domains = [], [], []
    for number in range(made.traffic.requests):
        request = made[number]
        start = made.trace.offsets[number]
        experts = made.trace.experts[start : start + request.prompt + request.output, 0, 0]
        prompts.append(experts[: request.prompt])
        outputs.append(experts[request.prompt :])
        domains.append(request.domain)
    return prompts, outputs, domains


def captured_parts(capture: RoutingTrace) -> Parts:
    experts = np.split(capture.experts[:, 0, 0], capture.offsets[1:-1])
    cut = list(zip(experts, capture.prompt_tokens.tolist(), strict=True))
    return [e[:n] for e, n in cut], [e[n:] for e, n in cut], list(capture.domains)


def shares_of(parts: list[np.ndarray], domains: list[str]) -> np.ndarray:
    """Share of each expert among the tokens of each domain."""
    found = []
    for domain in sorted(set(domains)):
        experts = np.concatenate([part for part, of in zip(parts, domains, strict=True) if of == domain])
        found.append(np.bincount(experts, minlength=7) / len(experts))
    return np.array(found)


def shift(made: Parts, real: Parts, part: int) -> float:
    """Largest total variation distance of a domain's shares from those captured."""
    return float(0.5 * np.abs(shares_of(made[part], made[2]) - shares_of(real[part], real[2])).sum(axis=1).max())


KEPT = ((0, 1, 1), (0, 1, 64), (0, 16, 64), (0, 64, 128), (1, 1, 1), (1, 16, 16))
"""part, lag, first position: the columns of the table in docs/traffic.md"""


def test_stitching_keeps_persistence_and_shares(capture: RoutingTrace) -> None:
    real, made = captured_parts(capture), like_azure(capture, "stitch")
    for column, within in zip(KEPT, (0.01, 0.01, 0.01, 0.015, 0.01, 0.03), strict=True):
        part, lag, first = column
        assert same(made[part], lag, first) == pytest.approx(same(real[part], lag, first), abs=within), column
    assert max(shift(made, real, part) for part in (0, 1)) < 0.04


def test_recycling_does_not_and_is_there_to_compare(capture: RoutingTrace) -> None:
    """A short prompt that is repeated has only restless first tokens: persistence falls by 0.03 or more."""
    real, made = captured_parts(capture), like_azure(capture, "recycle")
    assert same(made[0], 1, 64) < same(real[0], 1, 64) - 0.03
    assert same(made[0], 16, 64) < same(real[0], 16, 64) - 0.04
    assert shift(made, real, 0) > 0.05


@pytest.mark.parametrize("row", ["captured", "stitch", "recycle"])
def test_the_table_in_the_docs_is_what_is_measured(capture: RoutingTrace, row: str) -> None:
    root = Path(__file__).parents[2]
    path = root.parent / "shared" / "data" / "azure_llm_2023" / "AzureLLMInferenceTrace_conv.csv"
    if not path.is_file():
        pytest.skip("third-party data is not here: ../shared/data/azure_llm_2023/AzureLLMInferenceTrace_conv.csv")
    real = made = captured_parts(capture)
    if row != "captured":
        asked = Traffic.model_validate({"kind": "trace", "arrivals": "azure.csv", "requests": 6000, "longer": row})
        made = bound_parts(Workload(capture, asked, 0, 0, 1, read_arrivals(path)))
    found = [same(made[part], lag, first) for part, lag, first in KEPT]
    found += [shift(made, real, part) for part in (0, 1)] if row != "captured" else []
    told = re.search(rf"^\| {row} \|(.*)\|$", (root / "docs" / "traffic.md").read_text(), re.MULTILINE)
    assert told is not None
    assert [f"{value:.4f}".lstrip("0") for value in found] == [t.strip() for t in told[1].split("|") if t.strip()]
