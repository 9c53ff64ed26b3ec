"""From the wire to settled: values per second, CPU per value, memory, and what idling costs.

The daemon under test is the real one, a process of its own on one core. On the other core: a Modbus server (libmodbus
where Debian's package is there, else the bench's), and the receiving platform, which stores and receipts
every batch. CPU is what the kernel charged the daemon's process, all threads, user and system.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hardware_sim.platform import Platform
from hardware_sim.ports import free_port
from hardware_sim.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

POINTS = 24  # of drivers/profiles/campbell-cr1000x.toml, one block
SERVER = Path(__file__).parents[1] / "peers/libmodbus_server.c"


@dataclass(frozen=True)
class Load:
    """What the daemon is given to do."""

    name: str
    lines: int
    devices: int  # on each line
    every_s: float
    rate: int  # of the clock; `every_s` is bench time, deadlines stay real
    seconds: float = 10.0

    @property
    def channels(self) -> int:
        return self.lines * self.devices * POINTS


@dataclass(frozen=True)
class Figures:
    """What was measured over `seconds`; `missed` is the share of ticks for which there was no time, of all."""

    name: str
    channels: int
    values_per_s: float
    cpu_us_per_value: float
    cpu_percent: float
    rss_mb: float
    commit_ms: float
    lost: int | None
    missed: float = 0.0


LOADS = (
    Load("idle: once a minute", 1, 2, 60.0, 1, seconds=30.0),
    Load("once a second", 1, 2, 1.0, 1, seconds=20.0),
    Load("every 10 ms", 2, 5, 1.0, 100),
    Load("every 10 ms, four lines", 4, 10, 1.0, 100),
    Load("flat out", 4, 10, 1.0, 1000),
)
COMPARED = "every 10 ms"


def measure() -> list[Figures]:
    """Every load in turn."""
    build = Path("build/bench")
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    rows = [asyncio.run(_measured(load, build / str(n))) for n, load in enumerate(LOADS)]
    compared = next(load for load in LOADS if load.name == COMPARED)
    return [*rows, asyncio.run(_plain(compared, build / "plain"))]


async def _measured(load: Load, folder: Path) -> Figures:
    folder.mkdir()
    receiver = Receiver()
    async with contextlib.AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(modbus_server(folder)) for _ in range(load.lines)]
        platform = await stack.enter_async_context(Platform(receiver))
        metrics = f"127.0.0.1:{free_port()}"
        site = site_file(load, folder, ports, platform.address, metrics)
        daemon = await stack.enter_async_context(core(site, folder, load.rate))
        await _until_polled(load, metrics)
        before, began_s, cpu_s = await _scrape(metrics), time.monotonic(), _cpu_s(daemon.pid)
        await asyncio.sleep(load.seconds)
        cpu_s, took_s = _cpu_s(daemon.pid) - cpu_s, time.monotonic() - began_s
        after = await _scrape(metrics)
        rss_mb = _rss_mb(daemon.pid)
        asked = _sum(after, "pondwatch_readings_total") - _sum(before, "pondwatch_readings_total")
        readings = asked - _missed(after) + _missed(before)
        commits = _sum(after, "pondwatch_commit_seconds_count") - _sum(
            before, "pondwatch_commit_seconds_count"
        )
        commit_s = _sum(after, "pondwatch_commit_seconds_sum") - _sum(before, "pondwatch_commit_seconds_sum")
        daemon.send_signal(signal.SIGTERM)
        await daemon.wait()
        summary = receiver.summary()
    return Figures(
        load.name,
        load.channels,
        readings / took_s,
        cpu_s / readings * 1e6 if readings else 0.0,
        100 * cpu_s / took_s,
        rss_mb,
        1000 * commit_s / max(commits, 1),
        summary.holes,
        1 - readings / asked if asked else 0.0,
    )


async def _plain(load: Load, folder: Path) -> Figures:
    """The plain loop of tests/bench/plain.py under the same load."""
    folder.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(modbus_server(folder)) for _ in range(load.lines)]
        platform = await stack.enter_async_context(Platform(Receiver()))
        database = folder / "plain.db"
        period_s = load.every_s / load.rate
        arguments = [str(database), platform.address, str(period_s), str(load.devices), *ports]
        command = [*_on_core(0), sys.executable, "-m", "tests.bench.plain", *arguments]
        plain = await asyncio.create_subprocess_exec(*command)
        await asyncio.sleep(3.0)
        before, began_s, cpu_s = _rows(database), time.monotonic(), _cpu_s(plain.pid)
        await asyncio.sleep(load.seconds)
        cpu_s, took_s = _cpu_s(plain.pid) - cpu_s, time.monotonic() - began_s
        values, rss_mb = _rows(database) - before, _rss_mb(plain.pid)
        plain.kill()
        await plain.wait()
    per_value = cpu_s / values * 1e6
    percent = 100 * cpu_s / took_s
    return Figures("plain loop", load.channels, values / took_s, per_value, percent, rss_mb, 0.0, None)


def _rows(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT max(rowid) FROM reading").fetchone()[0] or 0)


# -- parts -------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def modbus_server(folder: Path) -> AsyncIterator[str]:
    """A Modbus TCP server in a process of its own on the second core; its address."""
    binary = folder.parent / "libmodbus_server"
    if not binary.exists() and shutil.which("cc"):
        command = ["cc", "-O2", "-I/usr/include/modbus", str(SERVER), "-lmodbus", "-o", str(binary)]
        await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True)
    command = [str(binary), "tcp"] if binary.exists() else [sys.executable, "-m", "tests.bench.server"]
    server = await asyncio.create_subprocess_exec(*_on_core(1), *command, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    word = (await server.stdout.readline()).decode().split()
    try:
        yield f"127.0.0.1:{word[1]}"
    finally:
        server.kill()
        await server.wait()


@contextlib.asynccontextmanager
async def core(site: Path, folder: Path, rate: int) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [*_on_core(0), sys.executable, "-m", "daemon.commands", "--config", str(site), "run"]
    clock = {"PONDWATCH_BENCH_CLOCK": f"{rate}@{time.time()}"} if rate > 1 else {}
    environment = os.environ | {"PONDWATCH_RUN": str(folder)} | clock
    with (folder / "daemon.log").open("wb") as log:
        daemon = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, env=environment)
    try:
        yield daemon
    finally:
        if daemon.returncode is None:
            daemon.kill()
            await daemon.wait()


def site_file(load: Load, folder: Path, ports: list[str], platform: str, metrics: str) -> Path:
    text = (
        '[site]\nid = "bench"\ngateway = "gw1"\nmode = "simulated"\n'
        f'[store]\npath = "{folder}/store"\n[metrics]\nlisten = "{metrics}"\n[rules]\nstart = "off"\n'
        f'[[pond]]\nid = "p"\n[[uplink]]\nid = "up"\nkind = "mqtt"\nurl = "mqtt://{platform}"\nsettle = "receipt"\n'
    )
    levels = 'levels = { rising = true, red = 1e9, hold = "1 min", source = "bench" }\n'
    for n, port in enumerate(ports):
        text += f'[[line]]\nid = "l{n}"\nkind = "modbus-tcp"\naddress = "{port}"\n'
        for d in range(load.devices):
            device = f"d{n}-{d}"
            text += (
                f'[[device]]\nid = "{device}"\nline = "l{n}"\nprofile = "campbell-cr1000x"\nunit = {d + 1}\n'
                f'every = "{load.every_s:g} s"\ntimeout = "500 ms"\nslowest_reply = "500 ms"\n'
            )
            for v in range(1, POINTS + 1):
                text += (
                    f'[[channel]]\nid = "{device}.c{v:02}"\nunit = "kPa"\npond = "p"\nitem = "pore-pressure"\n'
                    f'from = "{device}.v{v:02}"\nspan = [-1e30, 1e30]\n'
                    f'calibration = {{ kind = "linear", scale = 0.5, offset = 1.0 }}\n{levels}'
                )
    site = folder / "site.toml"
    site.write_text(text)
    return site


def _on_core(core: int) -> list[str]:
    return ["taskset", "-c", str(core % (os.cpu_count() or 1))] if shutil.which("taskset") else []


# -- looking -----------------------------------------------------------------------------------------


async def _until_polled(load: Load, metrics: str) -> None:
    async with asyncio.timeout(150):
        while True:
            with contextlib.suppress(OSError):
                if _sum(await _scrape(metrics), "pondwatch_readings_total") >= load.channels:
                    return
            await asyncio.sleep(0.2)


async def commits(metrics: str) -> float:
    return _sum(await _scrape(metrics), "pondwatch_commit_seconds_count")


async def _scrape(metrics: str) -> str:
    def get() -> str:
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as reply:
            return str(reply.read().decode())

    return await asyncio.to_thread(get)


def _sum(text: str, name: str) -> float:
    return sum(float(v) for v in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def _missed(text: str) -> float:
    """Readings that say only that nothing was read: of these no value travelled."""
    found = re.findall(r'^pondwatch_readings_total{.*quality="bad".*} (\S+)$', text, re.MULTILINE)
    return sum(map(float, found))


def _cpu_s(pid: int) -> float:
    """Nanosecond run times of all threads: the usual tick counts mislead for work that begins at a tick."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in threads) / 1e9


def _rss_mb(pid: int) -> float:
    (pages,) = re.findall(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(pages) / 1024
