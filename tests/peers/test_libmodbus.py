"""The line against libmodbus, the C library most devices and tools are tested with."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import shutil
import subprocess
import time
import tty
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pymodbus.client import AsyncModbusTcpClient

from drivers.contract import NoReply, Refused
from drivers.framing import MbapFraming, RtuFraming
from drivers.line import Line
from drivers.modbus import read_pdu, write_pdu
from drivers.wire import SerialWire, TcpWire
from tests.drivers.rtu_server import Mode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server, compiled here; or the reason why not."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler (Debian: gcc)")
    binary = tmp_path_factory.mktemp("libmodbus") / "server"
    source = Path(__file__).with_name("libmodbus_server.c")
    command = ["cc", "-O2", "-Wall", "-I/usr/include/modbus", str(source), "-lmodbus", "-o", str(binary)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if "modbus.h" in made.stderr:
        pytest.skip("needs libmodbus (Debian: libmodbus-dev)")
    assert made.returncode == 0, made.stderr
    return binary


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[str]:
    """The program's word after "ready"."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(10):
            word = (await process.stdout.readline()).decode()
        assert word.startswith("ready")
        yield word.removeprefix("ready").strip()
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def serial_cable() -> AsyncIterator[tuple[str, str]]:
    """Two pseudo-terminals joined at their masters: what goes in at one end comes out at the other."""
    ends = [pty.openpty() for _ in range(2)]
    loop = asyncio.get_running_loop()

    def pass_on(here: int, there: int) -> None:
        os.write(there, os.read(here, 4096))

    for (master, slave), (other, _) in (ends, reversed(ends)):
        tty.setraw(slave)
        loop.add_reader(master, pass_on, master, other)
    try:
        yield os.ttyname(ends[0][1]), os.ttyname(ends[1][1])
    finally:
        for master, slave in ends:
            loop.remove_reader(master)
            os.close(master)
            os.close(slave)


@asynccontextmanager
async def a_line(program: Path, kind: str) -> AsyncIterator[Line]:
    if kind == "tcp":
        async with running(str(program), "tcp") as port:
            line = Line(TcpWire("127.0.0.1", int(port)), MbapFraming(), "tcp")
            await line.open()
            yield line
            line.close()
            await asyncio.sleep(0)
    else:
        async with serial_cable() as (ours, theirs), running(str(program), "rtu", theirs):
            line = Line(SerialWire(ours, Mode()), RtuFraming(), "rtu")
            await line.open()
            yield line
            line.close()


@pytest.fixture(params=["tcp", "rtu"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def ask(line: Line, pdu: bytes, reply_bytes: int, unit: int = 1) -> bytes:
    return await line.transact(unit, pdu, reply_bytes=reply_bytes, timeout_s=1.0, slowest_reply_s=1.0)


def words(*numbers: int) -> bytes:
    return b"".join(n.to_bytes(2, "big") for n in numbers)


async def test_libmodbus_and_the_line_understand_each_other(program: Path, kind: str) -> None:
    async with a_line(program, kind) as line:
        assert await ask(line, read_pdu(3, 100, 125), 252) == b"\x03\xfa" + words(*range(100, 225))
        assert await ask(line, read_pdu(4, 7, 2), 6) == b"\x04\x04" + words(10007, 10008)
        assert await ask(line, read_pdu(1, 0, 10), 4) == b"\x01\x02\xaa\x02"
        assert await ask(line, read_pdu(2, 1, 3), 3) == b"\x02\x01\x05"
        assert await ask(line, write_pdu(6, 500, 4711), 5) == write_pdu(6, 500, 4711)
        assert await ask(line, write_pdu(5, 500, 0xFF00), 5) == write_pdu(5, 500, 0xFF00)
        assert await ask(line, write_pdu(16, 501, 815), 5) == b"\x10" + words(501, 1)
        assert await ask(line, read_pdu(3, 500, 2), 6) == b"\x03\x04" + words(4711, 815)
        with pytest.raises(Refused, match="exception 2"):
            await ask(line, read_pdu(3, 1999, 2), 6)
        for at in range(200):
            assert await ask(line, read_pdu(3, at, 25), 52) == b"\x03\x32" + words(*range(at, at + 25))
        assert (line.resyncs, line.timeouts, line.bad_replies) == (0, 0, 0)


async def test_a_silent_unit_costs_libmodbus_one_request_of_its_own_and_never_a_wrong_value(
    program: Path,
) -> None:
    """A libmodbus server takes the request after one for another unit for that unit's reply, and ignores it."""
    async with a_line(program, "rtu") as line:
        with pytest.raises(NoReply):
            await line.transact(9, read_pdu(3, 0, 2), reply_bytes=6, timeout_s=0.05, slowest_reply_s=0.05)
        with contextlib.suppress(NoReply):
            await line.transact(1, read_pdu(3, 5, 2), reply_bytes=6, timeout_s=0.1, slowest_reply_s=0.1)
        for at in range(20):
            assert await ask(line, read_pdu(3, at, 2), 6) == b"\x03\x04" + words(at, at + 1)


async def cost_of_the_line(port: int, requests: int, count: int) -> tuple[float, float]:
    line, pdu = Line(TcpWire("127.0.0.1", port), MbapFraming(), "tcp"), read_pdu(3, 0, count)
    await line.open()
    begun, cpu = time.perf_counter(), time.process_time()
    for _ in range(requests):
        await ask(line, pdu, 2 + 2 * count)
    spent = time.perf_counter() - begun, time.process_time() - cpu
    line.close()
    await asyncio.sleep(0.01)
    return spent


async def cost_of_pymodbus(port: int, requests: int, count: int) -> tuple[float, float]:
    client = AsyncModbusTcpClient("127.0.0.1", port=port, reconnect_delay=0)
    await client.connect()
    begun, cpu = time.perf_counter(), time.process_time()
    for _ in range(requests):
        reply = await client.read_holding_registers(0, count=count, device_id=1)
        assert not reply.isError()
    spent = time.perf_counter() - begun, time.process_time() - cpu
    client.close()
    await asyncio.sleep(0.01)
    return spent


@pytest.mark.campaign
async def test_what_a_transaction_costs_beside_pymodbus(program: Path) -> None:
    """Takes turns against the same server in one process; prints the best of five (docs/decisions/0001)."""
    requests = int(os.environ.get("COUNT") or 3000)
    async with running(str(program), "tcp") as port:
        for count in (1, 25, 60, 125):
            ours: list[tuple[float, float]] = []
            theirs: list[tuple[float, float]] = []
            for _ in range(5):
                ours.append(await cost_of_the_line(int(port), requests, count))
                theirs.append(await cost_of_pymodbus(int(port), requests, count))
            for name, runs in (("line", ours), ("pymodbus", theirs)):
                wall_us, cpu_us = (min(r[i] for r in runs) / requests * 1e6 for i in (0, 1))
                print(f"{count:4} registers, {name:8}: {cpu_us:6.1f} us CPU, {wall_us:6.1f} us")  # noqa: T201 -- campaigns print their figures
            assert min(r[1] for r in ours) < min(r[1] for r in theirs)
