"""The alarm book: every pair of state and event of both tables, and a person's day with it."""

import json
import math
import re
from itertools import product
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import alarms, reasons
from daemon.alarms import (
    CONDITION,
    LEVELS,
    RESPONSE,
    Alarm,
    AlarmBook,
    Condition,
    Deed,
    Level,
    NotAllowed,
    Observation,
    Response,
    Subject,
)
from daemon.reading import parse_rfc3339
from drivers.sample import Quality

SHANGHAI = ZoneInfo("Asia/Shanghai")
MORNING = parse_rfc3339("2026-11-23T01:00:00.000Z")  # 09:00 in Shanghai
MIN = 60_000_000_000
PZ03 = Subject(
    "channel", "n.pz03.elevation", pond="n", section="2-2", item="phreatic-line", monitoring_point="PZ03"
)
WHY = reasons.Reason("原因", "why")
DEEDS = get_args(Deed)
RESPONSES = get_args(Response)
CONDITIONS = get_args(Condition)


def seen(level: Level = "yellow", condition: Condition = "present", minute: int = 0) -> Observation:
    return Observation(level, condition, MORNING + minute * MIN, WHY, 85.1, 85.0)


def book(*alarms_: Alarm) -> AlarmBook:
    return AlarmBook(alarms_, timezone=SHANGHAI)


def raised(level: Level = "yellow") -> tuple[AlarmBook, Alarm]:
    fresh = book()
    alarm = fresh.observe(PZ03, seen(level))
    assert alarm is not None
    return fresh, alarm


def do(the_book: AlarmBook, alarm: Alarm, *deeds: Deed) -> Alarm:
    for minute, deed in enumerate(deeds, 1):
        alarm = the_book.respond(
            alarm.id, deed, by="Li Wei", role="督办人", note="checked", time_ns=MORNING + minute * MIN
        )
    return alarm


# How to bring a fresh alarm to each response that is still open.
WAY: dict[Response, tuple[Deed, ...]] = {
    "new": (),
    "acknowledged": ("acknowledge",),
    "assigned": ("assign",),
    "handled": ("acknowledge", "handle"),
}


def test_an_alarm_has_exactly_the_members_of_payload_version_1() -> None:
    _, alarm = raised()
    members = """
        id kind level was condition response by role note pond section item monitoring_point
        channel line device rule value limit time due reason evidence
    """
    assert " ".join(json.loads(alarms.encode(alarm))) == " ".join(members.split())
    assert set(alarm.reason.__struct_fields__) == {"zh", "en"}


def test_the_condition_table_knows_every_pair() -> None:
    assert set(CONDITION) == set(product(CONDITIONS, CONDITIONS))


@pytest.mark.parametrize(("held", "then"), list(product(CONDITIONS, CONDITIONS)))
def test_the_book_follows_the_condition_table(held: Condition, then: Condition) -> None:
    the_book, alarm = raised()
    if held != "present":
        the_book.observe(PZ03, seen("none", held, 1))
    changed = the_book.observe(PZ03, seen("yellow" if then == "present" else "none", then, 2))
    now = the_book.find(alarm.id)
    assert now.condition == CONDITION[held, then]
    assert (changed is None) == (CONDITION[held, then] == held)
    # Without a valid value the level is what it was; it never falls because a sensor fails.
    assert now.level == ("none" if now.condition == "gone" else "yellow")


@pytest.mark.parametrize(
    ("response", "deed", "condition"),
    list(product([r for r in RESPONSES if r != "closed"], DEEDS, CONDITIONS)),
)
def test_the_book_follows_the_response_table(response: Response, deed: Deed, condition: Condition) -> None:
    the_book, alarm = raised()
    before = do(the_book, alarm, *WAY[response])
    assert before.response == response
    if condition != "present":
        the_book.observe(PZ03, seen("none", condition, 5))
    allowed = (response, deed) in RESPONSE and (deed != "close" or condition == "gone")
    if allowed:
        after = do(the_book, alarm, deed)
        assert after.response == RESPONSE[response, deed]
        assert (after.by, after.role, after.note) == ("Li Wei", "督办人", "checked")
        assert (after.level, after.condition) == ("none" if condition == "gone" else "yellow", condition)
        assert the_book.open() == ([] if after.response == "closed" else [after])
    else:
        with pytest.raises(NotAllowed, match=alarm.id):
            do(the_book, alarm, deed)
        assert the_book.find(alarm.id).response == response


def test_nothing_leads_out_of_closed_and_only_handled_leads_there() -> None:
    assert all(response != "closed" for response, _ in RESPONSE)
    assert [pair for pair, after in RESPONSE.items() if after == "closed"] == [("handled", "close")]


