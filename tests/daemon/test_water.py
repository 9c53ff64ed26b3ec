"""Rain level, stop-and-withdraw, readings by hand in blind sections, dated limits: from readings on."""

from __future__ import annotations

from datetime import date, datetime
from math import nan
from typing import TYPE_CHECKING, Any, cast
from zoneinfo import ZoneInfo

import msgspec
import pytest

from daemon.alarms import AlarmBook, NotAllowed
from daemon.channels import Channels, Source
from daemon.config import ChannelTable, File, Pond, RainTable, Section, Site, SiteTable
from daemon.judge import Judge
from daemon.water import Warned, Water, local_day
from drivers.sample import Block, Frame, Quality
from edge_rules.law.levels import Level, Levels
from edge_rules.law.water import OperatingLimit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.alarms import Alarm

S = 1_000_000_000
H = 3600 * S
SHANGHAI = ZoneInfo("Asia/Shanghai")
START = round(datetime(2026, 7, 1, 9, tzinfo=SHANGHAI).timestamp()) * S
BLOCK = Block("d", "b", ("rain", "rain2", "pond", "pz1", "pz2"), ("mm", "mm", "m", "m", "m"))


def limits(first: str, until: str, orange: float) -> OperatingLimit:
    levels = Levels(rising=True, orange=orange, red=orange + 1.0, source="plan", approver="w")
    return OperatingLimit("flood-season", date.fromisoformat(first), date.fromisoformat(until), levels)


def channel(name: str, item: Any, unit: str = "m", **how: Any) -> ChannelTable:
    return ChannelTable(id=name, unit=unit, item=item, pond="n", source=f"d.{name}", **how)


class Bench:
    """A pond with two gauges, a level, and a section of two piezometers; one frame an hour."""

    def __init__(self, **pond: Any) -> None:
        levels = Levels(rising=True, red=99.0, source="d")
        tables = (
            channel("rain", "rainfall", "mm", levels=Levels(rising=True, blue=5.0, source="d")),
            channel("rain2", "rainfall", "mm"),
            channel("pond", "pond-level"),
            channel("pz1", "phreatic-line", section="2-2", monitoring_point="PZ1", levels=levels),
            channel("pz2", "phreatic-line", section="2-2", monitoring_point="PZ2", levels=levels),
        )
        settings: dict[str, Any] = {"rain": RainTable(("rain", "rain2"))} | pond
        file = File(
            site=SiteTable(id="s", gateway="g"),
            ponds=(Pond(id="n", **settings),),
            sections=(Section(id="2-2", pond="n", live_at_least=2),),
            channels=tables,
        )
        self.channels = Channels(tables, [Source(BLOCK, H)])
        self.book = AlarmBook(timezone=SHANGHAI)
        groups = self.channels.groups
        self.judge = Judge(cast("Site", file), groups, self.book, today=local_day(START, SHANGHAI))
        self.water = Water(cast("Site", file), groups, self.judge, self.book, SHANGHAI)
        self.now_ns = START

    def see(self, *values: float, worst: Quality = Quality.GOOD, hours: float = 1.0) -> list[Alarm]:
        """The next frame; what is not given reads 0. `worst` is the quality of the first value."""
        self.now_ns += round(hours * H)
        numbers = [*values, *(0.0,) * (5 - len(values))]
        qualities = bytearray(Quality.NO_REPLY if v != v else 0 for v in numbers)  # noqa: PLR0124
        qualities[0] = qualities[0] or worst
        frame = Frame(BLOCK, self.now_ns, self.now_ns, self.now_ns, numbers, numbers, bytes(qualities))
        told: list[Alarm] = []
        for group, readings in self.channels.on_frame(frame):
            told += self.judge.take(group, readings)
            told += self.water.take(group, readings)
        return told

    def rain(self) -> Level:
        return self.water.levels["n"]

    def rules(self) -> dict[str, tuple[str, str]]:
        """Rule -> level and condition of every open advice or system alarm."""
        return {a.rule: (a.level, a.condition) for a in self.book.open() if a.rule}


def told(alarms: Sequence[Alarm], rule: str) -> Alarm:
    return next(alarm for alarm in alarms if alarm.rule == rule)


def test_fifty_millimetres_in_three_hours_are_orange_and_advise_to_stop_and_withdraw() -> None:
    bench = Bench()
    bench.see(20.0)
    bench.see(20.0)
    assert bench.rules()["rain-level"] == ("yellow", "present")
    assert "stop-and-withdraw" not in bench.rules()
    raised = bench.see(10.0)
    rain, stop = told(raised, "rain-level"), told(raised, "stop-and-withdraw")
    assert (rain.level, rain.kind, rain.pond) == ("orange", "advice", "n")
    assert "orange storm signal: 50.0 mm / 3 h" in rain.reason.en
    assert (stop.level, stop.evidence["urgency"]) == ("none", "inspect now")
    assert "停产撤人" in stop.reason.zh
    assert bench.judge.ponds["n"] == Level.BLUE, "marks stay out of the roll-up; the designer's blue is in it"


