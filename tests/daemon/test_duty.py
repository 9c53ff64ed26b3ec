"""Shifts over midnight and weekends, due times, and calls that go on until somebody acknowledges."""

from __future__ import annotations

import json
from datetime import datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon import reasons
from daemon.alarms import LEVELS, Alarm, AlarmBook, Condition, Deed, Level, Observation, Subject
from daemon.duty import Calls, Roster, urgency_rank
from daemon.duty_tables import AlarmsTable, CallTable, DutyTable, PersonTable
from daemon.reading import rfc3339

SHANGHAI = ZoneInfo("Asia/Shanghai")
PEOPLE = [
    PersonTable("li", "李伟", "duty"),
    PersonTable("chen", "陈静", "deputy"),
    PersonTable("wang", "王工", "supervisor"),
]
DAY = DutyTable("day", time(8), time(20), "li", "chen", "wang")
NIGHT = DutyTable("night", time(20), time(8), "chen", "", "wang")
WHY = reasons.Reason("原因", "why")
S = 1_000_000_000


def at(text: str) -> int:
    """Local time in Shanghai, ns UTC; 2026-11-23 is a Monday."""
    return round(datetime.fromisoformat(text).replace(tzinfo=SHANGHAI).timestamp()) * S


def roster(*shifts: DutyTable, late_after: time | None = None) -> Roster:
    return Roster(PEOPLE, shifts or (DAY, NIGHT), SHANGHAI, late_after)


@pytest.mark.parametrize(
    ("moment", "shift"),
    [
        ("2026-11-23T08:00", "day"),
        ("2026-11-23T19:59", "day"),
        ("2026-11-23T20:00", "night"),
        ("2026-11-23T23:59", "night"),
        ("2026-11-24T00:00", "night"),
        ("2026-11-24T07:59", "night"),
    ],
)
def test_each_moment_has_its_shift(moment: str, shift: str) -> None:
    on_duty = roster().on_duty(at(moment))
    assert on_duty is not None
    assert on_duty.id == shift


def test_a_night_that_begins_on_friday_lasts_into_saturday_morning() -> None:
    friday = DutyTable("friday", time(20), time(8), "li", days=("fri",))
    assert roster(friday).on_duty(at("2026-11-28T07:00")) == friday  # Saturday
    assert roster(friday).on_duty(at("2026-11-27T07:00")) is None
    assert roster(friday).on_duty(at("2026-11-28T20:00")) is None


def test_nobody_is_called_twice_for_one_alarm() -> None:
    assert DutyTable("x", time(8), time(9), "li", "li", "wang").chain == ("li", "wang")


def test_a_person_is_found_by_id_and_by_name() -> None:
    assert roster().person("wang") == roster().person("王工") == PEOPLE[2]
    assert roster().person("nobody") is None


@pytest.mark.parametrize(
    ("raised", "due", "first"),
    [
        ("2026-11-23T09:00", "2026-11-24T00:00", "李伟"),
        ("2026-11-23T17:59", "2026-11-24T00:00", "李伟"),
        ("2026-11-23T18:00", "2026-11-24T08:00", "陈静"),  # late: the night duty's
        ("2026-11-23T23:59", "2026-11-24T08:00", "陈静"),
        ("2026-11-24T00:00", "2026-11-25T00:00", "陈静"),  # a new day
    ],
)
def test_alarms_are_due_the_same_day_and_late_ones_fall_to_the_night_duty(
    raised: str, due: str, first: str
) -> None:
    its = roster(late_after=time(18))
    assert its.due_ns(at(raised)) == at(due)
    assert its.chain(at(raised))[0].name == first


def test_without_a_night_shift_a_late_alarm_is_due_at_midnight() -> None:
    assert roster(DAY, late_after=time(18)).due_ns(at("2026-11-23T23:00")) == at("2026-11-24T00:00")


