"""A rain gauge that is checked: the depth stands, and its quality says what speaks against it."""

from __future__ import annotations

import math

from daemon.channels import Channels, Source
from daemon.config import ChannelTable
from drivers.sample import Block, Frame, Quality
from edge_rules.law.rain import RainGauge

S = 1_000_000_000
BLOCK = Block("met", "b", ("rain", "air", "near"), ("mm", "degC", "mm"))


def table(name: str, **more: object) -> ChannelTable:
    return ChannelTable(id=name, unit="mm", item="rainfall", pond="n", **more)  # type: ignore[arg-type]


TABLES = [
    table("rain", source="met.rain"),
    table("air", source="met.air"),
    table("near", source="met.near"),
    table("checked", derive=RainGauge("rain", air="air", neighbour="near", neighbour_mm=10.0)),
]


def checked(
    rain: float, air: float, near: float, bad: Quality = Quality.GOOD, of: int = 1
) -> tuple[float, int]:
    """Value and quality of the checked channel for one frame; `bad` is the quality of input `of`."""
    channels = Channels(TABLES, [Source(BLOCK, 60 * S)])
    qualities = [Quality.GOOD] * 3
    qualities[of] = bad
    numbers = (rain, air, near)
    values = [math.nan if q.is_bad else n for n, q in zip(numbers, qualities, strict=True)]
    frame = Frame(BLOCK, 60 * S, 60 * S, 60 * S, numbers, values, bytes(qualities))
    found: dict[str, tuple[float, int]] = {}
    for _, readings in channels.on_frame(frame):
        found |= dict(
            zip(readings.channels, zip(readings.values, readings.qualities, strict=True), strict=True)
        )
    return found["checked"]


def test_rain_in_warm_air_beside_a_wet_neighbour_is_good() -> None:
    assert checked(1.2, 15.0, 12.0) == (1.2, Quality.GOOD)
    assert checked(0.0, 15.0, 0.0) == (0.0, Quality.GOOD)


def test_a_frozen_gauge_is_uncertain_and_keeps_its_depth() -> None:
    assert checked(1.2, -0.1, 0.0) == (1.2, Quality.FROZEN)
    assert Quality.FROZEN.text == "uncertain:frozen"
    assert int(Quality.FROZEN) == 9


def test_a_dry_gauge_beside_a_wet_one_is_uncertain() -> None:
    assert checked(0.0, 15.0, 12.0) == (0.0, Quality.NEIGHBOUR)


def test_a_dead_thermometer_makes_rain_uncertain_and_never_missing() -> None:
    assert checked(1.2, 0.0, 0.0, Quality.NO_REPLY, of=1) == (1.2, Quality.UNCERTAIN_INPUT)
    value, quality = checked(1.2, 15.0, 0.0, Quality.NO_REPLY, of=0)
    assert math.isnan(value)
    assert quality == Quality.MISSING_INPUT
