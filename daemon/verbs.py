"""What the control socket can ask of a running core."""

from __future__ import annotations

import asyncio
from math import isnan, nan
from typing import TYPE_CHECKING, Any

from daemon import requests
from daemon.control import Refused
from daemon.poller import LineBusy, PolledLine
from daemon.requests import Measured
from drivers.contract import WireError
from drivers.modbus import ModbusDevice
from drivers.sample import Frame, Quality

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from daemon.alarms import Alarm, AlarmBook, Deed
    from daemon.audit import Audit
    from daemon.clock import Clock
    from daemon.config import ChannelTable, Site
    from daemon.control import Caller, Verb
    from daemon.guard import Guard
    from daemon.pipeline import Pipeline
    from daemon.poller import StreamLine
    from daemon.present import Present
    from daemon.reading import Reading
    from daemon.state import State
    from drivers.gnss.receiver import GnssReceiver
    from drivers.line import Line


class Verbs:
    """One method for each verb; all answer from the event loop's one thread."""

    def __init__(
        self,
        site: Site,
        clock: Clock,
        state: State,
        pipeline: Pipeline,
        book: AlarmBook,
        drivers: Mapping[str, ModbusDevice | GnssReceiver],
        lines: Mapping[str, PolledLine | StreamLine],
        audit: Audit,
        guard: Guard,
    ) -> None:
        self._channels = {channel.id: channel for channel in site.channels}
        self._line_of = {device.id: device.line for device in site.devices}
        self._clock = clock
        self._state = state
        self._pipeline = pipeline
        self._book = book
        self._drivers = drivers
        self._lines = lines
        self._audit = audit
        self._guard = guard

    def table(self) -> Mapping[type[requests.Request], Verb]:
        return {
            requests.Status: self._status,
            requests.Present: self._present,
            requests.Read: self._read,
            requests.Tail: self._tail,
            requests.AlarmsList: self._list,
            requests.AlarmsShow: self._show,
            requests.AlarmsAck: self._deed("acknowledge"),
            requests.AlarmsAssign: self._deed("assign"),
            requests.AlarmsHandle: self._deed("handle"),
            requests.AlarmsClose: self._deed("close"),
        }

    async def _status(self, request: requests.Status, caller: Caller) -> dict[str, Any]:
        del request, caller
        return self._state.status()

    async def _present(self, request: requests.Present, caller: Caller) -> Present:
        del request, caller
        return self._state.present()

    # -- alarms --------------------------------------------------------------------------------------

    async def _list(self, request: requests.AlarmsList, caller: Caller) -> Sequence[Alarm]:
        del request, caller
        return self._book.open()

    async def _show(self, request: requests.AlarmsShow, caller: Caller) -> Alarm:
        del caller
        return self._book.find(request.id)

    def _deed(self, deed: Deed) -> Verb:
        async def do(request: requests.AlarmsAck, caller: Caller) -> Alarm:
            before = self._book.find(request.id)
            changed = self._guard.respond(
                request.id, deed, by=request.by, role=request.role, note=request.note
            )
            self._pipeline.announce(changed)
            alarm = changed[-1]
            self._audit.record(
                f"alarm.{deed}",
                by=request.by,
                uid=caller.uid,
                subject=alarm.id,
                before=before.response,
                after=alarm.response,
                why=request.note,
                role=request.role,
            )
            return alarm

        return do

    # -- readings ------------------------------------------------------------------------------------

    async def _tail(self, request: requests.Tail, caller: Caller) -> AsyncIterator[Reading]:
        del caller
        self._known(request.channels)
        async for frame in self._pipeline.shown.watch():
            for reading in frame:
                if not request.channels or reading.channel in request.channels:
                    yield reading

    async def _read(self, request: requests.Read, caller: Caller) -> list[Measured]:
        """Every device that the channels need is asked once, ahead of routine polls, lines side by side."""
        del caller
        wanted = [c for c in self._known(request.channels) if self._can_be_asked(c)]
        if silent := [name for name in request.channels if name not in {c.id for c in wanted}]:
            raise Refused(f"{', '.join(silent)} cannot be measured on demand; pondwatch tail shows it", 2)
        devices = {channel.source.partition(".")[0] for channel in wanted}
        answers = await asyncio.gather(*(self._measure(device) for device in sorted(devices)))
        measured = dict(zip(sorted(devices), answers, strict=True))
        return [self._measured(channel, *measured[channel.source.partition(".")[0]]) for channel in wanted]

    def _known(self, names: Sequence[str]) -> Iterable[ChannelTable]:
        unknown = [name for name in names if name not in self._channels]
        if unknown:
            raise Refused(
                f"no channel is called {', '.join(unknown)}; pondwatch check lists the site's channels", 2
            )
        return [self._channels[name] for name in names] if names else self._channels.values()

    def _can_be_asked(self, channel: ChannelTable) -> bool:
        """Whether an instrument that answers stands behind it; a receiver speaks when it wants to."""
        return isinstance(self._drivers.get(channel.source.partition(".")[0]), ModbusDevice)

    async def _measure(self, device: str) -> tuple[Sequence[Frame], float]:
        """The frames of a device asked now, and how long that took (ms)."""
        driver, line = self._drivers[device], self._lines[self._line_of[device]]
        assert isinstance(driver, ModbusDevice)
        assert isinstance(line, PolledLine)
        tick_ns = self._clock.schedule_ns()

        async def ask(wire: Line) -> tuple[Sequence[Frame], float]:
            began_s = asyncio.get_running_loop().time()
            frames = await driver.poll(wire, tick_ns, urgent=True)
            return frames, (asyncio.get_running_loop().time() - began_s) * 1000

        try:
            return await line.submit(ask)
        except LineBusy as error:
            raise Refused(str(error), 3) from None
        except WireError as error:  # the other devices' answers are shown all the same
            now = (self._clock.wall_ns(), self._clock.monotonic_ns())
            return [Frame.missing(block, tick_ns, *now, error.quality) for block in driver.blocks], nan

    def _measured(self, channel: ChannelTable, frames: Sequence[Frame], took_ms: float) -> Measured:
        device, _, point = channel.source.partition(".")
        driver = self._drivers[device]
        for frame in frames:
            assert isinstance(driver, ModbusDevice)
            if point in frame.block.points:
                at = frame.block.points.index(point)
                value = frame.values[at]
                return Measured(
                    channel.id,
                    device,
                    point,
                    driver.words(point, frame),
                    None if isnan(value) else value,
                    frame.block.units[at],
                    Quality(frame.qualities[at]).text,
                    round(took_ms, 2),
                )
        return Measured(channel.id, device, point, (), None, "", Quality.NO_REPLY.text, took_ms)
