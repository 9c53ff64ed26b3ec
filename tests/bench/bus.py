"""The line alone: how much of a wire's time it uses, and what a Modbus TCP request costs beside other clients.

Serial: `tests/bench/baud.py`, a device that keeps the time of its wire, in a process of its own on the second core; on
the first the line, asking as fast as it may, and in its turn a C client of libmodbus that sleeps the same gaps.
TCP: request after request against one libmodbus server, client and server together on one core, so that waking a
sleeping core counts for nobody; ours, pymodbus and libmodbus in turns, the best of five. Where root runs it, all of
them have real-time priority, so that the figures are of the wire and the code and not of what else the machine does;
the kernel then holds the spinning device up for 50 ms in every second, which shows in the mean and not in the median.

    python -m tests.bench.bus ours|pymodbus PORT REQUESTS COUNT     one client, prints "SECONDS CPU_SECONDS"
    python -m tests.bench.bus serial PORT BAUD REGISTERS SECONDS    the line, on a serial port
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pymodbus.client import AsyncModbusTcpClient

from drivers.contract import WireError
from drivers.framing import MbapFraming, RtuFraming
from drivers.line import Line
from drivers.pdu import read_pdu
from drivers.wire import SerialWire, TcpWire
from tests.drivers.rtu_server import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT = Path(__file__).with_name("libmodbus_client.c")
SERVER = Path(__file__).parents[1] / "peers/libmodbus_server.c"
REQUESTS, ROUNDS = 3000, 5
REGISTERS = (1, 25, 60, 125)
SERIAL = ((9600, 2), (9600, 25), (115200, 2), (115200, 25), (115200, 125))
SERIAL_S = 6.0
TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Tcp:
    """Per request: CPU and elapsed microseconds, of each client the best of its rounds."""

    registers: int
    client: str
    cpu_us: float
    elapsed_us: float


@dataclass(frozen=True)
class Serial:
    """What one client made of a wire."""

    baud: int
    registers: int
    client: str
    percent: float  # theoretical time, characters and gaps, over the median time of a transaction
    mean_percent: float  # the same over the mean, which also has what else the machine does in it
    over_ms: float  # the median over the theoretical time
    gaps_violated: int
    shortest_gap_ms: float


def measure(build: Path = Path("build/bench")) -> tuple[list[Serial], list[Tcp]]:
    """All of it; what needs libmodbus is left out where it is missing."""
    build.mkdir(parents=True, exist_ok=True)
    client, server = _compiled(CLIENT, build), _compiled(SERVER, build)
    serial = [row for baud, registers in SERIAL for row in _serial(baud, registers, client)]
    return serial, _tcp(client, server) if client and server else []


# -- serial ------------------------------------------------------------------------------------------


def _serial(baud: int, registers: int, client: Path | None) -> Iterator[Serial]:
    arguments = [str(baud), str(registers), str(SERIAL_S)]
    yield _asked(baud, registers, "line", [sys.executable, "-m", "tests.bench.bus", "serial"], arguments)
    if client is not None:
        per_s = baud / 10 / (registers * 2 + 13)
        rtu = [str(baud), str(int(per_s * SERIAL_S) + 1), str(registers)]
        yield _asked(baud, registers, "libmodbus (C)", [str(client), "rtu"], rtu)


def _asked(baud: int, registers: int, name: str, command: list[str], arguments: list[str]) -> Serial:
    """One client against a device of its own."""
    device = subprocess.Popen(
        [*_on_core(1), *_ahead(), sys.executable, "-m", "tests.bench.baud", str(baud), str(SERIAL_S)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert device.stdout is not None
    port = device.stdout.readline().split()[1]
    with subprocess.Popen(
        [*_on_core(0), *_ahead(), *command, port, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as asking:
        saw = json.loads(device.stdout.readline())
        device.wait()
        asking.kill()
    return Serial(
        baud,
        registers,
        name,
        100 * saw["wire_s"] / saw["median_s"],
        100 * saw["wire_s"] / saw["mean_s"],
        1000 * (saw["median_s"] - saw["wire_s"]),
        int(saw["violations"]),
        1000 * saw["shortest_gap_s"],
    )


async def ask_serial(port: str, baud: int, registers: int, seconds: float) -> None:
    """Ask as fast as the line lets us."""
    line, pdu = Line(SerialWire(port, Mode(baud)), RtuFraming(), "bench"), read_pdu(3, 0, registers)
    await line.open()
    end = time.monotonic() + seconds + TIMEOUT_S
    with contextlib.suppress(WireError):  # the device ends before us
        while time.monotonic() < end:
            await line.transact(
                1, pdu, reply_bytes=2 + 2 * registers, timeout_s=TIMEOUT_S, slowest_reply_s=TIMEOUT_S
            )
    line.close()


# -- TCP ---------------------------------------------------------------------------------------------


def _tcp(client: Path, server: Path) -> list[Tcp]:
    clients = {
        "line": [sys.executable, "-m", "tests.bench.bus", "ours"],
        "pymodbus": [sys.executable, "-m", "tests.bench.bus", "pymodbus"],
        "libmodbus (C)": [str(client), "tcp"],
    }
    rows = []
    with _serving(server) as port:
        for registers in REGISTERS:
            best = {name: (float("inf"), float("inf")) for name in clients}
            for _ in range(ROUNDS):
                for name, command in clients.items():
                    elapsed_s, cpu_s = _run([*command, port, str(REQUESTS), str(registers)])
                    best[name] = min(best[name][0], cpu_s), min(best[name][1], elapsed_s)
            rows += [
                Tcp(registers, name, 1e6 * cpu_s / REQUESTS, 1e6 * elapsed_s / REQUESTS)
                for name, (cpu_s, elapsed_s) in best.items()
            ]
    return rows


@contextlib.contextmanager
def _serving(server: Path) -> Iterator[str]:
    with subprocess.Popen(
        [*_on_core(0), *_ahead(), str(server), "tcp"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.kill()


def _run(command: list[str]) -> tuple[float, float]:
    done = subprocess.run([*_on_core(0), *_ahead(), *command], capture_output=True, text=True, check=True)
    elapsed_s, cpu_s = done.stdout.split()
    return float(elapsed_s), float(cpu_s)


async def ask_ours(port: int, requests: int, registers: int) -> None:
    line, pdu = Line(TcpWire("127.0.0.1", port), MbapFraming(), "bench"), read_pdu(3, 0, registers)
    await line.open()
    begun, cpu_s = time.perf_counter(), time.process_time()
    for _ in range(requests):
        await line.transact(
            1, pdu, reply_bytes=2 + 2 * registers, timeout_s=TIMEOUT_S, slowest_reply_s=TIMEOUT_S
        )
    print(time.perf_counter() - begun, time.process_time() - cpu_s)
    line.close()


async def ask_pymodbus(port: int, requests: int, registers: int) -> None:
    client = AsyncModbusTcpClient("127.0.0.1", port=port, reconnect_delay=0)
    await client.connect()
    begun, cpu_s = time.perf_counter(), time.process_time()
    for _ in range(requests):
        reply = await client.read_holding_registers(0, count=registers, device_id=1)
        assert not reply.isError()
    print(time.perf_counter() - begun, time.process_time() - cpu_s)
    client.close()


# -- both --------------------------------------------------------------------------------------------


def _compiled(source: Path, build: Path) -> Path | None:
    """The program, or None without a C compiler or libmodbus."""
    binary = build / source.stem
    if shutil.which("cc") is None:
        return None
    command = ["cc", "-O2", "-I/usr/include/modbus", str(source), "-lmodbus", "-o", str(binary)]
    made = subprocess.run(command, capture_output=True, check=False)
    return binary.absolute() if made.returncode == 0 else None


def _on_core(core: int) -> list[str]:
    return ["taskset", "-c", str(core % (os.cpu_count() or 1))] if shutil.which("taskset") else []


def _ahead() -> list[str]:
    """Before what else the machine does, where root asks."""
    return ["chrt", "-f", "50"] if os.geteuid() == 0 and shutil.which("chrt") else []


def tables(serial: list[Serial], tcp: list[Tcp]) -> str:
    """Both as they stand in docs/benchmarks.md."""
    lines = [
        "| baud | registers | client | of the wire's time | in the mean | over it, ms | gaps violated | shortest, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.baud} | {row.registers} | {row.client} | {row.percent:.1f} % "
        f"| {row.mean_percent:.1f} % | {row.over_ms:.2f} "
        f"| {row.gaps_violated} | {row.shortest_gap_ms:.2f} |"
        for row in serial
    ]
    if tcp:
        lines += ["", "| registers | client | CPU us | elapsed us | requests/s | CPU over the line's |"]
        lines += ["|---|---|---|---|---|---|"]
    ours = {row.registers: row.cpu_us for row in tcp if row.client == "line"}
    lines += [
        f"| {row.registers} | {row.client} | {row.cpu_us:.0f} | {row.elapsed_us:.0f} "
        f"| {1e6 / row.elapsed_us:,.0f} | {row.cpu_us / ours[row.registers]:.2f} |"
        for row in tcp
    ]
    return "\n".join(lines)


def main() -> None:
    match sys.argv[1:]:
        case ["ours", port, requests, registers]:
            asyncio.run(ask_ours(int(port), int(requests), int(registers)))
        case ["pymodbus", port, requests, registers]:
            asyncio.run(ask_pymodbus(int(port), int(requests), int(registers)))
        case ["serial", port, baud, registers, seconds]:
            asyncio.run(ask_serial(port, int(baud), int(registers), float(seconds)))
        case _:
            print(tables(*measure()))


if __name__ == "__main__":
    main()
