"""u-blox UBX: the vector to the base station, or the high-precision position with the status beside it.

Little-endian payloads as in the u-blox F9 (HPG 1.13) and M8 interface descriptions. NAV-RELPOSNED has 40
bytes in version 0 (M8) and 64 in version 1, where length and heading moved what follows.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from drivers.gnss.epoch import NOWHERE, ROLLOVER_NS, Epoch, Fix, Moment, Pair, S, day_ns, gps_moment
from drivers.gnss.framer import Ubx

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drivers.gnss.epoch import Told
    from drivers.gnss.framer import Message

NAV_PVT, NAV_HPPOSLLH, NAV_RELPOSNED = 0x0107, 0x0114, 0x013C

# reference station, time of week; N E D in cm, their rests and accuracies in 0.1 mm; flags
_RELPOS = {
    (0, 40): struct.Struct("<xxHI3i3bx3II"),
    (1, 64): struct.Struct("<xxHI3i12x3bx3I12xI"),
}
_HPPOSLLH = struct.Struct("<3xBI4i4b2I")
_PVT = struct.Struct("<IH6BIi4B4i2I")
_PVT_BYTES = (84, 92)  # before and since protocol version 14

_OK = 0b0000_0111  # fix, corrections, vector
_HAS_VECTOR = 0b0000_0100  # without it zeros stand in its place
_NOT_OK = 0b1110_0000  # the base station moves; its position, or its observations, are missing
_NORMALIZED = 1 << 9  # a direction of length one stands in the vector's place
_FIXES = {1: Fix.FLOAT, 2: Fix.FIXED}  # of carrSoln


class RelPos(NamedTuple):
    """NAV-RELPOSNED: east, north, up of the antenna seen from the base station, in metres."""

    base: int
    of_week_ms: int
    vector_m: tuple[float, float, float]
    sd_m: tuple[float, float, float]
    flags: int

    @property
    def fix(self) -> Fix:
        """Fixed only if the receiver says that fix, corrections and vector hold and the base stands still."""
        if self.flags & _OK != _OK or self.flags & (_NOT_OK | _NORMALIZED):
            return Fix.NONE
        return _FIXES.get(self.flags >> 3 & 3, Fix.NONE)


class HighPosition(NamedTuple):
    """NAV-HPPOSLLH: degrees, height above the ellipsoid in metres, accuracies in metres."""

    of_week_ms: int
    latitude_deg: float
    longitude_deg: float
    height_m: float
    height_msl_m: float
    horizontal_m: float
    vertical_m: float
    is_valid: bool


class Pvt(NamedTuple):
    """NAV-PVT. `fix_type` 3 is three-dimensional; `utc` is None until date and time are valid."""

    of_week_ms: int
    utc: Moment | None
    fix_type: int
    flags: int
    satellites: int
    latitude_deg: float
    longitude_deg: float
    height_m: float
    height_msl_m: float

    @property
    def fix(self) -> Fix:
        """What carrSoln says, if gnssFixOK and diffSoln are set and the fix has three dimensions."""
        if self.flags & 3 != 3 or self.fix_type != 3:  # noqa: PLR2004 -- two bits; a number of the maker's table
            return Fix.NONE
        return _FIXES.get(self.flags >> 6, Fix.NONE)


def relpos(payload: bytes) -> RelPos | None:
    """None for a version that is not known."""
    layout = _RELPOS.get((payload[0] if payload else -1, len(payload)))
    if layout is None:
        return None
    base, tow, n, e, d, n_rest, e_rest, d_rest, n_acc, e_acc, d_acc, flags = layout.unpack(payload)
    vector = ((100 * e + e_rest) / 1e4, (100 * n + n_rest) / 1e4, -(100 * d + d_rest) / 1e4)
    return RelPos(base, tow, vector, (e_acc / 1e4, n_acc / 1e4, d_acc / 1e4), flags)


def high_position(payload: bytes) -> HighPosition | None:
    if len(payload) != _HPPOSLLH.size or payload[0] != 0:
        return None
    flags, tow, lon, lat, height, msl, *rests, horizontal, vertical = _HPPOSLLH.unpack(payload)
    lon_rest, lat_rest, height_rest, msl_rest = rests
    return HighPosition(
        tow,
        (100 * lat + lat_rest) / 1e9,
        (100 * lon + lon_rest) / 1e9,
        (10 * height + height_rest) / 1e4,
        (10 * msl + msl_rest) / 1e4,
        horizontal / 1e4,
        vertical / 1e4,
        not flags & 1,
    )


def pvt(payload: bytes) -> Pvt | None:
    if len(payload) not in _PVT_BYTES:
        return None
    fields = _PVT.unpack_from(payload)
    tow, year, month, day, hour, minute, second, valid, _, nano = fields[:10]
    fix_type, flags, _, satellites, lon, lat, height, msl, *_ = fields[10:]
    utc = None
    if valid & 3 == 3:  # noqa: PLR2004 -- validDate and validTime
        try:
            ns = day_ns(year, month, day) + (hour * 3600 + minute * 60 + second) * S + nano
            utc = Moment(ns, ROLLOVER_NS)
        except ValueError:
            utc = None
    return Pvt(tow, utc, fix_type, flags, satellites, lat / 1e7, lon / 1e7, height / 1e3, msl / 1e3)


class RelPosNed:
    """Vectors of NAV-RELPOSNED; NAV-PVT, where it is sent as well, tells the date."""

    def take(self, message: Message) -> Iterable[Told]:
        if not isinstance(message, Ubx):
            return
        if message.kind == NAV_RELPOSNED and (said := relpos(message.payload)) is not None:
            when = gps_moment(None, said.of_week_ms)
            code = float(said.flags >> 3 & 3)
            has_vector = said.flags & (_HAS_VECTOR | _NORMALIZED) == _HAS_VECTOR
            where, sd_m = (said.vector_m, said.sd_m) if has_vector else (NOWHERE, NOWHERE)
            yield Epoch(when, said.fix, code, where, sd_m, base=str(said.base))
        elif message.kind == NAV_PVT and (status := pvt(message.payload)) is not None and status.utc:
            yield status.utc

    def rest(self) -> Iterable[Told]:
        return ()


class HpPosLlh:
    """Positions of NAV-HPPOSLLH with the status that NAV-PVT of the same instant gives; none without it."""

    def __init__(self) -> None:
        self._pair: Pair[HighPosition, Pvt] = Pair()

    def take(self, message: Message) -> Iterable[Told]:
        if not isinstance(message, Ubx):
            return
        if message.kind == NAV_HPPOSLLH and (position := high_position(message.payload)) is not None:
            yield from map(_positioned, self._pair.first(position.of_week_ms, position))
        elif message.kind == NAV_PVT and (status := pvt(message.payload)) is not None:
            if status.utc is not None:
                yield status.utc
            yield from map(_positioned, self._pair.second(status.of_week_ms, status))

    def rest(self) -> Iterable[Told]:
        return map(_positioned, self._pair.rest())


def _positioned(pair: tuple[HighPosition, Pvt | None]) -> Epoch:
    """The horizontal accuracy is of both axes together; it stands for each, which is on the safe side."""
    position, status = pair
    sd_m = (position.horizontal_m, position.horizontal_m, position.vertical_m)
    where = (position.latitude_deg, position.longitude_deg, position.height_m)
    when = gps_moment(None, position.of_week_ms)
    if status is None:
        return Epoch(when, Fix.NONE, 0.0, where, sd_m)
    fix = status.fix if position.is_valid else Fix.NONE
    return Epoch(when, fix, float(status.flags >> 6), where, sd_m, float(status.satellites))
