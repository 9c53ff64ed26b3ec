"""Quantities computed from other channels: elevations, depths, freeboard, beach, rates, rain sums.

A settings class says what the site file may write, which channels it reads (`inputs`), what is wrong with
the numbers (`problems()`), and makes the `Deriver` that computes. A missing input (NaN) gives a missing
result; a dry tip gives `BELOW_TIP`, which is no number anybody may use.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import cos, inf, isfinite, nan, radians, sin, sqrt
from typing import TYPE_CHECKING, Any, Literal, Protocol

from edge_rules.law.rain import RainGauge, RainIntensity, RainUndercatch
from edge_rules.law.trend import TrendState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STANDARD_GRAVITY = 9.80665  # m/s^2, CGPM 1901
FULL_CIRCLE_DEG = 360.0
BELOW_TIP = -inf  # result of `piezometric-elevation` when the water stands below the tip

State = list[Any]  # JSON-able: numbers, and lists of numbers


class Deriver(Protocol):
    """Computes one channel; called once per tick with its inputs in the order of `inputs`."""

    def __call__(self, time_ns: int, values: Sequence[float]) -> float: ...

    def state(self) -> State | None:
        """What `restore` needs to continue to the last bit; None when there is nothing to remember."""
        ...

    def restore(self, state: State) -> None:
        """Continue from a `state()`; ValueError when it is not one."""
        ...


class Formula:
    """A deriver without memory."""

    def __init__(self, formula: Callable[[Sequence[float]], float]) -> None:
        self._formula = formula

    def __call__(self, time_ns: int, values: Sequence[float]) -> float:  # noqa: ARG002 -- the contract
        return self._formula(values)

    def state(self) -> None:
        return None

    def restore(self, state: State) -> None:
        raise ValueError(f"a formula keeps no state, not {state!r}")


class RateDeriver:
    """Rate per `per_h` hours by the robust trend; missing until the rate is known (`TrendState.is_known`).

    A run of refused samples is a wall clock that came back from the future: the trend starts afresh
    instead of waiting for that future.
    """

    REFUSED_RUN = 10

    def __init__(self, trend: TrendState, per_h: float) -> None:
        self._trend = trend
        self._per_h = per_h
        self._refused = 0

    def __call__(self, time_ns: int, values: Sequence[float]) -> float:
        (value,) = values
        if not isfinite(value):
            return nan
        if self._trend.feed(time_ns, value) is None:
            self._refused += 1
            if self._refused < self.REFUSED_RUN:
                return nan
            self._trend.restart()
            self._trend.feed(time_ns, value)
        self._refused = 0
        return self._trend.rate_per_h * self._per_h if self._trend.is_known else nan

    def state(self) -> State:
        return [self._refused, *self._trend.state()]

    def restore(self, state: State) -> None:
        self._refused, *trend = state
        self._trend.restore(trend)


class WindowSum:
    """Sum of increments over a trailing window, exact: many small tips add up to what they are.

    Increments lie in `SLOTS` slots, so memory is bounded whatever the rate; a slot leaves when its newest
    increment is older than the window, so the sum reads high by at most one slot and never low. Dry polls
    take no room. Sums are rational numbers and rounded once, at the end. Until a whole window has been
    seen the sum is that of what was seen.
    """

    SLOTS = 1440

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._slot_ns = max(1, window_ns // self.SLOTS)
        self._slots: deque[tuple[int, Fraction]] = deque()
        self._total = Fraction()
        self._now_ns = 0  # rises with the time stamps and stands still where they step back
        self._last_ns: int | None = None

    def __call__(self, time_ns: int, values: Sequence[float]) -> float:
        (value,) = values
        if self._last_ns is not None:
            self._now_ns += max(0, time_ns - self._last_ns)
        self._last_ns = time_ns
        self._expire()
        if not isfinite(value):
            return nan
        if value != 0.0:
            self._add(Fraction(value))
        return float(self._total)

    def _expire(self) -> None:
        while self._slots and self._slots[0][0] <= self._now_ns - self._window_ns:
            self._total -= self._slots.popleft()[1]

    def _add(self, amount: Fraction) -> None:
        self._total += amount
        if self._slots and self._slots[-1][0] // self._slot_ns == self._now_ns // self._slot_ns:
            amount += self._slots.pop()[1]
        self._slots.append((self._now_ns, amount))

    def state(self) -> State:
        return [self._last_ns, self._now_ns, [[at_ns, *_floats(amount)] for at_ns, amount in self._slots]]

    def restore(self, state: State) -> None:
        self._last_ns, self._now_ns, slots = state
        self._slots = deque((at_ns, sum(map(Fraction, parts), Fraction())) for at_ns, *parts in slots)
        self._total = sum((amount for _, amount in self._slots), Fraction())


def _floats(amount: Fraction) -> list[float]:
    """Floats whose exact sum is `amount`; one or two in practice."""
    parts = []
    while amount:
        parts.append(float(amount))
        amount -= Fraction(parts[-1])
    return parts


def _key(doc: str, example: str, default: Any = ..., **how: str) -> Any:
    """A field with its documentation; `how` may name the site file's `key` and how to `parse` it."""
    metadata = {"doc": doc, "example": example, **how}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


