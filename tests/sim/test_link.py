"""The link alone: one ns a byte, chunks of 100 bytes, two in flight."""

from __future__ import annotations

from collections.abc import Iterable

from moesim.check.toy import ToyLink
from moesim.sim.link import NEVER, Link

SIZES = {1: 1000, 2: 1000, 3: 250}


class Record:
    """A link whose cache always has room unless `full`, and the log of what it did."""

    def __init__(self, in_flight: int = 2, fixed: int = 0) -> None:
        self.log: list[tuple[str, int, int]] = []
        self.full = False
        self.dying: dict[int, list[int]] = {}
        self.awaited = 0
        self.link = Link(ToyLink(fixed), 100, in_flight, self)

    def make_room(self, key: int, demanded: bool) -> bool:
        self.log.append(("no room" if self.full else "room", key, self.link.now))
        return not self.full

    def start_first(self, keys: Iterable[int]) -> tuple[int, int | None]:
        planned = list(keys)
        return (len(planned), None) if self.full else (0, planned[0])

    def landed(self, key: int, demanded: bool) -> None:
        self.log.append(("landed", key, self.link.now))

    def place(self, key: int) -> int:
        return 0

    def cancelled(self, key: int, sent_bytes: int, over: bool) -> int:
        self.log.append(("cancelled", key, sent_bytes))
        if not over:
            self.dying.setdefault(0, []).append(SIZES[key])
        return 0

    def drained(self, place: int, size: int) -> None:
        self.log.append(("drained", size, self.link.now))
        self.dying[place].remove(size)

    def prefetch(self, *keys: int, at: int = 0) -> None:
        self.link.plan(keys, SIZES, at)  # type: ignore[arg-type]

    def demand(self, key: int, at: int) -> None:
        self.link.advance(at)
        self.link.demand(key, SIZES[key], at)


def landings(record: Record) -> dict[int, int]:
    """When each key lands if nothing more happens."""
    found = {}
    while (now := record.link.next_event()) != NEVER:
        before = len(record.log)
        record.link.step()
        found |= {key: now for what, key, _ in record.log[before:] if what == "landed"}
    return found


def test_a_demand_waits_for_two_chunks_in_flight_and_overtakes_the_rest() -> None:
    # At 150 the chunks 100-200 and 200-300 are submitted: the demand runs 300-1300, the other seven after it.
    record = Record()
    record.prefetch(1)
    record.demand(2, 150)
    assert landings(record) == {2: 1300, 1: 2000}


def test_with_one_in_flight_it_waits_for_one() -> None:
    record = Record(in_flight=1)
    record.prefetch(1)
    record.demand(2, 150)
    assert landings(record) == {2: 1200, 1: 2000}


def test_demands_are_first_in_first_out() -> None:
    record = Record()
    record.demand(2, 0)
    record.demand(1, 5)
    record.demand(3, 6)
    assert landings(record) == {2: 1000, 1: 2000, 3: 2250}


def test_promotion_moves_the_remaining_chunks_up() -> None:
    # Key 3 is planned behind key 1; key 1 has sent three chunks by 150 when it is demanded: nothing else goes between.
    record = Record()
    record.prefetch(1, 3)
    record.demand(1, 150)
    assert landings(record) == {1: 1000, 3: 1250}


def test_a_planned_key_that_is_demanded_goes_to_the_demands() -> None:
    record = Record()
    record.prefetch(1, 3)
    record.demand(3, 150)
    assert landings(record) == {3: 550, 1: 1250}


def test_a_new_plan_replaces_what_has_not_started() -> None:
    record = Record()
    record.prefetch(1, 2)
    record.link.advance(150)
    record.prefetch(3, at=150)
    assert landings(record) == {1: 1000, 3: 1250}


def test_victims_are_chosen_when_the_first_chunk_is_submitted() -> None:
    # Key 1's last chunk is submitted at 800; the next place in flight opens at 900, before key 1 has landed.
    record = Record()
    record.demand(1, 0)
    record.demand(2, 0)
    landings(record)
    assert [entry for entry in record.log if entry[0] == "room"] == [("room", 1, 0), ("room", 2, 900)]


def test_a_demand_without_room_waits_for_a_release() -> None:
    record = Record()
    record.full = True
    record.demand(2, 0)
    assert record.link.next_event() == NEVER
    record.full = False
    record.link.release(40)
    assert landings(record) == {2: 1040}


def test_a_prefetch_without_room_is_dropped() -> None:
    record = Record()
    record.full = True
    record.prefetch(1, 2)
    record.link.advance(1)
    assert record.link.dropped == 2
    assert not record.link.active


def test_it_falls_idle_when_everything_has_landed_and_is_not_once_more_is_planned() -> None:
    record = Record()
    record.prefetch(3)
    record.link.advance(250, landings=False)
    assert record.link.idle_since is None
    record.link.advance(400)
    assert record.link.idle_since == 250
    record.prefetch(1, at=400)
    assert record.link.idle_since is None


def test_it_can_be_brought_up_to_where_it_falls_idle() -> None:
    record = Record()
    record.prefetch(3)
    record.link.advance(1000, idle=True)
    assert record.link.now == record.link.idle_since == 250


def test_prefetches_come_last_in_an_instant() -> None:
    # Planned at 100 and demanded at 100: the demand is submitted first, whatever was asked first.
    record = Record(in_flight=1)
    record.prefetch(1, at=100)
    record.demand(3, 100)
    record.demand(2, 100)
    assert landings(record) == {3: 350, 2: 1350, 1: 2350}


def test_a_promoted_key_goes_on_behind_a_demand_that_has_no_room() -> None:
    # Key 1 has one chunk in flight at 50; key 2 finds no room, so key 1's other chunks go on, until key 2 finds some
    # at 250: it comes before the seven that are left, after the chunk in flight.
    record = Record(in_flight=1)
    record.prefetch(1)
    record.link.advance(50)
    record.full = True
    record.demand(2, 50)
    record.demand(1, 50)
    record.link.advance(250)
    record.full = False
    record.link.release(250)
    assert landings(record) == {2: 1300, 1: 2000}


def test_cancellation_drops_the_chunks_that_are_not_submitted_and_waits_for_the_others() -> None:
    # At 150 the chunks 100-200 and 200-300 of key 1 are submitted, 300 bytes in all; its room is free at 300.
    record = Record()
    record.prefetch(1)
    record.link.advance(150)
    assert record.link.under_way() == [1]
    record.link.cancel({1}, 150)
    assert record.dying == {0: [1000]}
    record.demand(3, 160)
    assert landings(record) == {3: 550}
    assert [entry for entry in record.log if entry[0] in ("cancelled", "drained")] == [
        ("cancelled", 1, 300), ("drained", 1000, 300),
    ]  # fmt: skip
    assert record.link.busy_ns == 550


def test_a_demand_without_room_is_stuck_only_if_nothing_is_on_its_way_there() -> None:
    record = Record(in_flight=1)
    record.prefetch(3)
    record.link.advance(50)
    record.full = True
    record.demand(2, 50)
    assert not record.link.stuck()
    record.link.advance(250)
    record.link.submit(250)
    assert record.link.stuck()


def test_each_chunk_pays_the_fixed_cost() -> None:
    record = Record(fixed=7)
    record.demand(3, 0)
    assert landings(record) == {3: 250 + 3 * 7}
    assert record.link.busy_ns == 250 + 3 * 7
