"""The fixed origin of a displacement point, and where the antenna stands seen from it.

`Baseline` for receivers that tell latitude, longitude and height: geodetic to earth-centred coordinates on
the WGS 84 ellipsoid, then turned into the origin's horizon, east, north, up. `Reference` for those that tell
a vector from their base station, or grid coordinates. Neither ever moves by itself; it is a setting, taken
at commissioning.
Source: NGA.STND.0036 (WGS 84), a = 6378137 m, 1/f = 298.257223563; GNSS textbooks for the rotation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import atan2, cos, degrees, hypot, isfinite, radians, sin, sqrt
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
        (e0, e1, _), (n0, n1, n2), (u0, u1, u2) = horizon(self.latitude_deg, self.longitude_deg)

        def enu_mm(latitude_deg: float, longitude_deg: float, height_m: float) -> tuple[float, float, float]:
            x, y, z = ecef_m(latitude_deg, longitude_deg, height_m)
            dx, dy, dz = x - x0, y - y0, z - z0
            east = e0 * dx + e1 * dy
            north = n0 * dx + n1 * dy + n2 * dz
            up = u0 * dx + u1 * dy + u2 * dz
            return 1000.0 * east, 1000.0 * north, 1000.0 * up

        return enu_mm


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the point stood at commissioning, as its receiver tells it; millimetres need four decimals."""

    east_m: float = field(
        metadata={"doc": "east of the base station, or grid easting", "example": "-5654.4012"}
    )
    north_m: float = field(
        metadata={"doc": "north of the base station, or grid northing", "example": "12167.7631"}
    )
    up_m: float = field(metadata={"doc": "above the base station, or height", "example": "-42.3190"})

    def displacement(self) -> Callable[[float, float, float], tuple[float, float, float]]:
        """A function from (east_m, north_m, up_m) to (east, north, up) moved since, in millimetres."""

        def enu_mm(east_m: float, north_m: float, up_m: float) -> tuple[float, float, float]:
            return (
                1000.0 * (east_m - self.east_m),
                1000.0 * (north_m - self.north_m),
                1000.0 * (up_m - self.up_m),
            )

        return enu_mm


_LIMITS: dict[type, tuple[tuple[str, float], ...]] = {
    Baseline: (("latitude_deg", 90.0), ("longitude_deg", 180.0), ("height_m", 9000.0)),
    Reference: (("east_m", 1e8), ("north_m", 1e8), ("up_m", 9000.0)),
}


def mistakes(origin: Baseline | Reference) -> list[tuple[str, str]]:
    """(key, remedy) of each coordinate that lies nowhere on earth."""
    limits = _LIMITS[type(origin)]
    found = []
    for key, limit in limits:
        value = getattr(origin, key)
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


Axis = tuple[float, float, float]


def horizon(latitude_deg: float, longitude_deg: float) -> tuple[Axis, Axis, Axis]:
    """The directions east, north and up of a place, in earth-centred coordinates."""
    phi, lam = radians(latitude_deg), radians(longitude_deg)
    sin_phi, cos_phi, sin_lam, cos_lam = sin(phi), cos(phi), sin(lam), cos(lam)
    return (
        (-sin_lam, cos_lam, 0.0),
        (-sin_phi * cos_lam, -sin_phi * sin_lam, cos_phi),
        (cos_phi * cos_lam, cos_phi * sin_lam, sin_phi),
    )


def geodetic(x_m: float, y_m: float, z_m: float) -> tuple[float, float, float]:
    """Latitude and longitude in degrees and ellipsoidal height in metres, from earth-centred coordinates.

    Bowring 1976, repeated: near the earth's surface two rounds are exact to a micrometre; four are made.
    """
    axis_m = hypot(x_m, y_m)
    b_m = _A_M * (1.0 - _F)
    beta = atan2(_A_M * z_m, b_m * axis_m)
    phi = 0.0
    for _ in range(4):
        phi = atan2(
            z_m + _E2 / (1.0 - _E2) * b_m * sin(beta) ** 3,
            axis_m - _E2 * _A_M * cos(beta) ** 3,
        )
        beta = atan2((1.0 - _F) * sin(phi), cos(phi))
    normal_m = _A_M / sqrt(1.0 - _E2 * sin(phi) ** 2)
    # good at the poles too, where axis / cos(phi) is not
    height_m = axis_m * cos(phi) + z_m * sin(phi) - normal_m * (1.0 - _E2 * sin(phi) ** 2)
    return degrees(phi), degrees(atan2(y_m, x_m)), height_m
