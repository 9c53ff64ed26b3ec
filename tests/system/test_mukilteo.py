"""Two weeks of a real instrumented slope, served by the bench as their loggers would, through the real daemon.

Raw frequencies, resistances, air pressure and tips of USGS Mukilteo (three Campbell loggers, 15 minutes,
2015-12-18 to 12-31) go over Modbus TCP as 32-bit floats, low word first. What the platform has at the end
is compared with the formula of the data's SOURCE.txt, computed here from the same 32-bit floats.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import sqlite3
import struct
import sys
import time
from pathlib import Path

import pytest

from hardware_sim.instruments.registers import TableLogger
from hardware_sim.platform import Platform
from hardware_sim.receiver import Receiver, Summary
from hardware_sim.wires import ModbusTcpWire

DATA = Path(os.environ.get("PONDWATCH_DATA", Path(__file__).parents[2].parent / "shared/data"))
FOLDER = DATA / "usgs_mukilteo/data/RALHS"
LOGGERS = {"mvd": "waMVD116_14d.txt", "wata": "waWatertonA_14d.txt", "watb": "waWatertonB_14d.txt"}
ROWS = 1344
EVERY_S, RATE = 3, 150  # the loggers' quarter of an hour takes 20 ms; deadlines on the wire stay real

pytestmark = [
    pytest.mark.skipif(not FOLDER.exists(), reason=f"the real data are not at {FOLDER}"),
    pytest.mark.timeout(180),
]

# A, B, C, thermal m, b, thermistor offset, level offset: SOURCE.txt of the data, after USGS lvl_m.py
PIEZOMETERS = {
    1: (-0.000095792, -0.0023260, 828.53, 0.0380 * 6.89475729, -0.762 * 6.89475729, 0.3, 0.1),
    2: (-0.00010171, 0.016517, 772.93, 0.0208 * 6.89475729, -0.414 * 6.89475729, 0.1, -0.2),
}
COLUMNS = {1: (17, 18), 2: (19, 20)}  # frequency and resistance, 0-based as in the file


def rows_of(name: str) -> list[list[float]]:
    """The logger's numbers without their time, as 32-bit floats; column k of the file is variable k."""
    lines = (FOLDER / LOGGERS[name]).read_text().splitlines()
    return [
        [float(cell) for cell in line.split("\t")[1:]] + [math.nan] * (25 - len(line.split("\t")))
        for line in lines
    ]


def f32(x: float) -> float:
    return float(struct.unpack(">f", struct.pack(">f", x))[0])


def celsius(ohm: float, offset: float) -> float:
    ln = math.log(ohm)
    return 1 / (1.4051e-3 + 2.369e-4 * ln + 1.019e-7 * ln**3) - 273.15 + offset


def expected(n: int, mvd: list[float], wata: list[float]) -> tuple[float, float]:
    """Pressure and level of one row by SOURCE.txt."""
    a, b, c, m, shift, offset, level = PIEZOMETERS[n]
    f, ohm = (f32(mvd[column - 1]) for column in COLUMNS[n])
    air_kpa = (f32(wata[4]) * 0.240 + 500) * 0.1
    p = a * f * f + b * f + c + (20.2 - celsius(ohm, offset)) * m + shift - (air_kpa - 101.3)
    return p, p * 0.1019977334 + level


def site_file(tmp: Path, wire: str, platform: str) -> Path:
    text = f"""
[site]
id = "mukilteo"
gateway = "gw1"
mode = "simulated"
[store]
path = "{tmp}/store"
[metrics]
listen = "127.0.0.1:0"
[rules]
start = "off"
[[pond]]
id = "m"
[[line]]
id = "loggers"
kind = "modbus-tcp"
address = "{wire}"
[[uplink]]
id = "company"
kind = "mqtt"
url = "mqtt://{platform}"
settle = "receipt"
"""
    for unit, name in enumerate(LOGGERS, 1):
        text += f'[[device]]\nid = "{name}"\nline = "loggers"\nprofile = "campbell-cr1000x"\nunit = {unit}\n'
        text += f'every = "{EVERY_S} s"\n'
        text += channel(f"{name}.record", "", f'from = "{name}.v01"')
    text += channel("air", "kPa", 'from = "wata.v05"', "linear", scale=0.024, offset=50.0)
    for name, variable in (("mvd", 5), ("wata", 6)):
        text += channel(f"{name}.tips", "tips", f'from = "{name}.v{variable:02}"')
    for n, (a, b, c, m, shift, offset, level) in PIEZOMETERS.items():
        f, ohm = COLUMNS[n]
        text += channel(
            f"t{n}", "degC", f'from = "mvd.v{ohm:02}"', "thermistor", type="3k", offset_celsius=offset
        )
        text += channel(
            f"p{n}",
            "kPa",
            f'from = "mvd.v{f:02}"\ntemperature = "t{n}"\nbarometer = "air"',
            "vibrating-wire-polynomial",
            of="hz",
            a=a,
            b=b,
            c=c + shift,
            zero_celsius=20.2,
            kpa_per_celsius=-m,
            zero_hpa=1013.0,
        )
        text += channel(
            f"level{n}",
            "m",
            f'derive = {{ kind = "linear", of = "p{n}", scale = 0.1019977334, offset = {level} }}',
        )
    path = tmp / "site.toml"
    path.write_text(text)
    return path


