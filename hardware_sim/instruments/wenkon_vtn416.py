"""Hebei Wenkon VTN416, a 16-channel vibrating-wire logger (vendor's articles, cnblogs.com/wenkon 17129247,
17217812, 17250784).

Stated there: functions 3 and 4 read the same registers, at most 32 in a request; 0 is the device's
address, 1 the baud rate in hundreds; 100 + (channel - 1) holds a channel, u16, frequencies in 0.1 Hz;
0 is no signal, 9999 a channel this model does not have. Inferred from the articles' samples: channels 33 to
48 (132 to 147) hold the thermistors in 0.1 degC, 0xFFFF where none is fitted; below zero we send two's
complement.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, ClassVar, Final

from hardware_sim.instruments.base import READ_HOLDING, READ_INPUT, Instrument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hardware_sim.dam import Truth
    from hardware_sim.site import Piezometer

_FIRST_CHANNEL: Final = 100
_FIRST_THERMISTOR: Final = 132
_VIBRATING_WIRES: Final = 16
_NO_SIGNAL: Final = 0
_NOT_ON_THIS_MODEL: Final = 9999
_NOT_FITTED: Final = 0xFFFF
_BAUD_HUNDREDS: Final = 96


def wire_hz(sheet: Piezometer, pore_kpa: float, celsius: float, air_hpa: float) -> float:
    """The frequency at which this piezometer's wire swings: its calibration sheet, solved for f.

    P = G (R1 - R0) + K (T1 - T0) - (S1 - S0), R = f^2 / 1000, pressures in kPa (Geokon 4500, data reduction).
    """
    air_kpa = (air_hpa - sheet.zero_hpa) / 10.0
    thermal_kpa = sheet.kpa_per_celsius * (celsius - sheet.zero_celsius)
    digits = sheet.zero_digits + (pore_kpa + air_kpa - thermal_kpa) / sheet.kpa_per_digit
    return sqrt(1000.0 * digits)


class Vtn416(Instrument):
    """The logger with piezometers on its first channels; the other wires are not connected."""

    reads: ClassVar = frozenset({READ_HOLDING, READ_INPUT})
    max_registers: ClassVar = 32

    def __init__(self, truth: Callable[[], Truth], sheets: Sequence[Piezometer], unit: int = 1) -> None:
        super().__init__()
        self._truth = truth
        self._sheets = sheets
        self._unit = unit

    def words(self, fn: int) -> Mapping[int, int]:
        del fn  # both read functions see the same registers
        table = {0: self._unit, 1: _BAUD_HUNDREDS}
        for channel in range(32):
            wired = channel < _VIBRATING_WIRES
            table[_FIRST_CHANNEL + channel] = _NO_SIGNAL if wired else _NOT_ON_THIS_MODEL
        for channel in range(32):
            table[_FIRST_THERMISTOR + channel] = _NOT_FITTED
        truth = self._truth()
        for channel, sheet in enumerate(self._sheets):
            celsius = truth.ground_celsius[channel]
            table[_FIRST_THERMISTOR + channel] = round(celsius * 10.0) & 0xFFFF
            if not self.sentinel:  # a wire that is torn swings no more; its thermistor still answers
                hertz = wire_hz(sheet, truth.pore_kpa[channel], celsius, truth.pressure_hpa)
                table[_FIRST_CHANNEL + channel] = round(hertz * 10.0)
        return table
