"""Rain marks against hand-worked days, Caine's curve against its published figures, sums over restarts."""

from __future__ import annotations

import json
from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rules.law.levels import Level
from edge_rules.law.storm import HOURS, MARKS, GaugeSums, caine_mm, intense, reached

H = 3_600_000_000_000


def level(*mm_by_hour: float) -> Level:
    """The level after so much rain in each hour."""
    gauge = GaugeSums()
    sums = None
    for hour, mm in enumerate(mm_by_hour, 1):
        sums = gauge.feed(hour * H, mm)
    assert sums is not None
    marks = reached(sums)
    return marks[0].level if marks else Level.NONE


@pytest.mark.parametrize(
    ("rain", "expected"),
    [
        ([0.0], Level.NONE),
        ([29.9], Level.NONE),
        ([30.0], Level.YELLOW),  # 12 h 30 mm
        ([50.0], Level.ORANGE),  # 3 h 50 mm
        ([100.0], Level.RED),  # 3 h 100 mm
        ([25.0, 24.9], Level.YELLOW),
        ([10.0] * 5, Level.YELLOW),  # 6 h 50 mm
        ([55.0 / 24] * 24, Level.YELLOW),  # a rainstorm that no short signal sees
        ([49.0 / 24] * 24, Level.NONE),
        ([40.0, *[0.0] * 12], Level.NONE),
        ([40.0, *[0.0] * 10], Level.YELLOW),
    ],
)
def test_a_day_of_rain_is_the_highest_mark_it_reaches(rain: list[float], expected: Level) -> None:
    assert level(*rain) == expected


def test_every_mark_is_reached_exactly_at_its_depth() -> None:
    for mark in MARKS:
        just = dict.fromkeys(HOURS, 0.0) | {mark.hours: mark.mm}
        assert mark in reached(just)
        assert mark not in reached(just | {mark.hours: mark.mm - 0.1})


@given(
    st.fixed_dictionaries({h: st.floats(0, 300) for h in HOURS}),
    st.sampled_from(HOURS),
    st.floats(0, 100),
)
def test_more_rain_never_lowers_the_level(sums: dict[int, float], hours: int, more: float) -> None:
    def top(its: dict[int, float]) -> Level:
        return max((mark.level for mark in reached(its)), default=Level.NONE)

    assert top(sums | {hours: sums[hours] + more}) >= top(sums)


@pytest.mark.parametrize(("hours", "mm"), [(1, 14.82), (6, 44.2), (24, 103.0), (72, 201.0)])
def test_caines_curve_gives_the_depths_of_the_field(hours: int, mm: float) -> None:
    assert caine_mm(hours) == pytest.approx(mm, rel=5e-3)
    assert intense({hours: mm * 1.01}) == [hours]
    assert intense({hours: mm * 0.98}) == []


def test_missing_rain_ages_the_windows_and_is_never_taken_for_nothing() -> None:
    gauge = GaugeSums()
    gauge.feed(H, 60.0)
    assert gauge.feed(2 * H, nan) is None
    sums = gauge.feed(5 * H, 0.0)
    assert sums is not None
    assert (sums[3], sums[6]) == (0.0, 60.0)


def test_sums_continue_over_a_restart() -> None:
    gauge, again = GaugeSums(), GaugeSums()
    gauge.feed(H, 12.5)
    again.restore(json.loads(json.dumps(gauge.state())))
    assert again.feed(2 * H, 1.0) == gauge.feed(2 * H, 1.0)
