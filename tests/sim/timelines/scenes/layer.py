"""A layer whose keys are not all there: what runs when, in one go, one by one, or in waves."""

from __future__ import annotations

from tests.sim.timelines.timeline import Costs, Figure, Panel, Server, prompt


def _start(expert_start: str) -> Server:
    """Key 2 is there, keys 0 and 1 are not; all three fit."""
    return Server(
        (prompt(2), prompt(0, 1, 2)),
        memory={"slots": 3, "scope": "layer"},
        machine={"expert_start": expert_start},
    )


_LOADS = {"reuse": 1, "miss": 2, "demand_bytes": 2000}
EXPERT_START = Figure(
    "expert-start",
    (
        Panel(
            "eager: whatever is ready",
            _start("eager"),
            stream="""
            0-300 attention; 300-600 experts 2; 600-1300 miss stall; 1300-1600 experts 0
            1600-2300 miss stall; 2300-2600 experts 1
            """,
            link="300-1300 demand 0; 1300-2300 demand 1",
            marks="300 demand 0; 300 demand 1",
            first=1,
            origin=1600,
            steps=((0, 2600),),
            numbers=_LOADS,
        ),
        Panel(
            "barrier: all at once",
            _start("barrier"),
            stream="0-300 attention; 300-2300 miss stall; 2300-3200 experts 0 1 2",
            link="300-1300 demand 0; 1300-2300 demand 1",
            marks="300 demand 0; 300 demand 1",
            first=1,
            origin=1600,
            steps=((0, 3200),),
            numbers=_LOADS,
        ),
        Panel(
            "index: one by one, in order",
            _start("index"),
            stream="""
            0-300 attention; 300-1300 miss stall; 1300-1600 experts 0; 1600-2300 miss stall
            2300-2600 experts 1; 2600-2900 experts 2
            """,
            link="300-1300 demand 0; 1300-2300 demand 1",
            marks="300 demand 0; 300 demand 1",
            first=1,
            origin=1600,
            steps=((0, 2900),),
            numbers=_LOADS,
        ),
    ),
)

FIVE_RUNS = Figure(
    "waves-one-slot",
    (
        Panel(
            "one slot, five keys: five runs of 1000 + 500 ns",
            Server((prompt(0, 1, 2, 3, 4),), experts=5, costs=Costs(attention=500, expert=500)),
            stream="""
            0-500 attention
            500-1500 miss stall; 1500-2000 experts 0
            2000-3000 miss stall; 3000-3500 experts 1
            3500-4500 miss stall; 4500-5000 experts 2
            5000-6000 miss stall; 6000-6500 experts 3
            6500-7500 miss stall; 7500-8000 experts 4
            """,
            link="500-1500 demand 0; 2000-3000 demand 1; 3500-4500 demand 2; 5000-6000 demand 3; 6500-7500 demand 4",
            cache="500-2000 key 0; 2000-3500 key 1; 3500-5000 key 2; 5000-6500 key 3; 6500-after key 4",
            marks="500 demand 0; 500 demand 1; 500 demand 2; 500 demand 3; 500 demand 4",
            steps=((0, 8000),),
            numbers={"miss": 5, "demand_bytes": 5000, "evictions": 4, "waves": 1},
            same=("barrier", "index"),
        ),
    ),
)


def _two_slots(expert_start: str) -> Server:
    return Server(
        (prompt(0, 1, 2, 3),),
        costs=Costs(attention=500, expert=500),
        memory={"slots": 2, "scope": "layer"},
        machine={"expert_start": expert_start},
    )


_FOUR = {"miss": 4, "demand_bytes": 4000, "evictions": 2, "waves": 1}
TWO_SLOTS = Figure(
    "waves-two-slots",
    (
        Panel(
            "eager (and index): a slot is free again as soon as its key has run",
            _two_slots("eager"),
            stream="""
            0-500 attention; 500-1500 miss stall; 1500-2000 experts 0; 2000-2500 miss stall; 2500-3000 experts 1
            3000-3500 miss stall; 3500-4000 experts 2; 4000-4500 miss stall; 4500-5000 experts 3
            """,
            link="500-1500 demand 0; 1500-2500 demand 1; 2500-3500 demand 2; 3500-4500 demand 3",
            cache="500-2000 key 0; 500-3000 key 1; 2000-after key 2; 3000-after key 3",
            marks="500 demand 0; 500 demand 1; 500 demand 2; 500 demand 3",
            steps=((0, 5000),),
            numbers=_FOUR,
            same=("index",),
        ),
        Panel(
            "barrier: a wave of two, and another",
            _two_slots("barrier"),
            stream="""
            0-500 attention; 500-2500 miss stall; 2500-3500 experts 0 1; 3500-5500 miss stall; 5500-6500 experts 2 3
            """,
            link="500-1500 demand 0; 1500-2500 demand 1; 3500-4500 demand 2; 4500-5500 demand 3",
            cache="500-3500 key 0; 500-3500 key 1; 3500-after key 2; 3500-after key 3",
            marks="500 demand 0; 500 demand 1; 500 demand 2; 500 demand 3",
            steps=((0, 6500),),
            numbers=_FOUR,
        ),
    ),
)

RELOAD = Figure(
    "index-reload",
    (
        Panel(
            "index, two slots: key 1 makes room for key 0, which comes first, and is loaded again when its turn comes",
            Server(
                (prompt(1, 2), prompt(0, 1, 2)),
                memory={"slots": 2, "scope": "layer"},
                machine={"expert_start": "index"},
            ),
            stream="""
            0-300 attention; 300-1300 miss stall; 1300-1600 experts 0; 1600-2600 miss stall
            2600-2900 experts 1; 2900-3200 experts 2
            """,
            link="300-1300 demand 0; 1600-2600 demand 1",
            cache="before-300 key 1; 300-1600 key 0; 1600-after key 1; before-after key 2",
            marks="300 demand 0; 1600 demand 1",
            first=1,
            origin=2600,
            steps=((0, 3200),),
            numbers={"reuse": 2, "miss": 1, "demand_bytes": 2000, "evictions": 2, "waves": 1},
        ),
        Panel(
            "index, one slot: key 0 is there and comes first, so that key 1 waits until it has run",
            Server((prompt(0), prompt(0, 1)), machine={"expert_start": "index"}),
            stream="0-300 attention; 300-600 experts 0; 600-1600 miss stall; 1600-1900 experts 1",
            link="600-1600 demand 1",
            cache="before-600 key 0; 600-after key 1",
            marks="300 demand 1",
            first=1,
            origin=1600,
            steps=((0, 1900),),
            numbers={"reuse": 1, "miss": 1, "demand_bytes": 1000, "evictions": 1, "waves": 1},
        ),
    ),
)

FIGURES = (EXPERT_START, FIVE_RUNS, TWO_SLOTS, RELOAD)
