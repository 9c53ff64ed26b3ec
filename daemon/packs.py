"""Many settled batches in one zstd frame, and their exact bytes back.

JSON of readings repeats everything but its numbers and times. So payloads of the same shape are taken apart:
the text between them once, and the column of each over time, which compresses far better than the rows it
came from. A column whose numbers are long becomes float64, its bytes in eight planes, but only where they are
written back as the very same text.

`prev`, 64 hexadecimal digits that no compressor can shorten, is left out where the batch before stands in the
same pack: it is that batch's hash. As each hash rests on the one before, a pack is whole if and only if its
last payload has the hash that was kept beside it.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import zstandard

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVEL = 6  # higher levels gain under one byte a reading and cost many times as much
MOST_BATCHES = 256
MOST_BYTES = 1 << 20  # of payloads in one pack: what unpacking one batch costs in memory
_LONG_DIGITS = 10  # shorter numbers stay text: eight planes would be larger
_PREV = re.compile(rb'^(\{"v":1,"mode":"[a-z]+","stream":"[0-9A-Za-z-]+","seq":\d+,"prev":")([0-9a-f]{64})"')
# A value that is a number or a time, found by its first character: whatever it is, it comes back as it was.
_NUMBER = re.compile(rb'([-0-9](?<=[:"\[,].)[-+.0-:TZe]*)')
_HOLE = b"\0"  # stands for a number; never in JSON
_BREAK = b"\n"  # likewise: our JSON has no white space between members, and strings escape it
_PLAIN = re.compile(rb"[-.\n0-9]+")
_FLOATS = msgspec.json.Decoder(list[float])

_Written = Callable[[list[float]], list[bytes]]


class Damaged(Exception):
    """A pack does not yield the bytes whose hash was kept."""


class Row(NamedTuple):
    """A batch as the store's columns have it."""

    seq: int
    boot: int
    time_ns: int
    mono_ns: int
    records: int
    payload: bytes


class _Packed(msgspec.Struct, array_like=True):
    """What is compressed. `shapes[i]` is the text of payload i without numbers, an index into `texts`."""

    rows: list[tuple[int, int, int, int, int]]  # all of Row but the payload
    prevs: dict[int, bytes]  # seq -> what `prev` is, where the batch before is not here
    texts: list[bytes]
    shapes: list[int]
    columns: list[list[bytes]]  # of each shape: its columns, as text or planes
    planes: list[list[int]]  # of each shape: which of its columns are planes


def pack(rows: Sequence[Row]) -> bytes:
    """One frame of `rows`, which ascend by seq and need not be neighbours.

    Raises:
        ValueError: a payload has no envelope, or would not come back as it is.
    """
    prevs: dict[int, bytes] = {}
    texts: dict[bytes, int] = {}
    tables: list[list[list[bytes]]] = []
    shapes: list[int] = []
    before: tuple[int, bytes] | None = None
    for row in rows:
        match = _PREV.match(row.payload)
        if match is None:
            raise ValueError(f"batch {row.seq} has no envelope")
        prev = bytes.fromhex(match[2].decode())
        if before != (row.seq - 1, prev):
            prevs[row.seq] = prev
        before = (row.seq, sha256(row.payload).digest())
        bare = match[1] + row.payload[match.end(2) :]
        parts = _NUMBER.split(bare)  # text and numbers by turns
        shape = texts.setdefault(_HOLE.join(parts[::2]), len(texts))
        if shape == len(tables):
            tables.append([])
        tables[shape].append(parts[1::2])
        shapes.append(shape)
    columns, planes = [], []
    for table in tables:
        stored = [_column(texts_of) for texts_of in zip(*table, strict=True)]
        columns.append([data for data, _ in stored])
        planes.append([i for i, (_, is_planes) in enumerate(stored) if is_planes])
    packed = _Packed([row[:5] for row in rows], prevs, list(texts), shapes, columns, planes)
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    frame: bytes = compressor.compress(msgspec.msgpack.encode(packed))
    if unpack(frame, sha256(rows[-1].payload).digest()) != list(rows):
        raise ValueError(f"batches {rows[0].seq} to {rows[-1].seq} would not come back as they are")
    return frame


