"""From the reply that completes the hold of red to the relay's coil: network, disk and rules process all gone.

The daemon is a process of its own; instrument and relay board are the bench's, on one real pseudo-terminal, and
what goes over it is stamped there. The campaign repeats it COUNT times and prints median, p99 and worst.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import statistics
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from hardware_sim.dam import Truth
from hardware_sim.instruments.vegapuls import VegaPuls
from hardware_sim.instruments.waveshare_relay import WaveshareRelay
from hardware_sim.ports import free_port
from hardware_sim.wires import RtuWire
from tests.system.running import Daemon, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import Figure

RADAR, RELAY = 1, 3
CALM_M, RED_M = 1.0, 9.0
HOLD_S = 0.7  # readings come every 0.5 s: the third in a row completes it
MOST_S = 1.0
SITE = """
[site]
id = "s"
gateway = "g"
mode = "simulated"
[store]
path = "{run}/store"
[metrics]
listen = "127.0.0.1:{port}"
[rules]
start = "child"
[[pond]]
id = "n"
[[line]]
id = "rs485-1"
kind = "modbus-rtu"
port = "{run}/port"
serial = "9600 8N1"
[[device]]
id = "radar1"
line = "rs485-1"
profile = "vegapuls"
unit = 1
every = "500 ms"
timeout = "200 ms"
slowest_reply = "200 ms"
[[device]]
id = "relay1"
line = "rs485-1"
profile = "waveshare-relay-8"
unit = 3
every = "10 min"
[[channel]]
id = "n.level"
unit = "m"
pond = "n"
item = "pond-level"
from = "radar1.pv"
span = [0, 20]
levels = {{ rising = true, red = 5.0, hysteresis = 0.1, hold = "700 ms", source = "t", approver = "t" }}
[[output]]
id = "siren"
device = "relay1"
write = "relay1"
pond = "n"
at = "red"
[[uplink]]
id = "company"
kind = "mqtt"
url = "mqtt://127.0.0.1:1"
settle = "receipt"
"""


@dataclass
class Wire:
    """The pond's level, the relay board, and when on the wire a reading beyond red and the coil were seen."""

    level_m: float = CALM_M
    red_replies_s: list[float] = field(default_factory=list)
    coil_s: float = 0.0

    def truth(self) -> Truth:
        values: dict[str, Any] = dict.fromkeys(Truth.__dataclass_fields__, 0.0)
        return Truth(**(values | {"pond_m": self.level_m}))

    def tap(self, direction: str, data: bytes) -> None:
        if direction == "out" and data[:2] == bytes((RADAR, 4)) and self.level_m == RED_M:
            self.red_replies_s.append(time.monotonic())
        if direction == "in" and data[:6] == bytes((RELAY, 5, 0, 0, 0xFF, 0)):
            self.coil_s = self.coil_s or time.monotonic()


@asynccontextmanager
async def pond(folder: Path) -> AsyncIterator[tuple[Wire, WaveshareRelay, Daemon]]:
    """A running daemon whose disk takes nothing, whose broker is not there, whose rules process is stopped."""
    run = folder / "run"
    run.mkdir()
    wire, board = Wire(), WaveshareRelay(time.monotonic)
    port = RtuWire(run / "port", {RADAR: VegaPuls(wire.truth, 0.0, 20.0), RELAY: board})
    port.tap = wire.tap
    await port.open()
    site = folder / "site.toml"
    site.write_text(SITE.format(run=run, port=free_port()))
    try:
        async with Daemon(site, run) as daemon:
            rules = await until(daemon.rules_pid, "the rules process")
            os.kill(rules, signal.SIGSTOP)
            # No write to any file succeeds any more: the kernel answers EFBIG.
            resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (0, 0))
            await until(lambda: has_lost_its_store(daemon), "the store fails")
            yield wire, board, daemon
            os.kill(rules, signal.SIGCONT)
    finally:
        port.close()


async def has_lost_its_store(daemon: Daemon) -> bool:
    """Its log is a file as well, so its alarm says so."""
    alarms = await daemon.ask("alarms.list")
    return any(alarm["id"].startswith("system:store") for alarm in alarms)


async def rung(wire: Wire, board: WaveshareRelay, daemon: Daemon) -> float:
    """Let the pond rise beyond red and fall; seconds from the reply that completed the hold to the coil."""
    wire.red_replies_s, wire.coil_s = [], 0.0
    wire.level_m = RED_M
    await until(lambda: wire.coil_s, "the siren sounds")
    wire.level_m = CALM_M
    completed_s = next(at_s for at_s in wire.red_replies_s if at_s - wire.red_replies_s[0] >= HOLD_S - 0.05)
    took_s = wire.coil_s - completed_s
    await daemon.ask("alarms.ack-all", by="w")
    await until(lambda: not board.closed[0], "acknowledged: it is silent")
    alarms = await daemon.ask("alarms.list")
    channel = next(alarm["id"] for alarm in alarms if alarm["kind"] == "channel")
    await daemon.ask("alarms.handle", id=channel, by="w", role="supervisor", note="test")
    await until(lambda: closed(daemon, channel), "red is closed after a measurement")
    return took_s


