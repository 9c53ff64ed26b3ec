"""The file in which batches are kept: one SQLite database, one writer, each commit on disk when it returns.

WAL with synchronous=FULL: what `commit` returned survives a power cut (tests/daemon/test_spool_power.py).
One thread owns a `Store`; other processes open the database read-only and never checkpoint it.

    StoreError
    ├── StoreBusy     another process writes it
    ├── StoreNewer    made by a newer version of this program
    ├── StoreMode     holds data of another mode; real and simulated never mix
    ├── StoreFull     no room: this commit was not made, a later one may be
    └── StoreBroken   the disk or the file failed: takes nothing any more until it is opened anew
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

import apsw
import msgspec

from daemon.clock import Clock
from daemon.ranges import Ranges
from daemon.reading import rfc3339
from daemon.seal import ZERO_HASH, Head, HeadBusy, HeadFile, envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Mode = Literal["real", "test", "simulated"]
Kind = Literal["readings", "alarms", "gaps", "audit"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
MOST_SEQ = (1 << 63) - 1
CHUNK_BYTES = 1 << 20  # a peek stops after the batch that fills it

SYNCHRONOUS = "FULL"  # NORMAL can lose what was acknowledged; the power-cut test proves that it would notice
_PAGE_BYTES = 4096  # SQLite's default, which nothing here changes
_BUSY_MS = 5000
_MARKER = "damaged"  # this file beside the store: damage was found while it was in use
_MIGRATION = re.compile(r"^-- migration (\d+)$", re.MULTILINE)
_TRIM_BATCHES = 500
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


class StoreError(Exception):
    """The store cannot do what was asked."""


class StoreBusy(StoreError):
    pass


class StoreNewer(StoreError):
    pass


class StoreMode(StoreError):
    pass


class StoreFull(StoreError):
    pass


class StoreBroken(StoreError):
    pass


@dataclass(frozen=True, slots=True)
class Draft:
    """What becomes a batch: `body` is its JSON members without braces, `count` the readings or records in it.

    `time_ns` is UTC, `mono_ns` the monotonic stamp beside it, both of the newest record.
    """

    kind: Kind
    body: bytes
    time_ns: int
    mono_ns: int
    count: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A committed batch: `payload` is what leaves, `hash` its SHA-256."""

    seq: int
    kind: Kind
    time_ns: int
    count: int
    payload: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """What a fresh store knows of the one whose place it takes; told upstream as its first batch."""

    reason: Literal["store-lost", "store-restored"]
    of: str  # stream
    from_seq: int  # the first that may never have left
    since_ns: int | None = None  # time of the newest batch that was seen
    alarms: tuple[tuple[str, bytes], ...] = ()

    def draft(self, clock: Clock) -> Draft:
        """The gap record; how far the lost store had come is not known, so `to_seq` is null."""
        now_ns = clock.wall_ns()
        record = {
            "of": self.of,
            "from_seq": self.from_seq,
            "to_seq": None,
            "from": None if self.since_ns is None else rfc3339(self.since_ns),
            "to": rfc3339(now_ns),
            "count": None,
            "reason": self.reason,
        }
        return Draft("gaps", msgspec.json.encode(record)[1:-1], now_ns, clock.monotonic_ns(), 1)


