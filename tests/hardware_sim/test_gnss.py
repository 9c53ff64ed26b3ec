from __future__ import annotations

import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import profile as profiles
from drivers.gnss import codecs
from drivers.gnss.epoch import Epoch, Fix, Moment
from hardware_sim.bench import LANGUAGES
from hardware_sim.dam import Dam
from hardware_sim.faults import Fault
from hardware_sim.instruments import gnss_binary
from hardware_sim.instruments.gnss import GnssReceiver, Quality, Solution
from hardware_sim.instruments.gnss_nmea import moved, sentence, sentences
from hardware_sim.site import GNSS_FROM_BASE_M, GNSS_ORIGIN

if TYPE_CHECKING:
    from drivers.gnss.epoch import Told

PROFILES = Path(profiles.__file__).parent / "profiles"
READ_BY = {"ubx": "ublox-relposned", "sbf": "septentrio-basevectorgeod"}

TRUTH = Dam(lambda _t: 0.0, seed=1).at(0.0)
QUIET = replace(TRUTH, gnss_noise_m=(0.0, 0.0, 0.0))


def ecef(lat_deg: float, lon_deg: float, h_m: float) -> tuple[float, float, float]:
    """WGS 84, the long way round: an independent witness for the short-distance formula."""
    a, f = 6378137.0, 1 / 298.257223563
    e2 = f * (2 - f)
    p, q = math.radians(lat_deg), math.radians(lon_deg)
    n = a / math.sqrt(1 - e2 * math.sin(p) ** 2)
    return (
        (n + h_m) * math.cos(p) * math.cos(q),
        (n + h_m) * math.cos(p) * math.sin(q),
        (n * (1 - e2) + h_m) * math.sin(p),
    )


def enu(lat_deg: float, lon_deg: float, h_m: float) -> tuple[float, float, float]:
    o = GNSS_ORIGIN
    x0, y0, z0 = ecef(o.latitude_deg, o.longitude_deg, o.height_m)
    x, y, z = ecef(lat_deg, lon_deg, h_m)
    dx, dy, dz = x - x0, y - y0, z - z0
    p, q = math.radians(o.latitude_deg), math.radians(o.longitude_deg)
    return (
        -math.sin(q) * dx + math.cos(q) * dy,
        -math.sin(p) * math.cos(q) * dx - math.sin(p) * math.sin(q) * dy + math.cos(p) * dz,
        math.cos(p) * math.cos(q) * dx + math.cos(p) * math.sin(q) * dy + math.sin(p) * dz,
    )


def position(gga: str) -> tuple[float, float, float]:
    f = gga.split(",")
    lat = int(f[2][:2]) + float(f[2][2:]) / 60
    lon = int(f[4][:3]) + float(f[4][3:]) / 60
    return lat, lon, float(f[9]) + float(f[11])


def test_a_published_sentence_has_the_checksum_we_compute() -> None:
    # ComNav's GPNTR, from the maker's page.
    line = sentence("GPNTR,212805.00,4,13417.470,+12167.763,-5654.401,-42.319,117")
    assert line.endswith(b"*71\r\n")


@given(st.floats(-2.0, 2.0), st.floats(-2.0, 2.0), st.floats(-2.0, 2.0))
def test_a_millimetre_of_the_dam_survives_the_sentence(east: float, north: float, up: float) -> None:
    lines = GnssReceiver(GNSS_ORIGIN, 1, sentences).epoch(
        0.0, replace(QUIET, displacement_m=(east, north, up))
    )
    gga = lines.decode().splitlines()[0]
    assert enu(*position(gga)) == pytest.approx((east, north, up), abs=1e-4)


