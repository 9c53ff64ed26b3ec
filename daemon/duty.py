"""Who is on duty, who is called when, and by when an alarm is to be handled.

A shift names a person, a deputy and a supervisor. An alarm calls the person of the shift; if nobody
acknowledges it within its level's minutes, the next is called and the louder outputs begin, and so on, the
last one again and again. An alarm is to be handled on the local day on which it comes; one that comes late in
the day falls to the night duty and is due when that ends. What is overdue is said again and forwarded to the
supervisor, and never closes itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Literal

import msgspec

from daemon.alarms import LEVELS
from daemon.reading import parse_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import tzinfo

    from daemon.alarms import Alarm
    from daemon.duty_tables import AlarmsTable, DutyTable, PersonTable

NS = 1_000_000_000
CALLS = "calls"  # name of the state in which the store keeps who was called


# -- the roster --------------------------------------------------------------------------------------


class Roster:
    """Who is on duty at a moment.

    Args:
        people: everybody the site file names.
        shifts: the first that covers a moment is on duty.
        timezone: of the shifts' times.
        late_after: see `AlarmsTable`.
    """

    def __init__(
        self,
        people: Sequence[PersonTable],
        shifts: Sequence[DutyTable],
        timezone: tzinfo,
        late_after: time | None = None,
    ) -> None:
        self._people = {person.id: person for person in people}
        self._shifts = tuple(shifts)
        self._timezone = timezone
        self._late_after = late_after

    def person(self, who: str) -> PersonTable | None:
        """The person called `who`, by id or by name."""
        if who in self._people:
            return self._people[who]
        return next((person for person in self._people.values() if person.name == who), None)

    @property
    def is_empty(self) -> bool:
        """The site names nobody: a role is then what the caller says it is."""
        return not self._people

    def on_duty(self, time_ns: int) -> DutyTable | None:
        moment = self._local(time_ns)
        return next((shift for shift in self._shifts if shift.covers(moment)), None)

    def chain(self, time_ns: int) -> list[PersonTable]:
        """Who is called for an alarm at this moment, in order."""
        shift = self._night(time_ns) or self.on_duty(time_ns)
        return [self._people[who] for who in shift.chain if who in self._people] if shift else []

    def due_ns(self, time_ns: int) -> int:
        """By when an alarm that comes at `time_ns` is to be handled."""
        moment = self._local(time_ns)
        midnight = datetime.combine(moment.date() + timedelta(days=1), time(), self._timezone)
        night = self._night(time_ns)
        if night is not None:
            midnight = datetime.combine(midnight.date(), night.ends, self._timezone)
        return round(midnight.astimezone(UTC).timestamp()) * NS

    def _night(self, time_ns: int) -> DutyTable | None:
        """The shift over the coming midnight, if it is late already and there is one."""
        moment = self._local(time_ns)
        if self._late_after is None or moment.time() < self._late_after:
            return None
        midnight = datetime.combine(moment.date() + timedelta(days=1), time(), self._timezone)
        found = next((shift for shift in self._shifts if shift.covers(midnight)), None)
        return found if found is not None and found.begins > found.ends else None

    def _local(self, time_ns: int) -> datetime:
        return datetime.fromtimestamp(time_ns / 1e9, self._timezone)


# -- calls -------------------------------------------------------------------------------------------


class Called(msgspec.Struct, frozen=True):
    """A person is called about an alarm. `step` counts from 0; `why` it is this call and not the first."""

    alarm: str
    step: int
    person: str
    role: str
    why: Literal["raised", "unacknowledged", "overdue"]


@dataclass(slots=True)
class _Record:
    """How far the calls for one alarm have come. Times are the clock's monotonic one, ns."""

    level: int
    step: int
    called_ns: int
    reminded_ns: int