def _of(doc: str = "the channel it is computed from", example: str = '"n.pz03.pressure"') -> Any:
    return _key(doc, example)


class OfOne:
    """What all derivations of a single channel share."""

    __slots__ = ()
    of: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.of,)

    def problems(self) -> list[str]:
        return []


@dataclass(frozen=True, slots=True)
class Linear(OfOne):
    """scale x value + offset."""

    of: str = _of()
    scale: float = _key("factor", "1.0", 1.0)
    offset: float = _key("added after the factor, in the channel's unit", "0.0", 0.0)

    def make(self) -> Deriver:
        return Formula(lambda v: self.scale * v[0] + self.offset)


@dataclass(frozen=True, slots=True)
class PiezometricElevation(OfOne):
    """Elevation of the water in the piezometer, m: tip + pressure / (density x g); pressure in kPa.

    Hydrostatic: under downward flow the phreatic surface lies higher than this. A pressure below
    `-dry_below_kpa` is a dry tip: the result is BELOW_TIP, never the tip's elevation.
    """

    of: str = _of("channel with the pore pressure, kPa")
    tip_elevation_m: float = _key("elevation of the sensor's tip", "78.42")
    density_kg_m3: float = _key("density of the water; process water is heavier", "1000.0", 1000.0)
    datum: str = _key("elevation datum", '"1985"', "")
    dry_below_kpa: float = _key("suction still taken for zero, kPa, 0 or more", "0.5", 0.0)

    def problems(self) -> list[str]:
        found = []
        if self.density_kg_m3 <= 0:
            found.append(f"density_kg_m3 {self.density_kg_m3} must be above 0")
        if self.dry_below_kpa < 0:
            found.append(f"dry_below_kpa {self.dry_below_kpa} must not be negative")
        return found

    def make(self) -> Deriver:
        m_per_kpa = 1000.0 / (self.density_kg_m3 * STANDARD_GRAVITY)
        dry_kpa = -self.dry_below_kpa
        return Formula(lambda v: BELOW_TIP if v[0] < dry_kpa else self.tip_elevation_m + v[0] * m_per_kpa)


@dataclass(frozen=True, slots=True)
class BurialDepth(OfOne):
    """Depth of the phreatic surface below the ground, m."""

    of: str = _of("channel with the piezometric elevation, m", '"n.pz03.elevation"')
    ground_elevation_m: float = _key("elevation of the ground above the piezometer", "96.10")

    def make(self) -> Deriver:
        return Formula(lambda v: self.ground_elevation_m - v[0])


@dataclass(frozen=True, slots=True)
class Freeboard(OfOne):
    """Height of the crest above the pond's level, m: of today's level, not of the design flood's."""

    of: str = _of("channel with the pond's level, m", '"n.pond.level"')
    crest_elevation_m: float = _key("lowest elevation of the dam's crest", "102.50")

    def make(self) -> Deriver:
        return Formula(lambda v: self.crest_elevation_m - v[0])


