"""Channels: samples become readings of the right tick, and nothing is filled in."""

from __future__ import annotations

from math import isnan, nan
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.channels import PATIENCE_S, PENDING_TICKS, Channels, Source
from daemon.config import ChannelTable
from drivers.calibration import Count, Linear, VibratingWire
from drivers.sample import Block, Frame, Quality
from edge_rules.law.derived import Horizontal, PiezometricElevation

S = 1_000_000_000
VW = Block("vw1", "ch", ("freq01", "temp01"), ("Hz", "degC"))
AIR = Block("weather", "env", ("pressure",), ("kPa",))
GNSS = Block("gnss1", "position", ("east", "north"), ("mm", "mm"))
RAIN = Block("rain1", "rain", ("tips",), ("tips",))
WIRE = VibratingWire("geokon", 9082.0, -0.1795, 22.0, 0.1319, 1008.2)


def frame(block: Block, tick_s: int, values: tuple[float, ...], quality: Quality = Quality.GOOD) -> Frame:
    n = len(values)
    return Frame(
        block, tick_s * S, tick_s * S + 5, tick_s * S, tuple(values), list(values), bytes((quality,)) * n
    )


def missing(block: Block, tick_s: int, why: Quality = Quality.NO_REPLY) -> Frame:
    return Frame.missing(block, tick_s * S, tick_s * S, tick_s * S, why)


def channel(name: str, unit: str = "kPa", **keys: Any) -> ChannelTable:
    return ChannelTable(id=name, unit=unit, item="phreatic-line", pond="n", **keys)


def pressure(**keys: Any) -> ChannelTable:
    return channel("p", source="vw1.freq01", calibration=WIRE, barometer="weather.pressure", **keys)


