"""Dialects: makers' sentences, UBX, SBF and RTKLIB's text, beside gpsd, pysbf2, C's own printf, and damage."""

from __future__ import annotations

import json
import math
import os
import re
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import profile
from drivers.gnss import codecs, sentences, ubx
from drivers.gnss.baseline import Baseline, Reference, ecef_m, horizon
from drivers.gnss.epoch import DAY_NS, GPS_EPOCH_NS, ROLLOVER_NS, WEEK_NS, Epoch, Fix, Moment
from drivers.gnss.framer import Framer, Ubx
from drivers.gnss.receiver import POSITION_POINTS, Mount
from drivers.sample import Quality
from tests.drivers.test_gnss import NOON, Clock
from tests.drivers.test_gnss_framer import nmea_frame, sbf_frame, ubx_frame

if TYPE_CHECKING:
    from drivers.gnss.epoch import Told

DATA = Path(os.environ.get("PONDWATCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
RECORDINGS = sorted([*DATA.glob("gpsd_logs/*.log"), *DATA.glob("pyubx2_logs/tests/*.log")])
GNSS = [p.stem for p in sorted(profile.BUILT_IN.glob("*.toml")) if profile.load(p.stem).codec]
S = 10**9


def told(id_: str, data: bytes, base: str = "") -> list[Told]:
    decoder = codecs.decoder(profile.load(id_), base)
    return [*decoder.feed(data, 0), *decoder.flush()]


def epochs(id_: str, data: bytes, base: str = "") -> list[Epoch]:
    return [each for each in told(id_, data, base) if isinstance(each, Epoch)]


# --- gpsd as oracle -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ublox-neo-m8p.log", "ublox-zed-f9p-hp.log"])
def test_positions_and_fixes_of_ubx_are_those_of_gpsd(name: str) -> None:
    """gpsd prefers the high-precision position where there is one; it leaves out the first epoch."""
    log = DATA / "gpsd_logs" / name
    if not log.is_file():
        pytest.skip(f"{name} is not in {DATA}")
    reports = {}
    for text in Path(f"{log}.chk").read_text().splitlines():
        report = json.loads(text) if text.startswith("{") else {}
        if report.get("class") == "TPV" and "time" in report:
            reports[report["time"]] = report
    messages = [each for each in Framer().feed(log.read_bytes(), 0) if isinstance(each, Ubx)]
    precise = {
        p.of_week_ms: p
        for m in messages
        if m.kind == ubx.NAV_HPPOSLLH and (p := ubx.high_position(m.payload))
    }
    compared = 0
    for message in messages:
        status = ubx.pvt(message.payload) if message.kind == ubx.NAV_PVT else None
        if status is None or status.utc is None:
            continue
        ms = round(status.utc.ns / 10**6)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03}Z"
        if stamp not in reports:
            continue
        report, where = reports[stamp], precise.get(status.of_week_ms, status)
        assert where.latitude_deg == pytest.approx(report["lat"], abs=6e-10)
        assert where.longitude_deg == pytest.approx(report["lon"], abs=6e-10)
        assert where.height_m == pytest.approx(report["altHAE"], abs=6e-4)
        assert where.height_msl_m == pytest.approx(report["altMSL"], abs=6e-4)
        assert status.fix_type == report["mode"] == 3
        assert status.fix is Fix.NONE  # gpsd names no status: neither differential nor RTK
        assert "status" not in report
        compared += 1
    assert compared == len(reports) > 25


def test_the_tcp_log_has_the_positions_and_mode_of_gpsd() -> None:
    log = DATA / "gpsd_logs" / "tcp-torture.log"
    if not log.is_file():
        pytest.skip(f"tcp-torture.log is not in {DATA}")
    reports = [json.loads(t) for t in Path(f"{log}.chk").read_text().splitlines() if '"TPV"' in t]
    assert epochs("nmea-gga-gst", log.read_bytes()) == [], "four bars in a sentence leave its checksum right"
    (epoch,) = epochs("nmea-gga-gst", log.read_bytes().replace(b"|", b""))  # where gpsd cuts the stream
    assert epoch.where == pytest.approx([reports[0][key] for key in ("lat", "lon", "altHAE")], abs=6e-4)
    assert (epoch.code, epoch.fix) == (1.0, Fix.NONE)
    assert reports[0]["mode"] == 3


@pytest.mark.parametrize("name", [p.name for p in RECORDINGS] or ["none"])
@pytest.mark.parametrize("id_", GNSS)
def test_no_recording_however_damaged_yields_a_displacement_without_a_fix(id_: str, name: str) -> None:
    """None of them but nmea-rtk has a fix; every good value must be of a position gpsd calls fixed."""
    paths = [path for path in RECORDINGS if path.name == name]
    if not paths:
        pytest.skip(f"no recordings in {DATA}")
    its = profile.load(id_)
    origin = (
        Baseline(41.575, -93.7506, 249.0) if codecs.origin_of(its) is Baseline else Reference(0.0, 0.0, 0.0)
    )
    clock = Clock()
    device = codecs.receiver("g", its, Mount(origin), 1.0, clock)
    stream = paths[0].read_bytes()
    frames = [frame for at in range(0, len(stream), 97) for frame in device.feed(stream[at : at + 97])]
    clock.advance(3600.0)
    frames += device.due()
    for frame in frames:
        fixed = frame.values[frame.block.points.index("fix")] == 4.0
        for point, value, quality in zip(frame.block.points, frame.values, frame.qualities, strict=True):
            if point in ("east", "north", "up", "latitude"):
                assert fixed is (quality == Quality.GOOD)
                assert math.isnan(value) is not fixed
                assert not fixed or (id_, name) in {
                    ("nmea-gga-gst", "nmea-rtk.log"),
                    ("nmea-gga-gst", "nmea-fuzzy-cases.log"),
                }


@pytest.mark.parametrize("id_", GNSS)
def test_no_decoder_raises_or_makes_a_number_of_noise(id_: str) -> None:
    golden = [proof.rx for proof in profile.load(id_).proofs]

    @settings(max_examples=30)
    @given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([*golden, b"\r\n"])), max_size=8),
           st.integers(0, 300), st.integers(1, 255))  # fmt: skip
    def check(pieces: list[bytes], at: int, flip: int) -> None:
        stream = bytearray(b"\r\n".join(pieces))
        if stream:
            stream[at % len(stream)] ^= flip
        for epoch in epochs(id_, bytes(stream)):
            assert all(math.isfinite(n) or epoch.fix is Fix.NONE for n in epoch.where)

    check()


