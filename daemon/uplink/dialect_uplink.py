"""An uplink in any dialect: the queue's decisions carried out over one link after another.

Batches are handed over in groups, as large as `SendQueue` lets fly; an alarm waits for the group before it
and for nothing else. A group that is refused is handed over again one by one, so that one bad batch holds up
no other; likewise one with which a connection was lost. A batch that is out alone when a connection is lost,
and again, may be what the other side never answers: it is set aside, the others go on, and it comes once more
behind them. What was handed over is settled in the store before the next group goes.

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
from typing import TYPE_CHECKING, Never

from daemon.ranges import Ranges
from daemon.seal import place
from daemon.uplink.contract import SendQueue
from daemon.uplink.dialect import Refused, told
from daemon.uplink.queued import RECONNECT_MOST_S, OtherStream, QueuedUplink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from daemon.clock import Clock
    from daemon.spool import Batch, Kind, Spool
    from daemon.uplink.dialect import Dialect, Link
    from daemon.uplink.queued import Pace

log = logging.getLogger(__name__)

MOST_RECENT = 20_000  # of more, the oldest are not handed over again
MOST_RUNS = 8
ALONE_TIMES = 2  # lost with it alone so often, a batch is set aside
MOST_ASIDE = 8  # without an answer to any other in between: then it is the platform that does not answer
MOST_ASIDES = 256  # of more, the others wait behind them
ASIDE_FIRST_S, ASIDE_MOST_S = 60.0, 3600.0  # until it is tried again


class DialectUplink(QueuedUplink):
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
        super().__init__(
            table,
            dialect.where,
            spool,
            clock,
            on_rejected=on_rejected,
            on_quarantined=on_quarantined,
            reconnect_most_s=reconnect_most_s,
            random=random,
        )
        self.withheld = 0  # batches of a test or a simulation that the dialect has no word for
        self._table = table
        self._dialect = dialect
        self._again_s = again_s
        self._recent: deque[tuple[float, int]] = deque(maxlen=MOST_RECENT)  # when settled, which
        self._out: Sequence[Batch] = ()  # handed over, no answer yet
        self._one_by_one = False
        self._alone: dict[int, int] = {}  # how often a connection was lost with this one alone
        self._asides: dict[int, float] = {}  # set aside until then
        self._pauses_s: dict[int, float] = {}  # and for how long
        self._aside = 0  # how many since anything was answered

    async def run(self) -> Never:
        """Hand over and settle until cancelled.

        Raises:
            StoreError: in a group; the store failed, nothing else ends it.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_commits(), name=f"uplink {self.id} commits")
            await self._stay_connected()

    # -- connecting ----------------------------------------------------------------------------------

    def _new_queue(self, settled: Ranges) -> SendQueue:
        return SendQueue(
            settled,
            by_receipt=False,
            window=self._table.window,
            ack_deadline_s=inf,  # the deadline of a group is kept here
            receipt_deadline_s=inf,
            drain_bytes_per_s=self._table.drain_bytes_per_s or inf,
        )

    def _stream_changed(self) -> None:
        self._recent.clear()
        for each in (self._alone, self._asides, self._pauses_s):
            each.clear()
        self._out, self._aside, self._one_by_one = (), 0, False

    async def _connection(self, queue: SendQueue) -> Never:
        async with self._dialect.open() as link:
            self._up(queue)
            try:
                await self._watched(link, queue)
            finally:
                self.connected = False

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
            self._try_asides(queue, loop.time())
            batches = await self._gathered(queue)
            if batches:
                await self._hand_over(link, queue, batches)
                continue
            with contextlib.suppress(TimeoutError):
                due_s = min(queue.next_deadline_s, *self._asides.values(), loop.time() + 3600.0)
                async with asyncio.timeout_at(due_s):
                    await self._wake.wait()

    async def _gathered(self, queue: SendQueue) -> list[Batch]:
        """The next group: as many as may fly, an alarm with nothing behind it."""
        group: list[Batch] = []
        loop = asyncio.get_running_loop()
        while (ask := queue.ask()) is not None:
            if self._spool.stream != self._stream:
                raise OtherStream
            batches = await self._spool.peek(ask.after, ask.upto, ask.lane.kinds, ask.limit, ask.max_bytes)
            if batches and place(batches[0].payload)[1] != self._stream:
                raise OtherStream
            group += queue.found(ask, batches, loop.time())
            if group and ask.lane.kind != "readings":
                break
        return group

    # -- handing over --------------------------------------------------------------------------------

    async def _hand_over(self, link: Link, queue: SendQueue, batches: Sequence[Batch]) -> None:
        if self._one_by_one and len(batches) > 1:
            await self._hand_over_singly(link, queue, batches)
            self._one_by_one = False
            return
        self._out = batches
        try:
            if await self._deliver(link, batches):
                self._answered(queue)
        except Refused as refusal:
            self._out = ()
            if len(batches) == 1:
                (batch,) = batches
                self._held_back(batch.seq, batch.kind, str(refusal), "batches", for_good=refusal.for_good)
            else:
                await self._hand_over_singly(link, queue, batches)
            return
        self._out = ()
        now_s = asyncio.get_running_loop().time()
        for batch in batches:
            self._alone.pop(batch.seq, None)
            self._pauses_s.pop(batch.seq, None)
            if queue.acked(batch.seq, now_s):
                self._to_settle.add(batch.seq)
        if self._again_s:
            self._recent.extend((now_s, batch.seq) for batch in batches)
        self._taken("batches")
        await self._settle()

    async def _hand_over_singly(self, link: Link, queue: SendQueue, batches: Sequence[Batch]) -> None:
        for batch in batches:
            await self._hand_over(link, queue, [batch])

    def _answered(self, queue: SendQueue) -> None:
        """The other side is there: what was set aside while it may not have been is due at once."""
        if self._aside:
            for seq in [seq for seq in self._asides if self._pauses_s[seq] <= ASIDE_FIRST_S]:
                queue.release(seq, behind_all=False)
                del self._asides[seq]
        self._aside = 0

    def _lost(self, queue: SendQueue) -> None:
        """Suspect what was out, and ask for what was settled shortly before."""
        lost_s = asyncio.get_running_loop().time()
        if len(self._out) == 1:
            self._suspect(queue, self._out[0], lost_s)
        self._one_by_one = self._one_by_one or len(self._out) > 1
        self._out = ()
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

    def _suspect(self, queue: SendQueue, batch: Batch, now_s: float) -> None:
        """Set it aside for others, if it was alone often enough; for longer each time they are answered."""
        seq, others_are_answered = batch.seq, self._aside == 0
        self._alone[seq] = self._alone.get(seq, 0) + 1
        if self._alone[seq] < ALONE_TIMES or self._aside >= MOST_ASIDE or len(self._asides) >= MOST_ASIDES:
            return
        if not queue.others(seq):
            return
        self._aside += 1
        before_s = self._pauses_s.get(seq, 0.0)
        longer_s = 2 * before_s if others_are_answered else before_s
        pause_s = self._pauses_s[seq] = min(max(longer_s, ASIDE_FIRST_S), ASIDE_MOST_S)
        self._asides[seq] = now_s + pause_s
        queue.aside(seq)
        text = "uplink %s: batch %d (%s) gets no answer; it is kept and tried again in %.0f s, others go on"
        log.warning(text, self.id, seq, batch.kind, pause_s)

    def _try_asides(self, queue: SendQueue, now_s: float) -> None:
        for seq in [seq for seq, due_s in self._asides.items() if due_s <= now_s]:
            if queue.release(seq, behind_all=True):
                del self._asides[seq]
            else:
                self._asides[seq] = now_s + ASIDE_FIRST_S

    async def _deliver(self, link: Link, batches: Sequence[Batch]) -> bool:
        """Whether there was anything to deliver; then the other side has it."""
        each = [told(batch) for batch in batches]
        if not self._dialect.says_mode:
            sayable = [one for one in each if one.mode == "real"]
            self._withhold(len(each) - len(sayable))
            each = sayable
        try:
            parcels = self._dialect.encode(each)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise Refused(f"it cannot be said: {error!r}", for_good=True) from None
        if not parcels:
            return False
        try:  # a slow link that takes one after the other is no dead one
            async with asyncio.timeout(self._table.ack_deadline_s * len(parcels)):
                await link.deliver(parcels)
        except TimeoutError:
            raise TimeoutError(f"no acknowledgement for {self._table.ack_deadline_s:g} s") from None
        return True

    def _withhold(self, count: int) -> None:
        if count and not self.withheld:
            text = "uplink %s: data of tests and simulations are withheld, its dialect has no word for them"
            log.warning(text, self.id)
        self.withheld += count

    async def _settle(self) -> None:
        ranges = self._to_settle
        if ranges:
            await self._spool.settle(self.id, ranges, stream=self._stream)
            self._to_settle = Ranges()
