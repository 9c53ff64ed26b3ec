"""The file in which batches are kept: one SQLite database, one writer, each commit on disk when it returns.

WAL with synchronous=FULL: what `commit` returned survives a power cut (tests/daemon/test_spool_power.py).
One thread owns a `Store`; other processes open the database read-only and never checkpoint it.
What it raises is in daemon/batch.py.

Readings lie in `batch` as they were committed and later, many together, in `pack`; whoever reads sees no
difference. What is read is held against its hash, so that rotten bytes never leave: they are passed over,
and `announce_damage` says so in the chain.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from heapq import merge
from math import nan
from operator import attrgetter
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Self, cast

import apsw

from daemon import packs
from daemon.batch import (
    KINDS,
    Batch,
    Draft,
    Gap,
    GapReason,
    Kind,
    Lost,
    Mode,
    StoreBroken,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreMode,
    StoreNewer,
)
from daemon.clock import Clock
from daemon.ranges import Ranges
from daemon.room import Ballast, Keeping
from daemon.seal import ZERO_HASH, Head, HeadBusy, HeadFile, envelope, place
from daemon.store_file import MEMORY, PAGE_BYTES, connect, named_errors, set_aside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "CHUNK_BYTES",
    "KINDS",
    "MOST_SEQ",
    "Batch",
    "Draft",
    "Gap",
    "Kind",
    "Lost",
    "Mode",
    "Store",
    "StoreBroken",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "StoreMode",
    "StoreNewer",
]

MOST_SEQ = (1 << 63) - 1
CHUNK_BYTES = 1 << 20  # a peek stops after the batch that fills it

_MARKER = "damaged"  # this file beside the store: damage was found while it was in use
_TRIM_BATCHES = 500
_PACK_SPAN = _TRIM_BATCHES - 1  # no pack is longer than what one trim may take
_PACK_LEAST = 64  # fewer wait for company, unless they are large
_PUSH_ROWS = 200
_SPAN_LEAST_S = 600.0
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
_LOOSE = """
    SELECT seq, boot, time_ns, mono_ns, count, payload, hash FROM batch
    WHERE kind = 'readings' AND seq < ?
      AND seq > coalesce((SELECT last FROM pack ORDER BY first DESC LIMIT 1), 0)
    ORDER BY seq LIMIT ?
"""
# The first that has to stay: a young batch, or a pack that is young or reaches beyond the cut.
_STAYS = """
    SELECT min(seq) FROM (
        SELECT * FROM (SELECT seq FROM batch WHERE seq < ?1 AND time_ns >= ?2 ORDER BY seq LIMIT 1)
        UNION ALL
        SELECT * FROM (SELECT first FROM pack WHERE first < ?1 AND (time_ns >= ?2 OR last >= ?1)
                       ORDER BY first LIMIT 1)
    )
"""
_OLDEST_READINGS = """
    SELECT * FROM (
        SELECT seq, seq, time_ns, time_ns, count, length(payload) FROM batch
        WHERE kind = 'readings' AND seq < ?1 ORDER BY seq LIMIT ?2)
    UNION ALL
    SELECT * FROM (
        SELECT first, last, since_ns, time_ns, count, length(frame) FROM pack ORDER BY first LIMIT ?2)
    ORDER BY 1
"""
_OLDEST_OTHERS = """
    SELECT seq, seq, time_ns, time_ns, count, length(payload) FROM batch
    WHERE kind <> 'readings' AND seq < ? ORDER BY seq LIMIT ?