def test_which_receivers_name_their_base_station_and_what_their_displacement_counts_from() -> None:
    known = {id_: profile.load(id_) for id_ in GNSS}
    assert {id_ for id_, its in known.items() if codecs.names_base(its)} == {
        "comnav-gpntr", "nmea-gga-gst", "septentrio-basevectorgeod", "ublox-relposned",
    }  # fmt: skip
    assert {id_ for id_, its in known.items() if codecs.origin_of(its) is Baseline} == {
        "nmea-gga-gst", "rtklib-llh", "rtklib-xyz", "trimble-ggk", "ublox-hpposllh",
    }  # fmt: skip


def test_the_page_of_the_profiles_has_every_name_a_field_can_have_and_every_codec() -> None:
    page = (profile.BUILT_IN / "README.md").read_text()
    for name in (*sentences.VOCABULARY, *codecs.CODECS, *POSITION_POINTS):
        assert re.search(rf"\b{re.escape(name)}\b", page), name


# --- makers' sentences --------------------------------------------------------------------------------------


def test_a_sentence_with_fewer_fields_than_its_profile_names_says_nothing_and_one_with_more_does() -> None:
    assert epochs("comnav-gpntr", nmea_frame("GPNTR,212805.00,4,13417.470,1.0,2.0,3.0")) == []
    (epoch,) = epochs("comnav-gpntr", nmea_frame("GPNTR,212805.00,4,13417.470,1.0,2.0,3.0,117,new"))
    assert (epoch.where, epoch.base) == ((2.0, 1.0, 3.0), "117")


@pytest.mark.parametrize(
    ("q", "fix"), [(0, 2), (1, 2), (2, 2), (3, 2), (4, 0), (5, 1), (6, 2), (7, 2), ("", 2)]
)
def test_the_profile_says_which_quality_is_a_fix(q: object, fix: int) -> None:
    (epoch,) = epochs("comnav-gpntr", nmea_frame(f"GPNTR,212805.00,{q},1.0, +1.0,2.0,3.0,117"))
    assert epoch.fix == fix


