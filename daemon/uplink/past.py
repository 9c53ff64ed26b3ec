"""What the store has of the past, for a platform that asks.

Looked for in small pieces, so that nobody waits long for the store's thread, and only among real
measurements: who asks has no word for the others.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from daemon import alarms
from daemon.uplink.dialect import Refused, told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.alarms import Alarm
    from daemon.batch import Batch
    from daemon.spool import Spool

_LATE: Final = timedelta(minutes=10)  # so long after its measurement a reading is committed at the latest
_PIECE = 200


class Past(Protocol):
    """What was, and which alarms there are."""

    async def minutes(self, channel: str, first: datetime, last: datetime) -> dict[int, float | None]:
        """Minute of the epoch -> the last value of that minute; both ends are within."""
        ...

    async def alarms(self) -> Sequence[Alarm]:
        """All that are not closed."""
        ...


class Nothing:
    """No past at all, for examples."""

    async def minutes(self, channel: str, first: datetime, last: datetime) -> dict[int, float | None]:
        del channel, first, last
        return {}

    async def alarms(self) -> Sequence[Alarm]:
        return ()


class StoredPast:
    """The past that `spool` has."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    async def alarms(self) -> Sequence[Alarm]:
        rows = alarms.readable(await self._spool.alarms()).values()
        return [alarm for alarm in rows if alarm.response != "closed"]

    async def minutes(self, channel: str, first: datetime, last: datetime) -> dict[int, float | None]:
        name = msgspec.json.encode(channel)
        first_ns, last_ns = (int(time.timestamp()) * 10**9 for time in (first, last + _LATE))
        after, found = await self._before(first_ns), {}
        while pieces := await self._spool.peek(after, kinds=("readings",), limit=_PIECE):
            for batch in pieces:
                if name in batch.payload and batch.time_ns <= last_ns:
                    found.update(_of(batch, channel, first, last))
            after = pieces[-1].seq
            if pieces[-1].time_ns > last_ns:
                break
        return found

    async def _before(self, time_ns: int) -> int:
        """The seq after which batches of `time_ns` and later begin; where a clock stepped, about."""
        low, high = await self._spool.first_seq() - 1, self._spool.last_seq
        while low < high:
            middle = (low + high) // 2 + 1
            its_ns = await self._spool.time_of(middle)
            if its_ns is not None and its_ns < time_ns:
                low = middle
            else:
                high = middle - 1
        return low


def _of(batch: Batch, channel: str, first: datetime, last: datetime) -> dict[int, float | None]:
    try:
        its = told(batch)
    except Refused:  # it is damaged; an export says so
        return {}
    if its.mode != "real":
        return {}
    values = {}
    for reading in its.readings:
        if reading.channel == channel:
            time = datetime.fromisoformat(reading.time)
            if first <= time < last + timedelta(minutes=1):
                values[int(time.timestamp()) // 60] = reading.value
    return values
