"""What happens first in one instant, and where a step's time goes."""

from __future__ import annotations

from tests.sim.timelines.timeline import Costs, Figure, Panel, Server, prompt

# Two slots hold keys 2 and 0; the prefetch of key 3 takes the place of key 2.
INSTANT = Figure(
    "one-instant",
    (
        Panel(
            "at 600 key 0's kernel and a chunk of key 3 end; the demand takes room and link, the prefetch waits",
            Server(
                (prompt(2, 0), prompt(0, 1)),
                key_bytes=900,
                memory={"slots": 2, "scope": "layer"},
                machine={"chunk_bytes": 300, "copies_in_flight": 1},
                changes={"prefetch": {"name": "scripted", "plans": "3 /", "step": 1}},
            ),
            stream="0-300 attention; 300-600 experts 0; 600-1500 miss stall; 1500-1800 experts 1",
            link="""
            0-300 prefetch 3; 300-600 prefetch 3; 600-900 demand 1; 900-1200 demand 1; 1200-1500 demand 1
            1500-1800 prefetch 3
            """,
            cache="before-0 key 2; 0-after key 3; before-600 key 0; 600-after key 1",
            marks="0 asked; 300 demand 1; 300 asked",
            first=1,
            origin=2400,
            steps=((0, 1800),),
            numbers={"reuse": 1, "miss": 1, "demand_bytes": 900, "prefetch_bytes": 900, "evictions": 2},
        ),
    ),
)


def _prefetched(attention: int) -> Server:
    return Server(
        (prompt(0),),
        costs=Costs(attention=attention),
        changes={"prefetch": {"name": "scripted", "plans": "0 /"}},
    )


GATE_INSTANT = Figure(
    "gate-instant",
    (
        Panel(
            "the gate at 1000: the copy that ends at 1000 is over, a prefetch hit",
            _prefetched(1000),
            stream="0-1000 attention; 1000-1300 experts 0",
            link="0-1000 prefetch 0",
            marks="0 asked; 1000 asked",
            steps=((0, 1300),),
            numbers={"prefetch": 1, "prefetch_bytes": 1000},
        ),
        Panel(
            "the gate at 900: a late hit",
            _prefetched(900),
            stream="0-900 attention; 900-1000 late stall; 1000-1300 experts 0",
            link="0-1000 prefetch 0",
            marks="0 asked; 900 demand 0; 900 asked",
            steps=((0, 1300),),
            numbers={"late": 1, "prefetch_bytes": 1000},
        ),
    ),
)

PARTS = Figure(
    "parts",
    (
        Panel(
            "attention 200 + rest 200 + router 150 + experts 600 + host 500 + miss stall 650 + late stall 650 = 2950",
            Server(
                (((0, 1), (0, 0)),),
                costs=Costs(
                    launch=50,
                    sync=50,
                    copy_submit=50,
                    decision=50,
                    attention=200,
                    rest_ns=100,
                    router_ns=150,
                    sample=100,
                ),
                memory={"slots": 2, "scope": "layer"},
                machine={"chunk_bytes": 500},
                changes={"prefetch": {"name": "scripted", "plans": "0 /"}},
            ),
            stream="""
            0-100 host; 100-300 attention; 300-400 rest; 400-550 host; 550-1200 late stall; 1200-1250 host
            1250-1550 experts 0; 1550-2200 miss stall; 2200-2250 host; 2250-2550 experts 1
            2550-2650 sample; 2650-2750 host; 2750-2900 router; 2900-2950 host
            """,
            link="200-700 prefetch 0; 700-1200 prefetch 0; 1200-1700 demand 1; 1700-2200 demand 1",
            host="""
            0-50 batch; 50-100 launch attention; 100-150 decide; 150-200 submit 0
            400-450 submit 0; 450-500 submit 1; 500-550 decide; 1200-1250 launch experts
            2200-2250 launch experts; 2250-2300 launch sample; 2650-2700 read back
            2700-2750 launch router; 2900-2950 read back
            """,
            marks="450 demand 0; 500 demand 1",
            origin=300,
            steps=((0, 2950),),
            numbers={"miss": 1, "late": 1, "demand_bytes": 1000, "prefetch_bytes": 1000},
        ),
    ),
)

FIGURES = (INSTANT, GATE_INSTANT, PARTS)
