"""Rows 36 to 38: one device must not cost the others theirs. Real pseudo-terminals and sockets, the real poller.

All but the noise flood run at once, each on a line of its own, as lines do on a gateway; it has the machine to itself,
for it measures what it costs. Deadlines are real time, so a line that the machine itself kept waiting is tried again.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
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
    from collections.abc import Awaitable, Callable, Mapping

    from tests.conftest import Figure

CHARACTER_S = 10 / 115200
REPLY_S = (8 + 5 + 2 * REGISTERS + 3.5) * CHARACTER_S  # request, silence and reply on the wire
KEPT_WAITING_S = 0.04  # less than any timeout here: longer is as good as a device that does not answer
TRIES = 3


@dataclass(frozen=True)
class Found:
    """What came of one line: the figure, and the promises that did not hold."""

    figure: str
    broken: list[str]


def found(figure: str, **held: bool) -> Found:
    return Found(figure, [promise for promise, holds in held.items() if not holds])


class Waiting:
    """How long the machine kept the event loop from running, at the longest."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def watch(self) -> None:
        while True:
            due_s = time.monotonic() + 0.005
            await asyncio.sleep(0.005)
            self.longest_s = max(self.longest_s, time.monotonic() - due_s)


class Dying:
    """What a line's devices do: all answer when the wire has had its time, except one that died."""

    def __init__(self, dead: int, *, timed: bool) -> None:
        self.dead: int | None = dead
        self._reply_s = REPLY_S if timed else 0.0

    def __call__(self, request: bytes) -> list[tuple[float, bytes]]:
        return [] if request[0] == self.dead else [(self._reply_s, answer(request))]


async def died(bus: Polled, unit: int) -> None:
    async with asyncio.timeout(20):
        while bus.record.health.get(f"u{unit}") is not False:
            await asyncio.sleep(0.01)


async def attempts(bus: Polled, unit: int, count: int) -> None:
    """Until `unit` was asked so often."""
    async with asyncio.timeout(40):
        while len(bus.devices[unit].asked) < count:
            await asyncio.sleep(0.01)


def bus_share(bus: Polled, unit: int, since: int) -> float:
    """Share of the time that attempts on `unit` took of the bus, from its attempt number `since` to the last."""
    asked = bus.devices[unit].asked[since:]
    assert len(asked) >= 3, "too few attempts to judge by"
    return sum(one.bus_s for one in asked[:-1]) / ((asked[-1].began_ns - asked[0].began_ns) / NS)


async def come_back(bus: Polled, plan: Dying, unit: int) -> float:
    """Switch the dead device on in the middle of its rest; seconds until it is heard."""
    loop = asyncio.get_running_loop()
    await attempts(bus, unit, len(bus.devices[unit].asked) + 1)
    plan.dead = None
    begun = loop.time()
    async with asyncio.timeout(20):
        while not bus.record.health[f"u{unit}"]:
            await asyncio.sleep(0.001)
    return loop.time() - begun


# -- one line each -----------------------------------------------------------------------------------


async def one_dead_of_32(*, paced: bool) -> Found:
    dead, units, timeout_s, every_s = 17, range(1, 33), 0.05, 0.8
    server, plan = RtuServer(), Dying(dead, timed=paced)
    server.plan = plan
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), f"paced {paced}", paced=paced)
    async with polled(line, units, every_s=every_s, timeout_s=timeout_s) as bus:
        await died(bus, dead)
        begun = len(bus.devices[dead].asked) + 2
        await attempts(bus, dead, begun + 4)
        others = [unit for unit in units if unit != dead]
        (good, ticks), answered = bus.on_time(others), bus.answered(others)
        used = bus_share(bus, dead, begun)
        unanswered_s = max(one.bus_s for one in bus.devices[dead].asked)
        back_s = await come_back(bus, plan, dead)
    server.close()
    limit_s = max(2 * every_s, BACK_OFF_MOST * unanswered_s) + timeout_s + KEPT_WAITING_S
    return found(
        f"bus timing {'on' if paced else 'off'}: others {share(good, ticks)} polls on time, "
        f"{100 * answered:.1f} % answered, dead one {100 * used:.1f} % of the bus, back after {back_s:.2f} s (limit {limit_s:.2f} s)",
        others_on_time=good >= 0.99 * ticks,
        others_answered=answered >= 0.97,
        dead_one_costs_little=used <= 0.05,
        back_in_time=back_s <= limit_s,
        nothing_wrong=not bus.record.wrong,
    )


