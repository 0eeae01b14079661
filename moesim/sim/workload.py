"""Requests, bound to captured sequences so that their routing is real (docs/traffic.md)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from moesim.experiment import Drift, Traffic
from moesim.sim.binding import Binder
from moesim.sim.traffic import chosen, gap_of, length_of
from moesim.trace.arrivals import Arrivals
from moesim.trace.routing import RoutingTrace

NOT_YET = -1


def stream(seed: int, replication: int, purpose: str) -> np.random.Generator:
    """The random stream of one purpose: equal for every policy that is compared."""
    return np.random.default_rng([seed, replication, zlib.crc32(purpose.encode())])


@dataclass(slots=True)
class Request:
    """One request and what happened to it; times in ns, NOT_YET until they come."""

    number: int
    sequence: int
    """its sequence in `Workload.trace`"""
    domain: str
    prompt: int
    output: int
    recycled: bool
    """its captured sequence already served an earlier request of the run"""
    arrival: int = NOT_YET
    visible: int = NOT_YET
    started: int = NOT_YET
    started_step: int = NOT_YET
    first_token: int = NOT_YET
    finished: int = NOT_YET
    produced: int = 0
    goal: int = NOT_YET
    """tokens that it processes as a prompt: `prompt`, more of them after it was preempted"""
    preemptions: int = 0
    captured: int = NOT_YET
    """the captured sequence that it begins with"""
    stitched_tokens: int = 0
    recycled_tokens: int = 0
    borrowed_tokens: int = 0
    """stitched or recycled (see `Borrowed`)"""

    def __post_init__(self) -> None:
        self.goal = self.prompt


def eligible(trace: RoutingTrace, traffic: Traffic) -> np.ndarray:
    """Sequences that the traffic may use: prompt length within its limits, and something to generate."""
    prompts = trace.prompt_tokens
    low = traffic.prompt_min or 1
    high = traffic.prompt_max or int(prompts.max(initial=0))
    return np.flatnonzero((prompts >= low) & (prompts <= high) & (trace.output_tokens > 0))


def weights(traffic: Traffic, domains: list[str], progress: float) -> np.ndarray:
    """Share of each domain at `progress` (0..1) through the run's requests."""

    def of(mix: dict[str, float]) -> np.ndarray:
        values = np.array([mix.get(domain, 0.0) for domain in domains])
        return values / values.sum()

    if isinstance(traffic.mix, Drift):
        return (1 - progress) * of(traffic.mix.start) + progress * of(traffic.mix.end)
    return of(dict.fromkeys(domains, 1.0) if isinstance(traffic.mix, str) else traffic.mix)


def _drawn(domains: list[str], traffic: Traffic, arrivals: Arrivals | None) -> set[str]:
    """Domains that requests may be of."""
    if traffic.arrivals is not None and arrivals is not None and arrivals.domains is not None:
        return set(arrivals.domains)
    possible = weights(traffic, domains, 0.0) + weights(traffic, domains, 1.0)
    return {domain for domain, weight in zip(domains, possible, strict=True) if weight > 0}


