"""What can still be read of a damaged store, into a whole one.

A page that cannot be read takes its neighbours' query with it, so each range that fails is halved until what
fails is a single row. Only rows whose bytes have their hash are taken over.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import apsw

from daemon import packs
from daemon.archive import batch_of, head_of
from daemon.ranges import Ranges
from daemon.store_file import migrations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemon.batch import Batch

_ROWS = """
    SELECT seq, kind, boot, time_ns, mono_ns, count, payload, hash FROM batch
    WHERE seq BETWEEN ? AND ? ORDER BY seq
"""
_PACKS = "SELECT first, hash, frame FROM pack WHERE first BETWEEN ? AND ? ORDER BY first"
_PUT = "INSERT OR IGNORE INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_UNKNOWN_END = 1 << 24  # where nothing tells how many batches there were
_DAMAGE = (apsw.CorruptError, apsw.IOError, apsw.NotADBError, UnicodeDecodeError)


@dataclass(slots=True)
class Salvaged:
    """What came of it: seqs that were saved, and those between them and up to the head that were not."""

    saved: Ranges = field(default_factory=Ranges)
    missing: Ranges = field(default_factory=Ranges)


def salvage(bad: Path, good: Path) -> Salvaged:
    """Copy all sound batches of the store file `bad` into a new store file `good`.

    Raises:
        apsw.Error: nothing of `bad` can be read.
        FileExistsError: `good` is there already.
    """
    if good.exists():
        raise FileExistsError(good)
    source = _opened(bad)
    target = apsw.Connection(str(good))
    try:
        for number, step in migrations().items():
            target.execute(f"BEGIN; {step}; PRAGMA user_version={number}; COMMIT")
        return _copy(source, target, bad)
    finally:
        target.close()
        source.close()


def _copy(source: apsw.Connection, target: apsw.Connection, bad: Path) -> Salvaged:
    result = Salvaged()
    head = head_of(bad.parent)
    last = _last(source)
    with target:
        identity = None
        with suppress(*_DAMAGE):
            identity = source.execute("SELECT one, stream, mode, replaces FROM store").fetchone()
        for row in _readable(source, _ROWS, last):
            if isinstance(row[6], bytes) and sha256(row[6]).digest() == row[7]:
                _put(target, row, result)
        for batch, boot, mono_ns in _unpacked(source, last):
            row = (
                batch.seq,
                "readings",
                boot,
                batch.time_ns,
                mono_ns,
                batch.count,
                batch.payload,
                batch.hash,
            )
            _put(target, row, result)
        if identity is not None:
            with suppress(apsw.ConstraintError):
                target.execute("INSERT INTO store VALUES (?, ?, ?, ?)", identity)
            for table in ("settled", "receipted", "gone", "alarm", "state"):
                _table(source, target, table)
    spans = list(result.saved)
    if identity is not None and head is not None and head.stream == identity[1]:
        spans.append((head.seq + 1, head.seq + 1))
    for (_, before), (after, _) in pairwise(spans):
        if after > before + 1:
            result.missing.add(before + 1, after - 1)
    return result


def _opened(bad: Path) -> apsw.Connection:
    """Without touching it: as it is with its WAL if that can be, else the database alone."""
    try:
        db = apsw.Connection(str(bad), flags=apsw.SQLITE_OPEN_READONLY)
        db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except (apsw.CantOpenError, apsw.ReadOnlyError):
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        db = apsw.Connection(f"file:{bad}?immutable=1", flags=flags)
    return db


def _last(db: apsw.Connection) -> int:
    for sql in ("SELECT max(seq) FROM batch", "SELECT max(last) FROM settled"):
        with suppress(*_DAMAGE):
            ((last,),) = db.execute(sql).fetchall()
            if last is not None:
                return int(last)
    return _UNKNOWN_END


def _readable(db: apsw.Connection, sql: str, last: int) -> Iterator[tuple[Any, ...]]:
    """The rows of 1..last that can be read, by halving what cannot."""
    ranges = [(1, last)]
    while ranges:
        low, high = ranges.pop()
        try:
            for row in db.execute(sql, (low, high)):
                yield row
                low = row[0] + 1
        except _DAMAGE:
            if low < high:
                middle = (low + high) // 2
                ranges += [(middle + 1, high), (low, middle)]


def _unpacked(db: apsw.Connection, last: int) -> Iterator[tuple[Batch, int, int]]:
    try:
        db.execute("SELECT 1 FROM pack LIMIT 1").fetchall()
    except apsw.SQLError:  # schema 1
        return
    except _DAMAGE:
        pass
    for _, digest, frame in _readable(db, _PACKS, last):
        with suppress(packs.Damaged):
            for row in packs.unpack(frame, digest):
                yield batch_of(row), row.boot, row.mono_ns


def _put(target: apsw.Connection, row: tuple[Any, ...], result: Salvaged) -> None:
    """Unless a column has rotted into what the schema does not take."""
    with suppress(apsw.ConstraintError):
        _boot(target, row[2])
        target.execute(_PUT, row)
        result.saved.add(row[0])


def _boot(target: apsw.Connection, boot: int) -> None:
    target.execute("INSERT OR IGNORE INTO boot VALUES (?, ?)", (boot, f"salvaged-{boot}"))


def _table(source: apsw.Connection, target: apsw.Connection, table: str) -> None:
    with suppress(apsw.SQLError, *_DAMAGE):
        rows = source.execute(f"SELECT * FROM {table}")  # noqa: S608 -- words of ours
        for row in rows:
            names = [name for name, _ in rows.get_description()]  # an older schema has fewer
            columns, marks = ", ".join(names), ", ".join("?" * len(names))
            with suppress(apsw.ConstraintError):
                target.execute(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", row)  # noqa: S608
