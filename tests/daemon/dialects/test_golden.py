"""Every example of every dialect, see the kit in `__init__.py`."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from daemon.clock import Clock
from daemon.config import UplinkTable
from daemon.uplink import dialects
from daemon.uplink.tables import DIALECTS
from tests.daemon.dialects import GOLDEN, batches, shown, whole

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.config import File

EXAMPLES = sorted(path.parent for path in GOLDEN.glob("*/*/site.toml"))


def site(folder: Path) -> File:
    return whole(tomllib.loads((folder / "site.toml").read_text()))


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: f"{folder.parent.name}: {folder.name}")
def test_what_goes_in_comes_out_as_written_down(folder: Path) -> None:
    file = site(folder)
    (table,) = file.uplinks
    assert not isinstance(table, UplinkTable)
    dialect = dialects.build(table, file, Clock())
    lines = (folder / "batches.jsonl").read_text().splitlines()
    assert shown(dialect.encode(batches(lines))) == (folder / "parcels.txt").read_text()


def test_every_dialect_has_an_example() -> None:
    assert {folder.parent.name for folder in EXAMPLES} == set(DIALECTS)
