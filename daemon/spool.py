"""The store as the event loop sees it: one thread owns it, whatever is asked of it waits its turn.

The queue before that thread is bounded: when MOST_WAITING calls wait, further callers wait before it, so a
slow disk is felt where readings are gathered and piles nothing up here.

A store that breaks is dropped and opened anew in the same call: what a failed commit left is looked for by
seq and hash, and committed again or recognised. If it cannot be opened, or has no room whatever is pushed
out, a store in memory takes its place, with a stream of its own, until the disk can be used again; then all
that was not delivered from memory is committed to the disk. So nothing here waits for the health of a disk,
neither at the start nor later, and what stands in memory alone says so in its first batch.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Never, Self, TypeVar

from daemon.clock import NS, Clock
from daemon.room import Keeping
from daemon.store import (
    CHUNK_BYTES,
    KINDS,
    MOST_SEQ,
    Batch,
    Draft,
    Gap,
    Kind,
    Lost,
    Mode,
    Store,
    StoreBroken,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreMode,
    StoreNewer,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from pathlib import Path

    from daemon.ranges import Ranges

__all__ = [
    "KINDS",
    "Batch",
    "Draft",
    "Gap",
    "Keeping",
    "Kind",
    "Lost",
    "Mode",
    "News",
    "Spool",
    "Store",
    "StoreBroken",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "StoreMode",
    "StoreNewer",
]

T = TypeVar("T")

log = logging.getLogger(__name__)

MOST_WAITING = 64
MEMORY_BYTES = 24 << 20  # of the store in memory; full, it pushes out the oldest readings as any store does
_WAL_BYTES = 4 << 20  # beyond this (or less, of a small store) the WAL is checkpointed between two commits
_IDLE_S = 1.0  # a smaller one when nothing happens
CHORES_EVERY_S = 5.0
COLD_S = 3600.0  # readings so old are packed though they are not settled
_REST = 9  # packing takes at most a tenth of the time
_AGAIN_FIRST_S, _AGAIN_MOST_S = 1.0, 30.0  # between attempts to have the disk back
_READ_FAILURES, _WITHIN_S = 3, 600.0  # so many failed reads in that time: the file is set aside
# Of a folder, what a disk does; anything else (no permission, no folder) is for a person to put right.
_DISK_ERRORS = (
    errno.EIO,
    errno.ENOSPC,
    errno.EROFS,
    errno.EDQUOT,
    errno.ENXIO,
    errno.ENODEV,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ETIMEDOUT,
    errno.EUCLEAN,
)


class Spool:
    """Made by `async with Spool.open(...)`; every method may raise what the store raises.

    Attributes:
        stream: the identity of the store in use.
        generation: rises by one when `stream` changes; seqs of one generation mean nothing in the next.
        replaced: set, and renewed, at that moment.
        trouble: why the store stands in memory, a sentence; empty while it is on the disk.
        lost: what had to be set aside at the last opening, or None.
        last_seq: the newest committed batch.
        latest: the newest committed batch of each kind, 0 if there is none.
        days_left: see `Store.days_left`, as it was a few seconds ago.
    """

    def __init__(
        self,
        source: _Source,
        thread: ThreadPoolExecutor,
        on_commit_s: Callable[[float], None] | None,
        on_gap: Callable[[str], None] | None,
    ) -> None:
        store = source.store
        self.stream = store.stream
        self.generation = 0
        self.replaced = asyncio.Event()
        self.trouble = source.trouble
        self.lost = store.lost
        self.last_seq = store.last_seq
        self.latest: dict[Kind, int] = dict(store.latest)
        self.days_left = float("nan")
        self._source = source
        self._thread = thread
        self._on_commit_s = on_commit_s
        self._on_gap = on_gap
        self._loop = asyncio.get_running_loop()
        self._turns = asyncio.Semaphore(MOST_WAITING)
        self._grown = asyncio.Event()
        self._idle: asyncio.TimerHandle | None = None
        self._checkpointing = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: Path,
        mode: Mode,
        boot_id: str,
        *,
        clock: Clock | None = None,
        keeping: Keeping | None = None,
        vfs: str | None = None,
        on_commit_s: Callable[[float], None] | None = None,
        on_gap: Callable[[str], None] | None = None,
    ) -> AsyncIterator[Self]:
        """`Store.open` in a thread of its own, closed at the end.

        Args:
            folder: see `Store.open`.
            mode: see `Store.open`.
            boot_id: see `Store.open`.
            clock: see `Store.open`.
            keeping: see `Store.open`.
            vfs: see `Store.open`.
            on_commit_s: told how long each commit took, on the event loop.
            on_gap: told the reason of each gap record that the store puts into the chain by itself.

        Raises:
            StoreBusy, StoreNewer, StoreMode, OSError: for a person to put right; a failing disk is not.
        """
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        source = _Source(folder, mode, boot_id, clock or Clock(), keeping or Keeping(), vfs)
        try:
            await loop.run_in_executor(thread, source.start)
            spool = cls(source, thread, on_commit_s, on_gap)
            chores = asyncio.create_task(spool._chores(), name="spool chores")
            chores.add_done_callback(_say_if_it_failed)
            try:
                yield spool
            finally:
                chores.cancel()
                await asyncio.gather(chores, return_exceptions=True)
                spool._stop_waiting()
                thread.submit(source.close)  # after what is still queued
        finally:
            await asyncio.shield(asyncio.to_thread(thread.shutdown))

    # -- writing -------------------------------------------------------------------------------------

    async def commit(
        self,
        drafts: Sequence[Draft],
        alarms: Sequence[tuple[str, bytes]] = (),
        states: Sequence[tuple[str, bytes]] = (),
    ) -> list[Batch]:
        """See `Store.commit`. A caller cancelled while it waits cannot know whether the commit was made."""
        return await self._do(lambda: self._commit(drafts, alarms, states))

    async def settle(
        self, uplink: str, ranges: Iterable[tuple[int, int]], *, stream: str | None = None
    ) -> None:
        """See `Store.settle`; of another `stream` than is in use by now nothing is noted."""
        pairs = list(ranges)

        def settle(store: Store) -> None:
            if stream in (None, store.stream):
                store.settle(uplink, pairs)

        await self._ask(settle)
        self._tend_wal(self._store.wal_bytes)

    async def trim(self, keep_before_ns: int) -> int:
        """See `Store.trim`, repeated until nothing is left to delete; commits come in between."""
        total = 0
        while deleted := await self._ask(lambda store: store.trim(keep_before_ns)):
            total += deleted
            self._tend_wal(self._store.wal_bytes)
        return total

    # -- reading -------------------------------------------------------------------------------------

    async def peek(
        self,
        after: int = 0,
        upto: int = MOST_SEQ,
        kinds: Sequence[Kind] = KINDS,
        limit: int = 100,
        max_bytes: int = CHUNK_BYTES,
    ) -> list[Batch]:
        """See `Store.batches`."""
        return await self._ask(lambda store: store.batches(after, upto, kinds, limit, max_bytes))

    async def readings_after(self, seq: int) -> AsyncIterator[bytes]:
        """The payloads of the `readings` batches after `seq`, up to the newest when the end is reached."""
        while batches := await self.peek(seq, kinds=("readings",)):
            for batch in batches:
                yield batch.payload
            seq = batches[-1].seq

    async def settled(self, uplink: str) -> Ranges:
        """See `Store.settled`."""
        return await self._ask(lambda store: store.settled(uplink))

    async def alarms(self) -> dict[str, bytes]:
        """See `Store.alarms`."""
        return await self._ask(Store.alarms)

    async def states(self) -> dict[str, tuple[int, bytes]]:
        """See `Store.states`."""
        return await self._ask(Store.states)

    async def time_of(self, seq: int) -> int | None:
        """See `Store.time_of`."""
        return await self._ask(lambda store: store.time_of(seq))

    async def first_seq(self) -> int:
        """See `Store.first_seq`."""
        return await self._ask(Store.first_seq)

    async def size_bytes(self) -> int:
        """See `Store.size_bytes`."""
        return await self._ask(Store.size_bytes)

    # -- being told ----------------------------------------------------------------------------------

    async def committed(self, after: int, kinds: Iterable[Kind] = KINDS) -> int:
        """Wait until a batch of one of `kinds` above `after` is committed; returns the newest seq of them.

        Ends as well when another store takes the place of this one: its seqs begin anew.
        """
        wanted, generation = tuple(kinds), self.generation
        while (newest := max(self.latest[kind] for kind in wanted)) <= after:
            if generation != self.generation:
                break
            await self._grown.wait()
        return newest

    def subscribe(self) -> News:
        """News of commits from now on."""
        return News(self)

    # -- inside --------------------------------------------------------------------------------------

    @property
    def _store(self) -> Store:
        return self._source.store

    async def _do(self, work: Callable[[], T]) -> T:
        async with self._turns:
            return await self._loop.run_in_executor(self._thread, work)

    async def _ask(self, work: Callable[[Store], T]) -> T:
        """Have `work` done with the store, once more with the one that takes its place if it breaks."""
        return await self._do(lambda: self._in_thread(work))

    def _in_thread(self, work: Callable[[Store], T]) -> T:
        try:
            done = work(self._store)
        except StoreBroken as error:
            self._source.heal(error)
            self._tell_soon()
            done = work(self._store)
        if self._source.announce_damage():
            self._tell_soon()
        return done

    def _commit(
        self,
        drafts: Sequence[Draft],
        alarms: Sequence[tuple[str, bytes]],
        states: Sequence[tuple[str, bytes]],
    ) -> list[Batch]:
        """In the thread; the loop is told even when whoever asked has gone."""
        began_s = perf_counter()
        batches = self._source.commit(drafts, alarms, states)
        self._tell_soon(perf_counter() - began_s)
        return batches

    def _tell_soon(self, took_s: float | None = None) -> None:
        """From the thread: what is so at this moment."""
        source, store = self._source, self._store
        gaps: list[str] = [gap.reason for gap in store.announced]
        store.announced.clear()
        news = _Told(
            store.stream, source.trouble, store.lost, dict(store.latest), store.wal_bytes, gaps, took_s
        )
        self._loop.call_soon_threadsafe(self._tell, news)

    def _tell(self, news: _Told) -> None:
        self.trouble, self.latest = news.trouble, news.latest
        self.last_seq = max(news.latest.values())
        if news.stream != self.stream:
            self.stream, self.lost = news.stream, news.lost
            self.generation += 1
            self.replaced.set()
            self.replaced = asyncio.Event()
            if news.lost is not None:
                news.gaps.append(news.lost.reason)
        self._grown.set()
        self._grown = asyncio.Event()
        if self._on_commit_s is not None and news.took_s is not None:
            self._on_commit_s(news.took_s)
        if self._on_gap is not None:
            for reason in news.gaps:
                self._on_gap(reason)
        self._tend_wal(news.wal_bytes)

    def _tend_wal(self, wal_bytes: int) -> None:
        """Checkpoint between commits, never inside: now if the WAL is large, else when nothing happens."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if wal_bytes > min(_WAL_BYTES, self._store.keeping.wal_bytes):
            self._checkpoint()
        elif wal_bytes:
            self._idle = self._loop.call_later(_IDLE_S, self._checkpoint)

    def _checkpoint(self) -> None:
        if not self._checkpointing:
            self._checkpointing = True
            self._thread.submit(self._checkpoint_in_thread)

    def _checkpoint_in_thread(self) -> None:
        """A failure is remembered by the store and met at the next call."""
        try:
            with suppress(StoreError):
                self._store.checkpoint_wal()
        finally:
            self._checkpointing = False

    # -- now and then --------------------------------------------------------------------------------

    async def _chores(self) -> Never:
        """Pack what has been settled, take room back, and have the disk back when it can be used again."""
        pause_s = _AGAIN_FIRST_S
        while True:
            await asyncio.sleep(min(pause_s, CHORES_EVERY_S) if self.trouble else CHORES_EVERY_S)
            try:
                if self.trouble:
                    pause_s = min(2 * pause_s, _AGAIN_MOST_S)
                    await self._do(self._source.back_to_disk)
                    self._tell_soon()
                else:
                    pause_s = _AGAIN_FIRST_S
                self.days_left = await self._ask(Store.days_left)
                await self._ask(Store.tend)
                await self._pack()
            except (StoreError, OSError) as error:
                log.debug("chores of the store: %s", error)  # the next commit meets it and says so

    async def _pack(self) -> None:
        cold_ns = self._source.clock.wall_ns() - round(COLD_S * NS)
        packed = 1
        while packed:
            began_s = self._loop.time()
            packed = await self._ask(lambda store: store.pack(cold_ns))
            self._tend_wal(self._store.wal_bytes)
            await asyncio.sleep(_REST * (self._loop.time() - began_s))

    def _stop_waiting(self) -> None:
        if self._idle is not None:
            self._idle.cancel()


