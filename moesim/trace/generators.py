"""Traffic made by rule: gaps between arrivals and lengths of requests, one draw at a time, and whole arrival traces.

`python -m moesim.trace.generators --help` tells how to write an arrivals file; `traces/arrivals/README.md` has the
commands of those that are shipped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from moesim.errors import InputError, Problem
from moesim.trace.arrivals import Arrivals, ArrivalsMeta, write_arrivals

Gap = Callable[[np.random.Generator], int]
"""ns from an arrival to the next"""
Length = Callable[[np.random.Generator], int]
"""tokens, 1 or more"""


# ---- gaps


def exponential(rate: float) -> Gap:
    """Gaps of a Poisson process of `rate` requests per second."""
    return lambda rng: round(rng.exponential(1e9 / rate))


def gamma(rate: float, cv: float) -> Gap:
    """Gamma gaps with mean 1 / rate and coefficient of variation `cv`.

    cv 1 is the Poisson process (the same draws), above 1 arrivals come in bursts, below 1 they are more even. The
    burstiness of BurstGPT (Wang et al. 2024) and of vLLM's benchmark is the gamma's shape, 1 / cv^2.
    """
    shape = cv**-2
    return lambda rng: round(rng.gamma(shape, 1e9 / rate / shape))


# ---- lengths


def fixed(tokens: int) -> Length:
    """Always `tokens`."""
    return lambda rng: tokens


def uniform(least: int, most: int) -> Length:
    """Every length from `least` to `most`, both included, equally often."""
    return lambda rng: int(rng.integers(least, most, endpoint=True))


def lognormal(mean: float, cv: float, least: int = 1, most: int | None = None) -> Length:
    """Lognormal with that mean and coefficient of variation, rounded, then cut to `least` .. `most`.

    What is cut changes the mean: the parameters are those of the law without limits.
    """
    variance = np.log1p(cv**2)
    centre, spread = float(np.log(mean) - variance / 2), float(np.sqrt(variance))
    top = most or 2**31 - 1

    def draw(rng: np.random.Generator) -> int:
        return int(min(max(least, round(min(rng.lognormal(centre, spread), 2.0**62))), top))

    return draw


def empirical(lengths: np.ndarray) -> Length:
    """One of `lengths`, each equally often."""
    return lambda rng: int(lengths[rng.integers(len(lengths))])


# ---- whole traces


def generate(gap: Gap | None, prompt: Length, output: Length, requests: int, seed: int, meta: ArrivalsMeta) -> Arrivals:
    """Arrivals by rule; gap None: all at time 0. Gaps, prompts and outputs have a random stream each."""
    gaps, prompts, outputs = (np.random.default_rng([seed, purpose]) for purpose in range(3))
    times = np.cumsum([gap(gaps) if gap else 0 for _ in range(requests)], dtype=np.int64)
    return Arrivals(
        arrival=times,
        prompt=np.array([prompt(prompts) for _ in range(requests)], dtype=np.int32),
        output=np.array([output(outputs) for _ in range(requests)], dtype=np.int32),
        meta=meta.model_copy(update={"requests": requests}),
    )


def parse_length(text: str) -> Length:
    """`fixed:128`, `uniform:16:512`, `lognormal:MEAN:CV` or `lognormal:MEAN:CV:LEAST:MOST`. Raises InputError."""
    kind, *values = text.split(":")
    try:
        numbers = [float(value) for value in values]
        whole = [int(value) for value in values] if kind != "lognormal" else [int(value) for value in values[2:]]
    except ValueError:
        numbers, whole = [], [0]
    sane = all(number > 0 for number in numbers) and all(0 < number <= 10**7 for number in whole)
    if kind == "fixed" and len(numbers) == 1 and sane:
        return fixed(*whole)
    if kind == "uniform" and len(numbers) == 2 and sane and whole[0] <= whole[1]:
        return uniform(*whole)
    if kind == "lognormal" and len(numbers) in (2, 4) and sane and whole == sorted(whole):
        return lognormal(numbers[0], numbers[1], *whole)
    rule = "fixed:TOKENS, uniform:LEAST:MOST or lognormal:MEAN:CV[:LEAST:MOST], all above 0"
    raise InputError(Problem("lengths", f"{text!r} is none of {rule}"))


def _gap(given: argparse.Namespace) -> Gap | None:
    if given.kind == "all":
        return None
    if not (given.rate > 0 and given.cv > 0):
        raise InputError(Problem("--rate, --cv", f"{given.rate}, {given.cv}: both must be above 0"))
    return exponential(given.rate) if given.kind == "poisson" else gamma(given.rate, given.cv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m moesim.trace.generators", description="Write arrivals by rule.")
    parser.add_argument("--out", type=Path, required=True, help="the Parquet file to write")
    parser.add_argument("--kind", choices=("poisson", "gamma", "all"), default="poisson")
    parser.add_argument("--rate", type=float, default=1.0, help="requests per second")
    parser.add_argument("--cv", type=float, default=1.0, help="coefficient of variation of the gaps (kind gamma)")
    parser.add_argument("--requests", type=int, default=1000)
    kinds = "fixed:N, uniform:A:B, lognormal:MEAN:CV[:A:B]"
    parser.add_argument("--prompt", default="fixed:128", metavar="LENGTHS", help=kinds)
    parser.add_argument("--output", default="fixed:128", metavar="LENGTHS", help=kinds)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--created", default="", help="date to record")
    parser.add_argument("--notes", default="")
    return parser


def command_of(given: argparse.Namespace) -> str:
    """The command to record: what decides the result, without the paths of one machine."""
    words = ["python -m moesim.trace.generators", f"--out traces/arrivals/{given.out.name}"]
    decide = ("kind", "rate", "cv", "requests", "prompt", "output", "seed")
    words += [f"--{name} {getattr(given, name)}" for name in decide]
    return " ".join(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code, 2 for bad input."""
    given = _parser().parse_args(arguments)
    try:
        if not 1 <= given.requests <= 10**7:
            raise InputError(Problem("--requests", f"{given.requests} must be 1 to 10,000,000"))
        meta = ArrivalsMeta(
            name=given.out.stem,
            label="synthetic",
            requests=given.requests,
            created=given.created,
            command=command_of(given),
            versions={"numpy": np.__version__},
            notes=given.notes,
        )
        lengths = parse_length(given.prompt), parse_length(given.output)
        made = generate(_gap(given), *lengths, given.requests, given.seed, meta)
        write_arrivals(given.out, made)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{given.out}: {len(made):,} requests in {made.seconds:,.0f} s, mean {made.prompt.mean():.1f} prompt and "
          f"{made.output.mean():.1f} output tokens")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
