"""The bench's other wires and languages, read by the real daemon: a bus behind a device server, binary GNSS."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from hardware_sim.site import GNSS_FROM_BASE_M
from tests.system.running import Bench, Daemon, demo_site, until

if TYPE_CHECKING:
    from pathlib import Path

SPEED = 60.0
SEEN = {"n.pz01.elevation", "n.rain.depth", "n.gn01.east", "n.gn01.north"}
EAST, NORTH, UP = GNSS_FROM_BASE_M
ORIGIN = "baseline = { latitude_deg = 36.4561237, longitude_deg = 115.9854413, height_m = 82.6215 }"


@pytest.mark.parametrize(
    ("language", "over", "profile"),
    [("ubx", "tcp", "ublox-relposned"), ("sbf", "pty", "septentrio-basevectorgeod")],
)
async def test_the_daemon_reads_the_pond_over_a_device_server_and_a_binary_receiver(
    tmp_path: Path, language: str, over: str, profile: str
) -> None:
    options = ("--gnss", language, "--gnss-over", over, "--baud", "19200")
    async with Bench(tmp_path, "calm", SPEED, *options) as bench:
        lines = bench.facts["lines"]
        bus = f'kind = "modbus-rtu"\nport = "{tmp_path}/rs485-1"\nserial = "9600 8N1"'
        receiver = f'kind = "serial"\nport = "{tmp_path}/gnss-1"\nserial = "115200 8N1"'
        talking = f'kind = "tcp"\naddress = "{lines["gnss-1"]}"'
        site = demo_site(
            tmp_path,
            bench,
            (bus, f'kind = "rtu-over-tcp"\naddress = "{lines["rs485-1-tcp"]}"'),
            (receiver, talking if over == "tcp" else receiver),
            ('profile = "nmea-gga-gst"', f'profile = "{profile}"'),
            (ORIGIN, f"reference = {{ east_m = {EAST}, north_m = {NORTH}, up_m = {UP} }}"),
            ('base_station = "1" ', 'base_station = "117" '),
        )
        async with Daemon(site, tmp_path, bench.facts["clock"]) as daemon:

            async def seen() -> dict[str, float]:
                values = {
                    found[1]: value
                    for name, value in (await daemon.metrics()).items()
                    if (found := re.match(r'pondwatch_channel_value\{channel="([^"]+)"', name))
                }
                return values if values.keys() >= SEEN else {}

            values = await until(seen, "every kind of instrument has a value")
            truth = await bench.ask("truth")
    assert values["n.pz01.elevation"] == pytest.approx(truth["phreatic_m"][0], abs=0.3)
    east_m, north_m, _ = truth["displacement_m"]
    assert (values["n.gn01.east"], values["n.gn01.north"]) == pytest.approx(
        (1000 * east_m, 1000 * north_m), abs=10.0
    )