class Store:
    """The open store; made by `open`, used by one thread.

    Attributes:
        stream: the store's identity, made with it.
        last_seq: the newest batch, 0 before the first.
        latest: the newest batch of each kind, 0 if there is none.
        lost: what had to be set aside to open this one, or None.
    """

    def __init__(self, db: apsw.Connection, folder: Path, head: HeadFile) -> None:
        self.lost: Lost | None = None
        self._db = db
        self._folder = folder
        self._head = head
        self._boot = 0
        self._broken = ""
        self._wal_pages = 0
        db.set_wal_hook(self._note_wal)
        identity = self._row("SELECT stream, mode, replaces FROM store")
        self.stream, self.mode, self._replaces = identity or ("", "", None)
        self.last_seq, self._last_hash = self._row(_LAST) or (0, ZERO_HASH)
        self.latest: dict[Kind, int] = {kind: (self._row(sql) or (0,))[0] for kind, sql in _NEWEST.items()}
        self._settled: dict[str, Ranges] = {}
        for uplink, first, last in db.execute("SELECT uplink, first, last FROM settled"):
            self._settled.setdefault(uplink, Ranges()).add(first, last)

    # -- opening -------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls, folder: Path, mode: Mode, boot_id: str, *, clock: Clock | None = None, vfs: str | None = None
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
            clock: stamps that gap record and the name.
            vfs: name of a registered apsw VFS, for the power-cut tests.

        Raises:
            StoreBusy, StoreNewer, StoreMode: see above; nothing was touched.
            StoreBroken: the disk fails.
            OSError: the folder cannot be used.
        """
        clock = clock or Clock()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            head = HeadFile(folder / "head")
        except HeadBusy:
            raise StoreBusy(f"another process writes the store in {folder}: stop it first") from None
        store = None
        try:
            with _named_errors():
                store, lost = cls._reopen(folder, mode, head, clock, vfs)
                if store is None:
                    store = cls(_connect(folder / "spool.db", vfs), folder, head)
                if store.stream:
                    store._boot = store._boot_row(boot_id)
                else:
                    store._found(mode, boot_id, lost, clock)
                store._write_head()
                return store
        except BaseException:
            if store is not None:
                store._db.close()
            head.close()
            raise

    @classmethod
    def _reopen(
        cls, folder: Path, mode: Mode, head: HeadFile, clock: Clock, vfs: str | None
    ) -> tuple[Self | None, Lost | None]:
        """The store that is there, if it can go on, and what is lost if it cannot or is not there."""
        remembered = head.read()
        lost = Lost("store-lost", remembered.stream, 1) if remembered and remembered.seq else None
        path, marker = folder / "spool.db", folder / _MARKER
        if not path.exists():
            return None, lost
        store = None
        try:
            store = cls(_connect(path, vfs), folder, head)
            if not store.stream:  # its making was cut short: nothing was ever in it
                return store, lost
            store._check_mode(mode)
            if not marker.exists() and store._continues(remembered):
                return store, None
            lost = store._as_lost("store-lost" if marker.exists() else "store-restored", remembered)
        except (apsw.NotADBError, apsw.CorruptError):
            lost = lost or Lost("store-lost", "unknown", 1)
        except StoreError:
            if store is not None:
                store._db.close()
            raise
        if store is not None:
            store._db.close()
        _set_aside(path, clock)
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
        return row is None or row[0] == head.hash  # None: seq 0, or trimmed

    def _as_lost(self, reason: Literal["store-lost", "store-restored"], head: Head | None) -> Lost:
        newest = self._row("SELECT time_ns FROM batch WHERE seq = ?", self.last_seq)
        ours = head is None or head.stream == self.stream
        unsettled = min((ranges.missing_after(0) for ranges in self._settled.values()), default=1)
        return Lost(
            reason,
            self.stream if head is None else head.stream,
            unsettled if ours else 1,
            newest[0] if newest and ours else None,
            self._alarms_as_far_as_readable(),
        )

    def _alarms_as_far_as_readable(self) -> tuple[tuple[str, bytes], ...]:
        found = []
        with suppress(apsw.CorruptError, apsw.NotADBError):
            for row in self._db.execute("SELECT id, body FROM alarm"):
                found.append((row[0], row[1]))  # noqa: PERF401 -- what was read before the damage is kept
        return tuple(found)

    def _found(self, mode: Mode, boot_id: str, lost: Lost | None, clock: Clock) -> None:
        """Give the empty store its identity, and its first batch if it takes another's place."""
        self.stream, self.mode, self.lost = token_hex(8), mode, lost
        drafts = [] if lost is None else [lost.draft(clock)]
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

    # -- writing -------------------------------------------------------------------------------------

    def commit(
        self,
        drafts: Sequence[Draft],
        alarms: Sequence[tuple[str, bytes]] = (),
        states: Sequence[tuple[str, bytes]] = (),
    ) -> list[Batch]:
        """Seal and store, all or nothing; on the disk when this returns.

        Args:
            drafts: become batches, in this order.
            alarms: id and JSON; new or changed rows of the alarm book.
            states: name and bytes; what judging continues from after a restart, of the moment when the
                last of `drafts` had been judged.

        Raises:
            StoreFull: nothing was stored.
            StoreBroken: nothing of it counts as stored.
        """
        with self._writing():
            batches = self._insert(drafts, alarms, states)
        if batches:
            self._advance(batches)
            self._write_head()
        return batches

    def _insert(
        self,
        drafts: Sequence[Draft],
        alarms: Sequence[tuple[str, bytes]],
        states: Sequence[tuple[str, bytes]],
    ) -> list[Batch]:
        batches = []
        prev = self._last_hash
        for seq, draft in enumerate(drafts, self.last_seq + 1):
            payload = envelope(self.mode, self.stream, seq, prev, draft.body)
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
        try:
            self._head.write(Head(self.stream, self.last_seq, self._last_hash))
        except OSError as error:
            self._broken = f"the head file cannot be written: {error.strerror}"
            raise StoreBroken(self._broken) from error

    def settle(self, uplink: str, ranges: Iterable[tuple[int, int]]) -> None:
        """Note, durably, that `ranges` (closed intervals of seq) are safe at the other end of `uplink`."""
        settled = self.settled(uplink)
        with self._writing():
            for pair in ranges:
                first, last = settled.add(*pair)
                self._db.execute(
                    "DELETE FROM settled WHERE uplink = ? AND first BETWEEN ? AND ?", (uplink, first, last)
                )
                self._db.execute("INSERT INTO settled VALUES (?, ?, ?)", (uplink, first, last))
        self._settled[uplink] = settled

    def trim(self, keep_before_ns: int, uplinks: Iterable[str]) -> int:
        """Delete the oldest batches that are settled on all of `uplinks` and older than `keep_before_ns`.

        Only from the front, so that what stays is one unbroken chain: a batch that has to stay keeps all
        after it. The newest batch always stays. Deletes at most 500 at once, so that no commit waits long;
        returns how many, to be called again until 0. The file does not shrink: its pages are used again.
        """
        first = self.first_seq()
        unsettled = (self.settled(uplink).missing_after(first - 1) for uplink in uplinks)
        cut = min(first + _TRIM_BATCHES, self.last_seq, *unsettled)
        with self._sure():
            stays = self._row(
                "SELECT seq FROM batch WHERE seq < ? AND time_ns >= ? ORDER BY seq LIMIT 1",
                cut,
                keep_before_ns,
            )
        cut = stays[0] if stays else cut
        if cut > first:
            with self._writing():
                self._db.execute("DELETE FROM batch WHERE seq < ?", (cut,))
        return int(max(0, cut - first))

    @property
    def wal_bytes(self) -> int:
        """What the next checkpoint has to move."""
        return self._wal_pages * _PAGE_BYTES

    def checkpoint_wal(self) -> None:
        """Move the WAL into the database, as far as no reader stands in the way; outside commits."""
        if self._wal_pages:
            with self._sure():
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._wal_pages = 0

    def close(self) -> None:
        """Checkpoint and close; the last connection to close removes the WAL."""
        try:
            self._db.close()
        finally:
            self._head.close()

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
            for row in self._db.execute(_SELECT[tuple(kinds)], (after + 1, upto, limit)):
                found.append(Batch(*row))
                size += len(found[-1].payload)
                if size >= max_bytes:
                    break
        return found

    def walk(self, after: int = 0, kinds: Sequence[Kind] = KINDS) -> Iterator[Batch]:
        """All batches after `after`, in chunks: between two of them no read transaction is open."""
        while chunk := self.batches(after, kinds=kinds):
            yield from chunk
            after = chunk[-1].seq

    def readings_after(self, seq: int) -> Iterator[bytes]:
        """The payloads of all `readings` batches after `seq`."""
        return (batch.payload for batch in self.walk(seq, ("readings",)))

    def time_of(self, seq: int) -> int | None:
        """When `seq`, or the first batch after it, was taken (ns, UTC)."""
        with self._sure():
            row = self._row("SELECT time_ns FROM batch WHERE seq >= ? ORDER BY seq LIMIT 1", seq)
        return row[0] if row else None

    def first_seq(self) -> int:
        """The oldest batch that is still here; 1 for an empty store."""
        with self._sure():
            return int((self._row("SELECT seq FROM batch ORDER BY seq LIMIT 1") or (1,))[0])

    def settled(self, uplink: str) -> Ranges:
        """What is settled on `uplink`; the caller's own copy."""
        return self._settled.get(uplink, Ranges()).copy()

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
        with self._sure():
            (pages,) = self._row("PRAGMA page_count") or (0,)
        return int(pages) * _PAGE_BYTES + self.wal_bytes

    # -- inside --------------------------------------------------------------------------------------

    def _row(self, sql: str, *bindings: Any) -> tuple[Any, ...] | None:
        return self._db.execute(sql, bindings).fetchone()

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
            with _named_errors():
                yield
        except StoreBroken as error:
            self._broken = str(error)
            if isinstance(error.__cause__, (apsw.CorruptError, apsw.NotADBError)):
                (
                    self._folder / _MARKER
                ).touch()  # so that the next start sets it aside instead of failing again
            raise


