"""Dated limits: which holds, which is the best there is, how long the run of limits lasts."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from daemon.binder import Problem, bind
from edge_rules.law.levels import Levels, LowLimits
from edge_rules.law.water import OperatingLimit, covered_until, in_force

LEVELS = Levels(rising=True, orange=86.5, red=87.5, source="plan")


def limit(first: str, until: str, kind: str = "normal") -> OperatingLimit:
    problems: list[Problem] = []
    table = {
        "kind": kind,
        "from": first,
        "until": until,
        "levels": {"rising": True, "orange": 86.5, "red": 87.5, "source": "plan"},
    }
    bound = bind(OperatingLimit, table, "limit", problems)
    assert bound is not None, problems
    return bound


WINTER = limit("2026-01-01", "2026-05-31")
FLOOD = limit("2026-06-01", "2026-09-30", "flood-season")
AUTUMN = limit("2026-10-01", "2026-12-31")
YEAR = [FLOOD, WINTER, AUTUMN]


@pytest.mark.parametrize(
    ("day", "expected", "valid"),
    [
        ("2025-12-31", WINTER, False),
        ("2026-01-01", WINTER, True),
        ("2026-05-31", WINTER, True),
        ("2026-06-01", FLOOD, True),
        ("2026-12-31", AUTUMN, True),
        ("2027-01-01", AUTUMN, False),
    ],
)
def test_each_day_has_its_limit_and_the_last_stays_when_all_have_run_out(
    day: str, expected: OperatingLimit, valid: bool
) -> None:
    found = in_force(YEAR, date.fromisoformat(day))
    assert (found.limit, found.is_valid) == (expected, valid)


def test_of_two_that_hold_the_one_that_began_last_counts() -> None:
    lowered = limit("2026-07-10", "2026-07-20", "flood-season")
    assert in_force([*YEAR, lowered], date(2026, 7, 15)).limit is lowered
    assert in_force([*YEAR, lowered], date(2026, 7, 21)).limit is FLOOD


def test_the_run_of_limits_ends_at_its_first_gap() -> None:
    assert covered_until(YEAR, date(2026, 3, 1)) == date(2026, 12, 31)
    assert covered_until([WINTER, AUTUMN], date(2026, 3, 1)) == date(2026, 5, 31)
    assert covered_until([WINTER], date(2026, 6, 1)) is None
    assert covered_until([limit("2026-01-01", "9999-12-31")], date(2026, 3, 1)) == date.max


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"until": date(2026, 1, 1), "first": date(2026, 1, 2)}, "lies before"),
        ({"levels": replace(LEVELS, rising=False, orange=88.0)}, "rising = true"),
        ({"levels": replace(LEVELS, low=LowLimits(blue=1.0))}, "without low"),
        ({"design_flood_m": 87.0}, "red 87.5 lies above the design flood"),
        ({"levels": replace(LEVELS, source="")}, "source is empty"),
    ],
)
def test_limits_that_cannot_be_right_are_said(changed: dict[str, object], words: str) -> None:
    assert any(words in problem for problem in replace(WINTER, **changed).problems())  # type: ignore[arg-type]


def test_a_date_that_is_none_is_named() -> None:
    problems: list[Problem] = []
    bind(OperatingLimit, {"kind": "normal", "from": "1.6.2026"}, "limit", problems)
    assert any("is no date, as in '2026-06-01'" in str(problem) for problem in problems)
