"""At red, the device and its neighbours are measured again, and the alarm is given what they say.

It delays nothing: the alarm is out and the siren wanted before this begins, and it takes its turn on a line
only when the outputs there have been switched. What is asked are the devices of the channel and of the other
channels of its item and section, with what corrects them, in one tick; their frames go through the same
calibration as ever, beside the channels that readings go through, so that no counter and no rate sees them.
What speaks by itself cannot be asked, and what counts or remembers is left out.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from daemon.channels import Channels
from daemon.dated import periods
from daemon.poller import PolledLine
from daemon.reading import rfc3339
from drivers.calibration import Count
from drivers.contract import WireError
from drivers.modbus import ModbusDevice
from drivers.sample import Quality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from daemon.alarms import Alarm
    from daemon.channels import Source
    from daemon.clock import Clock
    from daemon.config import ChannelTable, Site
    from daemon.outputs import Output
    from daemon.poller import StreamLine
    from drivers.gnss.receiver import GnssReceiver
    from drivers.line import Line
    from drivers.sample import Frame

log = logging.getLogger(__name__)

SIREN_FIRST_S = 5.0  # an output that cannot be switched holds the measurement up no longer
MOST_AT_ONCE = 4  # red channels measured at the same time; of further ones the neighbours are the same


class Remeasure:
    """Measures around channels that turn red.

    Args:
        site: devices and channels.
        sources: every block frames come from.
        drivers: by device.
        lines: by id.
        outputs: which are switched first.
        clock: stamps.
        attach: takes an alarm's id and what was measured.
    """

    def __init__(
        self,
        site: Site,
        sources: Sequence[Source],
        drivers: Mapping[str, ModbusDevice | GnssReceiver],
        lines: Mapping[str, PolledLine | StreamLine],
        outputs: Sequence[Output],
        clock: Clock,
        attach: Callable[[str, list[dict[str, Any]]], None],
    ) -> None:
        self._tables = {table.id: table for table in site.channels if _can_be_repeated(table, site)}
        self._sources = sources
        self._dated = periods(site)
        self._drivers = drivers
        self._lines = lines
        self._line_of = {device.id: device.line for device in site.devices}
        self._outputs = outputs
        self._clock = clock
        self._attach = attach
        self._wanted: asyncio.Queue[Alarm] = asyncio.Queue(MOST_AT_ONCE)

    def ask(self, alarm: Alarm) -> None:
        """Have the neighbourhood of a channel that turned red measured.

        When MOST_AT_ONCE wait, further ones are left out: where all turns red, all is measured already.
        """
        turned = alarm.kind == "channel" and alarm.level == "red" and alarm.condition == "present"
        if turned and not {"remeasured", "latched"} & alarm.evidence.keys() and not self._wanted.full():
            self._wanted.put_nowait(alarm)

    async def run(self) -> None:
        """Measure what is asked for, one alarm after the other; until cancelled."""
        while True:
            alarm = await self._wanted.get()
            await self._siren_first()
            found = await self._measure(alarm)
            if found:
                self._attach(alarm.id, found)

    async def _siren_first(self) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + SIREN_FIRST_S
        while not all(output.settled for output in self._outputs) and loop.time() < end_s:  # noqa: ASYNC110 -- it settles on its line
            await asyncio.sleep(0.05)

    async def _measure(self, alarm: Alarm) -> list[dict[str, Any]]:
        tables = self._neighbourhood(alarm)
        devices = sorted({device for table in tables for device in self._devices(table)})
        tick_ns = self._clock.schedule_ns()
        asked = await asyncio.gather(*(self._ask(device, tick_ns) for device in devices))
        channels = Channels(tables, self._sources, self._dated)
        found: list[dict[str, Any]] = []
        for frame in (frame for frames in asked for frame in frames):
            for _, readings in channels.on_frame(frame):
                rows = zip(readings.channels, readings.values, readings.qualities, strict=True)
                for channel, value, quality in rows:
                    found.append(
                        {
                            "channel": channel,
                            "value": None if value != value else value,  # noqa: PLR0124 -- NaN test
                            "unit": self._tables[channel].unit,
                            "quality": Quality(quality).text,
                            "time": rfc3339(readings.time_ns),
                        }
                    )
        return found

    async def _ask(self, device: str, tick_ns: int) -> Sequence[Frame]:
        driver, line = self._drivers[device], self._lines[self._line_of[device]]
        assert isinstance(driver, ModbusDevice)
        assert isinstance(line, PolledLine)

        async def poll(wire: Line) -> Sequence[Frame]:
            return await driver.poll(wire, tick_ns, urgent=True)

        try:
            return await line.submit(poll)
        except (WireError, RuntimeError) as error:
            log.warning("%s was to be measured again and is not: %s", device, error)
            return ()

    def _neighbourhood(self, alarm: Alarm) -> list[ChannelTable]:
        """The channel, those of its item and section, and what they are computed from."""
        near = [
            table
            for table in self._tables.values()
            if table.id == alarm.channel
            or (table.pond, table.section, table.item) == (alarm.pond, alarm.section or "", alarm.item)
        ]
        return list(self._with_inputs(near))

    def _with_inputs(self, tables: Iterable[ChannelTable]) -> Iterable[ChannelTable]:
        found: dict[str, ChannelTable] = {}
        waiting = list(tables)
        while waiting:
            table = waiting.pop()
            if table.id in found:
                continue
            found[table.id] = table
            waiting += [self._tables[name] for name in _inputs(table) if name in self._tables]
        return found.values()

    def _devices(self, table: ChannelTable) -> set[str]:
        names = (table.source, table.temperature, table.barometer)
        return {name.partition(".")[0] for name in names if name} & self._line_of.keys()


def _inputs(table: ChannelTable) -> list[str]:
    own = [table.source, table.temperature, table.barometer]
    return [*filter(None, own), *(table.derive.inputs if table.derive else ())]


def _can_be_repeated(table: ChannelTable, site: Site) -> bool:
    """Whether it can be measured out of turn: on demand, without counter and memory, and its inputs too."""
    tables = {each.id: each for each in site.channels}
    streams = {line.id for line in site.lines if line.kind in ("serial", "tcp")}
    streaming = {device.id for device in site.devices if device.line in streams}

    def fits(each: ChannelTable) -> bool:
        if isinstance(each.calibration, Count):
            return False
        if each.derive is not None and each.derive.make().state() is not None:
            return False
        names = _inputs(each)
        devices = {name.partition(".")[0] for name in names if name not in tables}
        return not devices & streaming and all(fits(tables[name]) for name in names if name in tables)

    return fits(table)
