"""Bytes of a reply into numbers, values and qualities: pure, compiled once for each block.

The block is the unit: where its layout allows, one Struct unpacks it whole. Word orders need no code of
their own: with ABCD the four bytes of a number written high first, `CDAB` becomes little-endian once the
two bytes of each register are swapped, `DCBA` is little-endian as it stands, and `BADC` big-endian once
swapped. A reply without anything to remark on passes two tests (all finite, none of the numbers that
mean "no value") and one list comprehension; only what fails them is looked at number by number.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

from drivers.contract import BadReply
from drivers.sample import Quality

if TYPE_CHECKING:
    from collections.abc import Mapping

Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]
Type = Literal["u16", "s16", "u32", "s32", "f32", "u64", "s64", "f64", "bit"]
Decoded = tuple[Sequence[float], Sequence[float], bytes]

ORDERS: tuple[Order, ...] = ("ABCD", "CDAB", "BADC", "DCBA")
# The struct code and the number of registers of each type.
TYPES: dict[Type, tuple[str, int]] = {
    "u16": ("H", 1), "s16": ("h", 1), "u32": ("I", 2), "s32": ("i", 2), "f32": ("f", 2),
    "u64": ("Q", 4), "s64": ("q", 4), "f64": ("d", 4),
}  # fmt: skip
# How each order is unpacked: are the bytes of each register swapped first, and as which byte order.
_LAYOUT: dict[Order, tuple[bool, str]] = {
    "ABCD": (False, ">"),
    "CDAB": (True, "<"),
    "BADC": (True, ">"),
    "DCBA": (False, "<"),
}
_MOST_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Place:
    """Where a number stands in the data bytes: register (or bit) within the block, and bits of it."""

    at: int
    type: Type
    order: Order = "ABCD"
    bits: tuple[int, int] | None = None  # first and last bit, counted from the lowest


@dataclass(frozen=True, slots=True)
class Judge:
    """What is said of one number: value = number x times / over + plus, and when it is not to be believed.

    `decimals_at` and `factor_at` are indices of other numbers of the same reply: how many decimals this
    one has, and the code of its unit, which `factors` turns into (times, over). `busy`, `ok` and
    `degraded` are pairs of an index and the numbers that mean so; `ok` must hold throughout, of the others
    one is enough.
    """

    times: int = 1
    over: int = 1
    plus: float = 0.0
    bad: frozenset[float] = frozenset()
    decimals_at: int | None = None
    factor_at: int | None = None
    factors: Mapping[int, tuple[int, int]] | None = None
    ok: tuple[tuple[int, frozenset[float]], ...] = ()
    degraded: tuple[tuple[int, frozenset[float]], ...] = ()
    busy: tuple[tuple[int, frozenset[float]], ...] = ()

    @property
    def is_fixed(self) -> bool:
        return self.decimals_at is None and self.factor_at is None


def decoder(
    places: Sequence[Place], judges: Sequence[Judge], visible: int, size: int
) -> Callable[[bytes], Decoded]:
    """A function from the data bytes of a reply to the numbers, values and qualities of its points.

    Args:
        places: where each number stands; the first `visible` are the block's points, the rest hidden.
        judges: what is said of each, parallel to `places`.
        visible: how many of them are shown.
        size: how many data bytes a reply has.

    Raises (the function returned):
        BadReply: the data have another length.
    """
    unpack = _unpacker(places)
    judge = judgement(judges, visible)

    def decode(data: bytes) -> Decoded:
        if len(data) != size:
            raise BadReply(f"{len(data)} data bytes came, {size} belong to this request")
        return judge(unpack(data))

    return decode


def judgement(judges: Sequence[Judge], visible: int) -> Callable[[Sequence[float]], Decoded]:
    """A function from the numbers of a reply to what is made of them; see `decoder`."""
    scale = _scaler(judges[:visible])
    good = bytes((Quality.GOOD,)) * visible
    sentinels = frozenset().union(*(j.bad for j in judges))
    rules = [(at, allowed, True) for j in judges for at, allowed in j.ok]
    rules += [(at, said, False) for j in judges for at, said in (*j.degraded, *j.busy)]
    expected = tuple(dict.fromkeys(rules))  # once each, in order
    always_slow = not all(j.is_fixed for j in judges)

    def judge(numbers: Sequence[float]) -> Decoded:
        if always_slow or not isfinite(sum(numbers)) or not sentinels.isdisjoint(numbers):
            return one_by_one(numbers)
        for at, said, wanted in expected:
            if (numbers[at] in said) is not wanted:
                return one_by_one(numbers)
        shown = numbers[:visible]
        return shown, scale(shown), good

    def one_by_one(numbers: Sequence[float]) -> Decoded:
        shown = numbers[:visible]
        pairs = [_one(j, n, numbers) for j, n in zip(judges, shown, strict=False)]  # hidden ones come last
        return shown, [value for value, _ in pairs], bytes(quality for _, quality in pairs)

    return judge


def _one(judge: Judge, number: float, numbers: Sequence[float]) -> tuple[float, Quality]:
    """Value and quality of one number; the slow, plain way that the fast one must agree with."""
    quality = _standing(judge, number, numbers)
    if quality >= Quality.NO_REPLY:
        return nan, quality
    times, over = judge.times, judge.over
    if judge.decimals_at is not None:
        decimals = numbers[judge.decimals_at]
        if not 0 <= decimals <= _MOST_DECIMALS:
            return nan, Quality.SENSOR_FAULT
        over *= 10 ** int(decimals)
    if judge.factor_at is not None and judge.factors is not None:
        code = numbers[judge.factor_at]
        if code not in judge.factors:  # the device measures something else, or has lost its settings
            return nan, Quality.SENSOR_FAULT
        unit_times, unit_over = judge.factors[int(code)]
        times, over = times * unit_times, over * unit_over
    return number * times / over + judge.plus, quality


def _standing(judge: Judge, number: float, numbers: Sequence[float]) -> Quality:
    """What the number itself and the status beside it say of it: GOOD, DEGRADED, or why it is none."""
    if judge.busy and any(numbers[at] in said for at, said in judge.busy):
        return Quality.BUSY  # whatever stands there is of no measurement
    if not isfinite(number):
        return Quality.NOT_A_NUMBER
    if number in judge.bad:
        return Quality.SENTINEL
    if judge.ok or judge.degraded:  # asked first, for a reply with one missing channel is an everyday thing
        if any(numbers[at] in said for at, said in judge.degraded):
            return Quality.DEGRADED
        if not all(numbers[at] in said for at, said in judge.ok):
            return Quality.SENSOR_FAULT
    return Quality.GOOD


def _scaler(judges: Sequence[Judge]) -> Callable[[Sequence[float]], Sequence[float]]:
    """Numbers into values, all of them good. Scales are fractions: 12569 / 10 is 1256.9 to the last bit."""
    laws = [(j.times, j.over, j.plus) for j in judges]
    if all(law == (1, 1, 0.0) for law in laws):
        return lambda numbers: numbers
    if len(set(laws)) == 1:
        times, over, plus = laws[0]
        return lambda numbers: [n * times / over + plus for n in numbers]
    return lambda numbers: [
        n * times / over + plus for n, (times, over, plus) in zip(numbers, laws, strict=True)
    ]


def _unpacker(places: Sequence[Place]) -> Callable[[bytes], Sequence[float]]:
    if all(p.type == "bit" for p in places):
        spots = [(p.at >> 3, p.at & 7) for p in places]  # Modbus 1.1b3, 6.1: first coil in the lowest bit
        return lambda data: [data[byte] >> bit & 1 for byte, bit in spots]
    cells = sorted({(p.at, p.type, p.order) for p in places})
    parts = _parts(cells)
    where = {cell: i for i, cell in enumerate(cell for part in parts for cell in part[2])}
    gather = _gatherer([where[p.at, p.type, p.order] for p in places], len(where))
    read = _reader([(swap, struct.Struct(_format(endian, members))) for swap, endian, members in parts])
    fields = [(i, p.bits[0], (1 << (p.bits[1] - p.bits[0] + 1)) - 1) for i, p in enumerate(places) if p.bits]
    if not fields:
        return lambda data: gather(read(data))

    def unpack(data: bytes) -> Sequence[float]:
        numbers = list(gather(read(data)))
        for i, shift, mask in fields:
            numbers[i] = int(numbers[i]) >> shift & mask
        return numbers

    return unpack


_Cell = tuple[int, Type, Order]


def _parts(cells: Sequence[_Cell]) -> list[tuple[bool, str, list[_Cell]]]:
    """Cells that one Struct can unpack together: one layout, none of them overlapping.

    A 16-bit number is written high byte first whatever the order of the words, and that is what both
    ABCD and CDAB make of it; so it joins whichever of the two is there.
    """
    parts: list[tuple[bool, str, list[_Cell]]] = []
    wide = sorted(cells, key=lambda cell: TYPES[cell[1]][1] == 1)  # 16-bit cells last
    for cell in wide:
        _, kind, order = cell
        fitting = (_LAYOUT["ABCD"], _LAYOUT["CDAB"]) if TYPES[kind][1] == 1 else (_LAYOUT[order],)
        for swap, endian, members in parts:
            if (swap, endian) in fitting and not any(_overlap(cell, other) for other in members):
                members.append(cell)
                break
        else:
            parts.append((*fitting[0], [cell]))
    for _, _, members in parts:
        members.sort()
    return parts


def _overlap(one: _Cell, other: _Cell) -> bool:
    return one[0] < other[0] + TYPES[other[1]][1] and other[0] < one[0] + TYPES[one[1]][1]


def _format(endian: str, members: Sequence[_Cell]) -> str:
    text, at = endian, 0
    for start, kind, _ in members:
        code, registers = TYPES[kind]
        text += "xx" * (start - at) + code
        at = start + registers
    return text


def _reader(structs: Sequence[tuple[bool, struct.Struct]]) -> Callable[[bytes], tuple[float, ...]]:
    """Bytes into all numbers of all parts. Trailing registers that nobody wants are left unread."""
    if len(structs) == 1:
        swap, whole = structs[0]
        unpack_from = whole.unpack_from
        return (lambda data: unpack_from(_swapped(data))) if swap else unpack_from
    if any(swap for swap, _ in structs):
        ways = [(swap, part.unpack_from) for swap, part in structs]

        def read(data: bytes) -> tuple[float, ...]:
            swapped = _swapped(data)
            return tuple(n for swap, part in ways for n in part(swapped if swap else data))

        return read
    return lambda data: tuple(n for _, part in structs for n in part.unpack_from(data))


def _swapped(data: bytes) -> array[int]:
    """The two bytes of each register changed places."""
    words = array("H", data)
    words.byteswap()
    return words


def _gatherer(order: Sequence[int], count: int) -> Callable[[tuple[float, ...]], Sequence[float]]:
    if list(order) == list(range(count)):
        return lambda numbers: numbers
    if len(order) == 1:
        (only,) = order
        return lambda numbers: (numbers[only],)
    return itemgetter(*order)