def test_the_highest_of_gauges_designer_and_platform_counts() -> None:
    bench = Bench()
    bench.see(6.0)  # the designer's blue is 5 mm in one reading
    assert bench.rain() == Level.BLUE
    bench.see(6.0, 31.0)  # the other gauge alone makes a rainstorm
    assert bench.rain() == Level.YELLOW
    until_ns = bench.now_ns + 2 * H
    raised = bench.water.warned("n", Warned("red", until_ns, "province, red storm signal"), bench.now_ns)
    assert told(raised, "rain-level").level == "red"
    assert "province" in told(raised, "rain-level").reason.en
    bench.see(hours=1.9)
    assert bench.rain() == Level.RED
    bench.see(hours=0.1)
    assert bench.rain() == Level.YELLOW, "a warning ends by itself"


def test_a_warning_of_no_level_or_for_no_pond_is_refused() -> None:
    bench = Bench()
    with pytest.raises(ValueError, match="purple"):
        bench.water.warned("n", Warned("purple", 0, "x"), 0)
    with pytest.raises(KeyError):
        bench.water.warned("x", Warned("red", 0, "x"), 0)


def warn(bench: Bench, level: str, hours: float = 3.0, text: str = "", ref: str | None = None) -> list[Alarm]:
    warning = Warned(level, bench.now_ns + round(hours * H), "province", text, ref)
    return bench.water.warned("n", warning, bench.now_ns)


def respond(bench: Bench, alarm: Alarm, *deeds: Any) -> None:
    for deed in deeds:
        bench.book.respond(alarm.id, deed, by="w", role=None, note="seen", time_ns=bench.now_ns)


def test_a_warning_is_an_alarm_that_people_handle_and_that_ends_by_itself() -> None:
    bench = Bench(rain=None)  # the pond has no rain level at all
    (alarm,) = warn(bench, "orange", text="暴雨橙色预警", ref="W-17")
    assert (alarm.kind, alarm.level, alarm.condition, alarm.item) == (
        "advice",
        "orange",
        "present",
        "weather",
    )
    assert alarm.evidence == {"source": "province", "until": "2026-07-01T04:00:00.000Z", "ref": "W-17"}
    assert alarm.reason.en == "n weather: orange warning of province until 2026-07-01 12:00: 暴雨橙色预警"
    assert "气象橙色预警" in alarm.reason.zh
    respond(bench, alarm, "acknowledge", "handle")
    with pytest.raises(NotAllowed, match="not gone"):
        respond(bench, alarm, "close")
    assert bench.water.look(bench.now_ns + 3 * H - 1) == []
    (over,) = bench.water.look(bench.now_ns + 3 * H)
    assert (over.id, over.condition, over.response) == (alarm.id, "gone", "handled")
    assert bench.water.look(bench.now_ns + 4 * H) == []
    respond(bench, alarm, "close")
    assert bench.book.open() == []
    assert bench.water.look(bench.now_ns + 5 * H) == []


def test_a_higher_warning_or_another_one_asks_anew_and_other_words_do_not() -> None:
    bench = Bench(rain=None)
    (alarm,) = warn(bench, "yellow", ref="1")
    respond(bench, alarm, "acknowledge", "handle")
    (longer,) = warn(bench, "yellow", hours=9, text="until the evening", ref="1")
    assert (longer.response, longer.evidence["until"]) == ("handled", "2026-07-01T10:00:00.000Z")
    assert warn(bench, "yellow", hours=9, text="until the evening", ref="1") == []
    (higher,) = warn(bench, "red", ref="1")
    assert (higher.id, higher.response, higher.level) == (alarm.id, "new", "red")
    respond(bench, alarm, "acknowledge", "handle")
    gone, other = warn(bench, "red", ref="2")
    assert (gone.condition, other.condition, other.response) == ("gone", "present", "new")
    assert other.evidence["ref"] == "2"


def test_a_warning_that_is_taken_back_is_over_at_once() -> None:
    bench = Bench()
    warn(bench, "red")
    assert bench.rain() == Level.RED
    over = told(warn(bench, "none"), "platform-warning")
    assert (over.condition, over.reason.en) == ("gone", "n weather: the warning of province was taken back")
    assert bench.rain() == Level.NONE


def test_a_dead_gauge_takes_nothing_from_a_warning() -> None:
    bench = Bench()
    bench.see(nan, nan)
    raised = warn(bench, "red")
    assert told(raised, "platform-warning").condition == "present"
    assert told(raised, "rain-level").condition == "present"
    assert told(raised, "stop-and-withdraw").condition == "present"


def test_rain_clears_on_good_readings_only_and_is_unknown_without_any() -> None:
    bench = Bench()
    bench.see(55.0)
    bench.see(0.0, worst=Quality.FROZEN, hours=30)
    assert bench.rules()["rain-level"] == ("orange", "present"), "a frozen gauge is uncertain, not dry"
    bench.see(nan, nan)
    assert bench.rules()["rain-level"] == ("orange", "unknown")
    bench.see(0.0)
    assert bench.rules()["rain-level"] == ("none", "gone")
    assert bench.rules()["stop-and-withdraw"] == ("none", "gone")


