"""A logger that serves rows of numbers as 32-bit floats: recorded data on a wire.

Campbell loggers serve a program's variables this way, from register 0 on (reg. no. 40001), by default with
the low word first (CRBasic help, ModbusServer, ModbusOption).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hardware_sim.instruments.base import READ_HOLDING, READ_INPUT, Instrument, f32

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class TableLogger(Instrument):
    """Holds one row of `rows` at a time, value i in holding registers 2i and 2i + 1; functions 3 and 4.

    Args:
        rows: rows of equal length; NaN travels as NaN.
        unit: the unit address, told to `on_read`.
        order: byte order of the floats, `CDAB` for a Campbell logger.
        on_read: called as `on_read(unit, row)` once per row, when every register of the row was read.
    """

    reads: ClassVar = frozenset({READ_HOLDING, READ_INPUT})

    def __init__(
        self,
        rows: Sequence[Sequence[float]],
        unit: int,
        order: str = "CDAB",
        on_read: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__()
        self._rows = rows
        self._unit = unit
        self._order = order
        self.on_read = on_read
        self.row = 0
        self._load()

    def _load(self) -> None:
        words = [word for value in self._rows[self.row] for word in f32(value, self._order)]
        self._table = dict(enumerate(words))
        self._unread = set(self._table)

    @property
    def last(self) -> bool:
        return self.row == len(self._rows) - 1

    def advance(self) -> bool:
        """Serve the next row; False, and nothing changes, after the last one."""
        if self.last:
            return False
        self.row += 1
        self._load()
        return True

    def words(self, fn: int) -> Mapping[int, int]:
        del fn
        return self._table

    def served(self, fn: int, at: int, count: int) -> None:
        del fn
        if not self._unread:
            return
        self._unread.difference_update(range(at, at + count))
        if not self._unread and self.on_read is not None:
            self.on_read(self._unit, self.row)
