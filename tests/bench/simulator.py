"""The bench itself under load: 2,000 units, each asked once a second, on one core.

A process of its own holds 20 serial and 20 TCP lines of 50 units: the demo's instruments on one dam. It is
asked from here, each line one request after the other as a bus is, and its CPU time is the kernel's.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hardware_sim import site
from hardware_sim.dam import Dam, Truth
from hardware_sim.instruments.dfrobot_sen0575 import Sen0575
from hardware_sim.instruments.metsens300 import MetSens300
from hardware_sim.instruments.vegapuls import VegaPuls
from hardware_sim.instruments.wenkon_vtn416 import Vtn416
from hardware_sim.rtu import frame
from hardware_sim.wires import ModbusTcpWire, RtuWire

if TYPE_CHECKING:
    from hardware_sim.instruments.base import Instrument

LINES, UNITS = 40, 50
SECONDS = 15
_READ = (  # function, address, registers: what the demo site reads of each instrument
    struct.pack(">BHH", 3, 100, 20),
    struct.pack(">BHH", 4, 6, 7),
    struct.pack(">BHH", 3, 0, 12),
    struct.pack(">BHH", 4, 2000, 10),
)


@dataclass(frozen=True, slots=True)
class Figures:
    units: int
    asked_per_s: float
    answered: float  # share of what was asked
    cpu_percent: float  # of one core
    rss_mb: float
    slowest_ms: float


def measure() -> Figures:
    return asyncio.run(_measure())


def table(row: Figures) -> str:
    return (
        "| units | asked/s | answered | CPU % of a core | RSS MB | slowest answer ms |\n|---|---|---|---|---|---|\n"
        f"| {row.units:,} | {row.asked_per_s:,.0f} | {row.answered:.2%} | {row.cpu_percent:.0f} "
        f"| {row.rss_mb:.0f} | {row.slowest_ms:.0f} |"
    )


# -- asking ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Count:
    asked: int = 0
    answered: int = 0
    slowest_s: float = 0.0


async def _measure() -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        bench = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, folder), stdout=asyncio.subprocess.PIPE
        )
        assert bench.stdout is not None
        try:
            addresses = (await bench.stdout.readline()).decode().split()
            count = _Count()
            began_s, cpu_s = time.monotonic(), _cpu_s(bench.pid)
            await asyncio.gather(*(_ask_line(address, began_s, count) for address in addresses))
            took_s = time.monotonic() - began_s
            return Figures(
                LINES * UNITS,
                count.asked / took_s,
                count.answered / count.asked,
                100.0 * (_cpu_s(bench.pid) - cpu_s) / took_s,
                _rss_mb(bench.pid),
                1000.0 * count.slowest_s,
            )
        finally:
            bench.terminate()
            await bench.wait()


async def _ask_line(address: str, began_s: float, count: _Count) -> None:
    """Every unit of a line once a second, one after the other."""
    loop = asyncio.get_running_loop()
    serial = address.startswith("/")
    reader = asyncio.StreamReader()
    if serial:
        port = os.open(address, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(port), "rb")
        )
    else:
        host, tcp_port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(tcp_port))
    for second in range(SECONDS):
        await asyncio.sleep(began_s + second - time.monotonic())
        for unit in range(1, UNITS + 1):
            pdu = _READ[unit % len(_READ)]
            asked_s = time.monotonic()
            if serial:
                os.write(port, frame(unit, pdu))
                size = 5 + 2 * pdu[4]
            else:
                writer.write(struct.pack(">HHHB", unit, 0, len(pdu) + 1, unit) + pdu)
                size = 9 + 2 * pdu[4]
            count.asked += 1
            try:
                async with asyncio.timeout(2):
                    await reader.readexactly(size)
            except TimeoutError:
                continue
            count.answered += 1
            count.slowest_s = max(count.slowest_s, time.monotonic() - asked_s)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


# -- the bench's side --------------------------------------------------------------------------------


def _units(dam: Dam, began_s: float) -> dict[int, Instrument]:
    def truth() -> Truth:
        return dam.at(time.monotonic() - began_s)

    def instrument(unit: int) -> Instrument:
        made = (
            lambda: Vtn416(truth, site.PIEZOMETERS, unit),
            lambda: Sen0575(truth, site.RAIN_MM_PER_TIP),
            lambda: MetSens300(truth),
            lambda: VegaPuls(truth, site.RADAR_ZERO_ELEVATION_M, site.RADAR_RANGE_M),
        )
        return made[unit % len(made)]()

    return {unit: instrument(unit) for unit in range(1, UNITS + 1)}


async def _serve(folder: Path) -> None:
    dam, began_s = Dam(lambda _t: 20.0, seed=1), time.monotonic()
    addresses = []
    for line in range(LINES):
        units = _units(dam, began_s)
        wire = RtuWire(folder / f"line-{line}", units) if line % 2 else ModbusTcpWire(units)
        await wire.open()
        addresses.append(wire.address)
    print(*addresses, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
