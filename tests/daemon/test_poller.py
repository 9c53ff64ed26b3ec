"""The poller over real TCP: on time, never piled up, and a dead device costs the others nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from daemon.clock import NS, Clock
from daemon.poller import JOBS, LineBusy, PolledLine, PolledUnit, StreamLine
from daemon.schedule import BACK_OFF_MOST
from drivers.contract import DeviceError, LineDown, NoReply, WireError
from drivers.framing import MbapFraming
from drivers.line import Line
from drivers.rhythm import Rhythm
from drivers.sample import Block, Frame, Quality
from drivers.wire import TcpWire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Recorder:
    """An observer that writes everything down."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.states: list[tuple[str, bool]] = []
        self.errors: Counter[tuple[str, str]] = Counter()
        self.overruns = 0

    def take(self, frame: Frame) -> None:
        self.frames.append(frame)

    def device_error(self, line: str, device: str, reason: str) -> None:
        self.errors[device, reason] += 1

    def device_state(self, line: str, device: str, *, up: bool, error: str) -> None:
        self.states.append((device, up))

    def polled(self, line: str, seconds: float) -> None:
        pass

    def overrun(self, line: str, ticks: int) -> None:
        self.overruns += ticks

    def of(self, device: str, quality: Quality = Quality.GOOD) -> list[Frame]:
        return [f for f in self.frames if f.block.device == device and f.qualities[0] == quality]


class Scripted:
    """A driver that answers after `takes_s`, or raises what it is told to; the line below it is real."""

    def __init__(
        self, device: str, clock: Clock, takes_s: float = 0.0, error: WireError | None = None
    ) -> None:
        self.device, self.clock, self.takes_s, self.error = device, clock, takes_s, error
        self.blocks = (Block(device, "b", ("x",), ("",)),)
        self.asked: list[int] = []
        self.once: WireError | None = None

    async def poll(self, line: Line, tick_ns: int) -> list[Frame]:
        self.asked.append(tick_ns)
        await asyncio.sleep(self.takes_s)
        if self.once is not None:
            error, self.once = self.once, None
            raise error
        if self.error is not None:
            raise self.error
        now = self.clock.wall_ns()
        return [Frame(self.blocks[0], tick_ns, now, self.clock.monotonic_ns(), (1,), (1.0,), b"\0")]


@contextlib.asynccontextmanager
async def polling(
    *drivers: Scripted,
    every_s: float = 0.05,
    longest_s: float = 0.05,
    wake_s: float = 0.0,
    alike_s: float = 0.0,
) -> AsyncIterator[tuple[PolledLine, Recorder, asyncio.Server]]:
    """Drivers on a line to a TCP server that only accepts."""

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    recorder = Recorder()
    units = [PolledUnit(d, round(every_s * NS), longest_s, wake_s, alike_s) for d in drivers]
    line = PolledLine(
        Line(TcpWire("127.0.0.1", port), MbapFraming(), "L"), units, drivers[0].clock, recorder, 7
    )
    task = asyncio.create_task(line.run())
    try:
        yield line, recorder, server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
        await server.wait_closed()


async def test_every_tick_is_a_multiple_of_the_period_and_comes_once() -> None:
    driver = Scripted("a", Clock())
    async with polling(driver):
        await asyncio.sleep(0.6)
    every = NS // 20
    assert len(driver.asked) >= 8
    assert all(tick % every == 0 for tick in driver.asked)
    assert len(set(driver.asked)) == len(driver.asked)


