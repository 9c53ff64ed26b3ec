"""Frames out of what a GNSS receiver sends: NMEA, UBX, SBF and RTCM 3 in any mixture, with garbage between.

Bytes are pushed in, frames come out; nothing here touches a port. At each byte that can begin a frame the
length it declares is waited for and the checksum decides: right, and the frame is taken whole; wrong, and the
search goes on one byte further, so that a false beginning never costs a true frame behind it. What comes out
depends on the bytes alone and not on the pieces they arrive in. One exception, told by the caller's time: on
a line that has been quiet for IDLE_NS nothing more is waited for, lest a false length swallow what follows.

Held at any time: fewer than `LONGEST_BINARY` bytes. Sources: u-blox F9 interface description, 3.2 (UBX);
Septentrio SBF reference guide, 3.1; RTCM 10403.3, 4 (transport layer, CRC-24Q); IEC 61162-1 (NMEA).
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from drivers.gnss.nmea import LONGEST, Sentence, parse

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_NS = 1_500_000_000
LONGEST_BINARY = 4096  # a UBX or SBF frame that declares more is passed over; those read here have 200 bytes

_START = re.compile(rb"[$\xb5\xd3]")
_NO_TEXT = re.compile(rb"[^ -#%-~]")  # ends a sentence: a line's end, the next `$`, or no text at all
_UBX_AROUND, _SBF_HEAD, _RTCM_AROUND = 8, 8, 6


class Ubx(NamedTuple):
    """`kind` is class and id as one number: 0x0107 is NAV-PVT."""

    kind: int
    payload: bytes


class Sbf(NamedTuple):
    """`number` of the block without its revision; `body` begins with the time of week."""

    number: int
    body: bytes


class Rtcm(NamedTuple):
    """A correction message; known so that nothing inside is taken for something else."""

    payload: bytes


Message = Sentence | Ubx | Sbf | Rtcm
_Read = tuple[int, Message | None]  # bytes used, 0 for "more is needed"; the message if there is one
_MORE: _Read = (0, None)
_FALSE: _Read = (1, None)


class Framer:
    """Bytes in any pieces into messages."""

    def __init__(self) -> None:
        self._rest = b""
        self._heard_ns = 0

    def feed(self, data: bytes, at_ns: int) -> list[Message]:
        """The messages that `data`, come at `at_ns` of a monotonic clock, completes."""
        found = self.quiet(at_ns)
        self._heard_ns = at_ns
        return found + self._scan(self._rest + data)

    def quiet(self, at_ns: int) -> list[Message]:
        """The messages that a false length hides, if the line has been quiet until now."""
        return self.flush() if self._rest and at_ns - self._heard_ns > IDLE_NS else []

    def flush(self) -> list[Message]:
        """Give up what is waited for; the messages that a false length had hidden."""
        found: list[Message] = []
        while self._rest:
            found += self._scan(self._rest[1:])
        return found

    def _scan(self, data: bytes) -> list[Message]:
        found: list[Message] = []
        at = 0
        while (start := _START.search(data, at)) is not None:
            at = start.start()
            used, message = _READERS[data[at]](data, at)
            if message is not None:
                found.append(message)
            if not used:
                self._rest = data[at:]
                return found
            at += used
        self._rest = b""
        return found


def _dollar(data: bytes, at: int) -> _Read:
    if data[at + 1 : at + 2] == b"@":
        return _sbf(data, at)
    end = _NO_TEXT.search(data, at + 1)
    if end is None:
        return _MORE if len(data) - at <= LONGEST else (len(data) - at, None)
    used = end.start() - at
    return used, parse(data[at : end.start()]) if end[0] in b"\r\n" else None


def _ubx(data: bytes, at: int) -> _Read:
    head = data[at : at + 6]
    if len(head) > 1 and head[1] != 0x62:  # noqa: PLR2004 -- the second synchronisation character
        return _FALSE
    if len(head) < 6:  # noqa: PLR2004
        return _MORE
    end = at + _UBX_AROUND + int.from_bytes(head[4:6], "little")
    if end - at > LONGEST_BINARY:
        return _FALSE
    if len(data) < end:
        return _MORE
    body = data[at + 2 : end - 2]
    if data[end - 2 : end] != fletcher8(body):
        return _FALSE
    return end - at, Ubx(body[0] << 8 | body[1], body[4:])


def _sbf(data: bytes, at: int) -> _Read:
    head = data[at : at + _SBF_HEAD]
    if len(head) < _SBF_HEAD:
        return _MORE
    length = int.from_bytes(head[6:8], "little")
    if length % 4 or not _SBF_HEAD <= length <= LONGEST_BINARY:
        return _FALSE
    if len(data) < at + length:
        return _MORE
    if crc_hqx(data[at + 4 : at + length], 0) != int.from_bytes(head[2:4], "little"):
        return _FALSE
    return length, Sbf(int.from_bytes(head[4:6], "little") & 0x1FFF, data[at + 8 : at + length])


def _rtcm(data: bytes, at: int) -> _Read:
    head = data[at : at + 3]
    if len(head) > 1 and head[1] & 0xFC:  # six reserved bits
        return _FALSE
    if len(head) < 3:  # noqa: PLR2004
        return _MORE
    end = at + _RTCM_AROUND + int.from_bytes(head[1:3], "big")
    if len(data) < end:
        return _MORE
    if crc24q(data[at : end - 3]) != int.from_bytes(data[end - 3 : end], "big"):
        return _FALSE
    return end - at, Rtcm(data[at + 3 : end - 3])


_READERS: dict[int, Callable[[bytes, int], _Read]] = {0x24: _dollar, 0xB5: _ubx, 0xD3: _rtcm}


def fletcher8(body: bytes) -> bytes:
    """The two check bytes of UBX: the sum of the bytes, and the sum of the sums on the way."""
    return bytes((sum(body) & 0xFF, sum(accumulate(body)) & 0xFF))


def _crc24q_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte << 16
        for _ in range(8):
            crc = crc << 1 ^ (0x1864CFB if crc & 0x800000 else 0)
        table.append(crc)
    return tuple(table)


_CRC24Q = _crc24q_table()


def crc24q(data: bytes) -> int:
    """Qualcomm's 24-bit check of RTCM 3: polynomial 0x1864CFB, begun with 0."""
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFFFF) ^ _CRC24Q[crc >> 16 ^ byte]
    return crc
