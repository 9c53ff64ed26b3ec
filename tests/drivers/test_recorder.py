"""Recordings: what a line did under faults comes out again frame by frame; the ring keeps its size."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.clock import NS, Clock
from daemon.poller import PolledLine, PolledUnit
from daemon.taps import TappedObserver
from drivers import recorder, replay
from drivers.contract import WireError
from drivers.framing import RtuFraming
from drivers.modbus import ModbusDevice
from drivers.profile import read_profile
from drivers.recorder import FILES, PENDING_BYTES, Event, Header, Recorded, Ring, Tap, TappedLine, Unreadable
from drivers.replay import Differences
from drivers.sample import Quality
from drivers.wire import SerialWire
from tests.drivers.rtu_server import Mode, RtuServer, adu, answer

if TYPE_CHECKING:
    from pathlib import Path

    from drivers.sample import Frame
    from tests.drivers.rtu_server import Plan

HEADER = Header("rs485-1", "modbus-rtu", "9600 8N1", "test", (Recorded("a", "probe", 1),))
PROBE = """
schema = 1
id = "probe"
title = "Probe"
source = [{ doc = "this test", trust = "manual" }]
speaks = "modbus"
bus = { timeout = "40 ms", slowest_reply = "80 ms" }
[cycle]
steps = [{ write = "go", value = 1 }, { wait = "10 ms" }, { discard = "low" }, { read = "low" }, { read = "high" }]
[block.low]
fn = 3
at = 10
n = 2
[block.high]
fn = 4
at = 100
n = 4
[point.low]
in = "low"
at = 10
repeat = 2
type = "u16"
[point.high]
in = "high"
at = 100
repeat = 2
type = "f32"
order = "CDAB"
[write.go]
fn = 6
at = 7
"""


def device(name: str, unit: int, clock: Clock) -> ModbusDevice:
    return ModbusDevice(name, read_profile(PROBE.encode(), "probe", "probe").compile(name), unit, clock)


FAULTS = {Quality.GOOD, Quality.NO_REPLY, Quality.BAD_REPLY, Quality.REFUSED, Quality.BUSY}


class Witness:
    """An observer that keeps the frames."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    @property
    def seen(self) -> set[Quality]:
        return {Quality(q) for frame in self.frames for q in frame.qualities}

    def take(self, frame: Frame) -> None:
        self.frames.append(frame)

    def device_error(self, line: str, device: str, reason: str) -> None: ...

    def device_state(self, line: str, device: str, *, up: bool, error: str) -> None: ...

    def polled(self, line: str, seconds: float) -> None: ...

    def overrun(self, line: str, ticks: int) -> None: ...


class Faults:
    """Every kind of answer, half of them good; unit 3 never answers."""

    def __init__(self) -> None:
        self._random = random.Random(7)

    def __call__(self, request: bytes) -> Plan:
        good = answer(request)
        kinds: list[Plan] = [
            [],
            [(0.06, good)],  # after its deadline
            [(0.0, adu(request[0], bytes((request[1] | 0x80, 2))))],
            [(0.0, adu(request[0], bytes((request[1] | 0x80, 6))))],
            [(0.0, b"\xff\x00noise" + good)],
            [(0.0, good[:4]), (0.01, good[4:])],
            [(0.0, good[:-1] + bytes((good[-1] ^ 1,)))],
            [(0.0, adu(9, good[1:-2]) + good)],
        ]
        plan = self._random.choice(kinds + [[(0.0, good)]] * len(kinds))
        return plan if request[0] != 3 else []


def fields(frame: Frame) -> tuple[object, ...]:
    """Everything of a frame, NaN made comparable."""
    values = tuple("nan" if math.isnan(value) else value for value in frame.values)
    numbers = tuple("nan" if math.isnan(number) else number for number in frame.numbers)
    block = (frame.block.device, frame.block.name)
    return (*block, frame.tick_ns, frame.time_ns, frame.mono_ns, numbers, values, frame.qualities, frame.data)


