"""The framer: every frame in every garbage, whatever the pieces; beside a plain search and recorded bytes."""

from __future__ import annotations

import os
import struct
from functools import reduce
from operator import xor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.gnss.framer import IDLE_NS, LONGEST_BINARY, Framer, Message, Rtcm, Sbf, Ubx, crc24q, fletcher8
from drivers.gnss.nmea import LONGEST, Sentence, crc32, parse

DATA = Path(os.environ.get("PONDWATCH_DATA", Path(__file__).parents[3] / "shared" / "data"))


# --- the plain way: one byte at a time, checks bit by bit ---------------------------------------------------


def slow_fletcher(body: bytes) -> bytes:
    a = b = 0
    for byte in body:
        a = (a + byte) % 256
        b = (b + a) % 256
    return bytes((a, b))


def slow_crc(data: bytes, bits: int, polynomial: int) -> int:
    """A CRC with its highest bit first, begun with 0."""
    crc = 0
    for byte in data:
        crc ^= byte << (bits - 8)
        for _ in range(8):
            crc = (crc << 1) ^ (polynomial if crc >> (bits - 1) & 1 else 0)
        crc &= (1 << bits) - 1
    return crc


def slow_ksxt(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc


def frame_at(data: bytes) -> tuple[int, Message] | None:
    """The whole frame that `data` begins with, if it does, and its length."""
    if data[:2] == b"\xb5\x62" and len(data) >= 6:
        end = 8 + int.from_bytes(data[4:6], "little")
        if len(data) >= end <= LONGEST_BINARY and slow_fletcher(data[2 : end - 2]) == data[end - 2 : end]:
            return end, Ubx(data[2] * 256 + data[3], data[6 : end - 2])
    if data[:2] == b"$@" and len(data) >= 8:
        check, number, end = struct.unpack("<HHH", data[2:8])
        fits = end % 4 == 0 and 8 <= end <= LONGEST_BINARY and len(data) >= end
        if fits and slow_crc(data[4:end], 16, 0x1021) == check:
            return end, Sbf(number % 8192, data[8:end])
    if data[:1] == b"\xd3" and len(data) >= 3 and data[1] < 4:
        end = 6 + int.from_bytes(data[1:3], "big")
        if len(data) >= end and slow_crc(data[: end - 3], 24, 0x864CFB) == int.from_bytes(
            data[end - 3 : end], "big"
        ):
            return end, Rtcm(data[3 : end - 3])
    if data[:1] == b"$" and data[1:2] != b"@":
        ends = [at for at in (data.find(b"\r"), data.find(b"\n")) if at > 0]
        sentence = parse(data[: min(ends)]) if ends else None
        if sentence is not None:
            return min(ends), sentence
    return None


def slow(data: bytes) -> list[Message]:
    found, at = [], 0
    while at < len(data):
        frame = frame_at(data[at:])
        if frame is None:
            at += 1
        else:
            at += frame[0]
            found.append(frame[1])
    return found


# --- frames of each kind ------------------------------------------------------------------------------------


def nmea_frame(body: str) -> bytes:
    return f"${body}*{reduce(xor, body.encode()):02X}\r\n".encode()


def ksxt_frame(body: str) -> bytes:
    return f"${body}*{slow_ksxt(body.encode()):08x}\r\n".encode()


def ubx_frame(kind: int, payload: bytes) -> bytes:
    body = struct.pack(">H", kind) + struct.pack("<H", len(payload)) + payload
    return b"\xb5\x62" + body + slow_fletcher(body)


def sbf_frame(number: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    rest = struct.pack("<HH", number, 8 + len(body)) + body
    return b"$@" + struct.pack("<H", slow_crc(rest, 16, 0x1021)) + rest


def rtcm_frame(payload: bytes) -> bytes:
    head = b"\xd3" + struct.pack(">H", len(payload)) + payload
    return head + slow_crc(head, 24, 0x864CFB).to_bytes(3, "big")


FRAMES = st.one_of(
    st.text("GPNTR0123456789,.-+", min_size=1, max_size=60).map(nmea_frame),
    st.text("KSXT0123456789,.-+", min_size=1, max_size=60).map(ksxt_frame),
    st.builds(ubx_frame, st.integers(0, 0xFFFF), st.binary(max_size=100)),
    st.builds(sbf_frame, st.integers(0, 0xFFFF), st.binary(max_size=100)),
    st.builds(rtcm_frame, st.binary(max_size=100)),
)
FALSE_STARTS = (b"\xb5", b"\xb5\x62", b"\xb5\x62\x01\x07\x5c\x00", b"\xb5\x62\x01\x07\xff\x0f", b"$@",
                b"$@\x00\x00\xbc\x0f\x00\x04", b"\xd3", b"\xd3\x00\x40", b"\xd3\x03\xff", b"$", b"$GNGGA,1339",
                b"$" + b"x" * 410, b"\r\n")  # fmt: skip
PIECES = st.one_of(
    FRAMES,
    st.tuples(FRAMES, st.integers(0, 60)).map(lambda cut: cut[0][: cut[1]]),
    st.tuples(FRAMES, st.integers(0, 200), st.integers(1, 255)).map(
        lambda hit: hit[0][: (at := hit[1] % len(hit[0]))] + bytes((hit[0][at] ^ hit[2],)) + hit[0][at + 1 :]
    ),
    st.binary(max_size=20),
    st.sampled_from(FALSE_STARTS),
)
STREAMS = st.lists(PIECES, max_size=10).map(b"".join)


@given(STREAMS, st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_frames_depend_neither_on_the_pieces_nor_on_the_garbage(stream: bytes, sizes: list[int]) -> None:
    framer, found, at, i = Framer(), [], 0, 0
    while at < len(stream):
        found += framer.feed(stream[at : at + sizes[i % len(sizes)]], 0)
        assert len(framer._rest) <= LONGEST_BINARY
        at += sizes[i % len(sizes)]
        i += 1
    whole = Framer()
    assert whole.feed(stream, 0) == found
    assert [*found, *framer.flush()] == slow(stream)
    assert framer._rest == b""


@given(st.lists(FRAMES, max_size=8))
def test_of_clean_frames_none_is_lost_and_none_waits(frames: list[bytes]) -> None:
    framer = Framer()
    found = framer.feed(b"".join(frames) + b"\r\n", 0)
    assert framer._rest == b""
    whole = [frame_at(frame) for frame in frames]
    assert found == [each[1] for each in whole if each is not None]


@given(st.binary(max_size=400))
def test_the_fast_checks_are_the_plain_ones(data: bytes) -> None:
    assert fletcher8(data) == slow_fletcher(data)
    assert crc24q(data) == slow_crc(data, 24, 0x864CFB)
    assert crc32(data) == slow_ksxt(data)


# --- false lengths and the idle line ------------------------------------------------------------------------

RELPOS = ubx_frame(0x013C, bytes(40))
FALSE = b"\xb5\x62\x01\x3c\x00\x0f"  # declares 3840 bytes


def test_a_false_length_gives_up_what_it_hides_once_it_is_filled() -> None:
    framer = Framer()
    assert framer.feed(FALSE + RELPOS, 0) == []
    found = framer.feed(RELPOS * 80, 1)  # every second or so: never quiet
    assert len(found) == 81


def test_a_false_length_gives_up_what_it_hides_when_the_line_has_been_quiet() -> None:
    framer = Framer()
    assert framer.feed(FALSE + RELPOS, 0) == []
    assert framer.feed(b"", IDLE_NS) == []
    assert len(framer.feed(RELPOS, 2 * IDLE_NS + 1)) == 2


def test_a_frame_that_pauses_for_less_is_whole() -> None:
    framer = Framer()
    assert framer.feed(RELPOS[:20], 0) == []
    assert len(framer.feed(RELPOS[20:], IDLE_NS)) == 1


def test_half_a_frame_before_a_pause_is_nothing_after_it() -> None:
    framer = Framer()
    assert framer.feed(RELPOS[:20], 0) == []
    assert framer.feed(RELPOS[20:], IDLE_NS + 1) == []


def test_what_declares_more_than_any_frame_read_here_is_not_waited_for() -> None:
    for start in (b"\xb5\x62\x01\x07\xff\xff", b"$@\x00\x00\xbc\x0f\xfc\xff", b"$" + b"x" * (LONGEST + 1)):
        assert Framer().feed(start + RELPOS, 0) == [Ubx(0x013C, bytes(40))]


# --- recorded bytes -----------------------------------------------------------------------------------------

# (sentences, UBX, RTCM 3) as pyubx2 1.4.0 finds them with right checksums; but one sentence of either NMEA log
# is longer than LONGEST, one has no end, and those of the Skytraq have no checksum
RECORDED = {
    "pyubx2_logs/tests/pygpsdata-BADCK2.log": (0, 25, 0),
    "pyubx2_logs/tests/pygpsdata-BADEOF1.log": (0, 3, 0),
    "pyubx2_logs/tests/pygpsdata-BADHDR.log": (0, 2, 0),
    "pyubx2_logs/tests/pygpsdata-BADNMEAEOF.log": (3, 2, 0),
    "pyubx2_logs/tests/pygpsdata-MIXED-RTCM3.log": (2, 1, 7),
    "pyubx2_logs/tests/pygpsdata-MIXED2.log": (27, 26, 0),
    "pyubx2_logs/tests/pygpsdata-NAV-ZED-X20P.log": (0, 60, 0),
    "pyubx2_logs/tests/pygpsdata-NAVHPPOS.log": (0, 4, 0),
    "pyubx2_logs/tests/pygpsdata-NMEA.log": (20, 0, 0),
    "pyubx2_logs/tests/pygpsdata-NMEABADEND.log": (15, 0, 0),
    "gpsd_logs/bu303-nofix.log": (0, 0, 0),
    "gpsd_logs/nmea-fuzzy-cases.log": (28, 0, 0),
    "gpsd_logs/nmea-rtk.log": (244, 0, 0),
    "gpsd_logs/skytraq-err.log": (0, 0, 0),
    "gpsd_logs/tcp-torture.log": (7, 0, 0),
    "gpsd_logs/ublox-neo-m8p.log": (0, 484, 0),
    "gpsd_logs/ublox-zed-f9p-hp.log": (0, 293, 0),
}


@pytest.mark.parametrize("name", RECORDED)
def test_as_many_frames_are_found_in_a_recording_as_pyubx2_finds(name: str) -> None:
    if not (DATA / name).is_file():
        pytest.skip(f"{name} is not in {DATA}")
    stream = (DATA / name).read_bytes()
    framer = Framer()
    found = [message for at in range(0, len(stream), 7) for message in framer.feed(stream[at : at + 7], 0)]
    found += framer.flush()
    kinds = tuple(sum(isinstance(each, kind) for each in found) for kind in (Sentence, Ubx, Rtcm))
    assert kinds == RECORDED[name]
    assert Framer().feed(stream, 0) == found[: len(Framer().feed(stream, 0))]
