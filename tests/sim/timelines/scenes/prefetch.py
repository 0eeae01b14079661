"""Prefetches: promoted, late, planned anew, cancelled, and after demands."""

from __future__ import annotations

from tests.sim.timelines.timeline import Costs, Figure, Panel, Server, chunks, prompt

PROMOTION = Figure(
    "promotion",
    (
        Panel(
            "room for three keys: the rest of key 1 follows the demand of key 0, key 2 comes last",
            Server(
                (prompt(0, 1),),
                memory={"slots": 3, "scope": "layer"},
                machine={"chunk_bytes": 250, "copies_in_flight": 1},
                changes={"prefetch": {"name": "scripted", "plans": "1 0 2 / 2"}},
            ),
            stream="""
            0-300 attention; 300-1500 miss stall; 1500-1800 experts 0; 1800-2000 late stall; 2000-2300 experts 1
            """,
            link=chunks(0, 250, 2, "prefetch 1")
            + "\n"
            + chunks(500, 250, 4, "demand 0")
            + "\n"
            + chunks(1500, 250, 2, "promoted 1")
            + "\n"
            + chunks(2000, 250, 2, "prefetch 2"),
            marks="0 asked; 300 demand 0; 300 demand 1; 300 asked",
            steps=((0, 2300),),
            numbers={"miss": 1, "late": 1, "demand_bytes": 1000, "prefetch_bytes": 2000},
        ),
        Panel(
            "room for one: the demand of key 0 finds none, so key 1 goes on, runs, and makes it",
            Server(
                (prompt(0, 1),),
                machine={"chunk_bytes": 250, "copies_in_flight": 1},
                changes={"prefetch": {"name": "scripted", "plans": "1 /"}},
            ),
            stream="""
            0-300 attention; 300-1000 late stall; 1000-1300 experts 1; 1300-2300 miss stall; 2300-2600 experts 0
            """,
            link=chunks(0, 250, 2, "prefetch 1")
            + "\n"
            + chunks(500, 250, 2, "promoted 1")
            + "\n"
            + chunks(1300, 250, 4, "demand 0"),
            cache="0-1300 key 1; 1300-after key 0",
            marks="0 asked; 300 demand 0; 300 demand 1; 300 asked",
            steps=((0, 2600),),
            numbers={"miss": 1, "late": 1, "demand_bytes": 1000, "prefetch_bytes": 1000, "evictions": 1, "waves": 1},
        ),
    ),
)

LATE = Figure(
    "late-hit",
    (
        Panel(
            "its only chunk is submitted: nothing is left to promote",
            Server(
                (prompt(0),),
                costs=Costs(copy_submit=50),
                changes={"prefetch": {"name": "scripted", "plans": "0 /"}},
            ),
            stream="0-300 attention; 300-350 host; 350-1050 late stall; 1050-1350 experts 0",
            link="50-1050 prefetch 0",
            host="0-50 submit 0; 300-350 submit 0",
            marks="0 asked; 350 demand 0; 350 asked",
            steps=((0, 1350),),
            numbers={"late": 1, "prefetch_bytes": 1000},
        ),
        Panel(
            "it lands while the host submits the demand, and nothing enters the link",
            Server(
                (prompt(0),),
                costs=Costs(attention=1050, copy_submit=100),
                changes={"prefetch": {"name": "scripted", "plans": "0 /"}},
            ),
            stream="0-1050 attention; 1050-1150 host; 1150-1450 experts 0",
            link="100-1100 prefetch 0",
            host="0-100 submit 0; 1050-1150 submit 0",
            marks="0 asked; 1150 asked",
            steps=((0, 1450),),
            numbers={"late": 1, "prefetch_bytes": 1000},
        ),
    ),
)


def _wrong_guess(cancels: str) -> Server:
    return Server(
        (prompt(0),),
        machine={"chunk_bytes": 250, "copies_in_flight": 2},
        changes={"prefetch": {"name": "scripted", "plans": "3 /", "cancels": cancels}},
    )


