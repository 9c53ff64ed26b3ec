"""Readings and alarms into committed batches.

Readings wait at most the linger time for company, an alarm for nobody. While a commit is under way the
next one gathers, so a slow disk makes larger commits and not a longer queue. When the disk takes nothing
at all, MOST_WAITING readings are kept in memory; beyond that the oldest readings (never alarms) are
dropped, and the gap is announced in the chain as soon as the disk takes something again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from daemon.reading import rfc3339
from daemon.spool import Draft, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from daemon.clock import Clock
    from daemon.config import Site
    from daemon.reading import ReadingFrame
    from daemon.spool import Mode, Spool


log = logging.getLogger(__name__)

BATCH_READINGS = 2_000  # one payload holds at most so many
MOST_WAITING = 200_000  # readings in memory while the disk takes nothing
RETRY_S = 1.0


def site_head(site: Site) -> bytes:
    """The members that every payload of this gateway begins with."""
    names = (msgspec.json.encode(site.site.id), msgspec.json.encode(site.site.gateway))
    return b'"site":%s,"gateway":%s,' % names


class Writer:
    """Owns what is not yet on disk.

    Args:
        spool: where batches are committed.
        site: names itself in each payload, and says how long readings linger.
        states: name -> what gives its state; those marked dirty are stored with the commit that carries the
            readings which moved them, so that a restart continues exactly there.
    """

    def __init__(
        self,
        spool: Spool,
        clock: Clock,
        site: Site,
        states: Mapping[str, Callable[[], object]],
        on_gap: Callable[[str], None],
    ) -> None:
        self._spool = spool
        self._clock = clock
        self._head = site_head(site)
        self._linger_s = site.store.linger_s
        self._states = states
        self._on_gap = on_gap
        self._frames: deque[ReadingFrame | Draft] = deque()
        self._waiting = 0
        self._others: list[Draft] = []
        self._alarm_rows: dict[str, bytes] = {}
        self._dirty: set[str] = set()
        self._dropped: list[tuple[int, int, int]] = []  # count, first and last time_ns
        self._some = asyncio.Event()
        self._urgent = asyncio.Event()
        self._encoder = msgspec.json.Encoder()
        self._stopping = False
        self.mode: Callable[[], Mode | None] = lambda: None  # of payloads, where it is not the store's
        self._since_s: float | None = None
        self.failing_since_s: float | None = None

    # -- taking --------------------------------------------------------------------------------------

    def put(self, frame: ReadingFrame) -> None:
        """Take the readings of one tick."""
        self._frames.append(frame)
        self._waiting += len(frame.channels)
        if self._waiting > MOST_WAITING:
            self._drop_oldest()
        self._some.set()

    def put_urgent(self, drafts: Iterable[Draft], alarm_rows: Mapping[str, bytes]) -> None:
        """Take alarms, gaps or audit records; they are committed at once, after the readings before them."""
        self._others.extend(drafts)
        self._alarm_rows.update(alarm_rows)
        self._some.set()
        self._urgent.set()

    def put_in_place(self, draft: Draft) -> None:
        """Take a record that stands between what came before and what comes after it; committed at once."""
        self._frames.extend((*self._others, draft))
        self._others = []
        self._some.set()
        self._urgent.set()

    def mark(self, names: Iterable[str]) -> None:
        """These states have moved."""
        self._dirty.update(names)

    def hanging_s(self) -> float:
        """For how long the commit under way has been under way; 0.0 when none is."""
        return 0.0 if self._since_s is None else asyncio.get_running_loop().time() - self._since_s

    # -- writing -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit until `stop`, and all that waits then."""
        while not self._stopping or self._some.is_set():
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger_s):
                    await self._urgent.wait()
            await self._commit(*await self._gather())

    def stop(self) -> None:
        """Nothing more will come: commit what is here and end."""
        self._stopping = True
        self._some.set()
        self._urgent.set()

    async def _commit(
        self, drafts: list[Draft], rows: list[tuple[str, bytes]], states: list[tuple[str, bytes]]
    ) -> None:
        """One commit; kept and tried again while the disk refuses."""
        loop = asyncio.get_running_loop()
        while drafts:
            self._since_s = loop.time()
            try:
                await self._spool.commit(drafts, rows, states)
            except StoreError as error:
                if self.failing_since_s is None:
                    self.failing_since_s = loop.time()
                    log.error("the store takes nothing: %s; readings are kept in memory", error)  # noqa: TRY400
                self._since_s = None
                if self._stopping:
                    log.error("stopped with %d batches the store did not take", len(drafts))  # noqa: TRY400
                    return
                await asyncio.sleep(RETRY_S)
            else:
                drafts = []
            finally:
                self._since_s = None
        if self.failing_since_s is not None:
            log.warning("the store takes readings again after %.0f s", loop.time() - self.failing_since_s)
            self.failing_since_s = None

    async def _gather(self) -> tuple[list[Draft], list[tuple[str, bytes]], list[tuple[str, bytes]]]:
        """All that waits, as drafts; states are those of this very moment."""
        self._some.clear()
        self._urgent.clear()
        frames, self._frames, self._waiting = self._frames, deque(), 0
        others, self._others = self._others, []
        rows, self._alarm_rows = self._alarm_rows, {}
        dropped, self._dropped = self._dropped, []
        dirty, self._dirty = self._dirty, set()
        states = [(name, self._encoder.encode(self._states[name]())) for name in sorted(dirty)]
        drafts = [self._gap(*gap) for gap in dropped]
        drafts.extend([draft async for draft in self._batches(frames)])
        drafts += others
        if (mode := self.mode()) is not None:
            drafts = [replace(draft, mode=mode) for draft in drafts]
        return drafts, list(rows.items()), states

    async def _batches(self, frames: deque[ReadingFrame | Draft]) -> AsyncIterator[Draft]:
        texts: list[bytes] = []
        count = 0
        last: ReadingFrame | None = None
        while frames:
            taken = frames.popleft()
            more = 0 if isinstance(taken, Draft) else len(taken.channels)
            if last is not None and (not more or count + more > BATCH_READINGS):
                yield self._batch(texts, count, last)
                texts, count, last = [], 0, None
                await asyncio.sleep(0)  # let the lines be served between two large batches
            if isinstance(taken, Draft):
                yield taken
            elif more > BATCH_READINGS:
                rows = list(taken)
                for at in range(0, more, BATCH_READINGS):
                    part = rows[at : at + BATCH_READINGS]
                    yield self._batch([self._encoder.encode(part)[1:-1]], len(part), taken)
            else:
                texts.append(taken.json())
                count, last = count + more, taken
        if last is not None:
            yield self._batch(texts, count, last)

    def _batch(self, texts: Sequence[bytes], count: int, last: ReadingFrame) -> Draft:
        body = b'%b"readings":[%b]' % (self._head, b",".join(texts))
        return Draft("readings", body, last.time_ns, last.mono_ns, count)

    # -- losing, which is said -----------------------------------------------------------------------

    def _drop_oldest(self) -> None:
        frame = self._frames.popleft()
        if isinstance(frame, Draft):  # records are kept; they no longer stand in their place
            self._others.append(frame)
            return
        self._waiting -= len(frame.channels)
        count, first_ns = len(frame.channels), frame.time_ns
        if self._dropped:
            before, first_ns, _ = self._dropped.pop()
            count += before
        else:
            log.error("memory for readings is full: the oldest are dropped and will be announced as a gap")
            self._on_gap("memory-full")
        self._dropped.append((count, first_ns, frame.time_ns))

    def _gap(self, count: int, first_ns: int, last_ns: int) -> Draft:
        record = {
            "of": self._spool.stream,
            "from_seq": None,
            "to_seq": None,
            "from": rfc3339(first_ns),
            "to": rfc3339(last_ns),
            "count": count,
            "reason": "memory-full",
        }
        body = self._head + self._encoder.encode(record)[1:-1]
        return Draft("gaps", body, last_ns, self._clock.monotonic_ns(), 1)