@dataclass(frozen=True, slots=True)
class DryBeach(OfOne):
    """Length of the dry beach, m: (beach crest - pond level) / slope; below 0 the beach is flooded."""

    of: str = _of("channel with the pond's level, m", '"n.pond.level"')
    beach_crest_elevation_m: float = _key("lowest surveyed elevation of the beach's crest", "101.20")
    slope: float = _key("fall of the beach over its length, 0.01 for 1 in 100", "0.01")

    def problems(self) -> list[str]:
        return [] if self.slope > 0 else [f"slope {self.slope} must be above 0: fall over length"]

    def make(self) -> Deriver:
        return Formula(lambda v: (self.beach_crest_elevation_m - v[0]) / self.slope)


def _crests() -> Any:
    return _key("surveyed elevations of the beach's crest, of which the lowest counts", "[101.20, 101.35]")


def _flood() -> Any:
    return _key("level of the design flood", "99.80")


def _rise() -> Any:
    return _key(
        "how far the design flood raises the pond; today's level plus this counts if it is higher", "1.6", 0.0
    )


def _flood_level_m(level_m: float, design_flood_m: float, flood_rise_m: float) -> float:
    return nan if not isfinite(level_m) else max(design_flood_m, level_m + flood_rise_m)


def _flood_problems(crests_m: tuple[float, ...], flood_rise_m: float) -> list[str]:
    found = [] if crests_m else ["beach_crests_m is empty: give the surveyed elevations"]
    return found if flood_rise_m >= 0 else [*found, f"flood_rise_m {flood_rise_m} must not be negative"]


@dataclass(frozen=True, slots=True)
class ProjectedFreeboard(OfOne):
    """Height of the lowest beach crest above the design flood's level, m, as GB 50863-2013 4.2.1 asks for it.

    Today's level takes part only where a flood from there would stand higher than the design says. The tables
    of the standard are never compared with today's water: that hides the loss of flood storage.
    """

    of: str = _of("channel with the pond's level, m", '"n.pond.level"')
    beach_crests_m: tuple[float, ...] = _crests()
    design_flood_m: float = _flood()
    flood_rise_m: float = _rise()

    def problems(self) -> list[str]:
        return _flood_problems(self.beach_crests_m, self.flood_rise_m)

    def make(self) -> Deriver:
        crest_m = min(self.beach_crests_m)
        return Formula(lambda v: crest_m - _flood_level_m(v[0], self.design_flood_m, self.flood_rise_m))


@dataclass(frozen=True, slots=True)
class ProjectedBeach(OfOne):
    """Length of the beach at the design flood, m: the same height over the beach's slope."""

    of: str = _of("channel with the pond's level, m", '"n.pond.level"')
    beach_crests_m: tuple[float, ...] = _crests()
    design_flood_m: float = _flood()
    slope: float = _key("surveyed fall of the beach over its length, 0.01 for 1 in 100", "0.01")
    flood_rise_m: float = _rise()

    def problems(self) -> list[str]:
        found = _flood_problems(self.beach_crests_m, self.flood_rise_m)
        return found if self.slope > 0 else [*found, f"slope {self.slope} must be above 0: fall over length"]

    def make(self) -> Deriver:
        crest_m = min(self.beach_crests_m)
        return Formula(
            lambda v: (crest_m - _flood_level_m(v[0], self.design_flood_m, self.flood_rise_m)) / self.slope
        )


class StandingTimer:
    """Hours for which water has stood; missing readings do not stop the clock, only a dry one sets it back.

    A reading not later than the one before adds no time: a wall clock that steps back loses none either.
    """

    def __init__(self, dry_below_m: float) -> None:
        self._dry_below_m = dry_below_m
        self._stood_ns = 0
        self._stands = False
        self._last_ns: int | None = None

    def __call__(self, time_ns: int, values: Sequence[float]) -> float:
        (value,) = values
        if not isfinite(value):
            return nan
        if self._stands and self._last_ns is not None:
            self._stood_ns += max(0, time_ns - self._last_ns)
        self._last_ns = time_ns
        self._stands = value > self._dry_below_m
        if not self._stands:
            self._stood_ns = 0
        return self._stood_ns / 3.6e12

    def state(self) -> State:
        return [self._last_ns, self._stood_ns, self._stands]

    def restore(self, state: State) -> None:
        self._last_ns, self._stood_ns, self._stands = state