class Calls:
    """Decides whom to call; one record for each open alarm that calls anybody, so bounded by the book.

    Args:
        table: the level's minutes, how often to remind.
        roster: who is on duty.
    """

    def __init__(self, table: AlarmsTable, roster: Roster) -> None:
        self._table = table
        self._roster = roster
        self._records: dict[str, _Record] = {}

    def step(self, alarm_id: str) -> int:
        """How often the call for an unacknowledged alarm went further; 0: only the first person is called."""
        record = self._records.get(alarm_id)
        return record.step if record else 0

    def look(self, alarms: Iterable[Alarm], overdue: Iterable[str], now_ns: int) -> list[Called]:
        """The calls that are due now.

        Args:
            alarms: all that is open.
            overdue: ids of those that are overdue.
            now_ns: wall time, UTC.
        """
        calls: list[Called] = []
        late = set(overdue)
        kept: dict[str, _Record] = {}
        for alarm in alarms:
            rank = urgency_rank(alarm)
            record = self._records.get(alarm.id)
            if rank and alarm.response == "new":
                kept[alarm.id], called = self._called(alarm, rank, record, now_ns)
            else:
                kept[alarm.id] = record or _Record(0, 0, now_ns, now_ns)
                called = None
            if called is None and alarm.id in late:
                called = self._reminded(alarm, kept[alarm.id], now_ns)
            if called is not None:
                calls.append(called)
        self._records = kept
        return calls

    def _called(
        self, alarm: Alarm, rank: int, record: _Record | None, now_ns: int
    ) -> tuple[_Record, Called | None]:
        if record is None or rank > record.level:
            raised = _Record(rank, 0, now_ns, now_ns)
            return raised, self._call(alarm, 0, "raised", now_ns)
        waited_s = (now_ns - record.called_ns) / NS
        if 0 <= waited_s < self._minutes_s(rank):
            return record, None
        record.step, record.called_ns = record.step + 1, now_ns
        return record, self._call(alarm, record.step, "unacknowledged", now_ns)

    def _reminded(self, alarm: Alarm, record: _Record, now_ns: int) -> Called | None:
        """What is overdue goes to the last of the chain, the supervisor."""
        waited_s = (now_ns - max(record.reminded_ns, parse_rfc3339(alarm.due) - NS)) / NS
        first = record.reminded_ns < parse_rfc3339(alarm.due)
        if not first and 0 <= waited_s < self._table.remind_s:
            return None
        record.reminded_ns = now_ns
        return self._call(alarm, len(self._roster.chain(now_ns)), "overdue", now_ns)

    def _call(
        self, alarm: Alarm, step: int, why: Literal["raised", "unacknowledged", "overdue"], now_ns: int
    ) -> Called:
        chain = self._roster.chain(now_ns)
        if not chain:
            return Called(alarm.id, step, "", "", why)
        person = chain[min(step, len(chain) - 1)]
        return Called(alarm.id, step, person.name, person.role, why)

    def _minutes_s(self, rank: int) -> float:
        call = self._table.call
        return (call.blue_s, call.yellow_s, call.orange_s, call.red_s)[rank - 1]

    # -- state that must outlive a restart -----------------------------------------------------------

    def state(self) -> Mapping[str, Sequence[int]]:
        return {
            name: (each.level, each.step, each.called_ns, each.reminded_ns)
            for name, each in self._records.items()
        }

    def restore(self, state: Mapping[str, Sequence[int]]) -> None:
        self._records = {name: _Record(*numbers) for name, numbers in state.items()}


_RANK_OF_URGENCY = {"watch": 0, "inspect today": 1, "inspect now": 3}


def standing(alarm: Alarm) -> int:
    """The level, as a number, of which people are still to take notice.

    What went before anybody acknowledged it still asks for somebody; a drill that is over does not.
    """
    if alarm.condition == "gone":
        return LEVELS.index(alarm.was) if alarm.rule != "drill" else 0
    return LEVELS.index(alarm.level)


def urgency_rank(alarm: Alarm) -> int:
    """How urgently an alarm calls people: its level's number; of advice, what its urgency compares with.

    0 calls nobody: watch advice, and faults, which are handled in their day.
    """
    level = standing(alarm)
    if level or alarm.condition == "gone":
        return level
    urgency = alarm.evidence.get("urgency")
    return max((rank for name, rank in _RANK_OF_URGENCY.items() if name == urgency), default=0)