async def half_dead() -> Found:
    dead, units = range(1, 33, 2), range(1, 33)
    server = RtuServer()
    server.plan = lambda request: [] if request[0] in dead else [(REPLY_S, answer(request))]
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "half dead")
    async with polled(line, units, every_s=0.8, timeout_s=0.05) as bus:
        async with asyncio.timeout(30):
            while sum(not up for up in bus.record.health.values()) < len(dead):
                await asyncio.sleep(0.01)
        begun_ns = bus.clock.schedule_ns()
        await asyncio.sleep(5.0)
        ended_ns = bus.clock.schedule_ns()
        good, ticks = bus.on_time([unit for unit in units if unit not in dead], begun_ns)
    server.close()
    tries = [one for unit in dead for one in bus.devices[unit].asked if begun_ns <= one.began_ns < ended_ns]
    used = sum(one.bus_s for one in tries) / ((ended_ns - begun_ns) / NS)
    return found(
        f"others {share(good, ticks)} polls on time, dead ones {100 * used:.0f} % of the bus",
        others_on_time=good >= 0.99 * ticks,
        dead_ones_cost_a_fifth=used <= 0.215,  # one attempt more or less in the time looked at
    )


async def one_dead_of_5_behind_tcp() -> Found:
    dead, units, timeout_s, every_s = 3, range(1, 6), 0.05, 0.2
    protocol, plan = TcpServer(), Dying(dead, timed=False)
    protocol.plan = lambda request: [(0.0, reply_to(request))] if request[6] != plan.dead else []
    server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
    line = Line(TcpWire("127.0.0.1", server.sockets[0].getsockname()[1]), MbapFraming(), "tcp")
    async with polled(line, units, every_s=every_s, timeout_s=timeout_s) as bus:
        await died(bus, dead)
        begun = len(bus.devices[dead].asked) + 2
        await attempts(bus, dead, begun + 4)
        good, ticks = bus.on_time([unit for unit in units if unit != dead])
        used = bus_share(bus, dead, begun)
        back_s = await come_back(bus, plan, dead)
    server.close()
    limit_s = max(2 * every_s, BACK_OFF_MOST * timeout_s) + timeout_s + KEPT_WAITING_S
    return found(
        f"others {share(good, ticks)} polls on time, dead one {100 * used:.1f} % of the connection, "
        f"back after {back_s:.2f} s (limit {limit_s:.2f} s)",
        others_on_time=good >= 0.99 * ticks,
        dead_one_costs_little=used <= 0.05,
        back_in_time=back_s <= limit_s,
        nothing_wrong=not bus.record.wrong,
    )


class Gateway(TcpServer):
    """One request at a time, as its serial side allows; for a dead unit it waits, then says so (exception 11)."""

    def __init__(self, dead: int, waits_s: float) -> None:
        super().__init__()
        self._free_s = 0.0
        self._dead, self._waits_s = dead, waits_s
        self.plan = self.in_turn

    def in_turn(self, request: bytes) -> list[tuple[float, bytes]]:
        now_s, is_dead = asyncio.get_running_loop().time(), request[6] == self._dead
        self._free_s = max(self._free_s, now_s) + (self._waits_s if is_dead else 0.005)
        refusal = request[:4] + b"\0\3" + request[6:7] + b"\x83\x0b"
        return [(self._free_s - now_s, refusal if is_dead else reply_to(request))]