@dataclass(frozen=True, slots=True)
class StandingWater(OfOne):
    """For how long water has stood in a dry pond, h: floodwater is out within 72 h, GB 39496-2020 6.4.4."""

    of: str = _of("channel with the water's level, m", '"d.pond.level"')
    dry_below_m: float = _key("level at and below which the pond is drained", "90.20")

    def make(self) -> Deriver:
        return StandingTimer(self.dry_below_m)


class DecayingSum:
    """Sum of increments that fades with time: A = A k^(days since) + P."""

    def __init__(self, keep_per_day: float) -> None:
        self._keep = keep_per_day
        self._sum = 0.0
        self._last_ns: int | None = None

    def __call__(self, time_ns: int, values: Sequence[float]) -> float:
        (value,) = values
        if self._last_ns is not None:
            self._sum *= self._keep ** (max(0, time_ns - self._last_ns) / 8.64e13)
        self._last_ns = time_ns
        if not isfinite(value):
            return nan
        self._sum += value
        return self._sum

    def state(self) -> State:
        return [self._last_ns, self._sum]

    def restore(self, state: State) -> None:
        self._last_ns, self._sum = state


@dataclass(frozen=True, slots=True)
class AntecedentRain(OfOne):
    """Antecedent precipitation index, mm: how wet the days before were."""

    of: str = _of("channel with the rain since the poll before, mm", '"n.rain"')
    keep_per_day: float = _key("share that is left after a day, 0.85 to 0.98", "0.9", 0.9)

    def problems(self) -> list[str]:
        fits = 0.0 < self.keep_per_day < 1.0
        return [] if fits else [f"keep_per_day {self.keep_per_day} must lie between 0 and 1"]

    def make(self) -> Deriver:
        return DecayingSum(self.keep_per_day)


@dataclass(frozen=True, slots=True)
class Rate(OfOne):
    """Rate of change per hour or day, by the robust trend."""

    of: str = _of("channel whose rate it is", '"n.g01.east"')
    per: Literal["h", "d"] = _key("per hour or per day", '"d"')
    noise: float = _key("standard deviation of one reading, in the unit of `of`", "2.0")
    q: float = _key(
        "how restless the rate itself is, unit^2/h^3: 1e-6 suits hourly GNSS in mm; larger follows faster "
        "and is noisier; set it for every other quantity",
        "1e-6",
        1e-6,
    )

    def problems(self) -> list[str]:
        named = {"noise": self.noise, "q": self.q}
        return [f"{name} {number} must be above 0" for name, number in named.items() if number <= 0]

    def make(self) -> Deriver:
        return RateDeriver(TrendState(self.noise, self.q), {"h": 1.0, "d": 24.0}[self.per])


@dataclass(frozen=True, slots=True)
class RainWindow(OfOne):
    """Sum over a trailing window of a channel of increments, such as rain per poll."""

    of: str = _of("channel with the rain since the poll before, mm", '"n.rain"')
    window_s: float = _key("length of the window", '"24 h"', key="window", parse="duration")

    def problems(self) -> list[str]:
        return [] if self.window_s > 0 else [f"window of {self.window_s} s must be above 0"]

    def make(self) -> Deriver:
        return WindowSum(round(self.window_s * 1e9))


@dataclass(frozen=True, slots=True)
class Horizontal:
    """Horizontal displacement: sqrt(east^2 + north^2)."""

    east: str = _key("channel with the displacement east", '"n.g01.east"')
    north: str = _key("channel with the displacement north, same unit", '"n.g01.north"')

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.east, self.north)

    def problems(self) -> list[str]:
        return []

    def make(self) -> Deriver:
        return Formula(lambda v: sqrt(v[0] * v[0] + v[1] * v[1]))


