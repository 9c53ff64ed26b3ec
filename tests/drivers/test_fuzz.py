"""Every decoder against bytes nobody meant: no exception but the named ones, no value from nowhere, bounded memory.

`COUNT=1000000 python -m pytest -m campaign -s tests/drivers/test_fuzz.py` runs so many inputs through each decoder;
the ordinary run takes some hundreds. Inputs are true frames and texts, mutilated: bits, bytes and pieces changed,
doubled, cut, joined, in pieces of any size.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import tracemalloc
from binascii import crc_hqx
from functools import reduce
from math import isfinite, isnan
from operator import xor
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from drivers import profile
from drivers.contract import BadReply, LineDown
from drivers.framing import MbapFraming, RtuFraming
from drivers.gnss import codecs
from drivers.profile import BUILT_IN, ProfileError, read_profile
from drivers.sample import Quality
from tests.drivers.rtu_server import adu, answer, crc, data, read
from tests.drivers.test_line_tcp import reply_to

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IDS = sorted(path.stem for path in BUILT_IN.glob("*.toml"))
PROFILES = {name: profile.load(name) for name in IDS}
BLOCKS = [block for its in PROFILES.values() for block in its.compile("d").blocks]
RECEIVERS = [its for its in PROFILES.values() if its.codec]
MEASURED = 1000
LONGEST_RTU, LONGEST_MBAP, LONGEST_PIECE = 256, 260, 64

DATA = Path(os.environ.get("PONDWATCH_DATA", Path(__file__).parents[3] / "shared" / "data"))


def sentence(body: str) -> bytes:
    return f"${body}*{reduce(xor, body.encode()):02X}\r\n".encode()


def ubx(kind: bytes, payload: bytes) -> bytes:
    """u-blox F9 interface description, 3.4: two sums over everything between."""
    body = kind + len(payload).to_bytes(2, "little") + payload
    a = b = 0
    for byte in body:
        a = (a + byte) & 0xFF
        b = (b + a) & 0xFF
    return b"\xb5\x62" + body + bytes((a, b))


MESSAGES = [
    sentence("GNGGA,035030.00,3607.4074030,N,11559.2792734,E,4,29,0.5,84.123,M,-8.5,M,1.0,0001")
    + sentence("GNGST,035030.00,0.8,0.011,0.009,45.0,0.010,0.009,0.020")
    + sentence("GNRMC,035030.00,A,3607.4074030,N,11559.2792734,E,0.0,,231126,,,R,V"),
    sentence("GPNTR,035030.00,1,1.234,-0.010,0.020,0.005,0001"),
    ubx(b"\x01\x07", bytes(range(92))) + ubx(b"\x01\x3c", b"\x01" + bytes(63)) + ubx(b"\x01\x14", bytes(36)),
    b"$@" + crc_hqx(bytes.fromhex("bc0f2800") + bytes(32), 0).to_bytes(2, "little")
    + bytes.fromhex("bc0f2800") + bytes(32),
    b"2026/11/23 03:50:30.000  0.0123 -0.0045  0.0100  1 12  0.0040  0.0050  0.0090  0.0  0.0  0.0  1.0  9.9\n",
    *(path.read_bytes()[:4000] for path in sorted((DATA / "gpsd_logs").glob("*.log"))[:20]),
    *(path.read_bytes()[:4000] for path in sorted((DATA / "pyubx2_logs").glob("*.log"))[:20]),
]  # fmt: skip


def mutilated(draw: Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, or several, changed in one to four ways."""
    found = bytearray(draw.choice(seeds))
    for _ in range(draw.randint(0, 4)):
        at = draw.randrange(len(found) + 1)
        to = min(len(found), at + draw.randint(1, 12))
        match draw.randrange(7):
            case 0 if found:
                found[at % len(found)] ^= 1 << draw.randrange(8)
            case 1:
                found[at:to] = draw.randbytes(draw.randint(0, 12))
            case 2:
                del found[at:to]
            case 3:
                found[at:at] = found[at:to] * draw.randint(1, 3)
            case 4:
                found += draw.choice(seeds)
            case 5:
                del found[at:]
            case _:
                found[at:to] = bytes((draw.choice((0, 0xFF, 0x24, 0xB5, 0xD3, 0x7F, 0x80)),)) * (to - at)
    return bytes(found)


def pieces(draw: Random, stream: bytes) -> list[bytes]:
    found = []
    while stream:
        size = draw.randint(1, LONGEST_PIECE)
        found.append(stream[:size])
        stream = stream[size:]
    return found


# -- one input each ----------------------------------------------------------------------------------


