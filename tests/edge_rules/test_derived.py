from __future__ import annotations

import cmath
import dataclasses
import json
import math
from math import isnan, nan
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.binder import Problem, bind
from edge_rules.law import derived
from edge_rules.law.derived import BELOW_TIP, KINDS

if TYPE_CHECKING:
    from edge_rules.law.derived import Deriver

S = 1_000_000_000
MIN = 60 * S
H = 3600 * S

EXAMPLES: dict[str, dict[str, Any]] = {
    "linear": {"of": "a", "scale": 2.0, "offset": 1.0},
    "piezometric-elevation": {"of": "a", "tip_elevation_m": 78.42, "density_kg_m3": 1000, "datum": "1985"},
    "burial-depth": {"of": "a", "ground_elevation_m": 100.0},
    "freeboard": {"of": "a", "crest_elevation_m": 102.5},
    "dry-beach": {"of": "a", "beach_crest_elevation_m": 101.0, "slope": 0.01},
    "projected-freeboard": {"of": "a", "beach_crests_m": [101.4, 101.2], "design_flood_m": 99.8},
    "projected-beach": {"of": "a", "beach_crests_m": [101.2], "design_flood_m": 99.8, "slope": 0.01},
    "drawdown": {"of": "a", "noise": 0.01},
    "standing-water": {"of": "a", "dry_below_m": 90.2},
    "antecedent-rain": {"of": "a"},
    "rate": {"of": "a", "per": "d", "noise": 2.0},
    "rain-window": {"of": "a", "window": "24 h"},
    "rain-intensity": {"of": "a", "tip_mm": 0.2},
    "rain-undercatch": {"of": "a", "intensity": "b", "tip_mm": 0.2, "turn": "450 ms"},
    "rain-gauge": {"of": "a", "air": "b"},
    "horizontal": {"east": "a", "north": "b"},
    "axis": {"toward": "downstream", "east": "a", "north": "b", "downstream_azimuth_deg": 105.0},
}


def settings(kind: str, **changed: Any) -> Any:
    """Bound as the site file binds it."""
    problems: list[Problem] = []
    bound: Any = bind(KINDS[kind], EXAMPLES[kind] | changed, "derive", problems)
    assert problems == []
    assert bound.problems() == []
    return bound


def make(kind: str, **changed: Any) -> Deriver:
    deriver: Deriver = settings(kind, **changed).make()
    return deriver


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_binds_from_the_site_file_and_a_missing_input_gives_a_missing_result(kind: str) -> None:
    assert EXAMPLES.keys() == KINDS.keys()
    deriver = make(kind)
    inputs = settings(kind).inputs
    assert isnan(deriver(S, [nan] * len(inputs)))
    assert isnan(deriver(2 * S, [1.0] * (len(inputs) - 1) + [nan]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_documented_with_an_example(kind: str) -> None:
    for field in dataclasses.fields(KINDS[kind]):
        assert field.metadata["doc"]
        assert field.metadata["example"]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("linear", [3.0], 7.0),
        ("burial-depth", [88.5], 11.5),
        ("freeboard", [100.0], 2.5),
        ("dry-beach", [100.0], 100.0),
        ("dry-beach", [101.5], -50.0),
        ("horizontal", [3.0, -4.0], 5.0),
        ("projected-freeboard", [95.0], 1.4),  # however low the pond stands today
        ("projected-freeboard", [100.2], 1.0),  # it stands above the design flood already
        ("projected-beach", [95.0], 140.0),
    ],
)
def test_a_formula_computes_what_its_name_says(kind: str, values: list[float], expected: float) -> None:
    assert make(kind)(S, values) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("density_kg_m3", "head_m"),
    [(1000.0, 10.1972), (998.207, 10.2155), (1050.0, 9.7116)],  # 100 kPa; figures of algorithms section 4
)
def test_piezometric_elevation_follows_the_density_of_the_water(density_kg_m3: float, head_m: float) -> None:
    deriver = make("piezometric-elevation", density_kg_m3=density_kg_m3)
    assert deriver(S, [100.0]) == pytest.approx(78.42 + head_m, abs=5e-5)


