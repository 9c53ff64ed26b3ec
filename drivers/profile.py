"""Device profiles: what a device model answers, as data (TOML), read strictly.

A profile says which requests there are (blocks), which numbers stand in their replies (points), when a
number is not to be believed, in what cycle the device wants to be asked, and what may be written to it.
It holds the golden frames that prove it. Nothing in it is evaluated, and every mistake is reported at
once. How the device is reached (RTU, TCP, a serial stream) is the site's business.

The format is described in `drivers/profiles/README.md`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from drivers.decode import ORDERS
from drivers.gnss import codecs
from drivers.gnss import sentences as gnss_sentences
from drivers.model import (
    OWN_UNIT,
    Bus,
    CompiledBlock,
    CompiledProfile,
    CompiledSentence,
    DiscardStep,
    Identity,
    Layout,
    Point,
    Profile,
    Proof,
    ReadStep,
    Source,
    Speaks,
    Step,
    Trust,
    WaitStep,
    Write,
    WriteStep,
)
from drivers.points import numbered, read_blocks, read_layouts, read_sentences
from drivers.table import Table, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "BUILT_IN",
    "Bus",
    "CompiledBlock",
    "CompiledProfile",
    "CompiledSentence",
    "DiscardStep",
    "Identity",
    "Point",
    "Profile",
    "ProfileError",
    "Proof",
    "ReadStep",
    "Source",
    "WaitStep",
    "Write",
    "WriteStep",
    "identities",
    "load",
    "read_profile",
]

BUILT_IN = Path(__file__).parent / "profiles"
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
MOST_IDENTITY = 8
CODECS = ("", *codecs.CODECS)  # dialects whose meaning is code: drivers/gnss
_HEX = ("modbus", "ubx", "sbf")  # what a proof writes as bytes


class ProfileError(Exception):
    """A profile cannot be used; `problems` has each mistake with its key and the remedy."""

    def __init__(self, file: str, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"{file}: {p}" for p in problems))
        self.problems = tuple(problems)


def load(id: str, folders: Sequence[Path] = ()) -> Profile:  # noqa: A002 -- it is called so in the file
    """The profile of this id, from the first of `folders` that has it, or else from those we ship.

    Raises:
        ProfileError: there is no such profile (with the nearest id), or it has mistakes (with all of them).
    """
    places = (*folders, BUILT_IN)
    if _ID.fullmatch(id):
        for folder in places:
            path = folder / f"{id}.toml"
            if path.is_file():
                return read_profile(path.read_bytes(), path.stem, str(path))
    known = sorted(path.stem for folder in places for path in folder.glob("*.toml"))
    raise ProfileError(id, [f"no such profile{nearest(id, known)}; there are {', '.join(known)}"])


def identities() -> dict[str, Identity]:
    """Of every profile we ship that says by which registers its device is known."""
    known = (load(path.stem) for path in sorted(BUILT_IN.glob("*.toml")))
    return {profile.id: profile.identity for profile in known if profile.identity is not None}


def read_profile(text: bytes, name: str, file: str) -> Profile:
    """The profile that `text` holds; `name` is what its id must be, `file` how mistakes are addressed.

    Raises:
        ProfileError: with every mistake found.
    """
    problems: list[str] = []
    try:
        table = Table(tomllib.loads(text.decode()), "", problems)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(file, [f"is not TOML: {error}"]) from None
    profile = _profile(table, name)
    table.finish()
    if problems:
        raise ProfileError(file, problems)
    return profile


def _profile(table: Table, name: str) -> Profile:
    if table.whole("schema", 1, 1) == 1 and table.text("id") != name:
        table.wrong("id", f"must be the file's name, {name!r}")
    title = table.text("title")
    sources = tuple(_source(t) for t in table.array("source"))
    if not sources:
        table.wrong(
            "source", 'is missing; say where the facts come from: [{ doc = "...", trust = "manual" }]'
        )
    speaks: Speaks = table.choice("speaks", get_args(Speaks))
    codec = table.choice("codec", CODECS, "")
    bus_table = table.table("bus")
    bus = _bus(bus_table)
    bus_table.finish()
    points = table.named("point")
    blocks = read_blocks(table.named("block"), points, bus, bridge_holes=bus.bridge_holes)
    sentences = () if codec else read_sentences(table.named("sentence"), points)
    layouts = read_layouts(table.named("sentence")) if codec else ()
    if codec:
        _codec(table, codec, speaks, layouts)
    for point in points.values():
        if point.value("in") not in (*table.table("block").keys, *table.table("sentence").keys):
            point.wrong("in", "names no block and no sentence of this profile")
    names = [p.name for b in blocks for p in b.points] + [p.name for s in sentences for p in s.points]
    for twice in sorted({name for name in names if names.count(name) > 1}):
        table.wrong("point", f"{twice} is named twice; rename one")
    if (speaks == "modbus") != bool(blocks) or (speaks == "lines") != bool(table.table("sentence").keys):
        table.wrong("speaks", "modbus needs [block.*] and no [sentence.*], lines the other way round")
    if not codec and speaks not in ("modbus", "lines"):
        table.wrong("codec", f"is missing: what {speaks} means is code")
    writes = _writes(table.named("write"), blocks)
    steps = _steps(table.table("cycle"), {b.block.name: b for b in blocks}, writes)
    proofs = tuple(_proof(t, bus, speaks) for t in table.array("proof"))
    identity = _identity(table.table("identity")) if "identity" in table else None
    return Profile(
        name, title, sources, speaks, codec, bus, blocks, sentences, steps, writes, proofs, identity, layouts
    )


def _codec(table: Table, codec: str, speaks: Speaks, layouts: Sequence[Layout]) -> None:
    """What a profile whose lines or frames are understood by code cannot say, or must."""
    if codecs.CODECS[codec].speaks != speaks:
        table.wrong("speaks", f"{codec} is for {codecs.CODECS[codec].speaks}")
    if table.table("point").keys:
        table.wrong("point", f"has no place here: {codec} has its own points")
    if codec == "gnss-sentences":
        for problem in gnss_sentences.problems(layouts):
            table.wrong("sentence", problem)


def _source(table: Table) -> Source:
    source = Source(table.text("doc"), table.text("url", ""), table.choice("trust", get_args(Trust)))
    table.finish()
    return source


def _bus(table: Table) -> Bus:
    timeout_s = table.duration_s("timeout", 1.0)
    return Bus(
        serial=table.text("serial", "9600 8N1"),
        unit=table.whole("unit", 1, 255, 1),
        order=table.choice("order", ORDERS, "ABCD"),
        timeout_s=timeout_s,
        # Unless the maker says better, a reply may come as late again as one is waited for.
        slowest_reply_s=table.duration_s("slowest_reply", 2 * timeout_s),
        gap_s=table.duration_s("gap", 0.0),
        turnaround_s=table.duration_s("turnaround", 0.0),
        wake_s=table.duration_s("wake", 0.0),
        period_min_s=table.duration_s("period_min", 0.0),
        max_registers=table.whole("max_registers", 1, 125, 125),
        bridge_holes=table.flag("bridge_holes"),
    )


def _writes(tables: Mapping[str, Table], blocks: Sequence[CompiledBlock]) -> dict[str, Write]:
    shown = {point.name for block in blocks for point in block.points}
    writes: dict[str, Write] = {}
    for base, table in tables.items():
        repeat = table.whole("repeat", 1, 99, 1)
        at, verify = table.whole("at", 0, 0xFFFF), table.text("verify", "")
        fn: Literal[5, 6, 16] = table.choice("fn", (5, 6, 16))
        on, off, value = (
            table.whole(key, 0, 0xFFFF) if key in table else None for key in ("on", "off", "value")
        )
        for key in ("on", "off", "value"):
            table.value(key)
        danger, broadcast = table.text("danger", ""), table.flag("broadcast")
        for i in range(repeat):
            suffix = numbered(i, repeat)
            if verify and verify + suffix not in shown:
                table.wrong("verify", f"{verify + suffix!r} is no point of this profile")
            seen = verify + suffix if verify else ""
            writes[base + suffix] = Write(base + suffix, fn, at + i, on, off, value, seen, danger, broadcast)
        table.finish()
    return writes


def _steps(
    table: Table, blocks: Mapping[str, CompiledBlock], writes: Mapping[str, Write]
) -> tuple[Step, ...]:
    """The cycle; without one every block is read, in the order of the file."""
    steps = tuple(_step(t, blocks, writes) for t in table.array("steps"))
    table.finish()
    return tuple(s for s in steps if s is not None) or tuple(ReadStep(b) for b in blocks.values())


def _step(table: Table, blocks: Mapping[str, CompiledBlock], writes: Mapping[str, Write]) -> Step | None:
    step: Step | None = None
    if "write" in table and writes:
        write = writes[table.choice("write", writes)]
        step = WriteStep(write, table.whole("value", 0, 0xFFFF, write.value))
    elif "wait" in table:
        step = WaitStep(table.duration_s("wait"))
    elif "discard" in table and blocks:
        step = DiscardStep(blocks[table.choice("discard", blocks)])
    elif "read" in table and blocks:
        step = ReadStep(blocks[table.choice("read", blocks)])
    else:
        table.wrong("", 'is no step; write one of { write = "W", value = 1 }, { wait = "500 ms" }, '
                    '{ discard = "X" }, { read = "X" }')  # fmt: skip
    table.finish()
    return step


def _proof(table: Table, bus: Bus, speaks: Speaks) -> Proof:
    rx, tx = table.text("rx"), table.text("tx", None if speaks == "modbus" else "")
    expect: dict[str, float | str] = {}
    wanted = table.table("expect")
    for name in wanted.keys:
        value = wanted.value(name)
        if value != "bad" and (isinstance(value, bool) or not isinstance(value, int | float)):
            wanted.wrong(name, f'must be a number or "bad", not {value!r}')
        elif isinstance(value, int | float | str):
            expect[name] = value
    if not expect:
        table.wrong("expect", "is missing; say what the reply decodes to")
    proof = Proof(table.whole("unit", 0, 255, bus.unit), b"", rx.encode(), expect)
    if speaks in _HEX:
        proof = Proof(proof.unit, _hex(table, "tx", tx), _hex(table, "rx", rx), expect)
    table.finish()
    return proof


def _identity(table: Table) -> Identity:
    fn: Literal[3, 4] = table.choice("fn", (3, 4))
    at, words = table.whole("at", 0, 0xFFFF), table.value("is")
    words = words if isinstance(words, list) else []
    identity = Identity(fn, at, tuple(map(_word, words)))
    telling = any(word is not None for word in identity.words)
    if not telling or not all(map(_is_word, words)) or len(words) > MOST_IDENTITY:
        table.wrong(
            "is", f'must be 1 to {MOST_IDENTITY} registers as in [0x4117, "any", "unit"], not all "any"'
        )
    table.finish()
    return identity


def _is_word(member: object) -> bool:
    return member in ("any", "unit") or (type(member) is int and 0 <= member <= 0xFFFF)  # noqa: PLR2004


def _word(member: object) -> int | None:
    if type(member) is int:
        return member
    return OWN_UNIT if member == "unit" else None


def _hex(table: Table, key: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        table.wrong(key, 'must be bytes as "01 03 00 64"')
        return b""
