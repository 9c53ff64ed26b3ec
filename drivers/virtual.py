"""An instrument without a wire: a member of the driver table like any other, for a first look and for tests.

Its limits: it never touches the line it hangs on, so nothing is late, lost or garbled; its values are a
fixed function of the tick, so two runs agree; what it says it says in the site's units. It shows that
what lies behind the drivers works, and nothing about the drivers.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan, sin, tau
from typing import TYPE_CHECKING

from drivers.sample import Block, Frame, Quality

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drivers.contract import Stamps
    from drivers.line import Line

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Wave:
    """A point at time t: mean + amplitude x sin(tau t / period), in `unit`. A NaN mean is a dead sensor."""

    unit: str
    mean: float
    amplitude: float = 0.0
    period_s: float = _DAY_S

    def at(self, s: float) -> float:
        return self.mean + self.amplitude * sin(tau * s / self.period_s)


WAVES = {
    "pressure": Wave("kPa", 60.0, 5.0),
    "temperature": Wave("degC", 12.0, 4.0),
    "barometer": Wave("hPa", 1008.0, 3.0, _DAY_S / 2),
    "level": Wave("m", 86.0, 0.2),
}


class VirtualInstrument:
    """A PolledDriver whose points are waves."""

    def __init__(self, device: str, stamps: Stamps, waves: Mapping[str, Wave] = WAVES) -> None:
        self.device = device
        self._waves = tuple(waves.values())
        self._stamps = stamps
        self.blocks = (Block(device, "waves", tuple(waves), tuple(w.unit for w in self._waves)),)

    async def poll(self, line: Line, tick_ns: int) -> list[Frame]:  # noqa: ARG002 -- it has no wire
        numbers = [wave.at(tick_ns / 1e9) for wave in self._waves]
        known = [isfinite(n) for n in numbers]
        values = [n if ok else nan for n, ok in zip(numbers, known, strict=True)]
        qualities = bytes(Quality.GOOD if ok else Quality.NOT_A_NUMBER for ok in known)
        wall_ns, mono_ns = self._stamps.wall_ns(), self._stamps.monotonic_ns()
        return [Frame(self.blocks[0], tick_ns, wall_ns, mono_ns, numbers, values, qualities)]
