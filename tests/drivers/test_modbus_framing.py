"""Framings without a wire: any cut of the stream, any noise, and conversations captured in real plants."""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU

from drivers.contract import BadReply, LineDown, WireError
from drivers.framing import MbapFraming, RtuFraming, error_of
from tests.drivers.rtu_server import adu, answer, crc, read

DATA = Path(os.environ.get("PONDWATCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
CAPTURES = sorted((DATA / "modbus_pcap").glob("*.pcap"))

shapes = st.tuples(st.integers(1, 247), st.sampled_from((3, 4)), st.integers(0, 0xFF00), st.integers(1, 125))


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(i % (len(data) + 1) for i in at)})
    return [data[a:b] for a, b in pairwise(edges)]


@given(shapes, st.binary(max_size=40), st.binary(max_size=20), st.lists(st.integers(0, 400), max_size=12))
def test_an_rtu_reply_is_found_behind_noise_however_it_is_cut(
    shape: tuple[int, int, int, int], before: bytes, after: bytes, cuts: list[int]
) -> None:
    unit, fn, at, count = shape
    framing = RtuFraming()
    request = framing.request(unit, read(fn, at, count), 2 + 2 * count)
    assert request == adu(unit, read(fn, at, count))
    reply = answer(request)
    found = [pdu for part in cut(before + reply + after, cuts) if (pdu := framing.feed(part)) is not None]
    assert found == [reply[1:-2]]


@given(shapes, st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=12))
def test_an_rtu_reply_is_never_found_in_noise(
    shape: tuple[int, int, int, int], noise: bytes, cuts: list[int]
) -> None:
    """What is found proves itself by the checksum of another implementation; Hypothesis finds no such noise."""
    unit, fn, at, count = shape
    framing = RtuFraming()
    framing.request(unit, read(fn, at, count), 2 + 2 * count)
    for part in cut(noise, cuts):
        if (pdu := framing.feed(part)) is not None:
            whole = bytes((unit,)) + pdu
            assert whole + crc(whole) in noise
    assert len(framing.heard) <= 64
    assert len(framing._buffer) < 5 + 2 * count


def test_a_flood_of_possible_beginnings_stays_bounded() -> None:
    framing = RtuFraming()
    framing.request(1, read(3, 0, 125), 252)
    for _ in range(100):
        assert framing.feed(b"\x01\x03\xfa" * 100) is None
        assert len(framing._buffer) < 255


def test_rtu_and_tcp_requests_are_those_of_pymodbus() -> None:
    decoder = DecodePDU(is_server=True)
    for unit, fn, at, count in ((1, 3, 100, 20), (247, 4, 0xFFFF, 1), (17, 3, 107, 125)):
        pdu = read(fn, at, count)
        assert RtuFraming().request(unit, pdu, 2 + 2 * count) == FramerRTU(decoder).encode(pdu, unit, 0)
        assert MbapFraming().request(unit, pdu, 2 + 2 * count) == FramerSocket(decoder).encode(pdu, unit, 1)


def test_the_example_of_the_serial_line_guide_has_our_checksum() -> None:
    """Modbus over Serial Line 1.02, 6.2.2: the message 02 07 has checksum 1241h, sent as 41 12."""
    assert RtuFraming().request(2, b"\x07", 2) == b"\x02\x07\x41\x12"


@pytest.mark.parametrize(
    ("request_pdu", "reply_pdu"),
    [
        (b"\x01\x00\x13\x00\x13", b"\x01\x03\xcd\x6b\x05"),
        (b"\x02\x00\xc4\x00\x16", b"\x02\x03\xac\xdb\x35"),
        (b"\x03\x00\x6b\x00\x03", b"\x03\x06\x02\x2b\x00\x00\x00\x64"),
        (b"\x04\x00\x08\x00\x01", b"\x04\x02\x00\x0a"),
        (b"\x05\x00\xac\xff\x00", b"\x05\x00\xac\xff\x00"),
        (b"\x06\x00\x01\x00\x03", b"\x06\x00\x01\x00\x03"),
        (b"\x07", b"\x07\x6d"),
        (b"\x0f\x00\x13\x00\x0a\x02\xcd\x01", b"\x0f\x00\x13\x00\x0a"),
        (b"\x10\x00\x01\x00\x02\x04\x00\x0a\x01\x02", b"\x10\x00\x01\x00\x02"),
        (b"\x17\x00\x03\x00\x06\x00\x0e\x00\x03\x06" + b"\x00\xff" * 3, b"\x17\x0c" + bytes(12)),
    ],
    ids=lambda pdu: f"fn{pdu[0]}" if pdu else "",
)
def test_the_examples_of_the_application_protocol_are_understood(
    request_pdu: bytes, reply_pdu: bytes
) -> None:
    """Modbus Application Protocol 1.1b3, clauses 6.1 to 6.17."""
    rtu, tcp = RtuFraming(), MbapFraming()
    rtu.request(17, request_pdu, len(reply_pdu))
    tcp.request(17, request_pdu, len(reply_pdu))
    assert rtu.feed(adu(17, reply_pdu)) == reply_pdu
    assert tcp.feed(struct.pack(">HHHB", 1, 0, 1 + len(reply_pdu), 17) + reply_pdu) == reply_pdu
    refusal = bytes((request_pdu[0] | 0x80, 2))
    rtu.request(17, request_pdu, len(reply_pdu))
    assert rtu.feed(adu(17, refusal)) == refusal
    assert error_of(17, refusal) is not None
    assert error_of(17, reply_pdu) is None


def mbap(identity: int, unit: int, pdu: bytes, protocol: int = 0) -> bytes:
    return struct.pack(">HHHB", identity, protocol, 1 + len(pdu), unit) + pdu


