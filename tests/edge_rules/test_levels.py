from __future__ import annotations

import json
from dataclasses import replace
from math import nan, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.binder import Problem, bind
from edge_rules.law.levels import ChannelJudge, FactorOf, Level, LevelJudge, Levels, LowLimits
from tests import naive

S = 1_000_000_000
LIMITS = Levels(
    rising=True, blue=84.0, yellow=85.0, orange=86.0, red=87.0, hysteresis=0.2, source="design report"
)
HELD = replace(LIMITS, hold_s=60.0)


def levels_after(levels: Levels, *samples: tuple[float, float] | tuple[float, float, bool]) -> list[Level]:
    """The level after each (seconds, value[, certain])."""
    judge = LevelJudge(levels)
    after = []
    for at_s, value, *certain in samples:
        judge.judge(round(at_s * S), value, all(certain))
        after.append(judge.level)
    return after


def test_a_value_on_its_limit_is_the_last_one_allowed() -> None:
    assert levels_after(LIMITS, (0, 85.0), (1, 85.0000001)) == [Level.BLUE, Level.YELLOW]


def test_without_hold_red_is_raised_on_the_first_sample_beyond_it() -> None:
    judge = LevelJudge(LIMITS)
    transition = judge.judge(5 * S, 90.0, certain=True)
    assert transition is not None
    assert (transition.was, transition.level, transition.limit) == (Level.NONE, Level.RED, 87.0)
    assert (transition.time_ns, transition.since_ns, transition.value) == (5 * S, 5 * S, 90.0)
    assert not transition.unverified


def test_a_level_is_raised_by_the_sample_that_completes_the_hold_and_names_when_it_began() -> None:
    judge = LevelJudge(HELD)
    assert judge.judge(0, 84.5, certain=True) is None
    assert judge.judge(59 * S, 84.5, certain=True) is None
    transition = judge.judge(60 * S, 84.6, certain=True)
    assert transition is not None
    assert (transition.level, transition.since_ns, transition.time_ns) == (Level.BLUE, 0, 60 * S)


