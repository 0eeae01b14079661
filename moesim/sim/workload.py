"""Requests, bound to captured sequences so that their routing is real (docs/results.md)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from moesim.experiment import Drift, Traffic
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


class Workload:
    """Request `n`, made when first asked for; the same whoever asks, and in whatever order the server goes.

    Each replication draws from its own share of the captured sequences, none of which is in two shares, so that
    replications are independent given the capture; only a domain with fewer sequences than replications lends its own
    to several. A domain is drawn by the mix, then its share's next sequence in a shuffled order; when the share is used
    up it is shuffled and used again, and the request is marked recycled.
    """

    def __init__(self, trace: RoutingTrace, traffic: Traffic, seed: int, replication: int, replications: int) -> None:
        self.trace, self.traffic = trace, traffic
        self.rng = stream(seed, replication, "requests")
        chosen = eligible(trace, traffic)
        self.domains = sorted({trace.domains[s] for s in chosen})
        divide = np.random.default_rng([seed, zlib.crc32(b"shares")])
        self.shares: list[np.ndarray] = []
        for domain in self.domains:
            own = divide.permutation([s for s in chosen if trace.domains[s] == domain])
            share = own[replication::replications]
            self.shares.append(share if len(share) else own)
        self.order = [self.rng.permutation(share) for share in self.shares]
        self.taken = [0] * len(self.domains)
        self.gaps = stream(seed, replication, "arrivals")
        self.requests: list[Request] = []
        self.sequences: list[int] = []

    def __getitem__(self, number: int) -> Request:
        while len(self.requests) <= number:
            self._draw()
        return self.requests[number]

    def _draw(self) -> None:
        number, traffic = len(self.requests), self.traffic
        shares = weights(traffic, self.domains, min(1.0, number / max(1, traffic.requests - 1)))
        which = int(self.rng.choice(len(self.domains), p=shares))
        order, taken = self.order[which], self.taken[which]
        if taken and taken % len(order) == 0:
            order = self.order[which] = self.rng.permutation(self.shares[which])
        sequence = int(order[taken % len(order)])
        self.taken[which] += 1
        output = int(self.trace.output_tokens[sequence])
        request = Request(
            number,
            sequence,
            self.domains[which],
            int(self.trace.prompt_tokens[sequence]),
            min(output, traffic.output_max or output),
            recycled=taken >= len(order),
        )
        if traffic.kind == "poisson":
            before = self.requests[-1].arrival if self.requests else 0
            request.arrival = before + round(self.gaps.exponential(1e9 / (traffic.rate or 1)))
        elif traffic.kind == "all" or number < (traffic.concurrency or 0):
            request.arrival = 0
        self.requests.append(request)
        self.sequences.append(sequence)
