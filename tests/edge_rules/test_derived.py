from __future__ import annotations

import dataclasses
import json
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
    "rate": {"of": "a", "per": "d", "noise": 2.0},
    "rain-window": {"of": "a", "window": "24 h"},
    "horizontal": {"east": "a", "north": "b"},
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
    ],
)
def test_numbers_that_cannot_be_right_are_said(kind: str, changed: dict[str, Any]) -> None:
    bound: Any = bind(KINDS[kind], EXAMPLES[kind] | changed, "", [])
    assert len(bound.problems()) == 1


def test_only_derivations_with_a_memory_have_a_state() -> None:
    remembers = {kind for kind in KINDS if make(kind).state() is not None}
    assert remembers == {"rate", "rain-window"}
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
