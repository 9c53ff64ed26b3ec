"""A GNSS receiver, whatever it speaks: its epochs dated, judged, and reduced to one solution a period.

A receiver tells its time up to a day, a week or 1,024 weeks, and the date now and then. So the instant of an
epoch is the one of those it can be that is nearest to the receiver's own time carried on by the monotonic
clock, or to our wall clock until a date has come. That holds across midnight and the turn of the week, and
while either clock is stepped.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import TYPE_CHECKING

from drivers.gnss.baseline import Baseline
from drivers.gnss.epoch import DAY_NS, ROLLOVER_NS, Fix, Moment, S
from drivers.gnss.interval import WORTHLESS, Interval
from drivers.rhythm import Rhythm
from drivers.sample import Block, Frame, Quality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from drivers.contract import Stamps
    from drivers.gnss.baseline import Axis, Reference
    from drivers.gnss.epoch import Decoder, Epoch, Told
    from drivers.gnss.leap import LeapSeconds

log = logging.getLogger(__name__)

_ENU = {"east": "mm", "north": "mm", "up": "mm"}
_SIGMA = {"sd_east": "mm", "sd_north": "mm", "sd_up": "mm"}
_SPREAD = {"spread_east": "mm", "spread_north": "mm", "spread_up": "mm"}
_STATUS = {"fix": "", "satellites": "", "base": "", "age": "s"}
_PLACE = {"latitude": "deg", "longitude": "deg", "height": "m"}
VECTOR_POINTS = {**_ENU, **_SIGMA, **_SPREAD, **_STATUS, "n": ""}
POSITION_POINTS = {**VECTOR_POINTS, **_PLACE}

ANY_BASE = "any"
_JUMP_NS = 5 * S  # its sentences come up to seconds late; what moves more is another time
OTHER_BASE = 2  # added to the rank
_PACES = 8  # the receiver's period is the shortest distance of so many epochs
SOLUTIONS = 64  # of the latest periods, for whoever ties a new base station to the origin
_NOT_TIED = (0.0, 0.0, 0.0)
_QUALITY_OF_RANK = (Quality.GOOD, Quality.GNSS_FLOAT, Quality.BASE_CHANGED, Quality.BASE_CHANGED)


@dataclass(frozen=True, slots=True)
class Mount:
    """What the site says of a receiver.

    `base` is the reference station that `origin` was measured from; empty: the first one heard; "any": a
    network that serves whichever is near. Corrections older than `oldest_s` make no fix. `was`: origins of
    before, oldest first, each with the instant (ns, UTC) at which it ended.
    """

    origin: Baseline | Reference
    base: str = ""
    oldest_s: float = inf
    was: Sequence[tuple[int, Baseline | Reference]] = ()


@dataclass(frozen=True, slots=True)
class Solution:
    """One period's displacement from the origin as the receiver tells it, before any tie; rank 0: certain."""

    tick_ns: int
    base: str
    rank: int
    enu_mm: Axis

    @property
    def is_fixed(self) -> bool:
        return self.rank % OTHER_BASE == 0


