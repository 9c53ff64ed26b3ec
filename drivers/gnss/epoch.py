"""What a receiver says of one instant, whatever it speaks; not yet dated, not yet judged."""

from __future__ import annotations

from datetime import date
from enum import IntEnum
from math import nan
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

MS = 1_000_000
S = 1_000_000_000
DAY_NS = 86_400 * S
WEEK_NS = 7 * DAY_NS
ROLLOVER_NS = 1024 * WEEK_NS  # a GPS week number of ten bits begins anew
_EPOCH = date(1970, 1, 1).toordinal()
GPS_EPOCH_NS = (date(1980, 1, 6).toordinal() - _EPOCH) * DAY_NS
NOWHERE = (nan, nan, nan)


class Moment(NamedTuple):
    """An instant, told up to a multiple of `every_ns`: a time of day, a time of week, a date.

    `ns` since 1970; on GPS time, where `is_gps`, which knows no leap seconds and is ahead of UTC by as many
    as there have been since 1980.
    """

    ns: int
    every_ns: int
    is_gps: bool = False

    def near(self, now_ns: int) -> int:
        """Of the instants it can be, the one nearest to `now_ns`, which is on the same scale."""
        past_ns = (now_ns - self.ns) % self.every_ns
        return now_ns - past_ns + (self.every_ns if past_ns > self.every_ns // 2 else 0)


class Fix(IntEnum):
    FIXED = 0  # carrier phase, ambiguities fixed, and everything the receiver says of it is well
    FLOAT = 1
    NONE = 2  # anything else


class Epoch(NamedTuple):
    """One solution.

    `where` is latitude and longitude (deg) and ellipsoidal height (m), or east, north and up (m) from the
    base station or in a grid, by the dialect. `code` is the receiver's own number for the solution. `sd_m`
    belongs to east, north, up. `base` names the reference station, empty if it does not say; `age_s` is how
    old its corrections are. NaN is what was not said.
    """

    when: Moment | None
    fix: Fix
    code: float
    where: tuple[float, float, float]
    sd_m: tuple[float, float, float] = NOWHERE
    satellites: float = nan
    base: str = ""
    age_s: float = nan


Told = Epoch | Moment


class Decoder(Protocol):
    """Bytes of one dialect into epochs, and moments that tell the date. Never raises for what comes."""

    def feed(self, data: bytes, at_ns: int) -> Iterable[Told]:
        """What `data` completes; `at_ns` on a monotonic clock, by which a pause is noticed."""
        ...

    def flush(self, at_ns: int = 0) -> Iterable[Told]:
        """What still waited for something: it will not come any more; `at_ns` as in `feed`."""
        ...


FirstT = TypeVar("FirstT")
SecondT = TypeVar("SecondT")


class Pair(Generic[FirstT, SecondT]):
    """Two messages of one instant, whichever comes first.

    A first one goes alone when the next comes and its second has not; a second one alone says nothing. Held:
    one of each.
    """

    def __init__(self) -> None:
        self._first: tuple[int | None, FirstT] | None = None
        self._second: tuple[int | None, SecondT] | None = None

    def first(self, key: int | None, first: FirstT) -> list[tuple[FirstT, SecondT | None]]:
        pairs = self.rest()
        self._first = (key, first)
        return pairs + self._matched()

    def second(self, key: int | None, second: SecondT) -> list[tuple[FirstT, SecondT | None]]:
        self._second = (key, second)
        return self._matched()

    def rest(self) -> list[tuple[FirstT, SecondT | None]]:
        """The first one that waits, alone."""
        waiting, self._first = self._first, None
        return [] if waiting is None else [(waiting[1], None)]

    def _matched(self) -> list[tuple[FirstT, SecondT | None]]:
        first, second = self._first, self._second
        if first is None or second is None or first[0] != second[0]:
            return []
        self._first = self._second = None
        return [(first[1], second[1])]


def day_ns(year: int, month: int, day: int) -> int:
    """Nanoseconds from 1970 to the beginning of a day; ValueError if there is no such day."""
    return (date(year, month, day).toordinal() - _EPOCH) * DAY_NS


def gps_moment(week: int | None, of_week_ms: int) -> Moment:
    """From a GPS time of week, and its week if it is known."""
    ns = GPS_EPOCH_NS + of_week_ms * MS
    return Moment(ns, WEEK_NS, True) if week is None else Moment(ns + week * WEEK_NS, ROLLOVER_NS, True)  # noqa: FBT003 -- is_gps
