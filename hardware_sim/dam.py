r"""A small physics of one tailings dam, in SI units.

    rain -> runoff store -> pond (decant weir) -> phreatic surface -> pore pressure at the tips
                                                          \-> creep of the crest -> GNSS

It is coarse, and quick on purpose: a steep catchment of 45 ha drains within minutes into a pond of
0.2 ha, and the ground is so open that the nearest piezometer follows the pond within minutes. A real
dam takes hours to months for what this one does in half an hour; a bench must show it in a minute.

* Runoff: a share of the rain runs off through a linear reservoir, the rest is lost to the ground.
* Pond: vertical banks; water leaves over the decant tower's weir, Q = C L h^1.5. Before the rain the
  slurry's water and the weir balance, so a calm pond stays where it is.
* Phreatic surface: per piezometer a linear reservoir, dz/dt = (rest + share x rise of pond - z) / lag;
  shares fall and lags grow with the distance from the pond.
* Pore pressure: hydrostatic below the phreatic surface, never below zero.
* Creep: the crest moves downslope at v0 exp(mean phreatic rise / h0), bounded; a scenario may add an
  acceleration to failure (`Failure`).
* Outflow: what a scenario takes out of the pond, as far as there is water.
* Air: daily cycles of temperature (cooled by rain) and pressure (twice a day, and a slow swing).

Integration is explicit Euler with a fixed step of one second, so the same seed and the same rain give the
same numbers however often the dam is asked; the slow part of the receiver's noise moves every half minute.
A day (86,400 steps) takes a fifth of a second; days without rain, when all is at rest, are taken at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, exp, floor, pi, radians, sin
from typing import TYPE_CHECKING, Final

from hardware_sim.noise import gauss
from hardware_sim.site import GRAVITY_M_S2, PIEZOMETERS, WATER_KG_M3

if TYPE_CHECKING:
    from collections.abc import Callable

STEP_S: Final = 1.0
_DAY_S: Final = 86_400.0

CATCHMENT_M2: Final = 450_000.0
RUNOFF_SHARE: Final = 0.7
RUNOFF_LAG_S: Final = 120.0
POND_M2: Final = 2_200.0
_STILL_M: Final = 1e-5  # water so near its rest is at rest
SILL_ELEVATION_M: Final = 84.0
POND_BOTTOM_M: Final = 76.0
WEIR_M05_S: Final = 0.9  # C L of the decant's weir, m^0.5/s x m
SLURRY_M3_S: Final = 0.02

_CREEP_AT_REST_M_S: Final = 0.2e-3 / _DAY_S  # 0.2 mm a day
_CREEP_FOLDING_M: Final = 0.25  # a mean rise by this much makes it e times as fast
_CREEP_LIMIT_M_S: Final = 1.0 / _DAY_S
_DOWNSLOPE_AZIMUTH: Final = radians(195.0)
_SETTLEMENT_SHARE: Final = 0.4

_GNSS_WHITE_M: Final = (0.0012, 0.0012, 0.0026)  # east, north, up: RTK fixed, short base line
_GNSS_SLOW_M: Final = (0.0008, 0.0008, 0.0016)  # multipath, correlated over ten minutes
_GNSS_SLOW_S: Final = 600.0
_GNSS_SLOW_TICKS: Final = 30  # it moves that seldom: by less than the white noise hides
_GNSS_KEPT: Final = exp(-_GNSS_SLOW_TICKS * STEP_S / _GNSS_SLOW_S)
_GNSS_KICK: Final = (1.0 - _GNSS_KEPT * _GNSS_KEPT) ** 0.5

# Each linear reservoir in one step: what it keeps, what its rest adds, what a metre of the pond adds.
_RESERVOIRS: Final = tuple(
    (1.0 - STEP_S / p.lag_s, p.rest_elevation_m * STEP_S / p.lag_s, p.share * STEP_S / p.lag_s)
    for p in PIEZOMETERS
)
_MEAN_REST_M: Final = sum(p.rest_elevation_m for p in PIEZOMETERS) / len(PIEZOMETERS)


@dataclass(frozen=True, slots=True)
class Course:
    """What happens to the dam, as functions of the seconds since it took this course."""

    rain_mm_per_h: Callable[[float], float]
    dry_until_s: Callable[[float], float] | None = (
        None  # from then to there it does not rain, where that is known
    )
    outflow_m3_s: Callable[[float], float] | None = None
    sliding_m_s: Callable[[float], float] | None = None  # of the crest, downslope, beside the creep
    air_celsius: float = 14.0  # mean of the day


@dataclass(frozen=True, slots=True)
class Truth:
    """The dam at one instant; tuples follow `site.PIEZOMETERS`, or are east, north, up."""

    t_s: float
    rain_mm_per_h: float
    rain_mm: float  # since the start
    pond_m: float
    phreatic_m: tuple[float, ...]
    pore_kpa: tuple[float, ...]
    ground_celsius: tuple[float, ...]
    air_celsius: float
    humidity_percent: float
    pressure_hpa: float
    displacement_m: tuple[float, float, float]
    gnss_noise_m: tuple[float, float, float]


@dataclass(slots=True)
class Ledger:
    """Where the water went, in m3 since the start: what comes in is stored, or has left."""

    rained: float = 0.0
    slurry: float = 0.0
    infiltrated: float = 0.0
    decanted: float = 0.0
    taken: float = 0.0


def pond_at_rest_m() -> float:
    """The level at which the weir passes just what the slurry brings."""
    return SILL_ELEVATION_M + float((SLURRY_M3_S / WEIR_M05_S) ** (2.0 / 3.0))


_POND_AT_REST_M: Final = pond_at_rest_m()


class Dam:
    """The state of the dam, stepped forward on demand.

    Args:
        rain_mm_per_h: rain intensity as a function of seconds since the start.
        seed: of everything random.
        day_s: seconds since midnight UTC at the start, the phase of the daily cycles.
    """

    def __init__(self, rain_mm_per_h: Callable[[float], float], seed: int, day_s: float = 0.0) -> None:
        self._course = Course(rain_mm_per_h)
        self._course_began_s = 0.0
        self._seed = seed
        self._day_s = day_s
        self._tick = 0
        self._rain_mm_per_h = 0.0
        self._rain_mm = 0.0
        self._wet = 0.0  # 0 dry .. 1 soaked air, follows the rain within minutes
        self.runoff_m3 = 0.0
        self.pond_m3 = (pond_at_rest_m() - POND_BOTTOM_M) * POND_M2
        self._phreatic_m = [p.rest_elevation_m for p in PIEZOMETERS]
        self._creep_m = 0.0
        self._slow_m = [0.0, 0.0, 0.0]
        self._rested: tuple[int, float, float, float] | None = (
            None  # when it began: tick, creep, slurry, decanted
        )
        self.ledger = Ledger()

    def follow(self, course: Course) -> None:
        """From its present state on the dam takes another course."""
        self._course = course
        self._course_began_s = self._tick * STEP_S
        self._rested = None

    def at(self, t_s: float) -> Truth:
        """The dam `t_s` seconds after its start, on the last whole step; it never goes back."""
        last = floor(t_s / STEP_S)
        while self._tick < last:
            to = floor(min(last, self._rests_until()))
            if to > self._tick:
                self._rest(to)
            else:
                self._step()
        return self._truth()

    def _rests_until(self) -> float:
        """The tick up to which no water moves: no rain, and everything within `_STILL_M` of its rest."""
        course = self._course
        if course.dry_until_s is None or course.outflow_m3_s or course.sliding_m_s:
            return 0.0
        if (
            self.runoff_m3 > _STILL_M
            or self._wet > _STILL_M
            or abs(self.pond_level_m - _POND_AT_REST_M) > _STILL_M
        ):
            return 0.0
        if any(
            abs(z - p.rest_elevation_m) > _STILL_M for z, p in zip(self._phreatic_m, PIEZOMETERS, strict=True)
        ):
            return 0.0
        return (
            course.dry_until_s(self._tick * STEP_S - self._course_began_s) + self._course_began_s
        ) / STEP_S

    def _rest(self, to: int) -> None:
        """What goes on all the same: creep, slurry over the weir, multipath.

        Counted from when the rest began, so that it does not matter in how many parts it is taken.
        """
        if self._rested is None:
            self._rested = (self._tick, self._creep_m, self.ledger.slurry, self.ledger.decanted)
        began, creep_m, slurry_m3, decanted_m3 = self._rested
        for tick in range((self._tick // _GNSS_SLOW_TICKS + 1) * _GNSS_SLOW_TICKS, to + 1, _GNSS_SLOW_TICKS):
            self._tick = tick
            self._move_multipath()
        self._tick = to
        self._rain_mm_per_h = 0.0
        rested_s = (to - began) * STEP_S
        self._creep_m = creep_m + _CREEP_AT_REST_M_S * rested_s
        self.ledger.slurry = slurry_m3 + SLURRY_M3_S * rested_s
        self.ledger.decanted = decanted_m3 + SLURRY_M3_S * rested_s

    @property
    def pond_level_m(self) -> float:
        return POND_BOTTOM_M + self.pond_m3 / POND_M2

    def _step(self) -> None:
        course = self._course
        course_s = self._tick * STEP_S - self._course_began_s
        self._rested = None
        self._tick += 1
        rain = self._rain_mm_per_h = course.rain_mm_per_h(course_s)
        if rain:
            self._rain_mm += rain * STEP_S / 3600.0
        self._wet += (min(1.0, rain / 10.0) - self._wet) * STEP_S / 900.0
        self._move_water(rain / 3.6e6 * STEP_S)
        if course.outflow_m3_s is not None:
            self._take_water(course.outflow_m3_s(course_s) * STEP_S)
        self._move_phreatic_surface()
        self._move_crest(course.sliding_m_s(course_s) if course.sliding_m_s is not None else 0.0)
        if self._tick % _GNSS_SLOW_TICKS == 0:
            self._move_multipath()

    def _move_water(self, rain_m: float) -> None:
        ledger = self.ledger
        released = self.runoff_m3 * STEP_S / RUNOFF_LAG_S
        over_sill_m = max(0.0, self.pond_level_m - SILL_ELEVATION_M)
        decanted = min(WEIR_M05_S * over_sill_m**1.5 * STEP_S, over_sill_m * POND_M2)
        self.runoff_m3 -= released
        self.pond_m3 += released + SLURRY_M3_S * STEP_S - decanted
        ledger.slurry += SLURRY_M3_S * STEP_S
        ledger.decanted += decanted
        if rain_m:
            self.runoff_m3 += rain_m * CATCHMENT_M2 * RUNOFF_SHARE
            self.pond_m3 += rain_m * POND_M2
            ledger.rained += rain_m * (CATCHMENT_M2 + POND_M2)
            ledger.infiltrated += rain_m * CATCHMENT_M2 * (1.0 - RUNOFF_SHARE)

    def _take_water(self, wanted_m3: float) -> None:
        taken = min(wanted_m3, self.pond_m3)
        self.pond_m3 -= taken
        self.ledger.taken += taken

    def _move_phreatic_surface(self) -> None:
        rise_m = self.pond_level_m - _POND_AT_REST_M
        self._phreatic_m = [
            z * kept + rest_m + share * rise_m
            for z, (kept, rest_m, share) in zip(self._phreatic_m, _RESERVOIRS, strict=True)
        ]

    def _move_crest(self, sliding_m_s: float) -> None:
        mean_rise_m = sum(self._phreatic_m) / len(self._phreatic_m) - _MEAN_REST_M
        speed = min(_CREEP_LIMIT_M_S, _CREEP_AT_REST_M_S * exp(min(50.0, mean_rise_m / _CREEP_FOLDING_M)))
        self._creep_m += (speed + sliding_m_s) * STEP_S

    def _move_multipath(self) -> None:
        for axis, sigma_m in enumerate(_GNSS_SLOW_M):
            kick = _GNSS_KICK * sigma_m * gauss(self._seed, axis, self._tick)
            self._slow_m[axis] = _GNSS_KEPT * self._slow_m[axis] + kick

    def _truth(self) -> Truth:
        t_s = self._tick * STEP_S
        day = 2.0 * pi * (self._day_s + t_s) / _DAY_S
        weight_kpa_m = WATER_KG_M3 * GRAVITY_M_S2 / 1000.0
        east, north = (
            self._creep_m * sin(_DOWNSLOPE_AZIMUTH),
            self._creep_m * cos(_DOWNSLOPE_AZIMUTH),
        )
        noise = [
            slow + white * gauss(self._seed, 3 + axis, self._tick)
            for axis, (slow, white) in enumerate(zip(self._slow_m, _GNSS_WHITE_M, strict=True))
        ]
        return Truth(
            t_s=t_s,
            rain_mm_per_h=self._rain_mm_per_h,
            rain_mm=self._rain_mm,
            pond_m=self.pond_level_m,
            phreatic_m=tuple(self._phreatic_m),
            pore_kpa=tuple(
                max(0.0, (z - p.tip_elevation_m) * weight_kpa_m)
                for z, p in zip(self._phreatic_m, PIEZOMETERS, strict=True)
            ),
            ground_celsius=tuple(p.ground_celsius for p in PIEZOMETERS),
            air_celsius=self._course.air_celsius - 5.5 * cos(day - pi / 6.0) - 3.0 * self._wet,
            humidity_percent=62.0 + 12.0 * cos(day - pi / 6.0) + 22.0 * self._wet,
            pressure_hpa=1006.0
            + 1.1 * sin(2.0 * day + 1.0)
            + 3.5 * sin(day / 5.0)
            + 0.02 * gauss(self._seed, 6, self._tick),
            displacement_m=(east, north, -_SETTLEMENT_SHARE * self._creep_m),
            gnss_noise_m=(noise[0], noise[1], noise[2]),
        )