@given(st.lists(st.integers(0, 300), max_size=12), st.integers(0, 3), st.integers(0, 3))
def test_a_tcp_reply_is_found_between_stale_ones_however_it_is_cut(
    cuts: list[int], before: int, after: int
) -> None:
    framing = MbapFraming()
    for _ in range(5):
        framing.request(1, read(3, 0, 2), 6)
    stale = mbap(4, 1, b"\x03\x04\xff\xff\xff\xff")
    stream = stale * before + mbap(5, 1, b"\x03\x04\0\1\0\2") + stale * after
    found = [pdu for part in cut(stream, cuts) if (pdu := framing.feed(part)) is not None]
    assert found == [b"\x03\x04\0\1\0\2"]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (mbap(1, 2, b"\x03\x04\0\0\0\0"), "comes from unit 2, asked was unit 1"),
        (mbap(1, 1, b"\x04\x04\0\0\0\0"), "beginning 04 04"),
        (mbap(1, 1, b"\x03\x02\0\0"), "expected were 6 beginning 03 04"),
        (mbap(1, 1, b"\x03\x04\0\0"), "answered 4 bytes"),
        (mbap(1, 1, b"\x03\x04\0\0\0\0\0\0"), "answered 8 bytes"),
        (mbap(1, 1, b"\x84\x02"), "beginning 84 02"),
        (mbap(1, 1, b"\x83\x02\x00"), "answered 3 bytes"),
    ],
)
def test_a_tcp_reply_with_our_id_must_be_the_answer(reply: bytes, message: str) -> None:
    framing = MbapFraming()
    framing.request(1, read(3, 0, 2), 6)
    with pytest.raises(BadReply, match=message):
        framing.feed(reply)
    assert framing.feed(mbap(1, 1, b"\x03\x04\0\0\0\0")) is None  # it had its one chance


@pytest.mark.parametrize(
    "garbage",
    [
        mbap(1, 1, b"\x03\x00", protocol=7),
        b"\0\1\0\0\xff\xff\1",
        b"\0\1\0\0\0\0\1",
        b"HTTP/1.1 400 Bad Request",
    ],
)
def test_what_is_no_modbus_tcp_ends_the_connection(garbage: bytes) -> None:
    framing = MbapFraming()
    framing.request(1, read(3, 0, 2), 6)
    with pytest.raises(LineDown, match="no Modbus TCP comes from there"):
        framing.feed(garbage)


def conversations(capture: Path) -> dict[tuple[bytes, int, bytes, int], list[bytes]]:
    """The TCP payloads of a capture (classic pcap, Ethernet, IPv4), by (source, port, destination, port)."""
    raw, at = capture.read_bytes(), 24
    streams: dict[tuple[bytes, int, bytes, int], list[bytes]] = defaultdict(list)
    while at < len(raw):
        _, _, kept, _ = struct.unpack_from("<IIII", raw, at)
        packet, at = raw[at + 16 : at + 16 + kept], at + 16 + kept
        if packet[12:14] != b"\x08\x00" or packet[23] != 6:
            continue
        ip = packet[14 : 14 + int.from_bytes(packet[16:18], "big")]
        tcp = ip[(ip[0] & 15) * 4 :]
        source, destination = struct.unpack_from(">HH", tcp)
        if payload := tcp[(tcp[12] >> 4) * 4 :]:
            streams[ip[12:16], source, ip[16:20], destination].append(payload)
    return streams


@pytest.mark.skipif(not CAPTURES, reason=f"needs captures in {DATA / 'modbus_pcap'}")
@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_captured_and_fuzzed_traffic_raises_nothing_but_our_errors(capture: Path) -> None:
    for payloads in conversations(capture).values():
        framing = MbapFraming()
        for i, payload in enumerate(payloads):
            framing._id = int.from_bytes(payload[:2], "big") - 1
            framing.request(payload[6] if len(payload) > 6 else 1, read(3 + i % 2, 0, 2), 6)
            for part in (payload, payload[:9], payload[9:]):
                try:
                    framing.feed(part)
                except WireError:
                    framing.reset()
            assert len(framing.heard) <= 64


def reply_bytes(pdu: bytes) -> int | None:
    """How long a good reply is, from the request alone."""
    count = int.from_bytes(pdu[3:5], "big")
    lengths = {1: 2 + (count + 7) // 8, 2: 2 + (count + 7) // 8, 3: 2 + 2 * count, 4: 2 + 2 * count}
    return lengths.get(pdu[0], 5 if pdu[0] in (5, 6, 15, 16) else None)


@pytest.mark.skipif(not CAPTURES, reason=f"needs captures in {DATA / 'modbus_pcap'}")
@pytest.mark.parametrize(
    ("name", "at_least"), [("zeek_modbusBig", 2770), ("zeek_modbusSmall", 16), ("cisa_modbus_example", 10)]
)
def test_conversations_of_real_plants_are_understood(name: str, at_least: int) -> None:
    """Asked as the captured client asked, each captured reply is the answer."""
    streams = conversations(DATA / "modbus_pcap" / f"{name}.pcap")
    understood = 0
    for (source, port, destination, server_port), requests in streams.items():
        if server_port != 502:
            continue
        replies = {r[:2]: r for r in streams.get((destination, 502, source, port), [])}
        for asked in requests:
            size, reply = reply_bytes(asked[7:]), replies.get(asked[:2])
            if size is None or reply is None or len(asked) != 6 + int.from_bytes(asked[4:6], "big"):
                continue
            framing = MbapFraming()
            framing._id = int.from_bytes(asked[:2], "big") - 1
            assert framing.request(asked[6], asked[7:], size) == asked
            assert framing.feed(reply) == reply[7:]
            understood += 1
    assert understood >= at_least
