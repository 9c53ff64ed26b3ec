"""Rows 39 and 40: adapters that come and go, and ports that somebody else holds."""

from __future__ import annotations

import asyncio
import logging
import statistics
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from drivers.framing import RtuFraming
from drivers.line import Line
from drivers.sample import Quality
from drivers.wire import SerialWire
from tests.drivers.rtu_server import Mode, RtuServer
from tests.fault.bus import Polled, polled

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Figure

LIMIT_S = 5.0


async def good_again(bus: Polled) -> float:
    """Seconds until the next good reading."""
    loop, before = asyncio.get_running_loop(), bus.record.good
    begun = loop.time()
    async with asyncio.timeout(2 * LIMIT_S):
        while bus.record.good == before:
            await asyncio.sleep(0.001)
    return loop.time() - begun


async def lost(line: Line) -> None:
    async with asyncio.timeout(1):
        while line.is_open:
            await asyncio.sleep(0.001)


async def opened(line: Line) -> float:
    """Seconds until it is open."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.timeout(2 * LIMIT_S):
        while not line.is_open:
            await asyncio.sleep(0.001)
    return loop.time() - begun


@pytest.mark.fault(
    row=39, fault="USB adapter unplugged, plugged in again, with another number",
    injected="the other end of the pseudo-terminal closed, the stable name pointed at a new one, 4 times, away 0.1 to 1.5 s",
    holds="lost at once (EIO), told for every tick, read again within 5 s of the replug",
)  # fmt: skip
async def test_row_39_an_adapter_that_comes_back_under_another_number(figure: Figure, tmp_path: Path) -> None:
    server, name = RtuServer(), tmp_path / "rs485-1"
    name.symlink_to(server.port)
    line = Line(SerialWire(str(name), Mode()), RtuFraming(), "rs485-1")
    back: list[float] = []
    async with polled(line, (1, 2), every_s=0.1, timeout_s=0.05) as bus:
        await good_again(bus)
        for away_s in (0.1, 0.3, 0.8, 1.5):
            server.unplug()
            await lost(line)
            name.unlink()
            await asyncio.sleep(away_s)
            server.plug_in_again()
            name.symlink_to(server.port)
            back.append(await good_again(bus))
        told = {device: [tick for tick, _ in ticks] for device, ticks in bus.record.told.items()}
        down = sum(q == Quality.LINE_DOWN for ticks in bus.record.told.values() for _, q in ticks)
    server.close()
    for ticks in told.values():
        gaps = {b - a for a, b in pairwise(ticks)}
        assert gaps == {100_000_000}, "a tick nobody was told of"
    figure(
        f"back after {statistics.median(back):.2f} s in the median, {max(back):.2f} s at most; "
        f"{down} ticks told as line-down, none untold, {bus.record.wrong} wrong values"
    )
    assert max(back) <= LIMIT_S
    assert not bus.record.wrong


@pytest.mark.fault(
    row=39, fault="the port is gone when nothing is due", injected="the same, with a period of an hour",
    holds="opened again all the same, ready for the next tick or a person's request",
)  # fmt: skip
async def test_row_39_a_port_is_opened_again_without_waiting_for_a_tick(
    figure: Figure, tmp_path: Path
) -> None:
    server, name = RtuServer(), tmp_path / "rs485-1"
    name.symlink_to(server.port)
    line = Line(SerialWire(str(name), Mode()), RtuFraming(), "rs485-1")
    async with polled(line, (1,), every_s=3600.0, timeout_s=0.05):
        await opened(line)
        server.unplug()
        await lost(line)
        name.unlink()
        await asyncio.sleep(0.5)
        server.plug_in_again()
        name.symlink_to(server.port)
        open_s = await opened(line)
    server.close()
    figure(f"open {open_s:.2f} s after the replug")
    assert open_s <= LIMIT_S


HOLDER = """
import serial, sys
port = serial.Serial(sys.argv[1], exclusive=True)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.fault(
    row=40, fault="port opened by another program", injected="another process holds it for 1 s",
    holds="one sentence that says so, tried again, read once it is free",
)  # fmt: skip
async def test_row_40_a_port_that_another_program_holds(
    figure: Figure, caplog: pytest.LogCaptureFixture
) -> None:
    server = RtuServer()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, server.port], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "rs485-1")
    with caplog.at_level(logging.INFO, logger="daemon.poller"):
        async with polled(line, (1, 2), every_s=0.1, timeout_s=0.05) as bus:
            await asyncio.sleep(1.0)
            assert bus.record.good == 0
            await asyncio.to_thread(holder.communicate)
            free_s = await good_again(bus)
    server.close()
    said = [record.getMessage() for record in caplog.records]
    assert said[:2] == [
        f"line rs485-1 is down: {server.port} is in use by another program; stop that program",
        "line rs485-1 is open",
    ]
    figure(
        f'said once: "... is in use by another program; stop that program"; read {free_s:.2f} s after it was free'
    )
    assert free_s <= LIMIT_S


@pytest.mark.fault(
    row=40, fault="a port that does not do what it is told", injected="a line mode the device refuses (termios.error)",
    holds="one sentence, tried again, nothing leaks",
)  # fmt: skip
async def test_row_40_a_port_that_refuses_its_mode_is_said_and_tried_again(
    figure: Figure, caplog: pytest.LogCaptureFixture
) -> None:
    server = RtuServer()
    line = Line(SerialWire(server.port, Mode(baud=-1)), RtuFraming(), "rs485-1")
    with caplog.at_level(logging.INFO, logger="daemon.poller"):
        async with polled(line, (1,), every_s=0.1, timeout_s=0.05) as bus:
            await asyncio.sleep(1.0)
            told = bus.record.told["u1"]
    server.close()
    (said,) = [record.getMessage() for record in caplog.records]
    figure(f"{len(told)} ticks told as line-down, one line in the log")
    assert "does not do -1 8N1" in said
    assert len(told) >= 8
    assert {quality for _, quality in told} == {Quality.LINE_DOWN}
