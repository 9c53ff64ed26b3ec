"""Devices that fall silent alone and together: one alarm for one reason."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from daemon import alarms
from daemon.alarms import Alarm, AlarmBook
from daemon.stations import Stations

S = 1_000_000_000
BEGIN = 1_000_000 * S


class Bench:
    def __init__(self, *stored: Alarm) -> None:
        self.book = AlarmBook(stored, timezone=ZoneInfo("Asia/Shanghai"))
        self.stations = Stations(self.book, gather_s=5.0)

    def down(self, second: int, *devices: str) -> None:
        for device in devices:
            self.stations.down("l1", device, "no reply", BEGIN + second * S)

    def up(self, second: int, *devices: str) -> list[Alarm]:
        return [alarm for device in devices for alarm in self.stations.up("l1", device, BEGIN + second * S)]


def said(told: list[Alarm]) -> list[tuple[str, str, str]]:
    return [(alarm.id.rpartition(":")[0], alarm.condition, alarm.reason.en) for alarm in told]


def test_one_silent_device_is_one_alarm_after_the_time_of_gathering() -> None:
    bench = Bench()
    bench.down(0, "vw1")
    assert bench.stations.look(BEGIN + 4 * S) == []
    (alarm,) = bench.stations.look(BEGIN + 5 * S)
    assert (alarm.kind, alarm.device, alarm.line, alarm.level) == ("fault", "vw1", "l1", "none")
    assert bench.stations.look(BEGIN + 99 * S) == []
    assert said(bench.up(100, "vw1")) == [("fault:vw1", "gone", "vw1 works again after 100 s")]


def test_a_line_that_breaks_is_one_alarm_that_counts_and_names_its_stations() -> None:
    bench = Bench()
    bench.down(0, "a", "b", "c")
    (alarm,) = bench.stations.look(BEGIN + 5 * S)
    assert alarm.reason.en == "3 stations missing: a, b, c"
    assert "3 个测站" in alarm.reason.zh
    assert alarm.evidence == {"devices": ["a", "b", "c"], "count": 3}
    bench.down(20, "d")
    (more,) = bench.stations.look(BEGIN + 25 * S)
    assert (more.id, more.reason.en) == (alarm.id, "4 stations missing: a, b, c, d")
    (fewer,) = bench.up(30, "a")
    assert fewer.evidence["count"] == 3
    assert said(bench.up(31, "b", "c", "d"))[-1] == ("fault:stations", "gone", "all stations answer again")
    assert [alarm.condition for alarm in bench.book.open()] == ["gone"]


def test_what_answers_again_within_the_time_of_gathering_is_no_alarm() -> None:
    bench = Bench()
    bench.down(0, "a")
    assert bench.up(3, "a") == []
    assert bench.stations.look(BEGIN + 9 * S) == []
    assert bench.book.open() == []


def test_a_device_under_maintenance_raises_nothing_until_that_ends() -> None:
    bench = Bench()
    bench.down(0, "a")
    assert bench.stations.look(BEGIN + 60 * S, {"a"}) == []
    assert said(bench.stations.look(BEGIN + 61 * S))[0][:2] == ("fault:a", "present")


def test_the_one_alarm_goes_on_over_a_restart() -> None:
    bench = Bench()
    bench.down(0, "a", "b")
    bench.stations.look(BEGIN + 5 * S)
    again = Bench(*(alarms.decode(alarms.encode(alarm)) for alarm in bench.book.open()))
    assert again.stations.missing() == ["a", "b"]
    assert again.up(60, "a")[0].evidence["count"] == 1
    assert said(again.up(61, "b")) == [("fault:stations", "gone", "all stations answer again")]


events = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(0, 8)), max_size=40)


@given(events)
def test_in_the_end_exactly_the_silent_devices_stand_in_present_alarms(
    walk: list[tuple[str, bool, int]],
) -> None:
    bench = Bench()
    silent: set[str] = set()
    second = 0
    for device, down, wait_s in walk:
        second += wait_s
        if down:
            silent.add(device)
            bench.down(second, device)
        else:
            silent.discard(device)
            bench.up(second, device)
        bench.stations.look(BEGIN + second * S)
    bench.stations.look(BEGIN + (second + 5) * S)
    named: list[str] = []
    for alarm in bench.book.open():
        if alarm.condition == "present":
            devices = alarm.evidence.get("devices", [alarm.device])
            assert isinstance(devices, list)
            named += devices
    assert sorted(named) == sorted(silent)
