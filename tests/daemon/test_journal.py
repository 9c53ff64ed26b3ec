"""What the journal is told, and what a file is."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from daemon.journal import handler

if TYPE_CHECKING:
    from pathlib import Path


def written(path: Path, *levels: int, redirected: bool = False) -> list[str]:
    """What a log of one message for each level leaves in a file, for which systemd named a stream."""
    with path.open("w") as stream:
        seen = os.fstat(stream.fileno())
        journal = f"{seen.st_dev}:{seen.st_ino + redirected}"
        to = handler(stream, journal)
        for level in levels:
            to.emit(
                logging.LogRecord("n", level, "f", 1, "line %s is down: %s", ("l", "gone\nfor now"), None)
            )
    return path.read_text().splitlines()


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_every_line_for_the_journal_has_its_priority(tmp_path: Path, level: int, priority: int) -> None:
    name = logging.getLevelName(level)
    assert written(tmp_path / "log", level) == [
        f"<{priority}>{name} line l is down: gone",
        f"<{priority}>for now",
    ]


def test_a_file_gets_stamps_instead_also_when_systemd_started_us(tmp_path: Path) -> None:
    first, second = written(tmp_path / "log", logging.ERROR, redirected=True)
    assert first[:2] == "20"
    assert first.endswith("ERROR line l is down: gone")
    assert second == "for now"