CANCELLATION = Figure(
    "cancellation",
    (
        Panel(
            "cancelled at 300: two chunks in flight run on, and the only slot is held until they are over",
            _wrong_guess("/ 3"),
            stream="0-300 attention; 300-1750 miss stall; 1750-2050 experts 0",
            link=chunks(0, 250, 3, "prefetch 3") + "\n" + chunks(750, 250, 4, "demand 0"),
            cache="0-300 key 3; 300-750 cancelled 3; 750-after key 0",
            marks="0 asked; 300 demand 0; 300 asked; 300 cancelled 3",
            steps=((0, 2050),),
            numbers={
                "miss": 1,
                "demand_bytes": 1000,
                "prefetch_bytes": 750,
                "wasted_bytes": 750,
                "evictions": 1,
                "prefetch_cancelled": 1,
            },
        ),
        Panel(
            "not cancelled: the demand waits for room until the prefetch has landed",
            _wrong_guess(""),
            stream="0-300 attention; 300-2000 miss stall; 2000-2300 experts 0",
            link=chunks(0, 250, 4, "prefetch 3") + "\n" + chunks(1000, 250, 4, "demand 0"),
            cache="0-1000 key 3; 1000-after key 0",
            marks="0 asked; 300 demand 0; 300 asked",
            steps=((0, 2300),),
            numbers={"miss": 1, "demand_bytes": 1000, "prefetch_bytes": 1000, "wasted_bytes": 1000, "evictions": 1},
        ),
    ),
)

# Layer-wise routes, so that the two layers may need other experts: 0 and 1 in the first, 1 (key 3) in the second. The
# step before has loaded keys 0 and 2.
DEMANDS_FIRST = Figure(
    "demand-before-prefetch",
    (
        Panel(
            "key 1 waits for room while key 0 runs; the prefetch of key 3, planned at 300, does not pass it",
            Server(
                (prompt([0, 0]), prompt([0, 1], [1, 1])),
                layers=2,
                experts=2,
                router="layerwise",
                changes={"prefetch": {"name": "scripted", "plans": "/ 3", "step": 1}},
            ),
            stream="""
            0-300 attention; 300-600 experts 0; 600-1600 miss stall; 1600-1900 experts 1
            1900-2200 attention; 2200-2600 late stall; 2600-2900 experts 3
            """,
            link="600-1600 demand 1; 1600-2600 prefetch 3",
            cache="before-600 key 0; 600-after key 1; before-600 key 2; 600-after key 3",
            marks="0 asked; 300 demand 1; 300 asked; 2200 demand 3; 2200 asked",
            first=1,
            origin=3200,
            steps=((0, 2900),),
            numbers={
                "reuse": 1,
                "miss": 1,
                "late": 1,
                "demand_bytes": 1000,
                "prefetch_bytes": 1000,
                "evictions": 2,
                "waves": 1,
            },
        ),
        Panel(
            "a copy that ends meanwhile, at 600, makes no room for key 2: the prefetch of key 5 waits on",
            Server(
                (prompt([0, 0], [1, 0]), prompt([0, 1], [1, 1], [2, 1])),
                layers=2,
                experts=3,
                router="layerwise",
                key_bytes=600,
                memory={"slots": 2, "scope": "layer"},
                changes={"prefetch": {"name": "scripted", "plans": "4 / 5 /", "step": 1}},
            ),
            stream="""
            0-300 attention; 300-900 experts 0 1; 900-1500 miss stall; 1500-1800 experts 2
            1800-2100 attention; 2100-2400 experts 4
            """,
            link="0-600 prefetch 4; 900-1500 demand 2; 1500-2100 prefetch 5",
            cache="""
            before-900 key 0; 900-after key 2; before-after key 1
            before-900 key 3; 900-after key 5; 0-after key 4
            """,
            marks="0 asked; 300 demand 2; 300 asked; 2100 asked",
            first=1,
            origin=3000,
            steps=((0, 2400),),
            numbers={
                "reuse": 2,
                "miss": 1,
                "prefetch": 1,
                "demand_bytes": 600,
                "prefetch_bytes": 1200,
                "evictions": 2,
                "waves": 1,
            },
        ),
    ),
)

REPLAN = Figure(
    "new-plan",
    (
        Panel(
            "planned at 0: keys 1 and 2; at 300: key 3 instead",
            Server(
                (prompt(0), prompt(0)),
                costs=Costs(expert=1900),
                memory={"slots": 4, "scope": "layer"},
                machine={"chunk_bytes": 250, "copies_in_flight": 1},
                changes={"prefetch": {"name": "scripted", "plans": "1 2 / 3", "step": 1}},
            ),
            stream="0-300 attention; 300-2200 experts 0",
            link=chunks(0, 250, 4, "prefetch 1") + "\n" + chunks(1000, 250, 4, "prefetch 3"),
            marks="0 asked; 300 asked",
            first=1,
            origin=3200,
            steps=((0, 2200),),
            numbers={"reuse": 1, "prefetch_bytes": 2000},
        ),
    ),
)

FIGURES = (PROMOTION, LATE, REPLAN, CANCELLATION, DEMANDS_FIRST)
