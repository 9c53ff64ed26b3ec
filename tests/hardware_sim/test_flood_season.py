"""Ninety days of flood season in two and a half minutes: a file of its own, so that CI's workers share the scenarios."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.hardware_sim.scenarios import expected, outcome, tree_with

if TYPE_CHECKING:
    from pathlib import Path

SEASON = "flood-season"


@pytest.mark.timeout(300)
async def test_ninety_days_of_flood_season_end_with_their_alarms_and_no_other(
    tmp_path: Path, kernels: dict[str, str]
) -> None:
    assert await outcome(tmp_path, SEASON, kernels) == expected(SEASON)


@pytest.mark.campaign
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    "changes",
    [
        [('order = "ABCD"', 'order = "CDAB"')],
        [("at = 2002", "at = here"), ("at = 2004", "at = 2002"), ("at = here", "at = 2004")],
    ],
    ids=["word order", "addresses changed about"],
)
async def test_a_wrong_word_order_or_address_in_a_profile_fails_the_flood_season(
    tmp_path: Path, kernels: dict[str, str], changes: list[tuple[str, str]]
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "run").mkdir()
    wrong = tree_with(tmp_path / "tree", "vegapuls", *changes)
    assert await outcome(tmp_path / "run", SEASON, wrong | kernels) != expected(SEASON)