@given(st.integers(at("2026-01-01T00:00") // S, at("2027-01-01T00:00") // S), st.booleans())
def test_an_alarm_is_never_due_before_it_comes_nor_later_than_the_next_morning(
    now_s: int, late: bool
) -> None:
    due_ns = roster(late_after=time(18) if late else None).due_ns(now_s * S)
    assert 0 < due_ns - now_s * S <= 24 * 3600 * S
    assert datetime.fromtimestamp(due_ns / S, SHANGHAI).time() in (time(0), time(8))


# -- calls -------------------------------------------------------------------------------------------

TABLE = AlarmsTable(
    call=CallTable(blue_s=4000.0, yellow_s=2000.0, orange_s=600.0, red_s=300.0), remind_s=3600.0
)
START = at("2026-11-23T09:00")


class Bench:
    """A book with one alarm, and the calls it leads to."""

    def __init__(self, its: Roster | None = None) -> None:
        self.book = AlarmBook(timezone=SHANGHAI)
        self.calls = Calls(TABLE, its or roster())

    def see(self, level: Level, second: int, condition: Condition = "present", **evidence: str) -> Alarm:
        seen = Observation(level, condition, START + second * S, WHY, evidence=evidence)
        self.book.observe(Subject("channel", "c", pond="n"), seen)
        return self.book.open()[0]

    def look(self, second: int) -> list[tuple[str, str]]:
        now_ns = START + second * S
        late = [alarm.id for alarm in self.book.overdue(now_ns)]
        return [(call.person, call.why) for call in self.calls.look(self.book.open(), late, now_ns)]

    def acknowledge(self) -> None:
        alarm = self.book.open()[0]
        self.book.respond(alarm.id, "acknowledge", by="li", role=None, note=None, time_ns=START)


def test_an_unacknowledged_alarm_goes_from_person_to_person_and_stays_with_the_last() -> None:
    bench = Bench()
    bench.see("red", 0)
    assert bench.look(0) == [("李伟", "raised")]
    assert bench.look(299) == []
    assert bench.look(300) == [("陈静", "unacknowledged")]
    assert bench.look(599) == []
    assert bench.look(600) == [("王工", "unacknowledged")]
    assert bench.look(900) == [("王工", "unacknowledged")]
    assert bench.calls.step(bench.book.open()[0].id) == 3


@pytest.mark.parametrize(
    ("level", "after_s"), [("blue", 4000), ("yellow", 2000), ("orange", 600), ("red", 300)]
)
def test_each_level_waits_its_own_time(level: Level, after_s: int) -> None:
    bench = Bench()
    bench.see(level, 0)
    bench.look(0)
    assert bench.look(after_s - 1) == []
    assert bench.look(after_s) == [("陈静", "unacknowledged")]


def test_an_acknowledged_alarm_calls_nobody_until_it_rises() -> None:
    bench = Bench()
    bench.see("yellow", 0)
    bench.look(0)
    bench.acknowledge()
    assert bench.look(9000) == []
    bench.see("red", 9001)
    assert bench.look(9001) == [("李伟", "raised")]


def test_a_level_that_rises_while_unacknowledged_begins_with_the_first_person_again() -> None:
    bench = Bench()
    bench.see("yellow", 0)
    bench.look(0)
    bench.look(2000)
    bench.see("orange", 2001)
    assert bench.look(2001) == [("李伟", "raised")]
    assert bench.look(2601) == [("陈静", "unacknowledged")]


def test_what_is_overdue_is_forwarded_to_the_supervisor_reminded_and_never_closed() -> None:
    bench = Bench()
    alarm = bench.see("yellow", 0)
    bench.look(0)
    bench.acknowledge()
    midnight = (at("2026-11-24T00:00") - START) // S
    assert bench.look(midnight - 1) == []
    assert bench.look(midnight) == [("王工", "overdue")]
    assert bench.look(midnight + 3599) == []
    assert bench.look(midnight + 3600) == [("王工", "overdue")]
    for day in range(1, 30):
        assert bench.look(midnight + day * 86400) == [("王工", "overdue")]
    assert bench.book.find(alarm.id).response == "acknowledged"


def test_calls_go_on_where_a_restart_cut_them() -> None:
    bench, again = Bench(), Bench()
    bench.see("red", 0)
    bench.look(0)
    bench.look(300)
    again.book.restore(bench.book.open())
    again.calls.restore(json.loads(json.dumps(bench.calls.state())))
    assert again.look(599) == []
    assert again.look(600) == [("王工", "unacknowledged")]


def test_a_clock_that_steps_back_calls_at_once_rather_than_never() -> None:
    bench = Bench()
    bench.see("red", 0)
    bench.look(0)
    assert bench.look(-86400) == [("陈静", "unacknowledged")]


def test_without_a_roster_time_counts_all_the_same() -> None:
    bench = Bench(Roster((), (), SHANGHAI))
    alarm = bench.see("red", 0)
    assert bench.look(0) == [("", "raised")]
    assert bench.look(300) == [("", "unacknowledged")]
    assert bench.calls.step(alarm.id) == 1


@pytest.mark.parametrize(
    ("level", "urgency", "rank"),
    [
        ("none", None, 0),
        ("none", "watch", 0),
        ("none", "inspect today", 1),
        ("none", "inspect now", 3),
        ("blue", None, 1),
        ("orange", "inspect today", 3),
        ("red", "watch", 4),
    ],
)
def test_advice_calls_by_its_urgency_and_levels_by_themselves(
    level: Level, urgency: str | None, rank: int
) -> None:
    book = AlarmBook(timezone=SHANGHAI)
    evidence = {} if urgency is None else {"urgency": urgency}
    alarm = book.observe(Subject("advice", "a"), Observation(level, "present", START, WHY, evidence=evidence))
    assert alarm is not None
    assert urgency_rank(alarm) == rank
    gone = book.observe(
        Subject("advice", "a"), Observation("none", "gone", START + S, WHY, evidence=evidence)
    )
    assert gone is not None
    assert urgency_rank(gone) == LEVELS.index(level), "a level that went unnoticed still asks for somebody"


def test_closed_alarms_leave_no_record() -> None:
    bench = Bench()
    alarm = bench.see("red", 0)
    bench.look(0)
    bench.see("none", 10, "gone")
    deeds: tuple[Deed, ...] = ("acknowledge", "handle", "close")
    for deed in deeds:
        bench.book.respond(alarm.id, deed, by="li", role=None, note="n", time_ns=START)
    bench.look(20)
    assert bench.calls.state() == {}
    assert rfc3339(START) == "2026-11-23T01:00:00.000Z"
