"""A GNSS receiver's NMEA 0183: a GGA and a GST sentence of the same instant.

Fields as in NMEA 0183 v4.11 (GGA: utc, latitude, longitude, quality, satellites, HDOP, altitude, geoid
separation, age, station; GST: utc, rms, major, minor, orientation, sigma of latitude, longitude, altitude).
Minutes carry eight decimals: 1e-8 minute is 0.02 mm, where the usual four or five would swallow a dam's
movement. Altitudes carry 0.1 mm. Quality 4 is a fixed solution, 5 a float one, 1 one without corrections.
"""

from __future__ import annotations

from math import cos, pi, radians, sin, sqrt
from typing import TYPE_CHECKING, Final

from hardware_sim.instruments.gnss import Quality

if TYPE_CHECKING:
    from hardware_sim.instruments.gnss import Solution
    from hardware_sim.site import GnssOrigin

_A_M: Final = 6_378_137.0  # WGS 84
_E2: Final = (2.0 - 1.0 / 298.257223563) / 298.257223563
_CODES: Final = {Quality.FIXED: 4, Quality.FLOAT: 5, Quality.ALONE: 1}


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


def sentences(origin: GnssOrigin, solution: Solution) -> bytes:
    """GGA, then GST."""
    sigma_m = solution.sigma_m
    hundredths = round(solution.utc_s * 100) % 8_640_000
    utc = f"{hundredths // 360_000:02d}{hundredths // 6_000 % 60:02d}{hundredths % 6_000 / 100:05.2f}"
    return _gga(origin, utc, solution) + sentence(
        f"GNGST,{utc},{1.5 * max(sigma_m):.4f},{max(sigma_m[:2]):.4f},{min(sigma_m[:2]):.4f},0.0,"
        f"{sigma_m[1]:.4f},{sigma_m[0]:.4f},{sigma_m[2]:.4f}"
    )


def _gga(origin: GnssOrigin, utc: str, solution: Solution) -> bytes:
    east_m, north_m, up_m = solution.enu_m
    latitude, longitude = moved(origin, east_m, north_m)
    age, station = ("", "") if solution.quality is Quality.ALONE else ("1.0", "0001")
    return sentence(
        f"GNGGA,{utc},"
        f"{_degrees_minutes(latitude, 2)},{'N' if latitude >= 0 else 'S'},"
        f"{_degrees_minutes(longitude, 3)},{'E' if longitude >= 0 else 'W'},"
        f"{_CODES[solution.quality]},24,0.6,{origin.altitude_m + up_m:.4f},M,"
        f"{origin.geoid_separation_m:.4f},M,{age},{station}"
    )
