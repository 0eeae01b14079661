"""The link: chunks, what is in flight, promotion, cancellation, and demands before prefetches."""

from __future__ import annotations

from tests.sim.timelines.timeline import Costs, Figure, Panel, Server, chunks, prompt

CHUNKS = Figure(
    "chunks",
    (
        Panel(
            "1000 bytes in chunks of 400; each copy costs 100 ns more than its bytes",
            Server((prompt(0),), copy_fixed=100, machine={"chunk_bytes": 400}),
            stream="0-300 attention; 300-1600 miss stall; 1600-1900 experts 0",
            link="300-800 demand 0; 800-1300 demand 0; 1300-1600 demand 0",
            marks="300 demand 0",
            steps=((0, 1900),),
            numbers={"miss": 1, "demand_bytes": 1000},
        ),
    ),
)

# Two layers of two experts: key 2 is expert 0 in the second layer. Its prefetch is asked for at the step's start.
_IN_FLIGHT = Server(
    (prompt(0),),
    layers=2,
    experts=2,
    machine={"chunk_bytes": 250, "copies_in_flight": 2},
    changes={"prefetch": {"name": "scripted", "plans": "2 /"}},
)
IN_FLIGHT = Figure(
    "in-flight",
    (
        Panel(
            "two copies in flight",
            _IN_FLIGHT,
            stream="""
            0-300 attention; 300-1750 miss stall; 1750-2050 experts 0
            2050-2350 attention; 2350-2650 experts 2
            """,
            # At 300 the chunks that end at 500 and 750 are submitted; 0 enters behind them.
            link=chunks(0, 250, 3, "prefetch 2") + "\n" + chunks(750, 250, 4, "demand 0") + "\n1750-2000 prefetch 2",
            marks="0 asked; 300 demand 0; 300 asked; 2000 asked; 2350 asked",
            steps=((0, 2650),),
            numbers={"miss": 1, "prefetch": 1, "demand_bytes": 1000, "prefetch_bytes": 1000},
        ),
        Panel(
            "one copy in flight",
            Server(
                (prompt(0),),
                layers=2,
                experts=2,
                machine={"chunk_bytes": 250, "copies_in_flight": 1},
                changes={"prefetch": {"name": "scripted", "plans": "2 /"}},
            ),
            stream="""
            0-300 attention; 300-1500 miss stall; 1500-1800 experts 0
            1800-2100 attention; 2100-2400 experts 2
            """,
            link=chunks(0, 250, 2, "prefetch 2")
            + "\n"
            + chunks(500, 250, 4, "demand 0")
            + "\n"
            + chunks(1500, 250, 2, "prefetch 2"),
            marks="0 asked; 300 demand 0; 300 asked; 2000 asked; 2100 asked",
            steps=((0, 2400),),
            numbers={"miss": 1, "prefetch": 1, "demand_bytes": 1000, "prefetch_bytes": 1000},
        ),
    ),
)

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
            stream="0-300 attention; 300-350 host; 350-1000 late stall; 1000-1300 experts 0",
            link="0-1000 prefetch 0",
            host="0-50 submit 0; 300-350 submit 0",
            marks="0 asked; 350 demand 0; 350 asked",
            steps=((0, 1300),),
            numbers={"late": 1, "prefetch_bytes": 1000},
        ),
        Panel(
            "it lands while the host submits the demand, and nothing enters the link",
            Server(
                (prompt(0),),
                costs=Costs(attention=950, copy_submit=100),
                changes={"prefetch": {"name": "scripted", "plans": "0 /"}},
            ),
            stream="0-950 attention; 950-1050 host; 1050-1350 experts 0",
            link="0-1000 prefetch 0",
            host="0-100 submit 0; 950-1050 submit 0",
            marks="0 asked; 1050 asked",
            steps=((0, 1350),),
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
    ),
)

FIGURES = (CHUNKS, IN_FLIGHT, PROMOTION, LATE, CANCELLATION, DEMANDS_FIRST)
