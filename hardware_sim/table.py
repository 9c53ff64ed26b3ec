"""History from a CSV file plays through an instrument: a Modbus TCP logger whose registers are its columns.

Either one column per quantity, `time,NAME,NAME,...`, or one row per value, `time,channel,value`; times are
RFC 3339 or seconds and rise. The row in force is the last whose time, counted from the first row's, has
passed on the bench. An empty field is no value: NaN on the wire.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import nan
from typing import TYPE_CHECKING, Final

from hardware_sim.instruments.registers import TableLogger
from hardware_sim.wires import ModbusTcpWire

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hardware_sim.clock import BenchClock

UNIT: Final = 1
_MOST_COLUMNS: Final = 62  # two registers each, 125 in a request
_MOST_ROWS: Final = 1_000_000
_LONG: Final = ["time", "channel", "value"]


class TableWrong(ValueError):
    """The file holds no table that can be played; the message names file and row."""


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` of one value per column, `times_s` beside them."""

    columns: Sequence[str]
    times_s: Sequence[float]
    rows: Sequence[Sequence[float]]


def read(path: Path) -> Table:
    """The table of a CSV file.

    Raises:
        TableWrong: no time column, too much of it, a field that is no number, times that do not rise.
        OSError: the file cannot be read.
    """
    instants: dict[float, dict[str, float]] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        head = next(lines, [])
        if head[:1] != ["time"] or len(head) == 1:
            raise TableWrong(f"{path}: the first line must be time,NAME,... or {','.join(_LONG)}")
        for number, line in enumerate(lines, 2):
            try:
                named = [line[1:]] if head == _LONG else zip(head[1:], line[1:], strict=True)
                values = {name: _number(text) for name, text in named}
                instants.setdefault(_seconds(line[0]), {}).update(values)
            except (ValueError, IndexError) as error:
                raise TableWrong(f"{path}:{number}: {error}") from None
            if len(instants) > _MOST_ROWS:
                raise TableWrong(f"{path}:{number}: at most {_MOST_ROWS} instants can be played")
    columns = list(dict.fromkeys(name for values in instants.values() for name in values))
    if not 0 < len(columns) <= _MOST_COLUMNS:
        raise TableWrong(f"{path}: between 1 and {_MOST_COLUMNS} columns can be played, not {len(columns)}")
    if any(later <= earlier for earlier, later in pairwise(instants)):
        raise TableWrong(f"{path}: its times must rise from row to row")
    empty = dict.fromkeys(columns, nan)
    rows = [list((empty | values).values()) for values in instants.values()]
    return Table(columns, list(instants), rows)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(text: str) -> float:
    return float(text) if text.strip() else nan


class TableLine:
    """The table behind a logger, unit 1 of a Modbus TCP line: column i in registers 2i and 2i + 1, CDAB."""

    def __init__(self, name: str, table: Table) -> None:
        self.name = name
        self.table = table
        self._logger = TableLogger(table.rows, UNIT)
        self.wire = ModbusTcpWire({UNIT: self._logger})

    async def play(self, clock: BenchClock) -> None:
        began_s = clock.now_s()
        for time_s in self.table.times_s[1:]:
            await clock.sleep_until(began_s + time_s - self.table.times_s[0])
            self._logger.advance()
