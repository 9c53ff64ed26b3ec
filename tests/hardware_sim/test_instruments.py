from __future__ import annotations

import math
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_sim import rtu
from hardware_sim.dam import Dam, Truth
from hardware_sim.instruments.base import Instrument, f32, two_words, u32
from hardware_sim.instruments.dfrobot_sen0575 import Sen0575
from hardware_sim.instruments.metsens300 import MetSens300
from hardware_sim.instruments.registers import TableLogger
from hardware_sim.instruments.vegapuls import VegaPuls
from hardware_sim.instruments.waveshare_relay import WaveshareRelay
from hardware_sim.instruments.wenkon_vtn416 import Vtn416, wire_hz
from hardware_sim.site import GRAVITY_M_S2, PIEZOMETERS, Piezometer
from tests.hardware_sim import golden

TRUTH = Dam(lambda _t: 0.0, seed=1).at(0.0)


def over_rtu(instrument: Instrument, request: str) -> bytes:
    asked = golden.raw(request)
    assert rtu.crc16(asked[:-2]) == asked[-2:], "the request is no golden frame"
    return rtu.frame(asked[0], instrument.answer(asked[1:-2]))


def read(instrument: Instrument, fn: int, at: int, count: int) -> list[int]:
    reply = instrument.answer(struct.pack(">BHH", fn, at, count))
    assert reply[0] == fn, f"exception {reply[1]}"
    assert reply[1] == 2 * count == len(reply) - 2
    return list(struct.unpack(f">{count}H", reply[2:]))


def as_f32(words: list[int]) -> float:
    return float(struct.unpack(">f", struct.pack(">HH", *words))[0])


def sheet_reading(hertz: float) -> Piezometer:
    """A piezometer whose wire swings at `hertz` whatever happens: no slope but that of rest."""
    return replace(
        PIEZOMETERS[0],
        zero_digits=hertz * hertz / 1000.0,
        kpa_per_digit=-1e12,
        kpa_per_celsius=0.0,
    )


def test_the_logger_answers_its_makers_frame_byte_for_byte() -> None:
    # 1256.9 Hz on channel 1 and 1333.1 Hz on channel 16; the fourteen between have no signal.
    sheets = [sheet_reading(1256.9), *[sheet_reading(0.0)] * 14, sheet_reading(1333.1)]
    many = replace(TRUTH, pore_kpa=(0.0,) * 16, ground_celsius=(12.0,) * 16, pressure_hpa=1008.2)
    logger = Vtn416(lambda: many, sheets)
    assert over_rtu(logger, golden.VTN416_REQUEST) == golden.raw(golden.VTN416_REPLY)


def test_a_float_travels_as_in_the_makers_frames_in_either_word_order() -> None:
    keller = TableLogger([[0.0, 0.9607007]], 1, "ABCD")
    assert over_rtu(keller, golden.KELLER_REQUEST) == golden.raw(golden.KELLER_REPLY)
    words = struct.unpack(">HH", golden.raw(golden.GEOKON_REPLY)[3:7])
    assert f32(struct.unpack(">f", bytes.fromhex("4628C87C"))[0], "CDAB") == words


@pytest.mark.parametrize(
    ("order", "sent"),
    [("ABCD", "01020304"), ("CDAB", "03040102"), ("BADC", "02010403"), ("DCBA", "04030201")],
)
def test_the_four_orders_send_the_bytes_they_are_named_by(order: str, sent: str) -> None:
    assert struct.pack(">HH", *two_words(bytes((1, 2, 3, 4)), order)).hex() == sent


@given(
    st.sampled_from(PIEZOMETERS),
    st.floats(0.0, 250.0),
    st.floats(-5.0, 35.0),
    st.floats(940.0, 1060.0),
)
def test_the_wire_swings_so_that_the_published_reduction_gives_the_pressure_back(
    sheet: Piezometer, pore_kpa: float, celsius: float, air_hpa: float
) -> None:
    digits = wire_hz(sheet, pore_kpa, celsius, air_hpa) ** 2 / 1000.0
    pressure = sheet.kpa_per_digit * (digits - sheet.zero_digits)
    pressure += sheet.kpa_per_celsius * (celsius - sheet.zero_celsius)
    pressure -= (air_hpa - sheet.zero_hpa) * 0.1
    assert pressure == pytest.approx(pore_kpa, abs=1e-8)


def test_geokons_printed_example_swings_the_same_way() -> None:
    # 4500 manual, appendix C: G = -0.1795, R0 = 9082, R1 = 6749 is 418.8 kPa.
    sheet = replace(PIEZOMETERS[0], zero_digits=9082.0, kpa_per_digit=-0.1795, kpa_per_celsius=0.0)
    assert wire_hz(sheet, 418.7735, 22.0, sheet.zero_hpa) ** 2 / 1000.0 == pytest.approx(6749.0, abs=1e-6)


