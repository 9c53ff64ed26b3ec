"""Rows 43 to 45: the rules process killed, crashed, hung, out of memory, with a damaged cache.

The core is a process of its own and starts the rules process; the instrument is the bench's, on a real
pseudo-terminal. While the rules process is down the pond rises beyond a trigger level, which must be raised
all the same. Afterwards everything that the core heard of detectors is compared with what a rules process
says that was never disturbed, from the first batch on.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from daemon.config import Site
from daemon.rules import advised
from edge_rules.advice.messages import Config, Line
from edge_rules.advice.worker import Worker
from hardware_sim.instruments.vegapuls import VegaPuls
from hardware_sim.ports import free_port
from hardware_sim.wires import RtuWire
from tests.fault.test_siren import CALM_M, RADAR, RED_M, SITE, Wire
from tests.system.running import Daemon, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import Figure

STEP_RUN = 6  # readings after which the trend says that there was a step
ADVICE = "advice = { trend_noise = 0.01, trend_rate_per_day = 1.0, onset = true }\n"


@asynccontextmanager
async def pond(folder: Path, cache: Path) -> AsyncIterator[tuple[Wire, Daemon, Path]]:
    """A core whose rules process has judged something."""
    run = folder / "run"
    run.mkdir()
    wire = Wire()
    port = RtuWire(run / "port", {RADAR: VegaPuls(wire.truth, 0.0, 20.0)})
    port.tap = wire.tap
    await port.open()
    text = SITE.format(run=run, port=free_port())
    begin, end = text.index('[[device]]\nid = "relay1"'), text.index("[[channel]]")
    text = text[:begin] + text[end : text.index("[[output]]")].replace("red = 5.0", "orange = 5.0") + ADVICE
    site = folder / "site.toml"
    site.write_text(text)
    try:
        async with Daemon(site, run, CACHE_DIRECTORY=str(cache)) as daemon:
            await until(lambda: judging(daemon), "the rules process judges", 150)
            yield wire, daemon, site
            await daemon.stop()
    finally:
        port.close()


async def judging(daemon: Daemon) -> bool:
    """Whether the rules process is there and has judged what it was shown."""
    up, lag = await daemon.gauge("pondwatch_rules_up"), await daemon.gauge("pondwatch_rules_lag_seconds")
    return up == 1 and lag < 1.0


async def rises(wire: Wire, daemon: Daemon) -> float:
    """The pond rises and falls again; seconds from the reply that completed the hold to the alarm."""

    async def condition() -> str:
        alarms = await daemon.ask("alarms.list")
        return next((a["condition"] for a in alarms if a["id"].startswith("channel:")), "")

    async def raised() -> bool:
        return await condition() == "present"

    async def over() -> bool:
        return await condition() == "gone"

    wire.red_replies_s = []
    wire.level_m = RED_M
    await until(raised, "the trigger level is raised")
    seen_s = time.monotonic()
    await until(lambda: len(wire.red_replies_s) >= STEP_RUN + 2, "long enough for a step")
    wire.level_m = CALM_M
    await until(over, "and is over")
    return seen_s - next(at for at in wire.red_replies_s if at - wire.red_replies_s[0] >= 0.65)


async def replaced(daemon: Daemon, pid: int) -> float:
    """Wait until another rules process has judged the backlog; seconds."""
    began_s = time.monotonic()
    await until(lambda: daemon.rules_pid() not in (None, pid), "another rules process", 150)
    await until(lambda: judging(daemon), "it has judged the backlog", 150)
    return time.monotonic() - began_s


def verdicts_heard(daemon: Daemon) -> set[tuple[Any, ...]]:
    """Advice that became alarms, by the batch it rests on; to the last bit of the score."""
    found = set()
    for batch in daemon.batches():
        alarm = json.loads(batch.payload) if batch.kind == "alarms" else {}
        if alarm.get("kind") == "advice" and "rests_on" in alarm["evidence"]:
            its = alarm["evidence"]
            found.add(
                (alarm["rule"], its["rests_on"]["seq"], alarm["condition"], its["score"], alarm["value"])
            )
    return found


def verdicts_undisturbed(daemon: Daemon, site: Path, folder: Path) -> set[tuple[Any, ...]]:
    """What a rules process says of the same batches that nobody disturbs."""
    folder.mkdir()
    worker = Worker(folder)
    loaded = Site.load(site)
    batches = [batch for batch in daemon.batches() if batch.kind == "readings"]
    stream = json.loads(batches[0].payload)["stream"]
    config = {"stream": stream, "config_sha256": loaded.sha256, "channels": advised(loaded)}
    worker.configure(msgspec.json.decode(msgspec.json.encode(config), type=Config))
    found = set()
    for batch in batches:
        for line in worker.judge(msgspec.json.decode(batch.payload, type=Line)).splitlines():
            its = json.loads(line).get("verdict")
            if its is not None:
                found.add((its["rule"], its["seq"], its["condition"], its["score"], its["value"]))
    return found


async def disturbed(
    folder: Path, cache: Path, *ways: tuple[str, Any]
) -> tuple[list[float], list[float], int]:
    """Disturb in each of these ways: times to the alarm, times to the backlog judged, verdicts compared."""
    alarms_s, back_s = [], []
    async with pond(folder, cache) as (wire, daemon, site):
        await rises(wire, daemon)
        for _, disturb in ways:
            pid = daemon.rules_pid()
            assert pid is not None
            disturb(pid)
            alarms_s.append(await rises(wire, daemon))
            back_s.append(await replaced(daemon, pid))
        await until(lambda: judging(daemon), "all is judged")
    heard, undisturbed = verdicts_heard(daemon), verdicts_undisturbed(daemon, site, folder / "again")
    assert heard
    assert heard == undisturbed
    return alarms_s, back_s, len(heard)


def told(alarms_s: list[float], back_s: list[float], count: int) -> str:
    return (
        f"{len(alarms_s)} of {len(alarms_s)} alarms raised, the slowest {max(alarms_s):.2f} s after its reading; "
        f"backlog judged {max(back_s):.1f} s after at most; {count} verdicts the same to the last bit"
    )


@pytest.mark.timeout(300)
@pytest.mark.fault(
    row=43,
    fault="rules process killed, crashed",
    injected="SIGKILL, SIGSEGV, while the pond rises beyond a trigger level",
    holds="the level is raised all the same; restarted, the backlog judged with the verdicts of a run without",
)
async def test_row_43_a_crashed_rules_process_costs_no_level_and_no_verdict(
    tmp_path: Path, compiled: Path, figure: Figure
) -> None:
    ways = [
        (each.name, lambda pid, each=each: os.kill(pid, each)) for each in (signal.SIGKILL, signal.SIGSEGV)
    ]
    figure(told(*await disturbed(tmp_path, compiled, *ways)))


@pytest.mark.campaign
@pytest.mark.timeout(300)
@pytest.mark.fault(
    row=43,
    fault="rules process hangs",
    injected="SIGSTOP, while the pond rises beyond a trigger level",
    holds="the same; what judges nothing for 15 s is killed and started again",
)
async def test_row_43_a_hung_rules_process_is_killed_and_costs_no_level_and_no_verdict(
    tmp_path: Path, compiled: Path, figure: Figure
) -> None:
    way = ("SIGSTOP", lambda pid: os.kill(pid, signal.SIGSTOP))
    figure(told(*await disturbed(tmp_path, compiled, way)))


@pytest.mark.campaign
@pytest.mark.timeout(300)
@pytest.mark.fault(
    row=44,
    fault="compile cache of the rules process damaged",
    injected="every compiled kernel cut to half, then kill -9",
    holds="compiled anew, the backlog judged with the same verdicts, levels meanwhile raised",
)
async def test_row_44_a_damaged_compile_cache_is_compiled_anew(tmp_path: Path, figure: Figure) -> None:
    cache = tmp_path / "kernels"
    cache.mkdir()

    def spoil(pid: int) -> None:
        kernels = [*cache.rglob("*.nbc"), *cache.rglob("*.nbi")]
        assert kernels
        for path in kernels:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        os.kill(pid, signal.SIGKILL)

    figure(told(*await disturbed(tmp_path, cache, ("cache", spoil))))


@pytest.mark.campaign
@pytest.mark.timeout(300)
@pytest.mark.fault(
    row=45,
    fault="rules process out of memory",
    injected="its address space limited to what it has (RLIMIT_AS), and it is shown more",
    holds="it ends at most by itself; the core goes on, levels are raised, the backlog is judged",
)
async def test_row_45_a_rules_process_without_memory_costs_no_level_and_no_verdict(
    tmp_path: Path, compiled: Path, figure: Figure
) -> None:
    def starve(pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))
        os.kill(pid, signal.SIGTERM)  # leaving its checkpoint needs memory too

    figure(told(*await disturbed(tmp_path, compiled, ("memory", starve))))