def test_a_refusal_says_what_can_be_done_instead() -> None:
    the_book, alarm = raised()
    with pytest.raises(NotAllowed, match="is new: close is not its turn, but acknowledge or assign"):
        do(the_book, alarm, "close")
    do(the_book, alarm, "acknowledge", "handle")
    with pytest.raises(NotAllowed, match="cannot be closed: its condition is present, not gone"):
        do(the_book, alarm, "close")
    with pytest.raises(NotAllowed, match="no open alarm is called"):
        the_book.respond("channel:x:1", "close", by="a", role=None, note=None, time_ns=MORNING)


def test_a_deed_needs_a_name_and_handling_needs_a_note() -> None:
    the_book, alarm = raised()
    with pytest.raises(NotAllowed, match="name is needed"):
        the_book.respond(alarm.id, "acknowledge", by=" ", role=None, note=None, time_ns=MORNING)
    do(the_book, alarm, "acknowledge")
    with pytest.raises(NotAllowed, match="note is needed"):
        the_book.respond(alarm.id, "handle", by="Li Wei", role=None, note="", time_ns=MORNING)


def test_what_was_never_present_raises_nothing() -> None:
    the_book = book()
    assert the_book.observe(PZ03, seen("none", "gone")) is None
    assert the_book.observe(PZ03, seen("none", "unknown")) is None
    assert the_book.open() == []


def test_a_repeat_of_what_is_known_changes_nothing() -> None:
    the_book, alarm = raised()
    assert the_book.observe(PZ03, seen(minute=1)) is None
    assert the_book.open() == [alarm]


@pytest.mark.parametrize(("level", "then"), list(product(LEVELS[1:], LEVELS[1:])))
@pytest.mark.parametrize("response", list(WAY))
def test_only_a_higher_level_asks_for_people_again(response: Response, level: Level, then: Level) -> None:
    the_book, alarm = raised(level)
    do(the_book, alarm, *WAY[response])
    changed = the_book.observe(PZ03, seen(then, minute=9))
    if level == then:
        assert changed is None
        return
    assert changed is not None
    assert (changed.level, changed.was, changed.id) == (then, level, alarm.id)
    if LEVELS.index(then) > LEVELS.index(level):
        assert (changed.response, changed.by, changed.note) == ("new", None, None)
    else:
        assert changed.response == response


def test_a_condition_that_comes_back_is_the_same_alarm_and_new_again() -> None:
    the_book, alarm = raised()
    do(the_book, alarm, "acknowledge", "handle")
    gone = the_book.observe(PZ03, seen("none", "gone", 10))
    assert gone is not None
    assert (gone.response, gone.level, gone.was) == ("handled", "none", "yellow")
    back = the_book.observe(PZ03, seen("blue", minute=11))
    assert back is not None
    assert (back.id, back.response, back.level, back.was) == (alarm.id, "new", "blue", "none")


def test_a_gap_in_the_data_is_no_new_occurrence() -> None:
    the_book, alarm = raised()
    do(the_book, alarm, "acknowledge")
    the_book.observe(PZ03, seen("none", "unknown", 10))
    back = the_book.observe(PZ03, seen(minute=11))
    assert back is not None
    assert back.response == "acknowledged"


def test_after_closing_a_new_occurrence_is_a_new_alarm() -> None:
    the_book, alarm = raised()
    the_book.observe(PZ03, seen("none", "gone", 1))
    do(the_book, alarm, "acknowledge", "handle", "close")
    again = the_book.observe(PZ03, seen(minute=30))
    assert again is not None
    assert again.id != alarm.id
    assert again.response == "new"
    with pytest.raises(NotAllowed):
        the_book.find(alarm.id)


def test_the_id_is_readable_and_the_same_if_the_same_reading_raises_it_again() -> None:
    assert raised()[1].id == raised()[1].id == "channel:n.pz03.elevation:20261123T010000.000Z"


def test_subjects_do_not_mix() -> None:
    the_book, alarm = raised()
    advice = the_book.observe(Subject("advice", "n.pz03.elevation"), seen("none"))
    assert advice is not None
    assert advice.id != alarm.id
    assert len(the_book.open()) == 2
    assert the_book.open()[0] == alarm  # worst first


def test_an_alarm_is_due_by_the_end_of_the_local_day() -> None:
    the_book, alarm = raised()
    assert alarm.due == "2026-11-23T16:00:00.000Z"  # midnight in Shanghai
    midnight = parse_rfc3339(alarm.due)
    assert the_book.overdue(midnight - 1) == []
    assert the_book.overdue(midnight) == [alarm]
    do(the_book, alarm, "acknowledge")
    assert [a.id for a in the_book.overdue(midnight)] == [alarm.id]
    do(the_book, alarm, "handle")
    assert the_book.overdue(midnight) == []