def test_a_value_wavering_between_yellow_and_orange_completes_the_hold_of_yellow() -> None:
    wavering = [(at, 86.5 if at // 10 % 2 else 85.5) for at in range(0, 70, 10)]
    assert levels_after(HELD, *wavering)[-1] == Level.YELLOW


def test_a_dip_below_the_limit_starts_the_hold_anew() -> None:
    assert levels_after(HELD, (0, 84.5), (40, 83.0), (60, 84.5), (119, 84.5), (120, 84.5)) == [
        Level.NONE,
        Level.NONE,
        Level.NONE,
        Level.NONE,
        Level.BLUE,
    ]


def test_a_level_clears_only_inside_the_hysteresis_and_after_the_hold() -> None:
    up = ((0, 84.5), (60, 84.5))
    assert levels_after(HELD, *up, (100, 83.9), (200, 83.9))[-1] == Level.BLUE
    assert levels_after(HELD, *up, (100, 83.8), (159, 83.8))[-1] == Level.BLUE
    assert levels_after(HELD, *up, (100, 83.8), (160, 83.8))[-1] == Level.NONE


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_calm_band_ends_where_a_value_begins_to_raise_or_to_clear(sign: float) -> None:
    judge = LevelJudge(Levels(sign > 0, blue=sign * 1.0, yellow=sign * 2.0, hysteresis=0.25, source="d"))
    assert judge.judge(0, sign * 1.5, certain=True) is not None
    edges = sorted((sign * nextafter(0.75, 1.0), sign * 2.0))
    assert [judge.calm_low, judge.calm_high] == edges
    assert judge.judge(1, sign * nextafter(0.75, 1.0), certain=True) is None
    assert judge.judge(2, sign * 2.0, certain=True) is None
    assert judge.judge(3, sign * 0.75, certain=True) is not None


def test_a_falling_channel_is_the_mirror_of_a_rising_one() -> None:
    beach = Levels(rising=False, blue=120.0, yellow=100.0, red=70.0, hysteresis=5.0, source="d")
    assert beach.problems() == []
    assert levels_after(beach, (0, 120.0), (1, 119.0), (2, 69.0), (3, 74.0), (4, 75.0), (5, 126.0)) == [
        Level.NONE,
        Level.BLUE,
        Level.RED,
        Level.RED,
        Level.YELLOW,
        Level.NONE,
    ]


def test_a_level_without_a_limit_is_never_reported() -> None:
    only = Levels(rising=True, yellow=10.0, red=20.0, source="d")
    assert levels_after(only, (0, 5.0), (1, 11.0), (2, 25.0), (3, 15.0), (4, 5.0)) == [
        Level.NONE,
        Level.YELLOW,
        Level.RED,
        Level.YELLOW,
        Level.NONE,
    ]


def test_a_missing_value_neither_counts_nor_resets_nor_clears() -> None:
    assert levels_after(HELD, (0, 88.0), (30, nan), (60, 88.0), (200, nan), (400, nan)) == [
        Level.NONE,
        Level.NONE,
        Level.RED,
        Level.RED,
        Level.RED,
    ]
    assert levels_after(HELD, (0, 88.0), (60, nan)) == [Level.NONE, Level.NONE]


def test_an_uncertain_value_raises_unverified_and_never_clears() -> None:
    judge = LevelJudge(HELD)
    judge.judge(0, 88.0, certain=False)
    assert judge.judge(30 * S, 80.0, certain=False) is None, "an uncertain low value breaks no run"
    raised = judge.judge(60 * S, 88.0, certain=False)
    assert raised is not None
    assert raised.unverified
    for at_s in range(100, 1000, 100):
        assert judge.judge(at_s * S, 80.0, certain=False) is None
    assert judge.level == Level.RED
    judge.judge(1000 * S, 80.0, certain=True)
    cleared = judge.judge(1060 * S, 80.0, certain=True)
    assert cleared is not None
    assert (cleared.was, cleared.level, cleared.limit) == (Level.RED, Level.NONE, 87.0)
    assert not cleared.unverified


def test_a_clock_that_steps_back_ten_years_does_not_silence_a_level() -> None:
    decade = 10 * 365 * 86400
    assert levels_after(HELD, (decade, 80.0), (0, 88.0), (60, 88.0))[-1] == Level.RED
    assert levels_after(HELD, (decade, 88.0), (0, 88.0), (60, 88.0))[-1] == Level.RED


def test_a_repeated_sample_adds_no_time_to_a_hold() -> None:
    assert levels_after(HELD, *[(0, 88.0)] * 100)[-1] == Level.NONE


def test_new_limits_keep_the_level_held_until_a_value_clears_it() -> None:
    judge = LevelJudge(LIMITS)
    judge.judge(0, 90.0, certain=True)
    relaxed = LevelJudge(replace(LIMITS, orange=None, red=None))
    relaxed.restore(judge.state())
    assert relaxed.level == Level.RED
    assert relaxed.judge(S, nan, certain=True) is None
    cleared = relaxed.judge(2 * S, 85.5, certain=True)
    assert cleared is not None
    assert cleared.level == Level.YELLOW


def test_a_foreign_state_is_refused() -> None:
    with pytest.raises(ValueError, match="not the state"):
        LevelJudge(LIMITS).restore([1, 2, 3])


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        (Levels(rising=True, source="d"), "no limit"),
        (Levels(rising=True, blue=2.0, yellow=1.0, source="d"), "must lie beyond blue"),
        (Levels(rising=False, blue=1.0, red=2.0, source="d"), "must lie beyond blue"),
        (Levels(rising=True, blue=1.0, hysteresis=-1.0, source="d"), "negative"),
        (Levels(rising=True, blue=1.0, yellow=2.0, hysteresis=1.0, source="d"), "smaller than the distance"),
        (Levels(rising=True, blue=1.0, source=" "), "source is empty"),
    ],
)
def test_limits_that_cannot_be_right_are_said(levels: Levels, words: str) -> None:
    (problem,) = levels.problems()
    assert words in problem


