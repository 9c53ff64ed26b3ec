"""The alarm book: which alarms are open, what is known of each, and what people did about it.

An alarm has two sides. Its *condition* follows what is measured; its *response* follows what people do.
Both are tables, and the lines below only interpret them. Nothing in here knows a level's number, a clock
or a disk: who observes hands in the time, and who commits takes the bytes of `encode` and `body`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from daemon.reading import parse_rfc3339, rfc3339
from daemon.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import tzinfo

log = logging.getLogger(__name__)

Kind = Literal["channel", "item", "pond", "advice", "fault", "system"]
Level = Literal["none", "blue", "yellow", "orange", "red"]
Condition = Literal["present", "gone", "unknown"]
Response = Literal["new", "acknowledged", "assigned", "handled", "closed"]
Deed = Literal["acknowledge", "assign", "handle", "close"]

LEVELS: tuple[Level, ...] = ("none", "blue", "yellow", "orange", "red")

# (what the book holds, what was seen) -> what the book holds then. What was seen to go stays gone while
# nothing can be seen: a sensor that fails afterwards has a fault alarm of its own.
CONDITION: Mapping[tuple[Condition, Condition], Condition] = {
    ("present", "present"): "present",
    ("present", "gone"): "gone",
    ("present", "unknown"): "unknown",
    ("gone", "present"): "present",
    ("gone", "gone"): "gone",
    ("gone", "unknown"): "gone",
    ("unknown", "present"): "present",
    ("unknown", "gone"): "gone",
    ("unknown", "unknown"): "unknown",
}

# (where the response stands, what somebody does) -> where it stands then. What is not here is not allowed.
RESPONSE: Mapping[tuple[Response, Deed], Response] = {
    ("new", "acknowledge"): "acknowledged",
    ("new", "assign"): "assigned",
    ("acknowledged", "assign"): "assigned",
    ("acknowledged", "handle"): "handled",
    ("assigned", "assign"): "assigned",
    ("assigned", "handle"): "handled",
    ("handled", "assign"): "assigned",  # what was done was not enough
    ("handled", "handle"): "handled",  # something more was done
    ("handled", "close"): "closed",
}


class NotAllowed(Exception):
    """The book refuses; the message is a sentence for whoever asked."""


class Alarm(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One alarm as payload version 1 writes it; every change is a new Alarm with the same id.

    `level` is what holds now (`none` once gone), `was` the level before it last moved; `time` is that of
    the last change, `due` the end of the local day on which it was raised, or of the night duty it fell to.
    All times RFC 3339 UTC. `evidence` has, beside what the observation brought, `called` (who, one after
    the other), `repeats` (how often it came back), `remeasured` (the neighbourhood at red), `latched`.
    """

    id: str
    kind: Kind
    level: Level
    was: Level
    condition: Condition
    response: Response
    by: str | None = None
    role: str | None = None
    note: str | None = None
    pond: str | None = None
    section: str | None = None
    item: str | None = None
    monitoring_point: str | None = None
    channel: str | None = None
    line: str | None = None
    device: str | None = None
    rule: str | None = None
    value: float | None = None
    limit: float | None = None
    time: str
    due: str
    reason: Reason
    evidence: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True)
class Subject:
    """What an alarm is about; of one kind and name there is at most one open alarm."""

    kind: Kind
    name: str
    pond: str | None = None
    section: str | None = None
    item: str | None = None
    monitoring_point: str | None = None
    channel: str | None = None
    line: str | None = None
    device: str | None = None
    rule: str | None = None

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Observation:
    """What is seen of a subject at one instant. `value` and `limit` are in the channel's unit; NaN: none."""

    level: Level
    condition: Condition
    time_ns: int
    reason: Reason
    value: float = math.nan
    limit: float = math.nan
    evidence: Mapping[str, object] | None = None
    due_ns: int | None = None  # where it is to be handled sooner than other alarms