def test_the_day_an_hour_short_of_midnight_is_the_local_one() -> None:
    late = Observation("red", "present", parse_rfc3339("2026-11-23T15:59:59.999Z"), WHY)
    just_after = Observation("red", "present", parse_rfc3339("2026-11-23T16:00:00.000Z"), WHY)
    first, second = book().observe(PZ03, late), book().observe(PZ03, just_after)
    assert first is not None
    assert second is not None
    assert (first.due, second.due) == ("2026-11-23T16:00:00.000Z", "2026-11-24T16:00:00.000Z")


def test_a_stored_book_opens_as_it_was_closed() -> None:
    the_book, alarm = raised()
    do(the_book, alarm, "acknowledge")
    the_book.observe(Subject("fault", "vw1", device="vw1", line="rs485-1"), seen("none"))
    rows = [alarms.encode(a) for a in the_book.open()]
    again = book(*(alarms.decode(row) for row in rows))
    assert again.open() == the_book.open()
    assert again.observe(PZ03, seen(minute=3)) is None  # the alarm is still the same alarm
    assert do(again, alarm, "handle").response == "handled"


def test_a_closed_alarm_in_the_store_stays_closed() -> None:
    the_book, alarm = raised()
    the_book.observe(PZ03, seen("none", "gone", 1))
    closed = do(the_book, alarm, "acknowledge", "handle", "close")
    assert book(closed).open() == []


def test_the_body_is_the_members_without_braces() -> None:
    _, alarm = raised()
    assert json.loads(b"{" + alarms.body(alarm) + b"}") == json.loads(alarms.encode(alarm))


def test_a_missing_value_is_null_never_nan() -> None:
    nothing = Observation("none", "present", MORNING, WHY, math.nan, math.inf)
    alarm = book().observe(Subject("fault", "vw1"), nothing)
    assert alarm is not None
    members = json.loads(alarms.encode(alarm))
    assert members["value"] is members["limit"] is None
    assert members["evidence"] == {}


sights = st.builds(seen, st.sampled_from(LEVELS[1:]), st.sampled_from(CONDITIONS))


@settings(deadline=None)
@given(st.lists(sights | st.sampled_from(DEEDS), max_size=30))
def test_no_order_of_events_loses_an_alarm_or_closes_one_that_holds(order: list[Observation | Deed]) -> None:
    the_book = book()
    for event in order:
        before = the_book.open()
        if isinstance(event, Observation):
            the_book.observe(PZ03, event)
            assert len(the_book.open()) >= len(before)
        elif before:
            try:
                do(the_book, before[0], event)
            except NotAllowed:
                assert the_book.open() == before
            else:
                assert the_book.open() or (before[0].condition, before[0].response) == ("gone", "handled")
    assert len(the_book.open()) <= 1


def test_every_reason_is_said_in_both_languages() -> None:
    said = [
        reasons.level_present(
            "PZ03", "phreatic-line", level="yellow", value=85.1234567, limit=85.0, unit="m"
        ),
        reasons.level_gone("PZ03", "phreatic-line", 84.2, "m"),
        reasons.level_unknown("PZ03", "phreatic-line", Quality.NO_REPLY),
        reasons.item_present("北库", "phreatic-line", "yellow", {"yellow": 1, "blue": 2, "red": 0}),
        reasons.item_gone("北库", "phreatic-line"),
        reasons.pond_present("北库", "yellow", {"phreatic-line": "yellow", "rainfall": "none"}),
        reasons.pond_gone("北库"),
        reasons.fault_present("vw1", Quality.LINE_DOWN),
        reasons.fault_gone("vw1", 312.4),
    ]
    assert [r.zh for r in said] == [
        "PZ03 浸润线黄色预警：测值 85.1235 m，预警阈值 85 m",
        "PZ03 浸润线测值恢复到预警阈值以内：84.2 m",
        "PZ03 浸润线无有效测值（设备无应答），预警是否持续未知",
        "北库 浸润线黄色预警：黄色 1 点，蓝色 2 点",
        "北库 浸润线各监测点恢复到预警阈值以内",
        "北库 黄色预警：浸润线黄色",
        "北库 各监测项目无预警",
        "vw1 故障报警：通信线路中断",
        "vw1 恢复正常，中断 312 s",
    ]
    assert said[0].en == "PZ03 phreatic-line: yellow, 85.1235 m against the trigger level 85 m"
    assert said[7].en == "vw1 fault: bad:line-down"
    assert all(r.en for r in said)


# -- repeats, evidence, due ----------------------------------------------------------------------------

GROUP_S = 600.0


