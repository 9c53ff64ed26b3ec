"""SL 651-2014 over TCP: rain, levels and pressure for a hydrology centre.

Readings go as timed reports, those of the full hour as hourly ones, those of an element with a step as
uniform ones, what raised an alarm as a threshold report, and what is no real measurement as test reports.
Five minutes of rain and levels go twelve at a time with the hourly report (`sl651_hours.py`). One report is
out at a time: it is sent again, with the same serial number, until the centre confirms it, twice at most.
The standard's times know whole minutes: of several readings of an element in one minute the last is told.

What a centre may ask stands in `sl651_answers.py`. Nothing it says changes anything here, unless the site
file names a program that sets the clock.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Never
from zoneinfo import ZoneInfo

from daemon.spool import StoreError
from daemon.uplink import sl651_frames as frames
from daemon.uplink.dialect import Parcel, Refused
from daemon.uplink.sl651_answers import Answers
from daemon.uplink.sl651_hours import Hours, at, is_group

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from daemon.clock import Clock
    from daemon.reading import Reading
    from daemon.uplink.dialect import Link, Told
    from daemon.uplink.past import Past
    from daemon.uplink.tables import Sl651Element, Sl651Table

CONNECT_S = 20.0
_ATTEMPTS = 3  # once, and twice again
_MOST_QUESTIONS = 16  # that wait for an answer; of more, those beyond get none
_MOST_ELEMENTS = 100  # of a report with one value each, likewise
_MOST_VALUES = 200  # of a uniform report: about a kilobyte


class _Seen(NamedTuple):
    value: float | None
    time: datetime


class _Reports:
    """Values on their way into reports."""

    def __init__(self) -> None:
        self.single: dict[tuple[int, str], dict[str, float | None]] = {}
        self.uniform: dict[str, dict[int, float | None]] = {}  # by channel and minute of the epoch
        self.hours: dict[str, dict[str, None]] = {}  # the end of an hour -> channels with groups in it

    def add(self, function: int, time: datetime, channel: str, value: float | None) -> None:
        self.single.setdefault((function, f"{time:%y%m%d%H%M}"), {})[channel] = value


class Sl651:
    """The dialect, for one station at one centre."""

    says_mode: ClassVar[bool] = True

    def __init__(self, table: Sl651Table, timezone: str, clock: Clock, past: Past) -> None:
        self.where = table.address
        self.table = table
        self.station = frames.Station(
            table.centre, bytes.fromhex(table.station), bytes.fromhex(table.password)
        )
        self.kind = bytes.fromhex(table.station_class)
        self.serial = 0
        self.zone = ZoneInfo(timezone)
        self._clock = clock
        self.past = past
        self._elements = {each.channel: each for each in table.elements if not is_group(each.element)}
        self.hours = Hours(table.elements, past, self.zone)
        self._watched = self._elements.keys() | {each.channel for each in table.states}
        self._latest: dict[str, _Seen] = {}

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall_ns() / 1e9, self.zone)

    def next_serial(self) -> int:
        self.serial = self.serial % 0xFFFF + 1
        return self.serial

    def encode(self, told: Sequence[Told]) -> list[Parcel]:
        """One report for each minute of observation and kind, and uniform ones for runs of steps.

        A payload is what a report has behind the station's class; its parcel is named by the function. One
        that is to have the groups of an hour is named by its end and the channels too.
        """
        reports = _Reports()
        for one in told:
            for reading in one.readings:
                self._sort(reading, reports, real=one.mode == "real")
            alarm = one.alarm
            if alarm is not None and alarm.channel in self._elements and alarm.by is None:
                function = frames.THRESHOLD if one.mode == "real" else frames.TEST
                reports.add(function, self._local(alarm.time), alarm.channel or "", alarm.value)
        for hour in reports.hours:
            reports.single.setdefault((frames.HOURLY, f"{hour}00"), {})
        return [
            *(
                Parcel(_named(function, minute, reports if at_first else None), self._observed(minute, piece))
                for (function, minute), values in reports.single.items()
                for at_first, piece in _pieces(values)
            ),
            *(
                Parcel(f"{frames.UNIFORM:02X}", body)
                for channel, values in reports.uniform.items()
                for body in self._runs(self._elements[channel], values)
            ),
        ]

    def _sort(self, reading: Reading, reports: _Reports, *, real: bool) -> None:
        time, channel = self._local(reading.time), reading.channel
        if not real:
            if channel in self._elements:
                reports.add(frames.TEST, time, channel, reading.value)
            return
        if channel in self.hours.elements:
            for hour in self.hours.due(channel, time, self.now()):
                reports.hours.setdefault(hour, {})[channel] = None
        seen = self._latest.get(channel)
        ahead = seen is not None and seen.time > self.now()  # the clock was, and is not any more
        if channel in self._watched and (seen is None or seen.time <= time or ahead):
            self._latest[channel] = _Seen(reading.value, time)
        if channel not in self._elements:
            return
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
            at(datetime.fromtimestamp(run[0] * 60, self.zone))
            + frames.step(step)
            + _code(element)
            + self.series(element, [values[minute] for minute in run])
            for run in runs
        ]

    @staticmethod
    def series(element: Sl651Element, values: Sequence[float | None]) -> bytes:
        """Definition and data of a uniform report."""
        return frames.series([_scaled(element, value) for value in values], *_format(element))

    @staticmethod
    def width(element: Sl651Element) -> int:
        """Bytes of one of its values, at least."""
        return (_format(element)[0] + 1) // 2

    def element_of(self, code: bytes) -> Sl651Element | None:
        return next((each for each in self._elements.values() if _code(each) == code), None)

    def groups_of(self, code: bytes) -> Sl651Element | None:
        return next((each for each in self.hours.elements.values() if _code(each) == code), None)

    def latest(self, channel: str) -> tuple[bool, float | None]:
        """Whether there was a reading since the start, and its value."""
        seen = self._latest.get(channel)
        return seen is not None, None if seen is None else seen.value

    def present(self, wanted: set[bytes] | None = None) -> bytes:
        """The newest values, of the elements asked for, each behind the minute it was observed in."""
        by_minute: dict[str, dict[str, float | None]] = {}
        for channel, seen in sorted(self._latest.items(), key=lambda item: item[1].time):
            if channel not in self._elements:
                continue
            if wanted is None or _code(self._elements[channel]) in wanted:
                by_minute.setdefault(f"{seen.time:%y%m%d%H%M}", {})[channel] = seen.value
        return b"".join(self._observed(minute, values) for minute, values in by_minute.items())

    def _observed(self, minute: str, values: Mapping[str, float | None]) -> bytes:
        body = b"\xf0\xf0" + frames.bcd(minute) if values else b""
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
        self._awaited: tuple[int, int] | None = None  # function and serial number of the report that is out
        self._answer: asyncio.Future[frames.Down] | None = None
        self._answers = Answers(dialect, self._send)
        self._questions: asyncio.Queue[frames.Down] = asyncio.Queue(_MOST_QUESTIONS)

    async def deliver(self, parcels: Sequence[Parcel]) -> None:
        its = self._dialect
        for parcel in parcels:
            function, _, rest = parcel.name.partition("@")
            hour, *channels = rest.split(" ")
            groups = await its.hours.groups(channels, hour) if hour else b""
            if groups or parcel.payload:
                await self._report(int(function, 16), groups + parcel.payload)
            for channel in channels:
                its.hours.told(channel, hour)

    async def _report(self, function: int, observed: bytes) -> None:
        its = self._dialect
        serial = its.next_serial()
        refusals = 0
        for _ in range(_ATTEMPTS):
            answer = await self._sent(function, serial, observed)
            if answer is not None and answer.end != frames.NAK:
                return
            refusals += answer is not None
        if refusals:
            raise Refused(f"the centre answers NAK to report {function:02X}")
        raise ConnectionError(f"no confirmation of report {function:02X} after {_ATTEMPTS} attempts")

    async def _sent(self, function: int, serial: int, observed: bytes) -> frames.Down | None:
        """Send it; the confirmation of this very report, or None when none comes in time."""
        its = self._dialect
        self._awaited, self._answer = (function, serial), asyncio.get_running_loop().create_future()
        self._send(function, frames.report(its.station, its.kind, serial, its.now(), observed))
        try:
            async with asyncio.timeout(its.table.reply_deadline_s):
                return await self._answer
        except TimeoutError:
            return None
        finally:
            self._awaited = None

    def _send(self, function: int, body: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError("the centre has closed the connection")
        self._writer.write(frames.up(self._dialect.station, function, body))

    async def watch(self) -> Never:
        works = {"listen": self._listen, "keep-alive": self._keep_alive, "answers": self._answer_questions}
        where = self._dialect.where
        tasks = [asyncio.create_task(work(), name=f"{name} {where}") for name, work in works.items()]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        for task in ended:
            task.result()
        raise ConnectionError("nobody listens any more")  # not reached: none of them ends but by raising

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
                if not self._questions.full():
                    self._questions.put_nowait(said)
            elif (said.function, said.serial) == self._awaited:
                assert self._answer is not None
                if not self._answer.done():
                    self._answer.set_result(said)

    async def _answer_questions(self) -> Never:
        """One after the other, beside the reports, which must not wait for them."""
        while True:
            said = await self._questions.get()
            with suppress(ConnectionResetError, StoreError):  # the listener says the one, the store the other
                await self._answers.asked(said)


def _pieces(values: Mapping[str, float | None]) -> list[tuple[bool, dict[str, float | None]]]:
    """As many as one report holds; whether it is the first."""
    rows = list(values.items())
    return [
        (at == 0, dict(rows[at : at + _MOST_ELEMENTS])) for at in range(0, max(1, len(rows)), _MOST_ELEMENTS)
    ]


def _named(function: int, minute: str, reports: _Reports | None) -> str:
    is_full = function == frames.HOURLY and minute.endswith("00")
    channels = reports.hours.get(minute[:-2], ()) if reports is not None and is_full else ()
    return " ".join([f"{function:02X}@{minute[:-2]}", *channels]) if channels else f"{function:02X}"


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
