"""`pondwatch scan` on real wires: who answers is found and named, and nothing but reads is ever sent."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from daemon import requests
from daemon.clock import NS, Clock
from daemon.commands import main
from daemon.commands.scan import USUAL_MODES, units_of
from daemon.commands.surface import CommandError
from daemon.config import Site
from daemon.control import Control
from daemon.line_verbs import LineVerbs
from daemon.poller import PolledLine, PolledUnit
from daemon.requests import NotAnswered
from drivers import profile
from drivers.framing import RtuFraming
from drivers.line import Line
from drivers.modbus import ModbusDevice
from drivers.scan import Found
from drivers.wire import SerialWire
from hardware_sim.ports import free_port
from tests.drivers.rtu_server import Mode, RtuServer, adu, answer
from tests.drivers.test_recorder import Witness

if TYPE_CHECKING:
    from tests.drivers.rtu_server import Plan

SITE = """
[site]
id = "s"
gateway = "g"
mode = "test"
[[line]]
id = "l"
{line}
"""


def site(folder: Path, line: str) -> str:
    path = folder / "site.toml"
    path.write_text(SITE.format(line=line))
    return str(path)


def plan(request: bytes) -> Plan:
    """Unit 5 knows itself by its register 0, 9 only refuses, 17 is two units at once, 20 is busy, 21 an ADAM."""
    unit, fn, at, count = struct.unpack(">BBHH", request[:6])
    if unit == 5:
        words = [unit if at + i == 0 else 7 for i in range(count)]
        return [(0.0, adu(unit, bytes((fn, 2 * count)) + struct.pack(f">{count}H", *words)))]
    if unit == 9:
        return [(0.0, adu(unit, bytes((fn | 0x80, 1))))]
    if unit == 17:
        return [(0.0, answer(request)[:-1] + b"\x00\x55")]
    if unit == 20:
        return [(0.0, adu(unit, bytes((fn | 0x80, 6))))]
    if unit == 21:
        words = [0x4117] * count
        return [(0.0, adu(unit, bytes((fn, 2 * count)) + struct.pack(f">{count}H", *words)))]
    return []


@pytest.fixture(autouse=True)
def no_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PONDWATCH_RUN", str(tmp_path))


async def test_every_unit_that_answers_in_whatever_way_is_found_and_guessed_by_reads_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = RtuServer()
    server.plan = plan
    path = site(tmp_path, f'kind = "modbus-rtu"\nport = "{server.port}"\nserial = "115200 8N1"')
    words = ["--config", path, "--json", "scan", "l", "--units", "1-22", "--timeout", "100 ms"]
    try:
        assert await asyncio.to_thread(main, words) == 0
    finally:
        server.close()
    found = {row["unit"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert sorted(found) == [5, 9, 17, 20, 21]
    assert "qdy30a" in found[5]["profiles"]
    assert found[9] == {"unit": 9, "mode": "115200 8N1", "said": "exception 1", "profiles": []}
    assert found[17]["said"].startswith("garbled")
    assert found[20]["said"] == "busy"
    assert "advantech-adam-4117" in found[21]["profiles"]
    assert {request[1] for request in server.requests} <= {3, 4}
    assert {request[0] for request in server.requests} == set(range(1, 23)), "never everybody, unit 0"


async def test_a_unit_found_at_one_speed_is_not_looked_for_at_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = RtuServer()
    server.plan = plan
    path = site(tmp_path, f'kind = "modbus-rtu"\nport = "{server.port}"')
    modes = "9600 8N1,19200 8N1"
    words = ["--config", path, "scan", "l", "--units", "5,6", "--modes", modes, "--timeout", "100 ms"]
    try:
        assert await asyncio.to_thread(main, words) == 0
    finally:
        server.close()
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("9600 8N1: 2 units")
    assert out[1].startswith("unit   5  9600 8N1")
    assert out[2].startswith("19200 8N1: 1 units")
    assert out[-1] == "1 found"


async def test_a_server_that_nobody_here_wrote_is_found_over_tcp(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    devices = [
        SimDevice(unit, [SimData(0, count=300, values=7, datatype=DataType.REGISTERS)]) for unit in (3, 4)
    ]
    server = ModbusTcpServer(devices, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    try:
        path = site(tmp_path, f'kind = "modbus-tcp"\naddress = "127.0.0.1:{port}"')
        words = ["--config", path, "--json", "scan", "l", "--units", "2-5", "--timeout", "300 ms"]
        assert await asyncio.to_thread(main, words) == 0
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus has no types here
    said = {row["unit"]: row["said"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert said[3] == said[4] == "register 0 is 7"


def test_what_cannot_be_opened_or_is_no_modbus_line_is_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = site(tmp_path, 'kind = "modbus-rtu"\nport = "/dev/pondwatch/none"')
    assert main(["--config", path, "scan", "l", "--units", "1"]) == 3
    assert "does not exist" in capsys.readouterr().err
    for words, said in (
        (["m"], "no Modbus line called m"),
        (["l", "--units", "0-3"], "must lie within 1-247"),
        (["l", "--units", "x"], "must lie within 1-247"),
        (["l", "--timeout", "5"], "needs a number and one of the units"),
        (["l", "--timeout", "0 s"], "waits for nobody"),
        (["l", "--at", "70000"], "register 70000 does not exist"),
        (["l", "--at", "-1"], "register -1 does not exist"),
        (["l", "--modes", "fast"], "is no serial mode"),
    ):
        assert main(["--config", path, "scan", *words]) == 2
        assert said in capsys.readouterr().err


def test_units_are_given_as_ranges() -> None:
    assert units_of("1-3,2,80") == [1, 2, 3, 80]
    with pytest.raises(CommandError):
        units_of("3-1")
    assert len(USUAL_MODES) > 4


async def test_a_line_that_the_core_polls_is_searched_through_the_core_and_its_own_units_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, clock = RtuServer(), Clock()
    polls: list[float] = []

    def answering(request: bytes) -> Plan:
        if request[0] == 3:
            polls.append(asyncio.get_running_loop().time())
            return [(0.0, answer(request))]
        return plan(request)

    server.plan = answering
    device = '[[device]]\nid = "level"\nline = "l"\nprofile = "qdy30a"\nunit = 3\nevery = "100 ms"\ntimeout = "30 ms"\nslowest_reply = "30 ms"'
    path = site(tmp_path, f'kind = "modbus-rtu"\nport = "{server.port}"\nserial = "115200 8N1"\n{device}')
    loaded = Site.load(Path(path))
    driver = ModbusDevice(
        "level", profile.load("qdy30a").compile("level"), 3, clock, timeout_s=0.03, slowest_reply_s=0.03
    )
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "l")
    polled = PolledLine(line, [PolledUnit(driver, NS // 10, driver.longest_s)], clock, Witness())
    verbs = LineVerbs(loaded, {"level": driver}, {"l": polled}, {})
    async with Control(tmp_path / "control.sock", verbs.table()):
        task = asyncio.create_task(polled.run())
        words = ["--config", path, "--json", "scan", "l", "--units", "1-9", "--timeout", "20 ms"]
        code = await asyncio.to_thread(main, words)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    server.close()
    assert code == 0
    found = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert [row["unit"] for row in found] == [5, 9]
    assert {request[1] for request in server.requests} <= {3, 4}
    gaps = [after - before for before, after in pairwise(polls)]
    assert len(polls) > 5, "the scan takes its time, and the polls go on"
    assert max(gaps) < 1.0, "a device is polled while units that do not answer are waited for"


async def test_nobody_who_may_only_look_can_keep_a_polled_line(tmp_path: Path) -> None:
    """The socket takes more than our own verb says; a line that hangs has the watchdog end the core."""
    server, clock = RtuServer(), Clock()
    server.plan = plan
    driver = ModbusDevice("level", profile.load("qdy30a").compile("level"), 3, clock, timeout_s=0.03)
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "l")
    polled = PolledLine(line, [PolledUnit(driver, NS, driver.longest_s)], clock, Witness())
    path = tmp_path / "site.toml"
    path.write_text(SITE.format(line=f'kind = "modbus-rtu"\nport = "{server.port}"'))
    verbs = LineVerbs(Site.load(path), {}, {"l": polled}, {})

    def scan(*units: int, **how: Any) -> str:
        try:
            found = list(requests.stream(tmp_path / "control.sock", requests.Scan("l", units, **how), Found))
        except NotAnswered as refused:
            return str(refused)
        return str([each.unit for each in found])

    async with Control(tmp_path / "control.sock", verbs.table()):
        task = asyncio.create_task(polled.run())
        assert "waits 1 s at most" in await asyncio.to_thread(scan, 9, timeout_s=90.0)
        assert "waits for nobody" in await asyncio.to_thread(scan, 9, timeout_s=0.0)
        assert "register 65536 does not exist" in await asyncio.to_thread(scan, 9, at=65536)
        assert "no unit 0" in await asyncio.to_thread(scan, 0)
        both = [asyncio.to_thread(scan, 9, 10, 11), asyncio.to_thread(scan, 9, 10, 11)]
        assert sorted(await asyncio.gather(*both)) == [
            "[9]",
            "l is being searched already; wait for the end of that",
        ]
        assert await asyncio.to_thread(scan, 9) == "[9]", "and may be searched again"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    server.close()


async def test_a_core_that_this_user_may_not_ask_is_not_gone_round() -> None:
    """A second master on the core's line would take its replies: RTU over TCP keeps nobody out."""
    connections: list[object] = []
    server = await asyncio.start_server(lambda *its: connections.append(its), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as core:
        run_dir = Path(folder) / "run"
        run_dir.mkdir()
        path = site(Path(folder), f'kind = "rtu-over-tcp"\naddress = "127.0.0.1:{port}"')
        core.bind(str(run_dir / "control.sock"))
        core.listen()
        run_dir.chmod(0)
        right = "-dac_override,-dac_read_search"  # by which root passes it
        as_user = ["setpriv", f"--bounding-set={right}", f"--inh-caps={right}"] if os.geteuid() == 0 else []
        verb = await asyncio.create_subprocess_exec(
            *as_user, sys.executable, "-m", "daemon.commands", "--config", path, "scan", "l",
            env={**os.environ, "PONDWATCH_RUN": str(run_dir)}, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await verb.communicate()
        assert (verb.returncode, said.decode()) == (
            3,
            f"pondwatch scan: {run_dir}/control.sock: this user may not speak to the core\n",
        )
        assert await asyncio.to_thread(main, ["--config", path, "scan", "l", "--modes", "usual"]) == 2
        run_dir.chmod(0o700)
    server.close()
    await server.wait_closed()
    assert not connections
