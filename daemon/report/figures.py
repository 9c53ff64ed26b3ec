"""The figures of a month, counted out of the store's own payloads: nothing is kept beside them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon.alarms import LEVELS
from daemon.reading import parse_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import tzinfo

    from daemon.archive import Archive
    from daemon.batch import Batch

NS: Final = 1_000_000_000
_AFTER_NS: Final = 86_400 * NS  # alarms of the last day may be handled, and clocks corrected, a little later


@dataclass(frozen=True, slots=True)
class Span:
    """From one instant to another, ns UTC; the second is not in it."""

    first_ns: int
    end_ns: int

    @classmethod
    def of_month(cls, year: int, month: int, zone: tzinfo) -> Span:
        """A calendar month of local time."""
        following = (year + month // 12, month % 12 + 1)
        ends = (datetime(*when, 1, tzinfo=zone).timestamp() for when in ((year, month), following))
        return cls(*(round(end) * NS for end in ends))

    def __contains__(self, time_ns: int) -> bool:
        return self.first_ns <= time_ns < self.end_ns


@dataclass(slots=True)
class Channel:
    """Of one channel: in how many of its periods there was a value, and what else there was."""

    period_s: float
    slots: set[int] = field(default_factory=set)
    by_hand: set[int] = field(default_factory=set)
    good: int = 0
    uncertain: int = 0
    bad: Counter[str] = field(default_factory=Counter)

    def take(self, time_ns: int, quality: str) -> None:
        kind, _, why = quality.partition(":")
        slot = int(time_ns // (self.period_s * NS))
        if kind == "bad":
            self.bad[why] += 1
            return
        if why == "manual":
            self.by_hand.add(slot)
        else:
            self.slots.add(slot)
        self.good += kind == "good"
        self.uncertain += kind == "uncertain"

    def complete(self, span: Span) -> float:
        """Share of the periods of the span in which the instrument gave a value."""
        wanted = (span.end_ns - span.first_ns) / (self.period_s * NS)
        return min(1.0, len(self.slots) / wanted) if wanted > 0 else 0.0


@dataclass(slots=True)
class AlarmOf:
    """What became of one alarm, by its id."""

    kind: str
    pond: str
    raised_ns: int
    due_ns: int
    worst: str
    reason: Mapping[str, str]
    handled_ns: int | None = None
    closed: bool = False

    @property
    def in_time(self) -> bool:
        return self.handled_ns is not None and self.handled_ns <= self.due_ns


@dataclass(slots=True)
class Month:
    """All that the report says of a span."""

    span: Span
    channels: dict[str, Channel]
    alarms: dict[str, AlarmOf] = field(default_factory=dict)
    audit: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    first_ns: int | None = None  # oldest batch of the span that the store has
    last_ns: int | None = None
    damaged: int = 0
    rehearsed: int = 0

    def did(self, *whats: str) -> list[dict[str, Any]]:
        return [each for each in self.audit if each["what"] in whats]

    def due(self) -> list[AlarmOf]:
        """Alarms about the dam that were to be handled within the span."""
        return [a for a in self.alarms.values() if a.due_ns - 1 in self.span]

    def thresholds(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Changes of limits: the record of the new site file, and the row of it that changed."""
        return [
            (record, change)
            for record in self.did("config")
            for change in record.get("changes", ())
            if _is_about_limits(change)
        ]


def _is_about_limits(change: Mapping[str, Any]) -> bool:
    sides = [side for side in (change.get("from"), change.get("to")) if isinstance(side, dict)]
    return any({"levels", "limits", "limit", "rollup"} & side.keys() for side in sides)


def collect(archive: Archive, span: Span, periods_s: Mapping[str, float]) -> Month:
    """Read the store once."""
    month = Month(span, {channel: Channel(period_s) for channel, period_s in periods_s.items()})
    for batch in archive.batches(archive.before(span.first_ns - _AFTER_NS)):
        if batch.time_ns >= span.end_ns + _AFTER_NS:
            break
        if not batch.payload:
            month.damaged += 1
            continue
        _take(month, batch, msgspec.json.decode(batch.payload))
    return month


def _take(month: Month, batch: Batch, payload: dict[str, Any]) -> None:
    if batch.time_ns in month.span:
        month.first_ns = min(month.first_ns or batch.time_ns, batch.time_ns)
        month.last_ns = max(month.last_ns or 0, batch.time_ns)
    if batch.kind == "readings":
        _readings(month, payload["readings"])
    elif batch.kind == "alarms":
        _alarm(month, payload)
    elif batch.time_ns in month.span:
        (month.audit if batch.kind == "audit" else month.gaps).append(payload)


def _readings(month: Month, readings: Iterable[Mapping[str, Any]]) -> None:
    for each in readings:
        time_ns = parse_rfc3339(each["time"])
        channel = month.channels.get(each["channel"])
        if channel is not None and time_ns in month.span:
            channel.take(time_ns, each["quality"])


def _alarm(month: Month, alarm: Mapping[str, Any]) -> None:
    if alarm.get("shadow"):
        return  # of a trial run, which has a summary of its own
    if alarm["mode"] == "test":
        month.rehearsed += 1
        return
    known = month.alarms.get(alarm["id"])
    if known is None:
        began_ns = raised_ns(alarm["id"])
        if began_ns not in month.span:
            return
        known = month.alarms[alarm["id"]] = AlarmOf(
            alarm["kind"],
            alarm["pond"] or "",
            began_ns,
            parse_rfc3339(alarm["due"]),
            alarm["level"],
            alarm["reason"],
        )
    known.worst = max(known.worst, alarm["level"], key=LEVELS.index)
    time_ns = parse_rfc3339(alarm["time"])
    if alarm["response"] == "handled" and known.handled_ns is None:
        known.handled_ns = time_ns
    elif alarm["response"] in ("new", "assigned") and known.handled_ns is not None:
        known.handled_ns = None  # it rang again, or what was done was not enough
        known.due_ns = parse_rfc3339(alarm["due"])
    known.closed = alarm["response"] == "closed"


def raised_ns(alarm_id: str) -> int:
    """The instant that ends an alarm's id, `20261123T160900.245Z`."""
    text = alarm_id.rpartition(":")[2]
    return (
        round(datetime.strptime(text, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC).timestamp() * 1000) * 1_000_000
    )
