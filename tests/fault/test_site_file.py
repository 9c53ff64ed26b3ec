"""A site file that turns bad stops nothing: neither a running core nor a start."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hardware_sim.platform import Platform
from hardware_sim.receiver import Receiver
from tests.fault.way import Instruments, settled, site_file, uplink
from tests.system.running import ROOT, Daemon, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.conftest import Figure

pytestmark = pytest.mark.timeout(60)


class Gateway:
    """A running core, its site file, and the instrument it polls."""

    def __init__(self, daemon: Daemon, site: Path, instruments: Instruments, receiver: Receiver) -> None:
        self.daemon = daemon
        self.site = site
        self.good = site.read_text()
        self.instruments = instruments
        self.receiver = receiver

    async def hash(self) -> str:
        (name,) = [name for name in await self.daemon.metrics() if name.startswith("pondwatch_config_info")]
        return name

    async def alarm(self) -> dict[str, Any] | None:
        alarms = await self.daemon.ask("alarms.list")
        return next((each for each in alarms if each["id"].startswith("system:site-file")), None)

    async def alarm_is(self, condition: str) -> bool:
        alarm = await self.alarm()
        return alarm is not None and alarm["condition"] == condition

    async def polls_on(self, count: int = 3) -> None:
        before = self.instruments.polls[1]
        await until(lambda: self.instruments.polls[1] >= before + count, "polls go on")


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    receiver = Receiver()
    async with AsyncExitStack() as stack:
        instruments = await stack.enter_async_context(Instruments(1).serving())
        platform = await stack.enter_async_context(Platform(receiver))
        port = int(platform.address.rpartition(":")[2])
        site = site_file(folder, instruments, uplink("up", port), every="200 ms", answer="100 ms")
        daemon = await stack.enter_async_context(Daemon(site, folder))
        await until((folder / "last-good.toml").exists, "the copy is kept")
        yield Gateway(daemon, site, instruments, receiver)
        if (await daemon.ask("status"))["uplinks"]:
            await until(lambda: settled(daemon), "all is settled")
        assert await daemon.stop() == 0
        summary = receiver.summary()
        assert (summary.holes, summary.chain_breaks, summary.forks) == (0, 0, 0)


BAD: dict[str, Callable[[str], str]] = {
    "mistake": lambda good: good.replace('every = "200 ms"', 'every = "200"'),
    "truncated": lambda good: good[: len(good) // 2],
    "empty": lambda _: "",
    "no text": lambda _: "\0" * 500,
    "huge": lambda good: good + "#" * (17 << 20),
}


@pytest.mark.fault(
    row=48,
    fault="SIGHUP with a bad, truncated, empty or huge site file",
    injected="the file is replaced under a running core, then SIGHUP",
    holds="the old one stays in use and polls go on; an alarm says what is wrong and ends with it",
)
async def test_a_bad_new_site_file_changes_nothing_but_an_alarm(tmp_path: Path, figure: Figure) -> None:
    async with gateway(tmp_path) as here:
        pid, hash_ = here.daemon.pid, await here.hash()
        for name, spoil in BAD.items():
            here.site.write_text(spoil(here.good))
            here.daemon.send(signal.SIGHUP)
            await until(lambda: here.alarm_is("present"), f"the alarm about {name}")
            await here.polls_on()
            here.site.write_text(here.good)
            here.daemon.send(signal.SIGHUP)
            await until(lambda: here.alarm_is("gone"), f"its end after {name}")
        assert (here.daemon.pid, await here.hash()) == (pid, hash_)
        figure(f"{len(BAD)} bad files, none taken; the core never stopped")


@pytest.mark.fault(
    row=49,
    fault="SIGHUP before READY, and a storm of them",
    injected="SIGHUP from the first moment of a start on, then 1000 at once",
    holds="ignored or taken as one; the process lives, polls go on",
)
async def test_a_storm_of_sighup_is_one_and_one_before_ready_is_no_end(
    tmp_path: Path, figure: Figure
) -> None:
    async with gateway(tmp_path) as here:
        for _ in range(1000):
            here.daemon.send(signal.SIGHUP)
        await here.polls_on()
        looked = here.daemon.log.read_text().count("the site file is the one in use")
        assert 1 <= looked <= 20
        await here.daemon.stop()
        storm = asyncio.create_task(_hups(here.daemon))
        await here.daemon.start()
        storm.cancel()
        await here.polls_on()
        figure(f"1000 SIGHUPs were {looked} looks at the file; a start under SIGHUP every 5 ms went well")


async def _hups(daemon: Daemon) -> None:
    """From the moment on at which it can hear: before Python itself has begun a SIGHUP is the end of any program."""
    old = daemon._process
    while daemon._process is old or not _hears(daemon.pid):
        await asyncio.sleep(0.001)
    while True:
        daemon.send(signal.SIGHUP)
        await asyncio.sleep(0.005)


def _hears(pid: int) -> bool:
    """Whether SIGHUP is ignored or caught."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    masks = re.findall(r"^Sig(?:Ign|Cgt):\s*([0-9a-f]+)$", status, re.MULTILINE)
    return any(int(mask, 16) & 1 << (signal.SIGHUP - 1) for mask in masks)


@pytest.mark.fault(
    row=50,
    fault="a bad site file at the start",
    injected="spoiled while the core is down, or naming a store that cannot be had",
    holds="the last good one starts, an alarm says so, polls go on; a new good one is taken by SIGHUP",
)
@pytest.mark.parametrize("how", ["mistake", "missing", "another mode"])
async def test_a_bad_site_file_at_the_start_starts_the_last_good_one(
    tmp_path: Path, how: str, figure: Figure
) -> None:
    async with gateway(tmp_path) as here:
        hash_ = await here.hash()
        await here.daemon.stop()
        if how == "missing":
            here.site.unlink()
        elif how == "another mode":  # well-formed, but its store holds test data
            here.site.write_text(here.good.replace('mode = "test"', 'mode = "real"'))
        else:
            here.site.write_text(BAD[how](here.good))
        await here.daemon.start()
        assert await here.hash() == hash_
        await until(lambda: here.alarm_is("present"), "the alarm")
        await here.polls_on()
        here.site.write_text(here.good.replace('timeout = "100 ms"', 'timeout = "90 ms"'))
        pid = here.daemon.pid
        here.daemon.send(signal.SIGHUP)
        await until(lambda: _other(here, hash_), "the new site file is in use")
        assert here.daemon.pid == pid
        await here.polls_on()
        await until(lambda: here.alarm_is("gone"), "the alarm's end")
        await until(lambda: settled(here.daemon), "all is settled")
        audits = [json.loads(batch.payload) for batch in here.daemon.batches() if batch.kind == "audit"]
        changes = [each for each in audits if each["what"] == "config"][-1]["changes"]
        assert [(change["name"], change["to"]["timeout_s"]) for change in changes] == [("device u1", 0.09)]
    figure(f"{how}: started on the copy, the repaired file taken by the same process")


async def _other(here: Gateway, hash_: str) -> bool:
    return await here.hash() != hash_


async def test_without_a_last_good_file_a_bad_one_is_told_in_one_sentence(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text("[site")
    command = [sys.executable, "-m", "daemon.commands", "--config", str(site), "run"]
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, cwd=ROOT, env={**os.environ, "PONDWATCH_RUN": str(tmp_path)}
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().count("\n") == 1
    assert "is not TOML" in said.decode()
