"""Room on the disk: how much the store may take, and what is there to let go of when nothing is left.

In WAL mode a full disk is a trap: once the WAL cannot grow, neither INSERT nor DELETE can run, nor a
checkpoint that needs one page more, so "delete the oldest" fails too. Against it stand a cap on the pages, a
WAL that is kept small, and the ballast: a file of real blocks beside the store, given back to the disk when
it is full.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MOST_WAL_BYTES = 4 << 20
_LEAST_WAL_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Keeping:
    """What the store keeps, and for whom.

    Attributes:
        uplinks: all that batches leave by.
        receipts: those of them that settle by the platform's receipt; a PUBACK is the broker's word alone.
        archives: those of them that keep for good what they have receipted.
        most_bytes: of database, WAL and ballast together.
    """

    uplinks: tuple[str, ...] = ()
    receipts: frozenset[str] = frozenset()
    archives: frozenset[str] = frozenset()
    most_bytes: int = 8 << 30

    def fitted(self, folder: Path) -> Keeping:
        """With no more bytes than the disk has that holds `folder`, less a tenth: others live there too."""
        disk = os.statvfs(folder)
        return replace(self, most_bytes=min(self.most_bytes, disk.f_blocks * disk.f_frsize * 9 // 10))

    @property
    def wal_bytes(self) -> int:
        """The WAL is moved into the database when it is so large: small beside a small store."""
        return max(_LEAST_WAL_BYTES, min(_MOST_WAL_BYTES, self.most_bytes // 16))

    @property
    def ballast_bytes(self) -> int:
        """Enough to move a WAL twice as large as it should be."""
        return 2 * self.wal_bytes

    @property
    def database_bytes(self) -> int:
        return self.most_bytes - self.ballast_bytes - 2 * self.wal_bytes


class Ballast:
    """A file of `size` real bytes; there while the disk has room, gone while it has none."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    @property
    def there(self) -> bool:
        try:
            return self._path.stat().st_size == self._size
        except OSError:
            return False

    def drop(self) -> None:
        """Give its blocks to the disk."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def restore(self) -> bool:
        """Take blocks for it where at least as much stays free; returns whether it is there."""
        if self.there:
            return True
        try:
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < 2 * self._size:
                return False
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
        except OSError:
            self.drop()
            return False
        return True
