"""The rows of an open store: read in order, whether loose or packed, and written in one transaction.

Readings lie in `batch` as they were committed and later, many together, in `pack`; whoever reads sees no
difference. What is read is held against its hash, so that rotten bytes never leave: they are passed over, and
`StoreUpkeep.announce_damage` says so in the chain.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager, suppress
from hashlib import sha256
from heapq import merge
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

import apsw

from daemon import packs
from daemon.batch import KINDS, Batch, Draft, Gap, Kind, Lost, Mode, StoreBroken, as_read, sane
from daemon.clock import Clock
from daemon.ranges import Ranges
from daemon.room import Ballast, Keeping
from daemon.seal import ZERO_HASH, Head, HeadFile, envelope, place
from daemon.store_file import DAMAGED, PAGE_BYTES, named_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MOST_SEQ = (1 << 63) - 1
CHUNK_BYTES = 1 << 20  # a peek stops after the batch that fills it

MARKER = "damaged"  # this file beside the store: damage was found while it was in use
_READ_FAILED = (apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ)
_SEQ = attrgetter("seq")
_FIRST = """
    SELECT min(seq) FROM (SELECT min(seq) AS seq FROM batch UNION ALL SELECT min(first) FROM pack)
"""
_LAST = "SELECT seq, hash FROM batch ORDER BY seq DESC LIMIT 1"


def _is(kind: Kind) -> str:
    """The condition for one kind; SQLite uses a partial index only where its very words are repeated."""
    return f"kind = '{kind}'" + ("" if kind == "readings" else " AND kind <> 'readings'")


# Words of our own alone are put together here.
_NEWEST = {kind: f"SELECT seq FROM batch WHERE {_is(kind)} ORDER BY seq DESC LIMIT 1" for kind in KINDS}  # noqa: S608
_SELECT: dict[tuple[Kind, ...], str] = {
    kinds: "SELECT seq, kind, time_ns, count, payload, hash FROM batch "  # noqa: S608
    f"WHERE seq BETWEEN ? AND ? AND {condition} ORDER BY seq LIMIT ?"
    for kinds, condition in [(KINDS, "1"), *(((kind,), _is(kind)) for kind in KINDS)]
}
# Packs are disjoint, so of those that begin before the range only the last can reach into it.
_PACKS = """
    SELECT first, last, since_ns, time_ns, count, hash, frame FROM pack
    WHERE first >= coalesce((SELECT max(first) FROM pack WHERE first <= ?1), ?1)
      AND first <= ?2 AND last >= ?1 ORDER BY first
