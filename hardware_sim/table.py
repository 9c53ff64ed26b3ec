"""History from a CSV file plays through an instrument: a Modbus TCP logger whose registers are its columns.

Either one column per quantity, `time,NAME,NAME,...`, or one row per value, `time,channel,value`; times are
RFC 3339 or seconds and rise. The row in force is the last whose time, counted from the first row's, has
passed on the bench. An empty field is no value: NaN on the wire.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf, isfinite, nan
from typing import TYPE_CHECKING, Final

from hardware_sim.instruments.registers import TableLogger
from hardware_sim.wires import ModbusTcpWire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hardware_sim.clock import BenchClock

UNIT: Final = 1
_MOST_COLUMNS: Final = 62  # two registers each, 125 in a request
_MOST_ROWS: Final = 1_000_000
_LARGEST: Final = 3.4028234e38  # that a 32-bit float can hold
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
    """The table of a CSV file; empty lines are passed over.

    Raises:
        TableWrong: no time column, a row that does not fit it, a field that is no number that a logger could
            send, times that do not rise, too much of anything.
        OSError: the file cannot be read.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        try:
            instants = _instants(lines)
        except UnicodeDecodeError:
            raise TableWrong(f"{path}: is not UTF-8: save it as CSV UTF-8") from None
        except (ValueError, csv.Error) as error:
            raise TableWrong(f"{path}:{max(1, lines.line_num)}: {error}") from None
    columns = list(dict.fromkeys(name for values in instants.values() for name in values))
    if not 0 < len(columns) <= _MOST_COLUMNS:
        raise TableWrong(f"{path}: between 1 and {_MOST_COLUMNS} columns can be played, not {len(columns)}")
    empty = dict.fromkeys(columns, nan)
    rows = [list((empty | values).values()) for values in instants.values()]
    return Table(columns, list(instants), rows)


def _instants(lines: Iterator[list[str]]) -> dict[float, dict[str, float]]:
    """Time -> the values by column."""
    instants: dict[float, dict[str, float]] = {}
    head = next(lines, [])
    _check_head(head)
    latest_s = -inf
    for line in lines:
        if not line:
            continue
        time_s, values = _row(head, line)
        if time_s < latest_s:
            raise ValueError("its time lies before that of the row above")
        latest_s = time_s
        instants.setdefault(time_s, {}).update(values)
        if len(instants) > _MOST_ROWS:
            raise ValueError(f"at most {_MOST_ROWS} instants can be played")
    return instants


def _check_head(head: list[str]) -> None:
    if head[:1] != ["time"] or len(head) == 1:
        raise ValueError(f"the first line must be time,NAME,... or {','.join(_LONG)}")
    if "" in head:
        raise ValueError("a column has no name")
    twice = [name for name in head if head.count(name) > 1]
    if twice:
        raise ValueError(f"two columns are called {twice[0]}")


def _row(head: list[str], line: list[str]) -> tuple[float, dict[str, float]]:
    if len(line) != len(head):
        raise ValueError(f"{len(line)} fields under {len(head)} columns")
    named = [(line[1], line[2])] if head == _LONG else zip(head[1:], line[1:], strict=True)
    return _seconds(line[0]), {name: _number(text) for name, text in named}


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        moment = _moment(text)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not isfinite(seconds):
        raise ValueError(f"{text!r} is no time")
    return seconds


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is no time: RFC 3339 or seconds") from None


def _number(text: str) -> float:
    """NaN for an empty field.

    Raises:
        ValueError: no number, or one that no 32-bit float can hold.
    """
    if not text.strip():
        return nan
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if abs(value) > _LARGEST:
        raise ValueError(f"{text!r} is more than a 32-bit float can hold")
    return value


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