def test_the_loggers_tenth_of_a_hertz_keeps_the_phreatic_line_to_two_centimetres() -> None:
    frequencies = read(Vtn416(lambda: TRUTH, PIEZOMETERS), 3, 100, 4)
    for i, sheet in enumerate(PIEZOMETERS):
        digits = (frequencies[i] / 10.0) ** 2 / 1000.0
        pressure = sheet.kpa_per_digit * (digits - sheet.zero_digits)
        pressure += sheet.kpa_per_celsius * (TRUTH.ground_celsius[i] - sheet.zero_celsius)
        pressure -= (TRUTH.pressure_hpa - sheet.zero_hpa) / 10.0
        elevation_m = sheet.tip_elevation_m + pressure / GRAVITY_M_S2
        assert elevation_m == pytest.approx(sheet.rest_elevation_m, abs=0.02)


def test_the_loggers_other_channels_say_why_they_are_empty() -> None:
    logger = Vtn416(lambda: TRUTH, PIEZOMETERS)
    first, second = read(logger, 3, 100, 32), read(logger, 4, 132, 32)
    assert first[4:16] == [0] * 12  # no signal
    assert first[16:] == [9999] * 16  # not on this model
    assert second[:4] == [134, 131, 129, 128]  # thermistors, 0.1 degC
    assert second[4:] == [0xFFFF] * 28  # not fitted


def test_a_torn_wire_reads_no_signal_and_its_thermistor_still_answers() -> None:
    logger = Vtn416(lambda: TRUTH, PIEZOMETERS)
    logger.sentinel = True
    assert read(logger, 3, 100, 4) == [0, 0, 0, 0]
    assert read(logger, 3, 132, 1) == [134]


def test_frost_at_the_tip_is_sent_in_twos_complement() -> None:
    frozen = replace(TRUTH, ground_celsius=(-1.5, 0.0, 0.0, 0.0))
    assert read(Vtn416(lambda: frozen, PIEZOMETERS), 3, 132, 1) == [0x10000 - 15]


@pytest.mark.parametrize(
    ("pdu", "exception"),
    [
        ("03 0064 0021", 3),  # more than 32 registers in a request
        ("03 0064 0000", 3),
        ("03 0002 0001", 2),  # a register that does not exist
        ("03 00A4 0001", 2),
        ("03 0063 0002", 2),  # a request that begins before the map
        ("01 0000 0001", 1),
        ("2B 0E 01 00", 1),
        ("06 0064 0001", 1),
        ("03 0064", 3),
    ],
)
def test_what_the_logger_cannot_do_it_refuses(pdu: str, exception: int) -> None:
    asked = golden.raw(pdu)
    assert Vtn416(lambda: TRUTH, PIEZOMETERS).answer(asked) == bytes((asked[0] | 0x80, exception))


def test_the_rain_gauge_sends_the_low_word_first() -> None:
    wet = replace(TRUTH, t_s=3600.0, rain_mm=30.0)
    gauge = Sen0575(lambda: wet, 0.2794)
    words = read(gauge, 4, 0, 13)
    tips = math.floor(30.0 / 0.2794)
    assert words[0] | (words[1] & 0xC000) << 2 == 0x100C0  # PID as the maker's library computes it
    assert words[1] & 0x3FFF == 0x3343  # VID
    assert (words[9] << 16 | words[8]) == tips * 2794
    assert words[9] > 0, "the rain must reach into the high word, or the order is untested"
    assert (words[11] << 16 | words[10]) == tips
    assert words[12] == 60


def test_the_rain_gauge_remembers_the_last_hours_it_is_asked_for() -> None:
    now = {"truth": replace(TRUTH, t_s=0.0, rain_mm=0.0)}
    gauge = Sen0575(lambda: now["truth"], 0.2794)
    assert gauge.answer(bytes.fromhex("06 0006 0001"))[0] == 6
    for hour, rain_mm in ((1, 10.0), (2, 20.0), (3, 20.0)):
        now["truth"] = replace(TRUTH, t_s=hour * 3600.0, rain_mm=rain_mm)
        last = read(gauge, 4, 6, 2)
        recent_mm = (last[1] << 16 | last[0]) / 10_000
        assert recent_mm == pytest.approx({1: 10.0, 2: 10.0, 3: 0.0}[hour], abs=0.2794)


def test_the_rain_gauge_takes_settings_and_refuses_others() -> None:
    gauge = Sen0575(lambda: TRUTH, 0.2794)
    assert gauge.answer(bytes.fromhex("10 0006 0002 04 000C 07D0")) == bytes.fromhex("10 0006 0002")
    assert read(gauge, 3, 6, 2) == [12, 2000]
    assert gauge.answer(bytes.fromhex("06 0006 0019"))[1] == 3  # 25 hours
    assert gauge.answer(bytes.fromhex("06 0008 0001"))[1] == 2


