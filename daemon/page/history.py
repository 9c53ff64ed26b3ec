"""The last day of a few channels, out of the store: what the page draws against time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import apsw
import msgspec

from daemon.archive import Archive
from daemon.reading import parse_rfc3339
from edge_rules.law.derived import RainWindow

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from daemon.config import Site

DAY_NS: Final = 24 * 3600 * 10**9
HOUR_NS: Final = 3600 * 10**9
STEP_NS: Final = 600 * 10**9  # of what is drawn as a line, the last reading of each ten minutes
MOST_BATCHES: Final = 20_000  # read at a time; a busier day is drawn as far as it was read


class _Reading(msgspec.Struct):
    channel: str
    time: str
    value: float | None


class _Readings(msgspec.Struct):
    readings: list[_Reading] = []


_DECODE = msgspec.json.Decoder(_Readings)


class History:
    """What was measured in the day before the last look: `rain_mm` in sums of an hour, `lines` in steps.

    Args:
        path: of the store.
        rain: channels with the rain since the poll before.
        lines: channels drawn as lines.
    """

    def __init__(self, path: Path, rain: Iterable[str], lines: Iterable[str]) -> None:
        self._path = path
        self.rain_mm: dict[str, dict[int, float]] = {channel: {} for channel in rain}
        self.lines: dict[str, dict[int, float | None]] = {channel: {} for channel in lines}
        self._stream = ""
        self._seen = 0

    def look(self, now_ns: int) -> None:
        """Read what came since the last look. Without a store that can be read, there is no history."""
        try:
            with Archive(self._path) as archive:
                if archive.stream != self._stream:
                    self._forget()
                    self._stream, self._seen = archive.stream, archive.before(now_ns - DAY_NS)
                for n, batch in enumerate(archive.batches(self._seen)):
                    if n == MOST_BATCHES:
                        break
                    self._seen = batch.seq
                    if batch.kind == "readings" and batch.payload:
                        self._take(_DECODE.decode(batch.payload).readings)
        except apsw.Error:
            self._forget()
        for sums in self.rain_mm.values():
            _forget_before(sums, now_ns - DAY_NS - HOUR_NS)
        for line in self.lines.values():
            _forget_before(line, now_ns - DAY_NS)

    def _forget(self) -> None:
        self._stream = ""
        for sums in self.rain_mm.values():
            sums.clear()
        for line in self.lines.values():
            line.clear()

    def _take(self, readings: list[_Reading]) -> None:
        for each in readings:
            if (sums := self.rain_mm.get(each.channel)) is not None and each.value is not None:
                hour = _floor(each.time, HOUR_NS)
                sums[hour] = sums.get(hour, 0.0) + each.value
            if (line := self.lines.get(each.channel)) is not None:
                line[_floor(each.time, STEP_NS)] = each.value


def _forget_before(kept: dict[int, Any], since_ns: int) -> None:
    for at in [at for at in kept if at < since_ns]:
        del kept[at]


def _floor(time: str, step_ns: int) -> int:
    time_ns = parse_rfc3339(time)
    return time_ns - time_ns % step_ns


def of_site(site: Site) -> History:
    """The history that the site's page needs: rain that is summed, and ponds' levels."""
    rain = {channel.derive.of for channel in site.channels if isinstance(channel.derive, RainWindow)}
    rain |= {gauge for pond in site.ponds if pond.rain for gauge in pond.rain.gauges}
    levels = [c.id for c in site.channels if c.item == "pond-level"]
    return History(site.store_folder / "spool.db", sorted(rain), levels)
