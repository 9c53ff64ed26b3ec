"""A GNSS receiver on the crest: one solution an instant, said in one of several languages.

The languages are functions: `gnss_nmea.sentences`, `gnss_binary.relposned`, `gnss_binary.basevectorgeod`.
A fixed solution has millimetres of noise, a float one decimetres, one without corrections metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from hardware_sim.noise import gauss
from hardware_sim.site import GnssOrigin

if TYPE_CHECKING:
    from hardware_sim.dam import Truth
    from hardware_sim.faults import Fault


class Quality(Enum):
    """What kind of solution; its value: standard deviations as the receiver states them, east, north, up."""

    FIXED = (0.002, 0.002, 0.004)
    FLOAT = (0.12, 0.15, 0.31)
    ALONE = (1.4, 1.7, 3.2)


_SUFFERS: Final = {"float": Quality.FLOAT, "base_lost": Quality.ALONE}


@dataclass(frozen=True, slots=True)
class Solution:
    """Where the antenna is, seen from where it stood before the dam moved (east, north, up)."""

    utc_s: float
    enu_m: tuple[float, float, float]
    quality: Quality

    @property
    def sigma_m(self) -> tuple[float, float, float]:
        return self.quality.value


Language = Callable[[GnssOrigin, Solution], bytes]


class GnssReceiver:
    """Makes what goes out for one instant; `fault` is one of `faults.OF_GNSS`, or None."""

    def __init__(self, origin: GnssOrigin, seed: int, language: Language) -> None:
        self._origin = origin
        self._seed = seed
        self._language = language
        self._before = b""
        self.fault: Fault | None = None

    def epoch(self, utc_s: float, truth: Truth) -> bytes:
        """What goes out for the instant `utc_s` (seconds since 1970); nothing if it sees no satellites."""
        kind = self.fault.kind if self.fault is not None else ""
        if kind in {"no_lines", "cut"}:
            return b""
        now = self._language(self._origin, self._solution(utc_s, truth, _SUFFERS.get(kind, Quality.FIXED)))
        before, self._before = self._before, now
        return now + before if kind == "out_of_order" else now

    def _solution(self, utc_s: float, truth: Truth, quality: Quality) -> Solution:
        east, north, up = (m + n for m, n in zip(truth.displacement_m, truth.gnss_noise_m, strict=True))
        if quality is not Quality.FIXED:
            noise = (gauss(self._seed, 101 + axis, int(truth.t_s)) for axis in range(3))
            east, north, up = (
                m + sigma * n for m, sigma, n in zip((east, north, up), quality.value, noise, strict=True)
            )
        if self.fault is not None and self.fault.kind == "base_moved":
            east -= self.fault.number / 1000.0  # the base says it stands where it stood
        return Solution(utc_s, (east, north, up), quality)
