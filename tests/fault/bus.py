"""A line full of devices, polled by the poller over a real pseudo-terminal or TCP, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.clock import NS, Clock
from daemon.poller import PolledLine, PolledUnit
from drivers.modbus import ModbusDevice
from drivers.profile import read_profile
from drivers.sample import Quality
from tests.drivers.rtu_server import word

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from drivers.line import Line
    from drivers.sample import Frame

REGISTERS = 25


def profile_text(timeout_s: float, slowest_s: float, registers: int = REGISTERS) -> str:
    return f"""
schema = 1
id = "unit"
title = "made for the fault tests"
source = [{{ doc = "made for these tests", trust = "inferred" }}]
speaks = "modbus"
[bus]
timeout = "{timeout_s * 1000:g} ms"
slowest_reply = "{slowest_s * 1000:g} ms"
[block.b]
fn = 3
at = 0
n = {registers}
[point.p]
in = "b"
at = 0
type = "u16"
repeat = {registers}
unit = ""
"""


@dataclass(frozen=True)
class Asked:
    """One poll: for which tick, when it began and ended on the schedule (ns), and what it took of the bus."""

    tick_ns: int
    began_ns: int
    ended_ns: int
    bus_s: float


class Watched(ModbusDevice):
    """A device that remembers when it was asked."""

    def __init__(self, name: str, text: str, unit: int, clock: Clock) -> None:
        super().__init__(name, read_profile(text.encode(), "unit", "unit").compile(name), unit, clock)
        self.asked: list[Asked] = []
        self._clock = clock

    async def poll(self, line: Line, tick_ns: int, *, urgent: bool = False) -> list[Frame]:
        began_ns, bus_s = self._clock.schedule_ns(), line.busy_s
        try:
            return await super().poll(line, tick_ns, urgent=urgent)
        finally:
            self.asked.append(Asked(tick_ns, began_ns, self._clock.schedule_ns(), line.busy_s - bus_s))


class Record:
    """The observer: every frame, every error, every change of health."""

    def __init__(self) -> None:
        self.told: dict[str, list[tuple[int, Quality]]] = defaultdict(list)
        self.wrong = 0
        self.good = 0
        self.errors: Counter[str] = Counter()
        self.health: dict[str, bool] = {}
        self.overruns = 0

    def take(self, frame: Frame) -> None:
        device, quality = frame.block.device, Quality(frame.qualities[0])
        self.told[device].append((frame.tick_ns, quality))
        if quality == Quality.GOOD:
            expected = [word(int(device[1:]), 3, at) for at in range(len(frame.values))]
            self.good += 1
            self.wrong += list(frame.values) != expected

    def device_error(self, line: str, device: str, reason: str) -> None:
        self.errors[reason] += 1

    def device_state(self, line: str, device: str, *, up: bool, error: str) -> None:
        self.health[device] = up

    def polled(self, line: str, seconds: float) -> None:
        pass

    def overrun(self, line: str, ticks: int) -> None:
        self.overruns += ticks


@dataclass
class Polled:
    """A line that is being polled."""

    line: Line
    poller: PolledLine
    devices: dict[int, Watched]
    record: Record
    clock: Clock
    every_s: float

    def on_time(self, units: Sequence[int], since_ns: int = 0) -> tuple[int, int]:
        """Of the ticks of these units: those whose poll began within a period of their time, and all."""
        every_ns = round(self.every_s * NS)
        begun = all_ = 0
        for device in (self.devices[unit] for unit in units):
            in_time = {one.tick_ns for one in device.asked if one.began_ns < one.tick_ns + every_ns}
            ticks = [tick for tick, _ in self.record.told[device.device] if tick >= since_ns]
            begun += sum(tick in in_time for tick in ticks)
            all_ += len(ticks)
        return begun, all_

    def answered(self, units: Sequence[int], since_ns: int = 0) -> float:
        """Share of the ticks of these units that brought a good reading."""
        told = [q for unit in units for tick, q in self.record.told[f"u{unit}"] if tick >= since_ns]
        return sum(q == Quality.GOOD for q in told) / len(told)


@contextlib.asynccontextmanager
async def polled(
    line: Line, units: Sequence[int], *, every_s: float, timeout_s: float, slowest_s: float | None = None,
    registers: int = REGISTERS,
) -> AsyncIterator[Polled]:  # fmt: skip
    """Poll `units` (device names u1, u2, ...) until the block ends."""
    clock, record = Clock(), Record()
    text = profile_text(timeout_s, timeout_s if slowest_s is None else slowest_s, registers)
    devices = {unit: Watched(f"u{unit}", text, unit, clock) for unit in units}
    slots = [PolledUnit(device, round(every_s * NS), device.longest_s) for device in devices.values()]
    poller = PolledLine(line, slots, clock, record, seed=7)
    task = asyncio.create_task(poller.run(), name=f"line {line.name}")
    try:
        yield Polled(line, poller, devices, record, clock, every_s)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % of {whole:,}"
