"""A GNSS receiver that writes NMEA 0183: a GGA and a GST sentence of the same instant, once per interval.

Fields as in NMEA 0183 v4.11 (GGA: utc, latitude, longitude, quality, satellites, HDOP, altitude, geoid
separation, age, station; GST: utc, rms, major, minor, orientation, sigma of latitude, longitude, altitude).
Minutes carry eight decimals: 1e-8 minute is 0.02 mm, where the usual four or five would swallow a dam's
movement. Altitudes carry 0.1 mm. Quality 4 is a fixed solution, 5 a float one with decimetres of noise, 1 one
without corrections and with metres of it.
"""

from __future__ import annotations

from math import cos, pi, radians, sin, sqrt
from typing import TYPE_CHECKING, Final

from hardware_sim.noise import gauss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hardware_sim.dam import Truth
    from hardware_sim.faults import Fault
    from hardware_sim.site import GnssOrigin

_A_M: Final = 6_378_137.0  # WGS 84
_E2: Final = (2.0 - 1.0 / 298.257223563) / 298.257223563
# Quality -> standard deviations as the receiver states them: east, north, up.
_SIGMA_M: Final = {4: (0.002, 0.002, 0.004), 5: (0.12, 0.15, 0.31), 1: (1.4, 1.7, 3.2)}
_FIXED: Final = 4
_ALONE: Final = 1
_QUALITY: Final = {"float": 5, "base_lost": _ALONE}


def sentence(body: str) -> bytes:
    """`$body*hh` and CR LF; hh is the exclusive or of the body's bytes."""
    check = 0
    for byte in body.encode("ascii"):
        check ^= byte
    return f"${body}*{check:02X}\r\n".encode("ascii")


def moved(origin: GnssOrigin, east_m: float, north_m: float) -> tuple[float, float]:
    """Latitude and longitude (deg) of a point some metres from the origin.

    By the radii of curvature at the origin; over ten metres that is right to a hundredth of a millimetre.
    """
    s2 = sin(radians(origin.latitude_deg)) ** 2
    across_m = _A_M / sqrt(1.0 - _E2 * s2)
    along_m = across_m * (1.0 - _E2) / (1.0 - _E2 * s2)
    north_rad = north_m / (along_m + origin.height_m)
    east_rad = east_m / ((across_m + origin.height_m) * cos(radians(origin.latitude_deg)))
    return origin.latitude_deg + north_rad * 180.0 / pi, origin.longitude_deg + east_rad * 180.0 / pi


def _degrees_minutes(degrees: float, width: int) -> str:
    whole = int(abs(degrees))
    minutes = f"{(abs(degrees) - whole) * 60.0:011.8f}"
    if minutes == "60.00000000":
        whole, minutes = whole + 1, "00.00000000"
    return f"{whole:0{width}d}{minutes}"


class GnssReceiver:
    """Makes the sentences of one instant; `fault` is one of `faults.OF_GNSS`, or None."""

    def __init__(self, origin: GnssOrigin, seed: int) -> None:
        self._origin = origin
        self._seed = seed
        self._before = b""
        self.fault: Fault | None = None

    def epoch(self, utc_s: float, truth: Truth) -> bytes:
        """What goes out for the instant `utc_s` (seconds since 1970); nothing if it sees no satellites."""
        kind = self.fault.kind if self.fault is not None else ""
        if kind in {"no_lines", "cut"}:
            return b""
        now = self._sentences(utc_s, truth, _QUALITY.get(kind, _FIXED))
        before, self._before = self._before, now
        return now + before if kind == "out_of_order" else now

    def _sentences(self, utc_s: float, truth: Truth, quality: int) -> bytes:
        sigma_m = _SIGMA_M[quality]
        enu_m = [m + n for m, n in zip(truth.displacement_m, truth.gnss_noise_m, strict=True)]
        if quality != _FIXED:
            noise = [gauss(self._seed, 101 + axis, int(truth.t_s)) for axis in range(3)]
            enu_m = [m + sigma * n for m, sigma, n in zip(enu_m, sigma_m, noise, strict=True)]
        if self.fault is not None and self.fault.kind == "base_moved":
            enu_m[0] -= self.fault.number / 1000.0  # the base says it stands where it stood
        hundredths = round(utc_s * 100) % 8_640_000
        utc = f"{hundredths // 360_000:02d}{hundredths // 6_000 % 60:02d}{hundredths % 6_000 / 100:05.2f}"
        return self._gga(utc, enu_m, quality) + sentence(
            f"GNGST,{utc},{1.5 * max(sigma_m):.4f},{max(sigma_m[:2]):.4f},{min(sigma_m[:2]):.4f},0.0,"
            f"{sigma_m[1]:.4f},{sigma_m[0]:.4f},{sigma_m[2]:.4f}"
        )

    def _gga(self, utc: str, enu_m: Sequence[float], quality: int) -> bytes:
        east_m, north_m, up_m = enu_m
        latitude, longitude = moved(self._origin, east_m, north_m)
        age, station = ("", "") if quality == _ALONE else ("1.0", "0001")
        return sentence(
            f"GNGGA,{utc},"
            f"{_degrees_minutes(latitude, 2)},{'N' if latitude >= 0 else 'S'},"
            f"{_degrees_minutes(longitude, 3)},{'E' if longitude >= 0 else 'W'},"
            f"{quality},24,0.6,{self._origin.altitude_m + up_m:.4f},M,"
            f"{self._origin.geoid_separation_m:.4f},M,{age},{station}"
        )
