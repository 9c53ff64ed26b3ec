"""The site file's tables about people: who there is, who is on duty, what an alarm may ask of them.

Deadlines here are the operator's own, and so have defaults; limits of the dam have none anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any, Literal

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_WEEK: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _how(doc: str, example: str, **how: Any) -> dict[str, Any]:
    """What the binder and the example file know of a key."""
    return {"doc": doc, "example": example, **how}


def _key(doc: str, example: str, default: Any = ..., **how: Any) -> Any:
    metadata = _how(doc, example, **how)
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


def _of_level(colour: str, seconds: float, example: str) -> Any:
    how = {"key": colour, "parse": "duration", "exclusive_min": 0.0}
    return _key(f"of a {colour} alarm", example, seconds, **how)


@dataclass(frozen=True, slots=True)
class PersonTable:
    id: str = _key("short name, as `--by` may give it", '"wang"', pattern=r"[A-Za-z0-9._-]+")
    name: str = _key("the person's name", '"王工"')
    role: str = _key("role at the pond; some deeds need one, see red_closed_by", '"supervisor"', "")
    phone: str = _key("how the platform reaches the person", '"+86 138 0000 0000"', "")


@dataclass(frozen=True, slots=True)
class DutyTable:
    """A shift; the first in the file that covers a moment is the one on duty. It may pass midnight."""

    id: str = field(metadata=_how("name of the shift", '"night"'))
    begins: time = field(metadata=_how("local time at which it begins", '"20:00"', key="from", parse="clock"))
    ends: time = field(metadata=_how("local time at which it ends", '"08:00"', key="until", parse="clock"))
    person: str = field(metadata=_how("who is on duty: id of a person", '"wang"'))
    deputy: str = _key("who is called next", '"li"', "")
    supervisor: str = _key("who is called then, and told what is overdue", '"zhao"', "")
    days: tuple[Weekday, ...] = _key("days on which it begins; absent: all", '["mon", "tue"]', ())

    def covers(self, moment: datetime) -> bool:
        """Whether it is on duty at `moment`, local time."""
        clock = moment.time()
        if self.begins < self.ends:
            return self.begins <= clock < self.ends and self._on(moment)
        if clock >= self.begins:
            return self._on(moment)
        return clock < self.ends and self._on(moment - timedelta(days=1))

    def _on(self, day: datetime) -> bool:
        return not self.days or _WEEK[day.weekday()] in self.days

    @property
    def chain(self) -> tuple[str, ...]:
        """Who is called, in order; nobody twice."""
        return tuple(dict.fromkeys(p for p in (self.person, self.deputy, self.supervisor) if p))


@dataclass(frozen=True, slots=True)
class CallTable:
    """How long nobody may have acknowledged before the next person is called.

    Advice to inspect now counts as orange, advice to inspect today as blue.
    """

    blue_s: float = _of_level("blue", 4 * 3600.0, '"4 h"')
    yellow_s: float = _of_level("yellow", 3600.0, '"1 h"')
    orange_s: float = _of_level("orange", 900.0, '"15 min"')
    red_s: float = _of_level("red", 300.0, '"5 min"')


@dataclass(frozen=True, slots=True)
class MuteTable:
    """For how long at most the sound may be off, by the level that rings."""

    blue_s: float = _of_level("blue", 24 * 3600.0, '"24 h"')
    yellow_s: float = _of_level("yellow", 8 * 3600.0, '"8 h"')
    orange_s: float = _of_level("orange", 3600.0, '"1 h"')
    red_s: float = _of_level("red", 900.0, '"15 min"')


@dataclass(frozen=True, slots=True)
class AlarmsTable:
    """What people owe an alarm. Times are the operator's; nothing here is a limit of the dam."""

    red_closed_by: tuple[str, ...] = _key(
        "roles that may close red, after a re-measurement", '["supervisor"]', ("supervisor",)
    )
    call: CallTable = field(
        default=CallTable(),
        metadata=_how("unacknowledged for so long: the next person", '{ red = "5 min" }'),
    )
    mute: MuteTable = field(
        default=MuteTable(), metadata=_how("longest mute of each level", '{ red = "15 min" }')
    )
    late_after: time | None = field(
        default=None,
        metadata=_how(
            "alarms after this local time fall to the night duty; absent: all are due at midnight",
            '"18:00"',
            parse="clock",
        ),
    )
    remind_s: float = _key(
        "what is overdue is said again so often", '"1 h"', 3600.0, key="remind", parse="duration", min=60.0
    )
    group_s: float = _key(
        "an acknowledged alarm that returns within this time, no higher, is not new",
        '"10 min"',
        600.0,
        key="group",
        parse="duration",
    )
    gather_s: float = _key(
        "devices that fall silent within this time are one alarm",
        '"5 s"',
        5.0,
        key="gather",
        parse="duration",
        max=60.0,
    )
    manual_within_s: float = _key(
        "in orange rain a blind section asks for a manual reading within this time",
        '"2 h"',
        7200.0,
        key="manual_within",
        parse="duration",
        exclusive_min=0.0,
    )
    maintain_at_most_s: float = _key(
        "longest maintenance; GB 51108-2015 ch. 10 gives a repair 7 days",
        '"7 d"',
        7 * 86400.0,
        key="maintain_at_most",
        parse="duration",
        exclusive_min=0.0,
    )
    drill_at_most_s: float = _key(
        "longest rehearsal", '"2 h"', 7200.0, key="drill_at_most", parse="duration", exclusive_min=0.0
    )
    renew_ahead_s: float = _key(
        "so long before operating limits run out somebody is told",
        '"30 d"',
        30 * 86400.0,
        key="renew_ahead",
        parse="duration",
    )
    key_switch: str = _key(
        "channel of a key switch at the guard room: when it rises from 0, all that is new is acknowledged",
        '"n.guard.key"',
        "",
    )
