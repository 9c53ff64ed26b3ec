"""Every shipped scenario ends with its expected alarms at the platform, and with no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hardware_sim.scenario import Scenario, shipped
from tests.hardware_sim.scenarios import expected, outcome, tree_with

if TYPE_CHECKING:
    from pathlib import Path

LONG = "flood-season"  # has a file of its own
pytestmark = pytest.mark.timeout(300)


def test_every_scenario_says_what_to_expect_in_both_languages() -> None:
    for scenario in map(Scenario.load, shipped()):
        assert scenario.expect is not None
        assert scenario.expect.speed > 1.0
        assert scenario.title_zh


@pytest.mark.parametrize("name", [name for name in shipped() if name != LONG])
async def test_a_scenario_ends_with_its_alarms_and_no_other(
    tmp_path: Path, kernels: dict[str, str], name: str
) -> None:
    assert await outcome(tmp_path, name, kernels) == expected(name)


@pytest.mark.parametrize(
    "changes",
    [
        [('order = "ABCD"', 'order = "CDAB"')],
        [("at = 2002", "at = here"), ("at = 2004", "at = 2002"), ("at = here", "at = 2004")],
    ],
    ids=["word order", "addresses changed about"],
)
async def test_a_wrong_word_order_or_address_in_a_profile_fails_the_storm(
    tmp_path: Path, kernels: dict[str, str], changes: list[tuple[str, str]]
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "run").mkdir()
    wrong = tree_with(tmp_path / "tree", "vegapuls", *changes)
    seen = await outcome(tmp_path / "run", "storm", wrong | kernels)
    assert seen != expected("storm")
    assert seen["channel:n.pz01.elevation"] == "orange"  # the rest of the site is as it was
