"""The whole daemon polls a server made of libmodbus alone, which is killed and comes back.

What the server holds is known without it: register n holds n, input register n holds n + 10000.
"""

from __future__ import annotations

import struct
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import pytest

from hardware_sim.ports import free_port
from tests.peers.test_libmodbus import serial_cable
from tests.system.running import Daemon, Program, readings, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.peer, pytest.mark.timeout(240)]


def number(form: str, *words: int) -> float:
    """What registers mean together, most significant first."""
    value: float = struct.unpack(form, struct.pack(f">{len(words)}H", *words))[0]
    return value


Points = dict[str, tuple[str, str, float | None]]  # channel -> device.point, unit, value

LOGGER: Points = {
    "first": ("logger.v01", "kPa", number(">f", 1, 0)),  # CDAB: the low word stands first
    "third": ("logger.v03", "kPa", number(">f", 5, 4)),
    "last": ("logger.v24", "kPa", number(">f", 47, 46)),
}
OTHERS: Points = {
    "level": ("keller.pressure", "bar", number(">f", 256, 257)),
    "celsius": ("keller.temperature", "degC", number(">f", 258, 259)),
    "wind": ("station.wind", "m/s", 5.0),
    "air": ("station.pressure", "kPa", 50.9),
    "tips": ("gauge.tips", "tips", number(">I", 10_011, 10_010)),
    "uptime": ("gauge.uptime", "min", 10_012.0),
}
BEYOND: Points = {"radar": ("radar.pv", "m", None)}  # its registers begin where the server's end
PROFILES = {
    "logger": "campbell-cr1000x",
    "keller": "keller-33x",
    "station": "renke-weather-485",
    "gauge": "dfrobot-sen0575",
    "radar": "vegapuls",
}


def site_file(folder: Path, line: str, channels: Points, unit: int | None) -> Path:
    """All devices on one line; `unit` for all of them, or one each."""
    text = f"""
[site]
id = "peer"
gateway = "gw1"
mode = "test"
[store]
path = "{folder}/store"
[metrics]
listen = "127.0.0.1:{free_port()}"
[rules]
start = "off"
[[pond]]
id = "n"
[[line]]
id = "line"
{line}
"""
    devices = dict.fromkeys(source.partition(".")[0] for source, _, _ in channels.values())
    for n, device in enumerate(devices, 1):
        text += f'[[device]]\nid = "{device}"\nline = "line"\nprofile = "{PROFILES[device]}"\nunit = {unit or n}\n'
        text += 'every = "200 ms"\ntimeout = "100 ms"\nslowest_reply = "100 ms"\n'
    for name, (source, of, _) in channels.items():
        text += f'[[channel]]\nid = "{name}"\nunit = "{of}"\npond = "n"\nitem = "health"\nfrom = "{source}"\n'
    site = folder / "site.toml"
    site.write_text(text)
    return site


def values(daemon: Daemon, channel: str) -> list[float | None]:
    return [each["value"] for each in readings(daemon.batches(), channel)]


async def polled_through_a_restart(daemon: Daemon, server: Program, channel: str) -> None:
    """Some values, a server killed and seen to be missing, and values again."""
    async with daemon:
        await until(lambda: len(values(daemon, channel)) > 5, "values")
        await server.kill()
        await until(lambda: values(daemon, channel)[-5:] == [None] * 5, "the server is missing")
        await server.start()
        await until(lambda: None not in values(daemon, channel)[-5:], "values again")
        assert await daemon.stop() == 0


def holds_what_the_server_holds(daemon: Daemon, channels: Points) -> None:
    """Right values before and after, in between null with the reason, and never a silence."""
    for name, (_, unit, value) in channels.items():
        stored = readings(daemon.batches(), name)
        assert [known for known, _ in groupby(each["value"] is not None for each in stored)] == [
            True,
            False,
            True,
        ]
        for each in stored:
            assert each["unit"] == unit
            if each["value"] is None:
                assert each["quality"].startswith("bad:")
            else:
                assert (each["value"], each["quality"]) == (pytest.approx(value, rel=1e-12, abs=0), "good")
        times = [datetime.fromisoformat(each["time"]) for each in stored]
        assert all(later - earlier < timedelta(seconds=1) for earlier, later in pairwise(times))


async def test_over_tcp_the_daemon_stores_what_a_libmodbus_server_holds_and_survives_its_death(
    program: Path, tmp_path: Path
) -> None:
    port = free_port()
    line = f'kind = "modbus-tcp"\naddress = "127.0.0.1:{port}"'
    channels = LOGGER | OTHERS
    daemon = Daemon(site_file(tmp_path, line, channels | BEYOND, unit=None), tmp_path)
    async with Program([str(program), "tcp", str(port)], tmp_path / "server.log") as server:
        # A probe would be its one client: its own word says that it listens.
        await server.ready(lambda: "ready" in server.log.read_text(), "the server")
        await polled_through_a_restart(daemon, server, "uptime")
    holds_what_the_server_holds(daemon, channels)
    refused = readings(daemon.batches(), "radar")
    assert {each["value"] for each in refused} == {None}
    assert "bad:refused" in {each["quality"] for each in refused}


async def test_over_a_serial_line_too(program: Path, tmp_path: Path) -> None:
    async with serial_cable() as (ours, theirs):
        line = f'kind = "modbus-rtu"\nport = "{ours}"\nserial = "115200 8N1"'
        daemon = Daemon(site_file(tmp_path, line, LOGGER, unit=1), tmp_path)
        async with Program([str(program), "rtu", theirs], tmp_path / "server.log") as server:
            await server.ready(lambda: "ready" in server.log.read_text(), "the server")
            await polled_through_a_restart(daemon, server, "last")
    holds_what_the_server_holds(daemon, LOGGER)