@contextmanager
def _named_errors() -> Iterator[None]:
    """SQLite's errors by our names; BUSY and misuse are mistakes of ours and pass as they are."""
    try:
        yield
    except apsw.FullError as error:
        raise StoreFull("no room for the store: the disk is full") from error
    except apsw.IOError as error:
        raise StoreBroken(f"the disk failed under the store: {error}") from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StoreBroken(f"the store is damaged: {error}") from error


def _connect(path: Path, vfs: str | None) -> apsw.Connection:
    """A connection for the writer, with the schema as this version wants it."""
    db = apsw.Connection(str(path), vfs=vfs)
    try:
        db.set_busy_timeout(_BUSY_MS)
        journal = db.pragma("journal_mode", "wal")
        if journal != "wal":
            raise StoreBroken(f"{path.parent} cannot hold the store (no WAL there): use a local disk")  # noqa: TRY301 -- the connection is closed below
        db.pragma("synchronous", SYNCHRONOUS)
        db.pragma("wal_autocheckpoint", 0)
        db.pragma("journal_size_limit", 16 << 20)
        _migrate(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _migrate(db: apsw.Connection, path: Path) -> None:
    """Bring the schema up to the last migration of spool.sql, each step whole or not at all.

    Raises:
        StoreNewer: it is beyond that already.
    """
    _, *parts = _MIGRATION.split(Path(__file__).with_name("spool.sql").read_text())
    steps = dict(zip(map(int, parts[::2]), parts[1::2], strict=True))
    version = db.pragma("user_version")
    if version > max(steps):
        raise StoreNewer(
            f"{path} was written by a newer Pondwatch (schema {version}, this one knows {max(steps)}): "
            "install that version again, or choose another [store] path"
        )
    for number in range(version + 1, max(steps) + 1):
        db.execute(f"BEGIN IMMEDIATE; {steps[number]}; PRAGMA user_version={number}; COMMIT")


def _set_aside(path: Path, clock: Clock) -> None:
    """Keep the file and its WAL under another name; the WAL first, so that no cut parts them unnoticed."""
    moment = datetime.fromtimestamp(clock.wall_ns() // 1_000_000_000, UTC)
    aside = f"{path.name}.bad-{moment:%Y%m%dT%H%M%SZ}-{token_hex(2)}"
    for suffix in ("-wal", ""):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(path.with_name(aside + suffix))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
