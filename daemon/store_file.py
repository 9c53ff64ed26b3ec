"""The database file: connected as the writer wants it, brought to this schema, set aside when bad."""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import apsw

from daemon.batch import StoreBroken, StoreFull, StoreNewer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.clock import Clock
    from daemon.room import Keeping

SYNCHRONOUS = "FULL"  # NORMAL can lose what was acknowledged; the power-cut test proves that it would notice
PAGE_BYTES = 4096  # SQLite's default, which nothing here changes
MEMORY = Path(":memory:")
DAMAGED = (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError)  # the last: a text has rotted
_BUSY_MS = 5000
_MIGRATION = re.compile(r"^-- migration (\d+)$", re.MULTILINE)


@contextmanager
def named_errors() -> Iterator[None]:
    """SQLite's errors by our names; BUSY and misuse are mistakes of ours and pass as they are."""
    try:
        yield
    except apsw.FullError as error:
        raise StoreFull("no room for the store: the disk is full") from error
    except (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.ProtocolError) as error:
        raise StoreBroken(f"the disk failed under the store: {error}") from error
    except DAMAGED as error:
        raise StoreBroken(f"the store is damaged: {error}") from error


def connect(path: Path, vfs: str | None, keeping: Keeping) -> apsw.Connection:
    """A connection for the writer, with the schema as this version wants it.

    Raises:
        StoreNewer: the schema is beyond this version.
        StoreBroken: the file system cannot hold a WAL.
        apsw.Error: the file cannot be used.
    """
    db = apsw.Connection(str(path), vfs=vfs)
    try:
        db.set_busy_timeout(_BUSY_MS)
        journal = db.pragma("journal_mode", "wal")
        if journal != ("memory" if path is MEMORY else "wal"):
            raise StoreBroken(f"{path.parent} cannot hold the store (no WAL there): use a local disk")  # noqa: TRY301 -- the connection is closed below
        db.pragma("synchronous", SYNCHRONOUS)
        db.pragma("wal_autocheckpoint", 0)
        db.pragma("journal_size_limit", keeping.wal_bytes)
        db.pragma("max_page_count", keeping.database_bytes // PAGE_BYTES)
        _migrate(db, path)
    except BaseException:
        db.close()
        raise
    return db


def migrations() -> dict[int, str]:
    """The steps of spool.sql by their numbers."""
    _, *parts = _MIGRATION.split(Path(__file__).with_name("spool.sql").read_text())
    return dict(zip(map(int, parts[::2]), parts[1::2], strict=True))


def _migrate(db: apsw.Connection, path: Path) -> None:
    """Bring the schema up to the last migration, each step whole or not at all.

    Raises:
        StoreNewer: it is beyond that already.
    """
    steps = migrations()
    version = db.pragma("user_version")
    if version > max(steps):
        raise StoreNewer(
            f"{path} was written by a newer Pondwatch (schema {version}, this one knows {max(steps)}): "
            "install that version again, or choose another [store] path"
        )
    for number in range(version + 1, max(steps) + 1):
        db.execute(f"BEGIN IMMEDIATE; {steps[number]}; PRAGMA user_version={number}; COMMIT")


def set_aside(path: Path, clock: Clock) -> None:
    """Keep the file and its WAL under another name; the WAL first, so that no cut parts them unnoticed."""
    moment = datetime.fromtimestamp(clock.wall_ns() // 1_000_000_000, UTC)
    aside = f"{path.name}.bad-{moment:%Y%m%dT%H%M%SZ}-{token_hex(2)}"
    for suffix in ("-wal", ""):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(path.with_name(aside + suffix))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
