"""The receiver: one robust solution a period, gated by fix, freshness and base station; on a real line."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import pty
import statistics
import tty
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.clock import NS
from daemon.clock import Clock as RealClock
from daemon.poller import StreamLine
from drivers import profile
from drivers.gnss import codecs, leap, nmea
from drivers.gnss.baseline import Baseline, Reference
from drivers.gnss.epoch import Epoch, day_ns
from drivers.gnss.interval import MOST, WORTHLESS, Interval
from drivers.gnss.receiver import GnssReceiver, Mount
from drivers.gnss.ubx import NAV_RELPOSNED
from drivers.sample import Frame, Quality
from drivers.wire import SerialWire, TcpWire
from tests.drivers.test_gnss import NOON, Clock, line, named
from tests.drivers.test_gnss_dialects import DATA, ENU, UTC_OF_ENU, block, epochs, relpos, vector
from tests.drivers.test_gnss_framer import rtcm_frame, ubx_frame

if TYPE_CHECKING:
    from pathlib import Path

    from drivers.wire import Wire
    from tests.conftest import Figure

S = 10**9
REFERENCE = Reference(-5654.401, 12167.763, -42.319)


def receiver(
    clock: Clock,
    every_s: float = 60.0,
    *,
    base: str = "",
    oldest_s: float = math.inf,
    id_: str = "comnav-gpntr",
) -> GnssReceiver:
    return codecs.receiver("g1", profile.load(id_), Mount(REFERENCE, base, oldest_s), every_s, clock)


def gpntr(second: float, east_mm: float = 0.0, q: int = 4, base: str = "117") -> bytes:
    """The sentence of `second` after noon, the antenna moved east."""
    hours, rest = divmod(43200 + second, 3600)
    utc = f"{int(hours):02}{int(rest // 60):02}{rest % 60:05.2f}"
    return line(f"GPNTR,{utc},{q},13417.470,+12167.763,{-5654.401 + east_mm / 1000:.4f},-42.319,{base}")


def play(device: GnssReceiver, clock: Clock, sentences: list[bytes], step_s: float = 1.0) -> list[Frame]:
    frames = []
    for sentence in sentences:
        frames += device.feed(sentence)
        clock.advance(step_s)
    return frames


def about(value: float, quality: Quality) -> Any:
    return (pytest.approx(value, abs=1e-6), quality)


# --- one solution a period ----------------------------------------------------------------------------------


def test_a_period_is_the_median_of_its_fixed_epochs_with_their_number_and_scatter() -> None:
    clock = Clock()
    device = receiver(clock)
    east = [1.0, 2.0, 3.0, 900.0, 4.0]  # one wrong fix
    (frame,) = play(device, clock, [gpntr(10 * i, mm) for i, mm in enumerate(east)] + [gpntr(60)], 10.0)
    sample = named(frame)
    assert frame.tick_ns == NOON
    assert sample["east"] == about(3.0, Quality.GOOD)
    assert sample["n"] == (5.0, Quality.GOOD)
    assert sample["spread_east"] == about(1.4826, Quality.GOOD)
    assert sample["spread_up"] == (0.0, Quality.GOOD)
    assert sample["sd_east"][1] == Quality.MISSING_INPUT, "the sentence has no accuracy"
    assert sample["base"] == (117.0, Quality.GOOD)


def test_floats_and_single_positions_do_not_touch_a_period_that_has_a_fix() -> None:
    clock = Clock()
    device = receiver(clock)
    (frame,) = play(
        device, clock, [gpntr(0, 500.0, 5), gpntr(1, 2.0), gpntr(2, 700.0, 5), gpntr(3, 9e5, 1), gpntr(60)]
    )
    assert named(frame)["east"] == about(2.0, Quality.GOOD)
    assert named(frame)["n"] == (1.0, Quality.GOOD)
    assert named(frame)["fix"] == (4.0, Quality.GOOD)
    assert named(frame)["spread_east"][1] == Quality.MISSING_INPUT, "one epoch does not scatter"


def test_floats_alone_are_uncertain_and_less_is_nothing() -> None:
    clock = Clock()
    device = receiver(clock)
    floats, none = play(
        device, clock, [gpntr(0, 5.0, 5), gpntr(1, 7.0, 5), gpntr(2, 9e5, 1), gpntr(60, q=1), gpntr(120)]
    )
    assert named(floats)["east"] == about(6.0, Quality.GNSS_FLOAT)
    assert named(floats)["n"] == (2.0, Quality.GOOD)
    assert named(none)["east"][1] == named(none)["spread_east"][1] == Quality.NO_FIX
    assert math.isnan(named(none)["east"][0])
    assert named(none)["n"] == (0.0, Quality.GOOD)
    assert named(none)["fix"] == (1.0, Quality.GOOD), "how it is doing stays to be seen"


def test_once_the_pace_is_known_a_period_goes_out_with_its_own_last_epoch() -> None:
    clock = Clock()
    device = receiver(clock, 10.0)
    assert play(device, clock, [gpntr(i) for i in range(9)]) == []
    (frame,) = device.feed(gpntr(9))
    assert (frame.tick_ns, named(frame)["n"][0]) == (NOON, 10.0)
    assert device.feed(gpntr(9.5)) == [], "what comes late for a period that is out is left out"


def test_a_receiver_as_slow_as_the_period_keeps_nobody_waiting() -> None:
    clock = Clock()
    device = receiver(clock, 60.0)
    frames = play(device, clock, [gpntr(60 * i, i) for i in range(4)], 60.0)
    assert [f.tick_ns for f in frames] == [NOON + 60 * i * S for i in range(4)]
    assert [named(f)["n"][0] for f in frames] == [1.0] * 4


def test_a_silent_receivers_period_goes_out_when_it_is_over_and_not_before() -> None:
    clock = Clock()
    device = receiver(clock)
    device.feed(gpntr(0, 1.0))
    clock.advance(59.0)
    assert device.due() == []
    clock.advance(2.0)
    (frame,) = device.due()
    assert frame.tick_ns == NOON
    assert device.due() == []


def test_an_epoch_that_is_said_twice_counts_once_and_a_stuck_receiver_says_nothing() -> None:
    clock = Clock()
    device = receiver(clock)
    (frame,) = play(device, clock, [gpntr(0, 1.0), gpntr(0, 1.0), gpntr(1, 1.0), gpntr(60, 2.0)])
    assert named(frame)["n"][0] == 2.0
    assert play(device, clock, [gpntr(60, 2.0)] * 200) == []


def test_old_corrections_are_no_fix_where_the_site_says_so() -> None:
    for oldest_s, quality in ((30.0, Quality.GOOD), (1.0, Quality.NO_FIX)):
        clock = Clock(1_584_532_800 * S)
        device = receiver(clock, 1.0, oldest_s=oldest_s, id_="septentrio-basevectorgeod")
        frames = device.feed(block(vector(4, 117)))  # 1.2 s old
        clock.advance(10.0**9)
        assert [named(f)["east"][1] for f in frames + device.due()] == [quality]


def rank_of(kind: int) -> int:
    return kind if kind < 4 else WORTHLESS


ROWS = st.lists(st.tuples(st.integers(0, 4), st.one_of(st.floats(-1e3, 1e3), st.just(math.nan))), max_size=40)


@given(ROWS)
def test_medians_and_scatter_are_those_of_the_best_kind(rows: list[tuple[int, float]]) -> None:
    interval = Interval(0)
    for i, (kind, number) in enumerate(rows, start=1):
        interval.add(rank_of(kind), "", (number, float(i)))
        best = min(rank_of(k) for k, _ in rows[:i])
        counted = [n for k, n in rows[:i] if rank_of(k) == best and best < WORTHLESS]
        told = [n for n in counted if not math.isnan(n)]
        median = interval.medians()[0]
        assert interval.n == len(counted)
        if counted:
            middle = statistics.median(told) if told else math.nan
            assert median == middle or (math.isnan(median) and not told)
        if len(counted) > 1 and told:
            expected = 1.4826 * statistics.median(abs(n - middle) for n in told)
            assert interval.scatter(1, [middle])[0] == pytest.approx(expected)


def test_a_period_of_a_day_at_ten_hertz_takes_no_more_room_than_it_may() -> None:
    interval = Interval(0)
    for i in range(864_000):
        interval.add(0, "", (float(i),))
    assert len(interval._rows) < MOST
    assert interval.n == 864_000
    assert interval.medians()[0] == pytest.approx(432_000, rel=0.01)


# --- base station -------------------------------------------------------------------------------------------


def test_another_base_station_makes_readings_uncertain_until_the_old_one_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    device = receiver(clock, 1.0)
    with caplog.at_level(logging.INFO):
        frames = play(
            device,
            clock,
            [gpntr(i, 1.0, base=b) for i, b in enumerate(["117", "117", "118", "0118", "117", "117"])],
        )
    assert [named(f)["east"][1] for f in frames] == [Quality.GOOD] * 2 + [Quality.BASE_CHANGED] * 2 + [
        Quality.GOOD
    ] * 2
    assert [named(f)["east"][0] for f in frames] == pytest.approx([1.0] * 6, abs=1e-6), "the origin stays"
    assert [r.getMessage() for r in caplog.records] == [
        "g1: base station is 118, the origin is of 117",
        "g1: base station is 117 again",
    ]


def test_the_base_station_of_the_site_file_outlives_a_restart() -> None:
    clock = Clock()
    device = receiver(clock, 1.0, base="0117")
    frames = play(
        device,
        clock,
        [gpntr(0, base="118"), gpntr(1, base="118"), gpntr(2, base="118", q=5), gpntr(3, base="118", q=1)],
    )
    changed = Quality.BASE_CHANGED
    assert [named(f)["east"][1] for f in frames] == [changed, changed, changed, Quality.NO_FIX]


def test_a_network_of_base_stations_may_change_them() -> None:
    clock = Clock()
    frames = play(
        receiver(clock, 60.0, base="any"), clock, [gpntr(i, base=str(i)) for i in range(5)] + [gpntr(60)]
    )
    assert [named(f)["n"] for f in frames] == [(5.0, Quality.GOOD)]


def test_epochs_of_two_base_stations_are_never_mixed() -> None:
    clock = Clock()
    device = receiver(clock, 60.0)
    first = [gpntr(0, 1.0), gpntr(1, 1.0), *[gpntr(2 + i, 5e5, base="118") for i in range(3)]]
    second = [gpntr(60, 5e5, base="118"), gpntr(61, 9e5, base="119")]
    before, after = play(device, clock, [*first, *second, gpntr(120)])
    assert named(before)["east"] == about(1.0, Quality.GOOD)
    assert named(before)["n"][0] == 2.0
    assert named(after)["east"] == about(9e5, Quality.BASE_CHANGED)
    assert named(after)["n"][0] == 1.0


def test_a_single_position_on_another_base_is_no_change() -> None:
    clock = Clock()
    frames = play(receiver(clock, 1.0), clock, [gpntr(0), gpntr(1, q=1, base="9"), gpntr(2)])
    assert [named(f)["east"][1] for f in frames] == [Quality.GOOD, Quality.NO_FIX, Quality.GOOD]


# --- time ---------------------------------------------------------------------------------------------------


def test_gps_time_is_put_back_by_the_leap_seconds_of_its_day() -> None:
    clock = Clock(UTC_OF_ENU)
    device = receiver(clock, 1.0, id_="rtklib-enu")
    device.feed(ENU.encode() + b"\n")
    clock.advance(60.0)
    (frame,) = device.due()
    assert frame.tick_ns == UTC_OF_ENU - 18 * S
    assert named(frame)["east"] == about(-0.2, Quality.GOOD)


def test_a_time_of_week_is_of_this_week_and_over_its_turn_of_the_next() -> None:
    midnight_gps = 1_584_230_400 - 18  # Sunday 2020-03-15 00:00 GPS time
    clock = Clock((midnight_gps - 1) * S)
    device = receiver(clock, 1.0, id_="septentrio-basevectorgeod")
    frames = play(
        device, clock, [block(vector(4, 1), tow=tow, week=0xFFFF) for tow in (604_799_000, 0, 1000)]
    )
    assert [f.tick_ns for f in frames] == [(midnight_gps + i) * S for i in (-1, 0, 1)]


@pytest.mark.parametrize("week", [2097, 2097 - 1024, 2097 - 2048])
@pytest.mark.fault(
    row=19,
    fault="GNSS week number begins anew",
    injected="SBF with weeks of 1,024 and 2,048 before",
    holds="put right",
)
def test_a_week_number_that_began_anew_is_put_right(week: int, figure: Figure) -> None:
    clock = Clock((1_584_230_400 - 18 + 172_800) * S)
    device = receiver(clock, 1.0, id_="septentrio-basevectorgeod")
    frames = device.feed(block(vector(4, 1), week=week))
    told = device.told
    clock.advance(60.0)
    (frame,) = frames + device.due()
    assert frame.tick_ns == (1_584_230_400 - 18 + 172_800) * S
    assert told == (frame.tick_ns - 5 * S, 5 * S)
    figure(f"week {week}: dated to the second")


def test_a_date_without_a_fix_moves_nothing() -> None:
    clock = Clock()
    device = receiver(clock, 1.0, id_="septentrio-basevectorgeod")
    device.feed(block(vector(0, 1), week=77))
    assert device.told is None


LIST = """#$ 3676924800
#@ 3991593600
3644697600	36	# 1 Jul 2015
3692217600	37	# 1 Jan 2017
"""


def test_a_list_of_leap_seconds_is_read_and_says_when_it_is_out_of_date(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = leap.read(LIST)
    assert table.expires_ns == leap.BUILT_IN.expires_ns
    assert [table.gps_ahead_s(s * S) for s in (1_483_228_799, 1_483_228_800, 1_900_000_000)] == [17, 18, 18]
    table.warn_if_expired(table.expires_ns)
    assert not caplog.records
    table.warn_if_expired(table.expires_ns + 1)
    assert "expired on 2026-06-28: update tzdata; GPS time counts as 18 s ahead" in caplog.text


def test_a_machine_without_a_list_has_the_built_in_one(tmp_path: Path) -> None:
    path = tmp_path / "leap-seconds.list"
    assert leap.installed(path) is leap.BUILT_IN
    path.write_text("no list")
    assert leap.installed(path) is leap.BUILT_IN
    path.write_text(LIST.replace("3991593600", "3991593601"))
    assert leap.installed(path).expires_ns == leap.BUILT_IN.expires_ns + S


# --- whatever comes -----------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(-90_000, 90_000), st.sampled_from([0, 1, 4, 5]), st.integers(-100, 4000)),
        max_size=30,
    )
)
def test_no_order_of_epochs_and_clocks_makes_a_frame_of_two_periods(
    events: list[tuple[int, int, int]],
) -> None:
    clock = Clock()
    device = receiver(clock, 60.0)
    for second, q, step_s in events:
        clock.wall += step_s * S
        clock.mono += abs(step_s) * S
        for frame in device.feed(gpntr(second % 43_000, float(second // 60), q)) + device.due():
            assert frame.tick_ns % (60 * S) == 0
            east = named(frame)["east"]
            assert east[1] in (Quality.GOOD, Quality.GNSS_FLOAT, Quality.NO_FIX)
            assert math.isnan(east[0]) is east[1].is_bad


# --- on a line ----------------------------------------------------------------------------------------------


class Recorder:
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.errors: Counter[str] = Counter()
        self.up: list[bool] = []

    def take(self, frame: Frame) -> None:
        self.frames.append(frame)

    def device_error(self, line: str, device: str, reason: str) -> None:
        self.errors[reason] += 1

    def device_state(self, line: str, device: str, *, up: bool, error: str) -> None:
        self.up.append(up)

    def polled(self, line: str, seconds: float) -> None:
        raise AssertionError("nobody polls a receiver")

    def overrun(self, line: str, ticks: int) -> None:
        raise AssertionError("nobody polls a receiver")


class Mode:
    baud, data_bits, parity, stop_bits, bits_per_character = 115200, 8, "N", 1.0, 10.0


async def spoken(wire: Wire, say: asyncio.Queue[bytes], recorder: Recorder, clock: RealClock) -> None:
    """A StreamLine for a second and a half, to which a receiver speaks ten times a second."""
    device = codecs.receiver("g1", profile.load("comnav-gpntr"), Mount(REFERENCE), 0.5, clock)
    stream = StreamLine("sky", wire, device, NS // 2, clock, recorder)
    task = asyncio.create_task(stream.run())
    await asyncio.sleep(0.2)
    end_s = asyncio.get_running_loop().time() + 1.5
    while asyncio.get_running_loop().time() < end_s:
        now_s = round(clock.wall_ns() / NS, 1) % 86400
        await say.put(b"\xb5\x62\x01" + gpntr(now_s - 43200, 3.0))
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)  # the last period is closed by the line, not by an epoch
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def check(recorder: Recorder) -> None:
    good = [f for f in recorder.frames if named(f)["east"][1] == Quality.GOOD]
    assert len(good) >= 3
    assert {round(named(f)["east"][0], 3) for f in good} == {3.0}
    assert sum(named(f)["n"][0] for f in good) >= 12
    ticks = [f.tick_ns for f in recorder.frames]
    assert len(set(ticks)) == len(ticks), "each period is told once"
    assert recorder.up[0]


async def test_a_stream_comes_through_a_real_terminal() -> None:
    ours, theirs = pty.openpty()
    tty.setraw(ours)
    recorder, say = Recorder(), asyncio.Queue[bytes](1)

    async def write() -> None:
        while True:
            os.write(ours, await say.get())

    task = asyncio.create_task(write())
    try:
        await spoken(SerialWire(os.ttyname(theirs), Mode()), say, recorder, RealClock())
    finally:
        task.cancel()
        os.close(ours)
        os.close(theirs)
    check(recorder)


async def test_a_stream_comes_through_tcp() -> None:
    recorder, say = Recorder(), asyncio.Queue[bytes](1)

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(await say.get())
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        await spoken(TcpWire(host, port), say, recorder, RealClock())
    finally:
        server.close()
    check(recorder)


def test_an_hour_of_a_real_receiver_is_one_solution_near_its_plain_median() -> None:
    log = DATA / "gpsd_logs" / "nmea-rtk.log"
    if not log.is_file():
        pytest.skip(f"nmea-rtk.log is not in {DATA}")
    clock = Clock()
    origin = Baseline(41.575, -93.7506, 249.0)
    device = codecs.receiver("g1", profile.load("nmea-gga-gst"), Mount(origin), 3600.0, clock)
    frames = device.feed(log.read_bytes())
    clock.advance(7200.0)
    (frame,) = frames + device.due()
    decoder = codecs.decoder(profile.load("nmea-gga-gst"))
    told = [*decoder.feed(log.read_bytes(), 0), *decoder.flush()]
    fixed = [each for each in told if isinstance(each, Epoch) and each.code == 4.0]
    assert named(frame)["n"] == (len(fixed), Quality.GOOD)
    up_mm = statistics.median(origin.displacement()(*each.where)[2] for each in fixed)
    assert named(frame)["up"][0] == pytest.approx(up_mm)
    assert named(frame)["height"][0] == pytest.approx(statistics.median(each.where[2] for each in fixed))


# --- what receivers do on their worst days ------------------------------------------------------------------


def test_a_leap_second_is_one_epoch_and_no_period_is_lost_or_doubled() -> None:
    """The last second of 2016 was 60; NMEA writes it so, and a receiver may say 60 and 00 of one instant."""
    first = day_ns(2016, 12, 31) + 86_397 * S
    clock = Clock(first)
    told = [("235957", "311216"), ("235958", "311216"), ("235959", "311216"), ("235960", "311216"),
            ("000000", "010117"), ("000001", "010117"), ("000002", "010117")]  # fmt: skip
    sentences = [
        line(f"GNRMC,{utc}.00,A,4134.5,N,09345.0,W,0,0,{date},,,R")
        + line(f"GPNTR,{utc}.00,4,13417.470,+12167.763,-5654.401,-42.319,117")
        for utc, date in told
    ]
    device = receiver(clock, 1.0)
    frames = play(device, clock, sentences) + device.due()
    assert [frame.tick_ns for frame in frames] == [first + i * S for i in range(6)]
    assert all(named(frame)["n"] == (1.0, Quality.GOOD) for frame in frames)


def test_the_one_solution_of_an_hour_is_not_lost_behind_a_false_length() -> None:
    """A radio wakes with garbage that looks like the head of an RTCM message of 1,023 bytes."""
    clock = Clock()
    device = receiver(clock, 3600.0)
    assert device.feed(b"\xd3\x03\xff" + gpntr(0, 5.0)) == []
    clock.advance(1.0)
    assert device.due() == [], "it may still be one"
    clock.advance(3600.0)
    (frame,) = device.due()
    assert (frame.tick_ns, named(frame)["east"]) == (NOON, about(5.0, Quality.GOOD))


def test_a_base_that_changes_and_comes_back_within_a_period_leaves_the_own_ones_epochs() -> None:
    clock = Clock()
    device = receiver(clock, base="117")
    epochs = [gpntr(0, 1.0), gpntr(1, 900.0, base="118"), gpntr(2, 901.0, 5, "118"), gpntr(3, 3.0), gpntr(60)]
    (frame,) = play(device, clock, epochs)
    assert named(frame)["east"] == about(2.0, Quality.GOOD)
    assert named(frame)["n"] == (2.0, Quality.GOOD)
    assert device.base == "117"


def test_checks_in_small_letters_and_a_wrong_one_of_either_kind() -> None:
    body = "KSXT,20211016083433.00,116.31,39.95,49.4,,,,,,3,,,27,1.0,2.0,3.0,,,,,"
    good, short = f"{nmea.crc32(body.encode()):08x}", f"{nmea.xor8(body.encode()):02x}"
    assert good != good.upper()
    for check, fits in (
        (good, True),
        (good.upper(), True),
        (short, True),
        (f"{nmea.crc32(body.encode()) ^ 1:08x}", False),  # though its last byte may be the short check
        (f"000000{short}", False),
        (good[:2], good[:2] == short),
        (good[:7], False),
        (f"{short}{good}", False),
    ):
        assert (nmea.parse(f"${body}*{check}".encode()) is not None) == fits, check


def test_a_frame_inside_a_correction_is_nobodys_solution() -> None:
    """A base station's message may hold any bytes, those of a fixed vector too."""
    inside = ubx_frame(NAV_RELPOSNED, relpos(0b10111))
    assert epochs("ublox-relposned", rtcm_frame(inside)) == []
    assert len(epochs("ublox-relposned", inside)) == 1


def test_minus_zero_is_zero() -> None:
    clock = Clock()
    device = receiver(clock)
    device.feed(line("GPNTR,120000.00,4,0.000,-0000.000,-0.000,-00.000,117"))
    clock.advance(61.0)
    (frame,) = device.due()
    assert named(frame)["east"] == about(5654401.0, Quality.GOOD)
