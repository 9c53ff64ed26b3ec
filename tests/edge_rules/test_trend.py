from __future__ import annotations

import csv
import json
import random
import statistics
from datetime import UTC, datetime
from itertools import pairwise, product
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rules.law.trend import TrendState
from tests import naive
from tests.edge_rules import real

H = 3_600_000_000_000

walks = st.lists(
    st.tuples(
        st.sampled_from([-2.0, 0.0, 0.02, 0.5, 1.0, 1.0, 1.0, 30.0]),
        st.one_of(st.floats(-10, 10), st.sampled_from([nan, inf, 200.0, 200.0, -150.0])),
    ),
    max_size=80,
)


@given(walks, st.sampled_from([1e-6, 1e-3]))
def test_the_filter_agrees_with_its_twin_in_matrices_after_every_sample(
    walk: list[tuple[float, float]], q: float
) -> None:
    trend, twin = TrendState(2.0, q), naive.TrendTwin(2.0, q)
    at_ns = 0
    for dt_h, value in walk:
        at_ns += round(dt_h * H)
        assert trend.feed(at_ns, value) == twin.feed(at_ns / H, value)
        if twin.x is not None:
            assert trend.level == pytest.approx(float(twin.x[0]), rel=1e-7, abs=1e-7)
            assert trend.rate_per_h == pytest.approx(twin.rate_per_h, rel=1e-7, abs=1e-9)
            assert trend.rate_sd_per_h == pytest.approx(twin.rate_sd_per_h, rel=1e-7)


@given(walks)
def test_a_missing_or_late_sample_changes_no_bit(walk: list[tuple[float, float]]) -> None:
    trend = TrendState(2.0, 1e-6)
    at_ns = 0
    for dt_h, value in walk:
        at_ns += round(dt_h * H)
        before = trend.state()
        if trend.feed(at_ns, value) is None:
            assert trend.state() == before


@given(walks, st.integers(0, 80))
def test_a_filter_restored_from_json_continues_to_the_last_bit(
    walk: list[tuple[float, float]], cut: int
) -> None:
    whole, part = TrendState(2.0, 1e-6), TrendState(2.0, 1e-6)
    at_ns = 0
    for i, (dt_h, value) in enumerate(walk):
        at_ns += round(dt_h * H)
        if i == cut:
            stored = json.loads(json.dumps(part.state()))
            part = TrendState(2.0, 1e-6)
            part.restore(stored)
        assert part.feed(at_ns, value) == whole.feed(at_ns, value)
    assert part.state() == whole.state()


def test_a_number_that_nothing_measures_is_refused_and_the_filter_goes_on() -> None:
    trend = TrendState(2.0, 1e-6)
    assert [trend.feed(hour * H, 1e200) for hour in range(8)] == [None] * 8
    assert trend.feed(8 * H, 1.0) is False
    before = trend.state()
    assert trend.feed(9 * H, -1e61) is None
    assert trend.state() == before


def test_a_creep_of_one_mm_a_day_in_2_mm_of_noise_and_wrong_fixes_is_found_with_its_sd() -> None:
    noise = random.Random(7)
    trend = TrendState(2.0, 1e-6)
    for hour in range(24 * 20):
        wrong_fix = 60.0 if noise.random() < 0.01 else 0.0
        trend.feed(hour * H, hour / 24 + noise.gauss(0.0, 2.0) + wrong_fix)
    assert trend.is_known
    assert abs(24 * trend.rate_per_h - 1.0) < 3 * 24 * trend.rate_sd_per_h
    assert 24 * trend.rate_sd_per_h == pytest.approx(0.19, abs=0.02)  # steady state at q = 1e-6, hourly


def test_a_step_is_said_after_six_samples_and_leaves_the_rate_alone() -> None:
    noise = random.Random(3)
    trend = TrendState(2.0, 1e-6)
    for hour in range(200):
        assert trend.feed(hour * H, noise.gauss(0.0, 2.0)) is False
    before = trend.rate_per_h
    said = [trend.feed((200 + i) * H, 500.0 + noise.gauss(0.0, 2.0)) for i in range(10)]
    assert said == [False] * 5 + [True] + [False] * 4
    assert trend.level == pytest.approx(500.0, abs=5.0)
    assert abs(trend.rate_per_h - before) < 5 * trend.rate_sd_per_h


def test_a_rate_is_unknown_at_first_and_a_true_fast_movement_makes_itself_known_early() -> None:
    noise = random.Random(5)
    still, fast = TrendState(2.0, 1e-6), TrendState(2.0, 1e-6)
    assert not still.is_known
    known: list[tuple[bool, bool]] = []
    for hour in range(100):
        still.feed(hour * H, noise.gauss(0.0, 2.0))
        fast.feed(hour * H, 3.0 * hour + noise.gauss(0.0, 2.0))
        known.append((still.is_known, fast.is_known))
    assert [s for s, _ in known].index(True) > 24
    assert [f for _, f in known].index(True) < 12
    assert known[-1] == (True, True)


def test_the_earthquake_of_2011_is_said_on_the_sixth_day_at_every_station_it_moved() -> None:
    """Daily east and north of eight real stations; the noise from their own differences before the quake."""
    folder = real.data("gnss_japan_neu") / "dataset"
    quake = datetime(2011, 3, 11, tzinfo=UTC)
    moved, said, false_steps, years = 0, 0, 0, 0.0
    for path, component in product(sorted(folder.glob("*.csv")), ("lon", "lat")):
        with path.open() as file:
            rows = [
                (datetime.fromisoformat(f"{r['time']}T00:00Z"), float(r[component]))
                for r in csv.DictReader(file)
            ]
        before = [x for t, x in rows if t < quake]
        noise = 1.4826 * statistics.median(abs(b - a) for a, b in pairwise(before)) / 2**0.5
        trend = TrendState(noise, 1e-8)
        steps = [t for t, x in rows if trend.feed(round(t.timestamp()) * 10**9, x)]
        if abs(rows[len(before) + 1][1] - before[-1]) > 8 * noise:
            moved += 1
            said += datetime(2011, 3, 16, tzinfo=UTC) in steps
        false_steps += sum(t < quake for t in steps)
        years += len(before) / 365.25
    assert said == moved >= 10
    assert false_steps / years < 0.1
