"""Generators: the moments that each law promises, and the command that writes an arrivals file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.files import shipped
from moesim.trace import generators
from moesim.trace.arrivals import ArrivalsMeta, read_arrivals
from moesim.trace.generators import Length, generate, main, parse_length

DRAWS = 20_000
META = ArrivalsMeta(name="g", label="synthetic", requests=1)


def drawn(law: Any, count: int = DRAWS, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([law(rng) for _ in range(count)])


def mean_is(values: np.ndarray, mean: float) -> bool:
    """Within five standard errors."""
    return bool(abs(values.mean() - mean) < 5 * values.std() / len(values) ** 0.5)


# ---- gaps


def test_exponential_gaps_have_the_rate_and_a_cv_of_1() -> None:
    gaps = drawn(generators.exponential(4.0))
    assert mean_is(gaps, 1e9 / 4)
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.03)
    assert all(isinstance(generators.exponential(4.0)(np.random.default_rng(n)), int) for n in range(3))


@pytest.mark.parametrize("cv", [0.25, 1.0, 2.0, 4.0])
def test_gamma_gaps_have_the_rate_and_the_burstiness(cv: float) -> None:
    gaps = drawn(generators.gamma(4.0, cv), 4 * DRAWS)
    assert mean_is(gaps, 1e9 / 4)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_gamma_with_a_cv_of_1_is_the_poisson_process_draw_by_draw() -> None:
    assert (drawn(generators.gamma(3.0, 1.0), 500) == drawn(generators.exponential(3.0), 500)).all()


def test_bursts_are_counted() -> None:
    """Index of dispersion of counts: 1 for Poisson; in the long run cv^2 for a renewal process."""
    for cv in (0.5, 1.0, 3.0):
        times = np.cumsum(drawn(generators.gamma(1.0, cv), 200_000, seed=5))
        counts = np.bincount((times // (100 * 10**9)).astype(int))[:-1]
        assert counts.var() / counts.mean() == pytest.approx(cv**2, rel=0.2)


# ---- lengths


def test_fixed_and_uniform_lengths() -> None:
    assert set(drawn(generators.fixed(7), 50)) == {7}
    lengths = drawn(generators.uniform(3, 6))
    assert np.bincount(lengths, minlength=7)[3:].tolist() == pytest.approx([DRAWS / 4] * 4, rel=0.06)
    assert set(lengths) == {3, 4, 5, 6}


@pytest.mark.parametrize(("mean", "cv"), [(300.0, 0.5), (1000.0, 1.2)])
def test_lognormal_lengths_have_the_mean_and_the_spread(mean: float, cv: float) -> None:
    lengths = drawn(generators.lognormal(mean, cv))
    assert mean_is(lengths, mean)
    assert lengths.std() / lengths.mean() == pytest.approx(cv, rel=0.1)
    # The median of a lognormal is its mean / sqrt(1 + cv^2).
    assert np.median(lengths) == pytest.approx(mean / (1 + cv**2) ** 0.5, rel=0.03)


def test_a_lognormal_is_cut_at_its_limits() -> None:
    plain, cut = (drawn(generators.lognormal(100, 2, *limits)) for limits in ((), (20, 300)))
    assert (cut == np.clip(plain, 20, 300)).all()
    assert (cut == 20).any() and (cut == 300).any() and plain.max() > 300
    assert drawn(generators.lognormal(1, 100), 500).min() == 1


def test_empirical_lengths_come_as_often_as_they_are_there() -> None:
    lengths = drawn(generators.empirical(np.array([5, 5, 5, 9], dtype=np.int32)))
    assert set(lengths) == {5, 9}
    assert abs((lengths == 5).mean() - 0.75) < 5 * (0.75 * 0.25 / DRAWS) ** 0.5


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    text=st.one_of(
        st.integers(1, 9999).map("fixed:{}".format),
        st.tuples(st.integers(1, 50), st.integers(50, 99)).map(lambda pair: "uniform:{}:{}".format(*pair)),
        st.tuples(st.floats(1, 1e5), st.floats(0.01, 100)).map(lambda pair: "lognormal:{}:{}:5:600".format(*pair)),
    ),
    seed=st.integers(0, 99),
)
def test_lengths_are_whole_and_at_least_1(text: str, seed: int) -> None:
    law: Length = parse_length(text)
    values = [law(np.random.default_rng(seed)) for _ in range(3)]
    assert all(type(value) is int and value >= 1 for value in values)
    assert not text.startswith("lognormal") or all(5 <= value <= 600 for value in values)


@pytest.mark.parametrize(
    "text",
    ["", "128", "fixed", "fixed:0", "fixed:1.5", "fixed:1:2", "uniform:5:4", "uniform:0:4", "lognormal:100",
     "lognormal:-1:1", "lognormal:100:0", "lognormal:1:1:9:3", "lognormal:1:1:5", "zipf:2", "fixed:99999999999"],
)  # fmt: skip
def test_lengths_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is none of fixed:TOKENS"):
        parse_length(text)


# ---- whole traces


def test_gaps_and_lengths_have_streams_of_their_own() -> None:
    gap, other = generators.exponential(2.0), generators.gamma(2.0, 3.0)
    short, long = generators.uniform(1, 9), generators.uniform(1, 900)
    one = generate(gap, short, short, 50, 3, META)
    assert (generate(other, short, short, 50, 3, META).prompt == one.prompt).all()
    assert (generate(gap, long, short, 50, 3, META).arrival == one.arrival).all()
    assert (generate(gap, long, short, 50, 3, META).output == one.output).all()
    assert (generate(gap, short, short, 50, 4, META).arrival != one.arrival).any()
    assert (generate(gap, short, short, 80, 3, META).arrival[:50] == one.arrival).all()
    assert not generate(None, short, short, 50, 3, META).arrival.any()


def test_the_command_writes_what_it_says_and_records_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "t.parquet"
    options = ["--kind", "gamma", "--rate", "2", "--cv", "2.5", "--requests", "300", "--seed", "7"]
    lengths = ["--prompt", "lognormal:300:1.2:1:2048", "--output", "uniform:1:64"]
    assert main(["--out", str(out), *options, *lengths]) == 0
    read = read_arrivals(out)
    assert (len(read), read.meta.label, read.meta.requests) == (300, "synthetic", 300)
    assert read.output.max() <= 64 and read.prompt.max() <= 2048
    assert read.meta.command == (
        "python -m moesim.trace.generators --out traces/arrivals/t.parquet --kind gamma --rate 2.0 --cv 2.5 "
        "--requests 300 --prompt lognormal:300:1.2:1:2048 --output uniform:1:64 --seed 7"
    )
    again = read.meta.command.split()[3:]
    again[1] = str(tmp_path / "again.parquet")
    assert main(again) == 0
    other = read_arrivals(tmp_path / "again.parquet")
    assert all((getattr(read, name) == getattr(other, name)).all() for name in ("arrival", "prompt", "output"))
    assert "300 requests" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--kind", "gamma", "--cv", "0"], "both must be above 0"),
        (["--rate", "-1"], "both must be above 0"),
        (["--requests", "0"], "--requests: 0 must be 1 to 10,000,000"),
        (["--prompt", "many"], "'many' is none of"),
    ],
)
def test_wrong_options_write_nothing(
    tmp_path: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "t.parquet"), *options]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# ---- what is shipped

SHIPPED = sorted(shipped("traces", "arrivals").glob("*.parquet"))


def test_there_are_shipped_arrivals() -> None:
    assert "chat-bursty" in [path.stem for path in SHIPPED]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_arrivals_are_what_their_command_makes(path: Path, tmp_path: Path) -> None:
    read = read_arrivals(path)
    assert read.meta.label == "synthetic" and read.meta.created and read.meta.notes and read.meta.versions
    words = read.meta.command.split()
    assert words[:3] == ["python", "-m", "moesim.trace.generators"]
    assert words[3:5] == ["--out", f"traces/arrivals/{path.name}"]
    assert main(["--out", str(tmp_path / "again.parquet"), *words[5:]]) == 0
    again = read_arrivals(tmp_path / "again.parquet")
    assert all((getattr(read, name) == getattr(again, name)).all() for name in ("arrival", "prompt", "output"))
    told = (path.parent / "README.md").read_text()
    assert " ".join(words[3:]) in " ".join(told.replace("\\", "").split())
    assert path.stat().st_size < 2**20
