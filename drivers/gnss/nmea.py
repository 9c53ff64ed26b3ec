"""NMEA 0183 sentences, and what a position needs of them: GGA with its GST, and the date of RMC or ZDA.

What is not a whole, checked sentence is not there: a line must hold exactly one `$`, printable ASCII, one `*`
and the right checksum behind it: two hexadecimal digits, or eight, as ComNav and Unicore boards write the
CRC-32 of their own sentences. Field order after gpsd's "NMEA Revealed" and IEC 61162-1; a position and its
sigma come as GGA and GST of the same second.
"""

from __future__ import annotations

import re
import zlib
from math import nan
from typing import TYPE_CHECKING, NamedTuple

from drivers.gnss.epoch import DAY_NS, MS, NOWHERE, ROLLOVER_NS, Epoch, Fix, Moment, Pair, day_ns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drivers.gnss.epoch import Told
    from drivers.gnss.framer import Message

LONGEST = 400  # IEC 61162-1 says 82 characters; vendors' sentences with many decimals pass 200

_SENTENCE = re.compile(rb"\$([ -#%-)+-~]+)\*([0-9A-Fa-f]{2}|[0-9A-Fa-f]{8})")
_FOLDS = (2048, 1024, 512, 256, 128, 64, 32, 16, 8)  # bits; enough for 512 bytes
_ALL_ONES = 0xFFFFFFFF
_NUMBER = re.compile(r"\s*([+-]?)\s*(\d+\.?\d*|\.\d+)\s*")  # "+12.3"; boards put spaces around it
_LEAP_S = 61.0  # a leap second is written 60
_FIXES = {4: Fix.FIXED, 5: Fix.FLOAT}  # of GGA's quality


class Sentence(NamedTuple):
    """`tag` is the address without its `$`, as GNGGA or PTNL; `fields` what follows, as text."""

    tag: str
    fields: list[str]


def parse(line: bytes) -> Sentence | None:
    """One line without its end as a sentence; None if anything about it is wrong."""
    if len(line) > LONGEST or (match := _SENTENCE.fullmatch(line)) is None:
        return None
    body, check = match[1], match[2]
    if int(check, 16) != (xor8(body) if len(check) == 2 else crc32(body)):  # noqa: PLR2004 -- digits of one byte
        return None
    tag, *fields = body.decode("ascii").split(",")
    return Sentence(tag, fields)


def xor8(body: bytes) -> int:
    """Exclusive or of all bytes, at most 512 of them: folded in half until one byte is left."""
    folded = int.from_bytes(body, "big")
    for bits in _FOLDS:
        folded ^= folded >> bits
    return folded & 0xFF


def crc32(body: bytes) -> int:
    """CRC-32 with the usual reflected polynomial 0xEDB88320, but begun with 0 and not inverted at the end."""
    return zlib.crc32(body, _ALL_ONES) ^ _ALL_ONES


class Gga(NamedTuple):
    """Position. Angles in degrees, north and east positive; height above the ellipsoid; NaN where empty.

    `utc_ns` is the time of day, None where the receiver does not know it yet. `quality`: 0 none, 1
    single, 2 differential, 3 PPS, 4 RTK fixed, 5 RTK float, 6 dead reckoning, 7 manual, 8 simulator.
    `age_s` and `base` are those of the corrections.
    """

    utc_ns: int | None
    latitude_deg: float
    longitude_deg: float
    height_m: float
    quality: int
    satellites: int
    age_s: float
    base: str


class Gst(NamedTuple):
    """Standard deviations of the position of the same second, in metres."""

    utc_ns: int | None
    sd_north_m: float
    sd_east_m: float
    sd_up_m: float


class GgaGst:
    """A receiver that writes GGA, mostly with GST, and RMC or ZDA for the date."""

    def __init__(self) -> None:
        self._pair: Pair[Gga, Gst] = Pair()

    def take(self, message: Message) -> Iterable[Told]:
        if not isinstance(message, Sentence):
            return ()
        kind, fields = message.tag[2:], message.fields  # GN, GP, BD, GB: whatever satellites it used
        if kind == "GGA" and (position := gga(fields)) is not None:
            return map(_epoch, self._pair.first(position.utc_ns, position))
        if kind == "GST" and (sigma := gst(fields)) is not None:
            return map(_epoch, self._pair.second(sigma.utc_ns, sigma))
        return dated(kind, fields)

    def rest(self) -> Iterable[Told]:
        return map(_epoch, self._pair.rest())


