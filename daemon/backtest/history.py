"""History through the production path: the same judge and the same detectors, fed from a file.

Rows are `time,channel,value` in the order of time; further columns are passed by. A time without offset is
local time of the site; an empty value or `nan` is a missing reading. Values are those of channels, calibrated
and derived: instruments, calibration and derivation have no part in a backtest.

Whoever would close red at the pond is taken to close it as soon as that is allowed: once the channel is
measured below red.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from math import inf, isfinite, nan
from typing import TYPE_CHECKING, cast
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from daemon.alarms import AlarmBook, NotAllowed
from daemon.channels import Group
from daemon.judge import Judge
from daemon.reading import parse_rfc3339
from daemon.rules import advised
from drivers.sample import Quality
from edge_rules.advice.detectors import Batch, Detectors
from edge_rules.advice.messages import Channel
from edge_rules.law.levels import Level

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import tzinfo
    from pathlib import Path

    from daemon.alarms import Alarm
    from daemon.config import Site
    from daemon.reading import ReadingFrame
    from drivers.rhythm import Rhythm
    from edge_rules.advice.messages import Verdict

CHUNK = 5000  # rows judged together; what is said does not depend on it
POINTS_DRAWN = 4000  # per channel: beyond, every other one is left out
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class HistoryError(Exception):
    """The file cannot be used; a sentence with the line."""


@dataclass(slots=True)
class _Row:
    """What of a ReadingFrame the judge looks at; one is used again and again."""

    time_ns: int = 0
    values: tuple[float] = (nan,)
    qualities: bytes = b"\0"


@dataclass(frozen=True, slots=True)
class Event:
    """Something began or ended. `level` is a colour for `level`, `item` and `pond`, else the urgency."""

    time_ns: int
    channel: str
    rule: str
    score: float
    level: str
    quality: str
    present: bool
    text: str


@dataclass(slots=True)
class Course:
    """One channel's course, thinned out for the picture."""

    first_ns: int = 0
    last_ns: int = 0
    readings: int = 0
    missing: int = 0
    every: int = 1
    t: list[int] = field(default_factory=list)
    x: list[float] = field(default_factory=list)

    def take(self, t: Sequence[int], x: Sequence[float]) -> None:
        """Take readings of one chunk."""
        if not self.readings:
            self.first_ns = t[0]
        self.last_ns = max(self.last_ns, t[-1])
        start = -self.readings % self.every
        self.readings += len(t)
        self.missing += sum(map(_missing, x))
        self.t += t[start :: self.every]
        self.x += x[start :: self.every]
        while len(self.t) > 2 * POINTS_DRAWN:
            self.t, self.x, self.every = self.t[::2], self.x[::2], 2 * self.every

    @property
    def years(self) -> float:
        return (self.last_ns - self.first_ns) / 1e9 / (365.25 * 86400.0)


