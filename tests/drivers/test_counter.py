"""Counters: wraps, restarts and nonsense, beside a bucket that knows how often it really tipped."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.counter import Counter, CounterState
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


EVERY_NS = 60_000_000_000


def after_polls(
    polls: int, before: int, after: int, bits: Literal[16, 32] = 16
) -> tuple[int | None, Quality]:
    """What a count is worth so many periods after the one before, of which at most 50 counts each are believed."""
    counter = Counter(bits, 50, EVERY_NS)
    counter.step(before, 0)
    return counter.step(after, polls * EVERY_NS)


def test_what_fell_while_the_line_was_down_is_not_lost() -> None:
    assert after_polls(60, 1000, 4000) == (3000, Quality.GOOD)
    assert after_polls(60, 1000, 4001) == (None, Quality.COUNTER_STEP)
    assert after_polls(0, 1000, 1051) == (None, Quality.COUNTER_STEP)
    assert after_polls(-5, 1000, 1051) == (None, Quality.COUNTER_STEP), "a clock that stepped back"


def test_a_reset_while_the_line_was_down_is_never_taken_for_a_wrap() -> None:
    """Modulo the width 64000 to 3 are 1539 counts, which 60 polls could have brought: 300 mm of no rain."""
    assert after_polls(60, 64000, 3) == (3, Quality.COUNTER_RESET)
    assert after_polls(60, 64000, 60) == (None, Quality.COUNTER_STEP)
    assert after_polls(60, 65535, 0) == (1, Quality.GOOD)


def test_no_outage_makes_half_the_width_believable() -> None:
    assert after_polls(10**6, 1, 32768) == (32767, Quality.GOOD)
    assert after_polls(10**6, 1, 32769) == (None, Quality.COUNTER_STEP)
    assert after_polls(10**6, 40000, 39000) == (None, Quality.COUNTER_STEP)


def test_how_long_the_gap_was_outlives_our_own_restart_and_a_state_of_before_says_nothing_of_it() -> None:
    counter, again = Counter(16, 50, EVERY_NS), Counter(16, 50, EVERY_NS)
    counter.step(1000, 0)
    again.restore(counter.state())
    assert again.step(1400, 10 * EVERY_NS) == (400, Quality.GOOD)
    again.restore(CounterState(*(1000, None)))
    assert again.step(1400, 10 * EVERY_NS) == (None, Quality.COUNTER_STEP)


@pytest.mark.parametrize(
    ("before", "after", "gained"), [(65535, 0, 1), (0, 0, 0), (65486, 0, 50), (65535, 49, 50)]
)
def test_a_wrap_at_exactly_the_modulus(before: int, after: int, gained: int) -> None:
    assert steps(Counter(16, 50), before, after)[1] == (gained, Quality.GOOD)


def test_a_technicians_base_value_is_one_step_and_power_that_fails_is_a_reset() -> None:
    """Register 7 of a SEN0575 sets the count to whatever he writes; without power it begins at nothing."""
    assert steps(Counter(32, 50), 1000, 500, 501)[1:] == [(None, Quality.COUNTER_STEP), (1, Quality.GOOD)]
    assert steps(Counter(32, 50), 1000, 0, 1)[1:] == [(0, Quality.COUNTER_RESET), (1, Quality.GOOD)]
    assert steps(Counter(32, 50), 4294967290, 0)[1] == (6, Quality.GOOD), "which no one can tell from a wrap"


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