def test_suction_beyond_the_tolerance_is_a_dry_tip_and_never_the_tips_elevation() -> None:
    deriver = make("piezometric-elevation", dry_below_kpa=0.5)
    assert deriver(S, [-0.51]) == BELOW_TIP
    assert deriver(S, [-0.5]) == pytest.approx(78.42 - 0.051, abs=1e-4)
    assert make("piezometric-elevation")(S, [-0.001]) == BELOW_TIP


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("piezometric-elevation", {"density_kg_m3": 0.0}),
        ("piezometric-elevation", {"dry_below_kpa": -1.0}),
        ("dry-beach", {"slope": 0.0}),
        ("rate", {"noise": 0.0}),
        ("rate", {"q": -1.0}),
        ("rain-window", {"window": "0 s"}),
        ("projected-freeboard", {"beach_crests_m": []}),
        ("projected-freeboard", {"flood_rise_m": -1.0}),
        ("projected-beach", {"slope": 0.0}),
        ("drawdown", {"noise": 0.0}),
        ("antecedent-rain", {"keep_per_day": 1.0}),
    ],
)
def test_numbers_that_cannot_be_right_are_said(kind: str, changed: dict[str, Any]) -> None:
    bound: Any = bind(KINDS[kind], EXAMPLES[kind] | changed, "", [])
    assert len(bound.problems()) == 1


def test_only_derivations_with_a_memory_have_a_state() -> None:
    remembers = {kind for kind in KINDS if make(kind).state() is not None}
    assert remembers >= {"rate", "rain-window", "drawdown", "standing-water", "antecedent-rain"}
    assert not remembers & {"linear", "projected-freeboard", "projected-beach"}
    with pytest.raises(ValueError, match="no state"):
        make("linear").restore([1])


def test_the_rate_of_a_ramp_is_its_slope_per_day() -> None:
    rate = make("rate", noise=0.1)
    assert isnan(rate(0, [0.0])), "one sample has no rate"
    for hour in range(1, 200):
        last = rate(hour * H, [0.5 * hour])
    assert last == pytest.approx(12.0, rel=1e-3)


def test_a_clock_that_comes_back_from_the_future_does_not_end_the_rate() -> None:
    rate = make("rate", noise=0.1)
    for hour in range(100):
        rate((10**6 + hour) * H, [0.0])
    back = [rate(hour * H, [0.5 * hour]) for hour in range(200)]
    assert all(isnan(r) for r in back[:9])
    assert back[-1] == pytest.approx(12.0, rel=1e-3)


