"""Modbus devices made from profiles, polled and written over a real pseudo-terminal."""

from __future__ import annotations

import asyncio
import itertools
import math
import tomllib
from typing import TYPE_CHECKING

import pytest

from drivers.contract import BadReply, NoReply, Refused
from drivers.modbus import ModbusDevice, read_pdu, write_pdu
from drivers.profile import load, read_profile
from drivers.sample import Quality
from tests.drivers.rtu_server import Mode, RtuServer, adu, answer, word

if TYPE_CHECKING:
    from drivers.line import Line

LOGGER = """
schema = 1
id = "logger"
title = "A logger that measures when told to and answers first with what it measured last"
source = [{ doc = "made for this test", trust = "inferred" }]
speaks = "modbus"
[bus]
timeout = "50 ms"
slowest_reply = "100 ms"
[cycle]
steps = [{ write = "trigger", value = 1 }, { wait = "20 ms" }, { discard = "first" }, { read = "first" }, { read = "second" }]
[block.first]
fn = 3
at = 100
n = 2
[block.second]
fn = 4
at = 7
n = 1
[point.one]
in = "first"
at = 100
type = "u16"
scale = 0.1
unit = "Hz"
[point.two]
in = "first"
at = 101
type = "u16"
unit = "Hz"
[point.three]
in = "second"
at = 7
type = "u16"
unit = "degC"
[write.trigger]
fn = 6
at = 280
"""

RELAY = """
schema = 1
id = "relay"
title = "Two relays, a setpoint, and something that cannot be read back"
source = [{ doc = "made for this test", trust = "inferred" }]
speaks = "modbus"
[bus]
timeout = "50 ms"
slowest_reply = "100 ms"
[block.relays]
fn = 1
at = 0
n = 2
[block.settings]
fn = 3
at = 64
n = 1
[point.relay]
in = "relays"
at = 0
repeat = 2
type = "bit"
unit = ""
[point.setting]
in = "settings"
at = 64
type = "u16"
unit = ""
[write.relay]
fn = 5
at = 0
repeat = 2
on = 0xFF00
off = 0
verify = "relay"
[write.setting]
fn = 6
at = 64
on = 1234
verify = "setting"
[write.blind]
fn = 16
at = 70
on = 1
off = 0
"""


class Ticking:
    """Stamps that count, so that a test sees when they were taken."""

    def __init__(self) -> None:
        self._wall, self._mono = itertools.count(1000), itertools.count(50)

    def wall_ns(self) -> int:
        return next(self._wall)

    def monotonic_ns(self) -> int:
        return next(self._mono)


class Relays:
    """What the relay board does with requests."""

    def __init__(self) -> None:
        self.coils, self.setting, self.stuck = [0, 0], 0, False

    def __call__(self, request: bytes) -> list[tuple[float, bytes]]:
        unit, fn, at, value = (
            *request[:2],
            int.from_bytes(request[2:4], "big"),
            int.from_bytes(request[4:6], "big"),
        )
        if fn == 1:
            return [(0.0, adu(unit, bytes((1, 1, self.coils[0] | self.coils[1] << 1))))]
        if fn == 3:
            return [(0.0, adu(unit, b"\x03\x02" + self.setting.to_bytes(2, "big")))]
        if not self.stuck and fn == 5:
            self.coils[at] = value >> 8 & 1
        elif not self.stuck:
            self.setting = value
        return [(0.0, request)]


def device(text: str, unit: int = 5) -> ModbusDevice:
    name = tomllib.loads(text)["id"]
    return ModbusDevice("d1", read_profile(text.encode(), name, name).compile("d1"), unit, Ticking())


async def test_a_poll_goes_through_the_cycle_and_yields_a_frame_per_block(
    server: RtuServer, line: Line
) -> None:
    logger = device(LOGGER)
    begun = asyncio.get_running_loop().time()
    first, second = await logger.poll(line, 77)
    assert asyncio.get_running_loop().time() - begun >= 0.02
    assert [(r[1], r[3]) for r in server.requests] == [(6, 280 - 256), (3, 100), (3, 100), (4, 7)]
    assert (first.block, second.block) == logger.blocks
    assert first.block.points == ("one", "two")
    one, two = word(5, 3, 100), word(5, 3, 101)
    assert list(first.numbers) == [one, two]
    assert list(first.values) == pytest.approx([one / 10, two])
    assert first.qualities == bytes((Quality.GOOD,) * 2)
    assert (first.tick_ns, first.time_ns, first.mono_ns) == (77, 1000, 50)
    assert (second.time_ns, second.mono_ns) == (1001, 51)


@pytest.mark.parametrize(("code", "quality"), [(2, Quality.REFUSED), (6, Quality.BUSY)])
async def test_a_refused_block_does_not_cost_the_others_theirs(
    server: RtuServer, line: Line, code: int, quality: Quality
) -> None:
    def plan(request: bytes) -> list[tuple[float, bytes]]:
        return [(0.0, adu(5, bytes((0x83, code))) if request[1] == 3 else answer(request))]

    server.plan = plan
    first, second = await device(LOGGER).poll(line, 0)
    assert first.qualities == bytes((quality,) * 2)
    assert all(math.isnan(v) for v in first.values)
    assert second.qualities == bytes((Quality.GOOD,))


async def test_a_refused_trigger_means_that_nothing_was_measured(server: RtuServer, line: Line) -> None:
    server.plan = lambda request: [(0.0, adu(5, b"\x86\x04") if request[1] == 6 else answer(request))]
    with pytest.raises(Refused, match="exception 4"):
        await device(LOGGER).poll(line, 0)