"""


class Store:
    """The open store; made by `open` or `in_memory`, used by one thread.

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
        self._unpacked: tuple[int, list[Batch]] = (0, [])  # the pack that was read last
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

    # -- opening -------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        folder: Path,
        mode: Mode,
        boot_id: str,
        *,
        clock: Clock | None = None,
        vfs: str | None = None,
        keeping: Keeping | None = None,
        doubtful: bool = False,
        unreadable: bool = False,
    ) -> Self:
        """Open the store in `folder`, or make it.

        A store that is missing though its head is there, that is damaged, or that is older than its head
        (somebody put a backup back) is set aside as `spool.db.bad-<time>`, and a fresh one with a new stream
        begins: `lost` says so, a gap record is its first batch, the alarm book is carried over as far as it
        can be read.

        Args:
            folder: of store and head; made if missing.
            mode: stands in every payload.
            boot_id: the kernel's id of this boot, see `Draft.mono_ns`.
            clock: stamps gap records and the name.
            vfs: name of a registered apsw VFS, for the tests of failing disks.
            keeping: how much it may take, and who has to have what before it goes.
            doubtful: a write or sync has just failed: nothing is believed before it is written anew.
            unreadable: the disk fails again and again where it is read: set it aside though it opens.

        Raises:
            StoreBusy, StoreNewer, StoreMode: see above; nothing was touched.
            StoreFull, StoreBroken: the disk is full or fails.
            OSError: the folder cannot be used.
        """
        clock, keeping = clock or Clock(), keeping or Keeping()
        folder.mkdir(parents=True, exist_ok=True)
        keeping = keeping.fitted(folder)
        try:
            head = HeadFile(folder / "head")
        except HeadBusy:
            raise StoreBusy(f"another process writes the store in {folder}: stop it first") from None
        store = None
        try:
            with named_errors():
                if unreadable:
                    (folder / _MARKER).touch()
                store, lost = cls._reopen(folder, mode, head, clock, vfs, keeping)
                if store is None:
                    store = cls(connect(folder / "spool.db", vfs, keeping), folder, head, keeping)
                store._clock = clock
                if store.stream:
                    store._rewrite(sure=doubtful)
                    store._boot = store._boot_row(boot_id)
                else:
                    store._found(mode, boot_id, lost)
                store._write_head()
                store._ballast.restore()
                return store
        except BaseException:
            if store is not None:
                store._close_db()
            head.close()
            raise

    @classmethod
    def in_memory(cls, mode: Mode, boot_id: str, clock: Clock, keeping: Keeping, instead_of: Gap) -> Self:
        """A store that ends with the process, with a stream of its own; `instead_of` is its first batch."""
        store = cls(connect(MEMORY, None, keeping), MEMORY, None, keeping)
        store._clock = clock
        store._found(mode, boot_id, Lost(instead_of))
        return store

    @classmethod
    def _reopen(
        cls, folder: Path, mode: Mode, head: HeadFile, clock: Clock, vfs: str | None, keeping: Keeping
    ) -> tuple[Self | None, Lost | None]:
        """The store that is there, if it can go on, and what is lost if it cannot or is not there."""
        remembered = head.read()
        lost = Lost(Gap("store-lost", remembered.stream, 1)) if remembered and remembered.seq else None
        path, marker = folder / "spool.db", folder / _MARKER
        if not path.exists():
            return None, lost
        store = None
        try:
            store = cls(connect(path, vfs, keeping), folder, head, keeping)
            if not store.stream:  # its making was cut short: nothing was ever in it
                return store, lost
            store._check_mode(mode)
            if not marker.exists() and store._continues(remembered):
                return store, None
            lost = store._as_lost("store-lost" if marker.exists() else "store-restored", remembered)
        except (apsw.NotADBError, apsw.CorruptError):
            lost = lost or Lost(Gap("store-lost", "unknown", 1))
        except apsw.IOError:
            if not marker.exists():
                raise
            lost = lost or Lost(Gap("store-lost", "unknown", 1))
        except StoreError:
            if store is not None:
                store._close_db()
            raise
        if store is not None:
            store._close_db()
        set_aside(path, clock)
        marker.unlink(missing_ok=True)
        return None, lost

    def _check_mode(self, mode: Mode) -> None:
        if self.mode != mode:
            raise StoreMode(
                f"the store in {self._folder} holds {self.mode} data and the site is {mode}: "
                "choose another [store] path, or move that folder away"
            )

    def _continues(self, head: Head | None) -> bool:
        """Whether this is the store the head was written for, and not an older image of it."""
        if head is None or head.stream == self._replaces:  # head lost, or the cut came before its first write
            return True
        if head.stream != self.stream or head.seq > self.last_seq:
            return False
        row = self._row("SELECT hash FROM batch WHERE seq = ?", head.seq)
        return row is None or row[0] == head.hash  # None: seq 0, trimmed or packed

    def _as_lost(self, reason: GapReason, head: Head | None) -> Lost:
        newest = self._row("SELECT time_ns FROM batch WHERE seq = ?", self.last_seq)
        ours = head is None or head.stream == self.stream
        unsettled = min((ranges.missing_after(0) for ranges in self._settled.values()), default=1)
        gap = Gap(
            reason,
            self.stream if head is None else head.stream,
            unsettled if ours else 1,
            since_ns=newest[0] if newest and ours else None,
        )
        return Lost(gap, self._alarms_as_far_as_readable())

    def _alarms_as_far_as_readable(self) -> tuple[tuple[str, bytes], ...]:
        found = []
        with suppress(apsw.CorruptError, apsw.NotADBError, apsw.IOError):
            for row in self._db.execute("SELECT id, body FROM alarm"):
                found.append((row[0], row[1]))  # noqa: PERF401 -- what was read before the damage is kept
        return tuple(found)

    def _found(self, mode: Mode, boot_id: str, lost: Lost | None) -> None:
        """Give the empty store its identity, and its first batch if it takes another's place."""
        self.stream, self.mode, self.lost = token_hex(8), mode, lost
        drafts = [] if lost is None else [lost.gap.draft(self._clock)]
        with self._writing():
            row = (self.stream, mode, lost.of if lost else None)
            self._db.execute("INSERT INTO store (one, stream, mode, replaces) VALUES (1, ?, ?, ?)", row)
            self._boot = self._boot_row(boot_id)
            batches = self._insert(drafts, lost.alarms if lost else (), ())
        self._advance(batches)

    def _boot_row(self, boot_id: str) -> int:
        self._db.execute("INSERT INTO boot (boot_id) VALUES (?) ON CONFLICT DO NOTHING", (boot_id,))
        row = self._row("SELECT id FROM boot WHERE boot_id = ?", boot_id)
        return int(row[0])  # type: ignore[index]  # it was just put there

    def _rewrite(self, *, sure: bool) -> None:
        """Have all that the WAL holds written anew, into the database.

        After a sync that failed, the kernel may show pages that never reached the disk, and call the next
        sync of them a success. What is copied out of them is written afresh, so this sync tells the truth.

        Raises:
            StoreBroken: it has to be `sure`, and cannot be made so while somebody reads.
        """
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError as error:
            if not sure:
                return
            raise StoreBroken("somebody reads the store, so what is in it cannot be made sure") from error
        self._wal_pages = 0

    # -- writing -------------------------------------------------------------------------------------

    def commit(
        self,
        drafts: Sequence[Draft],
        alarms: Sequence[tuple[str, bytes]] = (),
        states: Sequence[tuple[str, bytes]] = (),
    ) -> list[Batch]:
        """Seal and store, all or nothing; on the disk when this returns.

        When there is no room, the oldest readings are pushed out to make some, see `_push_out`.

        Args:
            drafts: become batches, in this order.
            alarms: id and JSON; new or changed rows of the alarm book.
            states: name and bytes; what judging continues from after a restart, of the moment when the
                last of `drafts` had been judged.

        Raises:
            StoreFull: nothing was stored, and nothing is left that could make room.
            StoreBroken: nothing of it counts as stored, see `recognised`.
        """
        try:
            return self._commit(drafts, alarms, states)
        except StoreFull:
            self._make_room(sum(len(draft.body) for draft in drafts))
            return self._commit(drafts, alarms, states)

    def _commit(
        self,
        drafts: Sequence[Draft],
        alarms: Sequence[tuple[str, bytes]],
        states: Sequence[tuple[str, bytes]],
    ) -> list[Batch]:
        with self._writing():
            batches = self.uncertain = self._insert(drafts, alarms, states)
        if batches:
            self._advance(batches)
            self._write_head()
        self.uncertain = ()
        return batches

    def recognised(self, batches: Sequence[Batch]) -> bool:
        """Whether a commit that broke was made all the same; asked of the store that was opened anew."""
        with self._sure():
            found = [self._row("SELECT hash FROM batch WHERE seq = ?", batch.seq) for batch in batches]
        return bool(found) and found == [(batch.hash,) for batch in batches]

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
        self._db.executemany("REPLACE INTO alarm (id, body) VALUES (?, ?)", alarms)
        covered = self.last_seq + len(batches)
        self._db.executemany(
            "REPLACE INTO state (name, seq, body) VALUES (?, ?, ?)",
            [(name, covered, body) for name, body in states],
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

    def settle(self, uplink: str, ranges: Iterable[tuple[int, int]]) -> None:
        """Note, durably, that `ranges` (closed intervals of seq) are safe at the other end of `uplink`.

        Raises:
            StoreFull, StoreBroken: nothing was noted.
        """
        pairs = list(ranges)
        try:
            self._settle(uplink, pairs)
        except StoreFull:
            self._make_room(0)
            self._settle(uplink, pairs)

    def _settle(self, uplink: str, pairs: list[tuple[int, int]]) -> None:
        tables = {"settled": self._settled}
        if uplink in self.keeping.receipts:
            tables["receipted"] = self._receipted
        after = {table: known.get(uplink, Ranges()).copy() for table, known in tables.items()}
        with self._writing():
            for table, whole in after.items():
                for pair in pairs:
                    first, last = whole.add(*pair)
                    self._db.execute(
                        f"DELETE FROM {table} WHERE uplink = ? AND first BETWEEN ? AND ?",  # noqa: S608
                        (uplink, first, last),
                    )
                    self._db.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (uplink, first, last))  # noqa: S608
        for table, known in tables.items():
            known[uplink] = after[table]

    # -- what has been for long ----------------------------------------------------------------------

    def pack(self, cold_before_ns: int) -> int:
        """Pack the oldest readings that lie loose and are settled everywhere, or older than `cold_before_ns`.

        Returns how many batches; 0 when too few are there, so it is called again until then.
        """
        with self._sure():
            found = list(self._db.execute(_LOOSE, (self.last_seq, packs.MOST_BATCHES)))
        group: list[packs.Row] = []
        size, full = 0, False
        for *fields, digest in found:
            row = packs.Row(*fields)
            if sha256(row.payload).digest() != digest:
                self._found_damage(row.seq, row.seq, row.time_ns, row.time_ns, row.records)
                continue
            full = size >= packs.MOST_BYTES or (bool(group) and row.seq - group[0].seq >= _PACK_SPAN)
            if full or not (row.time_ns < cold_before_ns or self._everywhere(row.seq, row.seq)):
                break
            group.append(row)
            size += len(row.payload)
        if not group or not (full or len(group) >= _PACK_LEAST):
            return 0
        self._put_pack(group, packs.pack(group))
        return len(group)

    def _put_pack(self, group: Sequence[packs.Row], frame: bytes) -> None:
        times = [row.time_ns for row in group]
        records = sum(row.records for row in group)
        digest = sha256(group[-1].payload).digest()
        row = (group[0].seq, group[-1].seq, min(times), max(times), len(group), records, digest, frame)
        with self._writing():
            self._db.execute("INSERT INTO pack VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._db.executemany("DELETE FROM batch WHERE seq = ?", [(row.seq,) for row in group])

    def trim(self, keep_before_ns: int) -> int:
        """Delete the oldest batches that every archive has receipted and that are older than that instant.

        Without an archive nothing is deleted: the only copy stays. Only from the front, so that what stays is
        one unbroken chain: a batch that has to stay keeps all after it. The newest batch always stays.
        Deletes at most 500 at once, so that no commit waits long; returns how many, to be called again until
        0. The file does not shrink: its pages are used again.
        """
        if not self.keeping.archives:
            return 0
        first = self.first_seq()
        needed = [self.settled(uplink) for uplink in self.keeping.uplinks]
        needed += [self._with_gone(self._receipted, uplink) for uplink in self.keeping.archives]
        cut = min(first + _TRIM_BATCHES, self.last_seq, *(r.missing_after(first - 1) for r in needed))
        with self._sure():
            (stays,) = self._row(_STAYS, cut, keep_before_ns) or (None,)
        cut = cut if stays is None else stays
        if cut > first:
            with self._writing():
                self._db.execute("DELETE FROM batch WHERE seq < ?", (cut,))
                self._db.execute("DELETE FROM pack WHERE first < ?", (cut,))
                self._db.execute("DELETE FROM gone WHERE last < ?", (cut,))
        return int(max(0, cut - first))

    def _everywhere(self, first: int, last: int) -> bool:
        """Whether all uplinks have settled all of `first`..`last`."""
        uplinks = self.keeping.uplinks
        return bool(uplinks) and all(_holds(self._settled, uplink, first, last) for uplink in uplinks)

    def delivered(self, first: int, last: int) -> bool:
        """Whether these are settled everywhere and receipted by a platform: gone here, they are no loss."""
        receipts = self.keeping.receipts
        return self._everywhere(first, last) and any(
            _holds(self._receipted, u, first, last) for u in receipts
        )

    # -- room ----------------------------------------------------------------------------------------

    def _make_room(self, need_bytes: int) -> None:
        """Get out of the trap of a full disk: the ballast goes, the WAL empties, the oldest readings go.

        Raises:
            StoreFull: the disk has no room even for pushing out.
        """
        self._ballast.drop()
        with suppress(StoreFull):
            self.checkpoint_wal()
        need_bytes = max(2 * need_bytes, self.keeping.database_bytes // 64, 16 * PAGE_BYTES)
        while self._pragma("freelist_count") * PAGE_BYTES < need_bytes and self._push_out(need_bytes):
            self.checkpoint_wal()
        pages, most = self._pragma("page_count"), self._pragma("max_page_count")
        if pages < most:  # it is the disk that is full, so from here on the store lives in what it has
            self._db.pragma("max_page_count", pages)

    def _push_out(self, want_bytes: int) -> int:
        """Delete the oldest readings, or without any the oldest of the others; returns how many rows.

        What was not delivered is a loss: its gap record is committed with the deletion or not at all.
        """
        with self._writing():
            rows = self._oldest(want_bytes)
            lost: list[Gap] = []
            runs = []
            for first, last, since_ns, until_ns, records, _ in rows:
                delivered = self.delivered(first, last)
                for a, b in self._runs(first, last):
                    runs.append((a, b))
                    self._note_gone(a, b, "delivered" if delivered else "pushed-out")
                    if not delivered:
                        whole = (a, b) == (first, last)
                        gap = Gap(
                            "pushed-out", self.stream, a, b, since_ns, until_ns, records if whole else None
                        )
                        _join(lost, gap)
                self._db.execute("DELETE FROM pack WHERE first = ?", (first,))
                if first == last:
                    self._db.execute("DELETE FROM batch WHERE seq = ?", (first,))
            batches = self._insert([gap.draft(self._clock) for gap in lost], (), ())
        for a, b in runs:
            self._gone.add(a, b)
        self._announced(batches, lost)
        return len(rows)

    def _oldest(self, want_bytes: int) -> list[tuple[Any, ...]]:
        """Rows to push out, at least `want_bytes` where there are so many: class by class, oldest first."""
        rows: list[Any] = []
        size = 0
        for sql in (_OLDEST_READINGS, _OLDEST_OTHERS):
            for row in self._db.execute(sql, (self.last_seq, _PUSH_ROWS)).fetchall():
                rows.append(row)
                size += int(row[5] or 0)
                if size >= want_bytes:
                    break
            if rows:
                break
        return rows

    def _runs(self, first: int, last: int) -> list[tuple[int, int]]:
        """What a row stands for: `first`..`last` without the loose batches between."""
        if first == last:
            return [(first, last)]
        between = "SELECT seq FROM batch WHERE seq BETWEEN ? AND ?"
        others = Ranges((seq, seq) for (seq,) in self._db.execute(between, (first, last)))
        runs = []
        while first <= last:
            first, end = others.gap_after(first - 1)
            end = last if end is None else min(end, last)
            if first <= end:
                runs.append((first, end))
            first = end + 1
        return runs

    def _note_gone(self, first: int, last: int, reason: str) -> None:
        """In the transaction; rows of one reason that touch become one."""
        grow = (
            "UPDATE gone SET last = ?2 WHERE first = (SELECT max(first) FROM gone WHERE first < ?1) "
            "AND last = ?1 - 1 AND reason = ?3"
        )
        self._db.execute(grow, (first, last, reason))
        if not self._db.changes():
            self._db.execute("INSERT INTO gone VALUES (?, ?, ?)", (first, last, reason))

    def _announced(self, batches: Sequence[Batch], gaps: Iterable[Gap]) -> None:
        self.announced.extend(gaps)
        if batches:
            self._advance(batches)
            self._write_head()

    def tend(self) -> None:
        """Take back what was given up when the disk was full, as far as it has room again."""
        if self._head is not None and self._ballast.restore():
            with self._sure():
                self._db.pragma("max_page_count", self.keeping.database_bytes // PAGE_BYTES)

    def days_left(self) -> float:
        """How long an outage that begins now may last, at the mean rate of what is here; NaN: too new to say.

        After that the store would have to push out what was not delivered. What is unsettled already counts
        as the part of the outage that has passed; without an uplink that receipts, all of it is.
        """
        first = self.first_seq()
        oldest_ns, newest_ns = self.time_of(first), self.time_of(self.last_seq)
        span_s = 0.0 if oldest_ns is None or newest_ns is None else (newest_ns - oldest_ns) / 1e9
        if span_s < _SPAN_LEAST_S:
            return nan
        used = (self._pragma("page_count") - self._pragma("freelist_count")) * PAGE_BYTES
        most = min(self.keeping.database_bytes, self._pragma("max_page_count") * PAGE_BYTES)
        lasts_s = min(most, used + self._disk_free_bytes()) / (used / span_s)
        needed = [self.settled(uplink) for uplink in self.keeping.uplinks]
        receipted = [self._with_gone(self._receipted, uplink) for uplink in self.keeping.receipts]
        safe = min((r.missing_after(first - 1) for r in needed), default=first)
        safe = min(safe, max((r.missing_after(first - 1) for r in receipted), default=first))
        waiting_ns = self.time_of(safe)
        waiting_s = 0.0 if waiting_ns is None or newest_ns is None else (newest_ns - waiting_ns) / 1e9
        return max(0.0, lasts_s - waiting_s) / 86400

    def _disk_free_bytes(self) -> int:
        if self._head is None:
            return 0
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    # -- damage --------------------------------------------------------------------------------------

    def _found_damage(self, first: int, last: int, since_ns: int, until_ns: int, count: int) -> None:
        """What was read is not what was committed; it is passed over until `announce_damage`."""
        if (first, last) not in self._damaged and first not in self._gone:
            self._damaged[first, last] = Gap("damaged", self.stream, first, last, since_ns, until_ns, count)

    def announce_damage(self) -> int:
        """Commit a gap record for what was found damaged since the last call; the rows stay for salvage."""
        found, gaps = list(self._damaged.values()), []
        if not found:
            return 0
        with self._writing():
            for gap in found:
                assert gap.from_seq is not None and gap.to_seq is not None  # noqa: PT018 -- `_found_damage` sets both
                runs = self._runs(gap.from_seq, gap.to_seq)
                for a, b in runs:
                    self._note_gone(a, b, "damaged")
                    count = gap.count if len(runs) == 1 else None
                    gaps.append(replace(gap, from_seq=a, to_seq=b, count=count))
            batches = self._insert([gap.draft(self._clock) for gap in gaps], (), ())
        for gap in gaps:
            self._gone.add(gap.from_seq or 0, gap.to_seq)
        self._damaged.clear()
        self._announced(batches, gaps)
        return len(gaps)

    # -- the WAL -------------------------------------------------------------------------------------

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

    def close(self) -> None:
        """Checkpoint and close; the last connection to close removes the WAL."""
        try:
            self._close_db()
        finally:
            if self._head is not None:
                self._head.close()

    def _close_db(self) -> None:
        with suppress(
            apsw.IOError, apsw.FullError, apsw.CorruptError
        ):  # what it could not move, the WAL keeps
            self._db.close()

    # -- reading -------------------------------------------------------------------------------------

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
                batch = Batch(*row)
                first, count = batch.seq + 1, count + 1
                if sha256(batch.payload).digest() == batch.hash:
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
                self._unpacked = begin, [_batch_of(row) for row in rows]
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
            row = self._row("SELECT mono_ns FROM batch WHERE seq = ?", batch.seq) or (0,)
            body = batch.payload[head:-1]
            its_own = mode if mode != self.mode else None
            yield batch.seq, Draft(batch.kind, body, batch.time_ns, row[0], batch.count, its_own)

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
        """The alarm book: id -> JSON."""
        with self._sure():
            return dict(self._db.execute("SELECT id, body FROM alarm"))

    def states(self) -> dict[str, tuple[int, bytes]]:
        """Name -> (the seq it covers, bytes), as last committed."""
        with self._sure():
            return {
                name: (seq, body) for name, seq, body in self._db.execute("SELECT name, seq, body FROM state")
            }

    def size_bytes(self) -> int:
        """Database and WAL."""
        return self._pragma("page_count") * PAGE_BYTES + self.wal_bytes

    # -- inside --------------------------------------------------------------------------------------

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
            if isinstance(cause, (apsw.CorruptError, apsw.NotADBError)) and self._head is not None:
                with suppress(OSError):  # so that the next opening sets it aside instead of failing again
                    (self._folder / _MARKER).touch()
            raise


_SEQ = attrgetter("seq")
_READ_FAILED = (apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ)


def _batch_of(row: packs.Row) -> Batch:
    return Batch(row.seq, "readings", row.time_ns, row.records, row.payload, sha256(row.payload).digest())


def _holds(known: Mapping[str, Ranges], uplink: str, first: int, last: int) -> bool:
    return uplink in known and known[uplink].count(first, last) > last - first


def _join(gaps: list[Gap], gap: Gap) -> None:
    """Append, or where it follows the last one without a break, make that one longer."""
    before = gaps[-1] if gaps else None
    if before is None or before.to_seq is None or before.to_seq + 1 != gap.from_seq:
        gaps.append(gap)
        return
    count = None if before.count is None or gap.count is None else before.count + gap.count
    gaps[-1] = replace(before, to_seq=gap.to_seq, until_ns=gap.until_ns, count=count)
