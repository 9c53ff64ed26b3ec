"""Ninety days of flood season in three minutes: a file of its own, so that CI's workers share the scenarios."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from tests.hardware_sim.scenarios import expected, outcome, tree_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEASON = "flood-season"
pytestmark = pytest.mark.usefixtures("preferred")


@pytest.fixture
def preferred() -> Iterator[None]:
    """What a test starts goes before all else on the machine, where that is allowed (setpriority(2)).

    A second that others take from bench and daemon is twelve hours of the season.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, before - 10)
    yield
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, before)


@pytest.mark.timeout(300)
async def test_ninety_days_of_flood_season_end_with_their_alarms_and_no_other(
    tmp_path: Path, kernels: dict[str, str]
) -> None:
    assert await outcome(tmp_path, SEASON, kernels) == expected(SEASON)


@pytest.mark.campaign
@pytest.mark.timeout(0)
async def test_a_wrong_word_order_in_a_profile_fails_the_flood_season(
    tmp_path: Path, kernels: dict[str, str]
) -> None:
    """Two addresses changed about only the storm notices: here the alarms stayed those of the season."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "run").mkdir()
    wrong = tree_with(tmp_path / "tree", "vegapuls", ('order = "ABCD"', 'order = "CDAB"'))
    assert await outcome(tmp_path / "run", SEASON, wrong | kernels) != expected(SEASON)