def taken(channels: Channels, *frames: Frame) -> list[tuple[str, int, float, Quality]]:
    """Every reading that the frames yield: (channel, tick in s, value, quality)."""
    return [
        (name, readings.tick_ns // S, value, Quality(quality))
        for each in frames
        for _, readings in channels.on_frame(each)
        for name, value, quality in zip(readings.channels, readings.values, readings.qualities, strict=True)
    ]


def test_a_barometer_in_kilopascal_on_another_logger_is_the_one_of_the_same_tick() -> None:
    channels = Channels([pressure(temperature="vw1.temp01")], [Source(VW, 60 * S), Source(AIR, 60 * S)])
    assert taken(channels, frame(VW, 60, (2800.0, 15.0))) == []
    assert taken(channels, frame(AIR, 0, (99.0,))) == []
    ((name, tick, value, quality),) = taken(channels, frame(AIR, 60, (101.3,)))
    by_hand = -0.1795 * (2800.0**2 / 1000 - 9082) + 0.1319 * (15 - 22) - (1013.0 - 1008.2) / 10
    assert (name, tick, quality) == ("p", 60, Quality.GOOD)
    assert value == pytest.approx(by_hand, rel=1e-12)


def test_the_raw_numbers_of_everything_that_went_into_a_reading_travel_with_it() -> None:
    channels = Channels([pressure(temperature="vw1.temp01")], [Source(VW, 60 * S), Source(AIR, 60 * S)])
    taken(channels, frame(VW, 60, (2800.0, 15.0)))
    ((_, readings),) = channels.on_frame(frame(AIR, 60, (101.3,)))
    assert readings.raws == [{"vw1.freq01": 2800.0, "vw1.temp01": 15.0, "weather.pressure": 101.3}]


def test_the_order_of_arrival_makes_no_difference() -> None:
    def both(*frames: Frame) -> object:
        return taken(Channels([pressure()], [Source(VW, 60 * S), Source(AIR, 60 * S)]), *frames)

    vw, air = frame(VW, 60, (2800.0, 15.0)), frame(AIR, 60, (101.3,))
    assert both(vw, air) == both(air, vw)


def test_a_barometer_polled_less_often_serves_each_tick_until_its_next_one() -> None:
    channels = Channels([pressure()], [Source(VW, 60 * S), Source(AIR, 300 * S)])
    found = taken(
        channels, frame(AIR, 300, (101.0,)), *(frame(VW, t, (2800.0, 15.0)) for t in (300, 360, 540))
    )
    assert [tick for _, tick, _, _ in found] == [300, 360, 540]
    assert taken(channels, frame(VW, 600, (2800.0, 15.0))) == []  # the next barometer is not there yet
    ((_, tick, value, _),) = taken(channels, frame(AIR, 600, (102.0,)))
    assert tick == 600
    assert value == pytest.approx(found[-1][2] - 1.0)


def test_a_missing_barometer_makes_the_pressure_missing_and_never_the_last_one_again() -> None:
    channels = Channels([pressure()], [Source(VW, 60 * S), Source(AIR, 60 * S)])
    taken(channels, frame(AIR, 60, (101.3,)), frame(VW, 60, (2800.0, 15.0)))
    ((_, _, value, quality),) = taken(channels, missing(AIR, 120), frame(VW, 120, (2800.0, 15.0)))
    assert isnan(value)
    assert quality == Quality.MISSING_INPUT


def test_without_its_temperature_a_pressure_is_reduced_without_it_and_uncertain() -> None:
    vented = VibratingWire("geokon", 9082.0, -0.1795, 22.0, 0.1319)
    table = channel("p", source="vw1.freq01", calibration=vented, temperature="vw1.temp01")
    channels = Channels([table], [Source(VW, 60 * S)])
    broken = Frame(VW, 0, 0, 0, (2800.0, 9999), [2800.0, nan], bytes((0, Quality.SENTINEL)))
    ((_, _, value, quality),) = taken(channels, broken)
    assert quality == Quality.NO_TEMPERATURE
    assert value == pytest.approx(-0.1795 * (2800.0**2 / 1000 - 9082))


def test_a_derived_channel_follows_its_input_in_the_same_frame() -> None:
    tables = [
        channel("e", "m", derive=PiezometricElevation(of="p", tip_elevation_m=70.0, dry_below_kpa=2.0)),
        channel("p", source="vw1.freq01", calibration=Linear(1.0, 0.0)),
    ]
    channels = Channels(tables, [Source(VW, 60 * S)])
    assert [row[0] for row in taken(channels, frame(VW, 60, (98.0665, 15.0)))] == ["p", "e"]
    (_, (_, _, elevation, _)) = taken(channels, frame(VW, 120, (98.0665, 15.0)))
    assert elevation == pytest.approx(80.0)


def test_a_dry_tip_is_below_the_tip_and_no_level_at_all() -> None:
    tables = [
        channel("p", source="vw1.freq01"),
        channel("e", "m", derive=PiezometricElevation(of="p", tip_elevation_m=70.0, dry_below_kpa=2.0)),
    ]
    channels = Channels(tables, [Source(VW, 60 * S)])
    (_, (_, _, value, quality)) = taken(channels, frame(VW, 60, (-5.0, 15.0)))
    assert isnan(value)
    assert quality == Quality.BELOW_TIP


def test_two_channels_of_different_devices_are_joined_by_their_tick() -> None:
    other = Block("gnss2", "position", ("north",), ("mm",))
    tables = [
        channel("east", "mm", source="gnss1.east"),
        channel("north", "mm", source="gnss2.north"),
        channel("h", "mm", derive=Horizontal(east="east", north="north")),
    ]
    channels = Channels(tables, [Source(GNSS, 60 * S), Source(other, 60 * S)])
    assert [row[0] for row in taken(channels, frame(GNSS, 60, (3.0, 0.0)))] == ["east"]
    found = taken(channels, frame(other, 120, (9.0,)), frame(other, 60, (4.0,)))
    assert [row[:3] for row in found] == [("north", 120, 9.0), ("north", 60, 4.0), ("h", 60, 5.0)]


def test_outside_its_span_a_reading_is_missing_but_its_raw_number_is_kept() -> None:
    channels = Channels([channel("p", source="vw1.freq01", span=(0.0, 350.0))], [Source(VW, 60 * S)])
    ((_, readings),) = channels.on_frame(frame(VW, 60, (400.0, 15.0)))
    assert isnan(readings.values[0])
    assert readings.qualities[0] == Quality.OUT_OF_SPAN
    assert readings.raws[0] == {"vw1.freq01": 400.0}


def test_rain_since_the_reading_before_survives_a_restart() -> None:
    table = channel("rain", "mm", source="rain1.tips", calibration=Count(0.2, 16, 100))
    first = Channels([table], [Source(RAIN, 60 * S)])
    taken(first, frame(RAIN, 60, (65530,)))
    second = Channels([table], [Source(RAIN, 60 * S)])
    second.restore("rain", first.states()["rain"]())
    ((_, _, value, quality),) = taken(second, frame(RAIN, 120, (4,)))
    assert quality == Quality.GOOD
    assert value == pytest.approx(2.0)


def test_a_tick_whose_input_never_comes_is_finished_without_it() -> None:
    channels = Channels([pressure()], [Source(VW, 60 * S), Source(AIR, 60 * S)])
    taken(channels, frame(VW, 60, (2800.0, 15.0)))
    assert list(channels.expire(int((60 + PATIENCE_S - 1) * S))) == []
    ((_, readings),) = channels.expire(int((60 + PATIENCE_S + 1) * S))
    assert readings.qualities == bytes((Quality.MISSING_INPUT,))


def test_waiting_ticks_are_bounded_and_the_oldest_is_finished_first() -> None:
    channels = Channels([pressure()], [Source(VW, 60 * S), Source(AIR, 60 * S)])
    frames = [frame(VW, 60 * n, (2800.0, 15.0)) for n in range(1, PENDING_TICKS + 3)]
    assert [(tick, q) for _, tick, _, q in taken(channels, *frames)] == [
        (60, Quality.MISSING_INPUT),
        (120, Quality.MISSING_INPUT),
    ]


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
@given(
    points=st.lists(
        st.tuples(
            st.floats(allow_nan=True, allow_infinity=True),
            st.sampled_from((Quality.GOOD, Quality.DEGRADED, Quality.SENTINEL, Quality.NO_REPLY)),
        ),
        min_size=3,
        max_size=3,
    ),
    came_at_all=st.booleans(),
    order=st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
)
def test_the_short_way_of_plain_channels_says_what_the_long_way_says(
    points: list[tuple[float, Quality]],
    came_at_all: bool,
    order: list[int],
) -> None:
    block = Block("d", "b", ("x", "y", "z"), ("", "", ""))
    tables = [
        channel("c.x", source="d.x", span=(-10.0, 10.0)),
        channel('"c"\\null', source="d.y", calibration=Linear(2.0, 1.0)),
        channel("\u6e17\u538b", unit="\u2103", source="d.z", calibration=Linear(2.0, 1.0), span=(0.0, 1.0)),
    ]
    tables = [tables[at] for at in order]
    short, long = (Channels(tables, [Source(block, S)]) for _ in range(2))
    assert short.groups[0].plain
    long.groups[0].plain = []
    values = [nan if quality.is_bad else value for value, quality in points]
    numbers = [v for v, _ in points] if came_at_all else ()
    for second in (1, 2):  # the second time the text between the numbers is there
        came = Frame(block, S, second * S, S, numbers, values, bytes(q for _, q in points))
        ((_, a),), ((_, b),) = short.on_frame(came), long.on_frame(came)
        assert repr(list(a)) == repr(list(b))
        assert a.qualities == b.qualities
        assert a.json() == b.json() == msgspec.json.encode(list(b))[1:-1]
