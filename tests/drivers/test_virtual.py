"""The instrument without a wire keeps the contract of any other."""

from __future__ import annotations

from math import isnan, nan
from typing import Any, cast

from drivers.sample import Quality
from drivers.virtual import WAVES, VirtualInstrument, Wave


class Still:
    def wall_ns(self) -> int:
        return 1_000

    def monotonic_ns(self) -> int:
        return 2_000


NO_LINE = cast("Any", None)


async def test_the_same_tick_says_the_same_and_a_quarter_period_is_the_crest() -> None:
    one, other = VirtualInstrument("v1", Still()), VirtualInstrument("v2", Still())
    tick_ns = 21_600 * 10**9
    (frame,), (again,) = await one.poll(NO_LINE, tick_ns), await other.poll(NO_LINE, tick_ns)
    assert list(frame.values) == list(again.values)
    assert frame.values[list(WAVES).index("pressure")] == 65.0
    assert (frame.block, frame.tick_ns, frame.time_ns, frame.mono_ns) == (
        one.blocks[0],
        tick_ns,
        1_000,
        2_000,
    )
    assert {s.unit for s in frame} == {"kPa", "degC", "hPa", "m"}


async def test_a_dead_sensor_is_missing_with_its_reason() -> None:
    instrument = VirtualInstrument("v1", Still(), {"dead": Wave("kPa", nan)})
    (frame,) = await instrument.poll(NO_LINE, 0)
    (sample,) = frame
    assert isnan(sample.value)
    assert sample.quality == Quality.NOT_A_NUMBER