def test_gga_and_gst_of_an_instant_carry_the_same_time() -> None:
    lines = (
        GnssReceiver(GNSS_ORIGIN, 1, sentences).epoch(1_795_447_834.0 // 10 * 10, TRUTH).decode().splitlines()
    )
    assert [line.split(",")[0] for line in lines] == ["$GNGGA", "$GNGST"]
    assert lines[0].split(",")[1] == lines[1].split(",")[1] == "153030.00"
    assert lines[0].split(",")[6] == "4"


def test_every_sentence_has_the_number_of_fields_the_standard_gives_it() -> None:
    gga, gst = GnssReceiver(GNSS_ORIGIN, 1, sentences).epoch(0.0, TRUTH).decode().splitlines()
    assert len(gga.split(",")) == 15
    assert len(gst.split(",")) == 9


def test_a_float_solution_says_so_and_scatters_by_decimetres() -> None:
    receiver = GnssReceiver(GNSS_ORIGIN, 1, sentences)
    receiver.fault = Fault("float")
    ups = []
    for second in range(200):
        gga, gst = receiver.epoch(float(second), replace(QUIET, t_s=float(second))).decode().splitlines()
        assert gga.split(",")[6] == "5"
        assert float(gst.split("*")[0].split(",")[8]) > 0.1
        ups.append(enu(*position(gga))[2])
    assert 0.2 < (sum(u * u for u in ups) / len(ups)) ** 0.5 < 0.45


def test_a_receiver_without_sky_says_nothing() -> None:
    receiver = GnssReceiver(GNSS_ORIGIN, 1, sentences)
    receiver.fault = Fault("no_lines")
    assert receiver.epoch(0.0, TRUTH) == b""


def test_minutes_never_read_sixty() -> None:
    origin = replace(GNSS_ORIGIN, latitude_deg=36.0 - 1e-12, longitude_deg=-(116.0 - 1e-12))
    gga = GnssReceiver(origin, 1, sentences).epoch(0.0, QUIET).decode().splitlines()[0]
    assert gga.split(",")[2] == "3600.00000000"
    assert gga.split(",")[4:6] == ["11600.00000000", "W"]


def test_moving_nowhere_is_the_origin() -> None:
    assert moved(GNSS_ORIGIN, 0.0, 0.0) == (GNSS_ORIGIN.latitude_deg, GNSS_ORIGIN.longitude_deg)


# -- binary ------------------------------------------------------------------------------------------


def proof(profile: str, number: int) -> bytes:
    """A golden frame of a profile: those of u-blox were encoded by pyubx2, from numbers known there."""
    table = tomllib.loads((PROFILES / f"{profile}.toml").read_text())["proof"][number]
    return bytes.fromhex(table["rx"])


def golden_solution(utc_s: float = 0.0) -> Solution:
    """The numbers that the golden frames were encoded from, as movements from the bench's base line."""
    golden_m = (-5654.4012, 12167.7631, -42.3190)
    east, north, up = (g - b for g, b in zip(golden_m, GNSS_FROM_BASE_M, strict=True))
    return Solution(utc_s, (east, north, up), Quality.FIXED)


def test_the_vector_of_ubx_is_byte_for_byte_what_pyubx2_encodes() -> None:
    golden = proof("ublox-relposned", 0)
    ours = gnss_binary.ubx((0x01, 0x3C), gnss_binary.vector_ned(golden_solution()))
    assert len(ours) == len(golden)
    same = [*range(10), *range(14, 26), *range(38, 41)]  # head, version, station; vector, its rests
    assert [ours[i] for i in same] == [golden[i] for i in same]


def test_check_bytes_of_both_languages_are_those_of_frames_from_elsewhere() -> None:
    for profile, number in [("ublox-relposned", 0), ("ublox-relposned", 2), ("ublox-relposned", 3)]:
        frame = proof(profile, number)
        assert gnss_binary.ubx((frame[2], frame[3]), frame[6:-2]) == frame
    for number in (0, 1):  # frames of real receivers
        frame = proof("septentrio-basevectorgeod", number)
        assert gnss_binary.sbf(4028, frame[8:]) == frame


@given(st.floats(-2.0, 2.0), st.floats(-2.0, 2.0), st.floats(-2.0, 2.0))
@pytest.mark.parametrize("language", ["ubx", "sbf"])
def test_the_daemon_reads_a_tenth_of_a_millimetre_out_of_the_binary_vector(
    language: str, east: float, north: float, up: float
) -> None:
    truth = replace(QUIET, displacement_m=(east, north, up))
    data = GnssReceiver(GNSS_ORIGIN, 1, LANGUAGES[language]).epoch(1_795_447_830.0, truth)
    (epoch,) = heard(language, data)
    expected = [b + m for b, m in zip(GNSS_FROM_BASE_M, (east, north, up), strict=True)]
    assert epoch.where == pytest.approx(expected, abs=1e-4)
    assert epoch.fix is Fix.FIXED
    assert epoch.base == "117"


@pytest.mark.parametrize("language", ["ubx", "sbf"])
@pytest.mark.parametrize(("fault", "fix"), [("float", Fix.FLOAT), ("base_lost", Fix.NONE)])
def test_a_binary_receiver_says_how_good_its_solution_is(language: str, fault: str, fix: Fix) -> None:
    receiver = GnssReceiver(GNSS_ORIGIN, 1, LANGUAGES[language])
    receiver.fault = Fault(fault)
    (epoch,) = heard(language, receiver.epoch(1_795_447_830.0, TRUTH))
    assert epoch.fix is fix
    assert fix is Fix.FLOAT or all(math.isnan(each) for each in epoch.where)


def test_the_date_beside_the_ubx_vector_is_utc() -> None:
    data = GnssReceiver(GNSS_ORIGIN, 1, LANGUAGES["ubx"]).epoch(1_795_447_830.5, TRUTH)
    (moment,) = (told for told in told_by("ubx", data) if isinstance(told, Moment))
    assert moment.ns == 1_795_447_830_500_000_000


def told_by(language: str, data: bytes) -> list[Told]:
    decoder = codecs.decoder(profiles.load(READ_BY[language]))
    return [*decoder.feed(data, 0), *decoder.flush()]


def heard(language: str, data: bytes) -> list[Epoch]:
    return [told for told in told_by(language, data) if isinstance(told, Epoch)]
