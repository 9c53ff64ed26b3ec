"""Outputs on a real relay board of the bench, over a real pseudo-terminal: read back, repeated, ending by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon import outputs as outputs_module
from daemon.binder import SerialMode
from daemon.clock import Clock
from daemon.config import OutputTable
from daemon.outputs import Output
from daemon.poller import PolledLine
from drivers import profile
from drivers.framing import RtuFraming
from drivers.line import Line
from drivers.modbus import ModbusDevice
from drivers.wire import SerialWire
from hardware_sim.faults import Fault
from hardware_sim.instruments.waveshare_relay import WaveshareRelay
from hardware_sim.wires import RtuWire
from tests.system.running import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

UNIT = 3
FAST = 20.0  # the board's own clock: its pulse of 5 s lasts 250 ms here


class Nobody:
    """An observer that looks away: no routine poll is in these tests."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@dataclass
class Bench:
    board: WaveshareRelay
    wire: RtuWire
    line: PolledLine
    device: ModbusDevice
    faults: list[str]

    def output(self, kind: Any = "switch", write: str = "relay1", every_s: float = 15.0) -> Output:
        table = OutputTable("siren", "r", write, "n", kind=kind, every_s=every_s)
        return Output(table, self.line, self.device, lambda _, error: self.faults.append(error))

    def sounds(self) -> bool:
        return self.board.closed[0]


@asynccontextmanager
async def relay(folder: Path) -> AsyncIterator[Bench]:
    board = WaveshareRelay(lambda: FAST * time.monotonic())
    wire = RtuWire(folder / "port", {UNIT: board})
    await wire.open()
    clock = Clock()
    compiled = profile.load("waveshare-relay-8").compile("r", {"relay1"})
    device = ModbusDevice("r", compiled, UNIT, clock, timeout_s=0.1, slowest_reply_s=0.1)
    line = Line(
        SerialWire(str(folder / "port"), SerialMode(115200, 8, "N", 1.0)), RtuFraming(), "l", paced=True
    )
    polled = PolledLine(line, [], clock, Nobody())
    async with running(polled):
        yield Bench(board, wire, polled, device, [])
    wire.close()


@asynccontextmanager
async def running(what: PolledLine | Output) -> AsyncIterator[None]:
    task = asyncio.create_task(what.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_switch_follows_and_is_read_back(tmp_path: Path) -> None:
    async with relay(tmp_path) as bench:
        output = bench.output()
        async with running(output):
            await until(lambda: output.verified is False, "off, read back")
            output.want(True)
            await until(lambda: output.settled, "on, read back")
            assert bench.sounds()
            output.want(False)
            await until(lambda: output.settled, "off again")
            assert not bench.sounds()
        assert bench.faults == []


async def test_a_relay_left_closed_by_an_earlier_run_is_opened(tmp_path: Path) -> None:
    async with relay(tmp_path) as bench:
        bench.board.write_coil(0, 0xFF00)
        assert bench.sounds()
        async with running(bench.output()):
            await until(lambda: not bench.sounds(), "the relay opens")


async def test_a_relay_that_does_not_answer_is_told_once_and_tried_until_it_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs_module, "RETRY_S", 0.05)
    async with relay(tmp_path) as bench:
        bench.wire.station.set_fault(UNIT, Fault("silent"))
        output = bench.output()
        output.want(True)
        async with running(output):
            await until(lambda: bench.faults, "the fault is told")
            await asyncio.sleep(0.5)
            assert len(bench.faults) == 1
            assert not output.settled
            bench.wire.station.set_fault(UNIT, None)
            await until(bench.sounds, "it sounds")
            await until(lambda: len(bench.faults) == 2, "and that is told")
        assert bench.faults[1] == ""


async def test_a_pulse_is_repeated_while_it_is_wanted_and_the_last_one_ends_by_itself(tmp_path: Path) -> None:
    async with relay(tmp_path) as bench:
        output = bench.output("pulse", "pulse1", every_s=0.5)
        output.want(True)
        async with running(output):
            for _ in range(3):
                await until(bench.sounds, "a pulse")
                await until(lambda: not bench.sounds(), "its end")
            assert output.verified is True
            output.want(False)
            await until(lambda: output.settled, "not wanted any more")
            await until(lambda: not bench.sounds(), "the last pulse has ended")
            switched = bench.board.switched
            await asyncio.sleep(1.0)
            assert bench.board.switched == switched


async def test_a_new_ring_between_two_pulses_does_not_wait_for_the_next(tmp_path: Path) -> None:
    async with relay(tmp_path) as bench:
        output = bench.output("pulse", "pulse1", every_s=60.0)
        output.want(True)
        async with running(output):
            await until(bench.sounds, "the first pulse")
            await until(lambda: not bench.sounds(), "its end")
            output.want(False)
            await asyncio.sleep(0.05)
            output.want(True)
            await until(bench.sounds, "another pulse", within_s=1.0)


async def test_a_watchdog_relay_is_held_as_long_as_somebody_holds_it_and_drops_after(tmp_path: Path) -> None:
    async with relay(tmp_path) as bench:
        output = bench.output("watchdog", "pulse1", every_s=0.1)
        output.want(True)
        async with running(output):
            await until(bench.sounds, "it closes")
            end_s = time.monotonic() + 1.0
            while time.monotonic() < end_s:
                assert bench.sounds()
                await asyncio.sleep(0.01)
        await until(lambda: not bench.sounds(), "it drops when nobody pulses", within_s=1.0)