def test_the_site_file_binds_to_levels() -> None:
    problems: list[Problem] = []
    table = {"rising": True, "blue": 84, "hysteresis": 0.2, "hold": "20 min", "source": "r"}
    levels = bind(Levels, table, "levels", problems)
    assert problems == []
    assert levels == Levels(rising=True, blue=84.0, hysteresis=0.2, hold_s=1200.0, source="r")


samples = st.lists(
    st.tuples(
        st.sampled_from([-40, 0, 1, 10, 10, 10, 30, 61]),
        st.integers(-3, 3),
        st.sampled_from([True, True, True, False]),
        st.sampled_from([False, False, False, False, True]),
    ),
    max_size=60,
)


@given(
    samples,
    st.booleans(),
    st.sets(st.sampled_from([1, 2, 3, 4]), min_size=1),
    st.sampled_from([0.0, 0.5, 0.3]),
    st.sampled_from([0, 25, 60]),
)
def test_the_judge_and_its_calm_band_agree_with_the_slow_twin_on_random_walks(
    walk: list[tuple[int, int, bool, bool]],
    rising: bool,
    given_levels: set[int],
    hysteresis: float,
    hold_s: int,
) -> None:
    sign = 1.0 if rising else -1.0
    limits = {k: sign * float(k) for k in sorted(given_levels)}
    settings = Levels(
        rising,
        blue=limits.get(1),
        yellow=limits.get(2),
        orange=limits.get(3),
        red=limits.get(4),
        hysteresis=hysteresis,
        hold_s=hold_s,
    )
    twin = naive.LevelTwin(rising, limits, hysteresis, hold_s * S)
    full, quick = LevelJudge(settings), LevelJudge(settings)
    at_s, value = 1_000_000, 0.0
    for dt_s, dv, certain, missing in walk:
        at_s += dt_s
        value += dv / 2.0
        shown = nan if missing else sign * value
        expected = twin.judge(at_s * S, shown, certain)
        transition = full.judge(at_s * S, shown, certain)
        calm = certain and quick.calm_low <= shown <= quick.calm_high
        quickly = None if calm else quick.judge(at_s * S, shown, certain)
        assert quickly == transition
        assert quick.state()[2:] == full.state()[2:]
        assert full.level == quick.level == twin.level
        if transition is None:
            assert expected is None
            continue
        assert expected == (transition.was, transition.level, transition.since_ns, transition.unverified)
        assert transition.limit == limits[max(transition.was, transition.level)]


@given(samples, st.integers(0, 60))
def test_a_judge_restored_from_json_continues_to_the_last_bit(
    walk: list[tuple[int, int, bool, bool]], cut: int
) -> None:
    whole, before, after = LevelJudge(HELD), LevelJudge(HELD), LevelJudge(HELD)
    at_s, value = 1_000_000, 85.0
    for i, (dt_s, dv, certain, missing) in enumerate(walk):
        at_s += dt_s
        value += dv / 2.0
        if i == cut:
            after.restore(json.loads(json.dumps(before.state())))
            before = after
        shown = nan if missing else value
        assert before.judge(at_s * S, shown, certain) == whole.judge(at_s * S, shown, certain)
    assert before.state() == whole.state()


# -- two sides, and red that stays ---------------------------------------------------------------------

TOE = Levels(
    rising=True, blue=1.0, yellow=2.0, orange=3.0, red=4.0, hysteresis=0.1, source="d",
    low=LowLimits(blue=-2.0, yellow=-4.0, orange=-6.0, red=-8.0),
)  # fmt: skip


def of_channel(levels: Levels, *samples: tuple[float, float]) -> list[Level]:
    judge = ChannelJudge(levels)
    after = []
    for at_s, value in samples:
        judge.judge(round(at_s * S), value, certain=True)
        after.append(judge.level)
    return after