async def test_silence_ends_the_poll(server: RtuServer, line: Line) -> None:
    server.plan = lambda request: [] if request[1] == 3 else [(0.0, answer(request))]
    with pytest.raises(NoReply):
        await device(LOGGER).poll(line, 0)
    assert len(server.requests) == 2


async def test_the_sites_deadline_replaces_the_profiles(server: RtuServer, line: Line) -> None:
    server.plan = lambda request: [(0.1, answer(request))]
    compiled = read_profile(LOGGER.encode(), "logger", "logger").compile("d1")
    patient = ModbusDevice("d1", compiled, 5, Ticking(), timeout_s=1.0)
    assert len(await patient.poll(line, 0)) == 2


async def test_the_raw_words_of_a_point_are_those_on_the_wire(server: RtuServer, line: Line) -> None:
    logger = device(LOGGER)
    first, second = await logger.poll(line, 0)
    assert logger.words("two", first) == (word(5, 3, 101),)
    assert logger.words("three", second) == (word(5, 4, 7),)
    assert logger.words("three", first) == ()
    server.plan = Relays()
    board = device(RELAY)
    await board.write(line, "relay2", True)
    relays, _ = await board.poll(line, 0)
    assert (board.words("relay1", relays), board.words("relay2", relays)) == ((0,), (1,))


def test_the_watchdog_waits_for_a_logger_that_measures_for_minutes() -> None:
    """Both blocks of a VTN in command mode may take 140 s each: a core ended in between would never read it."""
    logger = load("wenkon-vtn416").compile("vw1", {"freq01", "temp01"})
    assert ModbusDevice("vw1", logger, 1, Ticking()).longest_s == 280.0
    assert device(LOGGER).longest_s == pytest.approx(4 * 0.1 + 0.02)  # trigger, discard, two blocks; a wait
    assert device(RELAY).longest_s == 0.2


async def test_a_write_is_done_when_it_reads_back(server: RtuServer, line: Line) -> None:
    relays = Relays()
    server.plan = relays
    board = device(RELAY)
    await board.write(line, "relay2", True)
    assert relays.coils == [0, 1]
    await board.write(line, "relay2", False)
    assert relays.coils == [0, 0]
    await board.write(line, "setting", True)
    assert relays.setting == 1234
    assert [r[1] for r in server.requests] == [5, 1, 5, 1, 6, 3]


async def test_a_write_that_reads_back_otherwise_is_a_bad_reply(server: RtuServer, line: Line) -> None:
    relays = Relays()
    server.plan, relays.stuck = relays, True
    with pytest.raises(BadReply, match="relay1 of d1 was switched on but relay1 reads 0 instead of 1"):
        await device(RELAY).write(line, "relay1", True)
    with pytest.raises(BadReply, match="setting reads 0 instead of 1234"):
        await device(RELAY).write(line, "setting", True)


async def test_a_write_nobody_can_see_is_done_and_said(server: RtuServer, line: Line) -> None:
    blind = b"\x10\x00\x46\x00\x01"
    server.plan = lambda request: []
    seen: list[bytes] = []
    line.on_trace = lambda direction, _time_ns, bytes_: seen.append(bytes_)
    asyncio.get_running_loop().remove_reader(server.master)
    asyncio.get_running_loop().call_later(0.02, server.send, adu(5, blind))
    with pytest.raises(BadReply, match="was written, but its profile names no point that shows it"):
        await device(RELAY).write(line, "blind", True)
    assert seen == [adu(5, blind + b"\x02\x00\x01"), adu(5, blind)]


async def test_what_cannot_be_switched_is_refused_before_the_wire(server: RtuServer, line: Line) -> None:
    with pytest.raises(ValueError, match="setting of d1 has no value for off"):
        await device(RELAY).write(line, "setting", False)
    with pytest.raises(KeyError):
        await device(RELAY).write(line, "siren", True)
    assert server.requests == []


def test_requests_out_of_range_are_refused_at_configuration() -> None:
    assert read_pdu(1, 0x13, 19) == b"\x01\x00\x13\x00\x13"
    assert write_pdu(5, 0xAC, 0xFF00) == b"\x05\x00\xac\xff\x00"
    assert write_pdu(6, 1, 3) == b"\x06\x00\x01\x00\x03"
    assert write_pdu(16, 1, 10) == b"\x10\x00\x01\x00\x01\x02\x00\x0a"
    with pytest.raises(ValueError, match="125"):
        read_pdu(3, 0, 126)
    with pytest.raises(ValueError, match="65535"):
        read_pdu(3, 65536, 1)


def test_the_bus_time_of_a_poll_is_that_of_its_characters() -> None:
    """125 registers at 9600 8E1: 8 + 5 + 250 characters of 11 bits are 301 ms, and 3.5 characters before."""
    text = LOGGER.partition("[cycle]")[0] + (
        'bridge_holes = true\n[block.all]\nfn = 3\nat = 0\nn = 125\n[point.p]\nin = "all"\nat = 0\ntype = "u16"\nrepeat = 99\nunit = ""\n'
    )
    mode = Mode(9600, 8, "E", 1.0)
    assert device(text).wire_seconds(mode) == pytest.approx(0.301 + 3.5 * 11 / 9600, abs=0.001)
    relays = 8 + 5 + 1 + 3.5 + 8 + 5 + 2 + 3.5
    assert device(RELAY).wire_seconds(mode) == pytest.approx(relays * 11 / 9600)
    cycle = (8 + 8) + 2 * (8 + 5 + 4) + (8 + 5 + 2) + 4 * 3.5
    assert device(LOGGER).wire_seconds(mode) == pytest.approx(cycle * 11 / 9600)
