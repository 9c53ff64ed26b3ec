"""Frames of SL 651-2014 (hydrology telemetry, HEX/BCD): bytes in, fields out, and back. No network here.

    up    7E7E | centre  | station (5 BCD) | password | function | 0 and length    | 02 | body | 03 | CRC
    down  7E7E | station (5 BCD) | centre  | password | function | 8 and length    | 02 | body | end | CRC

The CRC is that of Modbus over all before it, high byte first.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from pymodbus.framer.rtu import FramerRTU

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KEEP_ALIVE, TEST, UNIFORM, TIMED, THRESHOLD, HOURLY = 0x2F, 0x30, 0x31, 0x32, 0x33, 0x34
QUERY_NOW, QUERY_PERIOD, QUERY_ELEMENTS, QUERY_VERSION, QUERY_STATE = 0x37, 0x38, 0x3A, 0x45, 0x46
SET_CLOCK, QUERY_CLOCK = 0x4A, 0x51
STX, ETX, ENQ = 0x02, 0x03, 0x05
EOT, ACK, NAK, ESC = 0x04, 0x06, 0x15, 0x1B
HEAD = b"\x7e\x7e"
_HEAD_BYTES = 14  # up to and with STX
_DOWN = 0x8
_LENGTH = 0x0FFF
MOST_BODY_BYTES = 1024  # a longer frame is none of a centre's commands
MOST_BYTES = 4095  # of a body; what the length has room for
RAIN_GROUPS = 0xF4  # of an hour, every five minutes; and of levels above a base, F5 to FC
LEVEL_GROUPS: Final = range(0xF5, 0xFD)
GROUPS = 12  # five minutes each
_STATE = 0x45
_MOST_RAIN, _NO_RAIN = 0xFE, 0xFF  # tenths of a millimetre in a byte; what is not known
_MOST_LEVEL, _NO_LEVEL = 0xFFFE, 0xFFFF  # centimetres in two

# Element -> digits, decimals: those of the standard that a pond has use for.
STANDARD: Final[Mapping[int, tuple[int, int]]] = {
    0x02: (3, 1),  # air temperature
    0x08: (5, 0),  # air pressure
    0x0E: (6, 2),  # depth to groundwater
    0x18: (4, 1),  # humidity
    **dict.fromkeys(range(0x1A, 0x26), (5, 1)),  # rain of 1, 2, 3, 6, 12 h, day, now, 1 .. 30 min, storm
    0x26: (6, 1),  # rain, cumulative
    0x27: (9, 3),  # flow
    0x34: (2, 0),  # wind force
    0x35: (4, 1),  # wind speed
    0x38: (4, 2),  # supply voltage
    **dict.fromkeys(range(0x39, 0x44), (7, 3)),  # water levels
    0x49: (3, 0),  # turbidity
    **dict.fromkeys(range(0x58, 0x60), (5, 2)),  # water pressure 1 .. 8, kPa
}


class Broken(ValueError):
    """Bytes that are no frame; the message says why."""


class Station(NamedTuple):
    """What every frame names."""

    centre: int
    address: bytes  # 5, BCD
    password: bytes  # 2


class Down(NamedTuple):
    """What a centre says."""

    function: int
    serial: int
    sent: bytes  # YYMMDDHHmmSS
    rest: bytes  # of the body, behind that
    end: int


def crc(frame: bytes) -> bytes:
    return FramerRTU.compute_CRC(frame).to_bytes(2, "little")  # pymodbus has it as Modbus sends it, low first


def bcd(digits: str) -> bytes:
    return bytes.fromhex(digits)


def stamp(moment: datetime) -> bytes:
    """YYMMDDHHmmSS."""
    return bcd(f"{moment:%y%m%d%H%M%S}")


def value(number: float | None, digits: int, decimals: int) -> bytes:
    """Data definition and data; what is missing, or does not fit, is all F, as the standard has it.

    A negative number has FF before it, which the definition counts.
    """
    data = _data(number, digits, decimals)
    return bytes([len(data) << 3 | decimals]) + data


def series(numbers: Sequence[float | None], digits: int, decimals: int) -> bytes:
    """One data definition, and behind it the data of a uniform report, each as long as the longest."""
    each = [_data(number, digits, decimals) for number in numbers]
    size = max(map(len, each))
    padded = [data.rjust(size, b"\xff" if data.strip(b"\xff") == b"" else b"\x00") for data in each]
    return bytes([size << 3 | decimals]) + b"".join(padded)


def _data(number: float | None, digits: int, decimals: int) -> bytes:
    size = (digits + 1) // 2
    scaled = None if number is None or not math.isfinite(number) else round(abs(number) * 10**decimals)
    if scaled is None or scaled >= 10**digits:
        return b"\xff" * size
    sign = b"\xff" if number is not None and number < 0 and scaled else b""
    return sign + bcd(f"{scaled:0{2 * size}d}")


def step(minutes: int) -> bytes:
    """The time step of a uniform report: days, hours, minutes."""
    return b"\x04\x18" + bcd(f"{minutes // 1440:02d}{minutes // 60 % 24:02d}{minutes % 60:02d}")


def groups(code: int, values: Sequence[float | None]) -> bytes:
    """The twelve five-minute values of an hour: rain in mm, or levels in m above their base.

    Rain beyond 25.4 mm counts in the next five minutes, table C.1 note e; what the last ones leave over is
    not told here, the cumulative rain has it. A level below its base has no word.
    """
    if code != RAIN_GROUPS:
        cm = (None if value is None else round(value * 100) for value in values)
        each = (_NO_LEVEL if level is None or not 0 <= level <= _MOST_LEVEL else level for level in cm)
        return b"".join(level.to_bytes(2, "big") for level in each)
    said, over = bytearray(), 0
    for value in values:
        if value is None or value < 0:
            said.append(_NO_RAIN)
            continue
        tenths = round(value * 10) + over
        over = max(0, tenths - _MOST_RAIN)
        said.append(tenths - over)
    return bytes(said)


def group_size(code: int) -> int:
    """Bytes of an hour's groups."""
    return GROUPS if code == RAIN_GROUPS else 2 * GROUPS


