"""Whose turn it is on a line: a pure decision, in whatever time its caller counts.

A *slot* is one device's row of ticks, multiples of its period. A tick is released when it comes, or, where
the device rests after failures, at the end of the rest if that still falls into the tick's period; otherwise
it is told as backed off. Of the released ticks the one whose period ends first goes first (earliest deadline
first, without preemption: Jeffay, Stanat, Martel, RTSS 1991). Among equals, devices that failed lately come
last, so that nobody waits behind the silence of another.

A tick whose successor has come is an overrun, counted and never piled up. The one exception: a round that
has begun is finished, so that what the devices of one line say of a tick stays together.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from drivers.rhythm import Rhythm

if TYPE_CHECKING:
    from collections.abc import Sequence

BACK_OFF_BASE, BACK_OFF_MOST = 4, 20
BACK_OFF_JITTER = 0.05


def back_off(failures: int, jitter: float) -> float:
    """How long a device rests after so many failures in a row, in multiples of what the last cost the bus.

    4, 16, 20, 20 ..., less up to a twentieth of it for `jitter` in 0..1. So a dead device has at most one
    part in 20 of the bus, and one that is back is asked within 20 unanswered requests.
    """
    times = min(BACK_OFF_BASE ** (failures - 1), BACK_OFF_MOST) if failures > 1 else 0
    return times * (1.0 - BACK_OFF_JITTER * jitter)


class Slot:
    """One device's ticks. Times are integers of the schedule.

    Attributes:
        due: the tick to serve next.
        every: the period at that tick.
        rest_until: it is not asked before.
        yields: when it failed, if that was the last it did: it goes behind its equals, the longest waiting
            first among its like. 0: it is well.
    """

    __slots__ = ("_rhythm", "due", "every", "rest_until", "yields")

    def __init__(self, every: int) -> None:
        self._rhythm = Rhythm(every)
        self.every = every
        self.due = 0
        self.rest_until = 0
        self.yields = 0

    @property
    def deadline(self) -> int:
        """When the tick's period ends: a poll that began before was on time."""
        return self.due + self.every

    def align(self, now: int) -> None:
        """Next tick and no rest: at the start, and when the schedule itself has jumped."""
        self._rhythm = Rhythm(self._rhythm.newest)
        self.rest_until = 0
        self.serve(self._rhythm.after(now))

    def serve(self, tick: int) -> None:
        """This tick is next."""
        self.due, self.every = tick, self._rhythm.every(tick)

    def served(self) -> None:
        """The tick is done with, whatever came of it."""
        self.serve(self._rhythm.after(self.due))

    def set_every(self, every: int, now: int) -> int:
        """Change the period; returns the first tick that belongs to the new one.

        Ticks before that one stay on the old period, so that none is lost and none comes twice.
        """
        since = now - now % every + every
        self._rhythm.change(every, since)
        if self.due > now:
            self.serve(self._rhythm.after(now))
        return since

    def latest(self, now: int) -> int:
        """The youngest tick that has come."""
        return self._rhythm.tick(now)

    def closes(self) -> int:
        """When one stops waiting for a device that speaks by itself: half a period after the tick's own."""
        after = self._rhythm.after(self.due)
        return after + self._rhythm.every(after) // 2


class What(Enum):
    ASK = auto()
    OVERRUN = auto()  # `ticks` of the slot will never be asked; its due is the youngest now
    BACK_OFF = auto()  # not asked for this tick; the caller marks it served


SlotT = TypeVar("SlotT", bound=Slot)


class Turn(NamedTuple, Generic[SlotT]):
    """What to do now; `tick` is the one it is done for."""

    slot: SlotT
    what: What
    tick: int
    ticks: int = 1


class Schedule(Generic[SlotT]):
    """The slots of one line. Looked through one by one: a line has at most 247 devices, mostly below ten."""

    def __init__(self, slots: Sequence[SlotT]) -> None:
        self.slots = slots
        self._round = -1

    def align(self, now: int) -> None:
        for slot in self.slots:
            slot.align(now)

    def turn(self, now: int) -> Turn[SlotT] | None:
        """What is to be done at `now`; None before `next_release`."""
        first: SlotT | None = None
        first_key = (0, 0)
        for slot in self.slots:
            if slot.due > now:
                continue
            deadline = slot.due + slot.every
            if slot.rest_until > now:
                if slot.rest_until >= deadline:
                    return Turn(slot, What.BACK_OFF, slot.due)
                continue
            key = (deadline, slot.yields)
            if first is None or key < first_key:
                first, first_key = slot, key
        if first is None:
            return None
        tick, latest = first.due, first.latest(now)
        if latest <= tick or tick == self._round:
            self._round = tick
            return Turn(first, What.ASK, tick)
        ticks = max(1, (latest - tick) // first.every)
        first.serve(latest)
        return Turn(first, What.OVERRUN, tick, ticks)

    def next_release(self) -> int | None:
        """When the next turn comes; None without slots."""
        return min(map(_release, self.slots), default=None)


def _release(slot: Slot) -> int:
    return slot.rest_until if slot.due < slot.rest_until < slot.deadline else slot.due
