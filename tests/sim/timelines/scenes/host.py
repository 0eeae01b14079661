"""The host: launches, submissions, decisions, the gate's round trip, and when routes are visible."""

from __future__ import annotations

from tests.sim.timelines.timeline import Costs, Figure, Panel, Server, prompt

HOST = Figure(
    "host",
    (
        Panel(
            "a step that misses, and one that does not",
            Server(
                (((0,), (0, 0)),),
                costs=Costs(launch=50, sync=100, copy_submit=50, decision=100, attention=200, sample=100),
            ),
            stream="""
            0-150 host; 150-350 attention; 350-400 host; 400-1400 miss stall; 1400-1450 host
            1450-1750 experts 0; 1750-1850 sample; 1850-1950 host
            1950-2100 host; 2100-2300 attention; 2300-2600 experts 0; 2600-2700 sample; 2700-2800 host
            """,
            link="400-1400 demand 0",
            host="""
            0-100 batch; 100-150 launch attention; 350-400 submit 0; 1400-1450 launch experts
            1450-1500 launch sample; 1850-1950 read back
            1950-2050 batch; 2050-2100 launch attention; 2100-2150 launch experts; 2150-2200 launch sample
            2700-2800 read back
            """,
            marks="400 demand 0",
            steps=((0, 1950), (1950, 2800)),
            numbers={"reuse": 1, "miss": 1, "demand_bytes": 1000},
        ),
    ),
)

DECISIONS = Figure(
    "decisions",
    (
        Panel(
            "a prefetcher that plans the next layer; each answer takes 100 ns, each submission 50",
            Server(
                (prompt(0),),
                layers=2,
                experts=2,
                costs=Costs(launch=50, sync=100, copy_submit=50, decision=100, attention=400),
                changes={"prefetch": "next-layer"},
            ),
            stream="""
            0-150 host; 150-550 attention; 550-750 host; 750-1300 late stall; 1300-1350 host; 1350-1650 experts 0
            1650-2050 attention; 2050-2200 host; 2200-2300 late stall; 2300-2350 host; 2350-2650 experts 2
            2650-2750 host
            """,
            link="300-1300 prefetch 0; 1300-2300 prefetch 2",
            host="""
            0-100 batch; 100-150 launch attention; 150-250 decide; 250-300 submit 0
            550-600 submit 0; 600-700 decide; 700-750 submit 2; 1300-1350 launch experts
            1350-1400 launch attention; 2050-2100 submit 2; 2100-2200 decide; 2300-2350 launch experts
            2350-2400 launch sample; 2650-2750 read back
            """,
            marks="600 demand 0; 2100 demand 2",
            steps=((0, 2750),),
            numbers={"late": 2, "prefetch_bytes": 2000},
        ),
    ),
)

IDLE = Figure(
    "idle-link",
    (
        Panel(
            "asked at the step's start, when the link falls idle, and at the gate",
            Server(
                (prompt(0), prompt(0)),
                costs=Costs(copy_submit=50, decision=100, attention=1500),
                memory={"slots": 3, "scope": "layer"},
                changes={"prefetch": {"name": "scripted", "plans": "2 / 3 /", "step": 1}},
            ),
            stream="0-100 host; 100-1600 attention; 1600-1900 experts 0",
            link="250-1250 prefetch 2; 1400-2400 prefetch 3",
            host="""
            0-100 batch; 100-200 decide; 200-250 submit 2; 1250-1350 decide; 1350-1400 submit 3; 1600-1700 decide
            """,
            first=1,
            origin=2950,
            steps=((0, 1900),),
            numbers={"reuse": 1, "prefetch_bytes": 2000},
        ),
        Panel(
            "short copies, slow launches: busy when the link falls idle, the host asks when it next waits",
            Server(
                (prompt(0), prompt(0)),
                layers=2,
                costs=Costs(launch=200, copy_submit=50, decision=100, attention=900),
                key_bytes=100,
                memory={"slots": 3, "scope": "layer"},
                changes={"prefetch": {"name": "scripted", "plans": "/ 2 / 3 /", "step": 1}},
            ),
            stream="""
            0-300 host; 300-1200 attention; 1200-1500 experts 0; 1500-1550 host; 1550-2450 attention
            2450-2750 experts 4
            """,
            link="1350-1450 prefetch 2; 1700-1800 prefetch 3",
            host="""
            0-100 batch; 100-300 launch attention; 300-400 decide; 400-600 launch experts; 1200-1300 decide
            1300-1350 submit 2; 1350-1550 launch attention; 1550-1650 decide; 1650-1700 submit 3
            1800-1900 decide; 1900-2100 launch experts; 2450-2550 decide; 2550-2750 launch sample
            """,
            first=1,
            origin=3400,
            steps=((0, 2750),),
            numbers={"reuse": 2, "prefetch_bytes": 200},
        ),
    ),
)