def _epoch(pair: tuple[Gga, Gst | None]) -> Epoch:
    said, sigma = pair
    return Epoch(
        when=None if said.utc_ns is None else Moment(said.utc_ns, DAY_NS),
        fix=_FIXES.get(said.quality, Fix.NONE),
        code=float(said.quality),
        where=(said.latitude_deg, said.longitude_deg, said.height_m),
        sd_m=NOWHERE if sigma is None else (sigma.sd_east_m, sigma.sd_north_m, sigma.sd_up_m),
        satellites=float(said.satellites),
        base=said.base,
        age_s=said.age_s,
    )


def dated(kind: str, fields: list[str]) -> list[Moment]:
    """The moment that RMC or ZDA tells, `kind` without its talker; nothing of any other sentence."""
    moment = rmc(fields) if kind == "RMC" else zda(fields) if kind == "ZDA" else None
    return [] if moment is None else [moment]


def gga(fields: list[str]) -> Gga | None:
    """From `utc,lat,N,lon,E,quality,satellites,hdop,msl,M,separation,M,age,base`; None if senseless."""
    try:
        return Gga(
            time_of_day_ns(fields[0]),
            angle_deg(fields[1], 2, fields[2], "NS", 90.0),
            angle_deg(fields[3], 3, fields[4], "EW", 180.0),
            number(fields[8]) + number(fields[10]),
            int(fields[5] or 0),
            int(fields[6] or 0),
            number(fields[12]),
            fields[13].strip(),
        )
    except (ValueError, IndexError):
        return None


def gst(fields: list[str]) -> Gst | None:
    """From `utc,rms,major,minor,orientation,sd_lat,sd_lon,sd_alt`."""
    try:
        return Gst(time_of_day_ns(fields[0]), number(fields[5]), number(fields[6]), number(fields[7]))
    except (ValueError, IndexError):
        return None


def rmc(fields: list[str]) -> Moment | None:
    """From `utc,status,lat,N,lon,E,speed,track,ddmmyy,...`; None while the receiver knows no date."""
    try:
        text = fields[8]
        day = day_ns(2000 + int(text[4:6]), int(text[2:4]), int(text[:2]))
        return _moment(day, fields[0]) if fields[1] == "A" else None
    except (ValueError, IndexError):
        return None


def zda(fields: list[str]) -> Moment | None:
    """From `utc,day,month,year,zone hours,zone minutes`; utc is UTC whatever the zone."""
    try:
        return _moment(day_ns(int(fields[3]), int(fields[2]), int(fields[1])), fields[0])
    except (ValueError, IndexError):
        return None


def _moment(day: int, utc: str) -> Moment | None:
    of_day_ns = time_of_day_ns(utc)
    return None if of_day_ns is None else Moment(day + of_day_ns, ROLLOVER_NS)


def time_of_day_ns(text: str) -> int | None:
    """`hhmmss.sss` in nanoseconds, to the millisecond; None for an empty field."""
    if not text:
        return None
    hours, minutes, seconds = int(text[:2]), int(text[2:4]), number(text[4:])
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0.0 <= seconds < _LEAP_S):  # noqa: PLR2004 -- a clock's numbers
        raise ValueError(text)
    return ((hours * 60 + minutes) * 60_000 + round(seconds * 1000)) * MS


def angle_deg(text: str, degree_digits: int, side: str, sides: str, limit_deg: float) -> float:
    """`ddmm.mmmm` and its hemisphere in degrees; NaN for an empty field."""
    if not text:
        return nan
    minutes = number(text[degree_digits:])
    degrees = int(text[:degree_digits]) + minutes / 60.0
    if not (0.0 <= minutes < 60.0 and 0.0 <= degrees <= limit_deg) or len(side) != 1:  # noqa: PLR2004
        raise ValueError(text)
    return -degrees if sides.index(side) else degrees


def number(text: str) -> float:
    """NaN for an empty field; ValueError for what is no plain decimal number."""
    if not text:
        return nan
    if (match := _NUMBER.fullmatch(text)) is None:
        raise ValueError(text)
    return float(match[1] + match[2])
