"""Batches into PostgreSQL: a group of messages in one transaction, then, and only then, their receipts.

Any number of processes write side by side. Which of them gets a batch, and how often, does not matter: the
primary key (stream, seq) lets the first in, and readings, alarms and gaps are written by whoever inserted the
batch, in the same transaction. Rows go in by the order of their keys, so two writers wait for each other and
never in a ring. Bytes that differ under a name that is taken are a fork: kept beside, and reported.

A receipt is a promise: a server with `fsync` off cannot give it and is refused, and every commit here is
synchronous whatever the server's default. psycopg 3 is all this needs beside the arrivals.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import psycopg

from hardware_sim.arrivals import Alarm, Arrival, Gap, Readings, Refused, Seal, parse, unpacked
from hardware_sim.ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    Rows = list[tuple[Any, ...]]
    Name = tuple[str, ...]

SCHEMA: Final = Path(__file__).with_name("warehouse.sql")
MOST_REFUSED: Final = 1_000  # kept; whoever can publish must not be able to fill the disk with junk
_LOCK: Final = 0x706F6E64  # of those who make the schema at the same time
_MOST_NAMES: Final = 1_000_000  # remembered by a process; what is forgotten is looked up again


@dataclass(frozen=True, slots=True)
class Message:
    """As a broker brings it; `packed`: its user properties say that it is zstd."""

    topic: str
    payload: bytes
    packed: bool = False


@dataclass(slots=True)
class Counts:
    """Since the process began."""

    stored: int = 0
    readings: int = 0
    repeats: int = 0
    forks: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class _Refusal:
    topic: str
    payload: bytes
    why: str


@dataclass(slots=True)
class _New:
    """The rows that a group brings beside its batches."""

    readings: Rows = field(default_factory=list)
    alarms: Rows = field(default_factory=list)
    gaps: Rows = field(default_factory=list)


class Warehouse:
    """One connection; used by one thread. Every method may raise `psycopg.OperationalError`: open it anew.

    Args:
        conninfo: as libpq has it, `host=/run/postgresql dbname=pondwatch`.
    """

    def __init__(self, conninfo: str) -> None:
        self.counts = Counts()
        self._conninfo = conninfo
        self._db: psycopg.Connection | None = None
        self._streams: dict[Name, int] = {}
        self._channels: dict[Name, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def found(self) -> None:
        """Make the tables, where they are not there yet."""
        db = self._open()
        with db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            db.execute(SCHEMA.read_bytes())

    def take(self, messages: Iterable[Message]) -> list[Message]:
        """Store a group; when this returns it is durable, and these are the receipts for it.

        A message that cannot be stored, by its form or because this database has no place for its values, is
        refused by itself and takes no other with it.
        """
        arrivals: list[Arrival] = []
        refused: list[_Refusal] = []
        for message in messages:
            try:
                payload = unpacked(message.payload) if message.packed else message.payload
                arrivals.append(parse(message.topic, payload))
            except Refused as why:
                refused.append(_Refusal(message.topic, message.payload, str(why)))
        kept = self._kept(arrivals, refused)
        if refused:
            self._refuse(refused)
        return _receipts(kept)

    def _kept(self, arrivals: Sequence[Arrival], refused: list[_Refusal]) -> list[Arrival]:
        """Store them; those that are durable now. A group that cannot be stored is tried in halves."""
        if not arrivals:
            return []
        try:
            self._store(arrivals)
        except psycopg.DataError as error:
            if len(arrivals) == 1:
                refused.append(_Refusal(arrivals[0].topic, arrivals[0].payload, str(error)))
                return []
            half = len(arrivals) // 2
            return self._kept(arrivals[:half], refused) + self._kept(arrivals[half:], refused)
        return [arrival for arrival in arrivals if not isinstance(arrival.body, Seal)]

    def _open(self) -> psycopg.Connection:
        if self._db is None or self._db.closed:
            self._db = psycopg.connect(self._conninfo, autocommit=True)
            (fsync,) = self._db.execute("SHOW fsync").fetchone() or ("",)
            if fsync != "on":
                raise SystemExit("this PostgreSQL runs with fsync = off: a receipt from it would be a lie")
            self._db.execute("SET synchronous_commit TO on")
            self._db.execute("SET search_path TO pondwatch")
        return self._db

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor]:
        db = self._open()
        with db.transaction(), db.cursor() as cursor:
            yield cursor

    # -- a group -------------------------------------------------------------------------------------

    def _store(self, arrivals: Sequence[Arrival]) -> None:
        streams = [(a.site, a.gateway, a.body.stream) for a in arrivals]
        self._name("stream", ("site", "gateway", "stream"), streams, self._streams)
        self._name_channels(arrivals)
        named = sorted(
            zip((self._streams[name] for name in streams), arrivals, strict=True),
            key=lambda each: (each[0], each[1].body.seq),
        )
        chained = [each for each in named if not isinstance(each[1].body, Seal)]
        with self._transaction() as cursor:
            new, again, forks = self._batches(cursor, chained)
            rows = _rows(new, self._channels)
            _copy(cursor, "reading (channel_id, time, value, quality, stream_id, seq)", rows.readings)
            _copy(cursor, f"alarm ({_ALARM})", rows.alarms)
            _copy(cursor, "gap (stream_id, seq, of_stream, from_seq, to_seq, reason)", rows.gaps)
            cursor.executemany(
                "INSERT INTO seal VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [(s, a.body.seq, a.sha256, a.payload) for s, a in named if isinstance(a.body, Seal)],
            )
        self.counts.stored += len(new)
        self.counts.readings += len(rows.readings)
        self.counts.repeats += again
        self.counts.forks += forks

    def _batches(
        self, cursor: psycopg.Cursor, named: Sequence[tuple[int, Arrival]]
    ) -> tuple[list[tuple[int, Arrival]], int, int]:
        """Insert what is not there; what was new, how many came again, how many forks are among those."""
        first: dict[tuple[int, int], Arrival] = {}
        for stream, arrival in named:
            first.setdefault((stream, arrival.body.seq), arrival)
        columns = list(zip(*(_batch_row(*key, a) for key, a in first.items()), strict=True))
        if not columns:
            return [], 0, 0
        inserted = cursor.execute(_INSERT, [list(column) for column in columns])
        fresh = {(stream, seq) for stream, seq in inserted.fetchall()}
        new = [(key[0], arrival) for key, arrival in first.items() if key in fresh]
        mine = {id(arrival) for _, arrival in new}
        again = [(s, a) for s, a in named if id(a) not in mine]
        forks = self._forks(cursor, again, {key: first[key].sha256 for key in fresh}) if again else 0
        return new, len(again) - forks, forks

    @staticmethod
    def _forks(
        cursor: psycopg.Cursor,
        again: Sequence[tuple[int, Arrival]],
        known: Mapping[tuple[int, int], bytes],
    ) -> int:
        """Hold repeats against what is stored under their name; keep those with other bytes."""
        keys = [[stream for stream, _ in again], [arrival.body.seq for _, arrival in again]]
        stored = dict(known)
        for stream, seq, sha256 in cursor.execute(_HASHES, keys):
            stored[stream, seq] = sha256
        others = [(s, a) for s, a in again if stored[s, a.body.seq] != a.sha256]
        cursor.executemany(
            "INSERT INTO fork (stream_id, seq, sha256, kind, payload) VALUES (%s, %s, %s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            [(s, a.body.seq, a.sha256, a.kind, a.payload) for s, a in others],
        )
        return len(others)

    # -- names ---------------------------------------------------------------------------------------

    def _name_channels(self, arrivals: Iterable[Arrival]) -> None:
        names = {
            (a.site, a.gateway, reading.channel, reading.unit, a.body.mode)
            for a in arrivals
            if isinstance(a.body, Readings)
            for reading in a.body.readings
        }
        self._name("channel", ("site", "gateway", "channel", "unit", "mode"), names, self._channels)

    def _name(self, table: str, columns: Name, names: Iterable[Name], known: dict[Name, int]) -> None:
        """Numbers for names, in a transaction of their own: a name is there before anything points to it."""
        if len(known) > _MOST_NAMES:
            known.clear()
        unknown = sorted({name for name in names if name not in known})
        if not unknown:
            return
        listed = ", ".join(columns)
        given = ", ".join(["%s::text[]"] * len(columns))
        arrays = [list(column) for column in zip(*unknown, strict=True)]
        with self._transaction() as cursor:
            cursor.execute(
                f"INSERT INTO {table} ({listed}) SELECT * FROM unnest({given}) ON CONFLICT DO NOTHING",  # noqa: S608 -- our own words
                arrays,
            )
            found = cursor.execute(
                f"SELECT id, {listed} FROM {table} JOIN unnest({given}) AS asked ({listed}) USING ({listed})",  # noqa: S608 -- likewise
                arrays,
            ).fetchall()
        known.update({tuple(name): number for number, *name in found})

    def _refuse(self, refused: Sequence[_Refusal]) -> None:
        self.counts.refused += len(refused)
        rows = [
            (
                hashlib.sha256(r.payload).digest(),
                r.topic.replace("\0", ""),
                r.why.replace("\0", ""),
                r.payload,
            )
            for r in refused
        ]
        with self._transaction() as cursor:
            (kept,) = cursor.execute("SELECT count(*) FROM refused").fetchone() or (0,)
            room = max(0, MOST_REFUSED - kept)
            cursor.executemany(
                "INSERT INTO refused (sha256, topic, why, payload) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT DO NOTHING",
                sorted(rows)[:room],
            )


_ALARM: Final = (
    "stream_id, seq, id, kind, level, condition, response, by, role, note, pond, channel, time, due, zh, en"
)
_INSERT: Final = """
INSERT INTO batch (stream_id, seq, kind, mode, sha256, prev, payload)
SELECT * FROM unnest(%s::int[], %s::bigint[], %s::text[], %s::text[], %s::bytea[], %s::bytea[], %s::bytea[])
ON CONFLICT DO NOTHING RETURNING stream_id, seq
"""
_HASHES: Final = """
SELECT stream_id, seq, sha256 FROM batch JOIN unnest(%s::int[], %s::bigint[]) AS asked (stream_id, seq)
USING (stream_id, seq)
"""


def _batch_row(stream: int, seq: int, arrival: Arrival) -> tuple[Any, ...]:
    body = arrival.body
    assert not isinstance(body, Seal)
    prev = bytes.fromhex(body.prev)
    return stream, seq, arrival.kind, body.mode, arrival.sha256, prev, arrival.payload


def _rows(new: Iterable[tuple[int, Arrival]], channels: Mapping[Name, int]) -> _New:
    rows = _New()
    for stream, arrival in new:
        body = arrival.body
        match body:
            case Readings():
                whose = (arrival.site, arrival.gateway)
                rows.readings += [
                    (
                        channels[*whose, r.channel, r.unit, body.mode],
                        r.time,
                        r.value,
                        r.quality,
                        stream,
                        body.seq,
                    )
                    for r in body.readings
                ]
            case Alarm():
                said = (body.by, body.role, body.note, body.pond, body.channel, body.time, body.due)
                stands = (body.id, body.kind, body.level, body.condition, body.response)
                rows.alarms.append((stream, body.seq, *stands, *said, body.reason.zh, body.reason.en))
            case Gap():
                rows.gaps.append((stream, body.seq, body.of, body.from_seq, body.to_seq, body.reason))
    return rows


def _copy(cursor: psycopg.Cursor, into: str, rows: Rows) -> None:
    if rows:
        with cursor.copy(f"COPY {into} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)


def _receipts(stored: Iterable[Arrival]) -> list[Message]:
    """One for each stream: all of it that is durable now, repeats and forks too."""
    settled: dict[Name, Ranges] = {}
    for arrival in stored:
        name = (arrival.site, arrival.gateway, arrival.body.stream)
        settled.setdefault(name, Ranges()).add(arrival.body.seq)
    return [
        Message(
            f"pondwatch/1/{site}/{gateway}/receipts",
            msgspec.json.encode({"v": 1, "stream": stream, "settled": ranges.pairs()}),
        )
        for (site, gateway, stream), ranges in settled.items()
    ]
