"""Readings against the designer's trigger levels, with hysteresis and hold.

Each level is a bell of its own. It starts to ring when the value has been beyond its limit for the hold,
and stops when the value has been back inside the limit, by the hysteresis, for the hold. The channel's
level is the highest bell that rings. Four independent bells, not one candidate, so that a value that
wavers between yellow and orange still completes the hold of yellow. A channel with limits on both sides (a
toe that heaves or settles, a drain that floods or dries up) has two rows of bells, and the higher of both.

Red latches: once reached it stays, whatever is measured afterwards, until `ChannelJudge.release`; who may do
that, and after which re-measurement, is the alarm book's affair.

What is known raises and clears; what is uncertain raises and never clears; what is missing does neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isfinite, nan, nextafter
from typing import TYPE_CHECKING, Any

from edge_rules.law.limits import COLOURS, FactorOf, Level, Levels, LowLimits

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "COLOURS",
    "ChannelJudge",
    "FactorOf",
    "Level",
    "LevelJudge",
    "Levels",
    "LowLimits",
    "Transition",
]


@dataclass(frozen=True, slots=True)
class Transition:
    """A level changed.

    `limit` is the one crossed: that of the new level when raised, that of the level left when cleared; NaN
    where a new site file no longer has it. `since_ns` is the first sample of the run that completed the hold,
    `time_ns` the sample that completed it (UTC). `unverified`: that sample was uncertain.
    """

    was: Level
    level: Level
    limit: float
    value: float
    time_ns: int
    since_ns: int
    unverified: bool


State = tuple[int | None, ...]


class LevelJudge:
    """Holds the level of one side of one channel.

    A certain value within `calm_low <= value <= calm_high` changes nothing at all, neither the level nor a
    hold under way, so the caller may skip `judge` for it. NaN lies in no band. While a hold is under way the
    band is empty.

    A sample not later than the one before it is judged, and adds no time to any hold: a wall clock that
    steps back must not silence a level until it has caught up.
    """

    __slots__ = (
        "_hold_ns",
        "_hysteresis",
        "_last_ns",
        "_levels",
        "_limits",
        "_sign",
        "_since_ns",
        "calm_high",
        "calm_low",
        "level",
    )

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._sign = 1.0 if levels.rising else -1.0
        self._limits = _limits(levels, self._sign)
        self._hysteresis = levels.hysteresis
        self._hold_ns = round(levels.hold_s * 1e9)
        self.level = Level.NONE
        self._since_ns: list[int | None] = [None] * len(COLOURS)
        self._last_ns = 0
        self._set_band()

    def judge(self, time_ns: int, value: float, certain: bool) -> Transition | None:  # noqa: FBT001 -- the hot path
        """Take one sample; the change of level it completes, if any."""
        if not isfinite(value):
            return None
        if time_ns < self._last_ns:
            self._shift(time_ns - self._last_ns)
        self._last_ns = time_ns
        transition = self._ring(time_ns, value, certain=certain)
        self._set_band()
        return transition

    def set_to(self, time_ns: int, value: float) -> Transition | None:
        """Ring exactly what `value` passes, without hold: a person's reading is no run of samples."""
        level = self.level_of(value)
        self._since_ns = [None] * len(COLOURS)
        self._last_ns = time_ns
        was, self.level = self.level, level
        self._set_band()
        if level == was:
            return None
        limit = self.limit(max(was, level))
        limit = nan if limit is None else limit
        return Transition(was, level, limit, value, time_ns, time_ns, unverified=False)

    def level_of(self, value: float) -> Level:
        """Where `value` alone would stand, without hysteresis and hold."""
        x = self._sign * value
        return Level(sum(x > limit for limit in self._limits))

    def limit(self, level: Level) -> float | None:
        """The limit as configured."""
        return self._levels.limit(level)

    def _ring(self, time_ns: int, value: float, *, certain: bool) -> Transition | None:
        x = self._sign * value
        raised, cleared = 0, 0
        for bell, limit in zip(COLOURS, self._limits, strict=True):
            rings = bell <= self.level
            changes = x <= limit - self._hysteresis if rings else x > limit
            # An uncertain value is no evidence that the water is low: it neither clears nor breaks a run.
            if not certain and changes == rings:
                continue
            if not changes:
                self._since_ns[bell - 1] = None
                continue
            since_ns = self._since_ns[bell - 1]
            if since_ns is None:
                since_ns = self._since_ns[bell - 1] = time_ns
            if time_ns - since_ns >= self._hold_ns:
                if not rings:
                    raised = bell
                elif not cleared:
                    cleared = bell
        if raised:
            return self._change(Level(raised), raised, time_ns, value, unverified=not certain)
        if cleared:
            return self._change(Level(cleared - 1), cleared, time_ns, value, unverified=False)
        return None

    def _change(
        self, level: Level, completed: int, time_ns: int, value: float, *, unverified: bool
    ) -> Transition:
        """Set the level; `completed` is the bell whose run decided it."""
        was, self.level = self.level, level
        limit = self._levels.limit(max(was, level))
        since_ns = self._since_ns[completed - 1]
        assert since_ns is not None
        for bell in range(min(was, level) + 1, max(was, level) + 1):
            self._since_ns[bell - 1] = None
        return Transition(
            was,
            level,
            limit if limit is not None else nan,
            value,
            time_ns,
            since_ns,
            unverified,
        )

    def _shift(self, by_ns: int) -> None:
        self._since_ns = [None if since is None else since + by_ns for since in self._since_ns]

    def _set_band(self) -> None:
        if any(since is not None for since in self._since_ns):
            self.calm_low, self.calm_high = inf, -inf
            return
        low = (
            -inf
            if self.level == Level.NONE
            else nextafter(self._limits[self.level - 1] - self._hysteresis, inf)
        )
        high = inf if self.level == Level.RED else self._limits[self.level]
        self.calm_low, self.calm_high = (low, high) if self._sign > 0 else (-high, -low)

    def state(self) -> State:
        """Level, time of the last sample judged, and per colour the start of the run under way; JSON-able."""
        return (int(self.level), self._last_ns, *self._since_ns)

    def restore(self, state: Sequence[int | None]) -> None:
        """Continue from a `state()`, also under new limits: the level held stays until a value clears it.

        Raises:
            ValueError: not a state of this class.
        """
        level, last_ns, *since_ns = state
        if level is None or last_ns is None or len(since_ns) != len(COLOURS):
            raise ValueError(f"not the state of a LevelJudge: {state!r}")
        self.level, self._last_ns, self._since_ns = Level(level), last_ns, since_ns
        self._set_band()