async def test_a_reply_belongs_to_the_tick_that_asked_for_it() -> None:
    driver = Scripted("a", Clock(), takes_s=0.02)
    async with polling(driver) as (_, recorder, _):
        await asyncio.sleep(0.4)
    assert [f.tick_ns for f in recorder.of("a")] == driver.asked[: len(recorder.of("a"))]
    assert all(0 <= f.time_ns - f.tick_ns < NS // 20 * 4 for f in recorder.of("a"))


async def test_a_bus_without_time_counts_overruns_and_piles_nothing_up() -> None:
    driver = Scripted("slow", Clock(), takes_s=0.16)
    async with polling(driver) as (_, recorder, _):
        await asyncio.sleep(1.0)
    assert recorder.overruns >= 8
    assert len(recorder.of("slow", Quality.OVERRUN)) >= 3
    assert driver.asked[-1] > driver.asked[0] + 10 * NS // 20 - 1  # it keeps up with the clock


async def test_a_round_that_has_begun_is_finished_under_its_own_tick() -> None:
    clock = Clock()
    first, second = Scripted("first", clock), Scripted("second", clock)
    async with polling(first, second):
        await asyncio.sleep(0.2)
        first.takes_s = 0.23  # one stall of more than four periods
        await asyncio.sleep(0.1)
        first.takes_s = 0.0
        await asyncio.sleep(0.5)
    n = min(len(first.asked), len(second.asked))
    assert first.asked[:n] == second.asked[:n]


async def test_a_dead_device_is_asked_less_and_less_and_the_others_keep_their_ticks() -> None:
    clock = Clock()
    well = Scripted("well", clock)
    dead = Scripted("dead", clock, takes_s=0.02, error=NoReply("silent"))
    async with polling(well, dead, longest_s=0.02) as (_, recorder, _):
        await asyncio.sleep(2.0)
    assert len(recorder.of("well")) >= 0.95 * len(well.asked) >= 30
    assert len(dead.asked) <= 12
    assert recorder.of("dead", Quality.BACK_OFF)
    assert len(recorder.frames) - len(recorder.of("well")) >= 30  # every tick of the dead one is told missing
    assert ("dead", False) in recorder.states


async def test_a_device_that_comes_back_is_heard_within_twenty_times_what_asking_costs() -> None:
    device = Scripted("a", Clock(), error=NoReply("silent"))
    async with polling(device, longest_s=0.02) as (_, recorder, _):
        await asyncio.sleep(1.0)
        device.error = None
        await asyncio.sleep(BACK_OFF_MOST * 0.02 + 0.15)
        assert recorder.states[-1] == ("a", True)


async def test_one_failure_of_a_device_that_was_well_is_tried_again_at_once() -> None:
    device = Scripted("a", Clock())
    async with polling(device) as (_, recorder, _):
        await asyncio.sleep(0.2)
        device.once = DeviceError("bad checksum")
        await asyncio.sleep(0.2)
    assert ("a", False) not in recorder.states
    assert recorder.errors["a", "bad-reply"] == 1
    assert len(device.asked) == len(set(device.asked)) + 1


async def test_a_line_that_goes_is_told_for_each_tick_and_opened_again() -> None:
    device = Scripted("a", Clock())
    async with polling(device) as (_, recorder, _):
        await asyncio.sleep(0.15)
        device.error = LineDown("cut")
        await asyncio.sleep(0.15)
        assert recorder.of("a", Quality.LINE_DOWN)
        device.error = None
        before = len(recorder.of("a"))
        await asyncio.sleep(0.3)
        assert len(recorder.of("a")) > before


async def test_a_port_that_cannot_be_opened_hides_its_devices_and_that_is_told_of_each_once() -> None:
    """From the start or later: a device behind it is as silent as one without power."""
    devices = [Scripted("a", Clock()), Scripted("b", Clock())]
    async with polling(*devices) as (_, recorder, server):
        port = server.sockets[0].getsockname()[1]
        server.close()
        while recorder.of("a", Quality.LINE_DOWN)[5:] == []:
            await asyncio.sleep(0.01)
        assert recorder.states == [("a", False), ("b", False)]
        async with await asyncio.start_server(listen, "127.0.0.1", port):
            while len(recorder.states) < 4:
                await asyncio.sleep(0.01)
            assert sorted(recorder.states[2:]) == [("a", True), ("b", True)]


async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer):
        await reader.read()


async def test_work_of_people_goes_ahead_and_comes_back_with_its_result() -> None:
    driver = Scripted("a", Clock(), takes_s=0.03)
    async with polling(driver) as (line, _, _):

        async def name(wire: Line) -> str:
            return wire.name

        async def fail(wire: Line) -> None:
            raise NoReply("nobody there")

        assert await line.submit(name) == "L"
        with pytest.raises(NoReply):
            await line.submit(fail)


async def test_more_work_than_a_line_takes_is_refused() -> None:
    driver = Scripted("a", Clock(), takes_s=0.5)
    async with polling(driver, every_s=0.6) as (line, _, _):

        async def nothing(wire: Line) -> None:
            return None

        while not driver.asked:
            await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(line.submit(nothing)) for _ in range(JOBS)]
        await asyncio.sleep(0)
        with pytest.raises(LineBusy):
            await line.submit(nothing)
        await asyncio.gather(*waiting)


class Stepping(Clock):
    """A clock whose wall can be stepped."""

    step_ns = 0

    def wall_ns(self) -> int:
        return super().wall_ns() + self.step_ns


@pytest.mark.parametrize("step_s", [-7200, 7200, 30 * 86400])
async def test_a_wall_clock_that_steps_delays_no_poll(step_s: int) -> None:
    clock = Stepping()
    driver = Scripted("a", clock)
    async with polling(driver) as (_, recorder, _):
        await asyncio.sleep(0.2)
        clock.step_ns = step_s * NS
        assert clock.rephase() == pytest.approx(step_s, abs=0.1)
        before = len(driver.asked)
        await asyncio.sleep(0.3)
    assert len(driver.asked) - before >= 4
    assert recorder.overruns == 0
    assert abs(driver.asked[-1] - clock.wall_ns()) < NS


async def test_a_second_try_comes_after_the_others_of_the_same_tick() -> None:
    clock = Clock()
    order: list[tuple[str, int]] = []

    class Listed(Scripted):
        async def poll(self, line: Line, tick_ns: int) -> list[Frame]:
            order.append((self.device, tick_ns))
            return await super().poll(line, tick_ns)

    first, second, third = (Listed(name, clock) for name in "abc")
    async with polling(first, second, third, every_s=0.1) as (_, recorder, _):
        await asyncio.sleep(0.25)
        first.once = NoReply("lost")
        order.clear()
        await asyncio.sleep(0.2)
    again = [tick for (device, tick), n in Counter(order).items() if device == "a" and n == 2]
    assert len(again) == 1
    assert [device for device, tick in order if tick == again[0]] == ["a", "b", "c", "a"]
    assert ("a", False) not in recorder.states
    assert again[0] in [frame.tick_ns for frame in recorder.of("a")]


