"""Septentrio SBF: the vector to the base station in block BaseVectorGeod (4028).

One sub-block for each base station, each SBLength bytes long, which a later revision may lengthen; there may
be none. Do-not-use values: -2e10 for floating-point numbers, all ones for the rest.
Source: Septentrio SBF reference guide, BaseVectorGeod; septentrio_gnss_driver 5613af29.
"""

from __future__ import annotations

import struct
from math import isfinite, nan
from typing import TYPE_CHECKING

from drivers.gnss.epoch import NOWHERE, Epoch, Fix, gps_moment
from drivers.gnss.framer import Sbf

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drivers.gnss.epoch import Moment, Told
    from drivers.gnss.framer import Message

BASE_VECTOR_GEOD = 4028
_HEAD = struct.Struct("<IHBB")  # time of week ms, week, sub-blocks, their length
_VECTOR = struct.Struct("<4B3d12x4x2H")  # satellites, error, mode, misc; E, N, U m; base, age in 0.01 s
_NO_FLOAT, _NO_U2, _NO_U4 = -2e10, 0xFFFF, 0xFFFFFFFF
_FIXES = {4: Fix.FIXED, 5: Fix.FLOAT}  # of the low four bits of Mode; 7 and 8 are a base that moves


class BaseVectorGeod:
    """Vectors; of several base stations that of `base`, or the first."""

    def __init__(self, base: str = "") -> None:
        self._base = base

    def take(self, message: Message) -> Iterable[Told]:
        if not isinstance(message, Sbf) or message.number != BASE_VECTOR_GEOD:
            return ()
        vectors = epochs(message.body)
        return [each for each in vectors if each.base == self._base] or vectors[:1]

    def rest(self) -> Iterable[Told]:
        return ()


def epochs(body: bytes) -> list[Epoch]:
    """One for each base station; one without a vector where there is none; nothing if it makes no sense."""
    if len(body) < _HEAD.size:
        return []
    of_week_ms, week, count, step = _HEAD.unpack_from(body)
    when = None if of_week_ms == _NO_U4 else gps_moment(None if week == _NO_U2 else week, of_week_ms)
    if count == 0:
        return [Epoch(when, Fix.NONE, 0.0, NOWHERE)]
    if step < _VECTOR.size or _HEAD.size + count * step > len(body):
        return []
    return [_epoch(when, body, _HEAD.size + i * step) for i in range(count)]


def _epoch(when: Moment | None, body: bytes, at: int) -> Epoch:
    satellites, error, mode, _, east, north, up, base, age = _VECTOR.unpack_from(body, at)
    is_whole = all(isfinite(each) and each != _NO_FLOAT for each in (east, north, up))
    fix = _FIXES.get(mode & 0xF, Fix.NONE) if is_whole and error == 0 else Fix.NONE
    return Epoch(
        when,
        fix,
        float(mode & 0xF),
        (east, north, up) if is_whole else NOWHERE,
        satellites=float(satellites),
        base="" if base == _NO_U2 else str(base),
        age_s=nan if age == _NO_U2 else age / 100,
    )
