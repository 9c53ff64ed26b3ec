"""A GNSS receiver that sends NMEA: GGA and GST of one second become one frame of displacements.

The receiver tells the time of day with each position and the date now and then (RMC, ZDA), so the day of
an epoch is the one that puts it nearest to the receiver's own time carried on by the monotonic clock, or
to our wall clock until a date has come. That holds across midnight and while either clock is stepped.
"""

from __future__ import annotations

from math import isnan, nan
from typing import TYPE_CHECKING

from drivers.gnss import nmea
from drivers.sample import Block, Frame, Quality

if TYPE_CHECKING:
    from drivers.contract import Stamps
    from drivers.gnss.baseline import Baseline

POINTS = (
    "east",
    "north",
    "up",
    "sd_east",
    "sd_north",
    "sd_up",
    "fix",
    "satellites",
    "latitude",
    "longitude",
    "height",
)
UNITS = ("mm", "mm", "mm", "mm", "mm", "mm", "", "", "deg", "deg", "m")
_POSITION = (0, 1, 2, 8, 9, 10)  # indices of what the fix says; the sigmas are 3, 4, 5
_SIGMA = (3, 4, 5)

_FIXED, _FLOAT = 4, 5  # of GGA's quality field
_DAY_NS = 86_400_000_000_000
_ROLLOVER_NS = 1024 * 7 * _DAY_NS  # a GPS week number of ten bits begins anew


class GnssReceiver:
    """A StreamDriver: one frame for each period, from the first epoch that falls into it.

    Args:
        device: name of the device.
        baseline: origin from which displacement counts.
        every_s: the period; a receiver that sends more often is thinned to it.
        stamps: the clock.

    A position with RTK fix is good, with float ambiguities GNSS_FLOAT; anything else is NO_FIX, and NaN.
    An epoch without its GST goes out at the next GGA, its sigmas MISSING_INPUT. Held at any time: one
    unfinished line, one GGA, one GST.
    """

    def __init__(self, device: str, baseline: Baseline, every_s: float, stamps: Stamps) -> None:
        self.device = device
        self.blocks = (Block(device, "position", POINTS, UNITS),)
        self._enu_mm = baseline.displacement()
        self._every_ns = round(every_s * 1e9)
        self._stamps = stamps
        self._framer = nmea.Framer()
        self._gga: nmea.Gga | None = None
        self._gst: nmea.Gst | None = None
        self._receiver_ahead_ns: int | None = None  # receiver's UTC minus our monotonic clock
        self._tick_ns: int | None = None

    def feed(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        for sentence in self._framer.feed(data):
            kind = sentence.tag[2:]  # GN, GP, BD, GB: whatever satellites it used
            if kind == "GGA":
                frames += self._position(nmea.gga(sentence.fields))
            elif kind == "GST":
                frames += self._sigma(nmea.gst(sentence.fields))
            elif kind == "RMC":
                self._dated(nmea.rmc(sentence.fields))
            elif kind == "ZDA":
                self._dated(nmea.zda(sentence.fields))
        return frames

    def _position(self, gga: nmea.Gga | None) -> list[Frame]:
        if gga is None:
            return []
        late = self._close(None)  # its GST did not come
        self._gga = gga
        if self._gst is not None and self._gst.utc_ns == gga.utc_ns:
            return late + self._close(self._gst)
        return late

    def _sigma(self, gst: nmea.Gst | None) -> list[Frame]:
        self._gst = gst
        if gst is not None and self._gga is not None and self._gga.utc_ns == gst.utc_ns:
            return self._close(gst)
        return []

    def _dated(self, instant: nmea.Instant | None) -> None:
        if instant is None:
            return
        # A receiver whose week number has rolled over is wrong by 1,024 weeks to the second: put it right.
        behind_ns = self._stamps.wall_ns() - instant.ns
        rollovers = (behind_ns + _ROLLOVER_NS // 2) // _ROLLOVER_NS
        is_rollover = abs(behind_ns - rollovers * _ROLLOVER_NS) < _DAY_NS
        told_ns = instant.ns + (rollovers * _ROLLOVER_NS if is_rollover else 0)
        self._receiver_ahead_ns = told_ns - self._stamps.monotonic_ns()

    def _close(self, gst: nmea.Gst | None) -> list[Frame]:
        """The frame of the epoch at hand, unless its period has one already."""
        gga, self._gga = self._gga, None
        if gga is None:
            return []
        if gst is not None:
            self._gst = None
        tick_ns = self._epoch_ns(gga.utc_ns) // self._every_ns * self._every_ns
        if tick_ns == self._tick_ns:
            return []
        self._tick_ns = tick_ns
        return [self._frame(gga, gst, tick_ns)]

    def _epoch_ns(self, of_day_ns: int | None) -> int:
        """The instant with this time of day that is nearest to now, as the receiver tells it."""
        if self._receiver_ahead_ns is None:
            now_ns = self._stamps.wall_ns()
        else:
            now_ns = self._stamps.monotonic_ns() + self._receiver_ahead_ns
        if of_day_ns is None:
            return now_ns
        past_ns = (now_ns - of_day_ns) % _DAY_NS
        return now_ns - past_ns + (_DAY_NS if past_ns > _DAY_NS // 2 else 0)

    def _frame(self, gga: nmea.Gga, gst: nmea.Gst | None, tick_ns: int) -> Frame:
        where = (gga.latitude_deg, gga.longitude_deg, gga.height_m)
        sigma_mm = (nan, nan, nan)
        if gst is not None:
            sigma_mm = (1000.0 * gst.sd_east_m, 1000.0 * gst.sd_north_m, 1000.0 * gst.sd_up_m)
        numbers = (*self._enu_mm(*where), *sigma_mm, float(gga.quality), float(gga.satellites), *where)
        qualities = [Quality.GOOD] * len(POINTS)
        fix = {_FIXED: Quality.GOOD, _FLOAT: Quality.GNSS_FLOAT}
        said = fix.get(gga.quality, Quality.NO_FIX)
        for i in (*_POSITION, *_SIGMA):
            qualities[i] = said
            if not said.is_bad and isnan(numbers[i]):  # the field was empty
                qualities[i] = Quality.MISSING_INPUT if i in _SIGMA else Quality.NOT_A_NUMBER
        values = [nan if q.is_bad else n for n, q in zip(numbers, qualities, strict=True)]
        wall_ns, mono_ns = self._stamps.wall_ns(), self._stamps.monotonic_ns()
        return Frame(self.blocks[0], tick_ns, wall_ns, mono_ns, numbers, values, bytes(qualities))
