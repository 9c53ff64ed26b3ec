"""What people read and see themselves: readings by hand and patrols, GB 39496-2020 5.5.3.

A reading is compared (比测) with the instrument's last one, if that is not older than COMPARED_WITHIN_S;
further apart than the channel's tolerance is a fault that somebody must look at. Where the instrument has no
value it is filled in (补测) as a reading of the channel, marked uncertain:manual. A fresh reading also stands
for a sensor that cannot be seen: it releases the level that sensor held, or raises it. Everything is audited.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

import msgspec

from daemon import reasons
from daemon.alarms import Alarm, NotAllowed, Observation, Subject
from daemon.reading import ReadingFrame, rfc3339
from drivers.sample import Quality

if TYPE_CHECKING:
    from daemon.audit import Audit
    from daemon.clock import Clock
    from daemon.config import ChannelTable, Site
    from daemon.guard import Room
    from daemon.pipeline import Pipeline

COMPARED_WITHIN_S = 3600.0  # older automatic values are another state of the dam
FRESH_S = 3600.0  # older readings by hand are kept, but say nothing of now
AHEAD_S = 60.0  # a watch that is a little fast


class Compared(msgspec.Struct, frozen=True):
    """What became of a reading by hand. `agrees` is None where there was nothing to compare with."""

    channel: str
    time: str
    value: float
    unit: str
    by: str
    automatic: float | None
    difference: float | None
    tolerance: float | None
    agrees: bool | None
    filled_in: bool
    alarms: list[str]


class Manual:
    """Takes what people bring.

    Args:
        site: channels with their tolerances, ponds and sections.
        clock: stamps.
        pipeline: the latest automatic values; takes what is filled in, and announces alarms.
        room: levels that a reading releases or raises, the book in which differences stand.
        audit: keeps every reading and patrol.
    """

    def __init__(
        self,
        site: Site,
        clock: Clock,
        pipeline: Pipeline,
        room: Room,
        audit: Audit,
    ) -> None:
        self._tables = {table.id: table for table in site.channels}
        self._sections = {(section.pond, section.id) for section in site.sections}
        self._ponds = {pond.id for pond in site.ponds}
        self._clock = clock
        self._pipeline = pipeline
        self._judge = room.judge
        self._water = room.water
        self._book = room.book
        self._audit = audit

    def reading(
        self, channel: str, value: float, *, by: str, time_ns: int | None, note: str | None, uid: int
    ) -> Compared:
        """Take a reading of a channel, in its unit.

        Raises:
            NotAllowed: no such channel, no number, no name, or a time to come.
        """
        table = self._tables.get(channel)
        if table is None:
            raise NotAllowed(f"no channel is called {channel}")
        if not isfinite(value):
            raise NotAllowed(f"a reading by hand must be a number, not {value}")
        time_ns = self._taken(by, time_ns)
        automatic, seen_ns = self._automatic(channel)
        compared = self._compare(table, value, by, time_ns, automatic, seen_ns)
        changed = self._differs(table, compared, time_ns)
        if self._clock.wall_ns() - time_ns <= FRESH_S * 1e9:
            changed += self._judge.by_hand(channel, time_ns, value, by)
            if table.section:
                self._water.read_by_hand(table.pond, table.section, time_ns)
        if compared.filled_in:
            self._pipeline.fill_in(self._frame(table, value, time_ns))
        self._pipeline.announce(changed)
        compared = msgspec.structs.replace(compared, alarms=[alarm.id for alarm in changed])
        self._audit.record(
            "manual.reading", by=by, uid=uid, subject=channel, before=automatic, after=compared, why=note
        )
        return compared

    def patrol(
        self, pond: str, section: str, *, by: str, found: str, abnormal: bool, time_ns: int | None, uid: int
    ) -> list[str]:
        """Take what somebody saw; what is abnormal calls people. Returns the ids of alarms.

        Raises:
            NotAllowed: no such pond or section, no name, nothing said, or a time to come.
        """
        if pond not in self._ponds or (section and (pond, section) not in self._sections):
            raise NotAllowed(f"there is no section {section!r} of pond {pond!r}")
        if not found.strip():
            raise NotAllowed("what was found? A patrol says at least that nothing was")
        time_ns = self._taken(by, time_ns)
        changed = []
        if abnormal:
            name = f"{pond}.{section}.patrol" if section else f"{pond}.patrol"
            subject = Subject("advice", name, pond=pond, section=section or None, rule="patrol")
            evidence = {"urgency": "inspect now", "by": by, "found": found}
            reason = reasons.patrol_abnormal(section or pond, by, found)
            seen = Observation("none", "present", time_ns, reason, evidence=evidence)
            changed = [alarm for alarm in [self._book.observe(subject, seen)] if alarm is not None]
            self._pipeline.announce(changed)
        after = {"section": section or None, "abnormal": abnormal, "time": rfc3339(time_ns)}
        self._audit.record("manual.patrol", by=by, uid=uid, subject=pond, after=after, why=found)
        return [alarm.id for alarm in changed]

    # -- pieces --------------------------------------------------------------------------------------

    def _taken(self, by: str, time_ns: int | None) -> int:
        """When, with the name checked."""
        now_ns = self._clock.wall_ns()
        if not by.strip():
            raise NotAllowed("who has read it? A name is needed")
        if time_ns is not None and time_ns > now_ns + AHEAD_S * 1e9:
            raise NotAllowed(f"{rfc3339(time_ns)} is yet to come: it is {rfc3339(now_ns)}")
        return now_ns if time_ns is None else time_ns

    def _automatic(self, channel: str) -> tuple[float | None, int]:
        """The instrument's last value and when (ns, UTC); None where it has none now."""
        for name, value, seen_ns in self._pipeline.values():
            if name == channel:
                return (value if isfinite(value) else None), seen_ns
        return None, 0

    def _compare(
        self, table: ChannelTable, value: float, by: str, time_ns: int, automatic: float | None, seen_ns: int
    ) -> Compared:
        near = automatic is not None and abs(time_ns - seen_ns) <= COMPARED_WITHIN_S * 1e9
        difference = value - automatic if near and automatic is not None else None
        tolerance = table.manual_tolerance
        agrees = abs(difference) <= tolerance if difference is not None and tolerance is not None else None
        return Compared(
            channel=table.id,
            time=rfc3339(time_ns),
            value=value,
            unit=table.unit,
            by=by,
            automatic=automatic if near else None,
            difference=difference,
            tolerance=tolerance,
            agrees=agrees,
            filled_in=automatic is None,
            alarms=[],
        )

    def _differs(self, table: ChannelTable, its: Compared, time_ns: int) -> list[Alarm]:
        """The fault of an instrument that a person's reading contradicts."""
        if its.agrees is None or its.automatic is None or its.tolerance is None:
            return []
        point = table.monitoring_point or table.id
        subject = Subject(
            "fault",
            f"{table.id}.comparison",
            pond=table.pond,
            section=table.section or None,
            item=table.item,
            monitoring_point=table.monitoring_point or None,
            channel=table.id,
            rule="comparison",
        )
        if its.agrees:
            seen = Observation("none", "gone", time_ns, reasons.manual_agrees(point, table.item))
        else:
            reason = reasons.manual_differs(
                point, table.item, its.value, its.automatic, its.tolerance, table.unit
            )
            evidence = {"by": its.by, "automatic": its.automatic, "difference": its.difference}
            seen = Observation(
                "none", "present", time_ns, reason, its.value, its.tolerance, evidence=evidence
            )
        alarm = self._book.observe(subject, seen)
        return [alarm] if alarm else []

    def _frame(self, table: ChannelTable, value: float, time_ns: int) -> ReadingFrame:
        return ReadingFrame(
            [table.id],
            [table.unit],
            time_ns,
            time_ns,
            self._clock.monotonic_ns(),
            [value],
            bytes((Quality.MANUAL,)),
            [{}],
        )
