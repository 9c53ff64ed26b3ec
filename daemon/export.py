"""The archive for other tools: an SQLite file that grows, CSV of readings, or the payloads as JSON lines.

The SQLite file is plain: rows of readings with views over them, made by sqlite-utils, at home in datasette.
It remembers for each stream how far it has come, so that a further export adds what is new.
"""

from __future__ import annotations

import csv
from hashlib import sha256
from typing import IO, TYPE_CHECKING, Any

import msgspec
from sqlite_utils import Database

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from daemon.archive import Archive
    from daemon.batch import Batch

_AT_ONCE = 500  # batches in one transaction, with the note of how far it has come
_ALARM = (
    "id", "kind", "level", "was", "condition", "response", "by", "role", "note", "pond", "section", "item",
    "monitoring_point", "channel", "line", "device", "rule", "value", "limit", "time", "due",
)  # fmt: skip
_GAP = ("of", "from_seq", "to_seq", "from", "to", "count", "reason")
_PLACE: dict[str, type] = {"stream": str, "seq": int}
_COLUMNS: dict[str, dict[str, type]] = {
    "readings": {
        "stream": str, "seq": int, "n": int, "time": str, "channel": str, "value": float, "unit": str,
        "quality": str, "raw": str,
    },
    "alarms": _PLACE | dict.fromkeys(_ALARM, str) | {"value": float, "limit": float, "body": str},
    "gaps": _PLACE | dict.fromkeys(_GAP, str) | {"from_seq": int, "to_seq": int, "count": int, "body": str},
    "audit": _PLACE | {"body": str},
}  # fmt: skip
_VIEWS = {
    "latest": "SELECT channel, max(time) AS time, value, unit, quality FROM readings GROUP BY channel",
    "open_alarms": "SELECT * FROM alarms WHERE rowid IN (SELECT max(rowid) FROM alarms GROUP BY id) "
    "AND response <> 'closed'",
    "bad": "SELECT * FROM readings WHERE quality LIKE 'bad%'",
    "daily": "SELECT substr(time, 1, 10) AS day_utc, channel, unit, count(*) AS readings, "
    "count(value) AS measured, min(value) AS lowest, avg(value) AS mean, max(value) AS highest "
    "FROM readings GROUP BY 1, 2, 3",
}
CSV_COLUMNS = ("time", "channel", "value", "unit", "quality", "raw", "stream", "seq")


class Reading(msgspec.Struct, frozen=True):
    """A reading as payload version 1 has it."""

    channel: str
    time: str
    value: float | None
    unit: str
    quality: str
    raw: msgspec.Raw


class _Readings(msgspec.Struct, frozen=True):
    readings: list[Reading]


_decode = msgspec.json.Decoder(_Readings).decode


def to_sqlite(archive: Archive, path: Path) -> int:
    """Add to the file at `path` what it does not have yet; how many batches that were."""
    db = Database(str(path))
    try:
        _prepare(db)
        found = list(db.query("SELECT upto FROM exported WHERE stream = ?", [archive.stream]))
        total = 0
        for chunk in _chunks(archive.batches(found[0]["upto"] if found else 0)):
            with db.conn:
                for kind, names in _COLUMNS.items():
                    rows = [row for b in chunk if b.kind == kind for row in _rows(archive.stream, b)]
                    marks = ", ".join("?" * len(names))
                    db.conn.executemany(
                        f"INSERT INTO {kind} VALUES ({marks})",  # noqa: S608 -- one of four words of ours
                        [tuple(row[name] for name in names) for row in rows],
                    )
                db.conn.execute(
                    "REPLACE INTO exported (stream, mode, upto) VALUES (?, ?, ?)",
                    (archive.stream, archive.mode, chunk[-1].seq),
                )
            total += len(chunk)
        return total
    finally:
        db.close()


def _prepare(db: Database) -> None:
    db.table("exported").create({"stream": str, "mode": str, "upto": int}, pk="stream", if_not_exists=True)
    for name, columns in _COLUMNS.items():
        pk = ("stream", "seq", "n") if name == "readings" else ("stream", "seq")
        db.table(name).create(columns, pk=pk, if_not_exists=True)
    db.table("readings").create_index(["channel", "time"], if_not_exists=True)
    for name, sql in _VIEWS.items():
        db.create_view(name, sql, ignore=True)


def to_csv(archive: Archive, file: IO[str], after: int = 0) -> int:
    """Readings as CSV, with the columns that `pondwatch backtest` reads; the last seq that was written."""
    writer = csv.writer(file)
    writer.writerow(CSV_COLUMNS)
    for batch in archive.batches(after):
        after = batch.seq
        if batch.kind == "readings":
            for row in _rows(archive.stream, batch):
                writer.writerow(["" if row[name] is None else row[name] for name in CSV_COLUMNS])
    return after


def to_json_lines(archive: Archive, file: IO[bytes], after: int = 0) -> int:
    """Every payload, its exact bytes on a line: the chain can be checked from them; the last seq."""
    for batch in archive.batches(after):
        after = batch.seq
        file.write(batch.payload + b"\n")
    return after


def _rows(stream: str, batch: Batch) -> Iterator[dict[str, Any]]:
    """What a batch becomes in its table; a damaged one becomes nothing, `spool verify` names it."""
    if sha256(batch.payload).digest() != batch.hash:
        return
    place = {"stream": stream, "seq": batch.seq}
    if batch.kind == "readings":
        for n, reading in enumerate(_decode(batch.payload).readings):
            yield place | {
                "n": n,
                "time": reading.time,
                "channel": reading.channel,
                "value": reading.value,
                "unit": reading.unit,
                "quality": reading.quality,
                "raw": bytes(reading.raw).decode(),
            }
        return
    record = msgspec.json.decode(batch.payload)
    names = {"alarms": _ALARM, "gaps": _GAP, "audit": ()}[batch.kind]
    yield place | {name: record.get(name) for name in names} | {"body": batch.payload.decode()}


def _chunks(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    chunk: list[Batch] = []
    for batch in batches:
        chunk.append(batch)
        if len(chunk) == _AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