def _say_if_it_failed(chores: asyncio.Task[Never]) -> None:
    if not chores.cancelled() and (error := chores.exception()) is not None:
        log.critical("the store is not tended any more: %r; restart the core", error)


class News:
    """Tells one listener of new commits; it holds only the newest, so nothing queues up behind a slow one."""

    def __init__(self, spool: Spool) -> None:
        self.seq = spool.last_seq
        self._generation = spool.generation
        self._spool = spool

    async def wait(self) -> bool:
        """Until something above `seq` is committed, or another store is in use; says whether an alarm came.

        Moves `seq` to the newest; of another store all is new.
        """
        before = self.seq if self._generation == self._spool.generation else 0
        self.seq = await self._spool.committed(before)
        if self._generation != self._spool.generation:
            self._generation, before = self._spool.generation, 0
        return bool(self._spool.latest["alarms"] > before)


@dataclass(frozen=True, slots=True)
class _Told:
    stream: str
    trouble: str
    lost: Lost | None
    latest: dict[Kind, int]
    wal_bytes: int
    gaps: list[str]
    took_s: float | None


class _Source:
    """In the thread: the store in use, on the disk or in memory, and the way from one to the other."""

    def __init__(
        self, folder: Path, mode: Mode, boot_id: str, clock: Clock, keeping: Keeping, vfs: str | None
    ) -> None:
        self.clock = clock
        self.store: Store
        self.trouble = ""
        self._folder = folder
        self._mode: Mode = mode
        self._boot_id = boot_id
        self._keeping = keeping
        self._vfs = vfs
        self._doubtful = False
        self._read_failures: deque[float] = deque(maxlen=_READ_FAILURES)
        self._uncertain: tuple[str, Sequence[Batch], range] = ("", (), range(0))

    def start(self) -> None:
        try:
            self.store = self._open()
        except (StoreFull, StoreBroken, OSError) as error:
            self._go_to_memory(error, Gap("memory-only", "unknown", None))

    def close(self) -> None:
        if self.trouble:
            with suppress(StoreError, OSError):
                self.back_to_disk()
        if self.trouble:
            log.error(
                "stopped with the store in memory alone: what was not delivered is lost (%s)", self.trouble
            )
        self.store.close()

    def commit(
        self,
        drafts: Sequence[Draft],
        alarms: Sequence[tuple[str, bytes]],
        states: Sequence[tuple[str, bytes]],
    ) -> list[Batch]:
        """As `Store.commit`, by whichever store can."""
        broken = self.store
        try:
            return broken.commit(drafts, alarms, states)
        except StoreBroken as error:
            self.heal(error)
            if self.store.stream == broken.stream and self.store.recognised(broken.uncertain):
                return list(broken.uncertain)
            if self.trouble and broken.uncertain:
                first = self.store.last_seq + 1
                seqs = range(first, first + len(drafts))
                self._uncertain = (broken.stream, broken.uncertain, seqs)
            return self.store.commit(drafts, alarms, states)
        except StoreFull as error:
            if self.trouble:  # this is the one in memory already
                raise
            self._leave_disk(error)
            return self.store.commit(drafts, alarms, states)

    def heal(self, error: StoreBroken) -> None:
        """Drop the store that broke and open it anew; if that fails too, go on in memory."""
        broken = self.store
        log.error("%s; it is opened anew", error)
        self._doubtful = True
        if broken.unreadable:
            self._read_failures.append(perf_counter())
        broken.close()
        try:
            self.store = self._open()
        except (StoreFull, StoreBroken, OSError) as again:
            self._go_to_memory(again, Gap("memory-only", broken.stream, broken.last_seq + 1))
        else:
            log.warning(
                "the store takes readings again: stream %s, batch %d", self.store.stream, self.store.last_seq
            )

    def announce_damage(self) -> int:
        try:
            return self.store.announce_damage()
        except StoreError as error:
            log.debug("damage is announced later: %s", error)
            return 0

    def back_to_disk(self) -> None:
        """Open the store on the disk again, and commit to it what memory holds and nobody has."""
        memory = self.store
        try:
            disk = self._open()
        except (StoreFull, StoreBroken, OSError) as error:
            self.trouble = str(error)
            return
        try:
            self._move(memory, disk)
        except StoreError as error:
            self.trouble = str(error)
            disk.close()
            return
        log.warning("the store is on the disk again: stream %s follows %s", disk.stream, memory.stream)
        memory.close()
        self.store, self.trouble = disk, ""

    def _move(self, memory: Store, disk: Store) -> None:
        """Commit to the disk what was not delivered from memory, after a record that marks it as a repeat.

        A commit that broke, and was then made in memory, may be found on the disk all the same: it is a
        repeat too, and is not made a second time.
        """
        stream, uncertain, twice = self._uncertain
        made = twice if disk.stream == stream and disk.recognised(uncertain) else range(0)
        moving = [
            (seq, draft)
            for seq, draft in memory.drafts()
            if seq > 1 and seq not in made and not memory.delivered(seq, seq)
        ]
        drafts = [draft for _, draft in moving]
        seqs = [*made, *(seq for seq, _ in moving)]
        if seqs:
            times = [draft.time_ns for draft in drafts] + [batch.time_ns for batch in uncertain]
            gap = Gap("moved", memory.stream, min(seqs), max(seqs), min(times), max(times), len(seqs))
            drafts.insert(0, gap.draft(self.clock))
        states = [(name, body) for name, (_, body) in memory.states().items()]
        disk.commit(drafts, list(memory.alarms().items()), states)

    def _leave_disk(self, error: StoreError) -> None:
        full = self.store
        full.close()
        self._go_to_memory(error, Gap("memory-only", full.stream, full.last_seq + 1))

    def _go_to_memory(self, error: StoreError | OSError, gap: Gap) -> None:
        if isinstance(error, OSError) and error.errno not in _DISK_ERRORS:
            raise error
        self.trouble = str(error)
        log.error("the store cannot be used: %s; batches are kept in memory until it can", error)
        keeping = replace(self._keeping, most_bytes=MEMORY_BYTES)
        gap = replace(gap, since_ns=self.clock.wall_ns())
        self.store = Store.in_memory(self._mode, self._boot_id, self.clock, keeping, gap)

    def _open(self) -> Store:
        now_s = perf_counter()
        failing = len(self._read_failures) == _READ_FAILURES and now_s - self._read_failures[0] < _WITHIN_S
        store = Store.open(
            self._folder,
            self._mode,
            self._boot_id,
            clock=self.clock,
            vfs=self._vfs,
            keeping=self._keeping,
            doubtful=self._doubtful,
            unreadable=failing,
        )
        self._doubtful = False
        if failing:
            self._read_failures.clear()
        return store
