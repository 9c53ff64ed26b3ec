"""NMEA 0183 sentences: bytes pushed in, checked sentences out; and the four that a position needs.

Nothing here touches a port. What is not a whole, checked sentence is not there: a line must hold exactly
one `$`, printable ASCII, one `*` and the right checksum behind it. Field order after gpsd's "NMEA
Revealed" and IEC 61162-1; a position and its sigma come as GGA and GST of the same second.
"""

from __future__ import annotations

import re
from datetime import date
from math import isfinite, nan
from typing import NamedTuple

LONGEST = 400  # IEC 61162-1 says 82 characters; vendors' sentences with many decimals pass 200

_END = re.compile(rb"[\r\n]")
_SENTENCE = re.compile(rb"\$([ -#%-)+-~]+)\*([0-9A-Fa-f]{2})")
_FOLDS = (2048, 1024, 512, 256, 128, 64, 32, 16, 8)  # bits; enough for 512 bytes
_MS = 1_000_000
_DAY_S = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
_LEAP_S = 61.0  # a leap second is written 60


class Sentence(NamedTuple):
    """`tag` is the address without its `$`, as GNGGA or PTNL; `fields` what follows, as text."""

    tag: str
    fields: list[str]


class Framer:
    """Bytes in any pieces into sentences; the pieces do not matter.

    Holds at most `LONGEST` bytes: a longer line is no sentence and is dropped, up to the next `$`.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Sentence]:
        """The sentences that `data` completes; what is damaged is left out."""
        *lines, rest = _END.split(self._rest + data)
        start = rest.rfind(b"$")
        self._rest = rest[start:] if start >= 0 and len(rest) - start <= LONGEST else b""
        found = (parse(line[max(0, line.rfind(b"$")) :]) for line in lines)
        return [sentence for sentence in found if sentence is not None]


def parse(line: bytes) -> Sentence | None:
    """One line without its end as a sentence; None if anything about it is wrong."""
    if len(line) > LONGEST or (match := _SENTENCE.fullmatch(line)) is None:
        return None
    if xor8(match[1]) != int(match[2], 16):
        return None
    tag, *fields = match[1].decode("ascii").split(",")
    return Sentence(tag, fields)


def xor8(body: bytes) -> int:
    """Exclusive or of all bytes, at most 512 of them: folded in half until one byte is left."""
    folded = int.from_bytes(body, "big")
    for bits in _FOLDS:
        folded ^= folded >> bits
    return folded & 0xFF


class Gga(NamedTuple):
    """Position. Angles in degrees, north and east positive; height above the ellipsoid; NaN where empty.

    `utc_ns` is the time of day, None where the receiver does not know it yet. `quality`: 0 none, 1
    single, 2 differential, 3 PPS, 4 RTK fixed, 5 RTK float, 6 dead reckoning, 7 manual, 8 simulator.
    """

    utc_ns: int | None
    latitude_deg: float
    longitude_deg: float
    height_m: float
    quality: int
    satellites: int


class Gst(NamedTuple):
    """Standard deviations of the position of the same second, in metres."""

    utc_ns: int | None
    sd_north_m: float
    sd_east_m: float
    sd_up_m: float


class Instant(NamedTuple):
    """A date and time of day of RMC or ZDA: nanoseconds since 1970, UTC."""

    ns: int


def gga(fields: list[str]) -> Gga | None:
    """From `utc,lat,N,lon,E,quality,satellites,hdop,msl,M,separation,M,...`; None if it makes no sense."""
    try:
        latitude_deg = _angle(fields[1], 2, fields[2], "NS", 90.0)
        longitude_deg = _angle(fields[3], 3, fields[4], "EW", 180.0)
        height_m = _number(fields[8]) + _number(fields[10])
        quality, satellites = int(fields[5] or 0), int(fields[6] or 0)
        return Gga(_time_of_day(fields[0]), latitude_deg, longitude_deg, height_m, quality, satellites)
    except (ValueError, IndexError):
        return None


def gst(fields: list[str]) -> Gst | None:
    """From `utc,rms,major,minor,orientation,sd_lat,sd_lon,sd_alt`."""
    try:
        return Gst(_time_of_day(fields[0]), _number(fields[5]), _number(fields[6]), _number(fields[7]))
    except (ValueError, IndexError):
        return None


def rmc(fields: list[str]) -> Instant | None:
    """From `utc,status,lat,N,lon,E,speed,track,ddmmyy,...`; None while the receiver has no date."""
    try:
        text = fields[8]
        return _instant(fields[0], 2000 + int(text[4:6]), int(text[2:4]), int(text[:2]))
    except (ValueError, IndexError):
        return None


def zda(fields: list[str]) -> Instant | None:
    """From `utc,day,month,year,zone hours,zone minutes`; utc is UTC whatever the zone."""
    try:
        return _instant(fields[0], int(fields[3]), int(fields[2]), int(fields[1]))
    except (ValueError, IndexError):
        return None


def _instant(utc: str, year: int, month: int, day: int) -> Instant | None:
    of_day_ns = _time_of_day(utc)
    if of_day_ns is None:
        return None
    return Instant((date(year, month, day).toordinal() - _EPOCH) * _DAY_S * 1000 * _MS + of_day_ns)


def _time_of_day(text: str) -> int | None:
    """`hhmmss.sss` in nanoseconds, to the millisecond; None for an empty field."""
    if not text:
        return None
    hours, minutes, seconds = int(text[:2]), int(text[2:4]), float(text[4:])
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0.0 <= seconds < _LEAP_S):  # noqa: PLR2004 -- a clock's numbers
        raise ValueError(text)
    return ((hours * 60 + minutes) * 60_000 + round(seconds * 1000)) * _MS


def _angle(text: str, degree_digits: int, side: str, sides: str, limit_deg: float) -> float:
    """`ddmm.mmmm` and its hemisphere in degrees; NaN for an empty field."""
    if not text:
        return nan
    minutes = float(text[degree_digits:])
    angle_deg = int(text[:degree_digits]) + minutes / 60.0
    if not (0.0 <= minutes < 60.0 and 0.0 <= angle_deg <= limit_deg) or len(side) != 1:  # noqa: PLR2004
        raise ValueError(text)
    return -angle_deg if sides.index(side) else angle_deg


def _number(text: str) -> float:
    """NaN for an empty field; neither a written `nan` nor an infinity is a number here."""
    if not text:
        return nan
    number = float(text)
    if not isfinite(number):
        raise ValueError(text)
    return number