def test_an_uncertain_reading_raises_the_rain_level() -> None:
    bench = Bench()
    bench.see(55.0, worst=Quality.COUNTER_RESET)
    assert bench.rain() == Level.ORANGE


@pytest.mark.parametrize("stop_at", ["blue", "yellow", "orange", "red"])
def test_the_site_says_from_which_level_on_to_withdraw(stop_at: Any) -> None:
    for mm, level in ((6.0, "blue"), (31.0, "yellow"), (55.0, "orange"), (101.0, "red")):
        bench = Bench(rain=RainTable(("rain",), stop_at=stop_at))
        bench.see(mm)
        ranks = ["blue", "yellow", "orange", "red"]
        assert ("stop-and-withdraw" in bench.rules()) == (ranks.index(level) >= ranks.index(stop_at))


def test_intensity_beyond_caines_curve_is_something_to_watch_and_no_more() -> None:
    bench = Bench()
    raised = bench.see(16.0)
    alarm = told(raised, "caine-1980")
    assert (alarm.level, alarm.evidence["urgency"], alarm.evidence["hours"]) == ("none", "watch", [1])


# -- blind sections ------------------------------------------------------------------------------------


def test_a_blind_section_asks_for_a_reading_by_hand_only_in_orange_rain_and_in_time() -> None:
    bench = Bench()
    bench.see(0.0, 0.0, 0.0, nan)
    assert "blind-section" in bench.rules()
    assert "manual-reading" not in bench.rules()
    raised = bench.see(55.0, 0.0, 0.0, nan)
    wanted = told(raised, "manual-reading")
    assert (wanted.level, wanted.section, wanted.evidence["urgency"]) == ("none", "2-2", "inspect now")
    assert wanted.due == "2026-07-01T05:00:00.000Z"  # two hours later
    assert "120 min" in wanted.reason.en
    bench.water.read_by_hand("n", "2-2", bench.now_ns)
    bench.water.look(bench.now_ns)
    assert bench.rules()["manual-reading"] == ("none", "gone")
    bench.see(55.0, 0.0, 0.0, nan, hours=2)  # still blind, still raining
    assert bench.rules()["manual-reading"] == ("none", "present")
    bench.see(0.0)
    assert bench.rules()["manual-reading"] == ("none", "gone")


# -- dated limits --------------------------------------------------------------------------------------


def pond(*its: OperatingLimit) -> Bench:
    return Bench(limits=its)


def test_the_ponds_level_is_judged_by_the_limit_of_the_day() -> None:
    bench = pond(limits("2026-06-01", "2026-07-01", 85.0), limits("2026-07-02", "2027-09-30", 86.0))
    bench.see(0.0, 0.0, 85.5)
    assert bench.judge.level("pond") == Level.ORANGE
    bench.see(0.0, 0.0, 85.5, hours=24)
    bench.water.look(bench.now_ns)
    bench.see(0.0, 0.0, 85.5)
    assert bench.judge.level("pond") == Level.NONE, "another limit, and a value that clears it"


def test_a_change_of_limits_keeps_the_level_until_a_value_clears_it() -> None:
    bench = pond(limits("2026-06-01", "2026-07-01", 85.0), limits("2026-07-02", "2027-09-30", 86.0))
    bench.see(0.0, 0.0, 85.5)
    bench.now_ns += 24 * H
    bench.water.look(bench.now_ns)
    assert bench.judge.level("pond") == Level.ORANGE


def test_limits_that_run_out_are_told_beforehand_and_stay_in_force_afterwards() -> None:
    bench = pond(limits("2026-06-01", "2026-07-20", 85.0))
    (soon,) = bench.water.look(START)[-1:]
    assert (soon.rule, soon.kind, soon.evidence["urgency"]) == ("operating-limit", "system", "watch")
    assert "end on 2026-07-20" in soon.reason.en
    bench.now_ns = START + 30 * 24 * H
    bench.water.look(bench.now_ns)
    bench.see(0.0, 0.0, 85.5)
    assert bench.judge.level("pond") == Level.ORANGE, "some limit is safer than none"
    expired = bench.rules()["operating-limit"]
    assert expired == ("none", "present")


def test_limits_that_hold_for_long_say_nothing() -> None:
    assert "operating-limit" not in pond(limits("2026-06-01", "2026-09-30", 85.0)).rules()


# -- restarts ------------------------------------------------------------------------------------------


def test_sums_levels_and_warnings_go_on_over_a_restart() -> None:
    before, after = Bench(), Bench()
    before.see(45.0)
    before.water.warned("n", Warned("yellow", before.now_ns + 9 * H, "p"), before.now_ns)
    for name, state in before.water.states().items():
        after.water.restore(name, msgspec.json.decode(msgspec.json.encode(state())))
    after.now_ns = before.now_ns
    after.see(6.0)
    assert after.rain() == Level.ORANGE
    assert before.water.moved() == {"rain:rain", "rain:rain2", "rain:warning:n"}
    after.see(hours=8)
    assert after.rain() == Level.YELLOW