async def one_dead_behind_a_patient_gateway() -> Found:
    dead, units, waits_s = 3, range(1, 6), 0.2
    gateway = Gateway(dead, waits_s)
    server = await asyncio.get_running_loop().create_server(lambda: gateway, "127.0.0.1", 0)
    line = Line(TcpWire("127.0.0.1", server.sockets[0].getsockname()[1]), MbapFraming(), "gateway")
    async with polled(line, units, every_s=0.5, timeout_s=0.05, slowest_s=waits_s + 0.05) as bus:
        await died(bus, dead)
        await attempts(bus, dead, len(bus.devices[dead].asked) + 2)
        others = [unit for unit in units if unit != dead]
        (good, ticks), answered = bus.on_time(others), bus.answered(others)
    server.close()
    return found(
        f"others {share(good, ticks)} polls on time, {100 * answered:.1f} % answered",
        others_on_time=good >= 0.99 * ticks,
        others_answered=answered >= 0.99,
        nothing_wrong=not bus.record.wrong,
    )


async def one_trickling() -> Found:
    slow, units = 4, range(1, 9)
    server = RtuServer()

    def plan(request: bytes) -> list[tuple[float, bytes]]:
        if request[0] != slow:
            return [(0.0, answer(request))]
        return [(0.05 * i, bytes((byte,))) for i, byte in enumerate(answer(request))]

    server.plan = plan
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "L")
    async with polled(line, units, every_s=0.3, timeout_s=0.06) as bus:
        await asyncio.sleep(4.0)
        good, ticks = bus.on_time([unit for unit in units if unit != slow])
    longest_s = max((one.ended_ns - one.began_ns) / NS for one in bus.devices[slow].asked)
    server.close()
    return found(
        f"others {share(good, ticks)} polls on time; longest request to it {longest_s * 1000:.0f} ms",
        others_on_time=good >= 0.99 * ticks,
        its_request_ends_at_its_deadline=longest_s < 0.06 + 55 * CHARACTER_S + 0.05,
        all_others_answered=bus.record.good >= good,
        nothing_wrong=not bus.record.wrong,
    )


async def echoing() -> Found:
    server = RtuServer()
    server.plan = lambda request: [(0.0, request), (0.001, answer(request))]
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "L")
    async with polled(line, (1, 2, 3, 4), every_s=0.1, timeout_s=0.05) as bus:
        await asyncio.sleep(2.0)
        (good, ticks), answered = bus.on_time((1, 2, 3, 4)), bus.answered((1, 2, 3, 4))
    server.close()
    return found(
        f"{share(good, ticks)} polls on time, {100 * answered:.1f} % answered, {bus.record.wrong} wrong values",
        on_time=good >= 0.99 * ticks,
        answered=answered >= 0.97,
        nothing_wrong=not bus.record.wrong,
    )


# -- all of them -------------------------------------------------------------------------------------

LINES: Mapping[str, Callable[[], Awaitable[Found]]] = {
    "one dead of 32, timed": lambda: one_dead_of_32(paced=True),
    "one dead of 32": lambda: one_dead_of_32(paced=False),
    "half dead": half_dead,
    "one dead of 5": one_dead_of_5_behind_tcp,
    "patient gateway": one_dead_behind_a_patient_gateway,
    "trickling": one_trickling,
    "echoing": echoing,
}


async def tried(line: Callable[[], Awaitable[Found]]) -> Found:
    """What came of a line that the machine let run; of the last try if it never did."""
    for _ in range(TRIES):
        waiting = Waiting()
        watch = asyncio.create_task(waiting.watch(), name="waiting")
        try:
            its = await line()
        finally:
            watch.cancel()
        if not its.broken or waiting.longest_s < KEPT_WAITING_S:
            break
    return its


@pytest.fixture(scope="module")
def lines() -> Mapping[str, Found | BaseException]:
    """All of them at once; what fails fails its own test only."""

    async def all_at_once() -> Mapping[str, Found | BaseException]:
        tasks = [asyncio.create_task(tried(line), name=name) for name, line in LINES.items()]
        return dict(zip(LINES, await asyncio.gather(*tasks, return_exceptions=True), strict=True))

    return asyncio.run(all_at_once())


def judged(lines: Mapping[str, Found | BaseException], figure: Figure, *names: str) -> None:
    for name in names:
        its = lines[name]
        if isinstance(its, BaseException):
            raise its
        figure(its.figure)
        assert not its.broken, its.figure


