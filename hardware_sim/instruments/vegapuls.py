"""VEGAPULS radar over the pond.

Modbus supplement of the VEGAPULS 63 manual (41364-EN), input registers, function 4: status as a DWord
(bit 0: PV invalid, 1 SV, 2 TV, 3 QV), then PV, SV, TV, QV, in five places: 100.. (CDAB, with unit
codes between), 1300.. (order of holding register 3000), 2000.. (ABCD), 2100.. (DCBA), 2200.. (BADC). The
manual calls these register numbers; that they are the addresses on the wire is inferred, as in every public
reading.

Set up here: PV the level in metres above the bottom of the range, SV the distance in metres, TV the
electronics' temperature, QV the level in millimetres. An invalid PV keeps no number: NaN.
"""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, ClassVar, Final

from hardware_sim.instruments.base import (
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    READ_HOLDING,
    READ_INPUT,
    Instrument,
    Refusal,
    f32,
    u32,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hardware_sim.dam import Truth

_ORDER: Final = 3000  # holding register
_METRES: Final = 45
_CELSIUS: Final = 32
_MILLIMETRES: Final = 49
_ORDERS: Final = ("ABCD", "CDAB", "DCBA", "BADC")  # as holding register 3000 counts them
_FIXED_PLACES: Final = ((2000, "ABCD"), (2100, "DCBA"), (2200, "BADC"))


class VegaPuls(Instrument):
    reads: ClassVar = frozenset({READ_HOLDING, READ_INPUT})

    def __init__(self, truth: Callable[[], Truth], zero_elevation_m: float, range_m: float) -> None:
        super().__init__()
        self._truth = truth
        self._zero_elevation_m = zero_elevation_m
        self._range_m = range_m
        self._order = 0

    def words(self, fn: int) -> Mapping[int, int]:
        if fn == READ_HOLDING:
            return {201: 9600, 202: 0, 203: 1, 206: 50, _ORDER: self._order}
        truth = self._truth()
        level_m = truth.pond_m - self._zero_elevation_m
        numbers = (level_m, self._range_m - level_m, truth.air_celsius + 4.0, 1000.0 * level_m)
        if self.sentinel:
            numbers = (nan, nan, numbers[2], nan)
        status = 0b1011 if self.sentinel else 0
        table: dict[int, int] = {}
        for start, order in (*_FIXED_PLACES, (1300, _ORDERS[self._order])):
            _put(table, start, u32(status))
            for i, number in enumerate(numbers):
                _put(table, start + 2 + 2 * i, f32(number, order))
        _put(table, 100, u32(status))
        units = (_METRES, _METRES, _CELSIUS, _MILLIMETRES)
        for i, (unit, number) in enumerate(zip(units, numbers, strict=True)):
            _put(table, 104 + 4 * i, u32(unit))
            _put(table, 106 + 4 * i, f32(number, "CDAB"))
        return table

    def write_word(self, at: int, value: int) -> None:
        if at != _ORDER:
            raise Refusal(ILLEGAL_ADDRESS)
        if value >= len(_ORDERS):
            raise Refusal(ILLEGAL_VALUE)
        self._order = value


def _put(table: dict[int, int], at: int, words: tuple[int, int]) -> None:
    table[at], table[at + 1] = words
