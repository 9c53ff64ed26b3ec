"""What every simulated Modbus instrument shares: a request PDU in, a reply PDU out.

An instrument is a table of words, made anew for each request so that one request is one instant, plus
what may be written. Nothing here knows a wire, a unit address or a clock.
Source: MODBUS Application Protocol V1.1b3, clauses 6.1 to 6.12 and 7.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

READ_COILS: Final = 1
READ_BITS: Final = 2
READ_HOLDING: Final = 3
READ_INPUT: Final = 4

ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3

_MOST_BITS: Final = 2000  # clause 6.1
_PAIR: Final = struct.Struct(">HH")
_MANY_HEAD: Final = 6  # function, address, count, byte count

# Which byte of the big-endian number travels first, second, third and fourth.
_ORDERS: Final = {"ABCD": (0, 1, 2, 3), "CDAB": (2, 3, 0, 1), "BADC": (1, 0, 3, 2), "DCBA": (3, 2, 1, 0)}


class Refusal(Exception):
    """The instrument answers with a Modbus exception of this code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code}")
        self.code = code


def two_words(four_bytes: bytes, order: str) -> tuple[int, int]:
    """The two register words of four big-endian bytes sent in `order` (`ABCD`, `CDAB`, `BADC`, `DCBA`)."""
    high, low = struct.unpack(">HH", bytes(four_bytes[i] for i in _ORDERS[order]))
    return high, low


def f32(value: float, order: str = "ABCD") -> tuple[int, int]:
    return two_words(struct.pack(">f", value), order)


def u32(value: int, order: str = "ABCD") -> tuple[int, int]:
    return two_words(struct.pack(">I", value & 0xFFFF_FFFF), order)


class Instrument:
    """A Modbus server device. Subclasses say what they hold and what may be written."""

    reads: ClassVar[frozenset[int]] = frozenset()  # function codes of reads it knows
    max_registers: ClassVar[int] = 125

    def __init__(self) -> None:
        self.sentinel = False  # True: the sensor behind the electronics is gone

    def words(self, fn: int) -> Mapping[int, int]:
        """Address -> word (or coil) for the function code `fn`; what is absent does not exist."""
        raise NotImplementedError

    def write_word(self, at: int, value: int) -> None:  # noqa: ARG002 -- subclasses use both
        raise Refusal(ILLEGAL_FUNCTION)

    def write_coil(self, at: int, value: int) -> None:  # noqa: ARG002
        """`value` as function 5 carries it: 0xFF00 on, 0x0000 off, anything else is the vendor's own."""
        raise Refusal(ILLEGAL_FUNCTION)

    def restart(self) -> None:
        """Power is back after a cut; counters that live in memory begin anew."""

    def served(self, fn: int, at: int, count: int) -> None:
        """Called after a read was answered."""

    def answer(self, pdu: bytes) -> bytes:
        """The reply to a request PDU (function code and data), possibly an exception reply."""
        fn = pdu[0]
        try:
            return _WRITES[fn](self, pdu) if fn in _WRITES else self._read(fn, pdu)
        except Refusal as refusal:
            return bytes((fn | 0x80, refusal.code))

    def _read(self, fn: int, pdu: bytes) -> bytes:
        if fn not in self.reads:
            raise Refusal(ILLEGAL_FUNCTION)
        at, count = _pair(pdu)
        bits = fn in {READ_COILS, READ_BITS}
        if not 1 <= count <= (_MOST_BITS if bits else self.max_registers):
            raise Refusal(ILLEGAL_VALUE)
        table = self.words(fn)
        try:
            values = [table[address] for address in range(at, at + count)]
        except KeyError:
            raise Refusal(ILLEGAL_ADDRESS) from None
        body = _pack_bits(values) if bits else struct.pack(f">{count}H", *values)
        self.served(fn, at, count)
        return bytes((fn, len(body))) + body

    def _write_coil(self, pdu: bytes) -> bytes:
        at, value = _pair(pdu)
        self.write_coil(at, value)
        return pdu

    def _write_word(self, pdu: bytes) -> bytes:
        at, value = _pair(pdu)
        self.write_word(at, value)
        return pdu

    def _write_coils(self, pdu: bytes) -> bytes:
        at, count, data = _many(pdu)
        if len(data) != (count + 7) // 8:
            raise Refusal(ILLEGAL_VALUE)
        for i in range(count):
            self.write_coil(at + i, 0xFF00 if data[i // 8] >> (i % 8) & 1 else 0)
        return pdu[:5]

    def _write_words(self, pdu: bytes) -> bytes:
        at, count, data = _many(pdu)
        if len(data) != 2 * count:
            raise Refusal(ILLEGAL_VALUE)
        for i, value in enumerate(struct.unpack(f">{count}H", data)):
            self.write_word(at + i, value)
        return pdu[:5]


_WRITES: Final[Mapping[int, Callable[[Instrument, bytes], bytes]]] = {
    5: Instrument._write_coil,  # noqa: SLF001 -- the table of the class above
    6: Instrument._write_word,  # noqa: SLF001
    15: Instrument._write_coils,  # noqa: SLF001
    16: Instrument._write_words,  # noqa: SLF001
}


def _pair(pdu: bytes) -> tuple[int, int]:
    if len(pdu) != 1 + _PAIR.size:
        raise Refusal(ILLEGAL_VALUE)
    at, value = _PAIR.unpack(pdu[1:])
    return at, value


def _many(pdu: bytes) -> tuple[int, int, bytes]:
    if len(pdu) <= _MANY_HEAD or len(pdu) != _MANY_HEAD + pdu[5]:
        raise Refusal(ILLEGAL_VALUE)
    at, count = _PAIR.unpack(pdu[1:5])
    return at, count, pdu[_MANY_HEAD:]


def _pack_bits(values: list[int]) -> bytes:
    packed = bytearray((len(values) + 7) // 8)
    for i, value in enumerate(values):
        packed[i // 8] |= (1 if value else 0) << (i % 8)
    return bytes(packed)