async def closed(daemon: Daemon, channel: str) -> bool:
    """Whether it could be closed now: it is not before two calm readings have come."""
    try:
        alarm = await daemon.ask("alarms.close", id=channel, by="w", role="supervisor")
    except AssertionError:
        await asyncio.sleep(0.2)
        return False
    return bool(alarm["response"] == "closed")


@pytest.mark.timeout(90)
async def test_the_siren_sounds_within_a_second_with_network_disk_and_rules_all_gone(tmp_path: Path) -> None:
    async with pond(tmp_path) as (wire, board, daemon):
        for _ in range(3):
            took_s = await rung(wire, board, daemon)
            assert 0.0 <= took_s < MOST_S


@pytest.mark.campaign
@pytest.mark.timeout(0)
@pytest.mark.fault(
    row=56,
    fault="siren while network, disk and rules process are gone",
    injected="no broker, every write to a file refused (RLIMIT_FSIZE 0), SIGSTOP; red again and again, 9600 baud",
    holds="from the reply that completes the hold to the relay's coil under 1 s (p99)",
)
async def test_the_siren_campaign_reports_the_p99_from_reply_to_coil(tmp_path: Path, figure: Figure) -> None:
    count = int(os.environ.get("COUNT") or 200)
    async with pond(tmp_path) as (wire, board, daemon):
        took_ms = sorted([1000.0 * await rung(wire, board, daemon) for _ in range(count)])
    p99 = took_ms[min(count - 1, round(0.99 * count))]
    figure(
        f"{count} times: median {statistics.median(took_ms):.1f} ms, p99 {p99:.1f} ms, worst {took_ms[-1]:.1f} ms"
    )
    assert p99 < 1000.0 * MOST_S


class Stuck(WaveshareRelay):
    """A board whose contacts can be stuck: it answers every write as done."""

    stuck = False

    def write_coil(self, at: int, value: int) -> None:
        if not self.stuck:
            super().write_coil(at, value)


SECOND = """
[[device]]
id = "relay2"
line = "rs485-1"
profile = "waveshare-relay-8"
unit = 4
every = "10 min"
[[output]]
id = "louder"
device = "relay2"
write = "relay1"
pond = "n"
at = "red"
[[person]]
id = "li"
name = "Li"
role = "duty"
[[duty]]
id = "day"
from = "00:00"
until = "12:00"
person = "li"
[[duty]]
id = "night"
from = "12:00"
until = "00:00"
person = "li"
"""


@pytest.mark.timeout(120)
@pytest.mark.fault(
    row=56,
    fault="siren does not follow",
    injected="a relay board that answers every write as done and leaves its contact open; a second board beside it",
    holds="found by read-back; tried again until it holds; people are called for it; the other siren sounds",
)
async def test_a_siren_that_does_not_follow_calls_people_and_is_tried_until_it_does(
    tmp_path: Path, figure: Figure
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    wire, stuck, other = Wire(), Stuck(time.monotonic), WaveshareRelay(time.monotonic)
    port = RtuWire(run / "port", {RADAR: VegaPuls(wire.truth, 0.0, 20.0), RELAY: stuck, 4: other})
    await port.open()
    site = tmp_path / "site.toml"
    text = SITE.format(run=run, port=free_port()) + SECOND
    site.write_text(text.replace('start = "child"', 'start = "off"'))
    try:
        async with Daemon(site, run) as daemon:
            stuck.stuck = True
            began_s = time.monotonic()
            wire.level_m = RED_M
            await until(lambda: other.closed[0], "the other siren sounds")

            async def fault(condition: str) -> dict[str, Any]:
                alarms = await daemon.ask("alarms.list")
                its = (a for a in alarms if a["id"].startswith("fault:output.siren:"))
                return next((a for a in its if a["condition"] == condition), {})

            alarm = await until(lambda: fault("present"), "the fault is told")
            told_s = time.monotonic() - began_s
            assert "reads 0 instead of 1" in alarm["evidence"]["error"]
            assert [call["person"] for call in alarm["evidence"]["called"]] == ["Li"]
            assert not stuck.closed[0]
            stuck.stuck = False
            healed_s = time.monotonic()
            await until(lambda: stuck.closed[0], "it follows at last")
            took_s = time.monotonic() - healed_s
            await until(lambda: fault("gone"), "and that is told")
    finally:
        port.close()
    figure(f"told and called {told_s:.1f} s after the pond rose; followed {took_s:.1f} s after it could")