@pytest.mark.parametrize("field", ["1e3", "nan", "0x10", "1_0", "--1", "1.2.3", "inf", "1 2"])
def test_what_is_no_plain_number_costs_the_sentence(field: str) -> None:
    assert epochs("comnav-gpntr", nmea_frame(f"GPNTR,212805.00,4,1.0,{field},2.0,3.0,117")) == []


def test_a_solution_without_one_component_is_none() -> None:
    (epoch,) = epochs("comnav-gpntr", nmea_frame("GPNTR,212805.00,4,1.0,1.0,,3.0,117"))
    assert epoch.fix is Fix.NONE


def test_dates_are_read_in_the_order_their_profile_says() -> None:
    trimble = "PTNL,VGK,160159.00,010997,-0000.161,00009.985,-0000.002,3,07,1.4,M"
    (epoch,) = epochs("trimble-vgk", nmea_frame(trimble))
    assert epoch.when is not None
    ninth_of_january = (epoch.when.ns // DAY_NS, time.gmtime(epoch.when.ns // S).tm_yday)
    assert ninth_of_january[1] == 9
    assert epochs("trimble-vgk", nmea_frame(trimble.replace("010997", "210712"))) == [], "no 21st month"
    (epoch,) = epochs("leica-llq", nmea_frame("GPLLQ,034137.00,210712,23.45,M,13.07,M,3,15,0.011,3.14,M"))
    assert epoch.when == Moment((3 * 3600 + 41 * 60 + 37) * S, DAY_NS), "its order is told both ways: unused"


def test_what_llk_says_of_geometry_is_not_taken_for_accuracy() -> None:
    """LLK has the dilution of precision where LLQ has metres. With a wrong check it says nothing."""
    (epoch,) = epochs("leica-llq", nmea_frame("GPLLK,034137.00,210712,23.45,M,13.07,M,3,15,1.7,3.14,M"))
    assert epoch.where == (23.45, 13.07, 3.14)
    assert epoch.fix is Fix.FIXED
    assert all(math.isnan(each) for each in epoch.sd_m)
    wrong = nmea_frame("GPLLK,034137.00,210712,23.45,M,13.07,M,3,15,1.7,3.14,M").replace(b"23.45", b"23.46")
    assert epochs("leica-llq", wrong) == []


def test_ksxt_is_dated_and_either_check_will_do() -> None:
    for proof in profile.load("unicore-ksxt").proofs:
        (epoch,) = epochs("unicore-ksxt", proof.rx + b"\r\n")
        assert epoch.when is not None
        assert time.gmtime(epoch.when.ns // S).tm_year in (2020, 2021)
    damaged = profile.load("unicore-ksxt").proofs[0].rx.replace(b"-3.617", b"-3.618")
    assert epochs("unicore-ksxt", damaged + b"\r\n") == []


def test_a_sentence_of_another_kind_is_passed_over_and_a_date_is_taken() -> None:
    data = nmea_frame("PTNL,AVR,160159.00,1.0,2.0") + nmea_frame("GNZDA,120000.00,18,03,2020,00,00")
    assert told("trimble-vgk", data) == [Moment(NOON, ROLLOVER_NS)]


# --- UBX ----------------------------------------------------------------------------------------------------


def relpos(flags: int, version: int = 1) -> bytes:
    head = struct.pack("<BBHI3i", version, 0, 117, 0, 100, 200, 300)
    if version:
        return (
            head
            + bytes(12)
            + struct.pack("<4b4I", 1, 2, 3, 0, 52, 47, 113, 0)
            + bytes(8)
            + struct.pack("<I", flags)
        )
    return head + struct.pack("<3bx3II", 1, 2, 3, 52, 47, 113, flags)


@pytest.mark.parametrize("version", [0, 1])
def test_only_a_vector_with_every_flag_right_is_fixed_or_float(version: int) -> None:
    for flags in range(1 << 10):
        vector = ubx.relpos(relpos(flags, version))
        assert vector is not None
        assert vector.vector_m == pytest.approx((2.0002, 1.0001, -3.0003))
        well = flags & 0b10_1110_0111 == 0b111  # bit 9: a mere direction
        assert vector.fix == (
            {1: Fix.FLOAT, 2: Fix.FIXED}.get(flags >> 3 & 3, Fix.NONE) if well else Fix.NONE
        )


@pytest.mark.parametrize("size", [0, 1, 39, 40, 41, 63, 65, 100])
def test_a_version_with_another_length_is_not_guessed_at(size: int) -> None:
    assert ubx.relpos((b"\x01" + bytes(size))[:size]) is None
    assert epochs("ublox-relposned", ubx_frame(ubx.NAV_RELPOSNED, b"\x02" + bytes(63))) == []


def pvt(of_week_ms: int, flags: int, valid: int = 3) -> bytes:
    head = struct.pack("<IHBBBBBBIiBBBB", of_week_ms, 2020, 3, 18, 11, 59, 42, valid, 0, 0, 3, flags, 0, 21)
    return head + bytes(92 - len(head))


def hpposllh(of_week_ms: int, invalid: int = 0) -> bytes:
    return struct.pack(
        "<BHBI4i4b2I",
        0,
        0,
        invalid,
        of_week_ms,
        -20566736,
        533378169,
        281785,
        233522,
        -96,
        27,
        8,
        7,
        3350,
        4824,
    )


def test_a_high_precision_position_takes_its_status_from_the_same_instant() -> None:
    both = [ubx_frame(ubx.NAV_PVT, pvt(5000, 0b10_0000_11)), ubx_frame(ubx.NAV_HPPOSLLH, hpposllh(5000))]
    for order in (both, both[::-1]):
        (epoch,) = epochs("ublox-hpposllh", b"".join(order))
        assert (epoch.fix, epoch.satellites, epoch.code) == (Fix.FIXED, 21.0, 2.0)
        assert epoch.where == pytest.approx((53.337816927, -2.056673696, 281.7858), abs=1e-9)
        assert epoch.sd_m == (0.335, 0.335, 0.4824)
    stranger = [ubx_frame(ubx.NAV_PVT, pvt(4000, 0b10_0000_11)), both[1]]
    assert [epoch.fix for epoch in epochs("ublox-hpposllh", b"".join(stranger))] == [Fix.NONE]
    invalid = [both[0], ubx_frame(ubx.NAV_HPPOSLLH, hpposllh(5000, 1))]
    assert [epoch.fix for epoch in epochs("ublox-hpposllh", b"".join(invalid))] == [Fix.NONE]


@pytest.mark.parametrize(("flags", "fix"), [(0b01_0000_11, 1), (0b10_0000_11, 0), (0b10_0000_01, 2), (0b10_0000_10, 2),
                                            (0b11_0000_11, 2), (0b00_0000_11, 2)])  # fmt: skip
def test_the_status_of_nav_pvt_is_what_all_its_flags_say(flags: int, fix: int) -> None:
    status = ubx.pvt(pvt(0, flags))
    assert status is not None
    assert status.fix == fix


@pytest.mark.parametrize(("valid", "dated"), [(0, False), (1, False), (2, False), (3, True), (7, True)])
def test_a_date_that_is_not_valid_yet_is_none(valid: int, dated: bool) -> None:
    assert bool(told("ublox-relposned", ubx_frame(ubx.NAV_PVT, pvt(0, 0, valid)))) is dated


# --- SBF ----------------------------------------------------------------------------------------------------


def vector(mode: int, base: int, up: float = -42.319, error: int = 0, more: bytes = b"") -> bytes:
    return (
        struct.pack(
            "<4B3d3fHhHHI", 18, error, mode, 0, -5654.4012, 12167.7631, up, 0, 0, 0, 9000, -100, base, 120, 0
        )
        + more
    )


def block(*vectors: bytes, tow: int = 172_800_000, week: int = 2367, step: int = 52) -> bytes:
    return sbf_frame(4028, struct.pack("<IHBB", tow, week, len(vectors), step) + b"".join(vectors))


def test_sub_blocks_are_as_long_as_they_say() -> None:
    """Compared with pysbf2 1.0.7, which reads the same numbers from this block."""
    data = block(vector(5, 117, more=b"\1\2\3\4"), vector(4, 118, 1.5, more=b"\5\6\7\10"), step=56)
    (first,) = epochs("septentrio-basevectorgeod", data)
    assert (first.fix, first.base, first.where) == (Fix.FLOAT, "117", (-5654.4012, 12167.7631, -42.319))
    (second,) = epochs("septentrio-basevectorgeod", data, "118")
    assert (second.fix, second.base, second.where[2], second.age_s) == (Fix.FIXED, "118", 1.5, 1.2)
    assert first.when == Moment(GPS_EPOCH_NS + 2367 * WEEK_NS + 172_800 * S, ROLLOVER_NS, True)


@pytest.mark.parametrize(
    ("mode", "fix"),
    [(0, 2), (1, 2), (2, 2), (3, 2), (4, 0), (5, 1), (6, 2), (7, 2), (8, 2), (10, 2), (0x44, 0)],
)
def test_of_the_modes_of_sbf_one_is_fixed_and_one_float(mode: int, fix: int) -> None:
    (epoch,) = epochs("septentrio-basevectorgeod", block(vector(mode, 117)))
    assert epoch.fix == fix


@pytest.mark.parametrize(
    "data", [block(vector(4, 117, error=1)), block(vector(4, 117, -2e10)), block(vector(4, 117, math.nan))]
)
def test_an_error_or_a_do_not_use_value_is_no_fix(data: bytes) -> None:
    (epoch,) = epochs("septentrio-basevectorgeod", data)
    assert epoch.fix is Fix.NONE


def test_do_not_use_values_of_time_and_base_are_not_said() -> None:
    (epoch,) = epochs("septentrio-basevectorgeod", block(vector(4, 0xFFFF), tow=0xFFFFFFFF))
    assert (epoch.when, epoch.base) == (None, "")
    (epoch,) = epochs("septentrio-basevectorgeod", block(vector(4, 1), week=0xFFFF))
    assert epoch.when == Moment(GPS_EPOCH_NS + 172_800 * S, WEEK_NS, True)


def test_a_block_that_counts_more_than_it_holds_says_nothing() -> None:
    assert (
        epochs("septentrio-basevectorgeod", sbf_frame(4028, struct.pack("<IHBB", 0, 0, 3, 52) + vector(4, 1)))
        == []
    )
    assert epochs("septentrio-basevectorgeod", block(vector(4, 117), step=40)) == []
    assert epochs("septentrio-basevectorgeod", sbf_frame(4028, b"")) == []
    assert epochs("septentrio-basevectorgeod", sbf_frame(4007, bytes(80))) == []


# --- RTKLIB -------------------------------------------------------------------------------------------------

ENU = "2024/05/18 00:00:30.000     -5654.4012     12167.7631       -42.3190   1  14   0.0052   0.0047   0.0113   0.0011  -0.0023   0.0019   1.00    8.7"
UTC_OF_ENU = 1_715_990_430 * S  # if it were UTC


def rtk(text: str, kind: str = "enu") -> list[Epoch]:
    return epochs(f"rtklib-{kind}", text.encode())


def test_time_is_gps_time_unless_the_header_says_otherwise() -> None:
    assert rtk(ENU + "\n")[0].when == Moment(UTC_OF_ENU, ROLLOVER_NS, True)
    header = "% (e/n/u-baseline=WGS84,Q=1:fix)\r\n%  {}                 e-baseline(m)\r\n"
    assert rtk(header.format("GPST") + ENU + "\r\n")[0].when == Moment(UTC_OF_ENU, ROLLOVER_NS, True)
    assert rtk(header.format("UTC ") + ENU + "\r\n")[0].when == Moment(UTC_OF_ENU, ROLLOVER_NS, False)
    assert rtk(header.format("JST ") + ENU + "\r\n")[0].when == Moment(
        UTC_OF_ENU - 9 * 3600 * S, ROLLOVER_NS, False
    )
    week = ENU.replace("2024/05/18 00:00:30.000", "2314 518430.000")
    assert rtk(week + "\n")[0].when == Moment(UTC_OF_ENU, ROLLOVER_NS, True)


def test_a_header_of_another_kind_of_solution_stops_the_decoding_until_its_own_comes() -> None:
    other, own = "% (lat/lon/height=WGS84/ellipsoidal,Q=1:fix)\n", "% (e/n/u-baseline=WGS84,Q=1:fix)\n"
    assert rtk(other + ENU + "\n") == []
    assert len(rtk(other + ENU + "\n" + own + ENU + "\n")) == 1


def test_neither_comments_nor_a_server_that_leaves_are_solutions() -> None:
    assert rtk("% obs start : 2024/05/18 00:00:00.0 GPST\n\n$_DISCONNECT\r\n") == []


@pytest.mark.parametrize("at", range(len(ENU)))
def test_a_line_that_lost_one_character_is_no_line(at: int) -> None:
    """But for a blank where one more may stand, and what changes no number."""
    found = rtk(ENU[:at] + ENU[at + 1 :] + "\n")
    assert [each[1:] for each in found] in ([], [rtk(ENU + "\n")[0][1:]])


@pytest.mark.parametrize("separator", [" ", ",", ";", "\t"])
def test_lines_are_taken_as_c_prints_them(separator: str) -> None:
    """RTKLIB's own format, printed by the printf of the C library."""
    template = separator.join(["%14.4f"] * 3 + ["%3d"] * 2 + ["%8.4f"] * 6 + ["%6.2f", "%6.1f"])
    numbers = [
        "-12345.6789",
        "0.0004",
        "123456.7",
        "2",
        "7",
        "0.1",
        "12.3456",
        "0.3",
        "-0.1",
        "0.2",
        "-0.3",
        "123.4",
        "999.9",
    ]
    line = subprocess.run(["printf", template, *numbers], capture_output=True, check=True, text=True).stdout
    for tail in ("", separator + separator.join(["   0.00012"] * 3 + ["  0.00012"] + [" 0.00012"] * 5)):
        (epoch,) = rtk(f"2024/05/18 00:00:30.000{separator}{line}{tail}\r\n")
        assert epoch.where == (-12345.6789, 0.0004, 123456.7)
        assert epoch.sd_m == (0.1, 12.3456, 0.3)
        assert (epoch.fix, epoch.satellites, epoch.age_s) == (Fix.FLOAT, 7.0, 123.4)


@pytest.mark.parametrize(("q", "fix"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 2), (7, 2), (0, 2)])
def test_of_the_solutions_of_rtklib_one_is_fixed_and_one_float(q: int, fix: int) -> None:
    assert rtk(ENU.replace("   1  14", f"   {q}  14") + "\n")[0].fix == fix


def test_north_stands_before_east_in_the_deviations_of_latitude_and_longitude() -> None:
    (epoch,) = rtk(profile.load("rtklib-llh").proofs[0].rx.decode() + "\n", "llh")
    assert epoch.sd_m == (18.5049, 6.2565, 24.1780)


def test_earth_centred_solutions_are_where_they_say_and_as_sure() -> None:
    (epoch,) = rtk(profile.load("rtklib-xyz").proofs[0].rx.decode() + "\n", "xyz")
    assert ecef_m(*epoch.where) == pytest.approx((3655333.8112, 1403901.0398, 5018037.9883), abs=1e-6)
    assert sum(sd * sd for sd in epoch.sd_m) == pytest.approx(0.0117**2 + 0.0063**2 + 0.0128**2, rel=1e-9)
    up = horizon(*epoch.where[:2])[2]
    xx, yy, zz, xy, yz, zx = 0.0117**2, 0.0063**2, 0.0128**2, 0.0056**2, 0.0048**2, 0.0097**2
    variance = up[0] ** 2 * xx + up[1] ** 2 * yy + up[2] ** 2 * zz
    variance += 2 * (up[0] * up[1] * xy + up[1] * up[2] * yz + up[2] * up[0] * zx)
    assert epoch.sd_m[2] == pytest.approx(math.sqrt(variance), rel=1e-9)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_the_pieces_of_a_text_do_not_matter(sizes: list[int]) -> None:
    stream = ("% (e/n/u-baseline=WGS84)\r\n" + (ENU + "\r\n") * 3 + "x" * 500 + "\n" + ENU + "\n").encode()
    decoder, found, at = codecs.decoder(profile.load("rtklib-enu")), list[object](), 0
    for i in range(len(stream)):
        found += decoder.feed(stream[at : at + sizes[i % len(sizes)]], 0)
        at += sizes[i % len(sizes)]
    assert found == told("rtklib-enu", stream)
    assert len(found) == 4


def test_the_rest_of_a_line_after_a_pause_is_not_joined_to_another() -> None:
    decoder = codecs.decoder(profile.load("rtklib-enu"))
    assert list(decoder.feed(ENU[:60].encode(), 0)) == []
    assert list(decoder.feed(ENU[60:].encode() + b"\n", 10 * S)) == []
