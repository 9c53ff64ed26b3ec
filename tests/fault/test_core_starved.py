"""Rows 7, 46, 47, 51, 52 and 54: a core killed, hung, out of descriptors, besieged, or given much to complain of."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.http import CONNECTIONS
from hardware_sim.platform import Platform
from hardware_sim.receiver import Receiver
from tests.fault.way import Instruments, settled, site_file, uplink
from tests.system.running import Daemon, until
from tests.system.test_limits import memory_mb, sockets, stranger, threads_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import Figure

WATCHDOG_S = 2.0
STRANGERS = 500
HOSTILE = {  # a request to the metrics, and how its answer begins
    b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 10_000 + b"\r\n\r\n": b"",
    b"GET /" + b"a" * 80_000 + b" HTTP/1.1\r\n\r\n": b"",
    b"TRACE /metrics HTTP/1.1\r\n\r\n": b"HTTP/1.1 405 ",
    b"POST /metrics HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n": b"HTTP/1.1 405 ",
    b"\x16\x03\x01\x02\x00\x01\r\n\r\n": b"HTTP/1.1 400 ",
    b"GET http://evil.example/metrics HTTP/1.1\r\n\r\n": b"HTTP/1.1 400 ",
    b"GET /metrics/../../etc/passwd HTTP/1.1\r\n\r\n": b"HTTP/1.1 404 ",
    b"GET /%2e%2e/etc/passwd HTTP/1.1\r\n\r\n": b"HTTP/1.1 404 ",
    b"GET /<script> HTTP/1.1\r\n\r\n": b"HTTP/1.1 404 ",
}
RED = 'levels = { rising = true, red = 5.0, hysteresis = 0.1, source = "t", approver = "t" }\n'
# A line whose poll never ends from the tenth on; its patience is a second.
HANGING = """
import asyncio, itertools, sys
from daemon import poller
from daemon.commands import main
poller.PATIENCE_S = 1.0
poll, count = poller.PolledLine._poll, itertools.count()
async def hang(self, unit, tick_ns):
    if next(count) >= 10:
        await asyncio.sleep(1e9)
    return await poll(self, unit, tick_ns)
poller.PolledLine._poll = hang
sys.exit(main())
"""


class ServiceManager:
    """Hears what a core says to systemd."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fed_s: list[float] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))

    def hear(self) -> int:
        """How often the watchdog was fed so far."""
        while True:
            try:
                said = self._socket.recv(4096)
            except BlockingIOError:
                return len(self.fed_s)
            self.fed_s += [time.monotonic()] * (b"WATCHDOG=1" in said)

    async def starved(self) -> float:
        """Wait until the watchdog was not fed for its time; how long after the call it was fed last."""
        began_s = last_s = time.monotonic()
        count = self.hear()
        while time.monotonic() - last_s < WATCHDOG_S:
            await asyncio.sleep(0.02)
            if self.hear() > count:
                count, last_s = self.hear(), time.monotonic()
        return last_s - began_s

    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def polled(
    folder: Path, levels: str = ""
) -> AsyncIterator[tuple[Instruments, Receiver, Path, ServiceManager]]:
    """An instrument, a platform, a site file, and who hears the core."""
    receiver = Receiver()
    async with AsyncExitStack() as stack:
        instruments = await stack.enter_async_context(Instruments(1).serving())
        platform = await stack.enter_async_context(Platform(receiver))
        manager = ServiceManager(folder / "notify")
        stack.callback(manager.close)
        up = uplink("up", int(platform.address.rpartition(":")[2]))
        site = site_file(folder, instruments, up, every="200 ms", answer="100 ms", levels=levels)
        yield instruments, receiver, site, manager


async def polls_on(instruments: Instruments, count: int = 5) -> None:
    before = instruments.polls[1]
    await until(lambda: instruments.polls[1] >= before + count, "polls go on")


