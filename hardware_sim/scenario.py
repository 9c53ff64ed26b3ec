"""Scenarios: TOML that says what rain falls, which faults come and when the platform is away.

name = "storm"
title = "..."
title_zh = "..."      # the same in Chinese
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
[[outflow]]         # taken out of the pond, a straight line from point to point as with rain
at_min = 5.0
m3_per_s = 0.0
[failure]           # the crest accelerates from begin_min on and fails at fail_min
begin_min = 10.0
fail_min = 120.0
alpha = 2.0
begin_mm_per_day = 200.0
[air]
celsius = -12.0     # mean of the day
[expect]            # what the daemon on config/demo.toml makes of it, so that the scenario is a test
after_min = 60.0    # bench minutes
speed = 240.0       # at which the test runs it
every = "1 min"     # the site's polls, in place of the demo's minute where the run is long
alarms = [{ subject = "fault:vw1", level = "none" }]    # each one's worst level, and no other alarm
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

import msgspec

from hardware_sim.dam import Course

if TYPE_CHECKING:
    from collections.abc import Sequence

_FASTEST_M_S: Final = 1e-3  # of a slide; what it does after that no instrument on it lives to tell
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


class OutflowPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at_min: NotNegative
    m3_per_s: NotNegative


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Acceleration to failure, dv/dt = A v^alpha (Fukuzono 1985; Voight 1988).

    Integrated for alpha > 1: v = v0 ((tf - t0) / (tf - t))^(1 / (alpha - 1)); A follows from v0 and tf.
    The slide never moves faster than `_FASTEST_M_S`, and lies still from tf on.
    """

    begin_min: NotNegative
    fail_min: Positive
    alpha: Annotated[float, msgspec.Meta(gt=1.0, le=4.0)]
    begin_mm_per_day: Positive

    def speed_m_s(self, t_s: float) -> float:
        left_min = self.fail_min - t_s / 60.0
        whole_min = self.fail_min - self.begin_min
        if not 0.0 < left_min <= whole_min:
            return 0.0
        begin_m_s = self.begin_mm_per_day / 86_400_000.0
        return float(min(_FASTEST_M_S, begin_m_s * (whole_min / left_min) ** (1.0 / (self.alpha - 1.0))))


class Air(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    celsius: Annotated[float, msgspec.Meta(ge=-40.0, le=40.0)] = 14.0


class ExpectedAlarm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An alarm by its subject (its id without the instant) and the worst level it reached."""

    subject: str
    level: Literal["none", "blue", "yellow", "orange", "red"]


class Expect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    after_min: Positive
    speed: Positive
    every: str = "1 min"
    alarms: tuple[ExpectedAlarm, ...] = ()


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    title: str
    seed: int
    title_zh: str = ""
    rain: tuple[RainPoint, ...] = ()
    fault: tuple[PlannedFault, ...] = ()
    outage: tuple[Outage, ...] = ()
    outflow: tuple[OutflowPoint, ...] = ()
    failure: Failure | None = None
    air: Air = Air()
    expect: Expect | None = None

    @classmethod
    def load(cls, name_or_path: str) -> Self:
        """A shipped scenario by name (`storm`), or a file by path.

        Raises:
            ScenarioWrong: no such file, not TOML, an unknown or wrong key, rain out of order.
        """
        known = _SHIPPED / f"{name_or_path}.toml"
        path = known if known.is_file() else Path(name_or_path)
        try:
            scenario = msgspec.toml.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise ScenarioWrong(
                f"{path}: {error.strerror}; shipped scenarios are {', '.join(shipped())}"
            ) from error
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
            raise ScenarioWrong(f"{path}: {error}") from error
        for table, points in (("rain", scenario.rain), ("outflow", scenario.outflow)):
            times = [point.at_min for point in points]
            if any(later <= earlier for earlier, later in pairwise(times)):
                raise ScenarioWrong(f"{path}: the points of [[{table}]] must follow each other in time")
        failure = scenario.failure
        if failure is not None and failure.fail_min <= failure.begin_min:
            raise ScenarioWrong(f"{path}: [failure] fails before it begins")
        return scenario

    @property
    def course(self) -> Course:
        """What happens to the dam."""
        rain = _Line([(point.at_min * 60.0, point.mm_per_h) for point in self.rain])
        outflow = _Line([(point.at_min * 60.0, point.m3_per_s) for point in self.outflow])
        return Course(
            rain,
            rain.zero_until_s,
            outflow if self.outflow else None,
            self.failure.speed_m_s if self.failure is not None else None,
            self.air.celsius,
        )


def shipped() -> list[str]:
    """The names of the scenarios that come with the bench."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


class _Line:
    """The straight line from point to point: nothing before the first, after the last its value."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        self._points = [(-inf, 0.0), *points, (inf, points[-1][1] if points else 0.0)]
        self._piece = (inf, inf, 0.0, 0.0)  # from, to, value there, rise per second

    def __call__(self, t_s: float) -> float:
        here_s, there_s, here, rise = self._piece
        if not here_s <= t_s < there_s:
            here_s, there_s, here, rise = self._piece = self._find(t_s)
        return here + (t_s - here_s) * rise if rise else here

    def zero_until_s(self, t_s: float) -> float:
        """To where it stays zero from `t_s` on; `t_s` itself if it is not."""
        return self._piece[1] if self(t_s) == self._piece[2] == self._piece[3] == 0.0 else t_s

    def _find(self, t_s: float) -> tuple[float, float, float, float]:
        after = bisect_right(self._points, (t_s, inf))
        (here_s, here), (there_s, there) = self._points[after - 1 : after + 1]
        flat = here_s == -inf or there_s == inf
        return here_s, there_s, here, 0.0 if flat else (there - here) / (there_s - here_s)
