"""The designer's trigger levels: blue < yellow < orange < red, with hysteresis and hold.

Each level is a bell of its own. It starts to ring when the value has been beyond its limit for the hold,
and stops when the value has been back inside the limit, by the hysteresis, for the hold. The channel's
level is the highest bell that rings. Four independent bells, not one candidate, so that a value that
wavers between yellow and orange still completes the hold of yellow.

What is known raises and clears; what is uncertain raises and never clears; what is missing does neither
(GB 39496-2020 5.5.4 gives the levels, the design institute the limits; nothing here has a default limit).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from math import inf, isfinite, nextafter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Level(IntEnum):
    """Severity, so that levels compare; `text` is how payloads and site files write it."""

    NONE = 0
    BLUE = 1
    YELLOW = 2
    ORANGE = 3
    RED = 4

    @property
    def text(self) -> str:
        return self.name.lower()


COLOURS = (Level.BLUE, Level.YELLOW, Level.ORANGE, Level.RED)


@dataclass(frozen=True, slots=True)
class Levels:
    """Limits of one channel, in its unit; at least one, ordered in the direction of danger."""

    rising: bool = field(metadata={"doc": "true: high is dangerous; false: low is", "example": "true"})
    blue: float | None = field(default=None, metadata={"doc": "blue beyond this", "example": "84.0"})
    yellow: float | None = field(default=None, metadata={"doc": "yellow beyond this", "example": "85.0"})
    orange: float | None = field(default=None, metadata={"doc": "orange beyond this", "example": "86.0"})
    red: float | None = field(default=None, metadata={"doc": "red beyond this", "example": "87.0"})
    hysteresis: float = field(
        default=0.0,
        metadata={"doc": "how far inside its limit a value must come back to clear", "example": "0.2"},
    )
    hold_s: float = field(
        default=0.0,
        metadata={
            "key": "hold",
            "parse": "duration",
            "doc": "how long a value must stay beyond to raise, or back inside to clear",
            "example": '"20 min"',
        },
    )
    source: str = field(
        default="",
        metadata={
            "doc": "the design document the limits were taken from",
            "example": '"design report 2024-07, table 5-3"',
        },
    )

    def limit(self, level: Level) -> float | None:
        """The limit as configured; None for a level without one."""
        return {
            Level.NONE: None,
            Level.BLUE: self.blue,
            Level.YELLOW: self.yellow,
            Level.ORANGE: self.orange,
            Level.RED: self.red,
        }[level]

    def problems(self) -> list[str]:
        """All that makes these limits unfit for arming a channel; empty when fit."""
        found = []
        given = [(level, limit) for level in COLOURS if (limit := self.limit(level)) is not None]
        if not given:
            found.append("names no limit: give at least one of blue, yellow, orange, red")
        direction, sign = ("rise", 1.0) if self.rising else ("fall", -1.0)
        for (lower, a), (higher, b) in pairwise(given):
            distance = sign * (b - a)
            if distance <= 0:
                found.append(f"{higher.text} {b} must lie beyond {lower.text} {a}: the limits {direction}")
            elif self.hysteresis >= distance:
                found.append(
                    f"hysteresis {self.hysteresis} must be smaller than the distance {distance:g} "
                    f"from {lower.text} to {higher.text}"
                )
        if self.hysteresis < 0:
            found.append(f"hysteresis {self.hysteresis} must not be negative")
        if self.hold_s < 0:
            found.append(f"hold of {self.hold_s} s must not be negative")
        if not self.source.strip():
            found.append("source is empty: name the design document the limits come from")
        return found


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
    """Holds the level of one channel.

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
            limit if limit is not None else float("nan"),
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


def _limits(levels: Levels, sign: float) -> tuple[float, ...]:
    """Four rising limits; a level without one takes that of the next higher, and so never shows by itself."""
    limits: list[float] = []
    above = inf
    for colour in reversed(COLOURS):
        limit = levels.limit(colour)
        above = above if limit is None else sign * limit
        limits.append(above)
    return tuple(reversed(limits))