@pytest.mark.fault(
    row=46,
    fault="the whole core hangs",
    injected="SIGSTOP; a service manager that waits 2 s for its watchdog, then kills and starts anew",
    holds="the watchdog is not fed; after the restart it is, polls go on, nothing is lost",
)
async def test_a_core_that_stands_still_does_not_feed_its_watchdog(tmp_path: Path, figure: Figure) -> None:
    async with polled(tmp_path) as (instruments, receiver, site, manager):
        async with Daemon(site, tmp_path, **manager.environment()) as core:
            await until(lambda: manager.hear() >= 3, "the watchdog is fed")
            core.send(signal.SIGSTOP)
            began_s = time.monotonic()
            await asyncio.wait_for(manager.starved(), 20)
            await core.kill()
            await core.start()
            await polls_on(instruments, 1)
            took_s = time.monotonic() - began_s
            fed = manager.hear()
            await until(lambda: manager.hear() > fed, "it is fed again")
            await until(lambda: settled(core), "all is settled")
            assert await core.stop() == 0
        summary = receiver.summary()
    assert (summary.holes, summary.forks, summary.chain_breaks) == (0, 0, 0)
    figure(f"polled again {took_s:.1f} s after it stood still, {WATCHDOG_S:g} s of them the watchdog's")


@pytest.mark.fault(
    row=47,
    fault="one stage hangs, the others run",
    injected="a poll that never ends, put into a line; control socket and metrics go on",
    holds="the watchdog is withheld, /healthz says which",
)
async def test_a_line_that_hangs_withholds_the_watchdog_though_all_else_runs(
    tmp_path: Path, figure: Figure
) -> None:
    async with polled(tmp_path) as (instruments, _, site, manager):
        core = Daemon(site, tmp_path, **manager.environment())
        core._command = [sys.executable, "-c", HANGING, "--config", str(site), "run"]
        async with core:
            await until(lambda: instruments.polls[1] >= 10, "the line hangs")
            last_s = await asyncio.wait_for(manager.starved(), 30)
            (ill,) = [ill for ill in (await core.ask("status"))["ills"] if "line l" in ill]
    figure(f'fed last {last_s:.1f} s after the poll began to hang; "{ill}"')


@pytest.mark.fault(
    row=51,
    fault="no file descriptor is left",
    injected="prlimit to what is open, twenty connections to metrics and control socket",
    holds="polls and commits go on, no exit; all answers again when there are descriptors",
)
async def test_a_core_without_descriptors_polls_on(tmp_path: Path, figure: Figure) -> None:
    async with polled(tmp_path) as (instruments, receiver, site, _), Daemon(site, tmp_path) as core:
        await polls_on(instruments)
        before = resource.prlimit(core.pid, resource.RLIMIT_NOFILE)
        count = len(list(Path(f"/proc/{core.pid}/fd").iterdir()))
        resource.prlimit(core.pid, resource.RLIMIT_NOFILE, (count, before[1]))
        host, _, port = core.listen.partition(":")
        waiting = [socket.create_connection((host, int(port))) for _ in range(20)]
        polls, received = instruments.polls[1], receiver.summary().received
        await polls_on(instruments, 20)
        await until(lambda: receiver.summary().received > received, "batches leave")
        polls = instruments.polls[1] - polls
        for each in waiting:
            each.close()
        resource.prlimit(core.pid, resource.RLIMIT_NOFILE, before)
        await until(core.metrics, "metrics answer again")
        await until(lambda: settled(core), "all is settled")
        assert await core.stop() == 0
    assert receiver.summary().holes == 0
    figure(f"{polls} polls and their batches with none of {count} descriptors free, the same process")


