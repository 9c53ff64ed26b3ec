"""An uplink in any dialect: the queue's decisions carried out over one link after another.

Batches are handed over in groups, as large as `SendQueue` lets fly; an alarm waits for the group before it
and for nothing else. A group that is refused is handed over again one by one, so that one bad batch holds up
no other. What was handed over is settled in the store before the next group goes.

Where the other side can lose what it took (`again_s`), what was settled shortly before a connection was lost
is handed over once more, behind all else.

Test and simulated data never reach a dialect that cannot say so: they are settled here without being sent,
counted, and said once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from math import inf
from random import Random
from typing import TYPE_CHECKING, Never, Protocol

from daemon.ranges import Ranges
from daemon.seal import place
from daemon.uplink.contract import Counters, SendQueue, Unsettled
from daemon.uplink.dialect import Refused, told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.clock import Clock
    from daemon.spool import Batch, Kind, Spool
    from daemon.uplink.dialect import Dialect, Link

log = logging.getLogger(__name__)

RECONNECT_BASE_S, RECONNECT_MOST_S = 0.5, 30.0
MOST_RECENT = 20_000  # of more, the oldest are not handed over again
MOST_RUNS = 8
STEADY_S = 10.0  # a connection that lasted so long was a good one: the next pause is short again


class Pace(Protocol):
    """What every dialect's table has."""

    @property
    def id(self) -> str: ...
    @property
    def window(self) -> int: ...
    @property
    def ack_deadline_s(self) -> float: ...
    @property
    def drain_bytes_per_s(self) -> float | None: ...


class _OtherStream(Exception):
    """The store has given place to another."""


