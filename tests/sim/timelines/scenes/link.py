"""The link: chunks, and what is in flight."""

from __future__ import annotations

from tests.sim.timelines.timeline import Figure, Panel, Server, chunks, prompt

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

FIGURES = (CHUNKS, IN_FLIGHT)