@pytest.mark.fault(
    row=52,
    fault="strangers besiege the metrics",
    injected=f"{STRANGERS} connections that begin a request and end none; heads of 10 and 80 kB, bad methods and paths",
    holds=f"at most {CONNECTIONS} are served at a time, threads and memory bounded, polls go on, well-asked is answered",
)
async def test_a_besieged_core_polls_on_and_stays_small(tmp_path: Path, figure: Figure) -> None:
    async with polled(tmp_path) as (instruments, _, site, _), Daemon(site, tmp_path) as core:
        await polls_on(instruments)
        await until(core.metrics, "metrics answer")
        memory, threads, at_rest = memory_mb(core.pid, "VmRSS"), threads_of(core.pid), sockets(core.pid)
        slow = [
            asyncio.create_task(stranger(core.listen, b"GET /metr", reads=True)) for _ in range(STRANGERS)
        ]
        await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
        await until(lambda: sockets(core.pid) <= at_rest + CONNECTIONS, "the others are sent away")
        most_threads = threads_of(core.pid)
        await polls_on(instruments)
        borne_s = await asyncio.gather(*slow)
        for request, begins in HOSTILE.items():
            answer = await _answered(core.listen, request)
            assert answer.startswith(begins) if begins else answer == b"", request[:60]
            assert b"root:" not in answer
            assert b"<script>" not in answer
            assert not answer or b"frame-ancestors 'none'" in answer
        await until(core.metrics, "metrics answer again")
        await until(lambda: sockets(core.pid) <= at_rest, "every socket is given back")
        grown_mb = memory_mb(core.pid, "VmRSS") - memory
        await polls_on(instruments)
        assert most_threads <= threads + 1
        assert grown_mb < 5
        assert await core.stop() == 0
    figure(
        f"{grown_mb:+.1f} MB, {most_threads - threads:+d} threads, the last was gone after {max(borne_s):.1f} s"
    )


async def _answered(listen: str, request: bytes) -> bytes:
    """All that is answered before the connection ends; nothing where it just ends."""
    host, _, port = listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


class Flapping(Instruments):
    """Answers one poll and leaves the next without an answer."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.polls[0]:
            self.polls[0] = 0
            writer.transport.abort()
            return
        self.polls[0] = 1
        task = asyncio.ensure_future(super()._serve(reader, writer))
        await asyncio.sleep(0.5)
        writer.transport.abort()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.fault(
    row=54,
    fault="a device that gives much to complain of",
    injected="an instrument whose connections end after half a second or at once, polled five times a second",
    holds="the log stays small: less than 50 MB a day",
)
async def test_a_device_that_comes_and_goes_does_not_flood_the_log(tmp_path: Path, figure: Figure) -> None:
    async with Flapping(1).serving() as instruments:
        site = site_file(tmp_path, instruments, "", every="200 ms", answer="100 ms")
        async with Daemon(site, tmp_path) as core:
            await polls_on(instruments, 3)
            size, began_s = core.log.stat().st_size, time.monotonic()
            await asyncio.sleep(10)
            per_s = (core.log.stat().st_size - size) / (time.monotonic() - began_s)
            assert await core.stop() == 0
    assert per_s * 86_400 < 50e6
    figure(f"{per_s:.0f} bytes a second, {per_s * 0.0864:.1f} MB a day")


@pytest.mark.timeout(180)
@pytest.mark.fault(
    row=7,
    fault="killed between an alarm and the store",
    injected="kill -9 within 4 ms after the poll that raises it, four times",
    holds="after the restart the alarm is there; one that was stored keeps its id; the platform has one",
)
async def test_a_core_killed_while_it_raises_an_alarm_raises_it_again(tmp_path: Path, figure: Figure) -> None:
    dice, kept = random.Random(7), 0
    for n in range(4):
        folder = tmp_path / str(n)
        folder.mkdir()
        async with polled(folder, RED) as (instruments, receiver, site, _), Daemon(site, folder) as core:
            await until(lambda: instruments.polls[1] >= 6, "it is above the level")
            await asyncio.sleep(dice.uniform(0.0, 0.15))
            await core.kill()
            stored = {json.loads(b.payload)["id"] for b in core.batches() if b.kind == "alarms"}
            stored = {id_ for id_ in stored if id_.startswith("channel:u1.c1")}
            kept += len(stored)
            await core.start()
            await until(lambda: raised(core), "the alarm")
            ids = await raised(core)
            assert len(ids) == 1
            assert stored <= ids
            await until(lambda: settled(core), "all is settled")
            assert await core.stop() == 0
            told = {alarm.id for alarm in receiver.summary().alarms if alarm.id.startswith("channel:u1.c1")}
            assert told == ids
    figure(f"4 kills: {kept} alarms were stored and kept their ids, {4 - kept} were raised again")


async def raised(core: Daemon) -> set[str]:
    return {alarm["id"] for alarm in await core.ask("alarms.list") if alarm["id"].startswith("channel:u1.c1")}
