"""Counters: wraps, restarts and nonsense, beside a bucket that knows how often it really tipped."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.counter import Counter
from drivers.sample import Quality


def steps(counter: Counter, *raws: float) -> list[tuple[int | None, Quality]]:
    return [counter.step(raw) for raw in raws]


def test_the_first_reading_has_nothing_before_it() -> None:
    assert steps(Counter(16, 50), 123, 123, 125) == [
        (None, Quality.MISSING_INPUT),
        (0, Quality.GOOD),
        (2, Quality.GOOD),
    ]


@pytest.mark.parametrize(("bits", "before"), [(16, 65530), (32, 4294967290)])
def test_a_wrap_is_ten_counts_and_no_reset(bits: int, before: int) -> None:
    counter = Counter(16 if bits == 16 else 32, 50)
    assert steps(counter, before, 4)[1] == (10, Quality.GOOD)


def test_a_fall_to_a_small_count_is_a_restart_and_counts_what_came_since() -> None:
    assert steps(Counter(32, 50), 1000, 3, 4)[1:] == [(3, Quality.COUNTER_RESET), (1, Quality.GOOD)]


def test_a_step_beyond_belief_yields_nothing() -> None:
    assert steps(Counter(32, 50), 1000, 1051)[1] == (None, Quality.COUNTER_STEP)
    assert steps(Counter(32, 50), 1000, 900)[1] == (None, Quality.COUNTER_STEP)


def test_one_count_too_high_in_between_costs_nothing() -> None:
    assert steps(Counter(32, 50), 1000, 5_000_000, 1002)[1:] == [
        (None, Quality.COUNTER_STEP),
        (2, Quality.GOOD),
    ]


def test_an_exchanged_gauge_costs_one_reading() -> None:
    assert steps(Counter(32, 50), 1000, 7000, 7003, 7004)[1:] == [
        (None, Quality.COUNTER_STEP),
        (3, Quality.GOOD),
        (1, Quality.GOOD),
    ]


@pytest.mark.parametrize("raw", [math.nan, math.inf, -1, 65536, 3.5])
def test_what_is_no_count_changes_nothing(raw: float) -> None:
    counter = Counter(16, 50)
    assert steps(counter, 100, raw, 101)[1:] == [(None, Quality.NOT_A_NUMBER), (1, Quality.GOOD)]


def test_a_step_of_half_the_width_could_not_be_told_from_a_fall() -> None:
    with pytest.raises(ValueError, match=r"within 1 \.\. 32767"):
        Counter(16, 32768)
    with pytest.raises(ValueError, match="max_step is 0"):
        Counter(32, 0)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(0, 2**16 - 1), st.integers(0, 60))
def test_a_bucket_is_counted_exactly_over_wraps_and_over_our_own_restarts(
    tips: list[int], start: int, restart_at: int
) -> None:
    counter, total = Counter(16, 50), start
    counter.step(total)
    gained = 0
    for i, tipped in enumerate(tips):
        if i == restart_at:
            state = counter.state()
            counter = Counter(16, 50)
            counter.restore(state)
        total += tipped
        delta, quality = counter.step(total % 2**16)
        assert quality == Quality.GOOD
        gained += delta or 0
    assert gained == sum(tips)


@given(st.lists(st.integers(0, 2**16 - 1), min_size=2, max_size=60))
def test_whatever_is_read_rain_is_never_negative_and_never_more_than_a_step(raws: list[int]) -> None:
    counter = Counter(16, 50)
    counter.step(raws[0])
    for before, raw in pairwise(raws):
        delta, quality = counter.step(raw)
        assert (delta is None) is quality.is_bad
        assert delta is None or 0 <= delta <= 50
        if delta is None:
            assert (raw - before) % 2**16 > 50