def test_ten_thousand_tips_add_up_exactly_and_leave_exactly_nothing() -> None:
    window = make("rain-window", window="1 h")
    for i in range(10_000):
        total = window(i * S // 10, [0.2])
    assert total == 2000.0
    assert window(10_000 * S + 3600 * S, [0.0]) == 0.0


def test_rain_enters_with_its_poll_and_leaves_one_window_later() -> None:
    window = make("rain-window", window="24 h")
    assert window(0, [1.0]) == 1.0
    assert window(12 * H, [0.4]) == 1.4
    assert window(24 * H - 1, [0.0]) == 1.4
    assert window(24 * H, [0.0]) == 0.4
    assert isnan(window(30 * H, [nan])), "what fell since is not known"
    assert window(36 * H - 1, [0.0]) == 0.4
    assert window(36 * H, [0.0]) == 0.0


def test_a_clock_that_steps_back_keeps_the_rain_in_the_window() -> None:
    window = make("rain-window", window="1 h")
    window(10**6 * H, [5.0])
    assert window(0, [1.0]) == 6.0
    assert window(H - 1, [0.0]) == 6.0
    assert window(H, [0.0]) == 0.0


def test_a_window_keeps_bounded_memory_at_any_rate_and_reads_high_by_one_slot_at_most() -> None:
    window = derived.WindowSum(1440 * S)
    for i in range(20_000):
        total = window(i * S // 4, [0.2])
        assert len(window._slots) <= window.SLOTS + 1
    assert 0.2 * 4 * 1440 <= total <= 0.2 * 4 * 1441 + 1e-9


rain = st.lists(
    st.tuples(
        st.integers(-600, 7200),
        st.one_of(st.sampled_from([0.0, 0.2, 0.2, 0.5, 0.1, nan]), st.floats(0, 1e6, allow_subnormal=True)),
    ),
    max_size=40,
)


@given(rain)
def test_the_window_equals_adding_up_all_that_is_young_enough(polls: list[tuple[int, float]]) -> None:
    """With slots of one poll each, against the sum over the whole history."""
    from math import fsum

    window = derived.WindowSum(6 * H)
    window._slot_ns = 1
    now_s, history = 0, [(0, 0.0)]
    at_s = 1_000_000
    for i, (dt_s, amount) in enumerate(polls):
        at_s += dt_s
        now_s += max(0, dt_s) if i else 0
        total = window(at_s * S, [amount])
        if isnan(amount):
            assert isnan(total)
            continue
        history.append((now_s, amount))
        assert total == fsum(a for t, a in history if t > now_s - 6 * 3600)


@pytest.mark.parametrize("kind", ["rate", "rain-window"])
@given(polls=rain, cut=st.integers(0, 40))
def test_a_deriver_restored_from_json_continues_to_the_last_bit(
    kind: str, polls: list[tuple[int, float]], cut: int
) -> None:
    whole, part = make(kind), make(kind)
    at_s = 1_000_000
    for i, (dt_s, value) in enumerate(polls):
        at_s += dt_s
        if i == cut:
            stored = json.loads(json.dumps(part.state()))
            part = make(kind)
            part.restore(stored)
        expected, got = whole(at_s * S, [value]), part(at_s * S, [value])
        assert got == expected or (isnan(got) and isnan(expected))
    assert json.dumps(part.state()) == json.dumps(whole.state())


def test_a_flood_from_todays_level_counts_where_it_would_stand_above_the_design_flood() -> None:
    freeboard = make("projected-freeboard", flood_rise_m=1.6)
    assert freeboard(S, [98.0]) == pytest.approx(1.4)  # 99.6 is below the design flood
    assert freeboard(S, [99.0]) == pytest.approx(0.6)  # 100.6 is not


def test_water_stands_for_as_long_as_nobody_saw_it_gone() -> None:
    hours = make("standing-water")
    assert hours(0, [90.0]) == 0.0
    assert hours(H, [91.0]) == 0.0
    assert hours(2 * H, [91.0]) == 1.0
    assert isnan(hours(30 * H, [nan]))
    assert hours(73 * H, [91.0]) == 72.0
    state = json.loads(json.dumps(hours.state()))
    again = make("standing-water")
    again.restore(state)
    assert again(74 * H, [91.0]) == 73.0
    assert again(20 * H, [91.0]) == 73.0, "a clock that steps back takes nothing away"
    assert again(21 * H, [90.2]) == 0.0


def test_the_antecedent_index_fades_by_its_share_a_day() -> None:
    index = make("antecedent-rain")
    assert index(0, [100.0]) == 100.0
    assert isnan(index(12 * H, [nan]))
    assert index(24 * H, [0.0]) == pytest.approx(90.0)
    assert index(48 * H, [10.0]) == pytest.approx(91.0)


def test_drawdown_is_the_fall_in_metres_a_day() -> None:
    fall = make("drawdown", noise=0.001)
    for hour in range(200):
        last = fall(hour * H, [100.0 - 0.02 * hour])
    assert last == pytest.approx(0.48, rel=1e-3)


def axis(toward: Any, azimuth_deg: float | None = 105.0) -> derived.Axis:
    if toward in ("settlement", "rise"):
        return derived.Axis(toward, up="u", downstream_azimuth_deg=azimuth_deg)
    return derived.Axis(toward, "a", "b", downstream_azimuth_deg=azimuth_deg)


@given(st.floats(0.0, 359.0), st.floats(-500.0, 500.0), st.floats(-500.0, 500.0))
def test_the_dams_axes_are_the_horizon_turned_and_their_opposites(
    az_deg: float, east: float, north: float
) -> None:
    """As complex numbers: the displacement, turned so that downstream is the real axis."""
    moved = complex(east, north) * cmath.rect(1.0, math.radians(az_deg - 90.0))
    found = {
        t: axis(t, az_deg).make()(0, [east, north])
        for t in ("downstream", "upstream", "left-bank", "right-bank")
    }
    assert found["downstream"] == pytest.approx(moved.real, abs=1e-9)
    assert found["left-bank"] == pytest.approx(moved.imag, abs=1e-9)
    assert found["upstream"] == pytest.approx(-moved.real, abs=1e-9)
    assert found["right-bank"] == pytest.approx(-moved.imag, abs=1e-9)


def test_a_dam_that_falls_to_the_east_has_its_left_bank_in_the_north_and_settles_downward() -> None:
    assert axis("left-bank", 90.0).make()(0, [0.0, 5.0]) == pytest.approx(5.0)
    assert axis("downstream", 90.0).make()(0, [3.0, 0.0]) == pytest.approx(3.0)
    assert axis("settlement").make()(0, [-7.0]) == 7.0
    assert axis("rise").make()(0, [-7.0]) == -7.0


def test_an_axis_takes_the_direction_of_its_section_unless_it_has_its_own() -> None:
    assert axis("downstream", None).at(90.0).make()(0, [3.0, 1.0]) == pytest.approx(3.0)
    assert axis("downstream", 0.0).at(90.0).make()(0, [3.0, 1.0]) == pytest.approx(1.0)
    assert axis("settlement").inputs == ("u",)
    assert axis("left-bank").inputs == ("a", "b")


def test_an_axis_with_the_wrong_inputs_says_which() -> None:
    assert derived.Axis("settlement", "a", "b").problems() == [
        "up is missing",
        "east has no part in settlement",
        "north has no part in settlement",
    ]
    assert axis("downstream", 360.0).problems() == ["downstream_azimuth_deg 360.0 must lie within 0 and 360"]
