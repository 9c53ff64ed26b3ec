"""SL 651-2014 over TCP: rain, levels and pressure for a hydrology centre.

Readings go as timed reports, those of the full hour as hourly ones, those of an element with a step as
uniform ones, what raised an alarm as a threshold report, and what is no real measurement as test reports. One
report is out at a time: it is sent again, with the same serial number, until the centre confirms it, twice at
most. The standard's times know whole minutes: of several readings of an element in one minute the last is
told.

A centre may ask for present values, for the version and for the clock. Nothing it says changes anything here,
unless the site file names a program that sets the clock.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Never
from zoneinfo import ZoneInfo

from daemon.uplink import sl651_frames as frames
from daemon.uplink.dialect import Parcel, Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from daemon.clock import Clock
    from daemon.reading import Reading
    from daemon.uplink.dialect import Link, Told
    from daemon.uplink.tables import Sl651Element, Sl651Table

log = logging.getLogger(__name__)

CONNECT_S = 20.0
CLOCK_PROGRAM_S = 5.0
_ATTEMPTS = 3  # once, and twice again
_MOST_VALUES = 200  # of a uniform report: about a kilobyte


class _Seen(NamedTuple):
    value: float | None
    time: datetime


class _Reports:
    """Values on their way into reports."""

    def __init__(self) -> None:
        self.single: dict[tuple[int, str], dict[str, float | None]] = {}
        self.uniform: dict[str, dict[int, float | None]] = {}  # by channel and minute of the epoch

    def add(self, function: int, time: datetime, channel: str, value: float | None) -> None:
        self.single.setdefault((function, f"{time:%y%m%d%H%M}"), {})[channel] = value


class Sl651:
    """The dialect, for one station at one centre."""

    says_mode: ClassVar[bool] = True

    def __init__(self, table: Sl651Table, timezone: str, clock: Clock) -> None:
        self.where = table.address
        self.table = table
        self.station = frames.Station(
            table.centre, bytes.fromhex(table.station), bytes.fromhex(table.password)
        )
        self.kind = bytes.fromhex(table.station_class)
        self.serial = 0
        self.zone = ZoneInfo(timezone)
        self._clock = clock
        self._elements = {element.channel: element for element in table.elements}
        self._latest: dict[str, _Seen] = {}

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall_ns() / 1e9, self.zone)

    def next_serial(self) -> int:
        self.serial = self.serial % 0xFFFF + 1
        return self.serial

    def encode(self, told: Sequence[Told]) -> list[Parcel]:
        """One report for each minute of observation and kind, and uniform ones for runs of steps.

        A payload is what a report has behind the station's class; its parcel is named by the function.
        """
        reports = _Reports()
        for one in told:
            for reading in one.readings:
                if reading.channel in self._elements:
                    self._sort(reading, reports, real=one.mode == "real")
            alarm = one.alarm
            if alarm is not None and alarm.channel in self._elements and alarm.by is None:
                function = frames.THRESHOLD if one.mode == "real" else frames.TEST
                reports.add(function, self._local(alarm.time), alarm.channel or "", alarm.value)
        return [
            *(
                Parcel(f"{function:02X}", self._observed(minute, values))
                for (function, minute), values in reports.single.items()
            ),
            *(
                Parcel(f"{frames.UNIFORM:02X}", body)
                for channel, values in reports.uniform.items()
                for body in self._runs(self._elements[channel], values)
            ),
        ]

    def _sort(self, reading: Reading, reports: _Reports, *, real: bool) -> None:
        time = self._local(reading.time)
        if not real:
            reports.add(frames.TEST, time, reading.channel, reading.value)
            return
        seen = self._latest.get(reading.channel)
        if seen is None or seen.time <= time:
            self._latest[reading.channel] = _Seen(reading.value, time)
        step = _step(self._elements[reading.channel])
        if step and (time.hour * 60 + time.minute) % step == 0:
            reports.uniform.setdefault(reading.channel, {})[int(time.timestamp()) // 60] = reading.value
        else:
            function = frames.HOURLY if time.minute == 0 else frames.TIMED
            reports.add(function, time, reading.channel, reading.value)

    def _runs(self, element: Sl651Element, values: Mapping[int, float | None]) -> list[bytes]:
        """A uniform report has one element, and no hole: a step nobody measured ends the run."""
        step = _step(element)
        runs: list[list[int]] = []
        for minute in sorted(values):
            if not runs or minute != runs[-1][-1] + step or len(runs[-1]) == _MOST_VALUES:
                runs.append([])
            runs[-1].append(minute)
        return [
            _at(f"{datetime.fromtimestamp(run[0] * 60, self.zone):%y%m%d%H%M}")
            + frames.step(step)
            + _code(element)
            + frames.series([_scaled(element, values[minute]) for minute in run], *_format(element))
            for run in runs
        ]

    def present(self, wanted: set[bytes] | None = None) -> bytes:
        """The newest values, of the elements asked for, each behind the minute it was observed in."""
        by_minute: dict[str, dict[str, float | None]] = {}
        for channel, seen in sorted(self._latest.items(), key=lambda item: item[1].time):
            if wanted is None or _code(self._elements[channel]) in wanted:
                by_minute.setdefault(f"{seen.time:%y%m%d%H%M}", {})[channel] = seen.value
        return b"".join(self._observed(minute, values) for minute, values in by_minute.items())

    def _observed(self, minute: str, values: Mapping[str, float | None]) -> bytes:
        body = _at(minute)
        for channel, number in values.items():
            element = self._elements[channel]
            body += _code(element) + frames.value(_scaled(element, number), *_format(element))
        return body

    def _local(self, time: str) -> datetime:
        return datetime.fromisoformat(time).astimezone(self.zone)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Connect; the first frame is a keep-alive, so that the centre knows who is there."""
        host, _, port = self.table.address.rpartition(":")
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            yield _Sl651Link(self, reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


class _Sl651Link:
    def __init__(self, dialect: Sl651, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._dialect = dialect
        self._reader = reader
        self._writer = writer
        self._answers: asyncio.Queue[frames.Down] = asyncio.Queue(16)
        self._said: set[int] = set()

    async def deliver(self, parcels: Sequence[Parcel]) -> None:
        for parcel in parcels:
            await self._report(int(parcel.name, 16), parcel.payload)

    async def _report(self, function: int, observed: bytes) -> None:
        its = self._dialect
        serial = its.next_serial()
        refusals = 0
        for _ in range(_ATTEMPTS):
            self._send(function, frames.report(its.station, its.kind, serial, its.now(), observed))
            answer = await self._answer(function, serial)
            if answer is not None and answer.end != frames.NAK:
                return
            refusals += answer is not None
        if refusals:
            raise Refused(f"the centre answers NAK to report {function:02X}")
        raise ConnectionError(f"no confirmation of report {function:02X} after {_ATTEMPTS} attempts")

    async def _answer(self, function: int, serial: int) -> frames.Down | None:
        """The confirmation of this very report, or None when none comes in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._dialect.table.reply_deadline_s):
                while True:
                    answer = await self._answers.get()
                    if (answer.function, answer.serial) == (function, serial):
                        return answer
        return None

    def _send(self, function: int, body: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError("the centre has closed the connection")
        self._writer.write(frames.up(self._dialect.station, function, body))

    async def watch(self) -> Never:
        alive = asyncio.create_task(self._keep_alive(), name=f"keep-alive {self._dialect.where}")
        try:
            await self._listen()
        finally:
            alive.cancel()

    async def _keep_alive(self) -> Never:
        """With the serial number of the last report, as the standard has it; before any, 1."""
        its = self._dialect
        while True:
            body = max(1, its.serial).to_bytes(2, "big") + frames.stamp(its.now())
            with suppress(ConnectionResetError):  # the listener says so
                self._send(frames.KEEP_ALIVE, body)
            await asyncio.sleep(its.table.keep_alive_s)

    async def _listen(self) -> Never:
        while True:
            try:
                head = await self._reader.readexactly(14)
                frame = head + await self._reader.readexactly(frames.size_of(head) - len(head))
                said = frames.down(frame, self._dialect.station)
            except asyncio.IncompleteReadError:
                raise ConnectionResetError("the centre has closed the connection") from None
            except frames.Broken as error:  # where the next frame begins cannot be known
                raise ConnectionError(f"the centre sends {error}") from None
            if said.end == frames.ENQ:
                await self._asked(said)
            elif not self._answers.full():
                self._answers.put_nowait(said)

    async def _asked(self, said: frames.Down) -> None:
        """Present values, version and clock are told; all else is refused, and stays without an answer."""
        its = self._dialect
        head = said.serial.to_bytes(2, "big") + frames.stamp(its.now()) + b"\xf1\xf1" + its.station.address
        if said.function == frames.QUERY_CLOCK:
            self._send(said.function, head)
        elif said.function == frames.QUERY_VERSION:
            text = f"pondwatch {version('pondwatch')}".encode()
            self._send(said.function, head + bytes([len(text)]) + text)
        elif said.function in (frames.QUERY_NOW, frames.QUERY_ELEMENTS):
            wanted = frames.named(said.rest) if said.function == frames.QUERY_ELEMENTS else None
            if observed := its.present(wanted):
                self._send(
                    said.function, frames.report(its.station, its.kind, said.serial, its.now(), observed)
                )
        elif said.function == frames.SET_CLOCK and its.table.clock_program:
            if await self._clock_set(said.sent):
                self._send(said.function, head[:2] + frames.stamp(its.now()) + head[8:])
        else:
            self._refuse(said.function)

    def _refuse(self, function: int) -> None:
        if function not in self._said:
            self._said.add(function)
            what = "setting the clock" if function == frames.SET_CLOCK else f"command {function:02X}"
            log.warning("%s: %s is refused", self._dialect.where, what)

    async def _clock_set(self, sent: bytes) -> bool:
        """Let the operator's program do it; the core itself never sets a clock."""
        its, moment = self._dialect, frames.clock_of(sent)
        if moment is None:
            return False
        text = moment.replace(tzinfo=its.zone).isoformat()
        try:
            child = await asyncio.create_subprocess_exec(
                its.table.clock_program, text, stdin=asyncio.subprocess.DEVNULL
            )
        except OSError as error:
            log.warning("%s: %s cannot be started: %s", its.where, its.table.clock_program, error)
            return False
        try:
            async with asyncio.timeout(CLOCK_PROGRAM_S):
                code = await child.wait()
        except TimeoutError:
            child.kill()
            code = await child.wait()
        log.warning(
            "%s sets the clock to %s: %s ends with %d", its.where, text, its.table.clock_program, code
        )
        return code == 0


def _at(minute: str) -> bytes:
    return b"\xf0\xf0" + frames.bcd(minute)


def _code(element: Sl651Element) -> bytes:
    return bytes.fromhex(element.element)


def _step(element: Sl651Element) -> int:
    """Minutes; 0 for none."""
    return 0 if element.step_s is None else round(element.step_s / 60)


def _scaled(element: Sl651Element, number: float | None) -> float | None:
    return None if number is None else number * element.scale


def _format(element: Sl651Element) -> tuple[int, int]:
    """Digits and decimals: the site file's, else the standard's."""
    standard = frames.STANDARD.get(int(element.element, 16), (0, 0))
    digits = standard[0] if element.digits is None else element.digits
    return digits, standard[1] if element.decimals is None else element.decimals