@pytest.mark.fault(
    row=37, fault="one dead unit of 32 on a serial line",
    injected="the unit stops answering; 115200 baud, 25 registers each, period 0.8 s, timeout 50 ms",
    holds="others at least 99 % of polls begun within their period; dead one at most 5 % of the bus; back within "
    "two periods or 20 unanswered requests",
)  # fmt: skip
def test_row_37_one_dead_unit_of_32_on_a_serial_line(
    lines: Mapping[str, Found | BaseException], figure: Figure
) -> None:
    judged(lines, figure, "one dead of 32, timed", "one dead of 32")


@pytest.mark.fault(
    row=37, fault="half of the units of a serial line dead", injected="16 of 32 never answer; period 0.8 s, timeout 50 ms",
    holds="the others at least 99 % of polls on time; the dead ones together at most a fifth of the bus",
)  # fmt: skip
def test_row_37_sixteen_dead_units_of_32_leave_the_others_their_time(
    lines: Mapping[str, Found | BaseException], figure: Figure
) -> None:
    judged(lines, figure, "half dead")


@pytest.mark.fault(
    row=37, fault="one dead unit of 5 behind one TCP address",
    injected="the gateway answers nothing for the unit; period 0.2 s, timeout 50 ms",
    holds="the same; thingsboard-gateway delivers 2 of 86 samples here",
)  # fmt: skip
def test_row_37_one_dead_unit_of_5_behind_one_tcp_address(
    lines: Mapping[str, Found | BaseException], figure: Figure
) -> None:
    judged(lines, figure, "one dead of 5")


@pytest.mark.fault(
    row=37, fault="one dead unit of 5 behind a gateway that asks one at a time and is more patient than we are",
    injected="the gateway waits 0.2 s for the unit, then answers exception 11; period 0.5 s, timeout 50 ms",
    holds="the others at least 99 % of polls on time and answered",
)  # fmt: skip
def test_row_37_a_gateway_that_waits_for_its_dead_unit(
    lines: Mapping[str, Found | BaseException], figure: Figure
) -> None:
    judged(lines, figure, "patient gateway")


@pytest.mark.fault(
    row=36, fault="a device that sends a byte every 50 ms",
    injected="one of 8 on a serial line answers so; period 0.3 s, timeout 60 ms",
    holds="its request ends at its deadline; the others at least 99 % of polls",
)  # fmt: skip
def test_row_36_a_trickle_is_no_progress(lines: Mapping[str, Found | BaseException], figure: Figure) -> None:
    judged(lines, figure, "trickling")


@pytest.mark.fault(
    row=38, fault="an adapter that hears itself", injected="every request comes back before its answer",
    holds="every poll on time and answered by its answer",
)  # fmt: skip
def test_row_38_an_echo_is_no_answer(lines: Mapping[str, Found | BaseException], figure: Figure) -> None:
    judged(lines, figure, "echoing")


FLOOD_S = 4.0
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
        [sys.executable, "-c", NOISE, str(server.master), str(10 * FLOOD_S)], pass_fds=[server.master]
    )
    async with polled(line, (1, 2, 3, 4), every_s=0.2, timeout_s=0.05) as bus:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.5)
        begun, cpu_s, heard = loop.time(), _cpu_s(), line.bytes_received
        await asyncio.sleep(FLOOD_S)
        took_s = loop.time() - begun
        cpu, per_s = (_cpu_s() - cpu_s) / took_s, (line.bytes_received - heard) / took_s
        async with asyncio.timeout(5 * FLOOD_S):  # how soon each had its turns hangs on the machine
            while (silent := sum(not up for up in bus.record.health.values())) < 4:
                await asyncio.sleep(0.01)
        marked = line.noisy
        assert bus.record.good == 0
        noise.terminate()
        await asyncio.to_thread(noise.wait)
        server.plan = lambda request: [(0.0, answer(request))]
        begun = loop.time()
        async with asyncio.timeout(20):
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
    assert not bus.record.wrong


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
