"""`make faults`: runs the fault tests and writes what they found to docs/fault-matrix.md.

Given arguments (`make faults ARGS="-m campaign tests/daemon/test_spool_kill.py"`) only the rows of the tests that ran are
renewed. Figures of campaigns say so and when, and stay until the campaign is run again. What stands on the page from
"## Long campaigns" on is written by hand, and kept.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bench.__main__ import machine

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = Path("docs/fault-matrix.md")
CAMPAIGN = "campaign of "
BY_HAND = "## Long campaigns"
HEAD = """# Fault matrix

What is done to the gateway, what must hold, and what was measured. Written by `make faults`, which runs the
tests named in the last column; each injects its fault into real parts: pseudo-terminals,
sockets, processes, files. {machine}, {date}.

| row | fault | injected | must hold | measured | test |
|---|---|---|---|---|---|
"""


class Collector:
    """Keeps what the tests say of themselves: rows of the table, each with the number of its fault."""

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
        if "campaign" in said:
            found = f"{CAMPAIGN}{datetime.now(UTC):%Y-%m-%d}: {found}"
        measured = {"passed": found, "failed": f"**FAILED** {found}", "skipped": "not here"}[report.outcome]
        file, _, name = report.nodeid.partition("::")
        cells = (said["row"], said["fault"], said["injected"], said["holds"], measured)
        row = " | ".join(str(cell).replace("|", "/") for cell in cells)
        test = f"`{Path(file).stem}`: {name.removeprefix('test_').replace('_', ' ')}"
        self.rows.append((int(str(said["row"])), f"| {row} | {test} |"))


def kept_rows(page: str, rows: list[tuple[int, str]], *, whole: bool) -> list[tuple[int, str]]:
    """Rows of the page whose tests did not run now: all of them, or after a `whole` run those of campaigns."""
    ran = {_test(text) for _, text in rows}
    old = [line for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    old = [line for line in old if _test(line) not in ran and (not whole or f"| {CAMPAIGN}" in line)]
    return [(int(line.split(" | ")[0].removeprefix("| ")), line) for line in old]


def _test(row: str) -> str:
    return row.rpartition(" | ")[2]


def page(rows: Iterable[tuple[int, str]], by_hand: str) -> str:
    table = "\n".join(text for _, text in sorted(rows, key=lambda row: row[0]))
    return HEAD.format(machine=machine(), date=f"{datetime.now(UTC):%Y-%m-%d}") + table + "\n" + by_hand


def main() -> int:
    collector = Collector()
    code = pytest.main(["-q", "-p", "no:cacheprovider", *(sys.argv[1:] or ["tests"])], [collector])
    old = PAGE.read_text() if PAGE.exists() else ""
    kept = f"\n{BY_HAND}{old.partition(BY_HAND)[2]}" if BY_HAND in old else ""
    rows = collector.rows + kept_rows(old, collector.rows, whole=not sys.argv[1:])
    PAGE.write_text(page(rows, kept))
    sys.stdout.write(f"{len(collector.rows)} of {len(rows)} rows in {PAGE} are new\n")
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main())
