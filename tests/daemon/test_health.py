"""Mains, battery, solar, UPS and enclosure temperature as `health` channels: from the wire to page and metrics."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from daemon.config import Site
from hardware_sim.ports import free_port
from tests.drivers.rtu_server import RtuServer, adu
from tests.system.running import ROOT, Daemon, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.drivers.rtu_server import Plan

pytestmark = pytest.mark.timeout(60)

# What a TriRon3210 showed (the source of its profile), in hundredths as the maker has them; the frost is ours.
CHARGER = {0x3100: 61, 0x3104: 1323, 0x3110: 1561, 0x3111: 0x10000 - 1697, 0x311A: 85}
CONTACTS = 0b0000001  # mains is there, the UPS does not complain


def plan(request: bytes) -> Plan:
    unit, fn, at, count = struct.unpack(">BBHH", request[:6])
    words = [CHARGER.get(at + i, 0) if unit == 1 else CONTACTS for i in range(count)]
    return [(0.0, adu(unit, bytes((fn, 2 * count)) + struct.pack(f">{count}H", *words)))]


def example() -> str:
    """The example of the page, at this test's pace."""
    page = (ROOT / "docs/commissioning.md").read_text()
    (block,) = (part.split("```")[0] for part in page.split("```toml\n")[1:])
    return block.replace('every = "5 min"', 'every = "2 s"')


async def test_the_gateways_own_health_is_polled_kept_and_shown_and_never_judged(tmp_path: Path) -> None:
    server = RtuServer()
    server.plan = plan
    site = tmp_path / "site.toml"
    site.write_text(
        f'[site]\nid = "s"\ngateway = "g"\nmode = "test"\n[store]\npath = "{tmp_path}/store"\n[metrics]\n'
        f'listen = "127.0.0.1:{free_port()}"\n[rules]\nstart = "off"\n[[pond]]\nid = "n"\n'
        + example().replace("/dev/pondwatch/rs485-2", server.port)
    )
    loaded = Site.load(site)
    assert {channel.item for channel in loaded.channels} == {"health"}
    assert not any("armed" in warning.message for warning in loaded.warnings)
    wanted = {
        "n.mains": 1.0,
        "n.ups.alarm": 0.0,
        "n.solar.voltage": 0.61,
        "n.battery.voltage": 13.23,
        "n.battery.temperature": 15.61,
        "n.battery.charge": 85.0,
        "n.enclosure.temperature": -16.97,
    }
    try:
        async with Daemon(site, tmp_path) as daemon:

            async def shown() -> dict[str, float]:
                rows = (await daemon.metrics()).items()
                values = {name: value for name, value in rows if name.startswith("pondwatch_channel_value")}
                return {name.split('channel="')[1].split('"')[0]: value for name, value in values.items()}

            async def all_there() -> bool:
                return (await shown()).keys() == wanted.keys()

            await until(all_there, "every health channel is among the metrics")
            assert await shown() == pytest.approx(wanted)
            present = await daemon.ask("present")
            assert {row["id"]: row["value"] for row in present["channels"]} == pytest.approx(wanted)
            assert present["items"] == [], "nothing is rolled up"
            assert (await daemon.ask("status"))["ponds"] == {"n": "none"}
    finally:
        server.close()