class DialectUplink:
    """One platform.

    Args:
        table: the uplink's pace, as the site file has it.
        dialect: how it is spoken to.
        spool: where the batches are.
        clock: tells the age of what is unsettled.
        on_rejected: told of each batch that was refused.
        on_quarantined: told of seq, kind and reason when a batch is not tried any more.
        again_s: what was settled so long before a connection is lost may be lost at the other side.
        reconnect_most_s: longest pause between two attempts; shorter on the bench.
        random: jitter.
    """

    def __init__(
        self,
        table: Pace,
        dialect: Dialect,
        spool: Spool,
        clock: Clock,
        *,
        on_rejected: Callable[[], None] | None = None,
        on_quarantined: Callable[[int, Kind, str], None] | None = None,
        again_s: float = 0.0,
        reconnect_most_s: float = RECONNECT_MOST_S,
        random: Random | None = None,
    ) -> None:
        self.id = table.id
        self.connected = False
        self.withheld = 0  # batches of a test or a simulation that the dialect has no word for
        self._table = table
        self._dialect = dialect
        self._spool = spool
        self._clock = clock
        self._on_rejected = on_rejected
        self._on_quarantined = on_quarantined
        self._again_s = again_s
        self._recent: deque[tuple[float, int]] = deque(maxlen=MOST_RECENT)  # when settled, which
        self._reconnect_most_s = reconnect_most_s
        self._random = random or Random()  # noqa: S311 -- jitter
        self._queue: SendQueue | None = None
        self._stream = ""
        self._to_settle = Ranges()  # handed over, not yet durable here
        self._wake = asyncio.Event()
        self._trouble = ""
        self._refusals = 0

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

    async def run(self) -> Never:
        """Hand over and settle until cancelled.

        Raises:
            StoreError: in a group; the store failed, nothing else ends it.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_commits(), name=f"uplink {self.id} commits")
            await self._stay_connected()

    def resend(self, stream: str, first: int, last: int) -> str:
        """Hand `first`..`last` of `stream` over once more; a sentence why not, or nothing."""
        if self._queue is None or stream != self._stream:
            return f"the stream here is {self._stream}"
        if not 1 <= first <= last <= self._spool.last_seq:
            return f"{first}..{last} does not lie within 1..{self._spool.last_seq}"
        if not self._queue.resend(first, last):
            return "too many ranges wait to be sent again"
        self._wake.set()
        return ""

    # -- connecting ----------------------------------------------------------------------------------

    async def _queue_of_the_stream(self) -> SendQueue:
        stream = self._spool.stream
        if self._queue is None or stream != self._stream:
            settled = await self._spool.settled(self.id)
            self._to_settle = Ranges()
            self._recent.clear()
            self._stream = stream
            self._queue = SendQueue(
                settled,
                by_receipt=False,
                window=self._table.window,
                ack_deadline_s=inf,  # the deadline of a group is kept here
                receipt_deadline_s=inf,
                drain_bytes_per_s=self._table.drain_bytes_per_s or inf,
            )
        return self._queue

    async def _stay_connected(self) -> Never:
        loop = asyncio.get_running_loop()
        attempt = -1
        while True:
            began_s = loop.time()
            queue = await self._queue_of_the_stream()
            try:
                async with self._dialect.open() as link:
                    self._up(queue)
                    try:
                        await self._watched(link, queue)
                    finally:
                        self.connected = False
            except _OtherStream:
                log.warning("uplink %s: stream %s has ended; it begins anew", self.id, self._stream)
                continue
            except OSError as error:
                self._log_trouble(str(error) or type(error).__name__)
                self._hand_over_again(queue, loop.time())
            attempt = 0 if loop.time() - began_s > STEADY_S else attempt + 1
            most_s = min(self._reconnect_most_s, RECONNECT_BASE_S * 2.0 ** min(attempt, 16))
            await asyncio.sleep(self._random.uniform(0.0, most_s))  # full jitter

    async def _watched(self, link: Link, queue: SendQueue) -> Never:
        """Hand over until the link is lost.

        Raises:
            OSError: it is.
        """
        watching = asyncio.create_task(link.watch(), name=f"uplink {self.id} link")
        watching.add_done_callback(lambda _: self._wake.set())
        try:
            await self._converse(link, queue, watching)
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            if not watching.cancelled():
                watching.exception()  # seen: it is raised by `_converse`, or another was first

    async def _converse(self, link: Link, queue: SendQueue, watching: asyncio.Task[Never]) -> Never:
        floor = await self._spool.first_seq()  # a batch may be committed meanwhile: `latest` only behind it
        queue.begin(self._spool.latest, floor, self._table.window)
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if watching.done():
                watching.result()
            queue.tick(loop.time())
            batches = await self._gathered(queue)
            if batches:
                await self._hand_over(link, queue, batches)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(queue.next_deadline_s - loop.time(), 3600.0)):
                    await self._wake.wait()

    async def _gathered(self, queue: SendQueue) -> list[Batch]:
        """The next group: as many as may fly, an alarm with nothing behind it."""
        group: list[Batch] = []
        loop = asyncio.get_running_loop()
        while (ask := queue.ask()) is not None:
            if self._spool.stream != self._stream:
                raise _OtherStream
            batches = await self._spool.peek(ask.after, ask.upto, ask.lane.kinds, ask.limit, ask.max_bytes)
            if batches and place(batches[0].payload)[1] != self._stream:
                raise _OtherStream
            group += queue.found(ask, batches, loop.time())
            if group and ask.lane.kind != "readings":
                break
        return group

    # -- handing over --------------------------------------------------------------------------------

    async def _hand_over(self, link: Link, queue: SendQueue, batches: Sequence[Batch]) -> None:
        try:
            await self._deliver(link, batches)
        except Refused as refusal:
            if len(batches) == 1:
                self._refused(queue, batches[0], refusal)
            else:
                for batch in batches:
                    await self._hand_over(link, queue, [batch])
            return
        now_s = asyncio.get_running_loop().time()
        for batch in batches:
            if queue.acked(batch.seq, now_s):
                self._to_settle.add(batch.seq)
        if self._again_s:
            self._recent.extend((now_s, batch.seq) for batch in batches)
        if self._refusals:
            log.warning("uplink %s takes batches again, %d were refused", self.id, self._refusals)
            self._refusals = 0
        await self._settle()

    def _hand_over_again(self, queue: SendQueue, lost_s: float) -> None:
        """Ask for what was settled shortly before `lost_s`."""
        unsure = Ranges()
        for settled_s, seq in self._recent:
            if settled_s >= lost_s - self._again_s:
                unsure.add(seq)
        self._recent.clear()
        pairs = list(unsure)
        if len(pairs) > MOST_RUNS:
            pairs = [(pairs[0][0], pairs[-1][1])]
        for first, last in pairs:
            queue.resend(first, last)

    async def _deliver(self, link: Link, batches: Sequence[Batch]) -> None:
        each = [told(batch) for batch in batches]
        if not self._dialect.says_mode:
            sayable = [one for one in each if one.mode == "real"]
            self._withhold(len(each) - len(sayable))
            each = sayable
        parcels = self._dialect.encode(each)
        if not parcels:
            return
        try:  # a slow link that takes one after the other is no dead one
            async with asyncio.timeout(self._table.ack_deadline_s * len(parcels)):
                await link.deliver(parcels)
        except TimeoutError:
            raise TimeoutError(f"no acknowledgement for {self._table.ack_deadline_s:g} s") from None

    def _withhold(self, count: int) -> None:
        if count and not self.withheld:
            text = "uplink %s: data of tests and simulations are withheld, its dialect has no word for them"
            log.warning(text, self.id)
        self.withheld += count

    def _refused(self, queue: SendQueue, batch: Batch, refusal: Refused) -> None:
        """A refused batch stays ours; it is tried again later and stands in nobody's way."""
        now_s = asyncio.get_running_loop().time()
        pause_s = queue.refused(batch.seq, now_s, for_good=refusal.for_good)
        if self._on_rejected is not None:
            self._on_rejected()
        if pause_s == inf:
            text = "uplink %s: batch %d (%s) is in quarantine, it is kept: %s"
            log.error(text, self.id, batch.seq, batch.kind, refusal)
            if self._on_quarantined is not None:
                self._on_quarantined(batch.seq, batch.kind, str(refusal))
            return
        if not self._refusals:
            text = "uplink %s refuses batch %d (%s): %s; it is kept and tried again in %.0f s"
            log.warning(text, self.id, batch.seq, batch.kind, refusal, pause_s)
        self._refusals += 1

    async def _settle(self) -> None:
        ranges = self._to_settle
        if ranges:
            await self._spool.settle(self.id, ranges, stream=self._stream)
            self._to_settle = Ranges()

    async def _watch_commits(self) -> Never:
        news = self._spool.subscribe()
        while True:
            await news.wait()
            if self._queue is not None and self._stream == self._spool.stream:
                self._queue.committed(self._spool.latest)
            self._wake.set()

    # -- saying it once ------------------------------------------------------------------------------

    def _up(self, queue: SendQueue) -> None:
        self.connected = True
        queue.counters.connections += 1
        log.info("uplink %s connected to %s", self.id, self._dialect.where)
        self._trouble = ""

    def _log_trouble(self, why: str) -> None:
        if why != self._trouble:
            self._trouble = why
            log.warning("uplink %s: %s; it goes on trying", self.id, why)
