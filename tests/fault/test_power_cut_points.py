"""Rows 5 and 6: a power cut at every single point of a migration, of a trim, of a pushing out.

The life, the disk and the oracle are those of tests/daemon/test_spool_power.py, which cuts at random; here no event
of the phase is left out, and each is met with none, some and all of what was not synced.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import apsw
import pytest

from daemon import store_file
from tests.daemon import test_spool_power as power

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Figure


def at_every_point(
    log: power.Log, folder: Path, phase: str, look: Callable[[power.Disk, Path], list[str]]
) -> tuple[str, list[str]]:
    """How much was looked at, and what was wrong."""
    found, states = [], 0
    for disk, state in power.states_of(log, folder, phase):
        states += 1
        found += look(disk, state)
    points = sum(map(len, log.phases[phase]))
    assert points > 2
    return f"all {points} points, {states} states", found


def schema(db: apsw.Connection) -> set[str]:
    return {str(sql) for (sql,) in db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}


def schemas() -> dict[int, set[str]]:
    """What each version of the schema is, made step by step from nothing."""
    found = {}
    with contextlib.closing(apsw.Connection(":memory:")) as db:
        for number, step in store_file.migrations().items():
            db.execute(step)
            found[number] = schema(db)
    return found


def whole_version(disk: power.Disk, folder: Path) -> list[str]:
    with contextlib.closing(apsw.Connection(str(folder / "spool.db"))) as db:
        version, found = int(db.pragma("user_version")), schema(db)
    if schemas().get(version) != found:
        return [f"calls itself version {version} and is {sorted(found)}"]
    return power.faults(disk, folder)


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> power.Log:
    return power.record(tmp_path / "live", monkeypatch)


@pytest.mark.fault(
    row=5,
    fault="power cut during the migration of the schema",
    injected="a cut at every write, sync and truncation of the first start on a store of schema 1, with none to all of the unsynced sectors",
    holds="one version of the schema, whole; every batch of before there, and the start after it goes through",
)
def test_a_power_cut_amid_a_migration_leaves_one_version_whole(
    tmp_path: Path, life: power.Log, figure: Figure
) -> None:
    looked, found = at_every_point(life, tmp_path, "migration", whole_version)
    assert found == []
    figure(f"{looked}: 0 of no version, 0 of {power.OLD} batches lost")


@pytest.mark.parametrize("phase", ["trim", "push out"])
@pytest.mark.fault(
    row=6,
    fault="power cut while batches are deleted: trimmed when receipted, pushed out for want of room",
    injected="a cut at every write, sync and truncation of it, with none to all of the unsynced sectors",
    holds="nothing trimmed comes back, no hole above, each loss with its gap record or not made",
)
def test_a_power_cut_amid_a_deletion_makes_no_hole_and_brings_nothing_back(
    tmp_path: Path, life: power.Log, phase: str, figure: Figure
) -> None:
    looked, found = at_every_point(life, tmp_path, phase, power.faults)
    assert found == []
    figure(f"{phase}: {looked}: 0 holes, 0 back again, 0 unannounced")
