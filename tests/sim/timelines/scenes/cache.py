"""The cache: when victims are chosen, what may leave, staging, keys of any size and keys that layers share."""

from __future__ import annotations

from typing import Any

from tests.sim.timelines.timeline import Costs, Figure, Panel, Server, prompt

# A cache of four keys for both layers; the step before needs 1 and 0 in each, so that it holds 1, 0, 5, 4, last used in
# this order.
VICTIM = Figure(
    "victim",
    (
        Panel(
            "keys 2 and 3 are planned at 0; the victim of key 3 is chosen at 1000, when its copy starts",
            Server(
                (prompt(1, 0), prompt(0)),
                layers=2,
                memory={"slots": 2, "scope": "global"},
                machine={"copies_in_flight": 1},
                changes={"prefetch": {"name": "scripted", "plans": "2 3 / 3", "step": 1}},
            ),
            stream="0-300 attention; 300-600 experts 0; 600-900 attention; 900-1200 experts 4",
            link="0-1000 prefetch 2; 1000-2000 prefetch 3",
            cache="""
            before-0 key 1; 0-after key 2; before-after key 0
            before-1000 key 5; 1000-after key 3; before-after key 4
            """,
            marks="0 asked; 300 asked; 900 asked",
            first=1,
            origin=5200,
            steps=((0, 1200),),
            numbers={"reuse": 2, "prefetch_bytes": 2000, "evictions": 2},
        ),
    ),
)

PINS = Figure(
    "pins",
    (
        Panel(
            "one slot: key 0 keeps it until its kernel has ended",
            Server((prompt(0), prompt(0, 1))),
            stream="0-300 attention; 300-600 experts 0; 600-1600 miss stall; 1600-1900 experts 1",
            link="600-1600 demand 1",
            cache="before-600 key 0; 600-after key 1",
            marks="300 demand 1",
            first=1,
            origin=1600,
            steps=((0, 1900),),
            numbers={"reuse": 1, "miss": 1, "demand_bytes": 1000, "evictions": 1, "waves": 1},
            same=("barrier", "index"),
        ),
    ),
)

SPARED = Figure(
    "spared",
    (
        Panel(
            "first in, first out: key 0 was first and has run by 1300, but key 4, not needed here, leaves",
            Server(
                (prompt(0, 3, 4), prompt(0, 1, 2)),
                experts=5,
                memory={"slots": 3, "scope": "layer"},
                machine={"copies_in_flight": 1},
                changes={"cache": "fifo"},
            ),
            stream="""
            0-300 attention; 300-600 experts 0; 600-1300 miss stall; 1300-1600 experts 1
            1600-2300 miss stall; 2300-2600 experts 2
            """,
            link="300-1300 demand 1; 1300-2300 demand 2",
            cache="before-after key 0; before-300 key 3; 300-after key 1; before-1300 key 4; 1300-after key 2",
            marks="300 demand 1; 300 demand 2",
            first=1,
            origin=3600,
            steps=((0, 2600),),
            numbers={"reuse": 1, "miss": 2, "demand_bytes": 2000, "evictions": 2},
        ),
    ),
)


def _guess(level: str, *needed: int) -> Server:
    """Two slots hold keys 0 and 1, and the prefetcher asks for key 2, which the step does not need."""
    return Server(
        (prompt(0, 1), prompt(*needed)),
        memory={"slots": 2, "scope": "layer"},
        changes={"prefetch": {"name": "scripted", "plans": "2 /", "step": 1, "level": level}},
    )


DROPPED = Figure(
    "dropped",
    (
        Panel(
            "the prefetcher sees that the step needs keys 0 and 1: both are spared, and the prefetch is dropped",
            _guess("step", 0, 1),
            stream="0-300 attention; 300-900 experts 0 1",
            cache="before-after key 0; before-after key 1",
            marks="0 asked; 0 dropped 2; 300 asked",
            first=1,
            origin=2600,
            steps=((0, 900),),
            numbers={"reuse": 2, "prefetch_dropped": 1},
        ),
        Panel(
            "it sees that the step needs key 0 only: key 1 makes room",
            _guess("step", 0),
            stream="0-300 attention; 300-600 experts 0",
            link="0-1000 prefetch 2",
            cache="before-after key 0; before-0 key 1; 0-after key 2",
            marks="0 asked; 300 asked",
            first=1,
            origin=2600,
            steps=((0, 600),),
            numbers={"reuse": 1, "prefetch_bytes": 1000, "evictions": 1},
        ),
        Panel(
            "it sees only the past: key 2 takes the place of key 0, which has to be loaded again",
            _guess("history", 0),
            stream="0-300 attention; 300-2000 miss stall; 2000-2300 experts 0",
            link="0-1000 prefetch 2; 1000-2000 demand 0",
            cache="before-0 key 0; 0-after key 2; before-300 key 1; 300-after key 0",
            marks="0 asked; 300 demand 0; 300 asked",
            first=1,
            origin=2600,
            steps=((0, 2300),),
            numbers={"miss": 1, "demand_bytes": 1000, "prefetch_bytes": 1000, "evictions": 2},
        ),
    ),
)

