"""Every Modbus unit of the bench, read by mbpoll (Debian's, on libmodbus): a witness that nobody here wrote."""

from __future__ import annotations

import asyncio
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from hardware_sim.bench import Bench
from hardware_sim.clock import BenchClock
from hardware_sim.instruments.wenkon_vtn416 import wire_hz
from hardware_sim.scenario import Scenario
from hardware_sim.site import PIEZOMETERS, RADAR_ZERO_ELEVATION_M, RAIN_MM_PER_TIP

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(
        shutil.which("mbpoll") is None, reason="mbpoll is not installed: apt-get install mbpoll"
    ),
]


async def mbpoll(address: str, unit: int, kind: str, at: int, count: int, *more: str) -> list[float]:
    """The values of `count` registers from address `at`, as mbpoll prints them."""
    host, colon, port = address.partition(":")
    way = ["-m", "tcp", "-p", port, host] if colon else ["-m", "rtu", "-b", "9600", "-P", "none", address]
    command = [
        "mbpoll",
        "-0",
        "-1",
        "-q",
        "-a",
        str(unit),
        "-t",
        kind,
        "-r",
        str(at),
        "-c",
        str(count),
        *more,
    ]
    process = await asyncio.create_subprocess_exec(
        *command, *way, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 0, out.decode()
    return [float(value) for value in re.findall(r"^\[\d+\]:\s+(\S+)", out.decode(), re.MULTILINE)]


async def test_mbpoll_reads_every_unit_of_the_serial_line(tmp_path: Path) -> None:
    async with Bench(Scenario.load("storm"), tmp_path, BenchClock.starting_now(1.0)) as bench:
        bench._began_s -= 1800.0
        line = bench.addresses["rs485-1"]
        truth = bench.truth()
        tenths = await mbpoll(line, 1, "4", 100, 4)
        for sheet, kpa, celsius, read in zip(
            PIEZOMETERS, truth.pore_kpa, truth.ground_celsius, tenths, strict=True
        ):
            assert read / 10.0 == pytest.approx(wire_hz(sheet, kpa, celsius, truth.pressure_hpa), abs=0.3)
        tips = await mbpoll(line, 192, "3", 10, 2)
        assert tips == [pytest.approx(truth.rain_mm / RAIN_MM_PER_TIP, abs=1.0), 0.0]
        assert await mbpoll(line, 3, "0", 0, 8) == [0.0] * 8


async def test_mbpoll_reads_every_unit_of_the_ethernet_line(tmp_path: Path) -> None:
    async with Bench(Scenario.load("calm"), tmp_path, BenchClock.starting_now(1.0)) as bench:
        line = bench.addresses["weather"]
        truth = bench.truth()
        hpa, humidity, celsius = await mbpoll(line, 1, "4:float", 0, 3, "-B")
        assert hpa == pytest.approx(truth.pressure_hpa, abs=0.1)
        assert (humidity, celsius) == pytest.approx((truth.humidity_percent, truth.air_celsius), abs=0.1)
        (level,) = await mbpoll(line, 2, "3:float", 2002, 1, "-B")
        assert level == pytest.approx(truth.pond_m - RADAR_ZERO_ELEVATION_M, abs=0.001)
