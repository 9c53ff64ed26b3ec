"""DFRobot SEN0575, a tipping bucket on a UART: unit 0xC0, 9600 8N1.

Registers by the maker's own library (github.com/DFRobot/DFRobot_RainfallSensor, the two enums of
DFRobot_RainfallSensor.h and the python driver). Input (function 4): 0 PID low, 1 VID and PID high, 2 device
address, 3 baud code, 4 parity and stop, 5 version, then pairs with the LOW WORD FIRST: 6-7 rain of the last N
hours, 8-9 rain since the start (both mm x 10,000), 10-11 tips; 12 uptime in minutes. Holding: 6 N hours
(1..24), 7 rain per tip (mm x 10,000). The values in 3, 4 and 5 are placeholders: the enums name those
registers and say no more.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final

from hardware_sim.instruments.base import (
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    READ_HOLDING,
    READ_INPUT,
    Instrument,
    Refusal,
    u32,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hardware_sim.dam import Truth

UNIT: Final = 0xC0
_HOURS: Final = 6  # holding registers
_BASE_VALUE: Final = 7
_MOST_HOURS: Final = 24
_PID_LOW: Final = 0x00C0
_VID_AND_PID_HIGH: Final = 0x7343  # VID 0x3343; the two top bits carry PID 0x100C0's bit 16


class Sen0575(Instrument):
    """The bucket tips each time `mm_per_tip` of the truth's rain has gathered."""

    reads: ClassVar = frozenset({READ_HOLDING, READ_INPUT})

    def __init__(self, truth: Callable[[], Truth], mm_per_tip: float) -> None:
        super().__init__()
        self._truth = truth
        self._mm_per_tip = mm_per_tip  # of the bucket itself
        self._base_value = round(mm_per_tip * 10_000)  # what the electronics count for a tip
        self._hours = 24
        self._began_s = 0.0
        self._tips_before = 0
        # (time, tips) whenever a read saw more tips. Full, the oldest fall out and the rain of the last
        # hours reads too low; 4,096 rises are some 1,100 mm.
        self._noted: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=4096)

    def words(self, fn: int) -> Mapping[int, int]:
        if fn == READ_HOLDING:
            return {_HOURS: self._hours, _BASE_VALUE: self._base_value}
        truth = self._truth()
        tips = int(truth.rain_mm / self._mm_per_tip) - self._tips_before
        if tips > self._noted[-1][1]:
            self._noted.append((truth.t_s, tips))
        recent = tips - self._tips_at(truth.t_s - self._hours * 3600.0)
        table = {0: _PID_LOW, 1: _VID_AND_PID_HIGH, 2: UNIT, 3: 3, 4: 0, 5: 0x1000}
        numbers = ((6, recent * self._base_value), (8, tips * self._base_value), (10, tips))
        for at, number in numbers:
            table[at], table[at + 1] = u32(number, "CDAB")
        table[12] = int((truth.t_s - self._began_s) / 60.0) & 0xFFFF
        return table

    def restart(self) -> None:
        truth = self._truth()
        self._began_s, self._tips_before = truth.t_s, int(truth.rain_mm / self._mm_per_tip)
        self._noted.clear()
        self._noted.append((truth.t_s, 0))

    def _tips_at(self, t_s: float) -> int:
        return max((tips for at_s, tips in self._noted if at_s <= t_s), default=self._noted[0][1])

    def write_word(self, at: int, value: int) -> None:
        if at == _HOURS:
            if not 1 <= value <= _MOST_HOURS:
                raise Refusal(ILLEGAL_VALUE)
            self._hours = value
        elif at == _BASE_VALUE:
            self._base_value = value
        else:
            raise Refusal(ILLEGAL_ADDRESS)