class AlarmBook:
    """The open alarms. Bounded: at most one for each subject, and subjects come from the site file.

    Args:
        alarms: the latest state of each alarm, as stored; closed ones are passed over.
        timezone: where the day ends on which an alarm is to be handled.
        due: by when (ns, UTC) an alarm raised at that instant is to be handled; absent: the local midnight.
        group_s: an acknowledged alarm that comes back so soon, and no higher, is no new one.
    """

    def __init__(
        self,
        alarms: Iterable[Alarm] = (),
        *,
        timezone: tzinfo,
        due: Callable[[int], int] | None = None,
        group_s: float = 0.0,
    ) -> None:
        self._timezone = timezone
        self._due = due
        self._group_s = group_s
        self._open: dict[str, Alarm] = {}
        self.restore(alarms)

    def restore(self, alarms: Iterable[Alarm]) -> None:
        """Take up stored alarms, each as it was left."""
        for alarm in alarms:
            if alarm.response != "closed":
                self._open[_key(alarm.id)] = alarm

    def open(self) -> list[Alarm]:
        """All that is not closed, worst and oldest first."""
        return sorted(self._open.values(), key=lambda a: (-LEVELS.index(a.level), a.due, a.id))

    def overdue(self, now_ns: int) -> list[Alarm]:
        """Those that nobody has handled by the end of their day."""
        waiting = ("new", "acknowledged", "assigned")
        return [a for a in self.open() if a.response in waiting and parse_rfc3339(a.due) <= now_ns]

    def find(self, alarm_id: str) -> Alarm:
        """The open alarm of that id.

        Raises:
            NotAllowed: there is none.
        """
        alarm = self._open.get(_key(alarm_id))
        if alarm is None or alarm.id != alarm_id:
            raise NotAllowed(
                f"no open alarm is called {alarm_id}; pondwatch alarms lists those that are open"
            )
        return alarm

    def observe(self, subject: Subject, seen: Observation) -> Alarm | None:
        """What the book makes of an observation: a new or changed alarm, or None if nothing changed."""
        old = self._open.get(subject.key)
        if old is None:
            alarm = self._raised(subject, seen) if seen.condition == "present" else None
        else:
            alarm = self._changed(old, seen)
        if alarm is not None:
            self._open[subject.key] = alarm
        return alarm

    def _raised(self, subject: Subject, seen: Observation) -> Alarm:
        about = {f: getattr(subject, f) for f in _ABOUT}
        stamp = rfc3339(seen.time_ns)
        return Alarm(
            id=f"{subject.key}:{stamp.replace('-', '').replace(':', '')}",
            kind=subject.kind,
            level=seen.level,
            was="none",
            condition="present",
            response="new",
            due=self._due_at(seen),
            **about,
            **_told(seen),
        )

    def _changed(self, old: Alarm, seen: Observation) -> Alarm | None:
        condition = CONDITION[old.condition, seen.condition]
        level = {"present": seen.level, "gone": "none", "unknown": old.level}[condition]
        if (condition, level) == (old.condition, old.level):
            return None
        changes = _told(seen) | {"condition": condition, "level": level}
        if level != old.level:
            changes["was"] = old.level
        rings = self._rings(old, level, seen.time_ns)
        changes["evidence"] = {**changes["evidence"], **_carried(old, condition, rings=rings)}
        if rings:
            changes |= {"response": "new", "by": None, "role": None, "note": None}
            changes["due"] = self._due_at(seen)
        return msgspec.structs.replace(old, **changes)

    def _rings(self, old: Alarm, level: Level, time_ns: int) -> bool:
        """Whether people are asked anew: it is higher, or it came back and is no repeat of what they know."""
        if old.condition != "gone":
            return LEVELS.index(level) > LEVELS.index(old.level)
        known = old.response in ("acknowledged", "assigned") and LEVELS.index(level) <= LEVELS.index(old.was)
        return not (known and 0 <= time_ns - parse_rfc3339(old.time) < self._group_s * 1e9)

    def attach(self, alarm_id: str, evidence: Mapping[str, object], reason: Reason | None = None) -> Alarm:
        """Add to what an alarm rests on; it changes nothing else, and asks nobody anew.

        Raises:
            NotAllowed: no such alarm is open.
        """
        alarm = self.find(alarm_id)
        alarm = msgspec.structs.replace(
            alarm, evidence={**alarm.evidence, **evidence}, reason=reason or alarm.reason
        )
        self._open[_key(alarm_id)] = alarm
        return alarm

    def of(self, subject: Subject) -> Alarm | None:
        """The open alarm about `subject`."""
        return self._open.get(subject.key)

    def respond(
        self,
        alarm_id: str,
        deed: Deed,
        *,
        by: str,
        role: str | None,
        note: str | None,
        time_ns: int,
        absent: bool = False,
    ) -> Alarm:
        """Write down what somebody did about an alarm; `absent`: nobody can observe its subject any more.

        Raises:
            NotAllowed: no such alarm is open, this is not its turn, or a name or note is missing.
        """
        alarm = self.find(alarm_id)
        after = RESPONSE.get((alarm.response, deed))
        if after is None:
            turn = [d for (response, d) in RESPONSE if response == alarm.response]
            raise NotAllowed(
                f"{alarm_id} is {alarm.response}: {deed} is not its turn, but {' or '.join(turn)}"
            )
        if deed == "close" and alarm.condition != "gone" and not absent:
            raise NotAllowed(f"{alarm_id} cannot be closed: its condition is {alarm.condition}, not gone")
        if not by.strip():
            raise NotAllowed(f"who would {deed} {alarm_id}? A name is needed")
        if deed == "handle" and not (note or "").strip():
            raise NotAllowed(f"what was done about {alarm_id}? A note is needed")
        changes = {"response": after, "by": by, "role": role, "note": note, "time": rfc3339(time_ns)}
        alarm = msgspec.structs.replace(alarm, **changes)
        if after == "closed":
            del self._open[_key(alarm_id)]
        else:
            self._open[_key(alarm_id)] = alarm
        return alarm

    def _due_at(self, seen: Observation) -> str:
        """The local midnight that follows: an alarm is handled on the day it comes."""
        time_ns = seen.time_ns
        if seen.due_ns is not None:
            return rfc3339(seen.due_ns)
        if self._due is not None:
            return rfc3339(self._due(time_ns))
        day = datetime.fromtimestamp(time_ns / 1e9, self._timezone).date() + timedelta(days=1)
        midnight = datetime.combine(day, time(), self._timezone).astimezone(UTC)
        return rfc3339(round(midnight.timestamp()) * 1_000_000_000)


