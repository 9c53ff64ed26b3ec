"""A GNSS receiver that writes NMEA 0183: a GGA and a GST sentence of the same instant, once per interval.

Fields as in NMEA 0183 v4.11 (GGA: utc, latitude, longitude, quality, satellites, HDOP, altitude, geoid
separation, age, station; GST: utc, rms, major, minor, orientation, sigma of latitude, longitude, altitude).
Minutes carry eight decimals: 1e-8 minute is 0.02 mm, where the usual four or five would swallow a dam's
movement. Altitudes carry 0.1 mm. Quality 4 is a fixed solution, 5 a float one, with decimetres of noise.
"""

from __future__ import annotations

from math import cos, pi, radians, sin, sqrt
from typing import TYPE_CHECKING, Final

from hardware_sim.noise import gauss

if TYPE_CHECKING:
    from hardware_sim.dam import Truth
    from hardware_sim.site import GnssOrigin

_A_M: Final = 6_378_137.0  # WGS 84
_E2: Final = (2.0 - 1.0 / 298.257223563) / 298.257223563
_FLOAT_SIGMA_M: Final = (0.12, 0.15, 0.31)
_FIXED_SIGMA_M: Final = (0.002, 0.002, 0.004)  # as the receiver states them: east, north, up


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
    """Makes the sentences of one instant; `fault` is "", "float" or "no_lines"."""

    def __init__(self, origin: GnssOrigin, seed: int) -> None:
        self._origin = origin
        self._seed = seed
        self.fault = ""

    def epoch(self, utc_s: float, truth: Truth) -> bytes:
        """What goes out for the instant `utc_s` (seconds since 1970); nothing if it sees no satellites."""
        if self.fault == "no_lines":
            return b""
        floating = self.fault == "float"
        sigma_m = _FLOAT_SIGMA_M if floating else _FIXED_SIGMA_M
        east_m, north_m, up_m = (m + n for m, n in zip(truth.displacement_m, truth.gnss_noise_m, strict=True))
        if floating:
            tick = int(truth.t_s)
            east_m += _FLOAT_SIGMA_M[0] * gauss(self._seed, 101, tick)
            north_m += _FLOAT_SIGMA_M[1] * gauss(self._seed, 102, tick)
            up_m += _FLOAT_SIGMA_M[2] * gauss(self._seed, 103, tick)
        hundredths = round(utc_s * 100) % 8_640_000
        utc = f"{hundredths // 360_000:02d}{hundredths // 6_000 % 60:02d}{hundredths % 6_000 / 100:05.2f}"
        return self._gga(utc, east_m, north_m, up_m, floating=floating) + sentence(
            f"GNGST,{utc},{1.5 * max(sigma_m):.4f},{max(sigma_m[:2]):.4f},{min(sigma_m[:2]):.4f},0.0,"
            f"{sigma_m[1]:.4f},{sigma_m[0]:.4f},{sigma_m[2]:.4f}"
        )

    def _gga(self, utc: str, east_m: float, north_m: float, up_m: float, *, floating: bool) -> bytes:
        latitude, longitude = moved(self._origin, east_m, north_m)
        return sentence(
            f"GNGGA,{utc},"
            f"{_degrees_minutes(latitude, 2)},{'N' if latitude >= 0 else 'S'},"
            f"{_degrees_minutes(longitude, 3)},{'E' if longitude >= 0 else 'W'},"
            f"{5 if floating else 4},24,0.6,{self._origin.altitude_m + up_m:.4f},M,"
            f"{self._origin.geoid_separation_m:.4f},M,1.0,0001"
        )
