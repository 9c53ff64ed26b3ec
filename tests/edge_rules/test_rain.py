"""Rain between tips, what a bucket misses, and a gauge that is not to be believed."""

from __future__ import annotations

from math import inf, isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rules.law.rain import Corrected, GaugeCheck, RainGauge, RainIntensity, TipIntensity

S = 1_000_000_000
MIN, H = 60 * S, 3600 * S


def polls(deriver: TipIntensity, depths: list[float], every_ns: int = MIN, start_ns: int = 0) -> list[float]:
    return [deriver(start_ns + i * every_ns, [depth]) for i, depth in enumerate(depths)]


def test_intensity_is_the_tips_over_the_time_since_those_before_and_falls_while_none_comes() -> None:
    intensity = TipIntensity(0.2, 3600.0)
    shown = polls(intensity, [0.0, 0.2, 0.0, 0.2, 0.4, 0.0, 0.0, 0.0])
    assert shown == pytest.approx([0.0, 12.0, 12.0, 6.0, 24.0, 12.0, 6.0, 4.0])


def test_rain_is_over_when_no_tip_came_for_as_long_as_the_site_says() -> None:
    intensity = TipIntensity(0.2, 600.0)
    shown = polls(intensity, [0.0, 1.0] + [0.0] * 12)
    assert shown[10] == pytest.approx(0.2 * 60 / 9)
    assert shown[11:] == [0.0, 0.0, 0.0]


@given(st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.2, 0.6]), min_size=2, max_size=60))
def test_what_is_shown_after_each_tip_adds_up_to_what_fell(depths: list[float]) -> None:
    """The intensity at a poll with tips, held back over the time since those before, is their depth."""
    intensity, since, total = TipIntensity(0.2, inf), 0, 0.0
    for i, depth in enumerate(depths):
        shown = intensity(i * MIN, [depth])
        if depth and i:
            total += shown * (i - since) / 60
            since = i
    assert total == pytest.approx(sum(depths[1:]))


def test_a_missing_poll_is_missing_and_its_tips_count_over_the_whole_time() -> None:
    intensity = TipIntensity(0.2, 3600.0)
    shown = polls(intensity, [0.2, nan, nan, 0.6])
    assert isnan(shown[1])
    assert shown[3] == pytest.approx(0.6 / 3 * 60)


def test_a_clock_that_steps_back_makes_no_rain() -> None:
    intensity = TipIntensity(0.2, 3600.0)
    polls(intensity, [0.0, 0.2], start_ns=10 * H)
    assert intensity(9 * H, [0.2]) == pytest.approx(12.0), "no time has passed: as it was"
    assert intensity(9 * H + MIN, [0.2]) == pytest.approx(12.0)


def test_intensity_goes_on_after_a_restart() -> None:
    whole, first, second = (TipIntensity(0.2, 3600.0) for _ in range(3))
    depths = [0.0, 0.2, 0.0, 0.4, 0.0, 0.0, 0.2, 0.0]
    expected = polls(whole, depths)
    polls(first, depths[:4])
    second.restore(first.state())
    assert polls(second, depths[4:], start_ns=4 * MIN) == expected[4:]


# Derived figures of the same formula with a tip of 0.2 mm and a turn of 0.45 s.
@pytest.mark.parametrize(
    ("measured", "true"), [(50.0, 51.61), (100.0, 106.67), (200.0, 228.57), (300.0, 369.23)]
)
def test_what_runs_past_a_turning_bucket_is_added(measured: float, true: float) -> None:
    correct = Corrected(0.45, 0.2)
    assert correct(0, [measured, measured]) == pytest.approx(true, abs=0.005)
    assert correct(0, [0.2, measured]) == pytest.approx(0.2 * true / measured, rel=1e-4)
    assert measured == pytest.approx(true / (1 + true * 0.45 / 0.2 / 3600), rel=1e-4), "the bucket's own loss"


def test_a_bucket_that_would_turn_more_than_half_the_time_is_at_most_doubled() -> None:
    correct = Corrected(0.45, 0.2)
    for mm_per_h in (800.0, 801.0, 1600.0, 1e9):
        assert correct(0, [1.0, mm_per_h]) == pytest.approx(2.0)
    assert isnan(correct(0, [1.0, nan]))


def test_a_gauge_in_freezing_air_is_marked_and_while_it_thaws() -> None:
    check = GaugeCheck(0.5, 7200.0, 0.0, by=["air"])
    said = [check.remark(i * H, [0.0, celsius]) for i, celsius in enumerate([2.0, 0.4, 0.6, 3.0, 3.0, nan])]
    assert said == ["", "frozen", "frozen", "frozen", "", ""]
    again = GaugeCheck(0.5, 7200.0, 0.0, by=["air"])
    check.remark(9 * H, [0.0, -3.0])
    again.restore(check.state())
    assert again.remark(10 * H, [0.0, 5.0]) == "frozen"


def test_a_dry_gauge_beside_a_wet_one_is_marked() -> None:
    check = GaugeCheck(0.0, 0.0, 10.0, by=["neighbour"])
    assert check.remark(0, [0.0, 10.0]) == "neighbour"
    assert check.remark(0, [0.2, 40.0]) == ""
    assert check.remark(0, [0.0, 9.8]) == ""
    assert check.remark(0, [0.0, nan]) == ""


def test_a_check_without_anything_to_check_with_is_a_mistake() -> None:
    assert len(RainGauge("a").problems()) == 1
    assert len(RainGauge("a", neighbour="b").problems()) == 1
    assert RainGauge("a", neighbour="b", neighbour_mm=5.0).problems() == []
    assert len(RainIntensity("a", 0.0, -1.0).problems()) == 2