@dataclass(frozen=True, slots=True)
class Drawdown(OfOne):
    """How fast a pond is drawn down, m per day by the robust trend; below 0 it rises. GB 39496-2020 6.4.3."""

    of: str = _of("channel with the pond's level, m", '"n.pond.level"')
    noise: float = _key("standard deviation of one reading, m", "0.01")
    q: float = _key("how restless the rate itself is, m^2/h^3", "1e-6", 1e-6)

    def problems(self) -> list[str]:
        named = {"noise": self.noise, "q": self.q}
        return [f"{name} {number} must be above 0" for name, number in named.items() if number <= 0]

    def make(self) -> Deriver:
        return RateDeriver(TrendState(self.noise, self.q), -24.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """Displacement along one of the dam's own axes, for the section the channel belongs to.

    `toward` names the direction that counts as positive, so the sign stands in the site file and not in a
    convention: the one of other dams' standards (downstream, left bank, settlement) was not seen in print for
    tailings ponds. The left bank is on the left of who looks downstream; a ring dyke has none.
    """

    toward: Literal["downstream", "upstream", "left-bank", "right-bank", "settlement", "rise"] = _key(
        "positive direction; settlement and rise need `up`, the others `east` and `north`", '"downstream"'
    )
    east: str = _key("channel with the displacement east", '"n.g01.east"', "")
    north: str = _key("channel with the displacement north, same unit", '"n.g01.north"', "")
    up: str = _key("channel with the displacement up", '"n.g01.up"', "")
    downstream_azimuth_deg: float | None = _key(
        "where downstream lies, clockwise from north; absent: the section's", "105.0", None
    )

    @property
    def is_vertical(self) -> bool:
        return self.toward in ("settlement", "rise")

    @property
    def is_of_banks(self) -> bool:
        return self.toward in ("left-bank", "right-bank")

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.up,) if self.is_vertical else (self.east, self.north)

    def problems(self) -> list[str]:
        wanted = ("up",) if self.is_vertical else ("east", "north")
        found = [f"{name} is missing" for name in wanted if not getattr(self, name)]
        others = [name for name in ("east", "north", "up") if name not in wanted and getattr(self, name)]
        found += [f"{name} has no part in {self.toward}" for name in others]
        azimuth_deg = self.downstream_azimuth_deg
        if azimuth_deg is not None and not 0.0 <= azimuth_deg < FULL_CIRCLE_DEG:
            found.append(f"downstream_azimuth_deg {azimuth_deg} must lie within 0 and 360")
        return found

    def at(self, section_azimuth_deg: float | None) -> Axis:
        """With the section's azimuth, where it has none of its own."""
        own = self.downstream_azimuth_deg
        return self if own is not None else replace(self, downstream_azimuth_deg=section_azimuth_deg)

    def make(self) -> Deriver:
        if self.is_vertical:
            sign = -1.0 if self.toward == "settlement" else 1.0
            return Formula(lambda v: sign * v[0])
        assert self.downstream_azimuth_deg is not None, "the site check asks for the section's"
        turn_deg = {"downstream": 0.0, "upstream": 180.0, "left-bank": -90.0, "right-bank": 90.0}[self.toward]
        azimuth = radians(self.downstream_azimuth_deg + turn_deg)
        east, north = sin(azimuth), cos(azimuth)
        return Formula(lambda v: east * v[0] + north * v[1])


Derivation = (
    Linear
    | PiezometricElevation
    | BurialDepth
    | Freeboard
    | DryBeach
    | ProjectedFreeboard
    | ProjectedBeach
    | Drawdown
    | StandingWater
    | AntecedentRain
    | Rate
    | RainWindow
    | RainIntensity
    | RainUndercatch
    | RainGauge
    | Horizontal
    | Axis
)
KINDS: dict[str, type] = {
    "linear": Linear,
    "piezometric-elevation": PiezometricElevation,
    "burial-depth": BurialDepth,
    "freeboard": Freeboard,
    "dry-beach": DryBeach,
    "projected-freeboard": ProjectedFreeboard,
    "projected-beach": ProjectedBeach,
    "drawdown": Drawdown,
    "standing-water": StandingWater,
    "antecedent-rain": AntecedentRain,
    "rate": Rate,
    "rain-window": RainWindow,
    "rain-intensity": RainIntensity,
    "rain-undercatch": RainUndercatch,
    "rain-gauge": RainGauge,
    "horizontal": Horizontal,
    "axis": Axis,
}