class Workload:
    """Request `n`, made when first asked for; the same whoever asks, and in whatever order the server goes.

    Each replication draws from its own share of the captured sequences, none of which is in two shares, so that
    replications are independent given the capture. Where the smallest domain has fewer sequences than there are
    replications there are only as many shares, and replications of equal `cluster` have the same. A domain is drawn by
    the mix, then its share's next sequence in a shuffled order; when the share is used up it is shuffled and used
    again, and the request is marked recycled.

    `trace` holds the routes: those of request r are its sequence `sequences[r]`. It is the captured trace as long as
    requests have the lengths of their sequences, else one in which each request is a sequence (see `Binder`).
    """

    def __init__(
        self,
        trace: RoutingTrace,
        traffic: Traffic,
        seed: int,
        replication: int,
        replications: int,
        arrivals: Arrivals | None = None,
    ) -> None:
        self.trace = self.captured = trace
        self.rng = stream(seed, replication, "requests")
        eligibles = eligible(trace, traffic)
        self.domains = sorted({trace.domains[s] for s in eligibles})
        divide = np.random.default_rng([seed, zlib.crc32(b"shares")])
        self.shares: list[np.ndarray] = []
        owned = [divide.permutation([s for s in eligibles if trace.domains[s] == domain]) for domain in self.domains]
        drawn = _drawn(self.domains, traffic, arrivals)
        clusters = min([replications, *(len(own) for own, domain in zip(owned, self.domains, strict=True)
                                        if domain in drawn)])  # fmt: skip
        self.cluster = replication % clusters
        for own in owned:
            share = own[self.cluster :: clusters]
            self.shares.append(share if len(share) else own)
        self.order = [self.rng.permutation(share) for share in self.shares]
        self.taken = [0] * len(self.domains)
        self.mix: np.ndarray | None = None
        """distribution function of the next request's domain"""
        self.gaps, self.gap = stream(seed, replication, "arrivals"), gap_of(traffic)
        self.lengths = [stream(seed, replication, purpose) for purpose in ("prompts", "outputs")]
        self.prompt = length_of(traffic.prompt, trace.prompt_tokens[eligibles])
        self.output = length_of(traffic.output, trace.output_tokens[eligibles])
        self.arrivals = None
        if traffic.arrivals is not None and arrivals is not None:
            self.arrivals = chosen(arrivals, traffic.arrivals, stream(seed, replication, "sample"))
            traffic = traffic.model_copy(update={"requests": min(traffic.requests, len(self.arrivals))})
        self.traffic = traffic
        self.binder: Binder | None = None
        if self.arrivals or self.prompt or self.output:
            self.binder = Binder(trace, self.shares, traffic.longer, stream(seed, replication, "binding"))
            self.trace = self.binder.trace
        self.requests: list[Request] = []
        self.sequences: list[int] = []

    def __getitem__(self, number: int) -> Request:
        while len(self.requests) <= number:
            self._draw()
        return self.requests[number]

    def _draw(self) -> None:
        number = len(self.requests)
        which = self._domain(number)
        order, taken = self.order[which], self.taken[which]
        if taken and taken % len(order) == 0:
            order = self.order[which] = self.rng.permutation(self.shares[which])
        captured = int(order[taken % len(order)])
        self.taken[which] += 1
        prompt, output = self._tokens(number, captured)
        recycled = taken >= len(order)
        request = Request(number, captured, self.domains[which], prompt, output, recycled, captured=captured)
        if self.binder is None:
            request.recycled_tokens = request.borrowed_tokens = (prompt + output) * recycled
        else:
            request.sequence = number
            found = self.binder.bind(which, captured, prompt, output)
            request.stitched_tokens, request.recycled_tokens = found.stitched, found.recycled
            request.borrowed_tokens = found.either
        request.arrival = self._arrival(number)
        self.requests.append(request)
        self.sequences.append(request.sequence)

    def _domain(self, number: int) -> int:
        if self.arrivals is not None and self.arrivals.domains is not None:
            return self.domains.index(self.arrivals.domains[number])
        if self.mix is None or isinstance(self.traffic.mix, Drift):
            shares = weights(self.traffic, self.domains, min(1.0, number / max(1, self.traffic.requests - 1)))
            self.mix = shares.cumsum()
            self.mix /= self.mix[-1]
        return int(self.mix.searchsorted(self.rng.random(), side="right"))  # as `choice` with probabilities does

    def _tokens(self, number: int, captured: int) -> tuple[int, int]:
        """Prompt and output tokens that a request asks for."""
        if self.arrivals is not None:
            prompt, output = int(self.arrivals.prompt[number]), int(self.arrivals.output[number])
        else:
            of_prompts, of_outputs = self.lengths
            prompt = self.prompt(of_prompts) if self.prompt else int(self.captured.prompt_tokens[captured])
            output = self.output(of_outputs) if self.output else int(self.captured.output_tokens[captured])
        return prompt, min(output, self.traffic.output_max or output)

    def _arrival(self, number: int) -> int:
        if self.arrivals is not None:
            return int(self.arrivals.arrival[number])
        if self.gap is not None:
            return (self.requests[-1].arrival if self.requests else 0) + self.gap(self.gaps)
        return 0 if self.traffic.kind == "all" or number < (self.traffic.concurrency or 0) else NOT_YET
