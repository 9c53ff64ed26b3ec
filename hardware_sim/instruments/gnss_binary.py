"""A GNSS receiver's binary languages: u-blox UBX and Septentrio SBF, both the vector from the base station.

UBX: little-endian, `B5 62`, class, id, length, payload, two check bytes (Fletcher over class to payload);
NAV-RELPOSNED version 1 and NAV-PVT, which tells the date (u-blox F9 HPG 1.13 interface description).
SBF: `$@`, CRC-16 (polynomial 0x1021, begun with 0, over what follows it), number, length, body in multiples
of four; block BaseVectorGeod (Septentrio SBF reference guide). GPS time is ahead of UTC by the leap seconds
since 1980.
"""

from __future__ import annotations

import struct
import time
from binascii import crc_hqx
from math import atan2, degrees, hypot
from typing import TYPE_CHECKING, Final

from hardware_sim.instruments.gnss import Quality
from hardware_sim.instruments.gnss_nmea import moved
from hardware_sim.site import GNSS_FROM_BASE_M

if TYPE_CHECKING:
    from hardware_sim.instruments.gnss import Solution
    from hardware_sim.site import GnssOrigin

STATION: Final = 117  # the base station's number
_LEAP_S: Final = 18  # since 2017-01-01, IERS bulletin C
_GPS_BEGAN_S: Final = 315_964_800  # 1980-01-06
_WEEK_S: Final = 604_800
_SATELLITES: Final = 24

_RELPOSNED: Final = (0x01, 0x3C)
_PVT: Final = (0x01, 0x07)
# fix, corrections and vector hold, and carrSoln in bits 3 and 4
_UBX_FLAGS: Final = {Quality.FIXED: 0b1_0111, Quality.FLOAT: 0b0_1111, Quality.ALONE: 0b0_0001}
_BASE_VECTOR_GEOD: Final = 4028
_SBF_MODES: Final = {Quality.FIXED: 4, Quality.FLOAT: 5}


def ubx(kind: tuple[int, int], payload: bytes) -> bytes:
    """One UBX frame."""
    body = bytes(kind) + struct.pack("<H", len(payload)) + payload
    a = b = 0
    for byte in body:
        a = (a + byte) & 0xFF
        b = (b + a) & 0xFF
    return b"\xb5\x62" + body + bytes((a, b))


def sbf(number: int, body: bytes) -> bytes:
    """One SBF block; the body is filled up to a multiple of four."""
    body += bytes(-len(body) % 4)
    checked = struct.pack("<HH", number, 8 + len(body)) + body
    return b"$@" + struct.pack("<H", crc_hqx(checked, 0)) + checked


def relposned(origin: GnssOrigin, solution: Solution) -> bytes:
    """NAV-PVT, then NAV-RELPOSNED of the same instant."""
    return ubx(_PVT, _pvt(origin, solution)) + ubx(_RELPOSNED, vector_ned(solution))


def vector_ned(solution: Solution) -> bytes:
    """The payload of NAV-RELPOSNED, version 1. Without corrections there is no vector, but zeros."""
    _, of_week_ms = _gps(solution.utc_s)
    flags = _UBX_FLAGS[solution.quality]
    if solution.quality is Quality.ALONE:
        return struct.pack("<BxHI", 1, 0, of_week_ms) + bytes(52) + struct.pack("<I", flags)
    east_m, north_m, up_m = _from_base(solution)
    tenths = [round(each * 1e4) for each in (north_m, east_m, -up_m, hypot(east_m, north_m, up_m))]
    centimetres = [int(each / 100) for each in tenths]  # towards zero, the rest has the same sign
    rests = [each - 100 * whole for each, whole in zip(tenths, centimetres, strict=True)]
    heading = round(degrees(atan2(east_m, north_m)) % 360.0 * 1e5)
    east_sd, north_sd, up_sd = (round(each * 1e4) for each in solution.sigma_m)
    return struct.pack(
        "<BxHI5i4x4b5I4xI",
        *(1, STATION, of_week_ms, *centimetres, heading, *rests),
        *(north_sd, east_sd, up_sd, max(north_sd, east_sd, up_sd), 50, flags | 1 << 8),
    )


def _pvt(origin: GnssOrigin, solution: Solution) -> bytes:
    _, of_week_ms = _gps(solution.utc_s)
    whole_s, part_s = divmod(solution.utc_s, 1.0)
    date = time.gmtime(whole_s)
    east_m, north_m, up_m = solution.enu_m
    latitude, longitude = moved(origin, east_m, north_m)
    east_sd, north_sd, up_sd = solution.sigma_m
    carrier = {Quality.FIXED: 2, Quality.FLOAT: 1, Quality.ALONE: 0}[solution.quality]
    corrected = solution.quality is not Quality.ALONE
    return struct.pack(
        "<IH6BIi4B4i2I44x",
        *(of_week_ms, *date[:6], 0b0111, 50, round(part_s * 1e9)),
        *(3, 1 | corrected << 1 | carrier << 6, 0, _SATELLITES),
        *(round(longitude * 1e7), round(latitude * 1e7)),
        *(round(1000 * (origin.height_m + up_m)), round(1000 * (origin.altitude_m + up_m))),
        *(round(1000 * hypot(east_sd, north_sd)), round(1000 * up_sd)),
    )


def basevectorgeod(_origin: GnssOrigin, solution: Solution) -> bytes:
    """BaseVectorGeod with one sub-block, or none while there are no corrections."""
    week, of_week_ms = _gps(solution.utc_s)
    if solution.quality is Quality.ALONE:
        return sbf(_BASE_VECTOR_GEOD, struct.pack("<IHBB", of_week_ms, week, 0, 52))
    vector = struct.pack(
        "<4B3d3fHhHHI",
        *(_SATELLITES, 0, _SBF_MODES[solution.quality], 0),
        *_from_base(solution),
        *(0.0, 0.0, 0.0, 0xFFFF, -0x8000, STATION, 120, 0),  # azimuth and elevation are not said
    )
    return sbf(_BASE_VECTOR_GEOD, struct.pack("<IHBB", of_week_ms, week, 1, len(vector)) + vector)


def _from_base(solution: Solution) -> tuple[float, float, float]:
    (e, n, u), (east, north, up) = GNSS_FROM_BASE_M, solution.enu_m
    return e + east, n + north, u + up


def _gps(utc_s: float) -> tuple[int, int]:
    """Week since 1980, not cut to ten bits, and milliseconds of it."""
    week, of_week_s = divmod(utc_s - _GPS_BEGAN_S + _LEAP_S, _WEEK_S)
    return int(week), round(of_week_s * 1000)