class Stretch(NamedTuple):
    """What a centre asks of the past; hours without a zone, and no step means groups of whole hours."""

    first: datetime
    last: datetime
    step_minutes: int
    element: bytes


def stretch(rest: bytes) -> Stretch:
    """From hour, to hour, step, element: table 44.

    Raises:
        Broken: it is not that.
    """
    if len(rest) not in (15, 16) or rest[8:10] != b"\x04\x18" or (rest[13] == 0xFF) != (len(rest) == 16):  # noqa: PLR2004
        raise Broken(f"no stretch of one element: {rest.hex()}")
    try:
        first, last = (datetime.strptime(each.hex(), "%y%m%d%H") for each in (rest[:4], rest[4:8]))  # noqa: DTZ007
        days, hours, minutes = (int(rest[at : at + 1].hex()) for at in (10, 11, 12))
    except ValueError:
        raise Broken(f"no times and step: {rest[:13].hex()}") from None
    if last < first or sum(part > 0 for part in (days, hours, minutes)) > 1:
        raise Broken(f"no stretch, or no step: {rest[:13].hex()}")
    return Stretch(first, last, days * 1440 + hours * 60 + minutes, rest[13:-1])


def state(bits: int) -> bytes:
    """State and alarms of the station, table 58: bit 0 is the lowest of the last byte."""
    return bytes([_STATE, 4 << 3]) + bits.to_bytes(4, "big")


def clock_of(sent: bytes) -> datetime | None:
    """The time that YYMMDDHHmmSS says, without a zone; None when there is no such time."""
    try:
        return datetime.strptime(sent.hex(), "%y%m%d%H%M%S")  # noqa: DTZ007 -- the zone is the caller's
    except ValueError:
        return None


def named(elements: bytes) -> set[bytes]:
    """The elements that a query names, each with a data definition behind it."""
    found, at = set(), 0
    while at + 1 < len(elements):
        size = 2 if elements[at] == 0xFF else 1  # noqa: PLR2004 -- the vendor's own
        found.add(elements[at : at + size])
        at += size + 1
    return found


def up(station: Station, function: int, body: bytes) -> bytes:
    head = HEAD + bytes([station.centre]) + station.address + station.password
    frame = head + bytes([function]) + len(body).to_bytes(2, "big") + bytes([STX]) + body + bytes([ETX])
    return frame + crc(frame)


def report(station: Station, kind: bytes, serial: int, sent: datetime, observed: bytes) -> bytes:
    """The body of a report: `observed` begins with the time of observation."""
    head = serial.to_bytes(2, "big") + stamp(sent) + b"\xf1\xf1" + station.address + kind
    return head + observed


def size_of(head: bytes) -> int:
    """How long the frame is that begins with these 14 bytes.

    Raises:
        Broken: none does.
    """
    length = int.from_bytes(head[11:13], "big")
    if head[:2] != HEAD or head[13] != STX or length >> 12 != _DOWN:
        raise Broken(f"no downlink frame begins with {head.hex()}")
    if length & _LENGTH > MOST_BODY_BYTES:
        raise Broken(f"a body of {length & _LENGTH} bytes is no command")
    return _HEAD_BYTES + (length & _LENGTH) + 3


def down(frame: bytes, station: Station) -> Down:
    """A whole downlink frame.

    Raises:
        Broken: its checksum is wrong, or it is for somebody else.
    """
    if crc(frame[:-2]) != frame[-2:]:
        raise Broken("a wrong checksum")
    if frame[2:7] != station.address or frame[7] != station.centre or frame[8:10] != station.password:
        raise Broken("another station, centre or password")
    body = frame[_HEAD_BYTES:-3]
    if len(body) < 8:  # noqa: PLR2004 -- serial and time
        raise Broken("a body without serial number and time")
    return Down(frame[10], int.from_bytes(body[:2], "big"), body[2:8], body[8:], frame[-3])
