"""Modbus framings without any wire: requests to bytes, bytes to the one reply that answers them.

An RTU reply names no request. What can be checked is checked: unit, function, byte count, checksum, and
for writes the echoed address and value. A TCP reply carries the request's id, and that is checked too.

Sources: Modbus over Serial Line 1.02, 2.5.1; Modbus Messaging on TCP/IP 1.0b, 3.1.3; Modbus Application
Protocol 1.1b3, 6 and 7. The checksum is pymodbus's, see docs/decisions/0001-modbus-on-our-own-line.md.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Protocol

from pymodbus.framer.rtu import FramerRTU

from drivers.contract import BadReply, Busy, LineDown, NoReply, Refused, WireError

_EXCEPTION_BIT = 0x80
_EXCEPTION_BYTES = 2
_CRC_BYTES = 2
_HEARD_MAX = 64
_MBAP = Struct(">HHHB")
_LENGTH_MIN, _LENGTH_MAX = 3, 254  # unit and a reply of 2..253 bytes

_MEANING = {
    1: "it does not know this function",
    2: "it has no such address",
    3: "it does not accept this value or count",
    4: "it failed while doing it",
    5: "it has begun and needs time",
    6: "it is busy",
    8: "its memory has a parity error",
    10: "the gateway has no path to it",
    11: "the gateway heard nothing from it",
}
_LATER = frozenset({5, 6})
_BEYOND_GATEWAY = frozenset({10, 11})


class ModbusRefused(Refused):
    """A Modbus exception; `code` as in Application Protocol 1.1b3, section 7."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class ModbusBusy(Busy):
    """Exception 5 or 6."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def error_of(unit: int, reply: bytes) -> WireError | None:
    """What an exception reply means, or None for an ordinary reply.

    Codes 10 and 11 are a gateway's word for silence: a NoReply, so that a dead unit is said to be one and
    backs off.
    """
    if not reply[0] & _EXCEPTION_BIT:
        return None
    code = reply[1]
    text = f"unit {unit} answered exception {code}: {_MEANING.get(code, 'a code of its own')}"
    if code in _BEYOND_GATEWAY:
        return NoReply(text)
    return ModbusBusy(text, code) if code in _LATER else ModbusRefused(text, code)


@lru_cache(maxsize=1024)
def fixed_head(pdu: bytes, reply_bytes: int) -> bytes:
    """The first bytes that any good reply to `pdu` must have; the rest is what we asked for."""
    function = pdu[0]
    match function:
        case 1 | 2 | 3 | 4 | 23:
            return bytes((function, reply_bytes - 2))
        case 5 | 6:
            return pdu
        case 15 | 16:
            return pdu[:5]
        case _:
            return pdu[:1]


class Framing(Protocol):
    """One request under way at most; `feed` takes whatever the wire brings, at any time."""

    @property
    def names_requests(self) -> bool:
        """Whether a reply carries its request's id, so that a late one is nobody else's."""
        ...

    @property
    def owes(self) -> bool:
        """Whether the reply to the last request has not come yet."""
        ...

    @property
    def heard(self) -> bytes:
        """What came since the request and was no answer, in part; for the message."""
        ...

    def reset(self) -> None:
        """A new connection: nothing is under way, nothing is half received."""
        ...

    def request(self, unit: int, pdu: bytes, reply_bytes: int) -> bytes:
        """The bytes to send; from now on only their reply counts (of `reply_bytes`, function code first)."""
        ...

    def feed(self, data: bytes) -> bytes | None:
        """The reply (function code first; possibly an exception), once; None while there is none.

        Raises:
            BadReply: the request was answered, wrongly.
            LineDown: the stream cannot be understood any more.
        """
        ...


class RtuFraming:
    """RTU, on a serial line or through a serial server that passes bytes (RTU over TCP)."""

    names_requests = False

    def __init__(self) -> None:
        self.reset()

    @property
    def owes(self) -> bool:
        return bool(self._request)

    def reset(self) -> None:
        self._buffer = bytearray()
        self._request = b""  # empty: nothing is under way
        self._echoing = False
        self.heard = b""

    def request(self, unit: int, pdu: bytes, reply_bytes: int) -> bytes:
        body = bytes((unit,)) + pdu
        adu = body + FramerRTU.compute_CRC(body).to_bytes(_CRC_BYTES, "big")
        self._buffer.clear()
        self.heard = b""
        if unit == 0:  # a broadcast is answered by nobody
            self._request = b""
            return adu
        self._request = adu
        self._echo_possible = True
        self._unit = bytes((unit,))
        self._head = self._unit + fixed_head(pdu, reply_bytes)
        self._size = 1 + reply_bytes + _CRC_BYTES
        self._refusal = bytes((unit, pdu[0] | _EXCEPTION_BIT))
        # The reply to a single write is the request once more: only a known echo may be taken off.
        self._reply_is_echo = self._head == body
        return adu

    def feed(self, data: bytes) -> bytes | None:
        if not self._request:
            return None
        if len(self.heard) < _HEARD_MAX:
            self.heard = (self.heard + data)[:_HEARD_MAX]
        self._buffer += data
        if self._may_be_echo():
            return None
        reply = self._search()
        if reply is not None:
            self._request = b""
            self._buffer.clear()
        return reply

    def _may_be_echo(self) -> bool:
        """Take our own request off the front: some two-wire adapters hear themselves.

        Returns True while it may still become that: wait for the rest.
        """
        if not self._echo_possible:
            return False
        adu = self._request
        if len(self._buffer) < len(adu):
            return adu.startswith(self._buffer)
        self._echo_possible = False
        echoed = self._buffer.startswith(adu)
        if not self._reply_is_echo:
            self._echoing = echoed
        if echoed and self._echoing:
            del self._buffer[: len(adu)]
            self.heard = self.heard[len(adu) :]
        return False

    def _search(self) -> bytes | None:
        """The first complete frame that can be the reply; what cannot begin one is dropped.

        While an earlier place may still become the reply, a later one waits: the data of a reply are
        never searched for replies. So the buffer holds less than one frame beside the newest bytes.
        """
        buffer, at = self._buffer, 0
        while (at := buffer.find(self._unit, at)) >= 0:
            size = self._size_at(at)
            if size and len(buffer) - at < size:
                del buffer[:at]
                return None
            if size:
                end = at + size - _CRC_BYTES
                body = bytes(buffer[at:end])
                if FramerRTU.compute_CRC(body) == int.from_bytes(buffer[end : at + size], "big"):
                    return body[1:]
            at += 1
        buffer.clear()
        return None

    def _size_at(self, at: int) -> int:
        """How long the frame at `at` is if it is the reply; 0: it cannot be."""
        here = self._buffer[at : at + len(self._head)]
        if self._head.startswith(here):
            return self._size
        if self._refusal.startswith(here[:2]):
            return 1 + _EXCEPTION_BYTES + _CRC_BYTES
        return 0


class MbapFraming:
    """Modbus TCP: a header with id, protocol, length and unit before each reply."""

    names_requests = True

    def __init__(self) -> None:
        self._id = 0
        self.reset()

    def reset(self) -> None:
        self._buffer = b""
        self._open = False

    @property
    def owes(self) -> bool:
        return self._open

    @property
    def heard(self) -> bytes:
        """The beginning of a reply that never became whole."""
        return self._buffer[:_HEARD_MAX]

    def request(self, unit: int, pdu: bytes, reply_bytes: int) -> bytes:
        self._id = (self._id + 1) & 0xFFFF
        self._unit, self._size, self._function = unit, reply_bytes, pdu[0]
        self._head = fixed_head(pdu, reply_bytes)
        self._open = True
        return _MBAP.pack(self._id, 0, 1 + len(pdu), unit) + pdu

    def feed(self, data: bytes) -> bytes | None:
        buffer = self._buffer + data if self._buffer else data
        reply = None
        while len(buffer) >= _MBAP.size:
            identity, protocol, length, unit = _MBAP.unpack_from(buffer)
            if protocol or not _LENGTH_MIN <= length <= _LENGTH_MAX:
                self.reset()
                raise LineDown(f"no Modbus TCP comes from there: {buffer[:16].hex(' ')}")
            end = _MBAP.size - 1 + length
            if len(buffer) < end:
                break
            pdu, buffer = buffer[_MBAP.size : end], buffer[end:]
            if self._open and identity == self._id:
                self._open = False
                self._buffer = buffer
                self._check(unit, pdu)
                reply = pdu
        self._buffer = buffer
        return reply

    def _check(self, unit: int, pdu: bytes) -> None:
        if unit != self._unit:
            raise BadReply(f"the reply comes from unit {unit}, asked was unit {self._unit}")
        refused = pdu[0] == self._function | _EXCEPTION_BIT and len(pdu) == _EXCEPTION_BYTES
        if not refused and not (pdu.startswith(self._head) and len(pdu) == self._size):
            raise BadReply(
                f"unit {unit} answered {len(pdu)} bytes beginning {pdu[:8].hex(' ')}; "
                f"expected were {self._size} beginning {self._head.hex(' ')}"
            )