_ONE_STAGED: dict[str, Any] = {"slots": 1, "scope": "layer", "staging": 1}
STAGING = Figure(
    "staging",
    (
        Panel(
            "the policy does not admit key 2: it passes through the staging slot, and key 0 stays",
            Server(
                (prompt(0), prompt(0, 2), prompt(0)),
                memory=_ONE_STAGED,
                changes={"cache": {"name": "bypass", "around": "2"}},
            ),
            stream="""
            0-300 attention; 300-600 experts 0; 600-1300 miss stall; 1300-1600 experts 2
            1600-1900 attention; 1900-2200 experts 0
            """,
            link="300-1300 demand 2",
            cache="before-after key 0; 300-1600 staged 2",
            marks="300 demand 2",
            first=1,
            origin=1600,
            steps=((0, 1600), (1600, 2200)),
            numbers={"reuse": 2, "miss": 1, "demand_bytes": 1000, "evictions": 1, "bypasses": 1, "waves": 1},
        ),
        Panel(
            "key 2 is larger than the cache (1200 of 1000 bytes): no policy is asked",
            Server(
                (prompt(0, 1), prompt(2)),
                experts=3,
                key_sizes=(500, 500, 1200),
                memory={"bytes": 2200, "scope": "layer", "staging": 1},
                machine={"chunk_bytes": 1200},
            ),
            stream="0-300 attention; 300-1500 miss stall; 1500-1800 experts 2",
            link="300-1500 demand 2",
            cache="before-after key 0; before-after key 1; 300-1800 staged 2",
            marks="300 demand 2",
            first=1,
            origin=1600,
            steps=((0, 1800),),
            numbers={"miss": 1, "demand_bytes": 1200, "evictions": 1, "bypasses": 1, "waves": 1},
        ),
    ),
)

PUSHED_OUT = Figure(
    "pushed-out",
    (
        Panel(
            "keys bypass the cache: key 1 finds the staging slot taken and is dropped, key 3 makes way for a demand",
            Server(
                (prompt(2),),
                costs=Costs(attention=1200),
                memory=_ONE_STAGED,
                changes={
                    "cache": {"name": "bypass", "around": "1 2 3"},
                    "prefetch": {"name": "scripted", "plans": "3 1 /"},
                },
            ),
            stream="0-1200 attention; 1200-2200 miss stall; 2200-2500 experts 2",
            link="0-1000 prefetch 3; 1200-2200 demand 2",
            cache="0-1200 staged 3; 1200-2500 staged 2",
            marks="0 asked; 0 dropped 1; 1000 asked; 1200 demand 2; 1200 asked",
            steps=((0, 2500),),
            numbers={
                "miss": 1,
                "demand_bytes": 1000,
                "prefetch_bytes": 1000,
                "wasted_bytes": 1000,
                "evictions": 2,
                "bypasses": 2,
                "prefetch_dropped": 1,
            },
        ),
    ),
)

UNEQUAL = Figure(
    "unequal-keys",
    (
        Panel(
            "1000 bytes hold keys 0 and 1 (500 each); key 2 needs 800, so both must go, and key 1 runs until 600",
            Server(
                (prompt(0, 1), prompt(1, 2)),
                experts=3,
                key_sizes=(500, 500, 800),
                memory={"bytes": 1000, "scope": "layer"},
            ),
            stream="0-300 attention; 300-600 experts 1; 600-1400 miss stall; 1400-1700 experts 2",
            link="600-1400 demand 2",
            cache="before-600 key 0; before-600 key 1; 600-after key 2",
            marks="300 demand 2",
            first=1,
            origin=1600,
            steps=((0, 1700),),
            numbers={"reuse": 1, "miss": 1, "demand_bytes": 800, "evictions": 2, "waves": 1},
        ),
    ),
)

SHARED = Figure(
    "shared-key",
    (
        Panel(
            "expert 0 of both layers is key 0: loaded for the first layer, used again by the second",
            Server(
                (prompt(0),),
                layers=2,
                experts=2,
                key_map=((0, 1), (0, 2)),
                memory={"slots": 1, "scope": "global"},
            ),
            stream="""
            0-300 attention; 300-1300 miss stall; 1300-1600 experts 0
            1600-1900 attention; 1900-2200 experts 0
            """,
            link="300-1300 demand 0",
            cache="300-after key 0",
            marks="300 demand 0",
            steps=((0, 2200),),
            numbers={"reuse": 1, "miss": 1, "demand_bytes": 1000},
        ),
    ),
)

FIGURES = (VICTIM, PINS, SPARED, DROPPED, STAGING, PUSHED_OUT, UNEQUAL, SHARED)
