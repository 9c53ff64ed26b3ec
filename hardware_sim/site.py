"""The bench's dam as its instruments and calibration sheets know it: constants, in one file.

`bench.json` repeats them, and a site file for the bench copies them by hand, as one copies a calibration
sheet. The numbers are made up in the range of real sheets; the form of the reduction is Geokon's
(4500 manual, data reduction): P = G (R1 - R0) + K (T1 - T0) - (S1 - S0), digits R = f^2 / 1000, G negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GRAVITY_M_S2: Final = 9.80665
WATER_KG_M3: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Piezometer:
    """One vibrating-wire piezometer: where it sits, how the ground answers there, its sheet.

    `share` of the pond's rise reaches it in the end, along a linear reservoir of `lag_s`.
    """

    name: str
    distance_m: float  # from the pond's shore, along the section
    tip_elevation_m: float
    rest_elevation_m: float  # phreatic surface with the pond at rest
    share: float
    lag_s: float
    ground_celsius: float
    zero_digits: float
    zero_celsius: float
    zero_hpa: float
    kpa_per_digit: float
    kpa_per_celsius: float


PIEZOMETERS: Final = (
    Piezometer("PZ01", 12.0, 70.20, 82.60, 0.90, 240.0, 13.4, 9082.0, 22.0, 1008.2, -0.1795, 0.1319),
    Piezometer("PZ02", 34.0, 69.10, 80.90, 0.76, 480.0, 13.1, 8967.0, 21.6, 1009.4, -0.1741, 0.1204),
    Piezometer("PZ03", 61.0, 67.80, 78.70, 0.58, 960.0, 12.9, 9140.0, 22.3, 1007.8, -0.1823, 0.1377),
    Piezometer("PZ04", 95.0, 66.00, 75.80, 0.38, 1800.0, 12.8, 9011.0, 21.9, 1008.9, -0.1768, 0.1266),
)


@dataclass(frozen=True, slots=True)
class GnssOrigin:
    """Where the antenna stood before the dam moved (WGS 84); `height_m` is above the ellipsoid."""

    latitude_deg: float
    longitude_deg: float
    height_m: float
    geoid_separation_m: float

    @property
    def altitude_m(self) -> float:
        """Above mean sea level: what GGA sends in field 9, the separation being field 11."""
        return self.height_m - self.geoid_separation_m


GNSS_ORIGIN: Final = GnssOrigin(36.4561237, 115.9854413, 82.6215, -8.9030)
# From the base station's antenna to that of the receiver before the dam moved: east, north, up.
GNSS_FROM_BASE_M: Final = (-412.5031, 238.2517, -3.1042)

# The radar shows its process value in metres above this elevation, the bottom of its measuring range.
RADAR_ZERO_ELEVATION_M: Final = 75.0
RADAR_RANGE_M: Final = 20.0

RAIN_MM_PER_TIP: Final = 0.2794  # SEN0575: the library's default base value
