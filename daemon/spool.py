"""The store as the event loop sees it: one thread owns it, whatever is asked of it waits its turn.

The queue before that thread is bounded: when MOST_WAITING calls wait, further callers wait before it, so a
slow disk is felt where readings are gathered and piles nothing up here.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Self, TypeVar

from daemon.store import (
    CHUNK_BYTES,
    KINDS,
    MOST_SEQ,
    Batch,
    Draft,
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

    from daemon.clock import Clock
    from daemon.ranges import Ranges

__all__ = [
    "KINDS",
    "Batch",
    "Draft",
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

MOST_WAITING = 64
_WAL_BYTES = (
    4 << 20
)  # beyond this the WAL is checkpointed between two commits; below it, when nothing happens
_IDLE_S = 1.0


class Spool:
    """Made by `async with Spool.open(...)`; every method may raise what the store raises.

    Attributes:
        stream: the store's identity.
        lost: what had to be set aside at opening, or None.
        last_seq: the newest committed batch.
        latest: the newest committed batch of each kind, 0 if there is none.
    """

    def __init__(
        self, store: Store, thread: ThreadPoolExecutor, on_commit_s: Callable[[float], None] | None
    ) -> None:
        self.stream = store.stream
        self.lost = store.lost
        self.last_seq = store.last_seq
        self.latest: dict[Kind, int] = dict(store.latest)
        self._store = store
        self._thread = thread
        self._on_commit_s = on_commit_s
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
        on_commit_s: Callable[[float], None] | None = None,
    ) -> AsyncIterator[Self]:
        """`Store.open` in a thread of its own, closed at the end.

        Args:
            folder: see `Store.open`.
            mode: see `Store.open`.
            boot_id: see `Store.open`.
            clock: see `Store.open`.
            on_commit_s: told how long each commit took, on the event loop.
        """
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        try:
            store = await loop.run_in_executor(thread, lambda: Store.open(folder, mode, boot_id, clock=clock))
            spool = cls(store, thread, on_commit_s)
            try:
                yield spool
            finally:
                spool._stop_waiting()
                thread.submit(store.close)  # after what is still queued
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

    async def settle(self, uplink: str, ranges: Iterable[tuple[int, int]]) -> None:
        """See `Store.settle`."""
        pairs = list(ranges)
        await self._do(lambda: self._store.settle(uplink, pairs))
        self._tend_wal(self._store.wal_bytes)

    async def trim(self, keep_before_ns: int, uplinks: Iterable[str]) -> int:
        """See `Store.trim`, repeated until nothing is left to delete; commits come in between."""
        names, total = list(uplinks), 0
        while deleted := await self._do(lambda: self._store.trim(keep_before_ns, names)):
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
        return await self._do(lambda: self._store.batches(after, upto, kinds, limit, max_bytes))

    async def readings_after(self, seq: int) -> AsyncIterator[bytes]:
        """The payloads of the `readings` batches after `seq`, up to the newest when the end is reached."""
        while batches := await self.peek(seq, kinds=("readings",)):
            for batch in batches:
                yield batch.payload
            seq = batches[-1].seq

    async def settled(self, uplink: str) -> Ranges:
        """See `Store.settled`."""
        return await self._do(lambda: self._store.settled(uplink))

    async def alarms(self) -> dict[str, bytes]:
        """See `Store.alarms`."""
        return await self._do(self._store.alarms)

    async def states(self) -> dict[str, tuple[int, bytes]]:
        """See `Store.states`."""
        return await self._do(self._store.states)

    async def time_of(self, seq: int) -> int | None:
        """See `Store.time_of`."""
        return await self._do(lambda: self._store.time_of(seq))

    async def first_seq(self) -> int:
        """See `Store.first_seq`."""
        return await self._do(self._store.first_seq)

    async def size_bytes(self) -> int:
        """See `Store.size_bytes`."""
        return await self._do(self._store.size_bytes)

    # -- being told ----------------------------------------------------------------------------------

    async def committed(self, after: int, kinds: Iterable[Kind] = KINDS) -> int:
        """Wait until a batch of one of `kinds` above `after` is committed; returns the newest seq of them."""
        wanted = tuple(kinds)
        while (newest := max(self.latest[kind] for kind in wanted)) <= after:
            await self._grown.wait()
        return newest

    def subscribe(self) -> News:
        """News of commits from now on."""
        return News(self)

    # -- inside --------------------------------------------------------------------------------------

    async def _do(self, work: Callable[[], T]) -> T:
        async with self._turns:
            return await self._loop.run_in_executor(self._thread, work)

    def _commit(
        self,
        drafts: Sequence[Draft],
        alarms: Sequence[tuple[str, bytes]],
        states: Sequence[tuple[str, bytes]],
    ) -> list[Batch]:
        """In the thread; the loop is told even when whoever asked has gone."""
        began_s = perf_counter()
        batches = self._store.commit(drafts, alarms, states)
        took_s = perf_counter() - began_s
        told = (dict(self._store.latest), self._store.wal_bytes, took_s)
        self._loop.call_soon_threadsafe(self._tell, *told)
        return batches

    def _tell(self, latest: dict[Kind, int], wal_bytes: int, took_s: float) -> None:
        self.latest = latest
        self.last_seq = max(latest.values())
        self._grown.set()
        self._grown = asyncio.Event()
        if self._on_commit_s is not None:
            self._on_commit_s(took_s)
        self._tend_wal(wal_bytes)

    def _tend_wal(self, wal_bytes: int) -> None:
        """Checkpoint between commits, never inside: now if the WAL is large, else when nothing happens."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if wal_bytes > _WAL_BYTES:
            self._checkpoint()
        elif wal_bytes:
            self._idle = self._loop.call_later(_IDLE_S, self._checkpoint)

    def _checkpoint(self) -> None:
        if not self._checkpointing:
            self._checkpointing = True
            self._thread.submit(self._checkpoint_in_thread)

    def _checkpoint_in_thread(self) -> None:
        """A failure is remembered by the store and raised at the next call."""
        try:
            self._store.checkpoint_wal()
        finally:
            self._checkpointing = False

    def _stop_waiting(self) -> None:
        if self._idle is not None:
            self._idle.cancel()


class News:
    """Tells one listener of new commits; it holds only the newest, so nothing queues up behind a slow one."""

    def __init__(self, spool: Spool) -> None:
        self.seq = spool.last_seq
        self._spool = spool

    async def wait(self) -> bool:
        """Until something above `seq` is committed; moves `seq` there and says whether an alarm is in it."""
        before = self.seq
        self.seq = await self._spool.committed(before)
        return bool(self._spool.latest["alarms"] > before)
