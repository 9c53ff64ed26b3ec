"""A store's file read by another process than its writer: loose and packed batches in one order.

Read in chunks, each a read transaction of its own: the core can move its WAL in between.
"""

from __future__ import annotations

from contextlib import contextmanager
from hashlib import sha256
from itertools import groupby
from typing import TYPE_CHECKING, Any, Self

import apsw

from daemon import packs
from daemon.batch import Batch, as_read
from daemon.ranges import Ranges
from daemon.seal import HeadFile, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from daemon.seal import Head

_CHUNK = 500
_LOOSE = """
    SELECT seq, kind, time_ns, count, payload, hash FROM batch WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?
"""
_NEXT_PACK = "SELECT first, last, time_ns, count, hash, frame FROM pack WHERE last > ? ORDER BY first LIMIT 1"
_KINDS = """
    SELECT kind, sum(batches), sum(count), min(first), max(last), min(since_ns), max(time_ns) FROM (
        SELECT kind, count(*) AS batches, sum(count) AS count, min(seq) AS first, max(seq) AS last,
               min(time_ns) AS since_ns, max(time_ns) AS time_ns FROM batch GROUP BY kind
        UNION ALL
        SELECT 'readings', sum(batches), sum(count), min(first), max(last), min(since_ns), max(time_ns)
        FROM pack HAVING count(*) > 0)
    GROUP BY kind ORDER BY min(first)
"""


class Archive:
    """The file at `path`, read only; schema 1 and 2.

    Attributes:
        stream: of the store.
        mode: real, test or simulated.
        gone: seqs that are not here any more, and why they are not is known.

    Raises:
        apsw.Error: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        self._db.set_busy_timeout(5000)
        self._packs = self._db.pragma("user_version") > 1
        ((self.stream, self.mode),) = self.rows("SELECT stream, mode FROM store")
        self.gone = Ranges(self.rows("SELECT first, last FROM gone") if self._packs else ())

    def rows(self, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, bindings).fetchall()
        except UnicodeDecodeError as error:
            raise apsw.CorruptError("a text in it is none") from error

    def kinds(self) -> list[tuple[Any, ...]]:
        """Kind, batches, records, first and last seq, oldest and newest time (ns), for each kind."""
        return self.rows(_KINDS if self._packs else _KINDS.replace("FROM pack", "FROM (SELECT 0 WHERE 0)"))

    def lost(self) -> Ranges:
        """What was pushed out though nobody had receipted it: gap records have to say so."""
        return Ranges(
            self.rows("SELECT first, last FROM gone WHERE reason = 'pushed-out'") if self._packs else ()
        )

    def batches(self, after: int = 0) -> Iterator[Batch]:
        """Ascending. A damaged pack stands as one batch without payload and hash, which verifies as bad."""
        while chunk := self._chunk(after):
            upto, found = chunk
            if upto <= after:  # else it would go round for ever
                raise apsw.CorruptError(f"what stands behind batch {after} is out of order")
            yield from found
            after = upto

    def before(self, time_ns: int) -> int:
        """The seq after which batches of `time_ns` and later begin: for `batches`.

        Found by halving, as times rise with seqs; where a clock stepped back, somewhat early or late.
        """
        low, high = 0, max((row[4] for row in self.kinds()), default=0)
        while low < high:
            middle = (low + high) // 2 + 1
            newest_ns = self._newest_ns(middle)
            if newest_ns is not None and newest_ns < time_ns:
                low = middle
            else:
                high = middle - 1
        return low

    def _newest_ns(self, seq: int) -> int | None:
        """The time of the last batch up to `seq`, or of the pack that it lies in."""
        found = self.rows("SELECT time_ns FROM batch WHERE seq <= ? ORDER BY seq DESC LIMIT 1", seq)
        if self._packs:
            found += self.rows("SELECT time_ns FROM pack WHERE first <= ? ORDER BY first DESC LIMIT 1", seq)
        return max((row[0] for row in found), default=None)

    def _chunk(self, after: int) -> tuple[int, list[Batch]] | None:
        with self._reading():
            pack = self.rows(_NEXT_PACK, after) if self._packs else []
            most = (pack[0][0] - 1) if pack else (1 << 62)
            loose = [as_read(row) for row in self.rows(_LOOSE, after, most, _CHUNK)]
            if loose or not pack:
                return (loose[-1].seq, loose) if loose else None
            first, last, time_ns, count, digest, frame = pack[0]
            between = [as_read(row) for row in self.rows(_LOOSE, after, last, last - first + 1)]
        try:
            packed = [batch_of(row) for row in packs.unpack(frame, digest) if row.seq > after]
        except packs.Damaged:
            packed = [as_read((first, "readings", time_ns, count, b"", b""))]
        return last, sorted(packed + between, key=lambda batch: batch.seq)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def batch_of(row: packs.Row) -> Batch:
    """A row of a pack as it leaves."""
    return Batch(row.seq, "readings", row.time_ns, row.records, row.payload, sha256(row.payload).digest())


def first_bad(batches: Iterable[Batch], gone: Ranges) -> int | None:
    """`seal.verify` over holes that are accounted for; at a hole that is not, the seq after it is bad.

    Looks at all of `batches`, also behind the first that is bad.
    """
    bad: int | None = None
    for _, run in groupby(batches, key=_Runs(gone)):
        found = verify(run)  # what it leaves of a run, groupby passes over
        bad = found if bad is None else bad
    return bad


class _Runs:
    """Numbers the runs: another begins behind each hole that is accounted for."""

    def __init__(self, gone: Ranges) -> None:
        self._gone = gone
        self._before: int | None = None
        self._run = 0

    def __call__(self, batch: Batch) -> int:
        before, self._before = self._before, batch.seq
        if before is not None:
            hole = batch.seq - before - 1
            self._run += hole > 0 and self._gone.count(before + 1, batch.seq - 1) == hole
        return self._run


def head_of(folder: Path) -> Head | None:
    """What the head beside the store says, without its lock."""
    try:
        return HeadFile.peek(folder / "head")
    except OSError:
        return None
