"""The order of polls in virtual time: what the theory promises, and what a dead device may cost."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from daemon.schedule import BACK_OFF_MOST, Schedule, Slot, What, back_off

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Event(NamedTuple):
    slot: int
    what: What
    tick: int
    ticks: int
    began: int
    ended: int


@dataclass
class Load:
    """A device of the model: its period, how long a poll of it takes."""

    every: int
    cost: int


def play(
    loads: Sequence[Load],
    until: int,
    fails: Callable[[int, int], bool] = lambda slot, now: False,
    before: Callable[[int, Sequence[Slot]], None] = lambda now, slots: None,
    seed: int = 0,
) -> list[Event]:
    """Serve a line as the poller does, one unit of time being whatever one likes."""
    slots = [Slot(load.every) for load in loads]
    schedule, random = Schedule(slots), Random(seed)
    schedule.align(0)
    failures, events, now = [0] * len(slots), [], 0
    while now < until:
        before(now, slots)
        turn = schedule.turn(now)
        if turn is None:
            release = schedule.next_release()
            assert release is not None
            assert release > now, "the schedule would spin"
            now = min(release, until)
            continue
        i, began = slots.index(turn.slot), now
        if turn.what is What.ASK:
            now += loads[i].cost
            failures[i] = failures[i] + 1 if fails(i, began) else 0
            turn.slot.yields = now if failures[i] else 0
            turn.slot.rest_until = now + int(back_off(failures[i], random.random()) * loads[i].cost)
        if turn.what is not What.OVERRUN:
            turn.slot.served()
        events.append(Event(i, turn.what, turn.tick, turn.ticks, began, now))
    return events


LOADS = st.lists(st.builds(Load, st.integers(5, 60), st.integers(0, 12)), min_size=1, max_size=6)
WORK = st.lists(st.builds(Load, st.integers(5, 60), st.integers(1, 12)), min_size=1, max_size=6)


def of(events: Sequence[Event], slot: int) -> list[Event]:
    return [event for event in events if event.slot == slot]


@settings(deadline=None)
@given(LOADS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_every_tick_is_told_once_and_in_order_whatever_the_load(
    loads: list[Load], dead: int, random: Random
) -> None:
    events = play(loads, 2000, fails=lambda slot, now: slot == dead and random.random() < 0.8)
    for i, load in enumerate(loads):
        told = 0
        for event in of(events, i):
            assert event.tick == told + load.every, "a tick is skipped, or comes twice"
            assert event.began >= event.tick, "asked before its time"
            told = event.tick + (event.ticks - 1) * load.every
        assert told + max(load.cost, *(other.cost for other in loads)) * 2 + load.every * 2 >= 2000 - sum(
            other.cost for other in loads
        ), "it lags behind for ever"


@settings(deadline=None)
@given(LOADS)
def test_the_earliest_deadline_goes_first_except_that_a_round_is_finished(loads: list[Load]) -> None:
    events = [event for event in play(loads, 1000) if event.what is What.ASK]
    pending = {i: load.every for i, load in enumerate(loads)}
    for event in play(loads, 1000):
        released = {i: due + loads[i].every for i, due in pending.items() if due <= event.began}
        assert pending[event.slot] + loads[event.slot].every == min(released.values())
        pending[event.slot] = event.tick + event.ticks * loads[event.slot].every
    for before, after in pairwise(events):
        late = after.began - after.tick >= loads[after.slot].every
        assert not late or after.tick == before.tick, "a late poll outside a round that has begun"


def admitted(loads: Sequence[Load]) -> bool:
    """Jeffay, Stanat and Martel, RTSS 1991, theorem 4.1: whether EDF without preemption keeps every deadline."""
    loads = sorted(loads, key=lambda load: load.every)
    if sum(load.cost / load.every for load in loads) > 1:
        return False
    return all(
        length >= long.cost + sum((length - 1) // load.every * load.cost for load in loads[:i])
        for i, long in enumerate(loads)
        for length in range(loads[0].every + 1, long.every)
    )


@settings(max_examples=200, deadline=None)
@given(WORK)
def test_what_the_theory_admits_begins_and_ends_within_its_period(loads: list[Load]) -> None:
    assume(admitted(loads))
    for event in play(loads, 3000):
        assert event.what is What.ASK
        assert event.ended <= event.tick + loads[event.slot].every


@settings(deadline=None)
@given(WORK, st.integers(3, 40))
def test_a_stall_costs_the_ticks_it_covers_and_nothing_piles_up(loads: list[Load], times: int) -> None:
    """One poll of the first device hangs: what was under way is finished late, then all follow the clock."""
    assume(admitted(loads))
    slots = [Slot(load.every) for load in loads]
    schedule, now, hung_tick = Schedule(slots), 0, 0
    schedule.align(0)
    hang = max(load.every for load in loads) * times
    while now < 3 * hang:
        turn = schedule.turn(now)
        if turn is None:
            now = schedule.next_release() or now
            continue
        i = slots.index(turn.slot)
        if turn.what is What.ASK:
            assert now < turn.tick + 2 * loads[i].every or turn.tick == hung_tick
            turn.slot.served()
            now += loads[i].cost
            if i == 0 and not hung_tick:
                now, hung_tick = now + hang, turn.tick


PERIOD, WELL, DEAD = 500_000, 7_000, 55_000  # microseconds: 32 units of about 30 registers at 115200 baud


@given(st.integers(0, 31), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_one_dead_device_of_32_takes_a_twentieth_of_the_bus_and_delays_nobody(dead: int, seed: int) -> None:
    loads = [Load(PERIOD, DEAD if i == dead else WELL) for i in range(32)]
    until = 400 * PERIOD
    events = play(loads, until, fails=lambda slot, now: slot == dead, seed=seed)
    asked = [event for event in of(events, dead) if event.what is What.ASK]
    since = asked[4].began
    assert sum(e.ended - e.began for e in asked[4:-1]) <= 0.05 * (asked[-1].began - since)
    others = [event for event in events if event.slot != dead]
    on_time = [e for e in others if e.what is What.ASK and e.began < e.tick + PERIOD]
    assert len(on_time) == len(others)


@given(st.integers(0, 1000), st.floats(1.0, 300.0), st.floats(0.2, 40.0))
@settings(max_examples=100, deadline=None)
def test_a_device_that_is_back_is_asked_within_two_periods_or_20_unanswered_requests(
    seed: int, back_at: float, periods: float
) -> None:
    """`periods`: how many unanswered requests go into one period; below one the bus has no time for the device."""
    every = max(DEAD + 1, int(periods * DEAD))
    back = int(back_at * DEAD)
    loads = [Load(every, DEAD), Load(every, 1000)]
    events = play(
        loads, back + 30 * DEAD + 3 * every, fails=lambda slot, now: slot == 0 and now < back, seed=seed
    )
    heard = next(e.began for e in events if e.slot == 0 and e.what is What.ASK and e.began >= back)
    assert heard - back <= max(2 * every, BACK_OFF_MOST * DEAD) + 1000 + DEAD


@settings(deadline=None)
@given(
    st.integers(5, 60),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(5, 60)), min_size=1, max_size=6),
    st.integers(0, 4),
)
def test_a_change_of_period_loses_no_tick_and_says_which_is_its_first(
    every: int, changes: list[tuple[int, int]], cost: int
) -> None:
    """The ticks asked are those of the periods that held: the twin counts them one by one."""
    waiting = sorted(changes)
    told: list[tuple[int, int]] = []  # first tick, period

    def change(now: int, slots: Sequence[Slot]) -> None:
        if waiting and now >= waiting[0][0]:
            _, new = waiting.pop(0)
            since = slots[0].set_every(new, now)
            assert since % new == 0
            assert now < since <= now + new
            while told and told[-1][0] >= since:  # a change that never came to hold
                told.pop()
            told.append((since, new))

    events = play([Load(every, cost)], 3000, before=change)
    ticks = [event.tick for event in events]
    assert ticks == sorted(set(ticks))
    expected, tick, period, rest = [], every, every, list(told)
    while tick <= ticks[-1]:
        if rest and tick >= rest[0][0]:
            tick, period = rest.pop(0)
        expected.append(tick)
        tick += period - tick % period
    assert ticks == expected[: len(ticks)]


def test_a_step_of_the_schedule_begins_anew_and_forgets_rests() -> None:
    slot = Slot(60)
    slot.align(1000)
    slot.rest_until = 10_000
    slot.set_every(30, 1000)
    slot.align(100_005)
    assert (slot.due, slot.every, slot.rest_until) == (100_020, 30, 0)


def test_a_tick_waits_for_a_rest_that_ends_within_its_period_and_is_told_backed_off_otherwise() -> None:
    slot = Slot(100)
    schedule = Schedule([slot])
    schedule.align(0)
    slot.rest_until = 350
    assert schedule.turn(99) is None
    backed_off = schedule.turn(100)
    assert backed_off is not None
    assert (backed_off.what, backed_off.tick) == (What.BACK_OFF, 100)
    slot.served()
    slot.served()
    assert schedule.turn(300) is None
    assert schedule.next_release() == 350
    asked = schedule.turn(350)
    assert asked is not None
    assert (asked.what, asked.tick) == (What.ASK, 300)