@pytest.mark.parametrize("response", list(WAY))
@pytest.mark.parametrize(("then", "higher"), [("blue", False), ("yellow", False), ("orange", True)])
@pytest.mark.parametrize("minutes", [9, 11])
def test_a_repeat_of_what_people_know_asks_nobody_anew(
    response: Response, then: Level, higher: bool, minutes: int
) -> None:
    the_book = AlarmBook(timezone=SHANGHAI, group_s=GROUP_S)
    alarm = the_book.observe(PZ03, seen("yellow"))
    assert alarm is not None
    do(the_book, alarm, *WAY[response])
    the_book.observe(PZ03, seen("none", "gone", 10))
    back = the_book.observe(PZ03, seen(then, minute=10 + minutes))
    assert back is not None
    known = response in ("acknowledged", "assigned") and minutes * 60 < GROUP_S and not higher
    assert back.response == (response if known else "new")
    assert back.evidence["repeats"] == 1
    assert back.id == alarm.id


def test_repeats_are_counted_and_are_one_alarm() -> None:
    the_book = AlarmBook(timezone=SHANGHAI, group_s=GROUP_S)
    the_book.observe(PZ03, seen("yellow"))
    for minute in range(1, 21, 2):
        the_book.observe(PZ03, seen("none", "gone", minute))
        the_book.observe(PZ03, seen("yellow", minute=minute + 1))
    (alarm,) = the_book.open()
    assert alarm.evidence["repeats"] == 10


def test_what_is_attached_changes_nothing_else_and_the_calls_stay_until_it_rings_anew() -> None:
    the_book, alarm = raised()
    attached = the_book.attach(alarm.id, {"called": ["a"]}, reasons.Reason("再", "again"))
    assert the_book.find(alarm.id) == attached
    assert (attached.time, attached.response, attached.reason.en) == (alarm.time, "new", "again")
    unknown = the_book.observe(PZ03, seen("yellow", "unknown", 1))
    assert unknown is not None
    assert unknown.evidence["called"] == ["a"]
    higher = the_book.observe(PZ03, seen("red", minute=2))
    assert higher is not None
    assert "called" not in higher.evidence
    with pytest.raises(NotAllowed, match="no open alarm"):
        the_book.attach("channel:x:1", {})


def test_who_knows_better_says_when_an_alarm_is_due() -> None:
    the_book = AlarmBook(timezone=SHANGHAI, due=lambda time_ns: time_ns + 60 * MIN)
    alarm = the_book.observe(PZ03, seen("yellow"))
    assert alarm is not None
    assert alarm.due == "2026-11-23T02:00:00.000Z"
    sooner = Observation("none", "present", MORNING, WHY, due_ns=MORNING + MIN)
    asked = the_book.observe(Subject("advice", "x"), sooner)
    assert asked is not None
    assert asked.due == "2026-11-23T01:01:00.000Z"
    assert the_book.of(Subject("advice", "x")) == asked
    assert the_book.of(Subject("advice", "y")) is None


def test_every_reason_about_people_water_and_modes_is_said_in_both_languages() -> None:
    said = [
        reasons.red_latched("PZ03", "phreatic-line", 84.2, "m", "supervisor"),
        reasons.manual_gone("PZ03", "phreatic-line", 84.2, "m", "李伟"),
        reasons.manual_differs("PZ03", "phreatic-line", 84.2, 85.0, 0.1, "m"),
        reasons.manual_agrees("PZ03", "phreatic-line"),
        reasons.patrol_abnormal("2-2", "李伟", "坝脚渗水"),
        reasons.section_blind("2-2", 1, 3),
        reasons.section_seen("2-2"),
        reasons.manual_wanted("2-2", 120.0),
        reasons.manual_no_longer_wanted("2-2"),
        reasons.rain_present("n", "orange", "orange storm signal: 52.0 mm / 3 h"),
        reasons.rain_gone("n"),
        reasons.rain_unknown("n"),
        reasons.rain_intense("n", "1, 3"),
        reasons.stop_and_withdraw("n", "orange"),
        reasons.stop_over("n"),
        reasons.limits_run_out("n", "2026-09-30", valid=True),
        reasons.limits_run_out("n", "2026-09-30", valid=False),
        reasons.limits_renewed("n"),
        reasons.stations_missing(["a", "b"], Quality.NO_REPLY),
        reasons.stations_back(),
        reasons.output_fault("siren-n", "no reply"),
        reasons.output_well("siren-n"),
        reasons.drill("n", "red", "王工"),
        reasons.drill_over("n", "ended"),
        reasons.drill_over("n", "overridden"),
    ]
    for reason in said:
        assert re.search("[\u4e00-\u9fff]", reason.zh), reason
        assert reason.en.strip(), reason
    assert len({reason.zh for reason in said}) == len({reason.en for reason in said}) == len(said)
