from __future__ import annotations

import time
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from daemon.clock import Clock
from hardware_sim.clock import BenchClock
from hardware_sim.dam import Dam
from hardware_sim.scenario import Outage, Scenario, ScenarioWrong
from hardware_sim.site import PIEZOMETERS

if TYPE_CHECKING:
    from pathlib import Path


def highest_rise_m(name: str, until_s: float) -> float:
    scenario = Scenario.load(name)
    truth = Dam(scenario.course.rain_mm_per_h, scenario.seed).at(until_s)
    return max(z - p.rest_elevation_m for z, p in zip(truth.phreatic_m, PIEZOMETERS, strict=True))


def test_the_storm_raises_the_phreatic_line_by_two_metres_within_25_minutes() -> None:
    assert Scenario.load("storm").course.rain_mm_per_h(299.0) == 0.0
    assert highest_rise_m("storm", 30 * 60.0) >= 2.0


@pytest.mark.parametrize("hours", [1, 3])
def test_a_calm_day_leaves_it_within_a_few_centimetres(hours: int) -> None:
    assert highest_rise_m("calm", hours * 3600.0) < 0.06


def test_rain_follows_straight_lines_between_its_points() -> None:
    scenario = Scenario.load("storm")
    assert scenario.course.rain_mm_per_h(7 * 60.0) == pytest.approx(35.0)
    assert scenario.course.rain_mm_per_h(30 * 60.0) == pytest.approx(72.5)
    assert scenario.course.rain_mm_per_h(0.0) == 0.0
    assert scenario.course.rain_mm_per_h(10_000.0) == 0.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = 'x'\ntitle = 'x'\nseed = 1\nrian = []", "rian"),
        ("name = 'x'\ntitle = 'x'", "seed"),
        ("name = 'x'\ntitle = 'x'\nseed = 1\n[[rain]]\nat_min = -1\nmm_per_h = 0", "at_min"),
        ("name = [", "name.toml"),
        (
            "name = 'x'\ntitle = 'x'\nseed = 1\nrain = [{at_min = 2, mm_per_h = 1}, {at_min = 1, mm_per_h = 1}]",
            "follow",
        ),
    ],
)
def test_a_wrong_scenario_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "name.toml"
    path.write_text(text)
    with pytest.raises(ScenarioWrong, match=said):
        Scenario.load(str(path))


def test_a_missing_scenario_names_those_there_are() -> None:
    with pytest.raises(ScenarioWrong, match="base-bumped, bus-from-hell, calm"):
        Scenario.load("strom")


def test_an_outage_is_written_at_colon_for() -> None:
    assert Outage.parse("20:15.5") == Outage(20.0, 15.5)
    for wrong in ("20", "20:", "a:b", "-1:5", "5:0"):
        with pytest.raises(ValueError, match="AT:FOR"):
            Outage.parse(wrong)


def test_bench_and_daemon_read_the_same_time_from_the_same_text() -> None:
    text = str(BenchClock.starting_now(60.0))
    bench, daemon = BenchClock.parse(text), Clock.parse(text, simulated=True)
    for real_s in (bench.epoch_s, bench.epoch_s + 12.345, bench.epoch_s + 86_400.0):
        with (
            patch.object(time, "time", lambda real_s=real_s: real_s),
            patch.object(time, "time_ns", lambda real_s=real_s: int(real_s * 1e9)),
        ):
            assert bench.now_s() == pytest.approx(daemon.wall_ns() / 1e9, abs=1e-3)
    assert BenchClock.parse(text) == bench


@pytest.mark.parametrize("text", ["", "60", "0@1", "-1@5", "inf@5", "x@y", "1@nan"])
def test_a_clock_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"clock|float"):
        BenchClock.parse(text)