def channel(name: str, unit: str, source: str, calibration: str = "", **settings: object) -> str:
    text = f'[[channel]]\nid = "{name}"\nunit = "{unit}"\npond = "m"\nitem = "pore-pressure"\n{source}\n'
    if calibration:
        keys = "".join(f", {key} = {json.dumps(value)}" for key, value in settings.items())
        text += f'calibration = {{ kind = "{calibration}"{keys} }}\n'
    return text


async def served(loggers: dict[int, TableLogger], done: asyncio.Event) -> ModbusTcpWire:
    """All three loggers on one wire; the next row appears when all have been read."""
    seen: set[int] = set()
    wire = ModbusTcpWire(loggers)

    def read(unit: int, _row: int) -> None:
        seen.add(unit)
        if len(seen) == len(loggers):
            seen.clear()
            advanced = [logger.advance() for logger in loggers.values()]
            if not all(advanced):
                asyncio.get_running_loop().call_soon(wire.unplug)  # after the reply has left
                done.set()

    for logger in loggers.values():
        logger.on_read = read
    await wire.open()
    return wire


async def run_through(tmp: Path) -> tuple[dict[str, list[list[float]]], Summary]:
    """The daemon polls every row; returns its output."""
    tables = {name: rows_of(name) for name in LOGGERS}
    loggers = {unit: TableLogger(tables[name], unit) for unit, name in enumerate(LOGGERS, 1)}
    done = asyncio.Event()
    receiver = Receiver(tmp / "platform.db")
    async with Platform(receiver) as platform:
        wire = await served(loggers, done)
        site = site_file(tmp, wire.address, platform.address)
        environment = {"PONDWATCH_RUN": str(tmp), "PONDWATCH_BENCH_CLOCK": f"{RATE}@{time.time()}"}
        command = [sys.executable, "-m", "daemon.commands", "--config", str(site), "run"]
        with (tmp / "daemon.log").open("wb") as log:
            daemon = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, env=os.environ | environment
            )
        try:
            async with asyncio.timeout(120):
                await done.wait()
            await asyncio.sleep(0.5)
        finally:
            with contextlib.suppress(ProcessLookupError):
                daemon.terminate()
            await daemon.wait()
            wire.close()
        summary = receiver.summary()
    receiver.close()
    return tables, summary


def received(tmp: Path) -> dict[str, list[float]]:
    """channel -> its values in order of the chain, missing ones left out."""
    values: dict[str, list[float]] = {}
    with sqlite3.connect(tmp / "platform.db") as db:
        rows = db.execute("SELECT payload FROM batch WHERE kind = 'readings' ORDER BY seq").fetchall()
    db.close()
    for (payload,) in rows:
        for reading in json.loads(payload)["readings"]:
            if reading["value"] is not None:
                values.setdefault(reading["channel"], []).append(reading["value"])
    return values


async def test_every_row_of_a_real_slope_is_measured_reduced_stored_and_received_once(
    tmp_path: Path,
) -> None:
    tables, summary = await run_through(tmp_path)
    values = received(tmp_path)
    assert (summary.holes, summary.forks, summary.chain_breaks) == (0, 0, 0)
    for name in LOGGERS:
        assert values[f"{name}.record"] == [row[0] for row in tables[name]]
    for n in PIEZOMETERS:
        pairs = [expected(n, *rows) for rows in zip(tables["mvd"], tables["wata"], strict=True)]
        assert len(values[f"p{n}"]) == len(values[f"level{n}"]) == ROWS
        assert values[f"p{n}"] == pytest.approx([p for p, _ in pairs], rel=1e-9, abs=0)
        assert values[f"level{n}"] == pytest.approx([h for _, h in pairs], rel=1e-9, abs=0)
    for name, column in (("mvd", 5), ("wata", 6)):
        assert sum(values[f"{name}.tips"]) == sum(row[column - 1] for row in tables[name]) > 0