def unpack(frame: bytes, last_hash: bytes) -> list[Row]:
    """The rows of a frame, exactly as they were packed.

    Args:
        frame: made by `pack`.
        last_hash: SHA-256 of the last row's payload.

    Raises:
        Damaged: the bytes are not those that were packed.
    """
    try:
        if not (isinstance(frame, bytes) and isinstance(last_hash, bytes)):  # a column that has rotted
            raise Damaged("a pack is no longer bytes")
        raw = zstandard.ZstdDecompressor().decompress(frame, max_output_size=64 * MOST_BYTES)
        packed = msgspec.msgpack.decode(raw, type=_Packed)
        for written in (_written, _written_by_python):
            rows, digest = _rows(packed, written)
            if digest == last_hash:
                return rows
    except (zstandard.ZstdError, msgspec.DecodeError, ValueError, IndexError, StopIteration) as error:
        raise Damaged(f"a pack cannot be read: {error}") from error
    raise Damaged("a pack yields other bytes than were packed")


def _rows(packed: _Packed, written: _Written) -> tuple[list[Row], bytes]:
    """The rows, and the hash of the last payload."""
    tables = []
    for columns, planes in zip(packed.columns, packed.planes, strict=True):
        long = set(planes)
        numbers = (
            _numbers(data, written) if i in long else data.split(_BREAK) for i, data in enumerate(columns)
        )
        tables.append(zip(*numbers, strict=True))
    texts = [text.split(_HOLE) for text in packed.texts]
    rows, digest = [], b""
    for fields, shape in zip(packed.rows, packed.shapes, strict=True):
        prev = packed.prevs.get(fields[0], digest)
        payload = _filled(texts[shape], next(tables[shape]), prev)
        digest = sha256(payload).digest()
        rows.append(Row(*fields, payload))
    return rows, digest


def _filled(texts: Sequence[bytes], numbers: Sequence[bytes], prev: bytes) -> bytes:
    parts = [b""] * (len(texts) + len(numbers))
    parts[::2], parts[1::2] = texts, numbers  # ValueError where there are not as many as there should be
    bare = b"".join(parts)
    at = bare.index(b'"prev":"') + len(b'"prev":"')
    return bare[:at] + prev.hex().encode() + bare[at:]


def _column(numbers: Sequence[bytes]) -> tuple[bytes, bool]:
    """One number of each payload, as lines of text or, where that is shorter, as planes of float64."""
    text = _BREAK.join(numbers)
    if len(text) > (_LONG_DIGITS + 1) * len(numbers) and _PLAIN.fullmatch(text):
        with suppress(msgspec.DecodeError):  # no number after all: a serial number, with hyphens
            values = _FLOATS.decode(b"[%b]" % text.replace(_BREAK, b","))
            if _written(values) == list(numbers):
                data = array("d", values).tobytes()
                return b"".join(data[i::8] for i in range(8)), True
    return text, False


def _numbers(planes: bytes, written: _Written) -> list[bytes]:
    """The numbers of a column of planes."""
    count = len(planes) // 8
    data = bytearray(8 * count)
    for i in range(8):
        data[i::8] = planes[i * count : (i + 1) * count]
    return written(array("d", bytes(data)).tolist())


def _written(values: list[float]) -> list[bytes]:
    """As the payloads have them, which msgspec wrote."""
    return msgspec.json.encode(values)[1:-1].split(b",")


def _written_by_python(values: list[float]) -> list[bytes]:
    """Should a later msgspec write them otherwise: the shortest digits, without exponent, are the same."""
    return [repr(value).encode() for value in values]
