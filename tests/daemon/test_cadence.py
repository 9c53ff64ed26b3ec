"""Denser sampling at warning: who is read how often, and what that does to readings of two instruments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast
from zoneinfo import ZoneInfo

import msgspec
import pytest

from daemon.alarms import AlarmBook
from daemon.cadence import Cadence
from daemon.channels import Channels, Source
from daemon.clock import Clock
from daemon.config import ChannelTable, DeviceTable, File, Pond, RainTable, Site, SiteTable
from daemon.judge import Judge
from daemon.schedule import Slot
from daemon.water import Warned, Water
from drivers.calibration import VibratingWire
from drivers.gnss.baseline import Baseline
from drivers.sample import Block, Frame
from edge_rules.law.levels import Level, Levels

if TYPE_CHECKING:
    from collections.abc import Sequence

S = 1_000_000_000
LEVELS = Levels(rising=True, blue=1.0, yellow=2.0, hysteresis=0.1, source="t")
WIRE = VibratingWire("geokon", 9082.0, -0.1795, 22.0, 0.1319, 1008.2)
BLOCKS = {
    name: Block(name, "b", ("x", "f"), (unit, "Hz"))
    for name, unit in (("water", "m"), ("other", "m"), ("rain", "mm"), ("sky", "degC"), ("air", "hPa"))
}


class Lines:
    """Every device's line in one: slots as the poller has them, at a time the test sets."""

    def __init__(self, tables: Sequence[DeviceTable]) -> None:
        self.slots = {table.id: Slot(round(table.every_s * S)) for table in tables}
        self.now_s = 0

    def set_every(self, device: str, every_ns: int) -> int:
        return self.slots[device].set_every(every_ns, self.now_s * S)

    def every_s(self, device: str) -> float:
        return self.slots[device]._rhythm.newest / S


