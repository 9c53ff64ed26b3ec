"""The fixed origin of a displacement point, and where the antenna stands seen from it.

Geodetic to earth-centred coordinates on the WGS 84 ellipsoid, then turned into the origin's horizon:
east, north, up. The origin never moves by itself; it is a setting, taken at commissioning.
Source: NGA.STND.0036 (WGS 84), a = 6378137 m, 1/f = 298.257223563; GNSS textbooks for the rotation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import cos, isfinite, radians, sin, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_A_M = 6_378_137.0
_F = 1.0 / 298.257223563
_E2 = _F * (2.0 - _F)


@dataclass(frozen=True, slots=True)
class Baseline:
    """The origin: nine decimals of a degree are 0.1 mm, so give all the digits there are."""

    latitude_deg: float = field(
        metadata={"doc": "latitude of the origin, north positive", "example": "36.123456789"}
    )
    longitude_deg: float = field(
        metadata={"doc": "longitude of the origin, east positive", "example": "115.987654321"}
    )
    height_m: float = field(
        metadata={"doc": "height of the origin above the ellipsoid", "example": "84.1234"}
    )

    def displacement(self) -> Callable[[float, float, float], tuple[float, float, float]]:
        """A function from (latitude_deg, longitude_deg, height_m) to (east, north, up) in millimetres."""
        x0, y0, z0 = ecef_m(self.latitude_deg, self.longitude_deg, self.height_m)
        phi, lam = radians(self.latitude_deg), radians(self.longitude_deg)
        sin_phi, cos_phi, sin_lam, cos_lam = sin(phi), cos(phi), sin(lam), cos(lam)

        def enu_mm(latitude_deg: float, longitude_deg: float, height_m: float) -> tuple[float, float, float]:
            x, y, z = ecef_m(latitude_deg, longitude_deg, height_m)
            dx, dy, dz = x - x0, y - y0, z - z0
            outward = cos_lam * dx + sin_lam * dy
            east = cos_lam * dy - sin_lam * dx
            north = cos_phi * dz - sin_phi * outward
            up = cos_phi * outward + sin_phi * dz
            return 1000.0 * east, 1000.0 * north, 1000.0 * up

        return enu_mm


def mistakes(baseline: Baseline) -> list[tuple[str, str]]:
    """(key, remedy) of each coordinate that lies nowhere on earth."""
    limits = (("latitude_deg", 90.0), ("longitude_deg", 180.0), ("height_m", 9000.0))
    found = []
    for key, limit in limits:
        value = getattr(baseline, key)
        if not (isfinite(value) and abs(value) <= limit):
            found.append((key, f"is {value}; it must lie within -{limit:g} .. {limit:g}"))
    return found


def ecef_m(latitude_deg: float, longitude_deg: float, height_m: float) -> tuple[float, float, float]:
    """Earth-centred, earth-fixed x, y, z in metres."""
    phi, lam = radians(latitude_deg), radians(longitude_deg)
    sin_phi, cos_phi = sin(phi), cos(phi)
    normal_m = _A_M / sqrt(1.0 - _E2 * sin_phi * sin_phi)
    from_axis_m = (normal_m + height_m) * cos_phi
    return from_axis_m * cos(lam), from_axis_m * sin(lam), (normal_m * (1.0 - _E2) + height_m) * sin_phi