class GnssReceiver:
    """A StreamDriver: one frame for each period, of all its epochs.

    Args:
        device: name of the device.
        decoder: what it speaks.
        mount: origin of the displacement, and whose corrections it may rest on.
        every_s: the period.
        stamps: the clock.
        leap: for receivers that tell GPS time.

    An epoch with fixed ambiguities is good, one with float ambiguities GNSS_FLOAT, one that rests on another
    base station BASE_CHANGED for as long as it does; anything else is NO_FIX, and NaN. An epoch that comes
    twice counts once. A period's frame goes out with the epoch that opens the next one, with its own last one
    once the receiver's pace is known, or when `due` is asked after its end. Epochs of a period whose frame is
    out are left out.

    A base station may be tied to the origin by a survey (`tie`): its readings are then as good as those of
    the origin's own, less what the two stations are apart.

    Attributes:
        origin: what displacement counts from; never moves by itself.
        solutions: of the latest periods that had one.
        on_solution: called before each period's frame goes out.
    """

    def __init__(
        self,
        device: str,
        decoder: Decoder,
        mount: Mount,
        every_s: float,
        stamps: Stamps,
        leap: LeapSeconds,
    ) -> None:
        self.device = device
        self._is_position = isinstance(mount.origin, Baseline)
        points = POSITION_POINTS if self._is_position else VECTOR_POINTS
        self.blocks = (Block(device, "position", tuple(points), tuple(points.values())),)
        self.rhythm = Rhythm(round(every_s * 1e9))
        self._decoder = decoder
        self.origin = mount.origin
        self.solutions: deque[Solution] = deque(maxlen=SOLUTIONS)
        self.on_solution: Callable[[], None] | None = None
        self._ties: dict[str, Axis] = {}
        self._to_tie: dict[str, Axis] = {}  # a period is all before or all after a tie
        self._rests_on = ""  # base station of the rows that count in the open period
        self._enu_mm = mount.origin.displacement()
        self._enu_mm_before = [(until_ns, origin.displacement()) for until_ns, origin in mount.was]
        self._oldest_s = mount.oldest_s
        self._base = station(mount.base)
        self._heard_base = self._base
        self._stamps = stamps
        self._leap = leap
        self._leap_told = False
        self._receiver_ahead_ns: int | None = None  # receiver's UTC minus our monotonic clock
        self._steady_since_ns = 0  # on that clock
        self._open: Interval | None = None
        self._closed_ns: int | None = None  # tick whose frame went out last
        self._last_ns: int | None = None  # the epoch before
        self._paces_ns: deque[int] = deque(maxlen=_PACES)

    @property
    def told(self) -> tuple[int, int] | None:
        """How far the receiver's UTC is ahead of our monotonic clock, and since when it says so (ns)."""
        return None if self._receiver_ahead_ns is None else (self._receiver_ahead_ns, self._steady_since_ns)

    @property
    def base(self) -> str:
        """The base station the origin was measured from; empty where none was heard or named."""
        return self._base

    @property
    def heard_base(self) -> str:
        """The base station of the latest solution; empty where the receiver names none."""
        return self.solutions[-1].base if self.solutions else ""

    def resume(self, base: str, ties: Mapping[str, Axis]) -> None:
        """Go on where the core was before its restart: with the origin's station, and those tied to it."""
        if not self._base:
            self._base = self._heard_base = base
        self._ties.update(ties)

    def tie(self, base: str, offset_mm: Axis) -> None:
        """From the next period on, take off what a survey says that this base station displaces."""
        self._to_tie[base] = offset_mm

    def feed(self, data: bytes) -> list[Frame]:
        return self._hear(self._decoder.feed(data, self._stamps.monotonic_ns()))

    def due(self) -> list[Frame]:
        """The frame of a period that is over and waits for an epoch that may never come."""
        frames = self._hear(self._decoder.flush(self._stamps.monotonic_ns()))
        if self._open is not None and self.rhythm.tick(self._now_ns()) > self._open.tick_ns:
            frames.append(self._close(self._open))
        return frames

    def _hear(self, told: Iterable[Told]) -> list[Frame]:
        frames: list[Frame] = []
        for each in told:
            if isinstance(each, Moment):
                self._date(each)
            else:
                frames += self._take(each)
        return frames

    # -- when ------------------------------------------------------------------------------------------

    def _date(self, moment: Moment) -> int:
        """The instant of a date; the receiver's time is carried on from it."""
        wall_ns = self._stamps.wall_ns()
        ahead_ns = self._gps_ahead_ns(moment, wall_ns)
        told_ns = moment.ns - ahead_ns
        # A receiver whose week number has rolled over is wrong by 1,024 weeks to the second: put it right.
        nearest_ns = moment.near(wall_ns + ahead_ns) - ahead_ns
        if abs(nearest_ns - wall_ns) < DAY_NS:
            told_ns = nearest_ns
        mono_ns = self._stamps.monotonic_ns()
        before_ns, self._receiver_ahead_ns = self._receiver_ahead_ns, told_ns - mono_ns
        if before_ns is None or abs(self._receiver_ahead_ns - before_ns) > _JUMP_NS:
            self._steady_since_ns = mono_ns
        return told_ns

    def _instant_ns(self, epoch: Epoch) -> int:
        when = epoch.when
        if when is None:
            return self._now_ns()
        if when.every_ns == ROLLOVER_NS:
            if epoch.fix is not Fix.NONE:
                return self._date(when)
            when = Moment(when.ns, DAY_NS, when.is_gps)  # without a fix its date may be anything
        now_ns = self._now_ns()
        ahead_ns = self._gps_ahead_ns(when, now_ns)
        return when.near(now_ns + ahead_ns) - ahead_ns

    def _gps_ahead_ns(self, moment: Moment, utc_ns: int) -> int:
        if not moment.is_gps:
            return 0
        if not self._leap_told:
            self._leap_told = True
            self._leap.warn_if_expired(utc_ns)
        return self._leap.gps_ahead_s(utc_ns) * S

    def _now_ns(self) -> int:
        """UTC as the receiver tells it."""
        if self._receiver_ahead_ns is None:
            return self._stamps.wall_ns()
        return self._stamps.monotonic_ns() + self._receiver_ahead_ns

    # -- one epoch -------------------------------------------------------------------------------------

    def _take(self, epoch: Epoch) -> list[Frame]:
        at_ns = self._instant_ns(epoch)
        if at_ns == self._last_ns:
            return []  # said twice, or stuck: nothing new
        if self._last_ns is not None and at_ns > self._last_ns:
            self._paces_ns.append(at_ns - self._last_ns)
        self._last_ns = at_ns
        tick_ns = self.rhythm.tick(at_ns)
        frames = []
        if self._open is not None and self._open.tick_ns != tick_ns:
            frames.append(self._close(self._open))
        if tick_ns == self._closed_ns:
            return frames
        if self._open is None:
            self._open = Interval(tick_ns)
            self._ties.update(self._to_tie)
            self._to_tie.clear()
        rank, base, row = self._rank(epoch), station(epoch.base), self._row(epoch, tick_ns)
        self._open.add(rank, base if rank >= OTHER_BASE or base in self._ties else "", row)
        if rank == self._open.rank:
            self._rests_on = base
        if self._paces_ns and self.rhythm.tick(at_ns + min(self._paces_ns)) != tick_ns:
            frames.append(self._close(self._open))
        return frames

    def _rank(self, epoch: Epoch) -> int:
        """0 fixed, 1 float; OTHER_BASE more from another base station; or WORTHLESS."""
        if epoch.fix is Fix.NONE or epoch.age_s > self._oldest_s:
            return WORTHLESS
        return OTHER_BASE * self._is_other_base(station(epoch.base)) + int(epoch.fix)

    def _is_other_base(self, base: str) -> bool:
        if not base or self._base == ANY_BASE:
            return False
        self._base = self._base or base
        if base != self._heard_base and self._heard_base:
            if base == self._base or base in self._ties:
                log.info("%s: base station is %s again", self.device, base)
            else:
                log.warning("%s: base station is %s, the origin is of %s", self.device, base, self._base)
        self._heard_base = base
        return base != self._base and base not in self._ties

    def _row(self, epoch: Epoch, tick_ns: int) -> tuple[float, ...]:
        """One frame counts from one origin, that of its tick."""
        sigma_mm = (1000.0 * sd for sd in epoch.sd_m)
        base = float(epoch.base) if epoch.base.isdecimal() else nan
        place = epoch.where if self._is_position else ()
        status = (epoch.code, epoch.satellites, base, epoch.age_s)
        before = next((enu_mm for until_ns, enu_mm in self._enu_mm_before if tick_ns < until_ns), None)
        if before is not None:  # ties are of the origin of now
            return (*before(*epoch.where), *sigma_mm, *status, *place)
        tied = self._ties.get(station(epoch.base), _NOT_TIED)
        enu_mm = (mm - off for mm, off in zip(self._enu_mm(*epoch.where), tied, strict=True))
        return (*enu_mm, *sigma_mm, *status, *place)

    # -- one period ------------------------------------------------------------------------------------

    def _close(self, interval: Interval) -> Frame:
        self._open, self._closed_ns = None, interval.tick_ns
        row = interval.medians()
        sure, status, place = row[:6], row[6:10], row[10:]
        if interval.rank != WORTHLESS:
            tied = self._ties.get(self._rests_on, _NOT_TIED)
            told = (sure[0] + tied[0], sure[1] + tied[1], sure[2] + tied[2])
            self.solutions.append(Solution(interval.tick_ns, self._rests_on, interval.rank, told))
        if self.on_solution is not None:
            self.on_solution()
        numbers = (*sure, *interval.scatter(3, sure), *status, float(interval.n), *place)
        said = Quality.NO_FIX if interval.rank == WORTHLESS else _QUALITY_OF_RANK[interval.rank]
        points = self.blocks[0].points
        qualities = bytes(_judged(point, number, said) for point, number in zip(points, numbers, strict=True))
        values = [
            nan if quality >= Quality.NO_REPLY else number
            for number, quality in zip(numbers, qualities, strict=True)
        ]
        wall_ns, mono_ns = self._stamps.wall_ns(), self._stamps.monotonic_ns()
        return Frame(self.blocks[0], interval.tick_ns, wall_ns, mono_ns, numbers, values, qualities)


def _judged(point: str, number: float, said: Quality) -> Quality:
    """`said` is of the solution; how the receiver is doing is worth reading most when there is none."""
    of_solution = point in _ENU or point in _PLACE
    if said.is_bad and (of_solution or point in _SIGMA or point in _SPREAD):
        return said
    if isnan(number):  # it was not said
        return Quality.NOT_A_NUMBER if of_solution else Quality.MISSING_INPUT
    return Quality.GOOD if point in _STATUS or point == "n" else said


def station(base: str) -> str:
    """A base station's name without what its writers differ in: 0117 is 117."""
    return str(int(base)) if base.isdecimal() else base