_ABOUT = ("pond", "section", "item", "monitoring_point", "channel", "line", "device", "rule")


def _told(seen: Observation) -> dict[str, Any]:
    """The members of an alarm that an observation brings."""
    return {
        "value": seen.value if math.isfinite(seen.value) else None,
        "limit": seen.limit if math.isfinite(seen.limit) else None,
        "time": rfc3339(seen.time_ns),
        "reason": seen.reason,
        "evidence": seen.evidence or {},
    }


def _carried(old: Alarm, condition: Condition, *, rings: bool) -> dict[str, object]:
    """What an alarm keeps of its evidence when it is observed anew."""
    kept = {name: old.evidence[name] for name in ("repeats", "called") if name in old.evidence}
    if rings:
        kept.pop("called", None)
    if (old.condition, condition) == ("gone", "present"):
        kept["repeats"] = 1 + int(str(kept.get("repeats", 0)))
    return kept


def _key(alarm_id: str) -> str:
    """The subject's key: an id is `kind:name:instant`, and the instant has no colon."""
    return alarm_id.rpartition(":")[0]


def encode(alarm: Alarm) -> bytes:
    """The alarm as JSON, for its row in the store."""
    return msgspec.json.encode(alarm)


def decode(row: bytes) -> Alarm:
    """The alarm of a stored row."""
    return msgspec.json.decode(row, type=Alarm)


ROTTEN = "it is not what was committed"  # what the store shows without a byte


def readable(rows: Mapping[str, bytes]) -> dict[str, Alarm]:
    """The rows of the book; one that has rotted is passed over and said."""
    book = {}
    for id_, row in rows.items():
        try:
            book[id_] = decode(row)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            why = error if row else ROTTEN
            log.error("alarm %s cannot be read back from the store: %s", id_, why)  # noqa: TRY400 -- no trace helps
    return book


def body(alarm: Alarm) -> bytes:
    """The alarm's members without the braces, for a payload that has more members."""
    return encode(alarm)[1:-1]
