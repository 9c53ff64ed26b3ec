"""When the wall clock is believed, on a clock that the test turns."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest

from daemon.audit import Audit
from daemon.clock import NS, Clock
from daemon.config import File, SiteTable, StoreTable
from daemon.reading import ReadingFrame, parse_rfc3339
from daemon.timekeeper import BUILT_NS, GNSS_STEADY_S, STEADY_S, Known, Timekeeper, kernel_synchronised
from daemon.writer import Writer
from drivers.sample import Quality

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.config import Site
    from daemon.spool import Draft, Spool

NOW_NS = int(datetime(2027, 6, 1, 12, tzinfo=UTC).timestamp()) * NS
DAY_NS = 86_400 * NS


class Turned(Clock):
    """Wall and monotonic time as the test sets them."""

    def __init__(self, wall_ns: int = NOW_NS) -> None:
        self.wall = wall_ns
        self.mono = 1_000 * NS
        super().__init__()

    def wall_ns(self) -> int:
        return self.wall

    def monotonic_ns(self) -> int:
        return self.mono

    def pass_s(self, seconds: float) -> None:
        self.wall += int(seconds * NS)
        self.mono += int(seconds * NS)


class Receiver:
    """A GNSS receiver that says how far UTC is ahead of the monotonic clock."""

    def __init__(self, clock: Turned) -> None:
        self._clock = clock
        self.told: tuple[int, int] | None = None

    def tell(self, utc_ns: int) -> None:
        self.told = (utc_ns - self._clock.mono, self._clock.mono)


class Kept(Writer):
    """A writer that keeps what it is handed."""

    def __init__(self) -> None:
        file = File(site=SiteTable(id="s", gateway="g"), store=StoreTable())
        super().__init__(cast("Spool", None), Clock(), cast("Site", file), {}, lambda _: None)
        self.site = cast("Site", file)

    def put_in_place(self, draft: Draft) -> None:
        self._others.append(draft)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(b"{" + draft.body + b"}") for draft in self._others]


class Room:
    def __init__(self, folder: Path, wall_ns: int = NOW_NS, *, kernel: bool | None = False) -> None:
        self.clock = Turned(wall_ns)
        self.receiver = Receiver(self.clock)
        self.writer = Kept()
        self.kernel = kernel
        self.folder = folder
        self.keeper = self.start()

    def trusted(self) -> bool:
        return self.keeper.trusted

    def start(self) -> Timekeeper:
        audit = Audit(self.writer, self.clock, self.writer.site)
        return Timekeeper(self.clock, audit, [self.receiver], self.folder, kernel=lambda: self.kernel)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_a_clock_that_nothing_contradicts_is_trusted(room: Room) -> None:
    assert room.trusted()
    assert room.keeper.known() is None


def test_a_boot_without_a_clock_is_not_trusted_until_the_clock_is_set(tmp_path: Path) -> None:
    room = Room(tmp_path, wall_ns=17 * NS)  # 1970
    assert not room.trusted()
    assert room.keeper.known() == Known(BUILT_NS, exact=False)
    room.clock.pass_s(100)
    room.clock.wall = NOW_NS
    room.keeper.check()
    assert room.trusted()
    (record,) = room.writer.records()
    assert (record["what"], record["trusted"]) == ("clock", True)
    assert record["from"] == "1970-01-01T00:01:57.000Z"
    assert parse_rfc3339(record["from"]) + record["offset_ms"] * 1_000_000 == NOW_NS


@pytest.mark.parametrize("step_s", [30 * 86_400, -7_200, 0.7, -0.7, 11 * 365 * 86_400])
def test_a_step_is_recorded_and_believed_only_after_an_hour_without_another(
    room: Room, step_s: float
) -> None:
    room.clock.pass_s(10)
    room.clock.wall += int(step_s * NS)
    room.keeper.check()
    assert not room.trusted()
    assert [record["offset_ms"] for record in room.writer.records()] == [round(step_s * 1000)]
    room.clock.pass_s(STEADY_S - 1)
    room.keeper.look()
    assert not room.trusted()
    room.clock.pass_s(2)
    room.keeper.look()
    assert room.trusted()


def test_small_moves_are_no_steps(room: Room) -> None:
    for _ in range(100):
        room.clock.pass_s(1)
        room.clock.wall += NS // 5  # slewed far faster than any NTP client does
        room.keeper.check()
    assert room.writer.records() == []
    assert room.trusted()


def test_the_kernels_word_makes_a_step_a_sync(room: Room) -> None:
    room.clock.wall += DAY_NS
    room.kernel = True
    room.keeper.check()
    assert room.trusted()
    assert room.writer.records()[0]["trusted"] is True


def test_a_kernel_that_may_not_be_asked_is_no_evidence(tmp_path: Path) -> None:
    room = Room(tmp_path, kernel=None)
    room.clock.wall += DAY_NS
    room.keeper.check()
    assert not room.trusted()
    assert kernel_synchronised() in (True, False, None)


def test_a_receiver_that_agrees_makes_the_clock_trusted_and_one_that_differs_does_not(room: Room) -> None:
    room.clock.wall += DAY_NS
    room.keeper.check()
    room.receiver.tell(room.clock.wall + 2 * NS)
    room.clock.pass_s(GNSS_STEADY_S + 1)
    room.keeper.look()
    assert (room.trusted(), room.keeper.why) == (True, "it is the GNSS receiver's time")
    room.receiver.tell(room.clock.wall - DAY_NS)
    room.clock.pass_s(GNSS_STEADY_S + 1)
    room.keeper.look()
    assert not room.trusted()
    assert room.keeper.known() == Known(room.clock.wall - DAY_NS, exact=True)


def test_a_receiver_whose_time_has_just_jumped_is_not_asked(room: Room) -> None:
    room.receiver.tell(room.clock.wall + 10 * 365 * DAY_NS)
    room.keeper.look()
    assert room.trusted()
    room.clock.pass_s(GNSS_STEADY_S - 1)
    room.keeper.look()
    assert room.trusted()


def test_a_receiver_whose_weeks_rolled_over_is_not_believed_and_the_kernel_outweighs_it(room: Room) -> None:
    room.receiver.tell(room.clock.wall - 1024 * 7 * DAY_NS)
    room.clock.pass_s(GNSS_STEADY_S + 1)
    room.keeper.look()
    assert room.trusted()
    room.receiver.tell(room.clock.wall + 1024 * 7 * DAY_NS)
    room.clock.pass_s(GNSS_STEADY_S + 1)
    room.keeper.look()
    assert not room.trusted()
    room.kernel = True
    room.keeper.look()
    assert room.trusted()
    assert room.keeper.why.endswith("tells another time")


async def test_the_time_that_was_confirmed_is_the_floor_of_the_next_start(tmp_path: Path) -> None:
    room = Room(tmp_path, kernel=True)
    task = asyncio.create_task(room.keeper.run())
    async with asyncio.timeout(5):
        while not (tmp_path / "clock").exists():
            await asyncio.sleep(0.01)
    task.cancel()
    again = Room(tmp_path, wall_ns=NOW_NS - DAY_NS)
    assert not again.trusted()
    assert again.keeper.known() == Known(NOW_NS, exact=False)
    again.kernel = True  # evidence outweighs a floor that may have been wrong
    again.keeper.look()
    assert again.trusted()


@pytest.mark.parametrize("content", ["", "yesterday", "\0\0\0"])
def test_a_saved_time_that_is_torn_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "clock").write_text(content)
    assert Room(tmp_path).keeper.trusted


def test_a_step_while_nobody_looked_is_recorded_at_the_next_start_of_the_same_boot(room: Room) -> None:
    state = json.loads(json.dumps(room.keeper.state()))
    room.clock.pass_s(100)
    room.keeper.resume(state)
    assert [record["what"] for record in room.writer.records()] == ["start"]
    room.clock.wall += DAY_NS
    room.clock.rephase()  # the new process has seen nothing else
    room.start().resume(state)
    record = room.writer.records()[-1]
    assert (record["what"], record["offset_ms"]) == ("clock", DAY_NS // 1_000_000)
    room.start().resume({**state, "boot": "another"})
    assert room.writer.records()[-1]["what"] == "start"


def test_while_the_clock_is_not_trusted_good_readings_are_uncertain_and_bad_ones_stay_bad(room: Room) -> None:
    qualities = bytes([Quality.GOOD, Quality.GNSS_FLOAT, Quality.NO_REPLY])
    frame = ReadingFrame("abc", "mmm", 1, 1, 1, [1.0, 2.0, 3.0], qualities, [{}] * 3)
    marked = room.keeper.marked(frame)
    assert [reading.quality for reading in marked] == [
        "uncertain:clock",
        "uncertain:gnss-float",
        "bad:no-reply",
    ]
    assert (marked.values, marked.time_ns) == (frame.values, frame.time_ns)
