"""Row 42: a device that answers in time, and nonsense."""

from __future__ import annotations

import struct
from collections import Counter
from math import inf, isnan, nan
from random import Random
from typing import TYPE_CHECKING, cast
from zoneinfo import ZoneInfo

import pytest

from daemon.alarms import AlarmBook
from daemon.channels import Channels, Source
from daemon.clock import Clock
from daemon.config import ChannelTable, File, Pond, Site, SiteTable
from daemon.judge import Judge
from drivers.framing import RtuFraming
from drivers.line import Line
from drivers.modbus import ModbusDevice
from drivers.profile import read_profile
from drivers.sample import Quality
from drivers.wire import SerialWire
from edge_rules.law.levels import Level, Levels
from tests.drivers.rtu_server import Mode, RtuServer, adu

if TYPE_CHECKING:
    from tests.conftest import Figure

PROFILE = b"""
schema = 1
id = "meter"
title = "A level meter that shows its status"
source = [{ doc = "made for this test", trust = "inferred" }]
speaks = "modbus"
[bus]
timeout = "100 ms"
[block.b]
fn = 3
at = 0
n = 3
[point.level]
in = "b"
at = 0
type = "f32"
unit = "m"
bad = [-9999.0]
ok = { status = [0] }
[point.status]
in = "b"
at = 2
type = "u16"
unit = ""
"""
# What the device says (level, status), and the quality that must come of it.
SAYS = {
    "good": (10.0, 0, Quality.GOOD),
    "NaN": (nan, 0, Quality.NOT_A_NUMBER),
    "infinity": (inf, 0, Quality.NOT_A_NUMBER),
    "minus infinity": (-inf, 0, Quality.NOT_A_NUMBER),
    "its word for no value": (-9999.0, 0, Quality.SENTINEL),
    "far above its span": (3e38, 0, Quality.OUT_OF_SPAN),
    "below its span": (-50.0, 0, Quality.OUT_OF_SPAN),
    "a good number and a bad status": (10.0, 4, Quality.SENSOR_FAULT),
    "a denormal number": (1e-40, 0, Quality.GOOD),
}


@pytest.mark.fault(
    row=42, fault="NaN, infinities, out of span, sentinel, bad status",
    injected="300 replies drawn at random from 9 kinds, through driver, channels and trigger levels",
    holds="each missing with its reason, never the last value; no level raised or cleared by any of them",
)  # fmt: skip
async def test_row_42_nonsense_is_missing_and_moves_no_level(figure: Figure) -> None:
    draw, clock, server = Random(42), Clock(), RtuServer()
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "L")
    await line.open()
    device = ModbusDevice("m", read_profile(PROFILE, "meter", "meter").compile("m"), 1, clock)
    levels = Levels(rising=True, blue=11.0, orange=12.0, hysteresis=0.1, source="t")
    table = ChannelTable(
        id="c", unit="m", item="pond-level", pond="n", source="m.level", span=(-5.0, 100.0), levels=levels
    )
    channels = Channels([table], [Source(block, 1_000_000_000) for block in device.blocks])
    file = File(site=SiteTable(id="s", gateway="g"), ponds=(Pond(id="n"),), channels=(table,))
    judge = Judge(cast("Site", file), channels.groups, AlarmBook([], timezone=ZoneInfo("Asia/Shanghai")))
    seen: Counter[str] = Counter()
    wrong, moved, level = 0, 0, Level.NONE
    for tick in range(1, 301):
        high = 100 < tick <= 200  # the water stands at orange in between
        name = draw.choice(list(SAYS)) if tick not in (1, 101, 201) else "good"
        said, status, expected = SAYS[name]
        number = 15.0 if high and said == 10.0 else said
        reply = adu(1, b"\x03\x06" + struct.pack(">fH", number, status))
        server.plan = lambda request, reply=reply: [(0.0, reply)]  # type: ignore[misc]
        (frame,) = await device.poll(line, tick * 1_000_000_000)
        for group, readings in channels.on_frame(frame):
            quality, value = Quality(readings.qualities[0]), readings.values[0]
            seen[quality.text] += 1
            wrong += quality != expected or isnan(value) != expected.is_bad
            if not expected.is_bad:
                wrong += abs(value - number) > 1e-6
            judge.take(group, readings)
        if name == "a denormal number":
            high = False  # an empty pond is a good value, and clears
        moved += expected.is_bad and judge.level("c") != level
        level = judge.level("c")
        if expected == Quality.GOOD:
            assert level == (Level.ORANGE if high else Level.NONE)
    line.close()
    server.close()
    figure(
        f"{wrong} of 300 with another quality than theirs, {moved} changes of level by bad values; {dict(seen)}"
    )
    assert wrong == 0
    assert moved == 0
    assert len(seen) == 5
