"""The file in which batches are kept: one SQLite database, one writer, each commit on disk when it returns.

WAL with synchronous=FULL: what `commit` returned survives a power cut (tests/daemon/test_spool_power.py).
One thread owns a `Store`; other processes open the database read-only and never checkpoint it.
What it raises is in daemon/batch.py.
daemon/store_rows.py reads and writes the rows, daemon/store_upkeep.py looks after them; here it is opened,
and committed to.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from secrets import token_hex
from typing import TYPE_CHECKING, Self

import apsw

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
from daemon.room import Keeping
from daemon.seal import Head, HeadBusy, HeadFile, place
from daemon.store_file import MEMORY, connect, named_errors, set_aside
from daemon.store_rows import CHUNK_BYTES, MARKER, MOST_SEQ, holds
from daemon.store_upkeep import StoreUpkeep

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
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


class Store(StoreUpkeep):
    """The open store; made by `open` or `in_memory`, used by one thread. Its attributes: `StoreRows`."""

    # -- opening -----------------------------------------------------------------------------------------

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
                    (folder / MARKER).touch()
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
        path, marker = folder / "spool.db", folder / MARKER
        if not path.exists():
            return None, lost
        store = None
        try:
            store = cls(connect(path, vfs, keeping), folder, head, keeping)
            if not store.stream:  # its making was cut short: nothing was ever in it
                return store, lost
            store._check_mode(mode)
            whole = not marker.exists() and store._ends_well(remembered)
            if whole and store._continues(remembered):
                return store, None
            lost = store._as_lost("store-restored" if whole else "store-lost", remembered)
        except (
            apsw.NotADBError,
            apsw.CorruptError,
            TypeError,
            ValueError,
        ):  # the last two: columns of other types
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

    def _ends_well(self, head: Head | None) -> bool:
        """Whether the newest batch is what it says: the next one will rest on its seq and its hash."""
        if self.last_seq == 0 or head == Head(self.stream, self.last_seq, self._last_hash):
            return True
        (payload,) = self._row("SELECT payload FROM batch WHERE seq = ?", self.last_seq) or (b"",)
        return bool(sha256(payload).digest() == self._last_hash and place(payload)[2] == self.last_seq)

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
            for id_, body, digest in self._db.execute("SELECT id, body, hash FROM alarm"):
                if holds(digest, id_, body):  # what was read before the damage is kept
                    found.append((id_, body))
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

    # -- writing -----------------------------------------------------------------------------------------

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