class Bench:
    """Two ponds; water, a rain gauge and GNSS at pond n, other water at pond o, weather for both."""

    def __init__(self) -> None:
        dense = {"water": 60.0, "rain": 30.0, "sky": 120.0, "air": 60.0}
        devices = [
            DeviceTable(id=name, line="l", profile="p", every_s=600.0, every_at_warning_s=dense.get(name))
            for name in BLOCKS
        ]
        origin = Baseline(36.0, 116.0, 84.0)
        devices.append(DeviceTable(id="gnss", line="l", profile="p", every_s=7200.0, baseline=origin))
        tables = [
            ChannelTable(id="n.level", unit="m", item="pond-level", pond="n", source="water.x", levels=LEVELS),
            ChannelTable(id="n.rain", unit="mm", item="rainfall", pond="n", source="rain.x", levels=LEVELS),
            ChannelTable(id="o.level", unit="m", item="pond-level", pond="o", source="other.x", levels=LEVELS),
            ChannelTable(id="o.heat", unit="degC", item="weather", pond="o", source="sky.x", levels=LEVELS),
            ChannelTable(id="n.east", unit="mm", item="displacement", pond="n", source="gnss.x"),
            ChannelTable(
                id="n.pore", unit="kPa", item="pore-pressure", pond="n", source="other.f",
                calibration=WIRE, barometer="air.x",
            ),
        ]  # fmt: skip
        blocks = BLOCKS | {"gnss": Block("gnss", "b", ("x", "f"), ("mm", "Hz"))}
        self.channels = Channels(tables, [Source(block, 600 * S) for block in blocks.values()])
        file = File(
            site=SiteTable(id="s", gateway="g"),
            ponds=(Pond(id="n", rain=RainTable(("n.rain",))), Pond(id="o")),
            channels=tuple(tables),
            devices=tuple(devices),
        )
        self.site = cast("Site", file)
        self.clock = Clock()
        self.lines = Lines(devices)
        book = AlarmBook([], timezone=ZoneInfo("Asia/Shanghai"))
        self.judge = Judge(self.site, self.channels.groups, book)
        self.water = Water(self.site, self.channels.groups, self.judge, book, ZoneInfo("Asia/Shanghai"))
        self.cadence = Cadence(
            self.site, self.judge, self.channels, {"l": self.lines}, self.clock, self.water.stirs
        )

    def see(self, device: str, value: float) -> None:
        self.lines.now_s += 60
        self.take(device, value, self.lines.now_s)
        self.cadence.follow()

    def take(self, device: str, value: float, tick_s: int) -> list[tuple[int, float]]:
        """The readings of n.pore that the frame completes: tick in s, value."""
        now = tick_s * S
        frame = Frame(BLOCKS[device], now, now, now, (value, 2800.0), (value, 2800.0), b"\0\0")
        found = []
        for group, readings in self.channels.on_frame(frame):
            self.judge.take(group, readings)
            self.water.take(group, readings)
            if "n.pore" in readings.channels:
                found.append((readings.tick_ns // S, readings.values[readings.channels.index("n.pore")]))
        return found

    def every_s(self) -> dict[str, float]:
        return {device.id: self.lines.every_s(device.id) for device in self.site.devices}


CALM = {"water": 600, "other": 600, "rain": 600, "sky": 600, "air": 600, "gnss": 7200}


def test_a_pond_at_yellow_has_its_instruments_read_more_often_and_gnss_at_least_every_half_hour() -> None:
    bench = Bench()
    bench.see("water", 1.5)
    assert bench.every_s() == CALM  # blue is no warning
    bench.see("water", 2.5)
    assert bench.every_s() == CALM | {"water": 60, "rain": 30, "gnss": 1800, "air": 60}
    bench.see("water", 1.5)
    assert bench.every_s() == CALM


def test_rain_at_any_level_counts_for_its_pond_alone() -> None:
    bench = Bench()
    bench.see("rain", 1.5)
    assert bench.every_s() == CALM | {"water": 60, "rain": 30, "gnss": 1800, "air": 60}
    bench.see("rain", 0.0)
    assert bench.every_s() == CALM


@pytest.mark.parametrize("of", ["storm", "earthquake"])
def test_a_warning_passed_on_counts_for_its_pond_until_it_ends(of: Literal["storm", "earthquake"]) -> None:
    bench = Bench()
    now_ns = bench.clock.wall_ns()
    told = bench.water.warned("n", Warned("yellow", now_ns + 3600 * S, "CENC", "M5.2, 60 km", of=of), now_ns)
    bench.cadence.follow()
    assert bench.every_s() == CALM | {"water": 60, "rain": 30, "air": 60, "gnss": 1800}
    assert (bench.water.levels["n"] > 0) is (of == "storm"), "an earthquake is no rain"
    assert of in told[0].reason.en or of == "storm"
    bench.water.warned("n", Warned("none", now_ns, "CENC", of=of), now_ns)
    bench.cadence.follow()
    assert bench.every_s() == CALM


def test_an_earthquake_and_a_storm_stand_beside_each_other_and_outlive_a_restart() -> None:
    bench, again = Bench(), Bench()
    now_ns = bench.clock.wall_ns()
    for of, level in (("storm", "blue"), ("earthquake", "orange")):
        bench.water.warned("n", Warned(level, now_ns + 3600 * S, "s", of=of), now_ns)  # type: ignore[arg-type]
    assert bench.water.levels["n"] == Level.BLUE
    for name, state in bench.water.states().items():
        again.water.restore(name, msgspec.json.decode(msgspec.json.encode(state())))
    again.water.warned("n", Warned("none", now_ns, "s"), now_ns)
    again.cadence.follow()
    assert again.every_s()["gnss"] == 1800, "the earthquake's stands"


def test_rain_that_adds_up_counts_though_no_single_reading_stands_at_a_level() -> None:
    bench = Bench()
    wet = 0.9  # mm a minute: below the gauge's blue of 1 mm a reading, 54 mm in an hour
    for _ in range(70):
        bench.see("rain", wet)
    assert bench.judge.level("n.rain") == 0
    assert bench.every_s()["water"] == 60
    assert bench.every_s()["gnss"] == 1800


def test_a_channel_that_is_no_monitoring_item_counts_for_its_own_device() -> None:
    bench = Bench()
    bench.see("sky", 2.5)
    assert bench.every_s() == CALM | {"sky": 120}


def test_a_device_of_two_ponds_follows_either() -> None:
    bench = Bench()
    bench.see("other", 2.5)  # pond o; it has no second period, and air serves only pond n
    assert bench.every_s() == CALM | {"sky": 120}


@pytest.mark.parametrize("dense_every_s", [60, 120])
def test_readings_that_need_two_instruments_find_their_tick_before_through_and_after(
    dense_every_s: int,
) -> None:
    """The barometer is read at ten minutes, densely, and at ten minutes again; its wire at ten minutes always."""
    bench = Bench()
    wire, air = list(range(600, 6001, 600)), [600, 1200]
    bench.lines.now_s = 1290
    first = bench.lines.set_every("air", dense_every_s * S) // S
    bench.channels.set_every("air", dense_every_s * S, first * S)
    air += range(first, 3500, dense_every_s)
    bench.lines.now_s = 3490
    last = bench.lines.set_every("air", 600 * S) // S
    bench.channels.set_every("air", 600 * S, last * S)
    air += range(air[-1] + dense_every_s, last, dense_every_s)
    air += range(last, 6001, 600)
    found: list[tuple[int, float]] = []
    for tick, device in sorted([(t, "air") for t in air] + [(t, "other") for t in wire]):
        found += bench.take(device, 1000.0 + tick / 100 if device == "air" else 0.0, tick)
    assert [tick for tick, _ in found] == wire
    by_hand = [-0.1795 * (2800.0**2 / 1000 - 9082) - (1000.0 + t / 100 - 1008.2) / 10 for t in wire]
    assert [value for _, value in found] == pytest.approx(by_hand)


def test_a_denser_wire_is_reduced_with_the_barometers_last_tick() -> None:
    bench = Bench()
    bench.channels.set_every("other", 60 * S, 1260 * S)
    found = bench.take("air", 1010.0, 1200)
    for tick in (1200, 1260, 1320, 1740):
        found += bench.take("other", 0.0, tick)
    assert [tick for tick, _ in found] == [1200, 1260, 1320, 1740]
    assert bench.take("other", 0.0, 1800) == []
    assert [tick for tick, _ in bench.take("air", 1011.0, 1800)] == [1800]


def test_after_a_step_of_the_wall_clock_every_period_is_told_anew() -> None:
    bench = Bench()
    bench.see("water", 2.5)
    bench.lines.now_s = 100_000_000
    bench.clock.steps += 1
    bench.cadence.follow()
    rhythm = bench.channels._rhythms[BLOCKS["air"]]
    assert rhythm.every(100_000_060 * S) == 60 * S
    bench.lines.now_s = 60  # and back
    bench.clock.steps += 1
    bench.cadence.follow()
    assert rhythm.every(120 * S) == 60 * S