def test_the_barometer_speaks_floats_with_the_high_word_first() -> None:
    words = read(MetSens300(lambda: TRUTH), 3, 0, 12)
    numbers = [as_f32(words[i : i + 2]) for i in range(0, 10, 2)]
    assert numbers[0] == pytest.approx(TRUTH.pressure_hpa, rel=1e-6)
    assert numbers[1] == pytest.approx(TRUTH.humidity_percent, rel=1e-6)
    assert numbers[2] == pytest.approx(TRUTH.air_celsius, rel=1e-6)
    assert numbers[3] < numbers[2], "air below saturation has its dew point below its temperature"
    assert words[10:] == [0, 0]


def test_a_barometer_without_a_cell_sends_nan() -> None:
    barometer = MetSens300(lambda: TRUTH)
    barometer.sentinel = True
    assert math.isnan(as_f32(read(barometer, 3, 0, 2)))


def test_the_radar_tells_the_level_in_every_order_its_manual_lists() -> None:
    radar = VegaPuls(lambda: TRUTH, 75.0, 20.0)
    level_m = TRUTH.pond_m - 75.0
    assert read(radar, 4, 2000, 2) == [0, 0]
    assert as_f32(read(radar, 4, 2002, 2)) == pytest.approx(level_m, rel=1e-6)
    assert as_f32(read(radar, 4, 106, 2)[::-1]) == pytest.approx(level_m, rel=1e-6)
    assert struct.pack(">HH", *read(radar, 4, 2102, 2)) == struct.pack("<f", level_m)
    assert read(radar, 4, 104, 2) == [0, 45]  # unit code of the metre
    assert as_f32(read(radar, 4, 2004, 2)) == pytest.approx(20.0 - level_m, rel=1e-6)
    assert radar.answer(bytes.fromhex("06 0BB8 0001"))[0] == 6
    assert as_f32(read(radar, 4, 1302, 2)[::-1]) == pytest.approx(level_m, rel=1e-6)


def test_a_radar_without_echo_marks_its_value_invalid_in_the_same_reply() -> None:
    radar = VegaPuls(lambda: TRUTH, 75.0, 20.0)
    radar.sentinel = True
    words = read(radar, 4, 2000, 4)
    assert words[1] & 1
    assert math.isnan(as_f32(words[2:]))


def test_relays_switch_and_read_back() -> None:
    relay = WaveshareRelay(lambda: 0.0)
    assert relay.answer(bytes.fromhex("05 0002 FF00")) == bytes.fromhex("05 0002 FF00")
    assert relay.answer(bytes.fromhex("01 0000 0008")) == bytes.fromhex("01 01 04")
    assert relay.answer(bytes.fromhex("0F 0000 0008 01 81")) == bytes.fromhex("0F 0000 0008")
    assert relay.closed == (True, False, False, False, False, False, False, True)
    relay.answer(bytes.fromhex("05 01FF FF00"))
    assert relay.closed == (False, True, True, True, True, True, True, False)
    relay.answer(bytes.fromhex("05 00FF 0000"))
    assert not any(relay.closed)
    assert relay.answer(bytes.fromhex("05 0000 1234"))[1] == 3
    assert relay.answer(bytes.fromhex("05 0008 FF00"))[1] == 2


def test_a_flash_ends_by_itself() -> None:
    now = {"s": 0.0}
    relay = WaveshareRelay(lambda: now["s"])
    relay.answer(bytes.fromhex("05 0200 0007"))  # 0.7 s
    assert relay.closed[0]
    now["s"] = 0.6
    assert relay.closed[0]
    now["s"] = 0.7
    assert not relay.closed[0]


def test_a_table_logger_serves_row_after_row_and_says_when_one_was_read() -> None:
    seen: list[tuple[int, int]] = []
    logger = TableLogger(
        [[1.5, math.nan], [2.5, -0.25]], 7, "CDAB", lambda unit, row: seen.append((unit, row))
    )
    first = read(logger, 3, 0, 2)
    assert as_f32(first[::-1]) == 1.5
    assert seen == [], "half of the row is still unread"
    assert math.isnan(as_f32(read(logger, 3, 2, 2)[::-1]))
    read(logger, 3, 0, 4)
    assert seen == [(7, 0)], "a row is told once"
    assert logger.advance()
    assert as_f32(read(logger, 4, 0, 4)[:1:-1]) == -0.25
    assert seen == [(7, 0), (7, 1)]
    assert not logger.advance()
    assert logger.row == 1


@given(st.floats(width=32, allow_nan=False), st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]))
def test_floats_and_counters_survive_every_order(value: float, order: str) -> None:
    sent = struct.pack(">HH", *f32(value, order))
    letters = ["ABCD".index(letter) for letter in order]
    back = bytearray(4)
    for place, letter in enumerate(letters):
        back[letter] = sent[place]
    assert struct.unpack(">f", bytes(back))[0] == value
    assert u32(0xDEADBEEF) == (0xDEAD, 0xBEEF)


def test_a_truth_is_one_instant_for_the_whole_request() -> None:
    asked: list[Truth] = []

    def truth() -> Truth:
        asked.append(TRUTH)
        return TRUTH

    read(Vtn416(truth, PIEZOMETERS), 3, 100, 32)
    assert len(asked) == 1
