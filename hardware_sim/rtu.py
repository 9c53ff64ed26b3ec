"""Modbus RTU without a wire: bytes in, requests out, replies framed.

Requests are cut out by the length their function code implies, not by silence: silence on a pseudo-terminal
says nothing. What does not fit (noise, a torn request) is skipped byte by byte until a checksum agrees.
Source: MODBUS over Serial Line V1.02, 2.5.1 (framing, CRC-16 with polynomial 0xA001, low byte first).
"""

from __future__ import annotations

from typing import Final

LONGEST: Final = 256  # bytes of a frame, clause 2.5.1
_FIXED: Final = dict.fromkeys((1, 2, 3, 4, 5, 6), 8)
_COUNTED: Final = frozenset({15, 16})  # data length in byte 6
_FN_AT: Final = 1
_COUNT_AT: Final = 6
_OTHER: Final = 4  # a function we do not know: the shortest frame there is


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_CRC: Final = _table()


def crc16(data: bytes) -> bytes:
    """The two bytes that end a frame, low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    return crc.to_bytes(2, "little")


def frame(unit: int, pdu: bytes) -> bytes:
    """Unit address, PDU, checksum."""
    body = bytes((unit,)) + pdu
    return body + crc16(body)


class RtuRequests:
    """Cuts requests out of what a client sends. Between calls it holds less than one frame."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The whole frames (with checksum) that `data` completes, in order."""
        self._held += data
        frames = []
        while (length := self._length()) is not None:
            if length <= LONGEST and len(self._held) < length:
                break
            candidate = bytes(self._held[:length])
            if length <= LONGEST and crc16(candidate[:-2]) == candidate[-2:]:
                frames.append(candidate)
                del self._held[:length]
            else:
                del self._held[0]
        return frames

    def drop(self) -> None:
        """Forget a request that was begun: the client has been silent for longer than any frame lasts."""
        self._held.clear()

    def _length(self) -> int | None:
        if len(self._held) <= _FN_AT:
            return None
        fn = self._held[_FN_AT]
        if fn in _COUNTED:
            return 9 + self._held[_COUNT_AT] if len(self._held) > _COUNT_AT else None
        return _FIXED.get(fn, _OTHER)
