"""Calibration against printed worked examples, and against a slope that was really instrumented."""

from __future__ import annotations

import csv
import math
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.binder import Problem, bind
from drivers.calibration import (
    KINDS,
    Count,
    Linear,
    Polynomial,
    Thermistor,
    VibratingWire,
    VibratingWirePolynomial,
    digits,
    digits_of_period,
    mistakes,
    thermistor_celsius,
)
from drivers.gnss.baseline import Baseline

DATA = Path(os.environ.get("PONDWATCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
USGS = DATA / "usgs_mukilteo"
KPA_PER_PSI = 6.89475729  # as USGS writes it


def hz_of(reading: float) -> float:
    return math.sqrt(1000.0 * reading)


def test_eight_thousand_digits_are_2828_hertz_and_354_microseconds() -> None:
    # Geokon 4500 manual, 6.
    assert hz_of(8000.0) == pytest.approx(2828.43, abs=0.005)
    assert digits(2828.4271) == pytest.approx(8000.0, abs=0.001)
    assert digits_of_period(353.5534) == pytest.approx(8000.0, abs=0.001)


def test_geosense_example_of_a_frequency_and_of_a_period() -> None:
    # Geosense VW manual, p. 34; the second is printed truncated, as 7664.8.
    assert digits(2768.5) == pytest.approx(7664.59, abs=0.005)
    assert digits_of_period(361.2) == pytest.approx(7664.87, abs=0.005)


def test_geokon_sheet_example_by_the_linear_factor() -> None:
    # Geokon 4500 manual, appendix C: 418.8 kPa where 420 were applied.
    sheet = VibratingWire(family="geokon", zero_digits=9082.0, kpa_per_digit=-0.1795)
    pressure_kpa = sheet.apply(hz_of(6749.0))
    assert pressure_kpa == pytest.approx(418.77, abs=0.005)
    assert (420.0 - pressure_kpa) / 9.80665 * 1000.0 == pytest.approx(125.07, abs=0.5)  # mm of water


def test_the_polynomial_takes_its_constant_from_the_zero_reading() -> None:
    a, b, zero = -2.1e-7, -0.1743, 9082.0
    c = -(a * zero + b) * zero
    sheet = VibratingWirePolynomial(of="digits", a=a, b=b, c=c)
    assert sheet.apply(hz_of(zero)) == pytest.approx(0.0, abs=1e-9)
    assert sheet.apply(hz_of(6749.0)) == pytest.approx(a * 6749.0**2 + b * 6749.0 + c, rel=1e-12)


@pytest.mark.parametrize(
    ("factor", "expected", "within"),
    [
        (0.1319, -0.923, 0.0005),  # Geokon 4500AL manual, p. 24: -0.92 kPa
        (-0.01879, 0.1315, 0.00005),  # Geokon 8020-59 manual, p. 42, in psi: 0.13
    ],
)
def test_geokon_adds_its_thermal_term(factor: float, expected: float, within: float) -> None:
    sheet = VibratingWire("geokon", 9082.0, -0.1795, zero_celsius=22.0, kpa_per_celsius=factor)
    correction = sheet.apply(hz_of(6749.0), celsius=15.0) - sheet.apply(hz_of(6749.0), celsius=22.0)
    assert correction == pytest.approx(expected, abs=within)


def test_roctest_subtracts_its_thermal_term() -> None:
    # Roctest FOP manual E10160, p. 12: (514.28 - 99.56) - (-0.0422)(25 - 20) - (101.3 - 100.2) = 413.831.
    # The fibre-optic reading is a pressure already, so the wire's reading is chosen to give that difference.
    sheet = VibratingWire("roctest", 99.56, 1.0, zero_celsius=20.0, kpa_per_celsius=-0.0422, zero_hpa=1002.0)
    hz = math.sqrt(1000.0 * 514.28 / 1.0156)
    assert sheet.apply(hz, celsius=25.0, hpa=1013.0) == pytest.approx(413.831, abs=1e-9)


def test_two_inches_of_mercury_left_uncorrected_are_a_psi() -> None:
    # Geokon 4580 manual, p. 11: 29 to 31 inHg is 0.98 psi, about 1. 1 inHg = 33.86389 hPa.
    sheet = VibratingWire("geokon", 9082.0, -0.1795, zero_hpa=29 * 33.86389)
    error_kpa = sheet.apply(2828.0, hpa=29 * 33.86389) - sheet.apply(2828.0, hpa=31 * 33.86389)
    assert error_kpa / 6.894757 == pytest.approx(0.98, abs=0.005)


def test_one_sensor_on_sheets_of_two_families_reads_alike_and_the_wrong_family_turns_it_round() -> None:
    geokon = VibratingWire("geokon", 9082.0, -0.1795)
    soil = VibratingWire("soil-instruments", 9082.0, 0.1795)
    wrong = VibratingWire("soil-instruments", 9082.0, -0.1795)
    assert soil.apply(2700.0) == pytest.approx(geokon.apply(2700.0), rel=1e-12)
    assert wrong.apply(2700.0) == pytest.approx(-geokon.apply(2700.0), rel=1e-12)
    assert [key for key, _ in mistakes(wrong)] == ["kpa_per_digit"]
    assert not mistakes(soil)


@given(st.floats(500.0, 6000.0), st.floats(0.0, 50.0))
def test_every_family_rises_when_the_wire_slackens(hz: float, slack_hz: float) -> None:
    """Pressure slackens the wire of these instruments; Roctest's factor is negative then."""
    for sheet in (
        VibratingWire("geokon", 9082.0, -0.1795),
        VibratingWire("soil-instruments", 9082.0, 0.1795),
        VibratingWire("roctest", 9082.0, -0.1795),
    ):
        assert sheet.apply(hz - slack_hz) >= sheet.apply(hz)


@pytest.mark.parametrize(
    ("ohm", "celsius"),
    [(9796, -0.018), (5971, 9.988), (3748, 19.991), (3000, 24.992), (2417, 29.991), (1081, 49.979)],
)
def test_the_3k_thermistor_follows_its_curve(ohm: float, celsius: float) -> None:
    assert thermistor_celsius(ohm, "3k") == pytest.approx(celsius, abs=0.0006)


def test_the_10k_thermistor_is_at_25_degrees_by_definition() -> None:
    assert thermistor_celsius(10000.0, "10k") == pytest.approx(25.0, abs=0.01)
    assert Thermistor("10k", offset_celsius=0.3).apply(10000.0) == pytest.approx(25.3, abs=0.01)


@pytest.mark.parametrize("ohm", [0.0, -3.0, math.nan, math.inf, -math.inf])
def test_a_broken_or_shorted_thermistor_has_no_temperature(ohm: float) -> None:
    assert math.isnan(Thermistor("3k").apply(ohm))
    assert math.isnan(Thermistor("10k").apply(ohm))


def test_a_lost_temperature_leaves_the_term_out_and_a_lost_barometer_leaves_nothing() -> None:
    sheet = VibratingWire("geokon", 9082.0, -0.1795, 22.0, 0.1319, zero_hpa=1008.2)
    assert sheet.needs_temperature
    assert sheet.needs_barometer
    bare = VibratingWire("geokon", 9082.0, -0.1795)
    assert not bare.needs_temperature
    assert not bare.needs_barometer
    assert sheet.apply(2598.0, None, 1008.2) == bare.apply(2598.0, 15.0, 990.0)
    assert math.isnan(sheet.apply(2598.0, 22.0, None))
    polynomial = VibratingWirePolynomial("hz", -1e-4, 0.0, 800.0, 20.0, 0.2, 1000.0)
    assert math.isnan(polynomial.apply(2598.0, 22.0, None))
    assert polynomial.apply(2598.0, None, 1000.0) == polynomial.apply(2598.0, 20.0, 1000.0)


def test_a_missing_number_stays_missing() -> None:
    for law in (
        Linear(2.0),
        Polynomial(1.0, 2.0, 3.0),
        VibratingWire("geokon", 9082.0, -0.1795),
        VibratingWirePolynomial("digits", 0.0, -0.1, 900.0),
        Thermistor("3k"),
    ):
        assert math.isnan(law.apply(math.nan))


def test_linear_and_polynomial_are_what_they_say() -> None:
    assert Linear(scale=0.1, offset=-3.0).apply(50.0) == 2.0
    assert Polynomial(a=2.0, b=-3.0, c=5.0).apply(4.0) == 25.0


def test_settings_that_make_no_sense_are_named() -> None:
    assert [k for k, _ in mistakes(VibratingWire("geokon", 9082.0, 0.1795, None, 0.13, 101.3))] == [
        "zero_celsius",
        "zero_hpa",
        "kpa_per_digit",
    ]
    assert [k for k, _ in mistakes(Count(0.2, 16, 40000))] == ["max_step"]
    assert not mistakes(Count(0.2, 16, 50))
    assert not mistakes(Linear(1.0))


def test_every_kind_documents_every_key_with_an_example() -> None:
    assert set(KINDS) == {
        "linear", "polynomial", "vibrating-wire", "vibrating-wire-polynomial", "thermistor", "counter",
    }  # fmt: skip
    for kind in KINDS.values():
        for field in kind.__dataclass_fields__.values():  # type: ignore[attr-defined]
            assert field.metadata["doc"]
            assert field.metadata["example"]


def test_every_kind_binds_from_the_site_file_by_its_own_examples() -> None:
    for name, kind in {**KINDS, "baseline": Baseline}.items():
        fields = kind.__dataclass_fields__.values()  # type: ignore[attr-defined]
        text = "\n".join(f"{field.name} = {field.metadata['example']}" for field in fields)
        problems: list[Problem] = []
        bound = bind(kind, tomllib.loads(text), name, problems)
        assert not problems
        assert isinstance(bound, kind)


# USGS, SOURCE.txt: p = A f^2 + B f + C + (Tcal - T) m + b - (baro - 101.3), T with an offset of its own.
VW1 = VibratingWirePolynomial(
    "hz", -0.000095792, -0.0023260, 828.53 - 0.762 * KPA_PER_PSI, 20.2, -0.0380 * KPA_PER_PSI, 1013.0
)
VW2 = VibratingWirePolynomial(
    "hz", -0.00010171, 0.016517, 772.93 - 0.414 * KPA_PER_PSI, 20.2, -0.0208 * KPA_PER_PSI, 1013.0
)


@pytest.mark.skipif(not USGS.is_dir(), reason=f"the USGS Mukilteo data are not in {DATA}")
def test_two_weeks_of_a_real_slope_come_out_as_its_formula_has_them() -> None:
    raw = [line.split("\t") for line in (USGS / "data/RALHS/waMVD116_14d.txt").read_text().splitlines()]
    air = [line.split("\t") for line in (USGS / "data/RALHS/waWatertonA_14d.txt").read_text().splitlines()]
    converted = list(csv.DictReader((USGS / "mvd116_vw_converted.csv").read_text().splitlines()))
    assert len(raw) == len(air) == len(converted) == 1344
    thermistors = (Thermistor("3k", 0.3), Thermistor("3k", 0.1))
    for row, weather, expected in zip(raw, air, converted, strict=True):
        assert row[0] == weather[0] == expected["time"]
        hpa = float(weather[5]) * 0.240 + 500.0
        for i, (sheet, thermistor) in enumerate(zip((VW1, VW2), thermistors, strict=True)):
            celsius = thermistor.apply(float(row[18 + 2 * i]))
            pressure_kpa = sheet.apply(float(row[17 + 2 * i]), celsius, hpa)
            assert celsius == pytest.approx(float(expected[f"T{i + 1}_degC"]), abs=6e-5)
            assert pressure_kpa == pytest.approx(float(expected[f"p{i + 1}_kPa"]), abs=6e-6)
