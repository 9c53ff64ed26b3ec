"""Every shipped scenario ends with its expected alarms at the platform, and with no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hardware_sim.scenario import Scenario, shipped
from tests.hardware_sim.scenarios import expected, outcome, tree_with

if TYPE_CHECKING:
    from pathlib import Path

LONG = "flood-season"
pytestmark = pytest.mark.timeout(300)


def test_every_scenario_says_what_to_expect_in_both_languages() -> None:
    for scenario in map(Scenario.load, shipped()):
        assert scenario.expect is not None
        assert scenario.expect.speed > 1.0
        assert scenario.title_zh


@pytest.mark.parametrize("name", [name for name in shipped() if name != LONG])
async def test_a_scenario_ends_with_its_alarms_and_no_other(tmp_path: Path, name: str) -> None:
    assert await outcome(tmp_path, name) == expected(name)


@pytest.mark.campaign
@pytest.mark.timeout(0)
async def test_ninety_days_of_flood_season_end_with_their_alarms_and_no_other(tmp_path: Path) -> None:
    assert await outcome(tmp_path, LONG) == expected(LONG)


@pytest.mark.parametrize(
    "changes",
    [
        [('order = "ABCD"', 'order = "CDAB"')],
        [("at = 2002", "at = here"), ("at = 2004", "at = 2002"), ("at = here", "at = 2004")],
    ],
    ids=["word order", "addresses changed about"],
)
async def test_a_wrong_word_order_or_address_in_a_profile_fails_the_storm(
    tmp_path: Path, changes: list[tuple[str, str]]
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "run").mkdir()
    seen = await outcome(tmp_path / "run", "storm", tree_with(tmp_path / "tree", "vegapuls", *changes))
    assert seen != expected("storm")
    assert seen["channel:n.pz01.elevation"] == "orange"  # the rest of the site is as it was
