"""Rows 36 to 38: one device must not cost the others theirs. Real pseudo-terminals and sockets, the real poller."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from daemon.clock import NS
from daemon.schedule import BACK_OFF_MOST
from drivers.framing import MbapFraming, RtuFraming
from drivers.line import Line
from drivers.wire import SerialWire, TcpWire
from tests.drivers.rtu_server import Mode, RtuServer, answer
from tests.drivers.test_line_tcp import TcpServer, reply_to
from tests.fault.bus import REGISTERS, Polled, polled, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.conftest import Figure

CHARACTER_S = 10 / 115200
REPLY_S = (8 + 5 + 2 * REGISTERS + 3.5) * CHARACTER_S  # request, silence and reply on the wire


class Dying:
    """What a line's devices do: all answer when the wire has had its time, except one that died."""

    def __init__(self, dead: int, *, timed: bool) -> None:
        self.dead: int | None = dead
        self._reply_s = REPLY_S if timed else 0.0

    def __call__(self, request: bytes) -> list[tuple[float, bytes]]:
        return [] if request[0] == self.dead else [(self._reply_s, answer(request))]


async def died(bus: Polled, unit: int) -> None:
    async with asyncio.timeout(5):
        while bus.record.health.get(f"u{unit}") is not False:
            await asyncio.sleep(0.01)


def bus_share(bus: Polled, unit: int, since: int) -> float:
    """Share of the time that attempts on `unit` took of the bus, from its attempt number `since` to the last."""
    asked = bus.devices[unit].asked[since:]
    assert len(asked) >= 3, "too few attempts to judge by"
    return sum(one.bus_s for one in asked[:-1]) / ((asked[-1].began_ns - asked[0].began_ns) / NS)


async def come_back(bus: Polled, plan: Dying, unit: int) -> float:
    """Switch the dead device on in the middle of its rest; seconds until it is heard."""
    loop, attempts = asyncio.get_running_loop(), len(bus.devices[unit].asked)
    async with asyncio.timeout(10):
        while len(bus.devices[unit].asked) == attempts:
            await asyncio.sleep(0.001)
        plan.dead = None
        begun = loop.time()
        while not bus.record.health[f"u{unit}"]:
            await asyncio.sleep(0.001)
    return loop.time() - begun


async def one_dead_of_32(*, paced: bool) -> tuple[str, bool]:
    dead, units, timeout_s, every_s = 17, range(1, 33), 0.05, 0.8
    server, plan = RtuServer(), Dying(dead, timed=paced)
    server.plan = plan
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), f"paced {paced}", paced=paced)
    async with polled(line, units, every_s=every_s, timeout_s=timeout_s) as bus:
        await died(bus, dead)
        attempts = len(bus.devices[dead].asked)
        await asyncio.sleep(8.0)
        others = [unit for unit in units if unit != dead]
        (good, ticks), answered = bus.on_time(others), bus.answered(others)
        used = bus_share(bus, dead, attempts + 2)
        unanswered_s = max(one.bus_s for one in bus.devices[dead].asked)
        back_s = await come_back(bus, plan, dead)
    server.close()
    limit_s = max(2 * every_s, BACK_OFF_MOST * unanswered_s) + timeout_s
    text = (
        f"bus timing {'on' if paced else 'off'}: others {share(good, ticks)} polls on time, "
        f"{100 * answered:.1f} % answered, dead one {100 * used:.1f} % of the bus, back after {back_s:.2f} s (limit {limit_s:.2f} s)"
    )
    well = (
        good >= 0.99 * ticks
        and answered >= 0.97
        and used <= 0.05
        and back_s <= limit_s
        and not bus.record.wrong
    )
    return text, well


