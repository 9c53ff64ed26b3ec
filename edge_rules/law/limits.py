"""What the designer gives: four levels, their limits on one side or on both, where they come from.

GB 39496-2020 5.5.4 gives the levels, the design institute the limits; nothing here has a default limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

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


def _limit(colour: str, example: str) -> Any:
    return field(default=None, metadata={"doc": f"{colour} beyond this", "example": example})


def _factor(colour: str, example: str) -> Any:
    return field(default=None, metadata={"doc": f"{colour} at this factor", "example": example})


@dataclass(frozen=True, slots=True)
class LowLimits:
    """The limits of the other side: low is dangerous as well. Hysteresis, hold and source are those above."""

    blue: float | None = _limit("blue", "-5.0")
    yellow: float | None = _limit("yellow", "-10.0")
    orange: float | None = _limit("orange", "-15.0")
    red: float | None = _limit("red", "-20.0")


@dataclass(frozen=True, slots=True)
class FactorOf:
    """Limits as standards give them: factors of one value the designer gives, such as the control depth.

    GB 51108-2015 8.3.4 (commentary): orange = 1.1 x the depth of red. 8.3.8: landslide orange = 0.8 x red.
    """

    value: float = field(metadata={"doc": "the designer's value, in the channel's unit", "example": "8.0"})
    what: str = field(metadata={"doc": "which value that is", "example": '"control depth, section 2-2"'})
    clause: str = field(
        metadata={"doc": "where the factors come from", "example": '"GB 51108-2015 8.3.4, commentary"'}
    )
    blue: float | None = _factor("blue", "1.3")
    yellow: float | None = _factor("yellow", "1.2")
    orange: float | None = _factor("orange", "1.1")
    red: float | None = _factor("red", "1.0")


@dataclass(frozen=True, slots=True)
class Levels:
    """Limits of one channel, in its unit; at least one, ordered in the direction of danger."""

    rising: bool = field(metadata={"doc": "true: high is dangerous; false: low is", "example": "true"})
    blue: float | None = _limit("blue", "84.0")
    yellow: float | None = _limit("yellow", "85.0")
    orange: float | None = _limit("orange", "86.0")
    red: float | None = _limit("red", "87.0")
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
    approver: str = field(
        default="", metadata={"doc": "who approved the limits", "example": '"王工, 2026-05-20"'}
    )
    low: LowLimits | None = field(
        default=None,
        metadata={
            "doc": "with rising = true: low is dangerous too, as where a toe may settle or a drain dry up",
            "example": "{ yellow = -10.0, red = -20.0 }",
        },
    )
    factor_of: FactorOf | None = field(
        default=None,
        metadata={
            "doc": "limits as factors of one value, in place of the numbers above",
            "example": '{ value = 8.0, what = "control depth", clause = "GB 51108-2015 8.3.4", red = 1.0, '
            "orange = 1.1 }",
        },
    )

    def limit(self, level: Level) -> float | None:
        """The limit of the side named by `rising`; None for a level without one."""
        if level == Level.NONE:
            return None
        written: float | None = getattr(self, level.text)
        factor: float | None = getattr(self.factor_of, level.text) if self.factor_of else None
        return written if self.factor_of is None or factor is None else factor * self.factor_of.value

    def sides(self) -> tuple[Levels, ...]:
        """Each side by itself, with plain limits: that of `rising`, then `low`."""
        resolved = {colour.text: self.limit(colour) for colour in COLOURS}
        main = replace(self, **resolved, low=None, factor_of=None)  # type: ignore[arg-type]  # names of limits
        if self.low is None:
            return (main,)
        below = {colour.text: getattr(self.low, colour.text) for colour in COLOURS}
        return (main, replace(main, rising=False, **below))

    def problems(self) -> list[str]:
        """All that makes these limits unfit for arming a channel; empty when fit."""
        found = []
        for name, given in zip(("", "low "), map(_given, self.sides()), strict=False):
            if not given:
                found.append(f"{name}names no limit: give at least one of blue, yellow, orange, red")
            found += self._order(name, given, rising=self.rising and not name)
        found += self._both_sides() + self._factors()
        if self.hysteresis < 0:
            found.append(f"hysteresis {self.hysteresis} must not be negative")
        if self.hold_s < 0:
            found.append(f"hold of {self.hold_s} s must not be negative")
        if not self.source.strip():
            found.append("source is empty: name the design document the limits come from")
        return found

    def close_neighbours(self, uncertainty: float) -> list[str]:
        """Neighbouring limits that lie within three times the channel's uncertainty of each other.

        With a control depth of 2 m only 0.2 m lie between 1.1 times it and itself: less than one missed
        correction for air pressure.
        """
        return [
            f"{name}{lower.text} {a:g} and {higher.text} {b:g} lie within three times the uncertainty, "
            f"{uncertainty:g}"
            for name, given in zip(("", "low "), map(_given, self.sides()), strict=False)
            for (lower, a), (higher, b) in pairwise(given)
            if abs(b - a) <= 3.0 * uncertainty
        ]

    def _order(self, name: str, given: Sequence[tuple[Level, float]], *, rising: bool) -> list[str]:
        found = []
        direction, sign = ("rise", 1.0) if rising else ("fall", -1.0)
        for (lower, a), (higher, b) in pairwise(given):
            distance = sign * (b - a)
            if distance <= 0:
                found.append(
                    f"{name}{higher.text} {b} must lie beyond {lower.text} {a}: the limits {direction}"
                )
            elif self.hysteresis >= distance:
                found.append(
                    f"hysteresis {self.hysteresis} must be smaller than the distance {distance:g} "
                    f"from {name}{lower.text} to {higher.text}"
                )
        return found

    def _both_sides(self) -> list[str]:
        if self.low is None:
            return []
        if not self.rising:
            return ["low goes with rising = true: limits that fall stand in the table itself"]
        high, low = (_given(side) for side in self.sides())
        if high and low and high[0][1] - low[0][1] <= 2.0 * self.hysteresis:
            mildest = f"low {low[0][0].text} {low[0][1]:g} must lie below {high[0][0].text} {high[0][1]:g}"
            return [f"{mildest} by more than twice the hysteresis"]
        return []

    def _factors(self) -> list[str]:
        its = self.factor_of
        if its is None:
            return []
        found = [
            f"{colour.text} is given twice: as a number and as a factor"
            for colour in COLOURS
            if getattr(self, colour.text) is not None and getattr(its, colour.text) is not None
        ]
        if not its.what.strip() or not its.clause.strip():
            found.append("factor_of must say what the value is, and which clause the factors come from")
        return found


def _given(side: Levels) -> list[tuple[Level, float]]:
    """The limits that one side has, mildest first."""
    return [(level, limit) for level in COLOURS if (limit := side.limit(level)) is not None]