async def test_what_a_line_yielded_under_faults_comes_out_of_its_recording_in_every_field() -> None:
    server, clock, witness, events = RtuServer(), Clock(), Witness(), list[Event]()
    server.plan = Faults()
    tap = Tap(HEADER, clock)
    tap.listeners.append(events.append)
    line = TappedLine(SerialWire(server.port, Mode()), RtuFraming(), tap)
    drivers = {name: device(name, unit, clock) for name, unit in (("a", 1), ("b", 2), ("dead", 3))}
    units = [PolledUnit(driver, NS // 10, driver.longest_s) for driver in drivers.values()]
    polled = PolledLine(line, units, clock, TappedObserver(witness, tap))
    task = asyncio.create_task(polled.run())
    try:
        async with asyncio.timeout(20):
            while len(witness.frames) < 120 or not witness.seen >= FAULTS:
                await asyncio.sleep(0.1)
                with contextlib.suppress(WireError):  # a person asks in between; no frame is made of that
                    await polled.submit(lambda wire: drivers["a"].poll(wire, 0, urgent=True))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
    text = [recorder.encoded(HEADER), *map(recorder.encoded, events)]

    def again() -> tuple[list[Frame], Differences]:
        header, read = recorder.read(text, "memory")
        differences = Differences()
        fresh = {name: device(name, d.unit, Clock()) for name, d in drivers.items()}
        return list(replay.polled(read, header.kind, fresh, differences)), differences

    frames, differences = await asyncio.to_thread(again)
    assert differences == Differences()
    assert [fields(frame) for frame in frames] == [fields(frame) for frame in witness.frames]


def a_read(hex_tx: str, hex_rx: str, at: int = 1) -> list[Event]:
    return [Event(at, at, "tx", hex_tx), Event(at + 1, at + 1, "rx", hex_rx)]


VTN_TX, VTN_RX = "01 03 00 02 00 02 65 CB", "01 03 04 3F 75 F0 7B E3 DE"


def test_a_reply_that_decodes_otherwise_than_it_did_is_counted_and_not_passed_over() -> None:
    drivers = {"a": device("a", 1, Clock())}
    mark = Event(5, 5, "frame", block="a.low", tick_ns=0)
    differences = Differences()
    assert not list(replay.polled([*a_read(VTN_TX, VTN_RX), mark], "modbus-rtu", drivers, differences))
    assert differences.frames == 1


def test_golden_frames_come_out_of_a_recording_with_what_else_is_on_the_line() -> None:
    echo = a_read("01 06 00 07 00 01 F8 0B", "01 06 00 07 00 01 F8 0B")
    torn = a_read(VTN_TX, VTN_RX[:11])
    (read,) = replay.reads([*echo, *torn, *a_read(VTN_TX, "00 " + VTN_RX)], "modbus-rtu")
    assert (read.unit, read.fn, read.at, read.count) == (1, 3, 2, 2)
    assert (read.tx.hex(" ").upper(), read.rx.hex(" ").upper()) == (VTN_TX, VTN_RX)
    assert struct.unpack(">f", read.data)[0] == pytest.approx(0.9607007)


def test_a_recording_from_modbus_tcp_gives_the_same_golden_frames_as_rtu() -> None:
    tcp = a_read("12 34 00 00 00 06 01 03 00 02 00 02", "12 34 00 00 00 07 01 03 04 3F 75 F0 7B")
    (read,) = replay.reads(tcp, "modbus-tcp")
    assert (read.tx.hex(" ").upper(), read.rx.hex(" ").upper()) == (VTN_TX, VTN_RX)


# -- the file --------------------------------------------------------------------------------------------


def test_an_unfinished_last_line_is_passed_over_and_a_broken_one_named() -> None:
    whole = recorder.encoded(Event(1, 1, "tx", "01 02"))
    header, events = recorder.read([recorder.encoded(HEADER), whole, whole[:-5]], "x")
    assert header == HEADER
    assert [event.data for event in events] == [b"\x01\x02"]
    for broken in (b"{}\n", b'{"time_ns":1,"mono_ns":1,"dir":"tx","hex":"0g"}\n', b"\xff\n"):
        _, events = recorder.read([recorder.encoded(HEADER), broken], "x")
        with pytest.raises(Unreadable, match="x:2: is no event"):
            list(events)


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_whatever_stands_in_a_file_it_is_read_or_refused(lines: list[bytes]) -> None:
    with contextlib.suppress(Unreadable):
        _, events = recorder.read([recorder.encoded(HEADER), *lines], "x")
        list(replay.reads(events, "modbus-rtu"))


def events_of(folder: Path) -> list[Event]:
    events: list[Event] = []
    for path in recorder.recordings(folder):
        with path.open("rb") as lines:
            header, read = recorder.read(lines, path.name)
            assert header == HEADER
            events += read
    return events


async def test_a_ring_keeps_the_latest_within_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "WRITE_EVERY_S", 0.01)
    limit = 100_000
    ring = Ring(tmp_path, HEADER, limit)
    task = asyncio.create_task(ring.run())
    for n in range(4000):
        ring.put(Event(n, n, "tx", "01 03 00 02 00 02 65 CB"))
        if n % 100 == 0:
            await asyncio.sleep(0.011)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    files = recorder.recordings(tmp_path)
    assert len(files) == FILES
    assert sum(path.stat().st_size for path in files) <= limit * 1.02
    numbers = [event.time_ns for event in events_of(tmp_path)]
    assert numbers == list(range(numbers[0], 4000)), "the latest, without a gap"
    assert len(numbers) > 800


async def test_a_new_start_begins_a_new_file(tmp_path: Path) -> None:
    for n in range(3):
        ring = Ring(tmp_path, HEADER, 100_000)
        ring.put(Event(n, n, "rx", "00"))
        task = asyncio.create_task(ring.run())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [event.time_ns for event in events_of(tmp_path)] == [0, 1, 2]
    assert len(recorder.recordings(tmp_path)) == 3


async def test_while_the_disk_takes_nothing_memory_is_bounded_and_the_loss_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "WRITE_EVERY_S", 0.01)
    blocked = tmp_path / "trace"
    blocked.write_text("a file where the folder should be")
    ring = Ring(blocked, HEADER, 1 << 22)
    for n in range(2 * PENDING_BYTES // 60):
        ring.put(Event(n, n, "tx", "01 03 00 02 00 02 65 CB"))
    assert ring._pending_bytes <= PENDING_BYTES
    task = asyncio.create_task(ring.run())
    await asyncio.sleep(0.1)
    blocked.unlink()
    ring.put(Event(7, 7, "rx", "AA"))
    async with asyncio.timeout(5):
        while not blocked.is_dir():
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    lost, after = events_of(blocked)
    assert (lost.dir, after.hex) == ("lost", "AA")
    assert lost.count == 2 * PENDING_BYTES // 60
