"""`make faults`: runs the fault tests and writes what they found to docs/fault-matrix.md.

What stands there from "## Long campaigns" on is written by hand after such a run, and kept.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bench.__main__ import machine

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = Path("docs/fault-matrix.md")
BY_HAND = "## Long campaigns"
HEAD = """# Fault matrix

What is done to the gateway, what must hold, and what was measured. Written by `make faults`, which runs the
tests named in the last column; each injects its fault into real parts: pseudo-terminals,
sockets, processes, files. {machine}, {date}.

| row | fault | injected | must hold | measured | test |
|---|---|---|---|---|---|
"""


class Collector:
    """Keeps what the tests say of themselves."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str]] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item], config: pytest.Config) -> None:
        """Only tests that name their row, wherever they stand."""
        others = [item for item in items if item.get_closest_marker("fault") is None]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item.get_closest_marker("fault") is not None]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = dict(report.user_properties)
        if report.when != "call" or "row" not in said:
            return
        found = "; ".join(str(text) for key, text in report.user_properties if key == "figure")
        measured = {"passed": found, "failed": f"**FAILED** {found}", "skipped": "not here"}[report.outcome]
        file, _, name = report.nodeid.partition("::")
        cells = (said["row"], said["fault"], said["injected"], said["holds"], measured)
        row = " | ".join(str(cell).replace("|", "/") for cell in cells)
        test = f"`{Path(file).stem}`: {name.removeprefix('test_').replace('_', ' ')}"
        self.rows.append((int(str(said["row"])), f"| {row} | {test} |"))


def page(rows: Iterable[tuple[int, str]], by_hand: str) -> str:
    table = "\n".join(text for _, text in sorted(rows, key=lambda row: row[0]))
    return HEAD.format(machine=machine(), date=f"{datetime.now(UTC):%Y-%m-%d}") + table + "\n" + by_hand


def main() -> int:
    collector = Collector()
    code = pytest.main(["-q", "-p", "no:cacheprovider", *(sys.argv[1:] or ["tests"])], [collector])
    old = PAGE.read_text() if PAGE.exists() else ""
    kept = f"\n{BY_HAND}{old.partition(BY_HAND)[2]}" if BY_HAND in old else ""
    PAGE.write_text(page(collector.rows, kept))
    sys.stdout.write(f"{len(collector.rows)} rows in {PAGE}\n")
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main())
