"""SL 651 over TCP: public frames, and a centre written from the standard's table alone."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from daemon.clock import Clock
from daemon.spool import Spool
from daemon.uplink import sl651_frames as frames
from daemon.uplink.dialect_uplink import DialectUplink
from daemon.uplink.dialects import build
from daemon.uplink.past import StoredPast
from hardware_sim.ports import free_port
from tests.daemon.dialects import NOON_NS, alarm, reading, readings, table, whole
from tests.system.running import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from daemon.batch import Draft, Mode

STATION, PASSWORD, CENTRE = "0011223344", "03E8", 5


# -- the other side, from the table of the standard ----------------------------------------------------


def checksum(data: bytes) -> bytes:
    """Bit by bit: reflected A001, from FFFF, high byte first."""
    register = 0xFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ 0xA001 if register & 1 else register >> 1
    return bytes([register >> 8, register & 0xFF])


class Up(NamedTuple):
    function: int
    serial: int
    sent: str
    observed: str
    elements: dict[str, Any]


def taken_apart(frame: bytes) -> Up:
    assert frame[:2] == b"\x7e\x7e"
    assert frame[2] == CENTRE
    assert frame[3:8].hex() == STATION
    assert frame[8:10].hex().upper() == PASSWORD
    assert frame[13] == 0x02
    assert frame[-3] == 0x03
    assert checksum(frame[:-2]) == frame[-2:]
    body = frame[14:-3]
    assert len(body) == (frame[11] & 0x0F) << 8 | frame[12]
    serial, sent, rest = int.from_bytes(body[:2], "big"), body[2:8].hex(), body[8:]
    if not rest:
        return Up(frame[10], serial, sent, "", {})
    assert rest[:2] == b"\xf1\xf1"
    assert rest[2:7].hex() == STATION
    if len(rest) == 7:
        return Up(frame[10], serial, sent, "", {})
    if frame[10] == 0x46:  # table 60: no class and no time, the four bytes of table 58 behind their element
        assert rest[7:9].hex() == "4520"
        assert len(rest) == 13
        return Up(frame[10], serial, sent, "", {"45": int.from_bytes(rest[9:], "big")})
    assert rest[8:10] == b"\xf0\xf0"
    observed, rest = rest[10:15].hex(), rest[15:]
    if frame[10] in (0x31, 0x38):
        return Up(frame[10], serial, sent, observed, uniform(observed, rest))
    elements: dict[str, Any] = {}
    minute = observed
    while rest:
        if rest[:2] == b"\xf0\xf0":  # what follows was observed in another minute
            minute, rest = rest[2:7].hex(), rest[7:]
            continue
        if 0xF4 <= rest[0] <= 0xFC:
            size = 12 if rest[0] == 0xF4 else 24
            assert rest[1] == size << 3
            elements[f"{rest[0]:02X}@{minute}"] = groups(rest[0], rest[2 : 2 + size])
            rest = rest[2 + size :]
            continue
        size = 2 if rest[0] == 0xFF else 1
        code, definition, rest = rest[:size].hex().upper(), rest[size], rest[size + 1 :]
        data, rest = rest[: definition >> 3], rest[definition >> 3 :]
        elements[code] = number(data, definition & 7)
    return Up(frame[10], serial, sent, observed, elements)


def groups(code: int, data: bytes) -> list[float | None]:
    """Table C.1: rain in tenths of a millimetre, one byte each; levels in centimetres, two each; all F: none."""
    size = 1 if code == 0xF4 else 2
    each = [data[at : at + size] for at in range(0, len(data), size)]
    assert len(each) == 12
    return [
        None if set(group) == {0xFF} else int.from_bytes(group, "big") / (10 if size == 1 else 100)
        for group in each
    ]


def uniform(observed: str, rest: bytes) -> dict[str, Any]:
    """Element, `@` and the minute it was observed in: from the first, step by step."""
    assert rest[:2] == b"\x04\x18"
    days, hours, minutes = (int(rest[at : at + 1].hex()) for at in (2, 3, 4))
    step, rest = timedelta(days=days, hours=hours, minutes=minutes), rest[5:]
    size = 2 if rest[0] == 0xFF else 1
    code, definition, rest = rest[:size].hex().upper(), rest[size], rest[size + 1 :]
    width, said = definition >> 3, {}
    if not step:  # table C.1, note g: groups of whole hours
        assert definition == {"F4": 0x60}.get(code, 0xC0)
        each = range(0, len(rest), width)
        return {f"{code}@{observed}": [groups(int(code, 16), rest[at : at + width]) for at in each]}
    time = datetime.strptime(observed, "%y%m%d%H%M").replace(tzinfo=UTC)
    assert len(rest) % width == 0
    while rest:
        said[f"{code}@{time:%y%m%d%H%M}"] = number(rest[:width], definition & 7)
        time, rest = time + step, rest[width:]
    return said


def number(data: bytes, decimals: int) -> float | None:
    if set(data) == {0xFF}:
        return None
    sign, digits = (-1, data[1:]) if data[0] == 0xFF else (1, data)
    return float(sign * int(digits.hex()) / 10.0**decimals)


def order(function: int, serial: int, end: int, rest: str = "", password: str = PASSWORD) -> bytes:
    body = serial.to_bytes(2, "big") + bytes.fromhex("261126120000" + rest)
    head = bytes.fromhex(f"7E7E{STATION}{CENTRE:02X}{password}{function:02X}")
    frame = head + (0x8000 | len(body)).to_bytes(2, "big") + b"\x02" + body + bytes([end])
    return frame + checksum(frame)


class Centre:
    """Listens, takes apart, confirms; or does what `answer` says."""

    def __init__(self) -> None:
        self.port = free_port()
        self.heard: list[Up] = []
        self.ends: list[int | None] = []  # of the next answers; None: silence
        self.writer: asyncio.StreamWriter | None = None
        self._sessions: set[asyncio.Task[Any]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        session = asyncio.current_task()
        assert session is not None
        self._sessions.add(session)
        try:
            await self._listen(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the station has gone, or the test ends
        finally:
            self._sessions.discard(session)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readexactly(14)
            size = (head[11] & 0x0F) << 8 | head[12]
            said = taken_apart(head + await reader.readexactly(size + 3))
            self.heard.append(said)
            if said.function in (0x30, 0x31, 0x32, 0x33, 0x34):
                end = self.ends.pop(0) if self.ends else 0x1B
                if end is not None:
                    writer.write(order(said.function, said.serial, end))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Centre]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            sessions = list(self._sessions)
            for session in sessions:
                session.cancel()
            await asyncio.gather(*sessions, return_exceptions=True)

    def reports(self, *functions: int) -> list[Up]:
        return [each for each in self.heard if each.function in functions]

    async def tell(self, frame: bytes) -> None:
        assert self.writer is not None
        self.writer.write(frame)
        await self.writer.drain()


class Afternoon(Clock):
    """It is 16:00 in Shandong on the day of the readings."""

    def wall_ns(self) -> int:
        return NOON_NS + 4 * 3600 * 10**9


@asynccontextmanager
async def reporting(spool: Spool, centre: Centre, **more: Any) -> AsyncIterator[DialectUplink]:
    settings: dict[str, Any] = {
        "id": "hydrology",
        "address": f"127.0.0.1:{centre.port}",
        "centre": CENTRE,
        "station": STATION,
        "password": PASSWORD,
        "station_class": "4B",
        "keep_alive": "500 ms",
        "reply_deadline": "1 s",
        "element": [
            {"channel": "n.pond.level", "element": "3B"},
            {"channel": "n.g01.north", "element": "FF01", "digits": 6, "decimals": 3},
        ],
    } | more
    site = whole({"site": {"id": "s", "gateway": "g"}, "uplink": [{"kind": "sl651", **settings}]})
    dialect = build(site.uplinks[0], site, Afternoon(), past=StoredPast(spool))  # type: ignore[arg-type]
    uplink = DialectUplink(table("sl651", settings), dialect, spool, Clock(), reconnect_most_s=0.1)
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settled(uplink: DialectUplink) -> bool:
    return (await uplink.unsettled()).batches == 0


# -- frames --------------------------------------------------------------------------------------------


def test_public_frames_come_out_to_the_byte() -> None:
    """Frames published with an open implementation of the standard."""
    station = frames.Station(1, bytes.fromhex("0012345678"), bytes.fromhex("1234"))
    alive = frames.up(station, frames.KEEP_ALIVE, bytes.fromhex("0003591011155111"))
    assert alive.hex().upper() == "7E7E01001234567812342F0008020003591011155111036BCA"
    station = frames.Station(5, bytes.fromhex("0011223344"), bytes.fromhex("03E8"))
    observed = bytes.fromhex("F0F01707181100")
    for code, value in ((0x20, 4.0), (0x26, 4.0), (0x39, 10.49), (0x38, 10.99)):
        observed += bytes([code]) + frames.value(value, *frames.STANDARD[code])
    moment = datetime(2017, 7, 18, 11, 0, 16)  # noqa: DTZ001 -- as the frame has it
    body = frames.report(station, b"\x48", 0x34, moment, observed)
    assert frames.up(station, frames.TIMED, body).hex().upper() == (
        "7E7E05001122334403E832002B020034170718110016F1F1001122334448F0F01707181100"
        "201900004026190000403923000104903812109903A421"
    )


def test_a_uniform_report_is_that_of_the_standard_s_table() -> None:
    """A step of 5 min: 04 18, days, hours, minutes; one definition; each datum as long as the others."""
    assert frames.step(5).hex() == "0418000005"
    assert frames.step(1440).hex() == "0418010000"
    assert frames.series([0.5, None, 12.0], 5, 1).hex() == "19" + "000005" + "ffffff" + "000120"
    mixed = frames.series([1.0, -2.5, None], 6, 3)
    assert mixed.hex() == "23" + "00001000" + "ff002500" + "ffffffff"
    assert [number(mixed[at : at + 4], 3) for at in (1, 5, 9)] == [1.0, -2.5, None]


@pytest.mark.parametrize(
    ("value", "digits", "decimals", "said"),
    [(84.2035, 7, 3, 84.204), (0.0, 5, 1, 0.0), (-12.5, 6, 3, -12.5), (-0.0001, 6, 3, 0.0), (None, 7, 3, None),
     (float("nan"), 5, 1, None), (99999.95, 5, 1, None), (9999.9, 5, 1, 9999.9)],
)  # fmt: skip
def test_a_value_is_said_exactly_or_said_to_be_missing(
    value: float | None, digits: int, decimals: int, said: float | None
) -> None:
    data = frames.value(value, digits, decimals)
    assert data[0] & 7 == decimals
    assert data[0] >> 3 == len(data) - 1
    assert number(data[1:], decimals) == said


def test_rain_beyond_a_byte_counts_in_the_next_five_minutes_and_what_is_not_known_is_all_f() -> None:
    rain = frames.groups(0xF4, [0.0, 0.5, 30.0, 1.0, None, 26.0, None, 25.4, 60.0, 0.0, 0.0, 0.0])
    assert groups(0xF4, rain) == [0.0, 0.5, 25.4, 5.6, None, 25.4, None, 25.4, 25.4, 25.4, 9.8, 0.0]
    levels = frames.groups(0xF5, [4.21, 0.0, -0.01, None, 655.34, 655.35, *[1.0] * 6])
    assert groups(0xF5, levels) == [4.21, 0.0, None, None, 655.34, None, *[1.0] * 6]


def test_a_stretch_is_asked_as_the_standard_s_table_44_has_it() -> None:
    asked = frames.stretch(bytes.fromhex("26112608" + "26112612" + "0418000005" + "3B23"))
    assert asked == (datetime(2026, 11, 26, 8), datetime(2026, 11, 26, 12), 5, b"\x3b")  # noqa: DTZ001 -- the centre's
    assert frames.stretch(bytes.fromhex("26112608261126120418010000FF0123")).step_minutes == 1440
    assert frames.stretch(bytes.fromhex("26112608261126120418000000F460")).step_minutes == 0
    for wrong in (
        "", "26112608", "261126082611261204180000053B", "2611260826112612041800000A3B23",
        "26112608261126120418010100" + "3B23", "2611261226112608" + "0418000005" + "3B23",
        "26113208261132120418000005" + "3B23", "26112608261126120518000005" + "3B23",
        "26112608261126120418000005" + "3B2339", "26112608261126120418000005" + "FF01",
    ):  # fmt: skip
        with pytest.raises(frames.Broken):
            frames.stretch(bytes.fromhex(wrong))


# -- a station and its centre --------------------------------------------------------------------------


async def test_every_report_is_confirmed_once_in_effect_through_silence_refusal_and_a_lost_line(
    tmp_path: Path,
) -> None:
    centre = Centre()
    centre.ends = [None, 0x1B, 0x15, 0x15, 0x06, 0x04]
    async with Spool.open(tmp_path / "store", "real", "boot") as spool, reporting(spool, centre) as uplink:
        for n in range(12):
            await spool.commit(
                [readings(reading("n.pond.level", 84 + n / 100, f"2026-11-26T04:{10 + n}:00.000Z"))]
            )
        async with centre.listening():
            await until(lambda: len(centre.reports(0x32)) > 6, "it reports")
        async with centre.listening():  # the line was lost; it comes again
            await until(lambda: settled(uplink), "all is settled")
            await until(lambda: len(centre.reports(0x2F)) > 3, "and keeps the line alive")
    told = centre.reports(0x32)
    assert {(each.observed, each.elements["3B"]) for each in told} == {
        (f"2611261 2{10 + n}".replace(" ", ""), 84 + n / 100) for n in range(12)
    }
    first = [each for each in told if each.serial == told[0].serial]
    assert len(first) >= 2  # unconfirmed, it was said again under the same number


async def test_alarms_hours_and_tests_have_reports_of_their_own(tmp_path: Path) -> None:
    centre = Centre()
    async with (
        centre.listening(),
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        reporting(spool, centre) as uplink,
    ):
        await spool.commit([readings(reading("n.pond.level", 84.5, "2026-11-26T04:00:10.000Z"))])
        await spool.commit([alarm(channel="n.pond.level", value=84.9)])
        await until(lambda: settled(uplink), "settled")
        assert [each.elements for each in centre.reports(0x34)] == [{"3B": 84.5}]
        assert [each.elements for each in centre.reports(0x33)] == [{"3B": 84.9}]
    centre.heard.clear()
    async with (
        centre.listening(),
        Spool.open(tmp_path / "other", "test", "boot") as spool,
        reporting(spool, centre) as uplink,
    ):
        await spool.commit([readings(reading("n.g01.north", -12.5, "2026-11-26T04:00:10.000Z", "mm"))])
        await until(lambda: settled(uplink), "settled")
        assert not centre.reports(0x32, 0x33, 0x34)
        assert [each.elements for each in centre.reports(0x30)] == [{"FF01": -12.5}]


async def test_what_is_measured_on_its_step_goes_as_uniform_reports(tmp_path: Path) -> None:
    centre = Centre()
    level = {"channel": "n.pond.level", "element": "3B", "step": "10 min"}
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        for minute in (10, 20, 30, 33, 50):
            at = f"2026-11-26T04:{minute}:00.200Z"
            await spool.commit([readings(reading("n.pond.level", None if minute == 20 else minute, at))])
        async with centre.listening(), reporting(spool, centre, element=[level]) as uplink:
            await until(lambda: settled(uplink), "settled")
    assert [each.elements for each in centre.reports(0x32)] == [{"3B": 33.0}]
    assert [each.elements for each in centre.reports(0x31)] == [
        {"3B@2611261210": 10.0, "3B@2611261220": None, "3B@2611261230": 30.0},
        {"3B@2611261250": 50.0},
    ]


async def test_the_clock_is_set_by_the_program_that_the_site_file_names(tmp_path: Path) -> None:
    program, called = tmp_path / "set-clock", tmp_path / "called"
    program.write_text(f'#!/bin/sh\necho "$1" >> {called}\n[ $(wc -l < {called}) -lt 2 ]\n')
    program.chmod(0o755)
    centre = Centre()
    async with (
        centre.listening(),
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        reporting(spool, centre, clock_program=str(program)),
    ):
        await until(lambda: centre.reports(0x2F), "it is there")
        await centre.tell(order(0x4A, 9, 0x05))
        (answer,) = await until(lambda: centre.reports(0x4A), "answered")
        assert answer.serial == 9
        assert called.read_text() == "2026-11-26T12:00:00+08:00\n"
        await centre.tell(order(0x4A, 10, 0x05))  # the program fails now: no answer
        await until(lambda: called.read_text().count("\n") == 2, "called again")
        await centre.tell(order(0x51, 11, 0x05))
        await until(lambda: centre.reports(0x51), "the clock is told behind it")
        assert len(centre.reports(0x4A)) == 1


async def test_questions_are_answered_and_the_clock_is_not_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    centre = Centre()
    async with (
        centre.listening(),
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        reporting(spool, centre) as uplink,
    ):
        rows = (
            reading("n.pond.level", 84.5, "2026-11-26T04:10:10.000Z"),
            reading("n.g01.north", -12.5, "2026-11-26T04:12:10.000Z"),
            reading("n.pond.level", 80.0, "2026-11-26T03:10:10.000Z"),  # late, of an outage
        )
        await spool.commit([readings(*rows)])
        await until(lambda: settled(uplink), "settled")
        await centre.tell(order(0x37, 7, 0x05))
        (now,) = await until(lambda: centre.reports(0x37), "present values")
        assert (now.serial, now.elements) == (7, {"3B": 84.5, "FF01": -12.5})
        await centre.tell(order(0x3A, 8, 0x05, rest="FF011B"))
        (some,) = await until(lambda: centre.reports(0x3A), "the element asked for")
        assert some.elements == {"FF01": -12.5}
        await centre.tell(order(0x4A, 9, 0x05))
        await until(lambda: "setting the clock is refused" in caplog.text, "refused")
        await centre.tell(order(0x51, 10, 0x05))
        (clock,) = await until(lambda: centre.reports(0x51), "the clock")
        assert clock.sent[:4] != "2611" or clock.sent[4:] != "26120000"
        assert not centre.reports(0x4A)
        assert {each.serial for each in centre.reports(0x2F)} <= {
            1,
            *(each.serial for each in centre.reports(0x32)),
        }
        connections = uplink.counters.connections
        await centre.tell(order(0x37, 11, 0x05, password="0000"))
        await until(
            lambda: uplink.counters.connections > connections, "a stranger's frame ends the connection"
        )
        assert len(centre.reports(0x37)) == 1


RAIN_AND_LEVEL = [
    {"channel": "n.rain.five", "element": "F4"},
    {"channel": "n.pond.level", "element": "F5", "base": 80.0},
    {"channel": "n.pond.level", "element": "3B"},
]


def taken(*rows: dict[str, Any], mode: Mode | None = None) -> Draft:
    """A batch committed when its readings were made."""
    moment = datetime.fromisoformat(rows[-1]["time"])
    return replace(readings(*rows), time_ns=int(moment.timestamp()) * 10**9, mode=mode)


async def five_minutes(spool: Spool, hour: int, minutes: range) -> None:
    """Rain and level every five minutes; no rain is known at the half hour."""
    for minute in minutes:
        at = f"2026-11-26T{hour:02d}:{minute:02d}:00.300Z"
        rain = None if minute == 30 else minute / 10
        await spool.commit([taken(reading("n.rain.five", rain, at, "mm"))])
        await spool.commit([taken(reading("n.pond.level", 84.0 + minute / 100, at))])


async def test_an_hour_is_told_in_twelve_groups_once_its_last_five_minutes_are_there(tmp_path: Path) -> None:
    centre = Centre()
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        await five_minutes(spool, 3, range(40, 60, 5))
        async with centre.listening(), reporting(spool, centre, element=RAIN_AND_LEVEL) as uplink:
            await five_minutes(spool, 4, range(0, 60, 5))
            await until(lambda: settled(uplink), "settled")
            hourly = {key: value for up in centre.reports(0x34) for key, value in up.elements.items()}
            assert hourly.pop("3B") == 84.0
            assert hourly == {
                "F4@2611261105": [*[None] * 7, 4.0, 4.5, 5.0, 5.5, 0.0],
                "F5@2611261105": [*[None] * 7, 4.4, 4.45, 4.5, 4.55, 4.0],
            }
            centre.heard.clear()
            await five_minutes(spool, 5, range(0, 5, 5))
            await until(lambda: settled(uplink), "settled")
            hourly = {key: value for up in centre.reports(0x34) for key, value in up.elements.items()}
            assert hourly["F4@2611261205"] == [None if n == 30 else n / 10 for n in range(5, 60, 5)] + [0.0]
            assert hourly["F5@2611261205"] == [4.0 + n / 100 for n in range(5, 60, 5)] + [4.0]
            assert {up.observed for up in centre.reports(0x34)} <= {"2611261205", "2611261300"}
            assert centre.reports(0x34)[0].observed == "2611261205", "the time of the first group"


async def test_an_hour_whose_end_nobody_measured_is_told_by_the_next_process(tmp_path: Path) -> None:
    centre = Centre()
    rain = [{"channel": "n.rain.five", "element": "F4"}]
    async with Spool.open(tmp_path / "store", "real", "boot") as spool, centre.listening():
        async with reporting(spool, centre, element=rain) as uplink:
            await five_minutes(spool, 4, range(5, 50, 5))
            await until(lambda: settled(uplink), "settled")
        assert not centre.reports(0x34)
        async with reporting(spool, centre, element=rain) as uplink:  # off for three hours
            await five_minutes(spool, 7, range(40, 45, 5))
            await until(lambda: settled(uplink), "settled")
    (told,) = centre.reports(0x34)
    assert told.elements == {
        "F4@2611261205": [*[n / 10 for n in range(5, 30, 5)], None, 3.5, 4.0, 4.5, None, None, None]
    }


async def test_a_stretch_of_the_past_comes_out_of_the_store_and_state_and_alarms_of_what_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    centre = Centre()
    states = [
        {"bit": 0, "channel": "n.mains", "below": 0.5},
        {"bit": 1, "channel": "n.battery", "below": 11.5},
        {"bit": 2, "channel": "n.pond.level", "when": "alarm"},
        {"bit": 6, "channel": "n.pond.level", "when": "no-value"},
    ]
    more = {"element": RAIN_AND_LEVEL, "state": states, "unwatched": "00000481"}
    async with Spool.open(tmp_path / "store", "real", "boot") as spool, centre.listening():
        await five_minutes(spool, 3, range(0, 60, 5))
        await five_minutes(spool, 4, range(0, 60, 5))
        await spool.commit([taken(reading("n.pond.level", 99.0, "2026-11-26T03:20:30.000Z"), mode="test")])
        async with reporting(spool, centre, **more) as uplink:
            await until(lambda: settled(uplink), "settled")

            async def asked(function: int, rest: str = "") -> Up:
                before = len(centre.reports(function))
                await centre.tell(order(function, 9, 0x05, rest=rest))
                await until(lambda: len(centre.reports(function)) > before, "answered")
                return centre.reports(function)[-1]

            told = await asked(0x38, "2611261126112612" + "0418000014" + "3B23")
            assert told.elements == {
                "3B@2611261100": 84.0, "3B@2611261114": None, "3B@2611261128": None, "3B@2611261142": None,
                "3B@2611261156": None,
            }  # fmt: skip
            told = await asked(0x38, "2611261126112612" + "0418000020" + "3B23")
            assert told.elements == {
                "3B@2611261100": 84.0, "3B@2611261120": 84.2, "3B@2611261140": 84.4, "3B@2611261200": 84.0,
            }  # fmt: skip
            told = await asked(0x38, "2611261126112613" + "0418000000" + "F4" + "60")
            ((first, second),) = told.elements.values()
            assert told.observed == "2611261105"
            assert (first[0], second[10]) == (0.5, 5.5)
            assert second[11] is None
            for wrong in ("3923", "F560"):
                await centre.tell(order(0x38, 9, 0x05, rest="2611261126112612" + "0418000005" + wrong))
            await centre.tell(order(0x38, 9, 0x05, rest="2601012626112612" + "0418000005" + "3B23"))

            assert (await asked(0x46)).elements == {"45": 0b100_1000_0001}
            at = "2026-11-26T05:00:00.000Z"
            rows = [reading("n.mains", 1.0, at, ""), reading("n.battery", 11.0, at, "V")]
            await spool.commit([taken(*rows, reading("n.pond.level", None, at))])
            its = alarm(channel="n.pond.level", value=84.9)
            await spool.commit([its], alarms=[("a", b"{" + its.body + b"}")])
            await until(lambda: settled(uplink), "settled")
            assert (await asked(0x46)).elements == {"45": 0b100_1100_0110}
    assert "command 38: element 39 is not told here is refused" in caplog.text
    assert len(centre.reports(0x38)) == 3
    assert uplink.counters.connections == 1


async def test_a_clock_that_was_ahead_ends_no_hour_and_is_no_present(tmp_path: Path) -> None:
    centre = Centre()
    async with (
        centre.listening(),
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        reporting(spool, centre, element=RAIN_AND_LEVEL) as uplink,
    ):
        await five_minutes(spool, 4, range(5, 30, 5))
        for channel in ("n.pond.level", "n.rain.five"):
            await spool.commit([taken(reading(channel, 99.0, "2027-11-26T04:31:00.000Z"))])
        await five_minutes(spool, 4, range(35, 40, 5))
        await until(lambda: settled(uplink), "settled before the hour is over")
        await five_minutes(spool, 4, range(40, 60, 5))
        await five_minutes(spool, 5, range(0, 5, 5))
        await until(lambda: settled(uplink), "settled")
        await centre.tell(order(0x37, 7, 0x05))
        (now,) = await until(lambda: centre.reports(0x37), "present values")
        assert now.elements == {"3B": 84.0}
    told = [up.elements["F4@2611261205"] for up in centre.reports(0x34) if "F4@2611261205" in up.elements]
    assert told == [[0.5, 1.0, 1.5, 2.0, 2.5, None, 3.5, 4.0, 4.5, 5.0, 5.5, 0.0]]


async def test_no_report_outgrows_its_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"n.v{n}" for n in range(400)]
    many = [
        {"channel": name, "element": f"FF{n % 256:02X}", "digits": 18, "decimals": 3}
        for n, name in enumerate(names)
    ]
    centre = Centre()
    async with (
        centre.listening(),
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        reporting(spool, centre, element=many) as uplink,
    ):
        at = "2026-11-26T04:10:00.000Z"
        await spool.commit([readings(*(reading(name, n * 1e6, at) for n, name in enumerate(names)))])
        await until(lambda: settled(uplink), "settled")
        assert len(centre.reports(0x32)) == 4
        assert sum(len(each.elements) for each in centre.reports(0x32)) == 400
        await centre.tell(order(0x37, 7, 0x05))
        await until(lambda: "more present values than a frame" in caplog.text, "refused")
        assert uplink.counters.connections == 1


async def test_confirmations_of_answers_are_no_confirmations_of_reports(tmp_path: Path) -> None:
    centre = Centre()
    async with (
        centre.listening(),
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        reporting(spool, centre) as uplink,
    ):
        await until(lambda: centre.reports(0x2F), "it is there")
        for serial in range(40):
            await centre.tell(order(0x37, serial, 0x1B))
        await spool.commit([readings(reading("n.pond.level", 84.5, "2026-11-26T04:10:10.000Z"))])
        await until(lambda: settled(uplink), "settled")
        assert len(centre.reports(0x32)) == 1, "confirmed at once, though much else was said"