class History:
    """A site's judge and detectors, and what they said of a history."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._zone = ZoneInfo(site.site.timezone)
        book = AlarmBook([], timezone=self._zone)
        self._groups = {
            channel.id: Group([], cast("Rhythm", None), "", [channel.id], [channel.unit])
            for channel in site.channels
        }
        self._judge = Judge(site, list(self._groups.values()), book)
        self._hour = -1
        self._levelled = set(self._judge.armed)
        self.detectors = Detectors(msgspec.convert(advised(site), list[Channel], from_attributes=True))
        self._name = {name: i for i, name in enumerate(self.detectors.names)}
        self.courses: dict[str, Course] = {}
        self.events: list[Event] = []
        self._row = _Row()
        self._chunks = 0

    def run(self, path: Path) -> None:
        """Judge a whole file.

        Raises:
            HistoryError: a row cannot be read, or names a channel that the site file does not have.
            OSError: the file cannot be read.
        """
        for rows in chunks(path, self._zone):
            self.take(*rows)

    def take(self, channels: Sequence[str], t: Sequence[int], x: Sequence[float]) -> None:
        """Judge one chunk; parallel sequences in the order of time."""
        found = self._law(channels, t, x)
        name = self._name
        batch = Batch(
            np.array([name.get(channel, -1) for channel in channels], np.int64),
            np.array(t, np.int64),
            np.array(x, np.float64),
            np.array(x, np.float64),
        )
        self._chunks += 1
        found += [_advice(verdict) for verdict in self.detectors.judge("history", self._chunks, batch)]
        self.events += sorted(found, key=lambda event: event.time_ns)
        self._keep(channels, t, x)

    def _law(self, channels: Sequence[str], t: Sequence[int], x: Sequence[float]) -> list[Event]:
        found: list[Event] = []
        row, judge, levelled, groups = self._row, self._judge, self._levelled, self._groups
        frame = cast("ReadingFrame", row)
        good, missing = bytes((Quality.GOOD,)), bytes((Quality.NO_REPLY,))
        last = -1
        for channel, time_ns, value in zip(channels, t, x, strict=True):
            if time_ns != last:
                self._renew(time_ns)
                last = time_ns
            if channel in levelled:
                row.time_ns, row.values = time_ns, (value,)
                row.qualities = good if -inf < value < inf else missing
                found += [_law(alarm) for alarm in judge.take(groups[channel], frame)]
                if judge.level(channel) is Level.RED and judge.is_latched(channel):
                    found += self._close_red(channel, time_ns)
        return found

    def _close_red(self, channel: str, time_ns: int) -> list[Event]:
        """Close red if it may be closed."""
        try:
            return [_law(alarm) for alarm in self._judge.release(channel, time_ns, handled_ns=0)]
        except NotAllowed:
            return []

    def _renew(self, time_ns: int) -> None:
        """Limits that are dated follow the day."""
        hour = time_ns // 3_600_000_000_000
        if hour != self._hour:
            self._hour = hour
            self._judge.renew(datetime.fromtimestamp(time_ns / 1e9, self._zone).date())

    def _keep(self, channels: Sequence[str], t: Sequence[int], x: Sequence[float]) -> None:
        by_channel: dict[str, tuple[list[int], list[float]]] = {}
        for channel, time_ns, value in zip(channels, t, x, strict=True):
            kept = by_channel.get(channel)
            if kept is None:
                kept = by_channel[channel] = ([], [])
            kept[0].append(time_ns)
            kept[1].append(value)
        for channel, (times, values) in by_channel.items():
            if channel not in self._groups:
                raise HistoryError(f"channel {channel!r} is not in the site file")
            self.courses.setdefault(channel, Course()).take(times, values)


def chunks(path: Path, zone: tzinfo) -> Iterator[tuple[list[str], list[int], list[float]]]:
    """The rows of the file, CHUNK at a time, as channels, times (ns UTC) and values."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        head = next(rows, [])
        try:
            columns = [head.index(name) for name in ("time", "channel", "value")]
        except ValueError:
            raise HistoryError(f"{path}: the first line must name time, channel and value") from None
        line, known = 1, ("", 0)
        while some := list(islice(rows, CHUNK)):
            t: list[int] = []
            x: list[float] = []
            channels: list[str] = []
            at_t, at_c, at_x = columns
            for row in some:
                line += 1
                try:
                    if row[at_t] != known[0]:
                        known = (row[at_t], _ns(row[at_t], zone))
                    t.append(known[1])
                    x.append(float(row[at_x] or nan))
                    channels.append(row[at_c])
                except (ValueError, IndexError):
                    raise HistoryError(f"{path}: line {line} is not time,channel,value") from None
            yield channels, t, x


def _ns(text: str, zone: tzinfo) -> int:
    moment = datetime.fromisoformat(text)
    since = (moment if moment.tzinfo else moment.replace(tzinfo=zone)) - _EPOCH
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def _missing(value: float) -> bool:
    return not isfinite(value)


def _law(alarm: Alarm) -> Event:
    rule = "level" if alarm.kind == "channel" else alarm.kind
    channel = alarm.channel or ".".join(part for part in (alarm.pond, alarm.item) if part)
    unverified = bool(alarm.evidence.get("unverified")) or alarm.condition == "unknown"
    return Event(
        parse_rfc3339(alarm.time),
        channel,
        rule,
        nan if alarm.value is None else alarm.value,
        alarm.level,
        "unverified" if unverified else "good",
        alarm.condition == "present",
        alarm.reason.en,
    )


def _advice(verdict: Verdict) -> Event:
    present = verdict.condition == "present"
    return Event(
        parse_rfc3339(verdict.time),
        verdict.channel,
        verdict.rule,
        verdict.score,
        verdict.urgency or "none",
        "suspect" if present and verdict.kind == "quality" else "good",
        present,
        verdict.reason.en,
    )
