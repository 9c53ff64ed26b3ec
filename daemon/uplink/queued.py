"""What every uplink has, whatever it speaks: a queue for the store's stream, connection after connection.

A connection that is lost is made again after a pause with full jitter: after an outage a hundred gateways do
not come back in the same second. When the store gives place to another while we run, its stream is another:
the queue is made anew, and nothing that was acknowledged of the old stream settles anything of the new one.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from math import inf
from random import Random
from typing import TYPE_CHECKING, Never, Protocol

from daemon.ranges import Ranges
from daemon.uplink.contract import Counters, SendQueue, Unsettled

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.clock import Clock
    from daemon.spool import Kind, Spool

log = logging.getLogger(__name__)

RECONNECT_BASE_S, RECONNECT_MOST_S = 0.5, 30.0
STEADY_S = 10.0  # a connection that lasted so long was a good one: the next pause is short again


class Pace(Protocol):
    """What every uplink's table has."""

    @property
    def id(self) -> str: ...
    @property
    def window(self) -> int: ...
    @property
    def ack_deadline_s(self) -> float: ...
    @property
    def drain_bytes_per_s(self) -> float | None: ...


class OtherStream(Exception):
    """The store has given place to another."""


class QueuedUplink(ABC):
    """One platform.

    Args:
        table: the uplink's pace, as the site file has it.
        where: whom it speaks to, for the log.
        spool: where the batches are.
        clock: tells the age of what is unsettled.
        on_rejected: told of each batch that was refused.
        on_quarantined: told of seq, kind and reason when a batch is not tried any more.
        reconnect_most_s: longest pause between two attempts; shorter on the bench.
        random: jitter.
    """

    def __init__(
        self,
        table: Pace,
        where: str,
        spool: Spool,
        clock: Clock,
        *,
        on_rejected: Callable[[], None] | None = None,
        on_quarantined: Callable[[int, Kind, str], None] | None = None,
        reconnect_most_s: float = RECONNECT_MOST_S,
        random: Random | None = None,
    ) -> None:
        self.id = table.id
        self.connected = False
        self._where = where
        self._spool = spool
        self._clock = clock
        self._on_rejected = on_rejected
        self._on_quarantined = on_quarantined
        self._reconnect_most_s = reconnect_most_s
        self._random = random or Random()  # noqa: S311 -- jitter
        self._queue: SendQueue | None = None
        self._stream = ""  # what the queue is for
        self._to_settle = Ranges()  # acknowledged, not yet durable; as bounded as the queue's own ranges
        self._wake = asyncio.Event()
        self._refusals: dict[str, int] = {}  # how many since it was said, by what is refused
        self._trouble = ""

    @property
    def counters(self) -> Counters:
        """What was sent, acknowledged, rejected and settled since the start."""
        return self._queue.counters if self._queue is not None else Counters()

    async def unsettled(self) -> Unsettled:
        """What is committed and not yet settled here, connected or not."""
        settled = self._queue.settled if self._queue is not None else await self._spool.settled(self.id)
        first, last = await self._spool.first_seq(), self._spool.last_seq
        batches = max(0, last - first + 1) - settled.count(first, last)
        if batches <= 0:
            return Unsettled(0, 0.0)
        oldest_ns = await self._spool.time_of(settled.missing_after(first - 1))
        now_ns = self._clock.wall_ns()
        return Unsettled(batches, max(0.0, (now_ns - (oldest_ns or now_ns)) / 1e9))

    def resend(self, stream: str, first: int, last: int) -> str:
        """Send `first`..`last` of `stream` once more; a sentence why not, or nothing."""
        if self._queue is None or stream != self._stream:
            return f"the stream here is {self._stream}"
        if not 1 <= first <= last <= self._spool.last_seq:
            return f"{first}..{last} does not lie within 1..{self._spool.last_seq}"
        if not self._queue.resend(first, last):
            return "too many ranges wait to be sent again"
        self._wake.set()
        return ""

    # -- what each does in its own way -----------------------------------------------------------------

    @abstractmethod
    def _new_queue(self, settled: Ranges) -> SendQueue: ...

    @abstractmethod
    async def _connection(self, queue: SendQueue) -> Never:
        """Connect, and hand over until the connection is lost.

        Raises:
            OSError: it cannot be had, or is lost; with a sentence.
            OtherStream: the store has given place to another.
        """

    @abstractmethod
    def _stream_changed(self) -> None:
        """`_stream` is another from now on."""

    def _lost(self, queue: SendQueue) -> None:  # noqa: B027 -- most have nothing to do then
        """A connection was lost, or could not be had."""

    # -- connecting ----------------------------------------------------------------------------------

    async def _stay_connected(self) -> Never:
        loop = asyncio.get_running_loop()
        attempt = -1
        while True:
            began_s = loop.time()
            queue = await self._queue_of_the_stream()
            try:
                await self._connection(queue)
            except OtherStream:
                log.warning("uplink %s: stream %s has ended; it begins anew", self.id, self._stream)
                continue
            except OSError as error:
                self._log_trouble(str(error) or type(error).__name__)
                self._lost(queue)
            attempt = 0 if loop.time() - began_s > STEADY_S else attempt + 1
            most_s = min(self._reconnect_most_s, RECONNECT_BASE_S * 2.0 ** min(attempt, 16))
            await asyncio.sleep(self._random.uniform(0.0, most_s))

    async def _queue_of_the_stream(self) -> SendQueue:
        """The queue for the stream that the store has now."""
        stream = self._spool.stream
        if self._queue is None or stream != self._stream:
            settled = await self._spool.settled(self.id)
            is_first, self._stream = self._queue is None, stream
            if not is_first:
                self._to_settle = Ranges()
                self._stream_changed()
            self._queue = self._new_queue(settled)
        return self._queue

    async def _watch_commits(self) -> Never:
        news = self._spool.subscribe()
        while True:
            await news.wait()
            if self._queue is not None and self._stream == self._spool.stream:
                self._queue.committed(self._spool.latest)
            self._wake.set()

    # -- refusals --------------------------------------------------------------------------------------

    def _held_back(self, seq: int, kind: Kind, why: str, what: str, *, for_good: bool) -> None:
        """A refused batch stays ours; it is tried again later and stands in nobody's way.

        It is said once for each `what`, until `_taken` of it.
        """
        assert self._queue is not None
        pause_s = self._queue.refused(seq, asyncio.get_running_loop().time(), for_good=for_good)
        if self._on_rejected is not None:
            self._on_rejected()
        if pause_s == inf:
            log.error("uplink %s: batch %d (%s) is in quarantine, it is kept: %s", self.id, seq, kind, why)
            if self._on_quarantined is not None:
                self._on_quarantined(seq, kind, why)
            return
        if what not in self._refusals:
            text = "uplink %s refuses batch %d (%s): %s; it is kept and tried again in %.0f s"
            log.warning(text, self.id, seq, kind, why, pause_s)
        self._refusals[what] = self._refusals.get(what, 0) + 1

    def _taken(self, what: str) -> None:
        """The other side takes it, again perhaps."""
        if refusals := self._refusals.pop(what, 0):
            log.warning("uplink %s takes %s again, %d were refused", self.id, what, refusals)

    # -- saying it once ------------------------------------------------------------------------------

    def _up(self, queue: SendQueue) -> None:
        self.connected = True
        queue.counters.connections += 1
        log.info("uplink %s connected to %s", self.id, self._where)
        self._trouble = ""

    def _log_trouble(self, why: str) -> None:
        if why != self._trouble:
            self._trouble = why
            log.warning("uplink %s: %s; it goes on trying", self.id, why)