@pytest.mark.fault(
    row=37, fault="one dead unit of 32 on a serial line",
    injected="the unit stops answering; 115200 baud, 25 registers each, period 0.8 s, timeout 50 ms",
    holds="others at least 99 % of polls begun within their period; dead one at most 5 % of the bus; back within "
    "two periods or 20 unanswered requests",
)  # fmt: skip
async def test_row_37_one_dead_unit_of_32_on_a_serial_line(figure: Figure) -> None:
    results = await asyncio.gather(one_dead_of_32(paced=True), one_dead_of_32(paced=False))
    for text, _ in results:
        figure(text)
    assert all(well for _, well in results)


@pytest.mark.fault(
    row=37, fault="half of the units of a serial line dead", injected="16 of 32 never answer; period 0.8 s, timeout 50 ms",
    holds="the others at least 99 % of polls on time; the dead ones together at most a fifth of the bus",
)  # fmt: skip
async def test_row_37_sixteen_dead_units_of_32_leave_the_others_their_time(figure: Figure) -> None:
    dead, units = range(1, 33, 2), range(1, 33)
    server = RtuServer()
    server.plan = lambda request: [] if request[0] in dead else [(REPLY_S, answer(request))]
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "half dead")
    async with polled(line, units, every_s=0.8, timeout_s=0.05) as bus:
        async with asyncio.timeout(20):
            while sum(not up for up in bus.record.health.values()) < len(dead):
                await asyncio.sleep(0.01)
        begun_ns = bus.clock.schedule_ns()
        await asyncio.sleep(6.0)
        ended_ns = bus.clock.schedule_ns()
        good, ticks = bus.on_time([unit for unit in units if unit not in dead], begun_ns)
    server.close()
    tries = [one for unit in dead for one in bus.devices[unit].asked if begun_ns <= one.began_ns < ended_ns]
    used = sum(one.bus_s for one in tries) / ((ended_ns - begun_ns) / NS)
    figure(f"others {share(good, ticks)} polls on time, dead ones {100 * used:.0f} % of the bus")
    assert good >= 0.99 * ticks
    assert used <= 0.21  # one attempt more or less in the time looked at


@pytest.mark.fault(
    row=37, fault="one dead unit of 5 behind one TCP address",
    injected="the gateway answers nothing for the unit; period 0.2 s, timeout 50 ms",
    holds="the same; thingsboard-gateway delivers 2 of 86 samples here",
)  # fmt: skip
async def test_row_37_one_dead_unit_of_5_behind_one_tcp_address(figure: Figure) -> None:
    dead, units, timeout_s, every_s = 3, range(1, 6), 0.05, 0.2
    protocol, plan = TcpServer(), Dying(dead, timed=False)
    protocol.plan = lambda request: [(0.0, reply_to(request))] if request[6] != plan.dead else []
    server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
    line = Line(TcpWire("127.0.0.1", server.sockets[0].getsockname()[1]), MbapFraming(), "tcp")
    async with polled(line, units, every_s=every_s, timeout_s=timeout_s) as bus:
        await died(bus, dead)
        attempts = len(bus.devices[dead].asked)
        await asyncio.sleep(6.0)
        good, ticks = bus.on_time([unit for unit in units if unit != dead])
        used = bus_share(bus, dead, attempts + 2)
        back_s = await come_back(bus, plan, dead)
    server.close()
    limit_s = max(2 * every_s, BACK_OFF_MOST * timeout_s) + timeout_s
    figure(
        f"others {share(good, ticks)} polls on time, dead one {100 * used:.1f} % of the connection, "
        f"back after {back_s:.2f} s (limit {limit_s:.2f} s)"
    )
    assert good >= 0.99 * ticks
    assert used <= 0.05
    assert back_s <= limit_s
    assert not bus.record.wrong


