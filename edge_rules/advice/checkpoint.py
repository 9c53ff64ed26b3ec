"""The detectors' memory on disk: two files in turn, so that one is whole whatever happens to the other.

A file is: magic, length of the header (u32, little endian), the header as JSON, the records of each table as
they lie in memory, CRC-32 of all before. The header names the tables, the channel of each record and the
fields of the records, so that a later version can read them by name. The highest `number` among the whole
files counts.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edge_rules.advice.messages import Position

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edge_rules.advice.kernels import Records

_MAGIC = b"PWADVICE"
_SCHEMA = 2
_LENGTH = struct.Struct("<I")
_SLOTS = ("advice.a", "advice.b")


class TableHeader(msgspec.Struct, frozen=True):
    name: str
    ids: list[str]
    dtype: list[Any]


class Header(msgspec.Struct, frozen=True):
    schema: int
    number: int
    position: Position
    config_sha256: str
    tables: list[TableHeader]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One record per channel, with the fields it had when it was written."""

    ids: Sequence[str]
    records: Records

    def take_over(self, other: Table, names: Sequence[str]) -> None:
        """Continue with the fields `names` of another table, channel by channel, by id."""
        rows = {one: i for i, one in enumerate(other.ids)}
        for here, one in enumerate(self.ids):
            if one in rows:
                for name in names:
                    self.records[name][here] = other.records[name][rows[one]]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    position: Position
    config_sha256: str
    tables: Mapping[str, Table]


class Checkpoints:
    """The two files in `folder`, which must exist; one writer."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / name for name in _SLOTS]
        self._number = 0

    def load(self) -> Checkpoint | None:
        """The newest whole checkpoint; None when there is none. The next `save` spares its file."""
        found = [loaded for path in self._paths if (loaded := _read(path)) is not None]
        if not found:
            return None
        header, tables = max(found, key=lambda loaded: loaded[0].number)
        self._number = header.number
        return Checkpoint(header.position, header.config_sha256, tables)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write over the older file and flush it to the disk.

        Raises:
            OSError: the disk is full or gone; the newer file is untouched.
        """
        number = self._number + 1
        tables = [
            TableHeader(name, list(table.ids), list(np.lib.format.dtype_to_descr(table.records.dtype)))
            for name, table in checkpoint.tables.items()
        ]
        header = msgspec.json.encode(
            Header(_SCHEMA, number, checkpoint.position, checkpoint.config_sha256, tables)
        )
        whole = [table.records.tobytes() for table in checkpoint.tables.values()]
        body = b"".join((_MAGIC, _LENGTH.pack(len(header)), header, *whole))
        path = self._paths[number % len(self._paths)]
        with path.open("wb") as file:
            file.write(body + _LENGTH.pack(zlib.crc32(body)))
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._number = number


def _read(path: Path) -> tuple[Header, dict[str, Table]] | None:
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        return None
    body, crc = whole[: -_LENGTH.size], whole[-_LENGTH.size :]
    if not body.startswith(_MAGIC) or crc != _LENGTH.pack(zlib.crc32(body)):
        return None
    start = len(_MAGIC) + _LENGTH.size
    end = start + _LENGTH.unpack_from(body, len(_MAGIC))[0]
    try:
        header = msgspec.json.decode(body[start:end], type=Header)
    except msgspec.ValidationError:
        return None  # of a version with another header
    if header.schema != _SCHEMA:
        return None
    tables = {}
    for table in header.tables:
        dtype = np.dtype([_field(*field) for field in table.dtype])
        size = dtype.itemsize * len(table.ids)
        tables[table.name] = Table(table.ids, np.frombuffer(body[end : end + size], dtype))
        end += size
    return header, tables


def _field(name: str, kind: str, shape: list[int] | None = None) -> tuple[Any, ...]:
    return (name, kind) if shape is None else (name, kind, tuple(shape))
