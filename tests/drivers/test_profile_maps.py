"""What single device models need: a busy status, a stale first reading, registers by which a scan knows them."""

from __future__ import annotations

import math
import struct

import pytest

from drivers.decode import Judge, Place, decoder
from drivers.model import OWN_UNIT, DiscardStep, Identity, ReadStep, WaitStep
from drivers.profile import BUILT_IN, load
from drivers.sample import Quality

IDS = sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def test_twenty_models_at_least_each_with_a_source_and_how_far_it_is_trusted() -> None:
    assert len(IDS) >= 20
    for name in IDS:
        assert all(source.doc and source.trust for source in load(name).sources)


def test_a_weir_monitor_that_still_measures_is_busy_and_has_no_value() -> None:
    block = load("encardio-esm12s").blocks[0]
    ready, busy = struct.pack(">HfHf", 0, 0.25, 0, 12.5), struct.pack(">HfHf", 1, 0.25, 0, 12.5)
    assert block.block.points == ("status", "level", "temperature_status", "temperature")
    assert list(block.decode(ready)[1]) == [0, 0.25, 0, 12.5]
    _, values, qualities = block.decode(busy)
    assert math.isnan(values[1])
    assert qualities == bytes((Quality.GOOD, Quality.BUSY, Quality.GOOD, Quality.GOOD))
    _, values, qualities = block.decode(struct.pack(">HfHf", 2, 0.25, 0, 12.5))
    assert (qualities[1], qualities[3]) == (Quality.SENSOR_FAULT, Quality.GOOD), "neither ready nor measuring"


def test_busy_comes_before_everything_else_that_could_be_said() -> None:
    says = ((1, frozenset((1,))),)
    judge = Judge(bad=frozenset((9999,)), ok=((1, frozenset((0,))),), degraded=says, busy=says)
    decode = decoder([Place(0, "f32"), Place(2, "u16")], [judge, Judge()], 1, 6)
    for number in (1.0, 9999.0, math.nan, math.inf):
        assert decode(struct.pack(">fH", number, 1))[2] == bytes((Quality.BUSY,))
    assert decode(struct.pack(">fH", 9999.0, 0))[2] == bytes((Quality.SENTINEL,))
    assert decode(struct.pack(">fH", 1.0, 2))[2] == bytes((Quality.SENSOR_FAULT,))


def test_a_logger_that_shows_its_last_value_first_is_read_twice() -> None:
    steps = load("seametrics-pt2x").steps
    assert [type(step) for step in steps] == [DiscardStep, WaitStep, ReadStep]
    assert isinstance(steps[1], WaitStep)
    assert steps[1].s == 1.0


def test_an_angle_is_a_share_of_a_half_turn() -> None:
    _, values, _ = load("witmotion-wt901c485").blocks[0].decode(struct.pack(">3h", 16384, -16384, -32768))
    assert list(values) == [90.0, -90.0, -180.0]


def test_what_lambrecht_says_of_an_error_is_no_rain() -> None:
    blocks = {block.block.name: block for block in load("lambrecht-rain-e").blocks}
    for name, error in (("total", "FF676981"), ("total_coarse", "D8F1"), ("intensity", "D8F1")):
        assert blocks[name].decode(bytes.fromhex(error))[2] == bytes((Quality.SENTINEL,))


@pytest.mark.parametrize(
    ("words", "unit", "fits"),
    [((0x4117, 7, 5), 5, True), ((0x4117, 0, 5), 5, True), ((0x4117, 7, 6), 5, False), ((0x4118, 7, 5), 5, False), ((0x4117, 7), 5, False)],
)  # fmt: skip
def test_a_device_is_known_by_its_registers(words: tuple[int, ...], unit: int, *, fits: bool) -> None:
    assert Identity(3, 210, (0x4117, None, OWN_UNIT)).fits(words, unit) is fits


def test_identities_are_read_within_what_the_device_takes_at_once() -> None:
    known = [load(name) for name in IDS]
    identified = [profile for profile in known if profile.identity is not None]
    assert len(identified) >= 5
    for profile in identified:
        assert profile.identity is not None
        assert len(profile.identity.words) <= profile.bus.max_registers
