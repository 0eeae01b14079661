"""Where things are in `m`, the one int64 array that holds all state.

Single numbers and the row of the log are at fixed places; `m[HERE]` is where the area HERE starts, so that
`m[m[HERE] + key]` says whether a key is here. (One array, because numba counts references to each array at each call.)
"""

from __future__ import annotations

NEVER = 1 << 62
FAR = 1 << 60
FINE, NO_COST, STUCK, NO_SUM, NO_BALANCE = range(5)
"""what `run` returns"""
BY_STAMP, BY_USES, BY_NEXT_USE = range(3)

CONSTANTS = (
    "launch", "sync", "submit", "decision", "layers", "experts", "rows", "pools", "layerwise", "routed", "barrier",
    "key_bytes", "by", "at_insertion", "horizon", "check", "chunk_count", "in_flight", "leaves",
)  # fmt: skip
(LAUNCH, SYNC, SUBMIT, DECISION, LAYERS, EXPERTS, ROWS, POOLS, LAYERWISE, ROUTED, BARRIER, KEY_BYTES, BY, AT_INSERTION,
 HORIZON, CHECK, CHUNK_COUNT, IN_FLIGHT, LEAVES) = range(19)  # fmt: skip
"""what does not change in a run: costs in ns and bytes; sizes; what the machine and the policy are like"""

STREAM, HOST, SAMPLED_AT, TICK, LOADS, MARKS = range(19, 25)
"""clocks in ns; ticks of recency; keys loaded; layers in MARKED"""
(LAYER, LINE, POOL, NEEDED, READY, RAN, RELEASED, RUNNING_UNTIL, DEMANDED, SUBMITTED, LANDED, BLOCKED_UNTIL) = range(25, 37)  # fmt: skip # noqa: E501
"""of the present layer event: its layer, row and pool, and how far it is, in numbers of its keys"""
FAILED, COMPONENT, ARGUMENT = 37, 38, 39
"""what went wrong: a cost that the table does not have, and its three arguments"""

BOOK = 42
"""the row of moesim.sim.log.StepLog"""
STEP, START, END, PREFILL_TOKENS, DECODE_TOKENS, REQUESTS = range(BOOK, BOOK + 6)
PARTS = BOOK + 6
ATTENTION, REST, GATE, ROUTER, EXPERT, IDLE_HOST, MISS_STALL = range(PARTS, PARTS + 7)
COUNTS = PARTS + 9
REUSE, MISS = COUNTS, COUNTS + 18
DEMAND_BYTES, LINK_BUSY, EVICTIONS, WAVES, UNIQUE = COUNTS + 24, COUNTS + 27, COUNTS + 28, COUNTS + 29, COUNTS + 33
BOOK_END = COUNTS + 41

AREAS = (
    "asked", "expert", "prefill", "decode", "found", "place", "here", "stamp", "uses", "later", "slots", "used",
    "rank_of", "heap", "length", "top_rank", "top_stamp", "tree", "stale", "marked", "ready", "missing", "when",
    "lands", "chunks", "ends", "grids", "points", "times", "known",
)  # fmt: skip
"""The areas, by what they hold.

asked: parts of the step [parts, 4]: row of the trace, position, tokens, whether it is prefill. expert, prefill, decode:
experts of each row by first use, and their tokens [rows, experts]; found: how many [rows]; place: 1 + an expert's place
among them, 0 if it is not needed [rows, experts]. here: whether a key occupies its bytes; stamp, uses [keys]. later:
the step that uses an expert next after this one [rows, experts] (`Foresight.begin`). slots, used: of each pool.

Of the keys that are here and that the present event does not need - rank_of: a key's rank when it was last asked for
[keys]; heap: those of each layer, the first to go on top [layers, experts]; length, top_rank, top_stamp: of each heap;
tree: matches between the tops, won by the first to go [2 * leaves]; stale, marked: heaps that have to be made anew.

Of the present event, by number - ready, missing: ranks of keys that are there, and that are not; when, lands: when
those were demanded and when they land. chunks: cost of each of a key; ends: of the last chunks, oldest first. grids,
points, times: the cost table (`CostTable.flat`); known: times of experts that were asked for [REMEMBERED, 2]."""
(ASKED, WHICH, PREFILL, DECODE, FOUND, PLACE, HERE, STAMP, USES, LATER, SLOTS, USED, RANK_OF, HEAP, LENGTH, TOP_RANK,
 TOP_STAMP, TREE, STALE, MARKED, READIES, MISSING, WHEN, LANDS, CHUNKS, ENDS, GRIDS, POINTS, TIMES,
 KNOWN) = range(BOOK_END, BOOK_END + 30)  # fmt: skip
START_OF_AREAS = BOOK_END + 30

REMEMBERED = 1024
"""times of experts that are kept, one for each remainder of a hash"""
C_PREFILL, C_DECODE, C_REST, C_GATE, C_ROUTER, C_EXPERTS, C_STEP = range(7)
"""components of the cost table"""