async def test_a_device_that_must_wake_is_believed_only_after_its_time() -> None:
    clock = Clock()
    device = Scripted("a", clock, error=NoReply("no power"))
    async with polling(device, wake_s=0.4) as (_, recorder, _):
        await asyncio.sleep(0.3)
        assert ("a", False) in recorder.states
        device.error = None
        powered = clock.schedule_ns()
        await asyncio.sleep(1.0)
    first = recorder.of("a")[0].tick_ns
    assert recorder.of("a", Quality.BUSY), "what it says at once after the power came is not believed"
    assert first - powered >= 0.35 * NS
    ticks = [frame.tick_ns for frame in recorder.frames]
    assert ticks == sorted(set(ticks))


async def test_neither_waking_nor_the_wait_after_the_start_ends_because_the_clock_is_set() -> None:
    """At boot the clock is set first of all, while the instruments still wake."""
    clock = Stepping()
    device = Scripted("a", clock)
    began_s = asyncio.get_running_loop().time()
    async with polling(device, alike_s=0.5) as (_, recorder, _):
        await asyncio.sleep(0.1)
        clock.step_ns = 86400 * NS
        clock.rephase()
        while not recorder.states:
            await asyncio.sleep(0.005)
        took_s = asyncio.get_running_loop().time() - began_s
    assert 0.5 <= took_s < 5.0, "and not a day"
    assert recorder.of("a", Quality.BUSY), "the ticks meanwhile are told, with their reason"
    assert recorder.states == [("a", True)]


async def test_a_period_changes_at_a_tick_of_the_new_one_and_back() -> None:
    clock = Clock()
    device = Scripted("a", clock)
    async with polling(device, every_s=0.4) as (line, recorder, _):
        await asyncio.sleep(0.5)
        dense = line.set_every("a", NS // 10)
        await asyncio.sleep(0.5)
        calm = line.set_every("a", 2 * NS // 5)
        await asyncio.sleep(1.0)
    ticks = [frame.tick_ns for frame in recorder.frames]
    assert {dense, calm} <= set(ticks)
    assert all(b - a == NS // 10 for a, b in pairwise(t for t in ticks if dense <= t <= calm))
    assert all(t % (2 * NS // 5) == 0 for t in ticks if t < dense or t >= calm)
    assert len(ticks) == len(set(ticks))


async def test_work_that_asks_for_what_does_not_exist_is_told_so_and_the_line_polls_on() -> None:
    driver = Scripted("a", Clock())
    async with polling(driver) as (line, recorder, _):

        async def nonsense(wire: Line) -> None:
            raise KeyError("no such write")

        with pytest.raises(KeyError):
            await line.submit(nonsense)
        before = len(recorder.of("a"))
        await asyncio.sleep(0.2)
        assert len(recorder.of("a")) > before
        assert recorder.overruns == 0


class Talker:
    """A device that speaks by itself, and whose ticks the test makes."""

    def __init__(self) -> None:
        self.device = "g"
        self.rhythm = Rhythm(NS // 5)
        self.blocks = (Block("g", "b", ("x",), ("",)),)

    def feed(self, data: bytes) -> list[Frame]:
        ticks = {self.rhythm.tick(int(word)) for word in data.split()}
        return [Frame(self.blocks[0], tick, tick, tick, (1,), (1.0,), b"\0") for tick in sorted(ticks)]

    def due(self) -> list[Frame]:
        return []


async def test_a_stream_is_told_missing_at_the_rhythm_that_holds() -> None:
    """It speaks only in the first half; every later tick is missing once, densely while that was asked for."""
    clock, talker, recorder, heard = Clock(), Talker(), Recorder(), asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(4):
            writer.write(b"%d " % clock.wall_ns())
            await asyncio.sleep(0.2)
        await heard.wait()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    wire = TcpWire("127.0.0.1", server.sockets[0].getsockname()[1])
    line = StreamLine("s", wire, talker, NS // 5, clock, recorder)
    task = asyncio.create_task(line.run())
    await asyncio.sleep(1.0)
    dense = line.set_every("g", NS // 20)
    await asyncio.sleep(0.5)
    calm = line.set_every("g", NS // 5)
    await asyncio.sleep(0.9)
    task.cancel()
    heard.set()
    await asyncio.gather(task, return_exceptions=True)
    server.close()
    missing = [frame.tick_ns for frame in recorder.of("g", Quality.NO_REPLY)]
    assert len(recorder.of("g")) >= 2
    assert len(missing) == len(set(missing))
    between = [tick for tick in missing if dense <= tick <= calm]
    assert between[0] == dense
    assert all(b - a == NS // 20 for a, b in pairwise(between))
    after = [tick for tick in missing if tick >= calm]
    assert len(after) >= 2
    assert all(b - a == NS // 5 for a, b in pairwise(after))
