"""Quantities computed from other channels: elevations, depths, freeboard, beach, rates, rain sums.

A settings class says what the site file may write, which channels it reads (`inputs`), what is wrong with
the numbers (`problems()`), and makes the `Deriver` that computes. A missing input (NaN) gives a missing
result; a dry tip gives `BELOW_TIP`, which is no number anybody may use.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf, isfinite, nan, sqrt
from typing import TYPE_CHECKING, Any, Literal, Protocol

from edge_rules.law.trend import TrendState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STANDARD_GRAVITY = 9.80665  # m/s^2, CGPM 1901
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


Derivation = (
    Linear | PiezometricElevation | BurialDepth | Freeboard | DryBeach | Rate | RainWindow | Horizontal
)
KINDS: dict[str, type] = {
    "linear": Linear,
    "piezometric-elevation": PiezometricElevation,
    "burial-depth": BurialDepth,
    "freeboard": Freeboard,
    "dry-beach": DryBeach,
    "rate": Rate,
    "rain-window": RainWindow,
    "horizontal": Horizontal,
}
