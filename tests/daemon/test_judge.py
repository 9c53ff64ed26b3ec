"""Readings against levels: what is raised, rolled up, seen no longer, and carried over a restart."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, cast
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon import reasons
from daemon.alarms import Alarm, AlarmBook, NotAllowed
from daemon.channels import Channels, Source
from daemon.config import ChannelTable, File, Pond, Section, Site, SiteTable
from daemon.judge import Judge
from drivers.sample import NO_EVIDENCE, Block, Frame, Quality
from edge_rules.law.levels import Level, Levels
from edge_rules.law.rollup import ChannelLevel, roll_up
from tests import naive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.alarms import Deed
    from daemon.config import Item

S = 1_000_000_000
LEVELS = Levels(rising=True, blue=1.0, yellow=2.0, orange=3.0, red=4.0, hysteresis=0.1, hold_s=60, source="t")
BLOCK = Block("d", "b", tuple(f"x{n}" for n in range(6)), ("m",) * 6)


class Bench:
    """Six piezometers of one pond, judged from their frames on."""

    def __init__(self, alarms: Sequence[Alarm] = (), levels: Levels = LEVELS) -> None:
        tables = tuple(
            ChannelTable(
                id=f"c{n}",
                unit="m",
                item="phreatic-line",
                pond="n",
                section="2-2",
                monitoring_point=f"PZ{n}",
                source=f"d.x{n}",
                levels=levels,
            )
            for n in range(6)
        )
        file = File(
            site=SiteTable(id="s", gateway="g"),
            ponds=(Pond(id="n"),),
            sections=(Section(id="2-2", pond="n", live_at_least=4),),
            channels=tables,
        )
        self.channels = Channels(tables, [Source(BLOCK, 60 * S)])
        self.book = AlarmBook(alarms, timezone=ZoneInfo("Asia/Shanghai"))
        self.judge = Judge(cast("Site", file), self.channels.groups, self.book)
        self.minute = 0

    def see(self, *values: float, quality: Quality = Quality.GOOD) -> list[Alarm]:
        """One frame a minute; points not given read 0."""
        self.minute += 1
        now = self.minute * 60 * S
        numbers = [*values, *(0.0,) * (6 - len(values))]
        grades = bytes(quality if i < len(values) else 0 for i in range(6))
        shown = [nan if quality.is_bad and i < len(values) else v for i, v in enumerate(numbers)]
        frame = Frame(BLOCK, now, now, now, numbers, shown, grades)
        return [
            a for group, readings in self.channels.on_frame(frame) for a in self.judge.take(group, readings)
        ]


def told(alarms: Sequence[Alarm]) -> list[tuple[str, str, str]]:
    return [(a.kind, a.level, a.condition) for a in alarms]


def test_a_level_held_for_its_time_raises_channel_item_and_pond_at_once() -> None:
    bench = Bench()
    assert bench.see(2.5) == []
    assert told(bench.see(2.5)) == [
        ("channel", "yellow", "present"),
        ("item", "yellow", "present"),
        ("pond", "yellow", "present"),
    ]
    assert bench.judge.ponds == {"n": Level.YELLOW}
    assert bench.see(2.5) == []


def test_the_alarm_says_value_limit_point_source_and_both_languages() -> None:
    bench = Bench()
    bench.see(2.5)
    alarm, *_ = bench.see(2.6)
    assert (alarm.value, alarm.limit, alarm.monitoring_point, alarm.item) == (
        2.6,
        2.0,
        "PZ0",
        "phreatic-line",
    )
    assert "黄色" in alarm.reason.zh
    assert "yellow" in alarm.reason.en
    assert alarm.evidence["source"] == "t"


def test_three_yellow_points_make_their_item_orange() -> None:
    bench = Bench()
    bench.see(2.5, 2.5, 2.5)
    bench.see(2.5, 2.5, 2.5)
    assert bench.judge.items["n", "phreatic-line"] == Level.ORANGE
    assert bench.judge.ponds["n"] == Level.ORANGE


def test_a_point_that_can_no_longer_be_seen_keeps_its_level_and_is_unknown() -> None:
    bench = Bench()
    bench.see(2.5)
    bench.see(2.5)
    assert told(bench.see(nan, quality=Quality.NO_REPLY)) == [("channel", "yellow", "unknown")]
    assert bench.see(nan, quality=Quality.NO_REPLY) == []
    assert bench.judge.ponds["n"] == Level.YELLOW
    assert told(bench.see(2.5)) == [("channel", "yellow", "present")]


def test_an_uncertain_reading_raises_and_never_clears() -> None:
    bench = Bench()
    bench.see(2.5, quality=Quality.UNCERTAIN_INPUT)
    raised = bench.see(2.5, quality=Quality.UNCERTAIN_INPUT)
    assert raised[0].evidence["unverified"] is True
    assert "unverified" in raised[0].reason.en
    assert "未核实" in raised[0].reason.zh
    for _ in range(5):
        assert bench.see(0.0, quality=Quality.UNCERTAIN_INPUT) == []
    bench.see(0.0)
    assert told(bench.see(0.0))[0] == ("channel", "none", "gone")


def test_levels_that_fall_back_clear_item_and_pond_as_well() -> None:
    bench = Bench()
    for value in (2.5, 2.5, 0.0):
        bench.see(value)
    assert told(bench.see(0.0)) == [
        ("channel", "none", "gone"),
        ("item", "none", "gone"),
        ("pond", "none", "gone"),
    ]


@pytest.mark.parametrize("seen_before", [1, 2])
def test_a_restart_continues_holds_levels_and_the_same_alarm(seen_before: int) -> None:
    before = Bench()
    for _ in range(seen_before):
        before.see(2.5)
    after = Bench([msgspec.json.decode(msgspec.json.encode(a), type=Alarm) for a in before.book.open()])
    for name, state in before.judge.states().items():
        after.judge.restore(name, msgspec.json.decode(msgspec.json.encode(state())))
    after.minute = before.minute
    raised = after.see(2.5)
    if seen_before == 1:  # the hold went on through the restart
        assert told(raised)[0] == ("channel", "yellow", "present")
    else:
        assert raised == []
        assert after.judge.ponds["n"] == Level.YELLOW
        assert [a.id for a in after.book.open()] == [a.id for a in before.book.open()]


def test_only_states_that_moved_are_named_for_the_store() -> None:
    bench = Bench()
    bench.see(0.5, 0.5)
    assert bench.judge.moved() == set()
    bench.see(0.5, 1.5)
    assert bench.judge.moved() == {"level:c1"}
    assert bench.judge.moved() == set()


# -- the quality rule, exactly -------------------------------------------------------------------------


@pytest.mark.parametrize("quality", Quality)
def test_each_quality_raises_and_clears_what_it_may(quality: Quality) -> None:
    usable = not quality.is_bad and quality not in NO_EVIDENCE
    rising = Bench()
    raised = [told(rising.see(2.5, quality=quality)) for _ in range(3)]
    assert (("channel", "yellow", "present") in raised[1]) == usable
    assert rising.judge.level("c0") == (Level.YELLOW if usable else Level.NONE)
    falling = Bench()
    falling.see(2.5)
    falling.see(2.5)
    for _ in range(3):
        falling.see(0.0, quality=quality)
    assert falling.judge.level("c0") == (Level.NONE if quality == Quality.GOOD else Level.YELLOW)


@pytest.mark.parametrize("quality", sorted(NO_EVIDENCE))
def test_a_level_seen_only_through_no_evidence_is_unknown(quality: Quality) -> None:
    bench = Bench()
    bench.see(2.5)
    bench.see(2.5)
    assert told(bench.see(0.0, quality=quality)) == [("channel", "yellow", "unknown")]


# -- red -----------------------------------------------------------------------------------------------


def red() -> Bench:
    bench = Bench()
    bench.see(9.0)
    bench.see(9.0)
    return bench


def test_red_stays_red_when_the_value_falls_and_says_what_it_waits_for() -> None:
    bench = red()
    bench.see(0.0)
    (held,) = bench.see(0.0)
    assert (held.level, held.condition, held.response) == ("red", "present", "new")
    assert held.evidence["latched"] == {"measured": "none", "value": 0.0}
    assert "supervisor" in held.reason.en
    assert "复测" in held.reason.zh
    for _ in range(5):
        assert bench.see(0.0) == []
    assert bench.judge.ponds["n"] == Level.RED


def test_acknowledging_and_handling_never_unlatch_red() -> None:
    bench = red()
    alarm = bench.book.open()[0]
    deeds: tuple[Deed, ...] = ("acknowledge", "handle")
    for deed in deeds:
        bench.book.respond(alarm.id, deed, by="w", role="supervisor", note="n", time_ns=0)
    bench.see(0.0)
    bench.see(0.0)
    assert bench.judge.level("c0") == Level.RED


def test_red_is_released_only_after_a_measurement_that_came_after_the_handling() -> None:
    bench = red()
    with pytest.raises(NotAllowed, match="still red"):
        bench.judge.release("c0", 0, handled_ns=0)
    bench.see(0.0)
    bench.see(0.0)
    now = bench.minute * 60 * S
    with pytest.raises(NotAllowed, match="was not measured since"):
        bench.judge.release("c0", now, handled_ns=now)
    bench.see(0.0)
    released = bench.judge.release("c0", now + 90 * S, handled_ns=now)
    assert told(released) == [("channel", "none", "gone"), ("item", "none", "gone"), ("pond", "none", "gone")]


def test_an_uncertain_reading_is_no_remeasurement() -> None:
    bench = red()
    bench.see(0.0)
    bench.see(0.0)
    now = bench.minute * 60 * S
    bench.see(0.0, quality=Quality.UNCERTAIN_INPUT)
    with pytest.raises(NotAllowed, match="was not measured since"):
        bench.judge.release("c0", now + S, handled_ns=now)


# -- by hand -------------------------------------------------------------------------------------------


def test_a_dead_sensors_level_is_unknown_until_a_named_persons_reading_releases_it() -> None:
    bench = Bench()
    bench.see(2.5)
    bench.see(2.5)
    for _ in range(9):
        bench.see(nan, quality=Quality.NO_REPLY)
    assert bench.judge.level("c0") == Level.YELLOW
    told_ = bench.judge.by_hand("c0", 700 * S, 0.2, "王工")
    assert told(told_) == [("channel", "none", "gone"), ("item", "none", "gone"), ("pond", "none", "gone")]
    assert told_[0].evidence["by_hand"] == "王工"
    assert "王工" in told_[0].reason.en
    assert bench.see(nan, quality=Quality.NO_REPLY) == []
    bench.see(2.5)  # the sensor lives again, and raises again
    assert told(bench.see(2.5))[0] == ("channel", "yellow", "present")


def test_a_reading_by_hand_that_confirms_makes_the_level_known_again() -> None:
    bench = Bench()
    bench.see(2.5)
    bench.see(2.5)
    bench.see(nan, quality=Quality.NO_REPLY)
    told_ = bench.judge.by_hand("c0", 300 * S, 2.4, "w")
    assert told(told_) == [("channel", "yellow", "present")]
    assert bench.judge.ponds["n"] == Level.YELLOW


def test_a_reading_by_hand_is_the_remeasurement_that_closing_red_needs() -> None:
    bench = red()
    bench.see(nan, quality=Quality.NO_REPLY)
    assert told(bench.judge.by_hand("c0", 500 * S, 0.2, "w")) == [("channel", "red", "present")]
    assert told(bench.judge.release("c0", 501 * S, handled_ns=499 * S))[0] == ("channel", "none", "gone")


# -- blind sections ------------------------------------------------------------------------------------


def test_a_section_that_goes_blind_raises_urgency_and_never_a_colour() -> None:
    bench = Bench()
    assert bench.see(nan, nan, quality=Quality.NO_REPLY) == []  # four of six are left
    (blind,) = bench.see(nan, nan, nan, quality=Quality.NO_REPLY)
    assert (blind.kind, blind.level, blind.condition) == ("advice", "none", "present")
    assert blind.evidence == {"urgency": "inspect today", "live": 3, "needed": 4}
    assert bench.judge.blind_sections("n") == ["2-2"]
    assert bench.judge.ponds["n"] == Level.NONE
    seen = bench.see(0.0)[0]
    assert (seen.kind, seen.condition) == ("advice", "gone")
    assert bench.judge.blind_sections("n") == []


# -- only its own pond, item and section are looked at, and nothing is missed ----------------------------

ITEMS = ("phreatic-line", "displacement", "weather")
SITES = st.lists(
    st.tuples(
        st.sampled_from("nm"), st.sampled_from(("1-1", "2-2", "")), st.sampled_from(ITEMS), st.integers(1, 4)
    ),
    min_size=1,
    max_size=14,
)
VALUES = st.sampled_from((0.0, 1.5, 2.5, 3.5, 4.5, nan))
QUICK = Levels(rising=True, blue=1.0, yellow=2.0, orange=3.0, red=4.0, hysteresis=0.1, hold_s=0, source="t")


@given(
    site=SITES,
    scans=st.lists(st.lists(st.tuples(VALUES, st.booleans()), min_size=14, max_size=14), max_size=6),
)
def test_what_is_rolled_up_is_what_a_look_over_every_channel_finds(
    site: list[tuple[str, str, str, int]], scans: list[list[tuple[float, bool]]]
) -> None:
    tables = tuple(
        ChannelTable(
            id=f"c{n}",
            unit="m",
            item=cast("Item", item),
            pond=pond,
            section=section,
            monitoring_point=f"P{point}",
            source=f"d.x{n}",
            levels=QUICK,
        )
        for n, (pond, section, item, point) in enumerate(site)
    )
    sections = tuple(Section(id=name, pond=pond, live_at_least=2) for pond in "nm" for name in ("1-1", "2-2"))
    ponds = (Pond(id="n"), Pond(id="m"))
    file = File(site=SiteTable(id="s", gateway="g"), ponds=ponds, sections=sections, channels=tables)
    block = Block("d", "b", tuple(f"x{n}" for n in range(len(tables))), ("m",) * len(tables))
    channels = Channels(tables, [Source(block, 60 * S)])
    judge = Judge(cast("Site", file), channels.groups, AlarmBook((), timezone=ZoneInfo("Asia/Shanghai")))
    seen = dict.fromkeys((table.id for table in tables), True)
    for minute, scan in enumerate(scans, 1):
        numbers = [value for value, _ in scan][: len(tables)]
        grades = bytes(
            Quality.NO_REPLY if value != value else Quality.FROZEN * doubtful  # noqa: PLR0124 -- NaN test
            for value, doubtful in scan[: len(tables)]
        )
        frame = Frame(block, minute * 60 * S, minute * 60 * S, minute * 60 * S, numbers, numbers, grades)
        alarms = [a for group, readings in channels.on_frame(frame) for a in judge.take(group, readings)]
        seen |= {table.id: grade < Quality.NO_REPLY for table, grade in zip(tables, grades, strict=True)}
        everything = [
            naive.Armed(t.pond, t.section, t.item, t.monitoring_point, judge.level(t.id), seen[t.id])
            for t in tables
        ]
        for pond in "nm":
            armed = {t.section for t in tables if t.pond == pond and t.item != "weather"} - {""}
            blind = [name for name in sorted(armed) if naive.live_points(everything, pond, name) < 2]
            assert judge.blind_sections(pond) == blind
            rolled = roll_up(
                pond,
                [
                    ChannelLevel(each.item, each.point, Level(each.level))
                    for each in everything
                    if each.pond == pond and each.item != "weather"
                ],
            )
            assert judge.ponds[pond] == rolled.pond.level
            assert {i: lv for (p, i), lv in judge.items.items() if p == pond} == {
                item.name: item.level for item in rolled.items
            }
        if sum(alarm.kind == "channel" for alarm in alarms) > 1:
            continue  # an item's sentence is of the moment when it moved, in the midst of the frame
        for alarm in alarms:
            if alarm.kind != "item" or alarm.level == "none":
                continue
            assert alarm.pond is not None
            assert alarm.item is not None
            points = {
                level.text: naive.points_at(everything, alarm.pond, alarm.item, level)
                for level in sorted(Level, reverse=True)
                if level
            }
            assert alarm.reason == reasons.item_present(alarm.pond, alarm.item, alarm.level, points)