class ChannelJudge:
    """Holds the level of one channel: the higher of its sides, and red that stays until it is released.

    Attributes:
        level: what holds, latched red included.
        measured: what is measured, without the latch.
        latched: red was reached and not released since.
        calm_low: see `LevelJudge`; of both sides together, and empty while red is latched.
        calm_high: likewise.
        certain_ns: while red is latched, time of the last certain sample.
    """

    __slots__ = ("_sides", "calm_high", "calm_low", "certain_ns", "latched", "level", "measured")

    def __init__(self, levels: Levels) -> None:
        self._sides = [LevelJudge(side) for side in levels.sides()]
        self.level = self.measured = Level.NONE
        self.latched = False
        self.certain_ns = 0
        self._look()

    def judge(self, time_ns: int, value: float, certain: bool) -> Transition | None:  # noqa: FBT001 -- the hot path
        """Take one sample; the change of level it completes, if any."""
        was = self.level
        moved = [side.judge(time_ns, value, certain) for side in self._sides]
        if certain and isfinite(value):
            self.certain_ns = time_ns
        return self._together(was, moved)

    def set_to(self, time_ns: int, value: float) -> Transition | None:
        """Take a person's reading for what is: no hold, and it clears. Red stays latched.

        Raises:
            ValueError: not a finite number.
        """
        if not isfinite(value):
            raise ValueError(f"a reading by hand must be a number, not {value}")
        was = self.level
        moved = [side.set_to(time_ns, value) for side in self._sides]
        self.certain_ns = time_ns
        return self._together(was, moved)

    def release(self, time_ns: int, value: float) -> Transition | None:
        """Let go of latched red; the fall to what is measured, None if that is red or nothing was latched."""
        if not self.latched or self.measured == Level.RED:
            return None
        self.latched = False
        self._look()
        return Transition(Level.RED, self.level, nan, value, time_ns, time_ns, unverified=False)

    def level_of(self, value: float) -> Level:
        """Where `value` alone would stand, without hold and latch."""
        return Level(max(side.level_of(value) for side in self._sides))

    def arm(self, levels: Levels) -> None:
        """Go on under other limits: the level held stays until a value clears it."""
        state = self.state()
        self._sides = [LevelJudge(side) for side in levels.sides()]
        self.restore(state)

    def limit(self, level: Level) -> float:
        """The limit of `level` on the side that stands highest; NaN where it has none."""
        limit = max(self._sides, key=lambda side: side.level).limit(level)
        return nan if limit is None else limit

    def _together(self, was: Level, moved: Sequence[Transition | None]) -> Transition | None:
        """The channel's own transition after those of its sides: told by the side that decided it."""
        self._look()
        told = [each for each in moved if each is not None]
        if self.level == was or not told:
            return None
        decided = max(told, key=lambda each: (each.level == self.level, each.was == was))
        return replace(decided, was=was, level=self.level)

    def _look(self) -> None:
        self.measured = Level(max(side.level for side in self._sides))
        self.latched = self.latched or self.measured == Level.RED
        self.level = Level.RED if self.latched else self.measured
        if self.latched:
            self.calm_low, self.calm_high = inf, -inf
        else:
            self.calm_low = max(side.calm_low for side in self._sides)
            self.calm_high = min(side.calm_high for side in self._sides)

    def state(self) -> list[Any]:
        """What `restore` continues from: latch, last certain sample while latched, each side; JSON-able."""
        certain_ns = self.certain_ns if self.latched else 0
        return [self.latched, certain_ns, *(list(side.state()) for side in self._sides)]

    def restore(self, state: Sequence[Any]) -> None:
        """Continue from a `state()`, also under other limits or with another number of sides.

        The level of a side that is there no more goes over to the first: it must be measured away.

        Raises:
            ValueError: not a state of this class.
        """
        if not state or not isinstance(state[0], bool):
            state = (False, 0, state)  # of a version that knew one side and no latch
        latched, certain_ns, *sides = state
        for judge, its in zip(self._sides, sides, strict=False):
            judge.restore(its)
        lost = max((its[0] for its in sides[len(self._sides) :]), default=0)
        if lost > self._sides[0].level:
            first = self._sides[0].state()
            self._sides[0].restore((lost, *first[1:]))
        self.latched, self.certain_ns = latched, certain_ns
        self._look()


def _limits(levels: Levels, sign: float) -> tuple[float, ...]:
    """Four rising limits; a level without one takes that of the next higher, and so never shows by itself."""
    limits: list[float] = []
    above = inf
    for colour in reversed(COLOURS):
        limit = levels.limit(colour)
        above = above if limit is None else sign * limit
        limits.append(above)
    return tuple(reversed(limits))
