"""What the core may cost: memory, modules, and what strangers at its metrics can take."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.http import CONNECTIONS, DEADLINE_S
from daemon.metrics import Endpoint, Metrics
from hardware_sim.ports import free_port
from tests.system.running import (
    Bench,
    Daemon,
    Program,
    assert_no_poll_was_missed,
    demo_site,
    readings,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_MB = 60.0
STRANGERS = 200
NEVER_IN_THE_CORE = {"numba", "llvmlite", "numpy", "sqlite_utils", "rich", "edge_rules.advice"}

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def memory_mb(pid: int, what: str) -> float:
    """`VmRSS` now, or `VmHWM`, the most there ever was: proc(5)."""
    found = re.search(rf"^{what}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def libraries(pid: int) -> set[str]:
    """The packages whose compiled parts a process has mapped."""
    return set(re.findall(r"/site-packages/([^/]+)/\S+\.so", Path(f"/proc/{pid}/maps").read_text()))


def imported(log: Path) -> set[str]:
    """Every module and package that a process with PYTHONPROFILEIMPORTTIME has imported, ever."""
    names = re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", log.read_text(), re.MULTILINE)
    return {name.rsplit(".", n)[0] for name in names for n in range(name.count(".") + 1)}


def sockets(pid: int) -> int:
    count = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(fd.readlink()).startswith("socket:")
    return count


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def listening(pid: int) -> set[str]:
    """Where a process listens: host:port, or the path of a Unix socket. proc_net(5)."""
    opened = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            opened |= set(re.findall(r"socket:\[(\d+)\]", str(fd.readlink())))
    net, found = Path(f"/proc/{pid}/net"), set()
    for line in (net / "unix").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "00010000" and words[6] in opened:  # __SO_ACCEPTCON
            found.add(words[7])
    for family in ("tcp", "tcp6", "udp", "udp6"):
        for line in (net / family).read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in opened and (family.startswith("udp") or words[3] == "0A"):  # TCP_LISTEN
                host, _, port = words[1].partition(":")
                shown = socket.inet_ntoa(bytes.fromhex(host)[::-1]) if len(host) == 8 else host
                found.add(f"{shown}:{int(port, 16)}")
    return found


async def test_the_core_of_the_demo_site_stays_small_and_never_loads_the_compiler(tmp_path: Path) -> None:
    run = tmp_path / "run"
    async with Bench(run, "storm", 120) as bench:
        site = demo_site(run, bench, ('start = "child"', 'start = "unit"'))
        command = [sys.executable, "-m", "daemon.commands", "--config", str(site), "rules"]
        environment = {"PONDWATCH_RUN": str(run)}
        async with (
            Daemon(site, run, bench.facts["clock"], PYTHONPROFILEIMPORTTIME="1") as daemon,
            Program(command, tmp_path / "rules.log", environment) as rules,
        ):

            async def judged() -> bool:
                gauges = await daemon.metrics()
                return gauges["pondwatch_rules_up"] == 1 and gauges['pondwatch_pond_level{pond="n"}'] >= 2

            await until(judged, "rules process and a yellow pond")
            assert (await daemon.verb("read", "n.pond.level", "n.pz01.pressure"))[0] == 0
            await until(lambda: len(readings(daemon.batches(), "n.pond.level")) > 25, "half an hour")
            assert memory_mb(daemon.pid, "VmHWM") < MOST_MB
            ours = {str(run / "control.sock"), str(run / "rules.sock")}
            assert listening(daemon.pid) == {daemon.listen, *ours}  # as docs/security.md has it
            assert listening(rules.pid) == set()
            assert not libraries(daemon.pid) & NEVER_IN_THE_CORE
            assert {"numpy", "llvmlite"} <= libraries(rules.pid)  # so that would have been seen
            assert await daemon.stop() == 0
    modules = imported(daemon.log)
    assert {"apsw", "daemon.pipeline"} <= modules
    assert not modules & NEVER_IN_THE_CORE


async def stranger(listen: str, begins: bytes, *, reads: bool) -> float:
    """Connects, begins to ask and then does nothing; for how long (s) the other end put up with it."""
    host, _, port = listen.rpartition(":")
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with contextlib.suppress(ConnectionError):
        reader, writer = await asyncio.open_connection(host, int(port))
        began_s = (
            loop.time()
        )  # when more come at once than the kernel queues, some get in only a second later
        try:
            writer.write(begins)
            if reads:
                await reader.read()
            else:
                await asyncio.sleep(DEADLINE_S)
        finally:
            writer.close()
    return loop.time() - began_s


async def test_two_hundred_strangers_at_the_metrics_are_bounded_and_cost_no_poll(tmp_path: Path) -> None:
    run = tmp_path / "run"
    async with Bench(run, "calm", 60) as bench:
        site = demo_site(run, bench, ('start = "child"', 'start = "off"'))
        async with Daemon(site, run, bench.facts["clock"]) as daemon:
            await until(lambda: readings(daemon.batches(), "n.pond.level"), "the first poll")
            before, memory = sockets(daemon.pid), memory_mb(daemon.pid, "VmRSS")
            slow = [
                asyncio.create_task(stranger(daemon.listen, b"GET /metr", reads=True))
                for _ in range(STRANGERS)
            ]
            slow += [
                asyncio.create_task(stranger(daemon.listen, b"GET /metrics HTTP/1.1\r\n\r\n", reads=False))
                for _ in range(CONNECTIONS)
            ]
            await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
            await until(lambda: sockets(daemon.pid) <= before + CONNECTIONS, "the others are sent away")
            borne_s = await asyncio.gather(*slow)
            assert await until(daemon.page, "the metrics answer again")
            assert sum(each > DEADLINE_S - 1 for each in borne_s[:STRANGERS]) <= CONNECTIONS
            assert max(borne_s) < DEADLINE_S + 3
            await until(lambda: sockets(daemon.pid) <= before, "every socket is given back")
            assert memory_mb(daemon.pid, "VmRSS") < memory + 5
            await until(lambda: len(readings(daemon.batches(), "n.pond.level")) > 6, "some minutes")
            assert await daemon.stop() == 0
        assert_no_poll_was_missed(daemon.batches())


class Large:
    """A site so large that its metrics do not fit into the kernel's buffers."""

    def gauges(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        for n in range(50_000):
            yield "pondwatch_channel_age_seconds", (f"pond.section.point.{n}",), 1.0


async def test_who_asks_for_much_and_reads_nothing_is_dropped_at_the_deadline() -> None:
    metrics, listen = Metrics("0", "0"), f"127.0.0.1:{free_port()}"
    metrics.watch(Large())
    serving = asyncio.create_task(Endpoint(listen, metrics, list, lambda: True).run())
    at_rest = sockets(os.getpid())
    await until(lambda: sockets(os.getpid()) > at_rest, "it listens")
    before = sockets(os.getpid())
    asking = [await deaf(listen) for _ in range(3)]
    assert sockets(os.getpid()) > before + len(asking)
    await until(
        lambda: sockets(os.getpid()) == before + len(asking), "only our own ends are left", DEADLINE_S + 3
    )
    for each in asking:
        each.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def deaf(listen: str) -> socket.socket:
    """Asks for the metrics and never reads."""
    asks = socket.socket()
    asks.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    asks.setblocking(False)
    host, _, port = listen.rpartition(":")
    loop = asyncio.get_running_loop()
    await loop.sock_connect(asks, (host, int(port)))
    await loop.sock_sendall(asks, b"GET /metrics HTTP/1.1\r\n\r\n")
    await asyncio.sleep(0.1)
    return asks
