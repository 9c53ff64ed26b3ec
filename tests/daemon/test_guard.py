"""The guard room over real books, judges, modes and a real store: what rings, who is called, who may close red."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import time
from math import nan
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from daemon import alarms, requests
from daemon.alarms import NotAllowed
from daemon.app import build_room
from daemon.audit import Audit
from daemon.channels import Channels, Source
from daemon.clock import Clock
from daemon.config import (
    AdviceTable,
    ChannelTable,
    DeviceTable,
    File,
    LineTable,
    OutputTable,
    Pond,
    RainTable,
    Section,
    Site,
    SiteTable,
)
from daemon.control import Caller, Refused
from daemon.duty_tables import AlarmsTable, CallTable, DutyTable, PersonTable
from daemon.guard import Guard
from daemon.guard_verbs import GuardVerbs
from daemon.manual import Manual
from daemon.metrics import Metrics
from daemon.outputs import Output
from daemon.pipeline import Pipeline
from daemon.rules import Verdict, Verdicts
from daemon.seal import key_id
from daemon.spool import Spool
from daemon.uplink.envelope import Silence, Sound
from daemon.writer import Writer
from drivers.sample import Block, Frame, Quality
from edge_rules.law.levels import Levels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from daemon.alarms import Alarm
    from daemon.guard import Room

S = 1_000_000_000
BLOCK = Block("d", "b", ("x0", "x1", "key"), ("m", "m", "1"))
OTHER = Block("r", "b", ("x",), ("m",))  # keeps the pond from being all under maintenance
LEVELS = Levels(rising=True, blue=1.0, yellow=2.0, orange=3.0, red=4.0, hysteresis=0.1, source="t")
PEOPLE = (PersonTable("li", "李伟", "duty"), PersonTable("wang", "王工", "supervisor"))
ALL_DAY = (
    DutyTable("day", time(0), time(12), "li", "", "wang"),
    DutyTable("night", time(12), time(0), "li", "", "wang"),
)
CALLER = Caller(1, 0, 0)
AUTHORITY = "d7712120f3f55fc693d5639d4943126063d360b6951dc7a94940a6372963afe2"
KEY = key_id(bytes.fromhex(AUTHORITY))


class Hand(Clock):
    """A clock that is moved by hand; seconds of bench time."""

    def __init__(self) -> None:
        self.now_ns = 1_800_000_000 * S
        super().__init__()

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns


@dataclass
class Bench:
    clock: Hand
    room: Room
    guard: Guard
    pipeline: Pipeline
    channels: Channels
    writer: Writer
    spool: Spool
    verbs: dict[type[requests.Request], Any]
    outputs: dict[str, Output]

    def see(
        self, *values: float, key: float = 0.0, quality: Quality = Quality.GOOD, after_s: int = 60
    ) -> None:
        """A frame of two points and the key switch; the quality is that of the first."""
        self.clock.now_ns += after_s * S
        now = self.clock.now_ns
        numbers = [*values, *(0.0,) * (2 - len(values)), key]
        shown = [nan if quality.is_bad and i == 0 else v for i, v in enumerate(numbers)]
        self.pipeline.take(Frame(BLOCK, now, now, now, numbers, shown, bytes((quality, 0, 0))))

    def look(self, after_s: int = 1) -> None:
        """What the pipeline does every second."""
        self.clock.now_ns += after_s * S
        self.pipeline.announce(self.guard.look())

    def on(self) -> set[str]:
        return {name for name, output in self.outputs.items() if output.wanted}

    def alarm(self, kind: str = "channel", name: str = "") -> Alarm:
        return next(a for a in self.room.book.open() if a.kind == kind and name in a.id)

    def do(self, alarm: Alarm, *deeds: Any, by: str = "wang") -> list[Alarm]:
        changed: list[Alarm] = []
        for deed in deeds:
            self.clock.now_ns += S
            changed = self.guard.respond(alarm.id, deed, by=by, role=None, note="seen")
            self.pipeline.announce(changed)
        return changed

    async def ask(self, request: requests.Request) -> Any:
        return await self.verbs[type(request)](request, CALLER)

    async def written(self, kind: str) -> list[dict[str, Any]]:
        """All payloads of a kind; the writer has ended."""
        return [json.loads(batch.payload) for batch in await self.spool.peek() if batch.kind == kind]

    async def write(self) -> None:
        self.writer.stop()
        await self.writer.run()


def site(people: Sequence[PersonTable] = PEOPLE) -> Site:
    channels = tuple(
        ChannelTable(
            id=f"c{n}", unit="m", item="phreatic-line", pond="n", section="2-2", monitoring_point=f"PZ{n}",
            source=f"d.x{n}", levels=LEVELS, manual_tolerance=0.2,
        )
        for n in range(2)
    )  # fmt: skip
    other = ChannelTable(id="other", unit="m", item="pond-level", pond="n", source="r.x", levels=LEVELS)
    key = ChannelTable(id="key", unit="1", item="health", pond="n", source="d.key")
    outputs = (
        OutputTable("siren", "r", "relay1", "n", at="orange"),
        OutputTable("lamp", "r", "relay2", "n", at="blue", until="gone"),
        OutputTable("louder", "r", "relay3", "n", at="orange", after_calls=1),
        OutputTable("watchdog", "r", "pulse4", "n", kind="watchdog"),
        OutputTable(
            "public",
            "r",
            "relay5",
            "n",
            at="blue",
            kind="public",
            authority_keys=(AUTHORITY,),
            at_most_s=600.0,
        ),
    )
    file = File(
        site=SiteTable(id="s", gateway="g"),
        ponds=(Pond(id="n"),),
        sections=(Section(id="2-2", pond="n"),),
        lines=(LineTable(id="l", kind="modbus-rtu", port="x"),),
        devices=(DeviceTable("d", "l", "p", 60.0), DeviceTable("r", "l", "p", 60.0)),
        channels=(*channels, other, key),
        outputs=outputs,
        alarms=AlarmsTable(call=CallTable(orange_s=900.0, red_s=300.0), key_switch="key"),
        people=tuple(people),
        duties=ALL_DAY if people else (),
    )
    return cast("Site", file)


@asynccontextmanager
async def opened(folder: Path, its: Site | None = None, stored: Sequence[Alarm] = ()) -> AsyncIterator[Bench]:
    its = its or site()
    clock = Hand()
    async with Spool.open(folder, "real", "boot", clock=clock) as spool:
        channels = Channels(its.channels, [Source(BLOCK, 60 * S), Source(OTHER, 60 * S)])
        room = build_room(its, clock, channels, stored)
        writer = Writer(spool, clock, its, {**room.states(), **channels.states()}, lambda _: None)
        writer.mode = room.modes.payload_mode
        audit = Audit(writer, clock, its)
        guard = Guard(its, clock, room, audit)
        metrics = Metrics("0", "0")
        pipeline = Pipeline(its, channels, room, guard, writer, clock, metrics, Verdicts(its, spool.stream))
        outputs = {
            table.id: Output(table, cast("Any", None), cast("Any", None), pipeline.output_fault)
            for table in its.outputs
        }  # never run: what they are wanted to be is what counts here
        guard.drive(outputs.values(), lambda: True)
        manual = Manual(its, clock, pipeline, room, audit)
        verbs = dict(GuardVerbs(clock, room, guard, manual, pipeline, audit).table())
        yield Bench(clock, room, guard, pipeline, channels, writer, spool, verbs, outputs)


# -- what rings ------------------------------------------------------------------------------------------


async def test_the_siren_sounds_until_every_alarm_of_its_level_is_acknowledged(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        assert bench.on() == {"watchdog"}
        bench.see(3.5)
        assert bench.on() == {"watchdog", "siren", "lamp"}
        for kind in ("channel", "item"):
            bench.do(bench.alarm(kind), "acknowledge")
            assert "siren" in bench.on()
        bench.do(bench.alarm("pond"), "acknowledge")
        assert bench.on() == {"watchdog", "lamp"}, "a lamp shows the level, acknowledged or not"
        bench.see(0.0)
        assert bench.on() == {"watchdog"}


def said(rule: str, kind: str, condition: str = "present", seq: int = 1) -> Verdict:
    reason = {"zh": "说明", "en": "a sentence"}
    return Verdict(
        "s",
        seq,
        "c0",
        rule,
        kind,
        condition,
        None,
        9.0,
        5.0,
        1.0,
        "2027-01-15T08:00:00.000Z",
        reason,
        {"k": 8.0},
    )


async def test_a_spike_calls_nobody_and_is_shown_beside_the_level_a_stuck_instrument_is_a_fault(
    tmp_path: Path,
) -> None:
    its = site()
    armed = tuple(
        replace(channel, advice=AdviceTable(hampel=True, noise=True, resolution=0.01))
        for channel in its.channels
    )
    async with opened(tmp_path, cast("Site", replace(cast("File", its), channels=armed))) as bench:
        bench.pipeline._verdicts.follow("s")
        bench.pipeline.verdict(said("hampel", "quality"))
        assert bench.room.book.open() == []
        bench.see(3.5)
        bench.pipeline.verdict(said("hampel", "quality", seq=2))
        spike = bench.alarm().evidence["spike"]
        assert spike == {"time": "2027-01-15T08:00:00.000Z", "value": 5.0, "score": 9.0, "k": 8.0}
        bench.pipeline.verdict(said("noise", "quality", seq=3))
        assert bench.alarm("fault").condition == "present"
        bench.pipeline.verdict(said("trend", "advice", seq=4))
        assert (bench.alarm("advice").level, bench.alarm("advice").rule) == ("none", "trend")
        bench.pipeline.verdict(said("trend", "advice", "gone", seq=4))
        assert bench.alarm("advice").condition == "present", "what rests on a batch heard before is a repeat"


async def test_what_went_before_anybody_noticed_rings_until_somebody_does(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.see(3.5)
        bench.see(0.0)
        assert bench.alarm().condition == "gone"
        assert bench.on() == {"watchdog", "siren"}
        await bench.ask(requests.AlarmsAckAll("li"))
        assert bench.on() == {"watchdog"}


async def test_a_higher_level_rings_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.see(3.5)
        await bench.ask(requests.AlarmsAckAll("li", "n"))
        assert "siren" not in bench.on()
        bench.see(4.5)
        assert "siren" in bench.on()


async def test_the_louder_output_waits_for_the_first_call_that_nobody_heard(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.see(3.5)
        bench.look(898)
        assert "louder" not in bench.on()
        bench.look(2)
        bench.look()
        assert "louder" in bench.on()
        called = bench.alarm().evidence["called"]
        assert isinstance(called, list)
        assert [(c["person"], c["role"], c["why"]) for c in called] == [
            ("李伟", "duty", "raised"),
            ("王工", "supervisor", "unacknowledged"),
        ]
        await bench.ask(requests.AlarmsAckAll("li"))
        assert "louder" not in bench.on()


async def test_the_watchdog_drops_when_the_core_is_not_well_and_the_public_siren_follows_no_level(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as bench:
        bench.see(4.5)
        assert "public" not in bench.on()
        bench.guard.drive(bench.outputs.values(), lambda: False)
        assert "watchdog" not in bench.on()
        assert "siren" in bench.on()


async def test_advice_rings_no_siren(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        await bench.ask(requests.ManualPatrol("n", "li", "a spring at the toe", "2-2", abnormal=True))
        assert bench.alarm("advice").evidence["urgency"] == "inspect now"
        assert bench.on() == {"watchdog"}
        assert "巡查异常" in bench.alarm("advice").reason.zh


# -- mute, drill, maintenance ----------------------------------------------------------------------------


async def test_a_mute_stops_the_sound_only_and_ends_by_itself(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        with pytest.raises(NotAllowed, match="nothing rings"):
            await bench.ask(requests.MuteSound("n", "li", "r", "5 min"))
        bench.see(3.5)
        await bench.ask(requests.MuteSound("n", "li", "crew is on the dam", "30 min"))
        assert bench.on() == {"watchdog", "lamp"}
        assert bench.alarm("pond").response == "new"
        bench.look(1799)
        assert "siren" not in bench.on()
        bench.look()
        assert "siren" in bench.on()
        await bench.write()
        (began, ended) = await bench.written("audit")
        assert (began["what"], began["by"], began["why"]) == ("mute", "li", "crew is on the dam")
        assert (ended["what"], ended["by"]) == ("mute.end", "pondwatch")


async def test_a_higher_level_is_heard_through_a_mute(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.see(3.5)
        await bench.ask(requests.MuteSound("n", "li", "r", "30 min"))
        bench.see(4.5, after_s=1)
        bench.look()
        assert "siren" in bench.on()


async def test_a_drill_sounds_calls_and_says_test_in_every_payload(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        await bench.ask(requests.Rehearse("n", "orange", "wang", "yearly rehearsal", "20 min"))
        assert bench.on() == {"watchdog", "siren", "lamp"}
        drill = bench.alarm("system")
        assert (drill.level, drill.rule, drill.evidence["drill"]) == ("orange", "drill", True)
        assert "演练" in drill.reason.zh
        bench.see(0.0)
        await bench.write()
        for kind in ("readings", "alarms", "audit"):
            payloads = await bench.written(kind)
            assert payloads
            assert {payload["mode"] for payload in payloads} == {"test"}
        bench.look(20 * 60)
        assert bench.on() == {"watchdog"}
        assert bench.alarm("system").condition == "gone"
        assert bench.room.modes.payload_mode() is None


async def test_a_real_alarm_overrides_a_drill_and_says_that_it_is_real(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        await bench.ask(requests.Rehearse("n", "red", "wang", "r", "20 min"))
        bench.see(1.5)
        assert bench.room.modes.drill is None
        assert bench.on() == {"watchdog", "lamp"}, "blue rings nothing; the rehearsed red is over"
        assert "overridden" in bench.alarm("system").reason.en
        await bench.write()
        real = [p for p in await bench.written("alarms") if p["kind"] == "channel"]
        assert [p["mode"] for p in real] == ["real"]
        with pytest.raises(NotAllowed, match="no drill"):
            await bench.ask(requests.RehearseEnd("wang"))


async def test_maintenance_makes_readings_uncertain_blind_and_silent_and_is_over_in_time(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as bench:
        await bench.ask(requests.Maintain("d", "li", "zero check", "1 h"))
        bench.see(9.0, 9.0)
        assert bench.room.judge.ponds["n"].text == "none"
        assert bench.room.judge.blind_sections("n") == ["2-2"]
        bench.pipeline.device_state("l", "d", up=False, error="unplugged")
        bench.look(600)
        kinds = {alarm.kind for alarm in bench.room.book.open()}
        assert kinds == {"advice"}, "blindness calls people; the silent device does not"
        bench.look(3600)
        assert bench.alarm("fault").device == "d", "it is over, and the device is still silent"
        bench.see(9.0, 9.0)
        assert bench.room.judge.ponds["n"].text == "red"
        await bench.write()
        first = (await bench.written("readings"))[0]["readings"][:2]
        assert {reading["quality"] for reading in first} == {"uncertain:maintenance"}
        assert {reading["value"] for reading in first} == {9.0}


# -- red -------------------------------------------------------------------------------------------------


async def test_red_is_closed_by_the_supervisor_after_a_measurement_and_by_nobody_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.see(4.5)
        red = bench.alarm()
        bench.see(0.5)
        bench.do(red, "acknowledge", "handle", by="li")
        with pytest.raises(NotAllowed, match="red is closed by a supervisor; li is duty"):
            bench.do(red, "close", by="li")
        with pytest.raises(NotAllowed, match="none that the site file names"):
            bench.do(red, "close", by="stranger")
        with pytest.raises(NotAllowed, match="was not measured since"):
            bench.do(red, "close", by="王工")
        assert bench.room.judge.ponds["n"].text == "red"
        bench.see(0.5)
        changed = bench.do(red, "close", by="王工")
        assert changed[-1].response == "closed"
        assert bench.room.judge.ponds["n"].text == "none"
        assert {(a.kind, a.condition) for a in changed[:-1]} == {("item", "gone"), ("pond", "gone")}


async def test_closing_red_above_a_lower_level_lowers_it_and_keeps_the_alarm_open(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.see(4.5)
        red = bench.alarm()
        bench.see(2.5)
        bench.do(red, "acknowledge", "handle")
        bench.see(2.5)
        lowered = bench.do(red, "close")[-1]
        assert (lowered.level, lowered.was, lowered.condition, lowered.response) == (
            "yellow",
            "red",
            "present",
            "handled",
        )


async def test_without_people_in_the_site_file_the_role_that_is_given_counts(tmp_path: Path) -> None:
    async with opened(tmp_path, site(())) as bench:
        bench.see(4.5)
        red = bench.alarm()
        bench.see(0.5)
        bench.do(red, "acknowledge", "handle", by="x")
        bench.see(0.5)
        with pytest.raises(NotAllowed, match="red is closed by a supervisor"):
            bench.guard.respond(red.id, "close", by="x", role="duty", note=None)
        done = bench.guard.respond(red.id, "close", by="x", role="supervisor", note=None)
        assert done[-1].response == "closed"


# -- key switch, hand-over -------------------------------------------------------------------------------


async def test_turning_the_key_acknowledges_what_is_new_and_only_when_it_turns(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.see(3.5, key=1.0)
        assert "siren" in bench.on(), "a key that was on all along acknowledges nothing"
        bench.see(3.5, key=0.0)
        bench.see(3.5, key=1.0)
        assert "siren" not in bench.on()
        assert {(a.response, a.by) for a in bench.room.book.open()} == {("acknowledged", "key switch")}


async def test_a_hand_over_lists_what_is_open_muted_and_missing_and_is_signed_by_both(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.see(3.5)
        await bench.ask(requests.MuteSound("n", "li", "r", "30 min"))
        bench.pipeline.device_state("l", "r", up=False, error="e")
        left = await bench.ask(requests.HandoverSign("li", "wang", "toe was wet"))
        assert {a.kind for a in left.open} == {"channel", "item", "pond"}
        assert ([m.pond for m in left.muted], left.missing) == (["n"], ["r"])
        for by, to in (("li", "li"), ("li", " "), ("li", "stranger")):
            with pytest.raises(NotAllowed):
                await bench.ask(requests.HandoverSign(by, to))
        await bench.write()
        record = next(p for p in await bench.written("audit") if p["what"] == "handover")
        assert (record["by"], record["subject"], record["why"]) == ("li", "wang", "toe was wet")
        assert len(record["to"]["open"]) == 3
        assert len(record["to"]["sha256"]) == 64


async def test_a_time_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.see(3.5)
        for until in ("soon", "18:00", "2027-01-15T12:00:00"):
            with pytest.raises(Refused, match="is no time"):
                await bench.ask(requests.MuteSound("n", "li", "r", until))
        with pytest.raises(NotAllowed, match="who ends it"):
            await bench.ask(requests.MuteEnd("n", " "))


# -- by hand ---------------------------------------------------------------------------------------------


async def test_a_reading_by_hand_is_compared_and_a_difference_is_a_fault_until_they_agree(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as bench:
        bench.see(0.5)
        its = await bench.ask(requests.ManualReading("c0", 0.6, "li"))
        assert (its.agrees, its.filled_in, its.difference) == (True, False, pytest.approx(0.1))
        its = await bench.ask(requests.ManualReading("c0", 0.9, "li", note="dipper"))
        assert its.agrees is False
        assert bench.alarm("fault").rule == "comparison"
        assert "比测超差" in bench.alarm("fault").reason.zh
        await bench.ask(requests.ManualReading("c0", 0.55, "li"))
        assert bench.alarm("fault").condition == "gone"
        await bench.write()
        assert [p["what"] for p in await bench.written("audit")] == ["manual.reading"] * 3


async def test_a_reading_where_the_instrument_has_none_is_filled_in_and_marked(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.see(0.5, quality=Quality.NO_REPLY)
        its = await bench.ask(requests.ManualReading("c0", 0.6, "li"))
        assert (its.filled_in, its.automatic, its.agrees) == (True, None, None)
        await bench.write()
        rows = [r for p in await bench.written("readings") for r in p["readings"] if r["channel"] == "c0"]
        assert [(r["value"], r["quality"]) for r in rows] == [
            (None, "bad:no-reply"),
            (0.6, "uncertain:manual"),
        ]


async def test_a_named_persons_reading_releases_the_level_of_a_dead_sensor(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.see(2.5)
        bench.see(quality=Quality.NO_REPLY)
        assert bench.alarm().condition == "unknown"
        with pytest.raises(NotAllowed, match="A name is needed"):
            await bench.ask(requests.ManualReading("c0", 0.5, " "))
        now = "2020-01-01T00:00:00Z"
        await bench.ask(requests.ManualReading("c0", 0.5, "li", at=now))
        assert bench.alarm().condition == "unknown", "an old reading says nothing of now"
        its = await bench.ask(requests.ManualReading("c0", 0.5, "li"))
        assert len(its.alarms) == 3
        assert bench.alarm().condition == "gone"
        assert bench.room.judge.ponds["n"].text == "none"


@pytest.mark.parametrize(("value", "level"), [(0.5, "yellow"), (3.5, "orange")])
async def test_a_reading_by_hand_lowers_nothing_that_a_living_sensor_says(
    tmp_path: Path, value: float, level: str
) -> None:
    async with opened(tmp_path) as bench:
        bench.see(2.5)
        await bench.ask(requests.ManualReading("c0", value, "li"))
        assert bench.room.judge.ponds["n"].text == level


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (requests.ManualReading("x", 1.0, "li"), "no channel"),
        (requests.ManualReading("c0", nan, "li"), "must be a number"),
        (requests.ManualReading("c0", 1.0, "li", at="2030-01-01T00:00:00Z"), "yet to come"),
        (requests.ManualPatrol("n", "li", "x", "9-9"), "no section '9-9'"),
        (requests.ManualPatrol("n", "li", " "), "what was found"),
    ],
)
async def test_what_cannot_be_is_refused_in_a_sentence(
    tmp_path: Path, request_: requests.Request, words: str
) -> None:
    async with opened(tmp_path) as bench:
        with pytest.raises(NotAllowed, match=words):
            await bench.ask(request_)


# -- restart ---------------------------------------------------------------------------------------------


async def test_modes_calls_and_latched_red_outlive_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.see(4.5)
        bench.see(0.0)
        await bench.ask(requests.MuteSound("n", "li", "r", "10 min"))
        await bench.write()
        states = {name: json.loads(row) for name, (_, row) in (await bench.spool.states()).items()}
        alarms = bench.room.book.open()
        now_ns = bench.clock.now_ns
    async with opened(tmp_path, stored=alarms) as again:
        again.clock.now_ns = now_ns
        for name, state in states.items():
            again.room.restore(name, state)
        again.look()
        assert again.room.judge.is_latched("c0")
        assert again.room.judge.ponds["n"].text == "red"
        assert again.room.modes.is_muted("n")
        assert "siren" not in again.on()
        again.look(601)
        assert "siren" in again.on()


# -- public sirens, storm warnings, trial runs -----------------------------------------------------------


async def test_a_public_siren_sounds_by_its_authoritys_request_alone_and_ends_by_itself(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as bench:
        bench.see(9.0)
        assert "public" not in bench.on(), "no level has a part in it"
        for key, seconds, by, why in (
            ("0" * 16, 60.0, "应急管理局", "not of the authority"),
            (KEY, 601.0, "应急管理局", "at most 600 s"),
            (KEY, 60.0, " ", "A name is needed"),
        ):
            with pytest.raises(NotAllowed, match=why):
                bench.guard.sound("public", key=key, by=by, seconds=seconds, why=None)
        with pytest.raises(NotAllowed, match="no public siren is called siren"):
            bench.guard.sound("siren", key=KEY, by="x", seconds=60.0, why=None)
        assert "public" not in bench.on()
        asked = Sound("public", 60.0, "应急管理局", "evacuate")
        (told,) = bench.pipeline.order(asked, KEY)
        assert "public" in bench.on()
        assert bench.alarm("system", "siren.public").id == told
        bench.look(after_s=59)
        assert "public" in bench.on()
        bench.look(after_s=2)
        assert "public" not in bench.on()
        assert bench.alarm("system", "siren.public").condition == "gone"
        bench.pipeline.order(asked, KEY)
        bench.pipeline.order(Silence("public", "应急管理局"), KEY)
        assert "public" not in bench.on()
        await bench.write()
        did = [
            (r["what"], r["by"], r["subject"]) for r in await bench.written("audit") if "siren" in r["what"]
        ]
    us, they = "pondwatch", "应急管理局"
    assert did == [("siren", they, "public"), ("siren.end", us, "public"), ("siren", they, "public"), ("siren.end", they, "public")]  # fmt: skip


async def test_an_order_to_a_public_siren_outlives_a_restart_and_not_a_clock_that_steps_back(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "a") as bench:
        bench.guard.sound("public", key=KEY, by="x", seconds=600.0, why=None)
        states = {name: json.loads(msgspec.json.encode(of())) for name, of in bench.room.states().items()}
    async with opened(tmp_path / "b") as again:
        for name, state in states.items():
            assert again.room.restore(name, state)
        again.look()
        assert "public" in again.on()
        again.look(after_s=-7200)
        assert "public" not in again.on()


async def test_a_storm_warning_is_the_rain_level_until_it_ends(tmp_path: Path) -> None:
    its = cast("File", site())
    rainy = replace(its.ponds[0], rain=RainTable(gauges=("rain",)))
    gauge = ChannelTable(id="rain", unit="mm", item="rainfall", pond="n", source="d.x1")
    async with opened(
        tmp_path,
        cast("Site", replace(its, ponds=(rainy,), channels=(its.channels[0], *its.channels[2:], gauge))),
    ) as bench:
        warning = requests.StormWarning("n", "orange", "6 h", "气象台 2027-014", "li")
        told = await bench.ask(warning)
        assert {alarm.rule for alarm in told} == {"platform-warning", "rain-level", "stop-and-withdraw"}
        assert bench.room.water.levels["n"].text == "orange"
        bench.look(after_s=6 * 3600 + 1)
        assert bench.room.water.levels["n"].text == "none"
        with pytest.raises(NotAllowed, match="ended at"):
            await bench.ask(msgspec.structs.replace(warning, until="2026-01-01T00:00:00Z"))
        with pytest.raises(NotAllowed, match="names no pond"):
            await bench.ask(msgspec.structs.replace(warning, pond="s"))
        await bench.ask(warning)
        await bench.ask(msgspec.structs.replace(warning, level="none"))
        assert bench.room.water.levels["n"].text == "none"
        await bench.write()
        did = [r["subject"] for r in await bench.written("audit") if r["what"] == "rain.warning"]
    assert did == ["n", "n", "n"]


async def test_in_shadow_all_is_judged_and_kept_and_no_output_moves_and_nobody_is_called(
    tmp_path: Path,
) -> None:
    its = cast("File", site())
    shadow = cast("Site", replace(its, site=replace(its.site, shadow=True)))
    async with opened(tmp_path, shadow) as bench:
        bench.see(9.0)
        bench.look(after_s=3600)
        assert bench.on() == set()
        assert bench.alarm().level == "red"
        assert not any("called" in alarm.evidence for alarm in bench.room.book.open())
        with pytest.raises(NotAllowed, match="in shadow"):
            bench.guard.sound("public", key=KEY, by="x", seconds=60.0, why=None)
        await bench.write()
        alarms, readings = await bench.written("alarms"), await bench.written("readings")
    assert alarms
    assert {(each["mode"], each["shadow"]) for each in alarms} == {("test", True)}
    assert {each["mode"] for each in readings} == {"real"}


# -- what a platform says --------------------------------------------------------------------------------


async def test_a_platforms_warning_calls_people_is_audited_and_outlives_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        (alarm,) = await bench.ask(
            requests.StormWarning("n", "red", "6 h", "weather service", "li", "storm", "W-1")
        )
        assert (alarm.level, alarm.condition, alarm.evidence["ref"]) == ("red", "present", "W-1")
        assert bench.on() == {"watchdog"}, "a warning of the weather rings no siren of the dam"
        assert "李伟" in str(bench.alarm("advice").evidence["called"])
        bench.do(alarm, "acknowledge", "handle", by="li")
        await bench.write()
        (record,) = (each for each in await bench.written("audit") if each["what"] == "rain.warning")
        assert (record["by"], record["subject"], record["to"]["level"]) == ("li", "n", "red")
        stored = [alarms.decode(row) for row in (await bench.spool.alarms()).values()]
        name, state = "rain:warning:n", (await bench.spool.states())["rain:warning:n"]
        now_ns = bench.clock.now_ns
    async with opened(tmp_path, stored=stored) as bench:
        assert bench.room.restore(name, json.loads(state[1]))
        bench.clock.now_ns = now_ns
        bench.look()
        assert (bench.alarm("advice").response, bench.alarm("advice").condition) == ("handled", "present")
        bench.look(after_s=6 * 3600)
        assert bench.alarm("advice").condition == "gone"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"pond": "x"}, "no pond x"),
        ({"by": " "}, "who passes"),
        ({"until": "2020-01-01T00:00:00Z"}, "ended at"),
        ({"until": "soon"}, "is no time"),
        ({"until": "2099-01-01T00:00:00"}, "is no time"),
    ],
)
async def test_a_warning_that_makes_no_sense_is_refused_with_a_sentence(
    tmp_path: Path, wrong: dict[str, Any], why: str
) -> None:
    warning = requests.StormWarning("n", "red", "6 h", "w", "li")
    async with opened(tmp_path) as bench:
        with pytest.raises((NotAllowed, Refused), match=why):
            await bench.ask(msgspec.structs.replace(warning, **wrong))
        assert bench.room.book.open() == []
