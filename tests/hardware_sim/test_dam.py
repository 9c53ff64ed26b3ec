from __future__ import annotations

from dataclasses import astuple, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_sim import dam as dam_module
from hardware_sim.dam import POND_BOTTOM_M, POND_M2, Dam, Ledger, pond_at_rest_m
from hardware_sim.scenario import Scenario
from hardware_sim.site import PIEZOMETERS

HOUR_S = 3600.0


def storm_dam() -> Dam:
    scenario = Scenario.load("storm")
    return Dam(scenario.course.rain_mm_per_h, scenario.seed)


def rises_m(dam: Dam, at_s: float) -> list[float]:
    return [z - p.rest_elevation_m for z, p in zip(dam.at(at_s).phreatic_m, PIEZOMETERS, strict=True)]


def stored_m3(dam: Dam) -> float:
    return dam.runoff_m3 + dam.pond_m3


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0.0, 200.0), min_size=1, max_size=6))
def test_every_drop_that_comes_in_is_stored_or_has_left(rain: list[float]) -> None:
    dam = Dam(lambda t_s: rain[int(t_s // 300) % len(rain)], seed=1)
    before = stored_m3(dam)
    dam.at(1800.0)
    ledger = dam.ledger
    came = ledger.rained + ledger.slurry - ledger.infiltrated - ledger.decanted
    assert stored_m3(dam) - before == pytest.approx(came, abs=1e-6)


def test_the_ledger_rains_what_the_gauge_says() -> None:
    dam = storm_dam()
    truth = dam.at(HOUR_S)
    area_m2 = dam_module.CATCHMENT_M2 + POND_M2
    assert dam.ledger.rained == pytest.approx(truth.rain_mm / 1000.0 * area_m2, rel=1e-12)


def test_without_rain_nothing_moves_but_weather_and_noise() -> None:
    dam = Dam(lambda _t: 0.0, seed=3)
    truth = dam.at(6 * HOUR_S)
    assert truth.pond_m == pytest.approx(pond_at_rest_m(), abs=1e-9)
    assert rises_m(dam, 6 * HOUR_S) == pytest.approx([0.0] * len(PIEZOMETERS), abs=1e-9)
    assert dam.ledger.rained == 0.0


@settings(max_examples=10, deadline=None)
@given(st.floats(0.0, 100.0), st.floats(1.0, 60.0))
def test_more_rain_never_means_less_water_anywhere(rain: float, more: float) -> None:
    lower, higher = Dam(lambda _t: rain, seed=1), Dam(lambda _t: rain + more, seed=1)
    for at_s in (600.0, 1800.0):
        low, high = lower.at(at_s), higher.at(at_s)
        assert high.pond_m > low.pond_m
        assert all(h >= w for h, w in zip(high.phreatic_m, low.phreatic_m, strict=True))
        assert all(h >= w for h, w in zip(high.pore_kpa, low.pore_kpa, strict=True))


def test_piezometers_answer_later_and_less_with_distance() -> None:
    dam = storm_dam()
    peaks = [0.0] * len(PIEZOMETERS)
    times = [0.0] * len(PIEZOMETERS)
    for minute in range(240):
        for i, rise in enumerate(rises_m(dam, minute * 60.0)):
            if rise > peaks[i]:
                peaks[i], times[i] = rise, minute
    assert peaks == sorted(peaks, reverse=True)
    assert times == sorted(times)
    assert times[0] < times[-1]


def test_the_same_seed_and_rain_give_the_same_dam_however_often_it_is_asked() -> None:
    once, often = storm_dam(), storm_dam()
    for second in range(0, 1800, 7):
        often.at(second)
    assert astuple(once.at(1800.0)) == astuple(often.at(1800.0))


def test_a_dam_at_rest_is_taken_at_once_and_is_the_dam_it_would_be_step_by_step() -> None:
    scenario = Scenario.load("flood-season")  # drizzle from the 120th hour to the 150th, then nothing
    quick, often, stepped = (Dam(scenario.course.rain_mm_per_h, scenario.seed) for _ in range(3))
    for dam in (quick, often):
        dam.follow(scenario.course)
    stepped.follow(replace(scenario.course, dry_until_s=None))
    for second in range(0, 200 * 3600, 997):
        often.at(second)
    for hour in (119, 140, 200):
        ours, theirs = quick.at(hour * HOUR_S), stepped.at(hour * HOUR_S)
        assert ours.pond_m == pytest.approx(theirs.pond_m, abs=2e-5)
        assert ours.phreatic_m == pytest.approx(theirs.phreatic_m, abs=2e-5)
        assert ours.displacement_m == pytest.approx(theirs.displacement_m, rel=1e-3)
        assert (ours.rain_mm, ours.gnss_noise_m) == (theirs.rain_mm, theirs.gnss_noise_m)
        assert quick.ledger.decanted == pytest.approx(stepped.ledger.decanted, rel=1e-6)
    assert astuple(quick.at(200 * HOUR_S)) == astuple(often.at(200 * HOUR_S))


def test_another_seed_changes_the_noise_and_not_the_water() -> None:
    one, other = Dam(lambda _t: 20.0, seed=1).at(600.0), Dam(lambda _t: 20.0, seed=2).at(600.0)
    assert one.gnss_noise_m != other.gnss_noise_m
    assert one.phreatic_m == other.phreatic_m


def test_time_never_runs_backwards() -> None:
    dam = storm_dam()
    late = dam.at(900.0)
    assert dam.at(100.0) == late


def test_a_known_storm_raises_the_pond_as_a_hand_computation_says() -> None:
    # 60 mm/h for 60 s falls on the pond alone before the catchment's reservoir has let out much;
    # the first second lets out nothing, so only the rain on the water itself counts.
    dam = Dam(lambda _t: 60.0, seed=1)
    dam.at(1.0)
    rain_m = 60.0 / 3.6e6
    rest_m3 = (pond_at_rest_m() - POND_BOTTOM_M) * POND_M2
    assert dam.pond_m3 - rest_m3 == pytest.approx(rain_m * POND_M2, rel=1e-6)
    assert dam.runoff_m3 == pytest.approx(rain_m * dam_module.CATCHMENT_M2 * dam_module.RUNOFF_SHARE)


def test_rain_makes_the_crest_creep_faster() -> None:
    wet, dry = storm_dam(), Dam(lambda _t: 0.0, seed=7)
    assert wet.at(HOUR_S).displacement_m[1] < 10.0 * dry.at(HOUR_S).displacement_m[1] < 0.0


def test_barometer_and_air_have_a_day() -> None:
    dam = Dam(lambda _t: 0.0, seed=1, day_s=0.0)
    hours = [dam.at(h * HOUR_S) for h in range(25)]
    warmest = max(hours, key=lambda truth: truth.air_celsius)
    assert 12 <= warmest.t_s / HOUR_S <= 16
    assert abs(hours[0].air_celsius - hours[24].air_celsius) < 0.1
    assert 1.5 < max(t.pressure_hpa for t in hours) - min(t.pressure_hpa for t in hours) < 8.0


def test_the_noise_of_the_receiver_has_the_size_it_is_said_to_have() -> None:
    dam = Dam(lambda _t: 0.0, seed=5)
    east = [dam.at(float(s)).gnss_noise_m[0] for s in range(0, 20_000, 10)]
    mean = sum(east) / len(east)
    sigma = (sum((e - mean) ** 2 for e in east) / len(east)) ** 0.5
    assert abs(mean) < 0.0005
    assert sigma == pytest.approx((0.0012**2 + 0.0008**2) ** 0.5, rel=0.15)


def test_a_ledger_begins_empty() -> None:
    assert astuple(Ledger()) == (0.0,) * 5
