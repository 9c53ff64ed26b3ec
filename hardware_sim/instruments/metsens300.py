"""Campbell MetSENS300, barometer with humidity and temperature, over Modbus.

help.campbellsci.com/metsens-series, "Modbus measurements": from 40001 on pairs of registers, FLOAT: PRESS
hPa, RH %, TEMP degC, DEWPOINT degC, VOLT V; 40011 STATUS, an unsigned 32-bit code. High word first.
"""

from __future__ import annotations

from math import log, nan
from typing import TYPE_CHECKING, ClassVar, Final

from hardware_sim.instruments.base import READ_HOLDING, Instrument, f32, u32

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hardware_sim.dam import Truth

_SUPPLY_V: Final = 12.4


def dew_point_celsius(celsius: float, humidity_percent: float) -> float:
    """Magnus formula over water (WMO-No. 8, annex 4.B)."""
    gamma = log(humidity_percent / 100.0) + 17.62 * celsius / (243.12 + celsius)
    return 243.12 * gamma / (17.62 - gamma)


class MetSens300(Instrument):
    reads: ClassVar = frozenset({READ_HOLDING})

    def __init__(self, truth: Callable[[], Truth]) -> None:
        super().__init__()
        self._truth = truth

    def words(self, fn: int) -> Mapping[int, int]:
        del fn  # it knows function 3 only
        truth = self._truth()
        pressure_hpa = nan if self.sentinel else truth.pressure_hpa
        dew = dew_point_celsius(truth.air_celsius, truth.humidity_percent)
        numbers = (pressure_hpa, truth.humidity_percent, truth.air_celsius, dew, _SUPPLY_V)
        words = [word for number in numbers for word in f32(number)]
        return dict(enumerate([*words, *u32(0)]))
