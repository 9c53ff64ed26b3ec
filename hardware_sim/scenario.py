"""Scenarios: TOML that says what rain falls, which faults come and when the platform is away.

name = "storm"
title = "..."
seed = 7
[[rain]]            # a straight line from point to point; nothing before the first, after the last its value
at_min = 5.0        # bench minutes since the start
mm_per_h = 0.0
[[fault]]           # bench minutes; without `length_min` it stays
at_min = 40.0
length_min = 2.0
target = "rs485-1/192"
fault = "silent"
[[outage]]          # the receiving platform, in REAL seconds since the start
begin_s = 20.0
length_s = 20.0
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

import msgspec

_SHIPPED = Path(__file__).parent / "scenarios"

NotNegative = Annotated[float, msgspec.Meta(ge=0.0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]


class ScenarioWrong(ValueError):
    """The scenario cannot be read; the message names file and place."""


class RainPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at_min: NotNegative
    mm_per_h: NotNegative


class PlannedFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at_min: NotNegative
    target: str
    fault: str
    length_min: Positive | None = None


class Outage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The platform is away for `length_s` from `begin_s` on: real seconds since the bench was ready."""

    begin_s: NotNegative
    length_s: Positive

    @classmethod
    def parse(cls, text: str) -> Outage:
        """`AT:FOR` in seconds, as the command line has it.

        Raises:
            ValueError: another form, or times that cannot be.
        """
        begin, colon, length = text.partition(":")
        try:
            return msgspec.convert({"begin_s": float(begin), "length_s": float(length)}, cls)
        except ValueError as error:
            raise ValueError(f"an outage is AT:FOR in seconds, not {text!r}") from (error if colon else None)


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    title: str
    seed: int
    rain: tuple[RainPoint, ...] = ()
    fault: tuple[PlannedFault, ...] = ()
    outage: tuple[Outage, ...] = ()

    @classmethod
    def load(cls, name_or_path: str) -> Self:
        """A shipped scenario by name (`storm`), or a file by path.

        Raises:
            ScenarioWrong: no such file, not TOML, an unknown or wrong key, rain out of order.
        """
        shipped = _SHIPPED / f"{name_or_path}.toml"
        path = shipped if shipped.is_file() else Path(name_or_path)
        try:
            scenario = msgspec.toml.decode(path.read_bytes(), type=cls)
        except OSError as error:
            known = ", ".join(sorted(p.stem for p in _SHIPPED.glob("*.toml")))
            raise ScenarioWrong(f"{path}: {error.strerror}; shipped scenarios are {known}") from error
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
            raise ScenarioWrong(f"{path}: {error}") from error
        times = [point.at_min for point in scenario.rain]
        if any(later <= earlier for earlier, later in pairwise(times)):
            raise ScenarioWrong(f"{path}: the points of [[rain]] must follow each other in time")
        return scenario

    def rain_mm_per_h(self, t_s: float) -> float:
        """Rain intensity `t_s` seconds after the start."""
        at_min = t_s / 60.0
        after = bisect_right(self.rain, at_min, key=lambda point: point.at_min)
        if after == 0:
            return 0.0
        here = self.rain[after - 1]
        if after == len(self.rain):
            return here.mm_per_h
        there = self.rain[after]
        share = (at_min - here.at_min) / (there.at_min - here.at_min)
        return here.mm_per_h + share * (there.mm_per_h - here.mm_per_h)
