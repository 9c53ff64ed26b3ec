"""The gateway under the daemon: its disk takes nothing, its clock steps, and both are mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hardware_sim.bench import Bench as Simulated
from hardware_sim.clock import BenchClock
from hardware_sim.faults import FaultUnknown
from hardware_sim.scenario import Scenario
from tests.system.running import Bench, Daemon, demo_site

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_full_disk_and_a_stepped_clock_cost_no_reading_and_are_said(tmp_path: Path) -> None:
    async with Bench(tmp_path, "calm", 480.0) as bench:
        site = demo_site(tmp_path, bench)
        step = {"PONDWATCH_BENCH_STEP": bench.facts["clock_step"]}
        async with Daemon(site, tmp_path, bench.facts["clock"], **step) as daemon:
            await daemon.shows("pondwatch_spool_durable", lambda durable: durable == 1)
            await bench.ask("fault", target="gateway", fault="disk_full")
            await daemon.shows("pondwatch_spool_durable", lambda durable: durable == 0)
            polled = await daemon.gauge("pondwatch_readings_total")
            await daemon.shows("pondwatch_readings_total", lambda now: now > polled + 30)
            await bench.ask("fault", target="gateway", fault="none")
            await daemon.shows("pondwatch_spool_durable", lambda durable: durable == 1)

            await daemon.shows("pondwatch_clock_trusted", lambda trusted: trusted == 1)
            await bench.ask("fault", target="gateway", fault="clock_step 7200")
            await daemon.shows("pondwatch_clock_trusted", lambda trusted: trusted == 0)
            await bench.ask("fault", target="gateway", fault="none")
            # the receiver tells no date: a clock that stepped is believed again after an hour, here 7.5 s
            await daemon.shows("pondwatch_clock_trusted", lambda trusted: trusted == 1)
            await daemon.shows("pondwatch_spool_unsettled_batches", lambda batches: batches <= 1)
            summary = await bench.ask("summary")
    assert (summary["holes"], summary["forks"], summary["chain_breaks"], summary["malformed"]) == (0, 0, 0, 0)
    assert summary["readings"] >= polled + 30


async def test_without_a_daemon_there_is_no_disk_to_break(tmp_path: Path) -> None:
    async with Simulated(Scenario.load("calm"), tmp_path, BenchClock.starting_now(1.0)) as bench:
        with pytest.raises(FaultUnknown, match="no daemon listens at"):
            bench.set_fault("gateway", "disk_full")
        assert "gateway" not in bench.faults