def rtu(draw: Random) -> None:
    """What comes out stood in the stream, whole, with its checksum, from the unit and function asked."""
    unit, fn, at, count = draw.randint(1, 247), draw.choice((3, 4)), draw.randrange(99), draw.randint(1, 125)
    framing = RtuFraming()
    request = framing.request(unit, read(fn, at, count), 2 + 2 * count)
    reply = answer(request)
    seeds = (reply, request, adu(unit, bytes((fn | 0x80, 2))), adu(unit ^ 1, reply[1:-2]), draw.randbytes(9))
    stream = mutilated(draw, seeds)
    for piece in pieces(draw, stream):
        found = framing.feed(piece)
        assert len(framing._buffer) < LONGEST_RTU + LONGEST_PIECE
        if found is not None:
            frame = bytes((unit,)) + found
            assert frame + crc(frame) in stream
            assert found[0] & 0x7F == fn
            assert found[0] & 0x80 or (found[1] == 2 * count and len(found) == 2 + 2 * count)
            assert framing.feed(b"\x01" * 300) is None


def mbap(draw: Random) -> None:
    """What comes out carries the id of the question and its shape, or the stream is given up by name."""
    unit, at, count = draw.randint(0, 255), draw.randrange(99), draw.randint(1, 125)
    framing = MbapFraming()
    for _ in range(draw.randint(0, 2)):
        framing.request(unit, read(3, at, 1), 4)
    request = framing.request(unit, read(3, at, count), 2 + 2 * count)
    seeds = (reply_to(request), request, request[:6] + bytes((unit, 0x83, 2)), draw.randbytes(9))
    stream = mutilated(draw, seeds)
    for piece in pieces(draw, stream):
        try:
            found = framing.feed(piece)
        except BadReply:
            continue
        except LineDown:
            assert framing.heard == b""
            return
        assert len(framing._buffer) < LONGEST_MBAP + LONGEST_PIECE
        if found is not None:
            head = request[:2] + b"\0\0" + (1 + len(found)).to_bytes(2, "big") + request[6:7]
            assert head + found in stream
            assert found[0] == 0x83 or (found[:2] == bytes((3, 2 * count)) and len(found) == 2 + 2 * count)


def block(draw: Random) -> None:
    """Any bytes of the right length decode to as many numbers as points, missing where they are bad."""
    its = draw.choice(BLOCKS)
    size = its.data_bytes + draw.choice((0, 0, 0, 0, -1, 1))
    seeds = (bytes(size), b"\xff" * size, draw.randbytes(size), data(1, 3, 0, (size + 1) // 2)[:size])
    held = (mutilated(draw, seeds) + bytes(size))[:size]
    try:
        numbers, values, qualities = its.decode(held)
    except BadReply:
        assert size != its.data_bytes
        return
    assert size == its.data_bytes
    assert len(numbers) == len(values) == len(qualities) == len(its.points)
    for value, quality in zip(values, qualities, strict=True):
        assert isnan(value) == Quality(quality).is_bad
        assert isnan(value) or isfinite(value)


def text(draw: Random) -> None:
    """A spoilt profile is refused with its mistakes, or is one."""
    name = draw.choice(IDS)
    spoilt = mutilated(draw, [(BUILT_IN / f"{name}.toml").read_bytes()])
    with contextlib.suppress(ProfileError):
        read_profile(spoilt, name, name).compile("d")


def gnss(draw: Random) -> None:
    """Whatever a receiver sends, in any pieces, at any pace."""
    decoder, now_ns = codecs.decoder(draw.choice(RECEIVERS)), 0
    for piece in pieces(draw, mutilated(draw, MESSAGES) + mutilated(draw, MESSAGES)):
        now_ns += draw.choice((0, 1_000_000, 2_000_000_000))
        list(decoder.feed(piece, now_ns))
    list(decoder.flush())


DECODERS = pytest.mark.parametrize(
    "decode", [rtu, mbap, block, text, gnss], ids=lambda decode: decode.__name__
)


@DECODERS
def test_mutilated_input_is_refused_by_name_or_decoded_truly(decode: Callable[[Random], None]) -> None:
    for seed in range(30 if decode is text else 400):
        decode(Random(seed))


@pytest.mark.campaign
@DECODERS
def test_a_great_deal_of_mutilated_input(decode: Callable[[Random], None]) -> None:
    """Memory is measured at the end, when every cache has been filled."""
    count = int(os.environ.get("COUNT") or 100_000) // (20 if decode is text else 1)
    begun = time.monotonic()
    for seed in range(count):
        decode(Random(seed))
    per_s = count / (time.monotonic() - begun)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for seed in range(count, count + MEASURED):
        decode(Random(seed))
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    sys.stdout.write(
        f"{decode.__name__}: {count + MEASURED:,} inputs, {per_s:,.0f}/s; of the last {MEASURED:,} "
        f"{after - before:,} bytes were kept, {peak:,} held at most\n"
    )
    assert after - before < 200_000
    assert peak < 5_000_000
