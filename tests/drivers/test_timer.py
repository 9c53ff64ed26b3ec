"""Timers to the fraction of a millisecond, and what stands in where the kernel has none."""

from __future__ import annotations

import asyncio
import ctypes
import os
import statistics
from pathlib import Path

import pytest

from drivers.framing import RtuFraming
from drivers.line import Line
from drivers.timer import KernelTimer, LoopTimer, timer
from drivers.wire import SerialWire
from tests.drivers.rtu_server import Mode, RtuServer, data, read


def timers() -> int:
    return sum("timerfd" in str(each.resolve()) for each in Path("/proc/self/fd").iterdir())


KINDS = pytest.mark.parametrize("kind", [KernelTimer, LoopTimer])


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@KINDS
async def test_it_calls_once_never_early_and_forgets_what_was_set_before(kind: type[KernelTimer]) -> None:
    loop, calls = asyncio.get_running_loop(), list[float]()
    alarm = kind(loop, lambda: calls.append(loop.time()))
    when = loop.time() + 0.02
    alarm.set(when - 0.015)
    alarm.set(when)
    await asyncio.sleep(0.06)
    assert len(calls) == 1
    assert when <= calls[0]
    alarm.set(loop.time() - 1.0)  # the past is now
    await asyncio.sleep(0.01)
    assert len(calls) == 2
    alarm.set(loop.time() + 0.01)
    alarm.stop()
    await asyncio.sleep(0.03)
    assert len(calls) == 2
    alarm.close()
    alarm.close()


async def test_the_kernels_timer_is_on_time_where_the_loops_is_up_to_a_millisecond_late() -> None:
    loop = asyncio.get_running_loop()

    async def lateness(kind: type[KernelTimer | LoopTimer]) -> float:
        rang = asyncio.Event()
        alarm, late = kind(loop, rang.set), list[float]()
        for i in range(60):
            when = loop.time() + 0.0011 + i * 0.00001
            alarm.set(when)
            await rang.wait()
            rang.clear()
            late.append(loop.time() - when)
        alarm.close()
        return statistics.median(late)

    kernel, loops = await lateness(KernelTimer), await lateness(LoopTimer)
    assert 0 <= kernel < 0.0004
    assert kernel < loops


async def test_without_a_kernel_timer_the_loop_keeps_the_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(38, os.strerror(38))

    monkeypatch.setattr(ctypes, "CDLL", none)
    assert isinstance(timer(asyncio.get_running_loop(), lambda: None), LoopTimer)
    server = RtuServer()
    line = Line(SerialWire(server.port, Mode(19200)), RtuFraming(), "slow")
    await line.open()
    begun = asyncio.get_running_loop().time()
    for at in range(10):
        reply = await line.transact(1, read(3, at, 2), reply_bytes=6, timeout_s=0.2, slowest_reply_s=0.2)
        assert reply[2:] == data(1, 3, at, 2)
    assert asyncio.get_running_loop().time() - begun >= 9 * 3.5 * 10 / 19200
    line.close()
    server.close()


async def test_a_line_gives_its_timer_back_when_it_closes_and_when_its_port_is_lost() -> None:
    server, before = RtuServer(), descriptors()
    for lose in (False, True):
        line = Line(SerialWire(server.port, Mode()), RtuFraming(), "L")
        await line.open()
        assert timers() == 1
        if lose:
            server.unplug()
            async with asyncio.timeout(5):
                while line.is_open:
                    await asyncio.sleep(0.001)
        line.close()
        assert timers() == 0
    assert descriptors() == before - 2  # the two ends of the pseudo-terminal that was unplugged
    server.close()
