"""GNSS over NMEA: sentences, gpsd's own decode as oracle, days, the baseline against exact arithmetic."""

from __future__ import annotations

import calendar
import json
import math
import os
import time
from decimal import Decimal, getcontext
from functools import reduce
from operator import xor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import profile
from drivers.gnss import codecs, nmea
from drivers.gnss.baseline import Baseline, Reference, ecef_m, geodetic, mistakes
from drivers.gnss.framer import Framer
from drivers.gnss.nmea import Sentence
from drivers.gnss.receiver import POSITION_POINTS, GnssReceiver, Mount
from drivers.sample import Frame, Quality

if TYPE_CHECKING:
    from tests.conftest import Figure

DATA = Path(os.environ.get("PONDWATCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
LOGS = DATA / "gpsd_logs"
needs_logs = pytest.mark.skipif(not LOGS.is_dir(), reason=f"gpsd's logs are not in {DATA}")

NOON = calendar.timegm((2020, 3, 18, 12, 0, 0)) * 10**9
DAY_NS = 86_400 * 10**9
ORIGIN = Baseline(41.5750, -93.7506, 249.0)


class Clock:
    def __init__(self, wall_ns: int = NOON) -> None:
        self.wall = wall_ns
        self.mono = 5 * 10**9

    def wall_ns(self) -> int:
        return self.wall

    def monotonic_ns(self) -> int:
        return self.mono

    def advance(self, s: float) -> None:
        self.wall += round(s * 1e9)
        self.mono += round(s * 1e9)


def line(body: str) -> bytes:
    return f"${body}*{reduce(xor, body.encode()):02X}\r\n".encode()


def gga(utc: str, quality: int = 4, lat: str = "4134.50180323", height: str = "280.827") -> bytes:
    return line(f"GNGGA,{utc},{lat},N,09345.03586581,W,{quality},19,0.7,{height},M,-31.442,M,6.0,0002")


def gst(utc: str) -> bytes:
    return line(f"GNGST,{utc},1.1,,,,0.007,0.005,0.011")


def receiver(clock: Clock, every_s: float = 1.0) -> GnssReceiver:
    return codecs.receiver("g1", profile.load("nmea-gga-gst"), Mount(ORIGIN), every_s, clock)


def named(frame: Frame) -> dict[str, tuple[float, Quality]]:
    return {s.point: (s.value, s.quality) for s in frame}


def sentences(data: bytes) -> list[Sentence]:
    return [each for each in Framer().feed(data, 0) if isinstance(each, Sentence)]


def said(device: GnssReceiver, clock: Clock, data: bytes) -> list[Frame]:
    """The frames of `data`, and of the periods that are over an hour later."""
    frames = device.feed(data)
    clock.advance(3600.0)
    return frames + device.due()


# --- framing ----------------------------------------------------------------------------------------------


def test_a_checked_sentence_is_taken_apart() -> None:
    assert nmea.parse(b"$GPNTR,212805.00,4,13417.470*70") is None
    sentence = nmea.parse(line("GPNTR,212805.00,4,13417.470").strip())
    assert sentence == ("GPNTR", ["212805.00", "4", "13417.470"])


@pytest.mark.parametrize(
    "damaged",
    [
        b"GNGST,1*00",  # no beginning
        b"$GNGST,1",  # no checksum
        b"$GNGST,1*",  # cut off
        b"$GNGST,1*0",
        b"$GNGST,1*5A*5A",  # two ends
        b"$GNG\xc3\x89T,1*5A",  # no ASCII
        b"$*00",  # nothing in it, and its checksum is right
        b"$GNGST,\x001*5A",
    ],
)
def test_what_is_not_a_whole_sentence_is_not_there(damaged: bytes) -> None:
    assert sentences(damaged + b"\r\n") == []


def test_a_sentence_cut_short_by_the_next_does_not_cost_the_next() -> None:
    assert [s.tag for s in sentences(b"$GNGGA,1339" + gst("133900.00"))] == ["GNGST"]


@given(st.binary(max_size=500))
def test_the_folded_checksum_is_the_plain_one(body: bytes) -> None:
    assert nmea.xor8(body) == reduce(xor, body, 0)


PIECES = st.one_of(
    st.binary(max_size=30),
    st.just(b"$"),
    st.just(b"\r\n"),
    st.just(b"x" * 390),
    st.sampled_from([gga("120000.00"), gst("120000.00"), gga("120000.00")[:30], gst("120000.00")[5:]]),
)


def last_dollars(stream: bytes) -> list[bytes]:
    """The plain way: every finished line from its last `$` on."""
    lines = stream.replace(b"\r", b"\n").split(b"\n")[:-1]
    return [b"$" + text.split(b"$")[-1] for text in lines if b"$" in text]


@given(st.lists(PIECES, max_size=12))
def test_sentences_are_found_as_line_by_line(pieces: list[bytes]) -> None:
    stream = b"".join(pieces).replace(b"\xb5b", b"").replace(b"\xd3", b"").replace(b"$@", b"")  # text alone
    slow = [each for each in map(nmea.parse, last_dollars(stream)) if each is not None]
    assert sentences(stream) == slow


@given(st.lists(PIECES, max_size=12))
def test_a_receiver_never_raises_for_what_is_on_the_wire(pieces: list[bytes]) -> None:
    device = receiver(Clock())
    for piece in pieces:
        for frame in device.feed(piece):
            assert len(frame.values) == len(POSITION_POINTS)


@given(
    st.sampled_from(["GGA", "GST", "RMC", "ZDA"]),
    st.lists(st.text("0123456789.-+NSEWA nif_e", max_size=11), max_size=16),
)
def test_fields_of_any_content_behind_a_right_checksum_never_raise(kind: str, fields: list[str]) -> None:
    clock = Clock()
    device = receiver(clock)
    device.feed(line(",".join(["GN" + kind, *fields])))
    for frame in said(device, clock, gga("120001.00") + gst("120001.00")):
        assert all(
            math.isfinite(v) is not Quality(q).is_bad
            for v, q in zip(frame.values, frame.qualities, strict=True)
        )


# --- gpsd as oracle ---------------------------------------------------------------------------------------


@needs_logs
@pytest.mark.parametrize("name", ["nmea-rtk.log", "nmea-fuzzy-cases.log"])
def test_positions_dates_and_fixes_are_those_of_gpsd(name: str) -> None:
    """gpsd writes its report of an epoch after the RMC; GGA and RMC of one time are one epoch."""
    reports = {}
    for text in (LOGS / f"{name}.chk").read_text().splitlines():
        report = json.loads(text) if text.startswith("{") else {}
        if report.get("class") == "TPV" and "time" in report and "lat" in report:
            reports[report["time"]] = report
    compared = 0
    positions = {}
    for sentence in sentences((LOGS / name).read_bytes()):
        if sentence.tag.endswith("GGA"):
            position = nmea.gga(sentence.fields)
            assert position is not None
            positions[position.utc_ns] = position
        else:
            instant = nmea.rmc(sentence.fields)
            assert instant is not None
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(instant.ns // 10**9))
            report = reports[f"{stamp}.{instant.ns // 10**6 % 1000:03}Z"]
            position = positions[instant.ns % DAY_NS]
            assert position.latitude_deg == pytest.approx(report["lat"], abs=6e-10)
            assert position.longitude_deg == pytest.approx(report["lon"], abs=6e-10)
            assert position.height_m == pytest.approx(report["altHAE"], abs=6e-4)
            assert (
                position.quality == {2: 2, 3: 4, 4: 5}[report["status"]]
            )  # gpsd: 2 DGPS, 3 RTK fix, 4 float
            compared += 1
    assert compared == len(reports) > 10


@needs_logs
def test_a_real_receiver_yields_displacements_only_while_it_has_a_fix() -> None:
    device = receiver(Clock(), every_s=0.1)
    frames = device.feed((LOGS / "nmea-rtk.log").read_bytes())
    assert len(frames) == 121  # the last epoch waits for its GST, which this receiver does not send
    (last,) = device.due()
    assert last.tick_ns == frames[-1].tick_ns + 100_000_000
    assert frames[0].tick_ns == calendar.timegm((2020, 3, 18, 13, 28, 19)) * 10**9 + 600_000_000
    seen = set()
    for frame in frames:
        sample = named(frame)
        fixed = sample["fix"][0] == 4.0
        seen.add(fixed)
        assert sample["east"][1] == sample["height"][1] == (Quality.GOOD if fixed else Quality.NO_FIX)
        assert math.isnan(sample["up"][0]) is not fixed
        assert sample["sd_up"][1] == (Quality.MISSING_INPUT if fixed else Quality.NO_FIX)
    assert seen == {True, False}


@needs_logs
@pytest.mark.parametrize("name", sorted(p.name for p in LOGS.glob("*.log")) if LOGS.is_dir() else ["none"])
def test_no_recorded_stream_makes_a_receiver_raise(name: str) -> None:
    device = receiver(Clock())
    for frame in device.feed((LOGS / name).read_bytes()):
        assert frame.block is device.blocks[0]


# --- pairing, days, quality -------------------------------------------------------------------------------


def test_position_and_sigma_of_one_second_are_one_frame() -> None:
    clock = Clock()
    device = receiver(clock)
    assert device.feed(gga("120000.00")) == []
    (frame,) = said(device, clock, gst("120000.00"))
    sample = named(frame)
    assert frame.tick_ns == NOON
    assert (frame.time_ns, frame.mono_ns) == (clock.wall, clock.mono)
    assert sample["sd_east"] == (5.0, Quality.GOOD)
    assert sample["sd_north"] == (7.0, Quality.GOOD)
    assert sample["sd_up"] == (11.0, Quality.GOOD)
    assert sample["up"][0] == pytest.approx(385.0, abs=0.1)  # 249.385 m above an origin at 249 m
    assert sample["satellites"] == (19.0, Quality.GOOD)


def test_sigma_may_come_before_its_position() -> None:
    clock = Clock()
    device = receiver(clock)
    assert device.feed(gst("120000.00")) == []
    (frame,) = said(device, clock, gga("120000.00"))
    assert named(frame)["sd_up"] == (11.0, Quality.GOOD)


def test_a_position_without_sigma_goes_out_with_the_next_and_a_strange_sigma_is_not_taken() -> None:
    clock = Clock()
    device = receiver(clock)
    assert device.feed(gga("120000.00") + gst("115959.00")) == []
    frame, _ = said(device, clock, gga("120001.00"))
    assert frame.tick_ns == NOON
    assert named(frame)["sd_east"][1] == Quality.MISSING_INPUT
    assert named(frame)["east"][1] == Quality.GOOD


@pytest.mark.parametrize(
    ("quality", "expected"),
    [(0, Quality.NO_FIX), (1, Quality.NO_FIX), (2, Quality.NO_FIX), (3, Quality.NO_FIX), (4, Quality.GOOD),
     (5, Quality.GNSS_FLOAT), (6, Quality.NO_FIX), (7, Quality.NO_FIX), (8, Quality.NO_FIX)],
)  # fmt: skip
def test_only_a_fix_is_good_and_only_a_float_uncertain(quality: int, expected: Quality) -> None:
    clock = Clock()
    (frame,) = said(receiver(clock), clock, gga("120000.00", quality) + gst("120000.00"))
    sample = named(frame)
    for point in ("east", "north", "up", "sd_east", "latitude", "height"):
        assert sample[point][1] == expected
        assert math.isnan(sample[point][0]) is expected.is_bad
    assert sample["fix"] == (float(quality), Quality.GOOD)
    assert math.isfinite(frame.numbers[0]), "what the wire said stays to be seen"


def test_a_position_without_its_height_has_no_displacement() -> None:
    clock = Clock()
    (frame,) = said(receiver(clock), clock, gga("120000.00", 4, height="") + gst("120000.00"))
    assert named(frame)["up"][1] == Quality.NOT_A_NUMBER
    assert named(frame)["latitude"][1] == Quality.GOOD


def test_a_receiver_that_searches_still_says_so() -> None:
    clock = Clock()
    device = receiver(clock)
    device.feed(line("GPGGA,,,,,,0,00,99.99,,,,,,"))
    frame, *_ = said(device, clock, line("GPGGA,,,,,,0,00,99.99,,,,,,"))
    assert named(frame)["fix"] == (0.0, Quality.GOOD)
    assert named(frame)["east"][1] == Quality.NO_FIX


def test_a_fast_receiver_is_thinned_to_one_frame_a_period() -> None:
    clock = Clock()
    device = receiver(clock, every_s=10.0)
    ticks = []
    for second in range(35):
        utc = f"1200{second:02}.00"
        ticks += [f.tick_ns for f in device.feed(gga(utc) + gst(utc))]
        clock.advance(1.0)
    assert ticks == [NOON, NOON + 10**10, NOON + 2 * 10**10]


@pytest.mark.parametrize("dated", [True, False])
@pytest.mark.parametrize("wall_off_s", [-40.0, 0.0, 40.0])
def test_midnight_belongs_to_the_new_day_whatever_side_our_clock_is_on(
    dated: bool, wall_off_s: float
) -> None:
    midnight = NOON + DAY_NS // 2
    clock = Clock(midnight - 2 * 10**9 + round(wall_off_s * 1e9))
    device = receiver(clock)
    ticks = []
    for utc in ("235958.00", "235959.00", "000000.00", "000001.00"):
        ticks += [f.tick_ns for f in device.feed(gga(utc) + gst(utc))]
        if dated and utc == "235959.00":
            device.feed(line("GNRMC,235959.00,A,4134.5,N,09345.0,W,0.0,0.0,180320,,,R"))
        clock.advance(1.0)
    assert ticks == [midnight + s * 10**9 for s in (-2, -1, 0, 1)]


def test_the_receivers_date_outweighs_a_clock_that_is_days_off() -> None:
    clock = Clock(NOON - 400 * DAY_NS)
    device = receiver(clock)
    device.feed(line("GNZDA,120000.00,18,03,2020,00,00"))
    clock.advance(1.0)
    clock.wall += 77 * DAY_NS  # and steps
    (frame,) = said(device, clock, gga("120001.00") + gst("120001.00"))
    assert frame.tick_ns == NOON + 10**9


def test_a_date_that_the_receiver_calls_void_is_none() -> None:
    device = receiver(Clock())
    device.feed(line("GNRMC,120000.00,V,,,,,0.0,0.0,060180,,,N"))
    assert device.told is None
    device.feed(line("GNRMC,120000.00,A,4134.5,N,09345.0,W,0.0,0.0,180320,,,R"))
    assert device.told == (NOON - 5 * 10**9, 5 * 10**9)


@pytest.mark.fault(
    row=19,
    fault="GNSS week number begins anew",
    injected="NMEA with a date of 1,024 weeks before",
    holds="put right",
)
def test_a_receiver_whose_week_number_began_anew_is_put_right(figure: Figure) -> None:
    clock = Clock()
    device = receiver(clock)
    device.feed(line("GNRMC,120000.00,A,4134.5,N,09345.0,W,0.0,0.0,020800,,,R"))  # 1,024 weeks before
    (frame,) = said(device, clock, gga("120000.00") + gst("120000.00"))
    assert frame.tick_ns == NOON
    figure("dated to the second")


# --- baseline ---------------------------------------------------------------------------------------------


def test_geodetic_to_earth_centred_as_pymap3d_has_it() -> None:
    expected = (660675.251824733, -4700948.683162267, 4245737.662222386)
    assert ecef_m(42.0, -82.0, 200.0) == pytest.approx(expected, abs=2e-9)


def test_a_displacement_as_pymap3d_has_it() -> None:
    origin = Baseline(-20.119722, -44.119722, 850.0)
    east, north, up = origin.displacement()(-20.119632, -44.119626, 851.234)
    assert east == pytest.approx(10039.848211, abs=1e-5)
    assert north == pytest.approx(9964.854920, abs=1e-5)
    assert up == pytest.approx(1233.984277, abs=1e-5)


def radii_mm(latitude_deg: float, height_m: float) -> tuple[float, float]:
    """Millimetres to a degree east and north, from the radii of curvature in forty digits: another formula."""
    getcontext().prec = 40
    a, f = Decimal(6378137), 1 / Decimal("298.257223563")
    e2 = f * (2 - f)
    s2 = Decimal(math.sin(math.radians(latitude_deg))) ** 2
    w2 = 1 - e2 * s2
    prime_vertical, meridian = a / w2.sqrt(), a * (1 - e2) / (w2 * w2.sqrt())
    degree = Decimal(math.pi) / 180 * 1000
    east = degree * (prime_vertical + Decimal(height_m)) * Decimal(math.cos(math.radians(latitude_deg)))
    return float(east), float(degree * (meridian + Decimal(height_m)))


@given(
    st.floats(-85.0, 85.0), st.floats(-179.9, 179.9), st.floats(-100.0, 5000.0),
    st.floats(-100.0, 100.0), st.floats(-100.0, 100.0), st.floats(-100.0, 100.0),
)  # fmt: skip
def test_a_move_of_centimetres_is_seen_to_a_hundredth_of_a_millimetre(
    lat: float, lon: float, h: float, east_mm: float, north_mm: float, up_mm: float
) -> None:
    east_degree_mm, north_degree_mm = radii_mm(lat, h)
    moved = Baseline(lat, lon, h).displacement()(
        lat + north_mm / north_degree_mm, lon + east_mm / east_degree_mm, h + up_mm / 1000.0
    )
    assert moved == pytest.approx((east_mm, north_mm, up_mm), abs=0.01)


def test_the_origin_itself_has_not_moved() -> None:
    assert ORIGIN.displacement()(41.5750, -93.7506, 249.0) == (0.0, 0.0, 0.0)


@given(st.floats(-90.0, 90.0), st.floats(-180.0, 180.0), st.floats(-500.0, 9000.0))
def test_earth_centred_and_back_is_where_one_was(lat: float, lon: float, h: float) -> None:
    there = ecef_m(lat, lon, h)
    assert ecef_m(*geodetic(*there)) == pytest.approx(there, abs=2e-8)
    assert geodetic(*there)[2] == pytest.approx(h, abs=1e-7)


def test_a_reference_counts_what_has_been_moved_since() -> None:
    moved = Reference(-5654.4012, 12167.7631, -42.3190).displacement()(-5654.4000, 12167.7600, -42.3200)
    assert moved == pytest.approx((1.2, -3.1, -1.0), abs=1e-6)


def test_an_origin_that_lies_nowhere_is_named() -> None:
    assert not mistakes(ORIGIN)
    assert [key for key, _ in mistakes(Reference(math.nan, 0.0, 1e5))] == ["east_m", "up_m"]
    assert [key for key, _ in mistakes(Baseline(91.0, 181.0, 84_000.0))] == [
        "latitude_deg", "longitude_deg", "height_m",
    ]  # fmt: skip