@pytest.mark.fault(
    row=36, fault="a device that sends a byte every 50 ms",
    injected="one of 8 on a serial line answers so; period 0.3 s, timeout 60 ms",
    holds="its request ends at its deadline; the others at least 99 % of polls",
)  # fmt: skip
async def test_row_36_a_trickle_is_no_progress(figure: Figure) -> None:
    slow, units = 4, range(1, 9)
    server = RtuServer()

    def plan(request: bytes) -> Sequence[tuple[float, bytes]]:
        if request[0] != slow:
            return [(0.0, answer(request))]
        return [(0.05 * i, bytes((byte,))) for i, byte in enumerate(answer(request))]

    server.plan = lambda request: list(plan(request))
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "L")
    async with polled(line, units, every_s=0.3, timeout_s=0.06) as bus:
        await asyncio.sleep(4.0)
        good, ticks = bus.on_time([unit for unit in units if unit != slow])
    longest_s = max((one.ended_ns - one.began_ns) / NS for one in bus.devices[slow].asked)
    server.close()
    figure(f"others {share(good, ticks)} polls on time; longest request to it {longest_s * 1000:.0f} ms")
    assert good >= 0.99 * ticks
    assert longest_s < 0.06 + 55 * CHARACTER_S + 0.05
    assert bus.record.good >= good
    assert not bus.record.wrong


@pytest.mark.fault(
    row=38, fault="an adapter that hears itself", injected="every request comes back before its answer",
    holds="every poll answered",
)  # fmt: skip
async def test_row_38_an_echo_is_no_answer(figure: Figure) -> None:
    server = RtuServer()
    server.plan = lambda request: [(0.0, request), (0.001, answer(request))]
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "L")
    async with polled(line, (1, 2, 3, 4), every_s=0.1, timeout_s=0.05) as bus:
        await asyncio.sleep(2.0)
        good, ticks = bus.on_time((1, 2, 3, 4))
    server.close()
    figure(f"{share(good, ticks)} polls on time, {bus.record.wrong} wrong values")
    assert good >= 0.99 * ticks
    assert not bus.record.wrong


NOISE = """
import os, random, sys, time
master, seconds = int(sys.argv[1]), float(sys.argv[2])
noise, begun, sent = random.Random(38), time.monotonic(), 0
while (past := time.monotonic() - begun) < seconds:
    due = int(past * 11520) - sent
    if due > 0:
        sent += os.write(master, noise.randbytes(due))
    time.sleep(0.001)
"""


@pytest.mark.fault(
    row=38, fault="noise flood", injected="random bytes at the full 11,520 a second of 115200 baud, by another process",
    holds="CPU at most 20 % of a core, no value accepted, line and devices marked bad; well again afterwards",
)  # fmt: skip
async def test_row_38_a_noise_flood_costs_little_and_yields_nothing(figure: Figure) -> None:
    server = RtuServer()
    server.plan = lambda request: []
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "L")
    noise = subprocess.Popen(
        [sys.executable, "-c", NOISE, str(server.master), "7.0"], pass_fds=[server.master]
    )
    async with polled(line, (1, 2, 3, 4), every_s=0.2, timeout_s=0.05) as bus:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.5)
        begun, cpu_s, heard = loop.time(), _cpu_s(), line.bytes_received
        await asyncio.sleep(5.5)
        cpu, per_s = (_cpu_s() - cpu_s) / (loop.time() - begun), (line.bytes_received - heard) / 5.5
        silent = sum(not up for up in bus.record.health.values())
        marked = line.noisy
        assert bus.record.good == 0
        await asyncio.to_thread(noise.wait)
        server.plan = lambda request: [(0.0, answer(request))]
        begun = loop.time()
        async with asyncio.timeout(6):
            while not all(bus.record.health.get(f"u{unit}") for unit in (1, 2, 3, 4)):
                await asyncio.sleep(0.01)
        well_s = loop.time() - begun
    server.close()
    figure(
        f"{per_s:,.0f} bytes/s: CPU {100 * cpu:.0f} %, 0 values accepted, {silent} of 4 devices said to be silent, "
        f"line marked noisy; all 4 well {well_s:.1f} s after the noise"
    )
    assert per_s > 9000
    assert cpu <= 0.20
    assert marked
    assert silent == 4
    assert not bus.record.wrong


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
