"""The epochs of one period reduced to one solution: medians, how many there were, and how they scatter.

Only the best kind of epoch that the period has is counted; one wrong fix among many moves a median by nothing
worth speaking of. The scatter is the median distance from the median times 1.4826, which for normal noise is
the standard deviation (Hampel 1974); it is of the epochs, not of their median.
"""

from __future__ import annotations

from math import isnan, nan
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 2048  # rows; when full every second one goes, and from then on only every second one comes in
NORMAL = 1.4826
WORTHLESS = 99  # rank of an epoch that yields no position

Row = tuple[float, ...]


class Interval:
    """Rows of one period; `rank` 0 is the best kind, `WORTHLESS` is kept as a witness and never counted.

    Attributes:
        tick_ns: the period's beginning.
        rank: of the rows that count.
        n: how many came of that rank.
        last: the row that came last, of whatever rank.
    """

    def __init__(self, tick_ns: int) -> None:
        self.tick_ns = tick_ns
        self.rank = WORTHLESS
        self.n = 0
        self.last: Row = ()
        self._kind: object = None
        self._rows: list[Row] = []
        self._step = 1

    def add(self, rank: int, kind: object, row: Row) -> None:
        """`kind` tells rows of one rank apart that cannot be mixed: only those of the latest kind count."""
        self.last = row
        if rank > self.rank or rank == WORTHLESS:
            return
        if rank < self.rank or kind != self._kind:
            self.rank, self._kind = rank, kind
            self._rows, self._step, self.n = [], 1, 0
        if self.n % self._step == 0:
            self._rows.append(row)
        self.n += 1
        if len(self._rows) == MOST:
            del self._rows[1::2]
            self._step *= 2

    def medians(self) -> Row:
        """Of each column, NaN left out; the last row if none counts."""
        return tuple(map(_median, zip(*self._rows, strict=True))) if self._rows else self.last

    def scatter(self, columns: int, around: Sequence[float]) -> Row:
        """Of the first `columns`; NaN where a single row can have none."""
        if len(self._rows) < 2:  # noqa: PLR2004 -- one row does not scatter
            return (nan,) * columns
        return tuple(
            NORMAL * _median([abs(row[i] - around[i]) for row in self._rows]) for i in range(columns)
        )


def _median(column: Sequence[float]) -> float:
    numbers = [number for number in column if not isnan(number)]
    return median(numbers) if numbers else nan