"""


def row_hash(*columns: str | int | bytes) -> bytes:
    """What proves a row of the alarm book or of the states: SHA-256 of its columns as SQLite has them."""
    return sha256(b"\0".join(c if isinstance(c, bytes) else str(c).encode() for c in columns)).digest()


def holds(digest: bytes | None, *columns: str | int | bytes) -> bool:
    """Whether the row is what was committed; a row from before there were hashes is believed."""
    return digest is None or digest == row_hash(*columns)


class StoreRows:
    """What is in the store, and how a batch gets in; used by one thread.

    Attributes:
        stream: the store's identity, made with it.
        last_seq: the newest batch, 0 before the first.
        latest: the newest batch of each kind, 0 if there is none.
        lost: what had to be set aside to open this one, or None.
        uncertain: the batches of a commit that broke: made or not, nobody knows before the next opening.
        announced: the gap records that it has put into the chain by itself; whoever counts them clears it.
        unreadable: what broke it was a read: opened anew it may fail at the same place again.
    """

    def __init__(self, db: apsw.Connection, folder: Path, head: HeadFile | None, keeping: Keeping) -> None:
        self.lost: Lost | None = None
        self.uncertain: Sequence[Batch] = ()
        self.announced: list[Gap] = []
        self.unreadable = False
        self.keeping = keeping
        self._db = db
        self._folder = folder
        self._head = head
        self._ballast = Ballast(folder / "ballast", keeping.ballast_bytes)
        self._clock = Clock()
        self._boot = 0
        self._broken = ""
        self._wal_pages = 0
        self._damaged: dict[tuple[int, int], Gap] = {}
        self._unpacked: tuple[int, list[Batch], dict[int, int]] = (
            0,
            [],
            {},
        )  # the pack read last, and its stamps
        db.set_wal_hook(self._note_wal)
        identity = self._row("SELECT stream, mode, replaces FROM store")
        self.stream, self.mode, self._replaces = identity or ("", "", None)
        self.last_seq, self._last_hash = self._row(_LAST) or (0, ZERO_HASH)
        self.latest: dict[Kind, int] = {kind: (self._row(sql) or (0,))[0] for kind, sql in _NEWEST.items()}
        (packed,) = self._row("SELECT last FROM pack ORDER BY first DESC LIMIT 1") or (0,)
        self.latest["readings"] = max(self.latest["readings"], packed)
        self._settled = self._ranges("SELECT uplink, first, last FROM settled")
        self._receipted = self._ranges("SELECT uplink, first, last FROM receipted")
        self._gone = self._ranges("SELECT '', first, last FROM gone").get("", Ranges())

    def _ranges(self, sql: str) -> dict[str, Ranges]:
        found: dict[str, Ranges] = {}
        for uplink, first, last in self._db.execute(sql):
            found.setdefault(uplink, Ranges()).add(first, last)
        return found

    # -- reading -----------------------------------------------------------------------------------------

    def batches(
        self,
        after: int = 0,
        upto: int = MOST_SEQ,
        kinds: Sequence[Kind] = KINDS,
        limit: int = 100,
        max_bytes: int = CHUNK_BYTES,
    ) -> list[Batch]:
        """Batches with after < seq <= upto, ascending: `limit` of them, or as many as fill `max_bytes`."""
        found: list[Batch] = []
        size = 0
        with self._sure():
            for batch in self._sound(after + 1, upto, tuple(kinds), limit):
                found.append(batch)
                size += len(batch.payload)
                if size >= max_bytes or len(found) >= limit:
                    break
        return found

    def _sound(self, first: int, last: int, kinds: tuple[Kind, ...], limit: int) -> Iterator[Batch]:
        loose = self._loose(first, last, kinds, limit)
        return merge(loose, self._packed(first, last), key=_SEQ) if "readings" in kinds else loose

    def _loose(self, first: int, last: int, kinds: tuple[Kind, ...], limit: int) -> Iterator[Batch]:
        while first <= last:
            count = 0
            for row in self._db.execute(_SELECT[kinds], (first, last, limit)):
                batch = as_read(row)
                first, count = batch.seq + 1, count + 1
                if sha256(batch.payload).digest() == batch.hash:
                    if (
                        place(batch.payload)[2] != batch.seq
                    ):  # the key has rotted, and with it the order of rows
                        raise apsw.CorruptError(f"what stands as batch {batch.seq} is another")
                    yield batch
                else:
                    self._found_damage(batch.seq, batch.seq, batch.time_ns, batch.time_ns, batch.count)
            if count < limit:
                return

    def _packed(self, first: int, last: int) -> Iterator[Batch]:
        for begin, end, since_ns, until_ns, count, digest, frame in self._db.execute(_PACKS, (first, last)):
            if self._unpacked[0] != begin:
                try:
                    rows = packs.unpack(frame, digest)
                except packs.Damaged:
                    self._found_damage(begin, end, since_ns, until_ns, count)
                    continue
                stamps = {row.seq: row.mono_ns for row in rows}
                self._unpacked = begin, [_batch_of(row) for row in rows], stamps
            yield from (batch for batch in self._unpacked[1] if first <= batch.seq <= last)

    def walk(self, after: int = 0, kinds: Sequence[Kind] = KINDS) -> Iterator[Batch]:
        """All batches after `after`, in chunks: between two of them no read transaction is open."""
        while chunk := self.batches(after, kinds=kinds):
            yield from chunk
            after = chunk[-1].seq

    def readings_after(self, seq: int) -> Iterator[bytes]:
        """The payloads of all `readings` batches after `seq`."""
        return (batch.payload for batch in self.walk(seq, ("readings",)))

    def drafts(self) -> Iterator[tuple[int, Draft]]:
        """Every batch as the draft it was made from, to be committed elsewhere."""
        for batch in self.walk():
            mode = cast("Mode", place(batch.payload)[0])
            head = len(envelope(mode, self.stream, batch.seq, ZERO_HASH, b"")) - 1
            body = batch.payload[head:-1]
            its_own = mode if mode != self.mode else None
            yield (
                batch.seq,
                Draft(batch.kind, body, batch.time_ns, self._mono_of(batch.seq), batch.count, its_own),
            )

    def _mono_of(self, seq: int) -> int:
        """The monotonic stamp of a batch that was just read."""
        row = self._row("SELECT mono_ns FROM batch WHERE seq = ?", seq)
        if row:
            return int(row[0])
        if seq not in self._unpacked[2]:  # a chunk of batches may reach over several packs
            deque(self._packed(seq, seq), maxlen=0)
        return self._unpacked[2][seq]

    def time_of(self, seq: int) -> int | None:
        """When `seq`, or the first batch after it, was taken (ns, UTC)."""
        found = self.batches(seq - 1, limit=1)
        return found[0].time_ns if found else None

    def first_seq(self) -> int:
        """The oldest batch that is still here; 1 for an empty store."""
        with self._sure():
            (first,) = self._row(_FIRST) or (None,)
        return 1 if first is None else int(first)

    def settled(self, uplink: str) -> Ranges:
        """What `uplink` need not send any more: settled, or gone; the caller's own copy."""
        return self._with_gone(self._settled, uplink)

    def _with_gone(self, known: dict[str, Ranges], uplink: str) -> Ranges:
        ranges = known.get(uplink, Ranges()).copy()
        for first, last in self._gone:
            ranges.add(first, last)
        return ranges

    def alarms(self) -> dict[str, bytes]:
        """The alarm book: id -> JSON; without a byte where a row is not what was committed."""
        with self._sure():
            rows = self._db.execute("SELECT id, body, hash FROM alarm")
            return {id_: body if holds(digest, id_, body) else b"" for id_, body, digest in rows}

    def states(self) -> dict[str, tuple[int, bytes]]:
        """Name -> (the seq it covers, bytes), as last committed; without a byte where it is not that."""
        with self._sure():
            rows = self._db.execute("SELECT name, seq, body, hash FROM state")
            return {
                name: (seq, body if holds(digest, name, seq, body) else b"")
                for name, seq, body, digest in rows
            }

    def size_bytes(self) -> int:
        """Database and WAL."""
        return self._pragma("page_count") * PAGE_BYTES + self.wal_bytes

    # -- writing -----------------------------------------------------------------------------------------

    def _insert(
        self,
        drafts: Sequence[Draft],
        alarms: Sequence[tuple[str, bytes]],
        states: Sequence[tuple[str, bytes]],
    ) -> list[Batch]:
        batches = []
        prev = self._last_hash
        for seq, draft in enumerate(drafts, self.last_seq + 1):
            payload = envelope(draft.mode or self.mode, self.stream, seq, prev, draft.body)
            prev = sha256(payload).digest()
            batches.append(Batch(seq, draft.kind, draft.time_ns, draft.count, payload, prev))
        pairs = zip(batches, drafts, strict=True)
        self._db.executemany(
            "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(b.seq, b.kind, self._boot, b.time_ns, d.mono_ns, b.count, b.payload, b.hash) for b, d in pairs],
        )
        self._db.executemany(
            "REPLACE INTO alarm (id, body, hash) VALUES (?, ?, ?)",
            [(id_, body, row_hash(id_, body)) for id_, body in alarms],
        )
        covered = self.last_seq + len(batches)
        self._db.executemany(
            "REPLACE INTO state (name, seq, body, hash) VALUES (?, ?, ?, ?)",
            [(name, covered, body, row_hash(name, covered, body)) for name, body in states],
        )
        return batches

    def _advance(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self.latest[batch.kind] = self.last_seq = batch.seq
            self._last_hash = batch.hash

    def _write_head(self) -> None:
        """After the commit: a head behind its store means nothing, one ahead of it tells of a loss."""
        if self._head is None:
            return
        try:
            self._head.write(Head(self.stream, self.last_seq, self._last_hash))
        except OSError as error:
            self._broken = f"the head file cannot be written: {error.strerror}"
            raise StoreBroken(self._broken) from error

    # -- the WAL -----------------------------------------------------------------------------------------

    @property
    def wal_bytes(self) -> int:
        """What the next checkpoint has to move."""
        return self._wal_pages * PAGE_BYTES

    def checkpoint_wal(self) -> None:
        """Move the WAL into the database, as far as no reader stands in the way; outside commits."""
        if self._wal_pages:
            with self._sure():
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._wal_pages = 0

    # -- inside ------------------------------------------------------------------------------------------

    def _found_damage(self, first: int, last: int, since_ns: int, until_ns: int, count: int) -> None:
        """What was read is not what was committed; it is passed over until `announce_damage`."""
        if (first, last) not in self._damaged and first not in self._gone:
            since, until = (
                time_ns if time_ns and sane(time_ns) else None for time_ns in (since_ns, until_ns)
            )
            number = count if isinstance(count, int) and count > 0 else None
            self._damaged[first, last] = Gap("damaged", self.stream, first, last, since, until, number)

    def _row(self, sql: str, *bindings: Any) -> tuple[Any, ...] | None:
        return self._db.execute(sql, bindings).fetchone()

    def _pragma(self, name: str) -> int:
        with self._sure():
            return int(self._db.pragma(name))

    def _note_wal(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction; a body or a commit that fails leaves nothing of it."""
        with self._sure():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _sure(self) -> Iterator[None]:
        """Ask nothing of a store that failed: after a failed sync the next one may claim to have worked."""
        if self._broken:
            raise StoreBroken(self._broken)
        try:
            with named_errors():
                yield
        except StoreBroken as error:
            self._broken = str(error)
            cause = error.__cause__
            self.unreadable = getattr(cause, "extendedresult", 0) in _READ_FAILED
            if isinstance(cause, DAMAGED) and self._head is not None:
                with suppress(OSError):  # so that the next opening sets it aside instead of failing again
                    (self._folder / MARKER).touch()
            raise


def _batch_of(row: packs.Row) -> Batch:
    return Batch(row.seq, "readings", row.time_ns, row.records, row.payload, sha256(row.payload).digest())