_COSTS = Costs(launch=50, sync=100, attention=200, gate_ns=50)
GATE = Figure(
    "gate",
    (
        Panel(
            "decoupled router: the host runs ahead",
            Server((prompt(0), prompt(0)), layers=2, experts=2, costs=_COSTS),
            stream="""
            0-50 host; 50-250 attention; 250-550 experts 0; 550-750 attention; 750-1050 experts 2; 1050-1150 host
            """,
            host="""
            0-50 launch attention; 50-100 launch experts; 100-150 launch attention; 150-200 launch experts
            200-250 launch sample; 1050-1150 read back
            """,
            first=1,
            origin=3250,
            steps=((0, 1150),),
            numbers={"reuse": 2},
        ),
        Panel(
            "layer-wise gates: each comes back to the host first",
            Server((prompt([0, 0]), prompt([0, 0])), layers=2, experts=2, router="layerwise", costs=_COSTS),
            stream="""
            0-50 host; 50-250 attention; 250-300 gate; 300-450 host; 450-750 experts 0
            750-950 attention; 950-1000 gate; 1000-1150 host; 1150-1450 experts 2; 1450-1550 host
            """,
            host="""
            0-50 launch attention; 50-100 launch gate; 300-400 read back; 400-450 launch experts
            450-500 launch attention; 500-550 launch gate; 1000-1100 read back; 1100-1150 launch experts
            1150-1200 launch sample; 1450-1550 read back
            """,
            first=1,
            origin=3550,
            steps=((0, 1550),),
            numbers={"reuse": 2},
        ),
    ),
)


def _routed(router: str) -> Server:
    """Two requests arrive at 0, with prompts of two tokens; the first wants two tokens, the second one."""
    return Server(
        (((0, 0), (0, 0)), ((0, 0), (0,))),
        costs=Costs(attention=100, router_ns=100),
        key_bytes=200,
        machine={"router": router},
        changes={"scheduler": {"max_requests": 2}},
    )


ROUTES = Figure(
    "routes",
    (
        Panel(
            "router: critical. Sampled tokens are routed before the next step",
            _routed("critical"),
            stream="""
            200-300 attention; 300-500 miss stall; 500-800 experts 0; 800-900 router
            900-1100 attention; 1100-1400 experts 0
            """,
            link="300-500 demand 0",
            router="0-200 route 2; 200-400 route 2",
            marks="300 demand 0",
            steps=((200, 900), (900, 1400)),
            numbers={"reuse": 1, "miss": 1, "demand_bytes": 200},
            requests={"visible_ns": [200, 400], "first_token_ns": [800, 1400], "finished_ns": [1400, 1400]},
        ),
        Panel(
            "router: side. They are routed beside the next step, and may miss it",
            _routed("side"),
            stream="""
            200-300 attention; 300-500 miss stall; 500-800 experts 0
            800-900 attention; 900-1200 experts 0; 1200-1300 attention; 1300-1600 experts 0
            """,
            link="300-500 demand 0",
            router="0-200 route 2; 200-400 route 2; 800-900 route 1",
            marks="300 demand 0",
            steps=((200, 800), (800, 1200), (1200, 1600)),
            numbers={"reuse": 2, "miss": 1, "demand_bytes": 200},
            requests={"visible_ns": [200, 400], "first_token_ns": [800, 1200], "finished_ns": [1600, 1200]},
        ),
    ),
)

FIGURES = (HOST, DECISIONS, IDLE, GATE, ROUTES)
