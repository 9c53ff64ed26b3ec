"""The part of a profile that says what a reply means: blocks, sentences and their points."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import isfinite, nan
from typing import TYPE_CHECKING, Literal

from drivers.decode import ORDERS, TYPES, Decoded, Judge, Place, Type, decoder, judgement
from drivers.model import Bus, CompiledBlock, CompiledSentence, Counts, Layout, Point
from drivers.sample import Block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from drivers.table import Table

# What a device may switch between by itself; exact by definition (SI, international inch).
UNITS: dict[str, tuple[str, Fraction]] = {
    "mm": ("length", Fraction(1, 1000)),
    "cm": ("length", Fraction(1, 100)),
    "m": ("length", Fraction(1)),
    "in": ("length", Fraction(254, 10000)),
    "ft": ("length", Fraction(3048, 10000)),
    "Pa": ("pressure", Fraction(1, 1000)),
    "hPa": ("pressure", Fraction(1, 10)),
    "mbar": ("pressure", Fraction(1, 10)),
    "kPa": ("pressure", Fraction(1)),
    "bar": ("pressure", Fraction(100)),
    "psi": ("pressure", Fraction("6.894757293168361")),
}
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)\s*")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
CHECKS = ("xor8", "xor8-or-crc32")  # the form of the check says which; crc32 as ComNav and Unicore count it
_LONGEST = {1: 2000, 2: 2000, 3: 125, 4: 125}  # Modbus Application Protocol 1.1b3, 6.1 to 6.4


@dataclass(slots=True)
class _Draft:
    """A point whose references to other points are names still."""

    table: Table
    name: str
    suffix: str
    unit: str = ""
    hidden: bool = False
    counter: Counts | None = None
    place: Place | None = None
    scale: Fraction = Fraction(1)
    offset: float = 0.0
    bad: frozenset[float] = frozenset()
    decimals_in: str = ""
    code_in: str = ""
    factors: dict[int, tuple[int, int]] = field(default_factory=dict)
    ok: dict[str, frozenset[float]] = field(default_factory=dict)
    degraded: dict[str, frozenset[float]] = field(default_factory=dict)
    busy: dict[str, frozenset[float]] = field(default_factory=dict)

    @property
    def point(self) -> Point:
        return Point(self.name, self.unit, self.place, self.counter, self.hidden)

    def judge(self, index: Mapping[str, int]) -> Judge:
        """With `index` saying which number each name of the same reply is."""
        return Judge(
            times=self.scale.numerator,
            over=self.scale.denominator,
            plus=self.offset,
            bad=self.bad,
            decimals_at=self._at("decimals", self.decimals_in, index) if self.decimals_in else None,
            factor_at=self._at("unit.by", self.code_in, index) if self.code_in else None,
            factors=self.factors or None,
            ok=self._rules("ok", self.ok, index),
            degraded=self._rules("degraded", self.degraded, index),
            busy=self._rules("busy", self.busy, index),
        )

    def _rules(
        self, key: str, rules: Mapping[str, frozenset[float]], index: Mapping[str, int]
    ) -> tuple[tuple[int, frozenset[float]], ...]:
        return tuple((self._at(key, name, index), said) for name, said in rules.items())

    def _at(self, key: str, name: str, index: Mapping[str, int]) -> int:
        """`status` is the point of that name, or in a repeated point the one with the same number."""
        for candidate in (name, name + self.suffix):
            if candidate in index:
                return index[candidate]
        self.table.wrong(key, f"names {name!r}, which is no point of the same reply")
        return 0


def read_blocks(
    tables: Mapping[str, Table], points: Mapping[str, Table], bus: Bus, *, bridge_holes: bool
) -> tuple[CompiledBlock, ...]:
    """The blocks of a profile with their points; no device yet."""
    blocks = []
    for name, table in tables.items():
        fn, at = table.choice("fn", (1, 2, 3, 4)), table.whole("at", 0, 0xFFFF)
        longest = min(_LONGEST[fn], bus.max_registers) if fn in (3, 4) else _LONGEST[fn]
        n = table.whole("n", 1, longest)
        table.finish()
        mine = {p: t for p, t in points.items() if t.value("in") == name}
        drafts = [d for p, t in mine.items() for d in _of_block(p, t, bus, at, coils=fn in (1, 2))]
        drafts.sort(key=lambda d: d.hidden)  # stable: shown first, in the order of the file
        _check_layout(table, drafts, n, bridge_holes=bridge_holes)
        judges = _judges(drafts)
        places = [d.place for d in drafts if d.place is not None]
        shown = tuple(d.point for d in drafts if not d.hidden)
        if not shown:
            table.wrong("", "no point is made from it; add one or remove the block")
            continue
        size = (n + 7) // 8 if fn in (1, 2) else 2 * n
        block = Block("", name, tuple(p.name for p in shown), tuple(p.unit for p in shown))
        blocks.append(CompiledBlock(block, fn, at, n, shown, decoder(places, judges, len(shown), size)))
    return tuple(blocks)


def read_layouts(tables: Mapping[str, Table]) -> tuple[Layout, ...]:
    """The sentences of a profile whose codec understands their fields."""
    layouts = []
    for tag, table in tables.items():
        table.choice("check", CHECKS)
        fields = table.strings("fields")
        layout = Layout(tag, fields, _said(table, "ok"), _said(table, "degraded"))
        for name in {*layout.ok, *layout.degraded} - {*fields}:
            table.wrong("ok", f"names {name!r}, which is no field of the sentence")
        table.finish()
        layouts.append(layout)
    return tuple(layouts)


def read_sentences(tables: Mapping[str, Table], points: Mapping[str, Table]) -> tuple[CompiledSentence, ...]:
    """The sentences of a profile that have points."""
    sentences = []
    for tag, table in tables.items():
        table.choice("check", CHECKS)
        fields = table.strings("fields")
        ok, degraded = _said(table, "ok"), _said(table, "degraded")
        table.finish()
        mine = {p: t for p, t in points.items() if t.value("in") == tag}
        if not mine:
            continue
        drafts = [_of_sentence(p, t, fields) for p, t in mine.items()]
        spots = [fields.index(f) if f in fields else 0 for f in (t.text("at") for t in mine.values())]
        index = {d.name: i for i, d in enumerate(drafts)} | {f: len(drafts) + i for i, f in enumerate(fields)}
        status = {fields.index(f) for f in (*ok, *degraded) if f in fields}
        for draft, spot in zip(drafts, spots, strict=True):
            if spot not in status:  # the status itself is worth reading most when it is bad
                draft.ok, draft.degraded = ok | draft.ok, degraded | draft.degraded
        judges = [d.judge(index) for d in drafts]
        shown = tuple(d.point for d in drafts)
        block = Block("", tag, tuple(p.name for p in shown), tuple(p.unit for p in shown))
        decode = _sentence_decoder(spots, len(fields), judges)
        sentences.append(CompiledSentence(block, tag, shown, decode))
    return tuple(sentences)


def _sentence_decoder(
    spots: Sequence[int], count: int, judges: Sequence[Judge]
) -> Callable[[Sequence[str]], Decoded]:
    """Fields as text into numbers, those of the points first; an empty or unreadable field is NaN."""
    judge = judgement([*judges, *[Judge()] * count], len(spots))

    def decode(fields: Sequence[str]) -> Decoded:
        read = [float(f) if _NUMBER.fullmatch(f) else nan for f in fields[:count]]
        read += [nan] * (count - len(read))
        return judge([*(read[spot] for spot in spots), *read])

    return decode


def _judges(drafts: Sequence[_Draft]) -> list[Judge]:
    index = {d.name: i for i, d in enumerate(drafts)}
    return [d.judge(index) for d in drafts]


def _of_block(name: str, table: Table, bus: Bus, block_at: int, *, coils: bool) -> Iterable[_Draft]:
    """The points that one table stands for: several, where it repeats."""
    kind: Type = table.choice("type", ("bit",), "bit") if coils else table.choice("type", TYPES)
    registers = 1 if coils else TYPES[kind][1]
    if registers == 1 and "order" in table:
        table.wrong("order", "says nothing about a single register; remove it")
    order = table.choice("order", ORDERS, bus.order) if registers > 1 else "ABCD"
    table.value("order")
    bits = _bits(table, kind)
    at, repeat = table.whole("at", 0, 0xFFFF), table.whole("repeat", 1, 99, 1)
    draft = _common(name, table, kind)
    for i in range(repeat):
        suffix = numbered(i, repeat)
        place = Place(at - block_at + i * registers, kind, order, bits)
        yield replace(draft, name=name + suffix, suffix=suffix, place=place)


def _of_sentence(name: str, table: Table, fields: Sequence[str]) -> _Draft:
    if table.text("at") not in fields:
        table.wrong("at", f"must name a field of the sentence: {', '.join(fields)}")
    if "hidden" in table:
        table.wrong(
            "hidden", "says nothing here: rules name fields, and a field without a point is not shown"
        )
    return _common(name, table, "f64")


def _common(name: str, table: Table, kind: Type) -> _Draft:
    """What points of blocks and of sentences share; the table is finished here."""
    if not _NAME.fullmatch(name):
        table.wrong("", "a point's name is lower case letters, digits and _")
    draft = _Draft(table, name, "")
    table.text("in")
    draft.hidden = table.flag("hidden")
    draft.scale = Fraction(repr(table.number("scale", 1.0)))
    if not draft.scale:
        table.wrong("scale", "is 0; every value would be the offset")
    draft.offset = table.number("offset", 0.0)
    _decimals(draft, table)
    _unit(draft, table)
    draft.bad = _bad(table, kind)
    draft.ok, draft.degraded = _said(table, "ok"), _said(table, "degraded")
    draft.busy = _said(table, "busy")
    draft.counter = _counter(table)
    table.finish()
    return draft


def _decimals(draft: _Draft, table: Table) -> None:
    value = table.value("decimals")
    if isinstance(value, str):
        draft.decimals_in = value
    elif value is not None:
        draft.scale /= 10 ** table.whole("decimals", 0, 9)


def _unit(draft: _Draft, table: Table) -> None:
    """A unit, or { by = "the point that holds its code", as = "m", 0x11 = "cm", 0x12 = "m" }."""
    value = table.value("unit")
    if not isinstance(value, dict):
        draft.unit = table.text("unit", "")
        return
    units = table.table("unit")
    draft.code_in, draft.unit = units.text("by"), units.choice("as", UNITS)
    dimension, one = UNITS[draft.unit]
    for key in units.keys:
        if key in ("by", "as"):
            continue
        unit = units.choice(key, UNITS)
        factor = UNITS[unit][1] / one
        if UNITS[unit][0] != dimension:
            units.wrong(key, f"{unit} cannot be expressed in {draft.unit}; make a point of its own for it")
        try:
            draft.factors[int(key, 0)] = (factor.numerator, factor.denominator)
        except ValueError:
            units.wrong(key, "must be the number the device shows, as in 0x11")
    units.finish()


def _bad(table: Table, kind: Type) -> frozenset[float]:
    """Numbers, before scale, that mean "no value". NaN and infinities always do and may be named."""
    bad = set()
    for member in _list(table, "bad"):
        if member in ("nan", "inf") and kind in ("f32", "f64"):
            continue
        number = _as_read(member, kind) if isinstance(member, int | float) else None
        if number is None:
            table.wrong("bad", f"{member!r} is nothing a {kind} can be")
        else:
            bad.add(number)
    return frozenset(bad)


def _as_read(number: float, kind: Type) -> float | None:
    """The number as it comes from the wire: a 32-bit float is not quite the decimal one writes."""
    if kind == "bit":
        return number if number in (0, 1) else None
    try:
        (read,) = struct.unpack(TYPES[kind][0], struct.pack(TYPES[kind][0], number))
    except (struct.error, OverflowError):
        return None
    return float(read) if isinstance(number, float) else int(read)


def _said(table: Table, key: str) -> dict[str, frozenset[float]]:
    """{ status = [0, 1] }: which numbers of which points."""
    rules = {}
    group = table.table(key)
    for name in group.keys:
        members = _list(group, name)
        if not members or not all(isinstance(m, int | float) and isfinite(m) for m in members):
            group.wrong(name, "must be a list of numbers, as in [0]")
        rules[name] = frozenset(m for m in members if isinstance(m, int | float))
    return rules


def _list(table: Table, key: str) -> list[object]:
    value = table.value(key)
    if value is None or isinstance(value, list):
        return value or []
    table.wrong(key, f"must be a list, not {value!r}")
    return []


def _bits(table: Table, kind: Type) -> tuple[int, int] | None:
    """`bits = 3` is one bit, `bits = [4, 7]` a field of them; the lowest is 0."""
    value = table.value("bits")
    if value is None:
        return None
    first, last = (value[0], value[1]) if isinstance(value, list) and len(value) == 2 else (value, value)  # noqa: PLR2004 -- a pair
    width = 16 * TYPES[kind][1] if kind in ("u16", "u32", "u64") else 0
    if not (isinstance(first, int) and isinstance(last, int) and 0 <= first <= last < width):
        table.wrong("bits", f"must be a bit or [first, last] of an unsigned type, not {value!r} of a {kind}")
        return None
    return first, last


def _counter(table: Table) -> Counts | None:
    if "counter" not in table:
        table.value("counter")
        return None
    rule = table.table("counter")
    bits: Literal[16, 32] = rule.choice("bits", (16, 32))
    max_step = rule.whole("max_step", 1, 2 ** (bits - 1) - 1) if "max_step" in rule else None
    resets = rule.strings("resets") if "resets" in rule else ()
    rule.finish()
    return Counts(bits, resets, max_step)


def _check_layout(table: Table, drafts: Sequence[_Draft], n: int, *, bridge_holes: bool) -> None:
    """Every point inside the block, and no register read that none of them names."""
    named: set[int] = set()
    for draft in drafts:
        place = draft.place
        width = TYPES[place.type][1] if place is not None and place.type in TYPES else 1
        if place is None or place.at < 0 or place.at + width > n:
            draft.table.wrong("at", f"{draft.name} lies outside its block, which is one request")
        else:
            named.update(range(place.at, place.at + width))
    holes = sorted(set(range(n)) - named)
    if drafts and holes and not bridge_holes:
        table.wrong(
            "n",
            f"register {holes[0]} of the block belongs to no point; a device may refuse it: "
            "split the block, name the register in a hidden point, or set bus.bridge_holes = true",
        )


def numbered(i: int, repeat: int) -> str:
    """What a repeated name ends in: nothing, 1 .. 9, or 01 .. 99."""
    if repeat == 1:
        return ""
    return str(i + 1) if repeat <= 9 else f"{i + 1:02}"  # noqa: PLR2004 -- one digit ends there
