"""Readings against levels: what is raised, rolled up, seen no longer, and carried over a restart."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, cast
from zoneinfo import ZoneInfo

import msgspec
import pytest

from daemon.alarms import Alarm, AlarmBook
from daemon.channels import Channels, Source
from daemon.config import ChannelTable, File, Pond, Site, SiteTable
from daemon.judge import Judge
from drivers.sample import Block, Frame, Quality
from edge_rules.law.levels import Level, Levels

if TYPE_CHECKING:
    from collections.abc import Sequence

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
                monitoring_point=f"PZ{n}",
                source=f"d.x{n}",
                levels=levels,
            )
            for n in range(6)
        )
        file = File(site=SiteTable(id="s", gateway="g"), ponds=(Pond(id="n"),), channels=tables)
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
    bench.see(2.5, quality=Quality.GNSS_FLOAT)
    raised = bench.see(2.5, quality=Quality.GNSS_FLOAT)
    assert raised[0].evidence["unverified"] is True
    for _ in range(5):
        assert bench.see(0.0, quality=Quality.GNSS_FLOAT) == []
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
