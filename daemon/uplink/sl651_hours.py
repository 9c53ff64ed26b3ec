"""The twelve five-minute groups of an hourly report of SL 651: of which hours they are due, what is in them.

An hour is told when its last five minutes have been measured. When they never were, because nothing ran at
the full hour, it is told behind the next reading; which hours were told before a process began nobody knows,
so the first reading has those of a day before it told, once more perhaps. What an hour holds comes out of
the store.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from daemon.uplink import sl651_frames as frames

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from zoneinfo import ZoneInfo

    from daemon.uplink.past import Past
    from daemon.uplink.tables import Sl651Element

_HOUR, _STEP = timedelta(hours=1), timedelta(minutes=5)
_LOOK_BACK: Final = 24  # hours
_MOST_TOLD: Final = 2000  # hours that are known to be told; forgotten ones may be told again
_NAME = "%y%m%d%H"


class Hours:
    """Those of the elements F4 to FC."""

    def __init__(self, elements: Iterable[Sl651Element], past: Past, zone: ZoneInfo) -> None:
        self.elements: Mapping[str, Sl651Element] = {
            each.channel: each for each in elements if is_group(each.element)
        }
        self._past = past
        self._zone = zone
        self._newest: dict[str, datetime] = {}
        self._told: dict[tuple[str, str], None] = {}

    def due(self, channel: str, time: datetime, now: datetime) -> list[str]:
        """The hours, by their ends, that a reading of `time` (local) makes due for `channel`.

        What a clock has stamped that was ahead of `now` ends no hour but its own.
        """
        hour = time.replace(minute=0, second=0, microsecond=0)
        within, newest = hour if time.minute == 0 else hour + _HOUR, self._newest.get(channel)
        if newest is not None and newest > now:
            newest = time
        self._newest[channel] = max(time, newest or time)
        ends = [within - n * _HOUR for n in range(_LOOK_BACK if newest is None else 1, 0, -1)]
        if time.minute == 0 or (newest is not None and newest >= within):
            ends.append(within)
        return [name for name in (f"{end:{_NAME}}" for end in ends) if (channel, name) not in self._told]

    def told(self, channel: str, name: str) -> None:
        """A centre has confirmed it, or there was nothing to tell."""
        self._told[channel, name] = None
        while len(self._told) > _MOST_TOLD:
            del self._told[next(iter(self._told))]

    async def groups(self, channels: Iterable[str], name: str) -> bytes:
        """What a report says of the hour that ends at `name`: nothing, if nobody measured in it."""
        end = datetime.strptime(name, _NAME).replace(tzinfo=self._zone)
        body = b""
        for channel in channels:
            element = self.elements[channel]
            values = await self._past.minutes(channel, end - _HOUR + _STEP, end)
            its = [values.get(minute) for minute in steps(end)]
            if any(minute in values for minute in steps(end)):
                code = int(element.element, 16)
                body += bytes([code, frames.group_size(code) << 3]) + said(element, its)
        return at(end - _HOUR + _STEP) + body if body else b""


def is_group(element: str) -> bool:
    code = int(element, 16)
    return code == frames.RAIN_GROUPS or code in frames.LEVEL_GROUPS


def steps(end: datetime) -> list[int]:
    """The twelve minutes (of the epoch) of the hour that ends at `end`."""
    last = int(end.timestamp()) // 60
    return list(range(last - 55, last + 1, 5))


def said(element: Sl651Element, values: Iterable[float | None]) -> bytes:
    """An hour's values as the groups of `element`."""
    scaled = [None if value is None else value * element.scale - (element.base or 0.0) for value in values]
    return frames.groups(int(element.element, 16), scaled)


def at(moment: datetime) -> bytes:
    """The time of observation."""
    return b"\xf0\xf0" + frames.bcd(f"{moment:%y%m%d%H%M}")
