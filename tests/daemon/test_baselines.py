"""The tie of a new base station: displacement goes on through it, no alarm is cleared, two people sign, and it lasts.

Real receivers fed sentences, real channels, judge, alarm book, store and control socket.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from daemon import commands, requests
from daemon.alarms import NotAllowed
from daemon.app import build_room
from daemon.audit import Audit
from daemon.baselines import Baselines, Standing
from daemon.channels import Channels, Source
from daemon.config import ChannelTable, DeviceTable, File, LineTable, Pond, Site, SiteTable
from daemon.control import Caller, Control
from daemon.duty_tables import AlarmsTable, PersonTable
from daemon.guard import Guard
from daemon.metrics import Metrics
from daemon.pipeline import Pipeline
from daemon.rules import Verdicts
from daemon.spool import Spool
from daemon.taps import header
from daemon.writer import Writer
from drivers import profile
from drivers.gnss import codecs
from drivers.gnss.baseline import Reference
from drivers.gnss.receiver import GnssReceiver, Mount
from drivers.recorder import Header, Recorded, Ring, Tap, read, recordings
from drivers.replay import Differences, Then, heard
from drivers.sample import Block, Quality
from edge_rules.law.derived import Horizontal
from edge_rules.law.levels import Levels
from tests.daemon.test_guard import Hand
from tests.drivers.test_gnss import line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from daemon.alarms import Alarm
    from daemon.guard import Room
    from drivers.recorder import Event
    from drivers.sample import Frame

S = 1_000_000_000
REFERENCE = Reference(-5654.401, 12167.763, -42.319)
LEVELS = Levels(rising=True, blue=30.0, yellow=35.0, orange=40.0, red=45.0, hysteresis=1.0, source="t")
PEOPLE = (PersonTable("li", "李伟", "duty"), PersonTable("wang", "王工", "supervisor"))
CALLER = Caller(1, 0, 0)
OTHER = Block("w", "b", ("x",), ("m",))
JUMP_MM = 300.0  # what the new station displaces, to the east


@dataclass
class Bench:
    clock: Hand
    receiver: GnssReceiver
    room: Room
    pipeline: Pipeline
    baselines: Baselines
    writer: Writer
    spool: Spool
    site: Site
    tapped: tuple[Tap, list[Frame]] | None = None

    def hear(self, *moved_mm: float, base: str = "117", q: int = 4) -> list[tuple[float, Quality]]:
        """One epoch a minute, each a period of its own; what the channel `east` makes of them."""
        rows = []
        for mm in moved_mm:
            self.clock.now_ns += 60 * S
            sentence = self._sentence(mm, base, q)
            if self.tapped is not None:
                self.tapped[0].on_trace("rx", 0, sentence)
            for frame in self.receiver.feed(sentence):
                if self.tapped is not None:
                    self.tapped[0].frame(frame)
                    self.tapped[1].append(frame)
                self.pipeline.take(frame)
            for readings in (each for each in self.pipeline.latest.values() if "east" in each.channels):
                at = readings.channels.index("east")
                rows.append((round(readings.values[at], 3), Quality(readings.qualities[at])))
        return rows

    def _sentence(self, mm: float, base: str, q: int) -> bytes:
        """The station 200 stands 300 mm from where it is said to stand."""
        of_day = self.clock.now_ns // S % 86_400
        utc = f"{of_day // 3600:02}{of_day // 60 % 60:02}{of_day % 60:02}.00"
        told_m = (mm + (JUMP_MM if base == "200" else 0.0)) / 1000.0
        return line(f"GPNTR,{utc},{q},13417.470,+12167.763,{-5654.401 + told_m:.4f},-42.319,{base}")

    async def ask(self, request: requests.Request) -> Standing:
        verb: Any = self.baselines.table()[type(request)]
        return cast("Standing", await verb(request, CALLER))

    async def tie(self, east_mm: float, **other: Any) -> Standing:
        asked = requests.BaselineTie(
            "east", (east_mm, 0.0, 0.0), 3.0, "li", "wang", "new antenna on the base", last=3
        )
        return await self.ask(msgspec.structs.replace(asked, **other))

    async def write(self) -> None:
        self.writer.stop()
        await self.writer.run()

    async def audit(self) -> list[dict[str, Any]]:
        return [json.loads(batch.payload) for batch in await self.spool.peek() if batch.kind == "audit"]


def site(reference: Reference = REFERENCE) -> Site:
    def channel(name: str, **its: Any) -> ChannelTable:
        return ChannelTable(id=name, unit="mm", item="displacement", pond="n", **its)

    file = File(
        site=SiteTable(id="s", gateway="g"),
        ponds=(Pond(id="n"),),
        lines=(LineTable(id="l", kind="serial", port="x"),),
        devices=(DeviceTable("g1", "l", "comnav-gpntr", 60.0, reference=reference),),
        channels=(
            channel("east", source="g1.east", levels=LEVELS),
            channel("north", source="g1.north"),
            channel("away", derive=Horizontal(east="east", north="north")),
            ChannelTable(id="stage", unit="m", item="pond-level", pond="n", source="w.x"),
        ),
        alarms=AlarmsTable(),
        people=PEOPLE,
    )
    return cast("Site", file)


@asynccontextmanager
async def opened(folder: Path, its: Site | None = None, alarms: Sequence[Alarm] = ()) -> AsyncIterator[Bench]:
    """What daemon.app builds around a receiver, with its stored states handed back."""
    its = its or site()
    clock = Hand()
    mount = Mount(cast("Reference", its.devices[0].reference))
    receiver = codecs.receiver("g1", profile.load("comnav-gpntr"), mount, 60.0, clock)
    async with Spool.open(folder, "real", "boot", clock=clock) as spool:
        sources = [Source(receiver.blocks[0], 60 * S), Source(OTHER, 60 * S)]
        channels = Channels(its.channels, sources)
        room = build_room(its, clock, channels, alarms)
        states: dict[str, Any] = {**room.states(), **channels.states()}
        writer = Writer(spool, clock, its, states, lambda _: None)
        audit = Audit(writer, clock, its)
        baselines = Baselines(its, [receiver], clock, room.roster, audit, writer.mark)
        states |= baselines.states()
        stored = await spool.states()
        baselines.restore(stored)
        for name, (_, row) in stored.items():
            room.restore(name, json.loads(row))
        guard = Guard(its, clock, room, audit)
        pipeline = Pipeline(
            its, channels, room, guard, writer, clock, Metrics("0", "0"), Verdicts(its, spool.stream)
        )
        yield Bench(clock, receiver, room, pipeline, baselines, writer, spool, its)


async def base_changed(bench: Bench) -> None:
    """The point creeps 1 mm a minute; the base station is changed in the middle of it."""
    bench.hear(8.0, 9.0, 10.0, 11.0)
    rows = bench.hear(12.0, 13.0, 14.0, base="200")
    assert rows[-1] == (314.0, Quality.BASE_CHANGED)


async def test_displacement_goes_on_through_the_tie_and_movement_meanwhile_is_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        await base_changed(bench)
        before = await bench.ask(requests.Baseline("away", last=3))
        assert (before.origin_base, before.base, before.is_known, before.n) == ("117", "200", False, 3)
        assert before.told_mm == pytest.approx((313.0, 0.0, 0.0))
        assert before.certain_mm == pytest.approx((11.0, 0.0, 0.0))
        after = await bench.tie(13.0)
        assert after.is_known
        assert after.displacement_mm == pytest.approx((13.0, 0.0, 0.0))
        assert bench.hear(15.0, 16.0, base="200") == [(15.0, Quality.GOOD), (16.0, Quality.GOOD)]
        assert bench.hear(17.0) == [(17.0, Quality.GOOD)], "the first station is as good as ever"
        assert bench.hear(18.0, base="200") == [(18.0, Quality.GOOD)]
        assert bench.hear(19.0, base="201") == [(19.0, Quality.BASE_CHANGED)], "one nobody tied is not"


async def test_a_tie_outlives_a_restart_and_is_void_for_another_origin(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        await base_changed(bench)
        await bench.tie(13.0)
        bench.hear(15.0, base="200")
        now_ns = bench.clock.now_ns
        await bench.write()
        (record,) = await bench.audit()
    assert (record["what"], record["subject"], record["by"], record["witness"]) == (
        "baseline",
        "g1",
        "li",
        "wang",
    )
    assert record["from"] is None
    assert record["to"]["offset_mm"] == pytest.approx([300.0, 0.0, 0.0])
    assert record["why"] == "new antenna on the base"
    async with opened(tmp_path) as again:
        again.clock.now_ns = now_ns
        assert again.hear(16.0, 17.0, base="200")[-1] == (17.0, Quality.GOOD), "at once, before any 117"
        standing = await again.ask(requests.Baseline("g1", last=1))
        assert (standing.origin_base, standing.base) == ("117", "200")
        assert [tie.base for tie in standing.ties] == ["200"]
        await again.write()
    async with opened(tmp_path, site(replace(REFERENCE, east_m=-5654.4))) as other:
        other.clock.now_ns = now_ns + 600 * S
        other.hear(18.0)
        assert other.hear(19.0, base="200")[-1][1] == Quality.BASE_CHANGED
        assert (await other.ask(requests.Baseline("g1"))).ties == []


async def test_a_new_station_after_a_restart_is_not_taken_for_the_origins_own(tmp_path: Path) -> None:
    """The site file names none: the first one heard is kept in the store, not heard anew at each start."""
    async with opened(tmp_path) as bench:
        bench.hear(8.0, 9.0)
        await bench.write()
        now_ns = bench.clock.now_ns
    async with opened(tmp_path) as again:
        again.clock.now_ns = now_ns
        assert again.hear(10.0, 11.0, base="200")[-1] == (311.0, Quality.BASE_CHANGED)


async def test_a_recording_yields_the_same_frames_again_through_a_tie_and_a_restart(tmp_path: Path) -> None:
    """Of both starts: the header says what was tied before, an event what is tied now."""
    made: list[tuple[Header, list[Event], list[Frame]]] = []
    for start in range(2):
        async with opened(tmp_path) as bench:
            bench.clock.now_ns += start * 3600 * S
            tap = Tap(header(bench.site, bench.site.lines[0], bench.baselines), bench.clock)
            bench.baselines.shown_by({"g1": tap})
            begins = tap.header
            events: list[Event] = []
            frames: list[Frame] = []
            tap.listeners.append(events.append)
            bench.tapped = tap, frames
            if start == 0:
                await base_changed(bench)
                await bench.tie(13.0)
            bench.hear(15.0, 16.0, base="200")
            bench.hear(17.0, base="201")
            assert (tap.header == begins) is (start == 1)
            made.append((begins, events, frames))
            await bench.write()
    for begins, events, frames in made:
        then = Then()
        driver = codecs.receiver("g1", profile.load("comnav-gpntr"), Mount(REFERENCE), 60.0, then)
        driver.resume(begins.devices[0].base, begins.devices[0].ties)
        again = list(heard(events, driver, then, Differences()))
        assert [(f.tick_ns, f.qualities, list(f.values)[:3]) for f in again] == [
            (f.tick_ns, f.qualities, list(f.values)[:3]) for f in frames
        ]
        assert {Quality(frame.qualities[0]) for frame in frames} == {Quality.GOOD, Quality.BASE_CHANGED}


def test_a_ring_begins_its_next_file_with_the_ties_of_before(tmp_path: Path) -> None:
    begins = Header("l", "serial", "", "real", (Recorded("g1", "comnav-gpntr", None, "117"),))
    tap, ring = Tap(begins, Hand()), Ring(tmp_path, begins, 1 << 20)
    tap.listeners.append(ring.put)
    ring._flush(ring._taken() or [b"{}\n"])
    tap.tie("g1", "200", (300.0, 0.0, 0.0))
    ring._begin()
    for path, ties in zip(recordings(tmp_path), ({}, {"200": (300.0, 0.0, 0.0)}), strict=True):
        with path.open("rb") as lines:
            assert read(lines, path.name)[0].devices[0].ties == ties
    assert tap.header.devices[0].base == "117"


async def test_a_tie_clears_no_alarm_and_red_stays_until_people_close_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.hear(20.0, 50.0, 50.0)
        bench.hear(50.0, 50.0, 50.0, base="200")
        before = bench.room.book.open()
        assert {alarm.kind for alarm in before} == {"channel", "item", "pond"}
        await bench.tie(12.0, moved=True)
        assert bench.room.book.open() == before, "the tie itself touches nothing in the book"
        assert bench.hear(50.0, 50.0, base="200")[-1] == (12.0, Quality.GOOD)
        after = bench.room.book.open()
        assert [alarm.id for alarm in after] == [alarm.id for alarm in before]
        assert {(alarm.level, alarm.condition) for alarm in after} == {("red", "present")}
        assert bench.room.judge.is_latched("east")


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"by": "wang"}, "needs two names"),
        ({"witness": " "}, "needs two names"),
        ({"witness": "stranger"}, "names no person stranger"),
        ({"reason": ""}, "needs a reason"),
        ({"uncertainty_mm": 0.0}, "above 0"),
        ({"uncertainty_mm": float("nan")}, "above 0"),
        ({"last": 4}, "3 fixed solutions with base station 200, 4 are asked for"),
        ({"uncertainty_mm": 1.0}, "scatter by east \\+1.5"),
        ({"surveyed_mm": (0.0, 0.0, 0.0)}, "if the point truly moved by east -11.0"),
        ({"channel": "stage"}, "rests on no GNSS receiver"),
        ({"channel": "nobody"}, "no channel or GNSS receiver nobody"),
    ],
)
async def test_a_tie_that_proves_nothing_is_refused_and_changes_nothing(
    tmp_path: Path, asked: dict[str, Any], why: str
) -> None:
    async with opened(tmp_path) as bench:
        await base_changed(bench)
        with pytest.raises(NotAllowed, match=why):
            await bench.tie(13.0, **asked)
        assert bench.hear(15.0, base="200")[-1] == (315.0, Quality.BASE_CHANGED)
        await bench.write()
        assert await bench.audit() == []


async def test_floats_and_solutions_of_before_the_change_are_not_counted(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.hear(8.0, 9.0, 10.0)
        bench.hear(11.0, 12.0, base="200", q=5)
        bench.hear(13.0, base="200")
        standing = await bench.ask(requests.Baseline("g1", last=5))
        assert (standing.base, standing.n) == ("200", 1)


async def test_the_verb_shows_ties_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PONDWATCH_RUN", str(tmp_path))

    async def verb(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(commands.main, ["baseline", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    async with opened(tmp_path) as bench:
        await base_changed(bench)
        async with Control(tmp_path / "control.sock", bench.baselines.table()):
            code, out, _ = await verb("east", "--last", "3")
            assert code == 1
            assert "heard now: 200" in out
            assert "uncertain until a survey ties it" in out
            tie = ("east", "--last", "3", "--surveyed", "13", "-0.5", "0", "--uncertainty", "3")
            code, _, err = await verb(*tie, "--by", "li", "--reason", "survey")
            assert (code, err) == (2, "pondwatch baseline: --witness is missing\n")
            code, out, _ = await verb(*tie, "--by", "li", "--witness", "wang", "--reason", "survey")
            assert code == 0
            assert "displacement +13.00 -0.50 +0.00" in " ".join(out.split())
            code, out, _ = await verb("g1", "--json")
            assert code == 0
            assert json.loads(out)["ties"][0]["offset_mm"] == pytest.approx([300.0, 0.5, 0.0])