def test_a_toe_that_heaves_and_one_that_settles_are_both_seen() -> None:
    assert TOE.problems() == []
    assert of_channel(TOE, (0, 0.5), (1, 2.5), (2, 0.0), (3, -4.5), (4, -1.0), (5, -7.0)) == [
        Level.NONE,
        Level.YELLOW,
        Level.NONE,
        Level.YELLOW,
        Level.NONE,
        Level.ORANGE,
    ]


def test_a_leap_from_one_side_to_the_other_is_one_transition_with_the_limit_it_passed() -> None:
    judge = ChannelJudge(TOE)
    judge.judge(0, 2.5, certain=True)
    leap = judge.judge(S, -6.5, certain=True)
    assert leap is not None
    assert (leap.was, leap.level, leap.limit) == (Level.YELLOW, Level.ORANGE, -6.0)
    assert judge.limit(judge.level) == -6.0


@given(st.lists(st.tuples(st.floats(-9, 9), st.booleans()), max_size=40), st.sampled_from([0.0, 2.0]))
def test_two_sides_are_the_higher_of_two_judges_and_the_calm_band_hides_nothing(
    walk: list[tuple[float, bool]], hold_s: float
) -> None:
    levels = replace(TOE, hold_s=hold_s)
    high, low = (LevelJudge(side) for side in levels.sides())
    full, quick = ChannelJudge(levels), ChannelJudge(levels)
    worst = Level.NONE
    for at_s, (value, certain) in enumerate(walk):
        high.judge(at_s * S, value, certain)
        low.judge(at_s * S, value, certain)
        was = full.level
        moved = full.judge(at_s * S, value, certain)
        if not (certain and quick.calm_low <= value <= quick.calm_high):
            assert quick.judge(at_s * S, value, certain) == moved
        worst = max(worst, high.level, low.level)
        assert full.measured == max(high.level, low.level)
        assert full.level == quick.level == (Level.RED if worst == Level.RED else full.measured)
        assert (moved is None) == (full.level == was)
        if moved is not None:
            assert (moved.was, moved.level) == (was, full.level)
            side = levels if value > 0 else low._levels
            assert moved.level < was or moved.limit == side.limit(moved.level)


def test_red_stays_until_it_is_released_however_low_the_value_falls() -> None:
    judge = ChannelJudge(LIMITS)
    judge.judge(0, 90.0, certain=True)
    for at_s in range(1, 100):
        assert judge.judge(at_s * S, 80.0, certain=True) is None
    assert (judge.level, judge.measured, judge.latched) == (Level.RED, Level.NONE, True)
    assert judge.certain_ns == 99 * S
    fall = judge.release(100 * S, 80.0)
    assert fall is not None
    assert (fall.was, fall.level) == (Level.RED, Level.NONE)
    assert judge.level == Level.NONE
    assert judge.calm_low <= 80.0 <= judge.calm_high


def test_red_that_is_still_measured_cannot_be_released() -> None:
    judge = ChannelJudge(LIMITS)
    judge.judge(0, 90.0, certain=True)
    assert judge.release(S, 90.0) is None
    judge.judge(S, 80.0, certain=False)
    assert judge.release(S, 80.0) is None, "an uncertain value is no re-measurement"
    assert judge.certain_ns == 0
    judge.judge(2 * S, 85.5, certain=True)
    fall = judge.release(3 * S, 85.5)
    assert fall is not None
    assert fall.level == Level.YELLOW


def test_the_latch_outlives_a_restart_new_limits_and_a_side_that_was_taken_away() -> None:
    judge = ChannelJudge(TOE)
    judge.judge(0, -9.0, certain=True)
    judge.judge(S, 0.0, certain=True)
    again = ChannelJudge(replace(TOE, red=None, low=None))
    again.restore(json.loads(json.dumps(judge.state())))
    assert (again.level, again.latched, again.certain_ns) == (Level.RED, True, S)
    held = ChannelJudge(TOE)
    held.judge(0, -7.0, certain=True)
    held.arm(replace(TOE, low=None))
    levels = [held.level]
    held.judge(S, 0.0, certain=True)
    assert [*levels, held.level] == [Level.ORANGE, Level.NONE]


