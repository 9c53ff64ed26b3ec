"""Limits of the pond's level that hold for a season, and which of them is in force on a day.

Operating limits are dated and renewed before each flood season, GB 39496-2020 6.4.2. A limit that has run out
without a successor stays in force, since some limit is safer than none, and somebody is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Literal, NamedTuple

from edge_rules.law.limits import COLOURS, Levels

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class OperatingLimit:
    """Levels of the pond's channels of item pond-level from one day to another, both included."""

    kind: Literal["normal", "flood-season"] = field(
        metadata={"doc": "which of the operating limits it is", "example": '"flood-season"'}
    )
    first: date = field(
        metadata={
            "key": "from",
            "parse": "date",
            "doc": "first day, local date",
            "example": '"2026-06-01"',
        }
    )
    until: date = field(metadata={"parse": "date", "doc": "last day", "example": '"2026-09-30"'})
    levels: Levels = field(
        metadata={
            "doc": "the limits, as of a channel",
            "example": "{ rising = true, yellow = 84.8, orange = 86.5, red = 87.5, hysteresis = 0.1, "
            'source = "flood control plan 2026", approver = "王工" }',
        }
    )
    design_flood_m: float | None = field(
        default=None,
        metadata={
            "doc": "level of the design flood in these days; no limit lies above it",
            "example": "88.0",
        },
    )

    def problems(self) -> list[str]:
        """What makes it unfit; empty when fit."""
        found = [f"levels: {problem}" for problem in self.levels.problems()]
        if self.until < self.first:
            found.append(f"until {self.until} lies before from {self.first}")
        if not self.levels.rising or self.levels.low is not None:
            found.append("levels: a pond's level is dangerous where it is high: rising = true, without low")
        if self.design_flood_m is not None:
            found += [
                f"levels: {colour.text} {limit:g} lies above the design flood, {self.design_flood_m:g}"
                for colour in COLOURS
                if (limit := self.levels.limit(colour)) is not None and limit > self.design_flood_m
            ]
        return found


class InForce(NamedTuple):
    """A limit, and whether it holds on that day or is only the best there is."""

    limit: OperatingLimit
    is_valid: bool


def in_force(limits: Sequence[OperatingLimit], day: date) -> InForce:
    """The limit for `day`: of those that hold the one that began last, else the one that ran out last.

    Before the first of all it is the first.
    """
    holding = [limit for limit in limits if limit.first <= day <= limit.until]
    if holding:
        return InForce(max(holding, key=lambda limit: limit.first), is_valid=True)
    over = [limit for limit in limits if limit.until < day]
    if over:
        return InForce(max(over, key=lambda limit: limit.until), is_valid=False)
    return InForce(min(limits, key=lambda limit: limit.first), is_valid=False)


def covered_until(limits: Sequence[OperatingLimit], day: date) -> date | None:
    """The last day of the unbroken run of limits that holds on `day`; None if none holds."""
    last: date | None = None
    look = day
    while found := [limit.until for limit in limits if limit.first <= look <= limit.until]:
        last = max(found)
        if last == date.max:
            break
        look = date.fromordinal(last.toordinal() + 1)
    return last
