from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_sim.dam import Dam
from hardware_sim.faults import Fault
from hardware_sim.instruments.gnss_nmea import GnssReceiver, moved, sentence
from hardware_sim.site import GNSS_ORIGIN

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
    lines = GnssReceiver(GNSS_ORIGIN, 1).epoch(0.0, replace(QUIET, displacement_m=(east, north, up)))
    gga = lines.decode().splitlines()[0]
    assert enu(*position(gga)) == pytest.approx((east, north, up), abs=1e-4)


def test_gga_and_gst_of_an_instant_carry_the_same_time() -> None:
    lines = GnssReceiver(GNSS_ORIGIN, 1).epoch(1_795_447_834.0 // 10 * 10, TRUTH).decode().splitlines()
    assert [line.split(",")[0] for line in lines] == ["$GNGGA", "$GNGST"]
    assert lines[0].split(",")[1] == lines[1].split(",")[1] == "153030.00"
    assert lines[0].split(",")[6] == "4"


def test_every_sentence_has_the_number_of_fields_the_standard_gives_it() -> None:
    gga, gst = GnssReceiver(GNSS_ORIGIN, 1).epoch(0.0, TRUTH).decode().splitlines()
    assert len(gga.split(",")) == 15
    assert len(gst.split(",")) == 9


def test_a_float_solution_says_so_and_scatters_by_decimetres() -> None:
    receiver = GnssReceiver(GNSS_ORIGIN, 1)
    receiver.fault = Fault("float")
    ups = []
    for second in range(200):
        gga, gst = receiver.epoch(float(second), replace(QUIET, t_s=float(second))).decode().splitlines()
        assert gga.split(",")[6] == "5"
        assert float(gst.split("*")[0].split(",")[8]) > 0.1
        ups.append(enu(*position(gga))[2])
    assert 0.2 < (sum(u * u for u in ups) / len(ups)) ** 0.5 < 0.45


def test_a_receiver_without_sky_says_nothing() -> None:
    receiver = GnssReceiver(GNSS_ORIGIN, 1)
    receiver.fault = Fault("no_lines")
    assert receiver.epoch(0.0, TRUTH) == b""


def test_minutes_never_read_sixty() -> None:
    origin = replace(GNSS_ORIGIN, latitude_deg=36.0 - 1e-12, longitude_deg=-(116.0 - 1e-12))
    gga = GnssReceiver(origin, 1).epoch(0.0, QUIET).decode().splitlines()[0]
    assert gga.split(",")[2] == "3600.00000000"
    assert gga.split(",")[4:6] == ["11600.00000000", "W"]


def test_moving_nowhere_is_the_origin() -> None:
    assert moved(GNSS_ORIGIN, 0.0, 0.0) == (GNSS_ORIGIN.latitude_deg, GNSS_ORIGIN.longitude_deg)
