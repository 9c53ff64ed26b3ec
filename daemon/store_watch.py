"""What the core has to know of its store: an alarm while batches stand in memory, and one alarm book.

A core that started without its disk has an empty book. When the disk can be used again, what was open there
is taken up; where the same thing was raised anew meanwhile, the older alarm is closed and names the newer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Never

import msgspec

from daemon import alarms, reasons
from daemon.alarms import Observation, Subject
from daemon.reading import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.alarms import Alarm, AlarmBook
    from daemon.clock import Clock
    from daemon.spool import Spool

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
OURSELVES = "pondwatch"
_STORE = Subject("system", "store")


async def book_of(spool: Spool) -> dict[str, Alarm]:
    """The stored alarm book by id; where a row has rotted, the alarm as the chain told it last, put back."""
    rows = await spool.alarms()
    book = alarms.readable(rows)
    if len(book) == len(rows):
        return book
    told: dict[str, Alarm] = {}
    after = 0
    while batches := await spool.peek(after, kinds=("alarms",)):
        for batch in batches:
            with contextlib.suppress(msgspec.MsgspecError):  # of a version that said it otherwise
                alarm = alarms.decode(batch.payload)
                told[alarm.id] = alarm
        after = batches[-1].seq
    back = {
        id_: alarm
        for id_, alarm in told.items()
        if id_ not in book and (id_ in rows or alarm.response != "closed")  # an id may have rotted too
    }
    for alarm in back.values():
        log.warning("alarm %s is taken from the chain, %s %s", alarm.id, alarm.condition, alarm.response)
    await spool.commit([], [(id_, alarms.encode(alarm)) for id_, alarm in back.items()])
    return book | back


class StoreWatch:
    """Made by the composition root; `run` watches until cancelled.

    Args:
        spool: which store is in use.
        book: the running alarm book.
        clock: stamps.
        announce: takes changed alarms on to the chain and to whoever follows them.
        renew: told when another store is in use, so that every state is stored in it.
    """

    def __init__(
        self,
        spool: Spool,
        book: AlarmBook,
        clock: Clock,
        announce: Callable[[Sequence[Alarm]], None],
        renew: Callable[[], None],
    ) -> None:
        self._spool = spool
        self._book = book
        self._clock = clock
        self._announce = announce
        self._renew = renew
        self._generation = spool.generation

    async def run(self) -> Never:
        """Raises StoreError when the store fails meanwhile; the caller begins again."""
        while True:
            self._judge()
            if self._spool.generation != self._generation:
                generation = self._spool.generation
                await self._take_up()
                self._generation = generation
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._spool.replaced.wait()

    def _judge(self) -> None:
        trouble, now_ns = self._spool.trouble, self._clock.wall_ns()
        if trouble:
            reason = reasons.store_in_memory(trouble)
            seen = Observation("none", "present", now_ns, reason, evidence={"error": trouble})
        else:
            seen = Observation("none", "gone", now_ns, reasons.store_back())
        changed = self._book.observe(_STORE, seen)
        if changed is not None:
            self._announce([changed])

    async def _take_up(self) -> None:
        """The book of the store that is in use now, and the running one, become one."""
        stored = await book_of(self._spool)
        ours = {alarm.id.rpartition(":")[0]: alarm for alarm in self._book.open()}
        older = []
        for alarm in stored.values():
            mine = ours.get(alarm.id.rpartition(":")[0])
            if alarm.response == "closed" or (mine is not None and mine.id == alarm.id):
                continue
            if mine is None:
                self._book.restore([alarm])
            else:
                older.append(self._closed(alarm, mine))
        missing = [(a.id, alarms.encode(a)) for a in ours.values() if a.id not in stored]
        if missing:
            await self._spool.commit([], missing)
        self._renew()
        if older:
            self._announce(older)
        log.warning(
            "the alarm book is taken up with stream %s: %d open", self._spool.stream, len(self._book.open())
        )

    def _closed(self, alarm: Alarm, by: Alarm) -> Alarm:
        return msgspec.structs.replace(
            alarm,
            response="closed",
            by=OURSELVES,
            role=None,
            note=f"raised anew while the store could not be read: {by.id}",
            time=rfc3339(self._clock.wall_ns()),
        )