def test_the_state_of_a_version_without_sides_is_taken_up() -> None:
    old = LevelJudge(LIMITS)
    old.judge(0, 85.5, certain=True)
    judge = ChannelJudge(LIMITS)
    judge.restore(json.loads(json.dumps(old.state())))
    assert (judge.level, judge.latched) == (Level.YELLOW, False)


def test_a_persons_reading_is_taken_at_once_and_clears() -> None:
    judge = ChannelJudge(HELD)
    judge.judge(0, 85.5, certain=True)
    judge.judge(60 * S, 85.5, certain=True)
    fall = judge.set_to(61 * S, 84.5)
    assert fall is not None
    assert (fall.was, fall.level, fall.limit) == (Level.YELLOW, Level.BLUE, 85.0)
    up = judge.set_to(62 * S, 90.0)
    assert up is not None
    assert (up.level, up.limit) == (Level.RED, 87.0)
    assert judge.set_to(63 * S, 80.0) is None, "red waits for its release"
    with pytest.raises(ValueError, match="must be a number"):
        judge.set_to(64 * S, nan)


# -- limits as the standards give them -----------------------------------------------------------------

DEPTH = FactorOf(8.0, "control depth, section 2-2", "GB 51108-2015 8.3.4", orange=1.1, red=1.0)


def test_limits_can_be_factors_of_the_designers_value() -> None:
    levels = Levels(rising=False, blue=10.0, source="d", factor_of=DEPTH)
    assert levels.problems() == []
    assert levels.limit(Level.ORANGE) == pytest.approx(8.8)
    assert of_channel(levels, (0, 9.0), (1, 8.7), (2, 7.9)) == [Level.BLUE, Level.ORANGE, Level.RED]


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        (Levels(rising=False, red=8.0, source="d", factor_of=DEPTH), "given twice"),
        (Levels(rising=True, source="d", factor_of=DEPTH), "must lie beyond orange"),
        (Levels(rising=False, source="d", factor_of=replace(DEPTH, clause="")), "which clause"),
        (replace(TOE, rising=False, blue=4.0, yellow=3.0, orange=2.0, red=1.0), "low goes with rising"),
        (replace(TOE, low=LowLimits()), "low names no limit"),
        (replace(TOE, low=LowLimits(blue=-2.0, yellow=-1.0)), "low yellow -1.0 must lie beyond blue -2.0"),
        (replace(TOE, low=LowLimits(blue=0.9)), "must lie below blue 1 by more"),
    ],
)
def test_two_sides_and_factors_that_cannot_be_right_are_said(levels: Levels, words: str) -> None:
    assert any(words in problem for problem in levels.problems())


def test_neighbours_within_three_times_the_uncertainty_are_named() -> None:
    narrow = Levels(rising=False, source="d", factor_of=replace(DEPTH, value=2.0))
    assert narrow.close_neighbours(0.05) == []
    (warning,) = narrow.close_neighbours(0.07)
    assert warning == "orange 2.2 and red 2 lie within three times the uncertainty, 0.07"
    assert len(TOE.close_neighbours(0.7)) == 6


def test_the_site_file_binds_to_both_sides_and_factors() -> None:
    problems: list[Problem] = []
    table = {
        "rising": True, "blue": 1, "source": "r", "approver": "w", "low": {"red": -8},
        "factor_of": {"value": 4, "what": "w", "clause": "c", "red": 1},
    }  # fmt: skip
    levels = bind(Levels, table, "levels", problems)
    assert problems == []
    assert levels is not None
    high, low = levels.sides()
    assert (high.blue, high.red, high.rising) == (1.0, 4.0, True)
    assert (low.blue, low.red, low.rising, low.approver) == (None, -8.0, False, "w")
