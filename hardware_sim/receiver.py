"""What a receiving platform does with payloads: keep, compare, verify, receipt. No transport in here.

Seals are checked as they come (hardware_sim/verify.py), against the batches that are here and those to come.

A batch is named by (gateway, stream, seq). Bytes it has already are a repeat and dropped; other bytes under
the same name are a fork: both are kept and the fork is reported. `prev` of each batch must be the SHA-256
of the batch before, whichever of the two comes first (alarms overtake readings). A receipt names a batch
only after it was stored; with a file that means committed to disk (SQLite, synchronous = FULL).

Memory is bounded: per stream the ranges received (`_MOST_RANGES`) and the last `_MOST_HASHES` hashes,
`_MOST_STREAMS` streams and channels; what goes beyond is refused with 0x97 and never receipted. Hashes that
were forgotten are looked up in the file; without one such a repeat counts as `unverified`.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from hardware_sim.mqtt import Reason
from hardware_sim.ranges import Ranges
from hardware_sim.verify import Witness

if TYPE_CHECKING:
    from pathlib import Path

_MOST_STREAMS: Final = 1_000
_MOST_CHANNELS: Final = 100_000
_MOST_RANGES: Final = 100_000
_MOST_HASHES: Final = 10_000
_MOST_ALARMS: Final = 1_000  # the latest; older ones fall out and stay counted
_MOST_SUBJECTS: Final = 10_000  # of which the worst level is kept; further ones are left out
_LEVELS: Final = ("none", "blue", "yellow", "orange", "red")
_FIRST_PREV: Final = "0" * 64
_CHAINED: Final = frozenset({"readings", "alarms", "gaps", "audit"})
_TOPIC_LEVELS: Final = 5

_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS batch (
    site TEXT NOT NULL, gateway TEXT NOT NULL, stream TEXT NOT NULL, seq INTEGER NOT NULL,
    sha256 TEXT NOT NULL, kind TEXT NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (gateway, stream, seq, sha256)
) STRICT;
CREATE TABLE IF NOT EXISTS seal (
    gateway TEXT NOT NULL, stream TEXT NOT NULL, seq INTEGER NOT NULL, payload BLOB NOT NULL
) STRICT;
"""


class _Chained(msgspec.Struct, frozen=True):
    v: int
    mode: str
    stream: str
    seq: int
    prev: str


class _Reading(msgspec.Struct, frozen=True):
    channel: str


class _Readings(msgspec.Struct, frozen=True):
    readings: list[_Reading]


class Alarm(msgspec.Struct, frozen=True):
    """What the summary keeps of an alarm payload."""

    id: str
    kind: str
    level: str
    condition: str
    response: str
    time: str
    was: str | None = None
    channel: str | None = None


class _Gap(msgspec.Struct, frozen=True):
    of: str
    from_seq: int | None = None
    to_seq: int | None = None


class _Audit(msgspec.Struct, frozen=True):
    what: str = ""
    to: object = None


class _Seal(msgspec.Struct, frozen=True):
    stream: str
    seq: int


class _Status(msgspec.Struct, frozen=True):
    state: str


_CHAIN_DECODER: Final = msgspec.json.Decoder(_Chained)
_READINGS_DECODER: Final = msgspec.json.Decoder(_Readings)
_ALARM_DECODER: Final = msgspec.json.Decoder(Alarm)
_GAP_DECODER: Final = msgspec.json.Decoder(_Gap)
_AUDIT_DECODER: Final = msgspec.json.Decoder(_Audit)
_SEAL_DECODER: Final = msgspec.json.Decoder(_Seal)
_STATUS_DECODER: Final = msgspec.json.Decoder(_Status)


@dataclass(frozen=True, slots=True)
class Summary:
    """What arrived, in numbers; `holes` are missing seqs that no gap record names.

    `twins`: how often a gateway went back to a stream after another had begun: two gateways with one name.
    """

    received: int
    repeats: int
    unverified: int
    forks: int
    holes: int
    chain_breaks: int
    malformed: int
    gaps: int
    readings: int
    readings_by_channel: dict[str, int]
    alarms: list[Alarm]
    levels: dict[str, int]  # alarm payloads by level
    worst: dict[str, str]  # subject of an alarm, its id without the instant -> the worst level it ever had
    states: dict[str, str]  # gateway -> its last status
    streams: dict[str, list[list[int]]]  # gateway/stream -> ranges of seqs
    seals: int  # that hold
    seal_findings: list[str]  # "gateway: what does not hold"
    sealed_up_to: dict[str, int]  # gateway/stream -> the highest seq under a seal
    twins: int


@dataclass(slots=True)
class _Stream:
    site: str
    ranges: Ranges = field(default_factory=Ranges)
    hashes: OrderedDict[int, str] = field(default_factory=OrderedDict)
    # seq -> the hash its successor names, for batches that were overtaken; the oldest fall out unchecked.
    expected: OrderedDict[int, str] = field(default_factory=OrderedDict)
    # Ranges that gap records name; beyond the bound the oldest fall out and count as holes again.
    excused: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_MOST_HASHES))
    fresh: Ranges = field(default_factory=Ranges)  # stored, not yet receipted

    def holes(self) -> int:
        """How many seqs below the highest are neither here nor excused."""
        count = 0
        excused = sorted(self.excused)
        for first, last in self.ranges.missing():
            count += last - first + 1
            at = first  # what lies before it is counted already
            for begin, end in excused:
                overlap = min(last, end) - max(at, begin) + 1
                if overlap > 0:
                    count -= overlap
                    at = end + 1
        return count


class Receiver:
    """Takes payloads by topic, and says what may be receipted.

    Args:
        path: SQLite file that keeps every payload; None keeps none, and forgets all at the end.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._db: sqlite3.Connection | None = None
        self._counts: Counter[str] = Counter()
        self._channels: Counter[str] = Counter()
        self._levels: Counter[str] = Counter()
        self._alarms: deque[Alarm] = deque(maxlen=_MOST_ALARMS)
        self._worst: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._witnesses: dict[str, Witness] = {}
        self._now_at: dict[str, list[str]] = {}  # gateway -> its streams in their order, the newest last
        if path is not None:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.executescript(_SCHEMA)
            self._remember()

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def take(self, topic: str, payload: bytes) -> int:
        """One payload, as sent; the answer is a PUBACK reason code.

        0x00 says it is stored (or dropped as a repeat), 0x97 that memory's bounds are reached, 0x99
        that it is no version 1 payload. Topics of others are taken and left alone.
        """
        levels = topic.split("/")
        if len(levels) != _TOPIC_LEVELS or levels[:2] != ["pondwatch", "1"]:
            return Reason.SUCCESS
        _, _, site, gateway, kind = levels
        try:
            if kind in _CHAINED:
                return self._take_chained(site, gateway, kind, payload)
            if kind == "status":
                self._take_status(gateway, payload)
            elif kind == "seals":
                self._take_seal(gateway, payload)
        except msgspec.MsgspecError:
            self._counts["malformed"] += 1
            return Reason.PAYLOAD_INVALID
        return Reason.SUCCESS

    def receipts(self) -> list[tuple[str, bytes]]:
        """(topic, payload) of a receipt per stream: all stored, or repeated, since the last call."""
        out = []
        for (gateway, name), stream in self._streams.items():
            if len(stream.fresh):
                body = {"v": 1, "stream": name, "settled": stream.fresh.pairs()}
                out.append((f"pondwatch/1/{stream.site}/{gateway}/receipts", msgspec.json.encode(body)))
                stream.fresh = Ranges()
        return out

    def summary(self) -> Summary:
        return Summary(
            received=self._counts["received"],
            repeats=self._counts["repeats"],
            unverified=self._counts["unverified"],
            forks=self._counts["forks"],
            holes=sum(stream.holes() for stream in self._streams.values()),
            chain_breaks=self._counts["chain_breaks"],
            malformed=self._counts["malformed"],
            gaps=self._counts["gaps"],
            readings=self._channels.total(),
            readings_by_channel=dict(self._channels),
            alarms=list(self._alarms),
            levels=dict(self._levels),
            worst=dict(self._worst),
            states=dict(self._states),
            streams={f"{g}/{name}": s.ranges.pairs() for (g, name), s in self._streams.items()},
            seals=sum(witness.held for witness in self._witnesses.values()),
            seal_findings=[f"{g}: {each}" for g, w in self._witnesses.items() for each in w.findings],
            sealed_up_to={
                f"{g}/{n}": seq for g, w in self._witnesses.items() for n, seq in w.reached.items()
            },
            twins=self._counts["twins"],
        )

    def _take_chained(self, site: str, gateway: str, kind: str, payload: bytes) -> int:
        head = _CHAIN_DECODER.decode(payload)
        if head.v != 1 or head.seq < 1:
            raise msgspec.ValidationError("not version 1, or a seq below 1")
        body = self._parsed(kind, payload)
        key = (gateway, head.stream)
        stream = self._streams.get(key) or _Stream(site)
        new_channels = isinstance(body, _Readings) and len(self._channels) >= _MOST_CHANNELS
        if len(stream.ranges) >= _MOST_RANGES or new_channels:
            return Reason.QUOTA_EXCEEDED
        if key not in self._streams:
            if len(self._streams) >= _MOST_STREAMS:
                return Reason.QUOTA_EXCEEDED
            self._streams[key] = stream
        sha256 = hashlib.sha256(payload).hexdigest()
        if head.seq in stream.ranges:
            self._take_again(key, stream, head.seq, sha256, kind, payload)
        else:
            self._store(key, stream.site, head.seq, sha256, kind, payload)
            self._counts["received"] += 1
            self._link(stream, head, sha256)
            stream.ranges.add(head.seq)
            self._count(gateway, body)
        stream.fresh.add(head.seq)
        self._notice(gateway, head, sha256, body)
        return Reason.SUCCESS

    def _notice(self, gateway: str, head: _Chained, sha256: str, body: object) -> None:
        """What a batch says beyond itself: keys, seals that were waiting for it, and whose stream it is."""
        witness = self._witness(gateway)
        if isinstance(body, _Audit) and body.what == "key" and isinstance(body.to, dict):
            witness.take_certificate(body.to)
        if not witness.check(head.stream, head.seq, sha256):
            witness.find(f"batch {head.seq} of {head.stream} is not what was sealed")
        streams = self._now_at.setdefault(gateway, [])
        if head.stream not in streams:
            streams.append(head.stream)
        elif streams[-1] != head.stream:
            self._counts["twins"] += 1
            streams.remove(head.stream)
            streams.append(head.stream)

    def _take_seal(self, gateway: str, payload: bytes) -> None:
        """A seal; of a batch that is here it must name the hash."""
        seal = _SEAL_DECODER.decode(payload)
        self._witness(gateway).take_seal(msgspec.json.decode(payload))
        if self._db is not None:
            self._db.execute(
                "INSERT INTO seal VALUES (?, ?, ?, ?)", (gateway, seal.stream, seal.seq, payload)
            )

    def _witness(self, gateway: str) -> Witness:
        """The keys and seals of a gateway; beyond the bound they share one, and nothing of it holds."""
        if gateway not in self._witnesses and len(self._witnesses) >= _MOST_STREAMS:
            gateway = ""
        if gateway not in self._witnesses:
            self._witnesses[gateway] = Witness(look=partial(self._hashes, gateway))
        return self._witnesses[gateway]

    def _hashes(self, gateway: str, name: str, seq: int) -> set[str]:
        stream = self._streams.get((gateway, name))
        return self._known((gateway, name), stream, seq) if stream is not None else set()

    @staticmethod
    def _parsed(kind: str, payload: bytes) -> _Readings | Alarm | _Gap | _Audit | None:
        match kind:
            case "readings":
                return _READINGS_DECODER.decode(payload)
            case "alarms":
                return _ALARM_DECODER.decode(payload)
            case "gaps":
                return _GAP_DECODER.decode(payload)
            case "audit":
                return _AUDIT_DECODER.decode(payload)
        return None

    def _take_again(
        self, key: tuple[str, str], stream: _Stream, seq: int, sha256: str, kind: str, payload: bytes
    ) -> None:
        known = self._known(key, stream, seq)
        if not known:
            self._counts["unverified"] += 1
        elif sha256 in known:
            self._counts["repeats"] += 1
        else:
            self._counts["forks"] += 1
            self._store(key, stream.site, seq, sha256, kind, payload)

    def _known(self, key: tuple[str, str], stream: _Stream, seq: int) -> set[str]:
        """Every hash kept under this name."""
        if self._db is not None:
            query = "SELECT sha256 FROM batch WHERE gateway = ? AND stream = ? AND seq = ?"
            return {row[0] for row in self._db.execute(query, (*key, seq))}
        return {stream.hashes[seq]} if seq in stream.hashes else set()

    def _link(self, stream: _Stream, head: _Chained, sha256: str) -> None:
        """Holds a batch against its neighbours in the chain, as far as they are here."""
        before = _FIRST_PREV if head.seq == 1 else stream.hashes.get(head.seq - 1)
        if before is None:
            _keep(stream.expected, head.seq - 1, head.prev)
        elif before != head.prev:
            self._counts["chain_breaks"] += 1
        if stream.expected.pop(head.seq, sha256) != sha256:
            self._counts["chain_breaks"] += 1
        _keep(stream.hashes, head.seq, sha256)

    def _store(
        self, key: tuple[str, str], site: str, seq: int, sha256: str, kind: str, payload: bytes
    ) -> None:
        if self._db is not None:
            row = (site, *key, seq, sha256, kind, payload)
            self._db.execute("INSERT OR IGNORE INTO batch VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def _rank(self, alarm: Alarm) -> None:
        subject = alarm.id.rpartition(":")[0]
        if alarm.level in _LEVELS and (subject in self._worst or len(self._worst) < _MOST_SUBJECTS):
            before = self._worst.get(subject, "none")
            self._worst[subject] = max(before, alarm.level, key=_LEVELS.index)

    def _count(self, gateway: str, body: _Readings | Alarm | _Gap | _Audit | None) -> None:
        if isinstance(body, _Readings):
            self._channels.update(reading.channel for reading in body.readings)
        elif isinstance(body, Alarm):
            self._alarms.append(body)
            self._levels[body.level] += 1
            self._rank(body)
        elif isinstance(body, _Gap):
            self._counts["gaps"] += 1
            stream = self._streams.get((gateway, body.of))
            if stream is not None and body.from_seq is not None:
                # An open end excuses its first seq only: it must not hide what is lost later.
                last = body.to_seq if body.to_seq is not None else body.from_seq
                stream.excused.append((body.from_seq, last))

    def _take_status(self, gateway: str, payload: bytes) -> None:
        state = _STATUS_DECODER.decode(payload).state if payload else "unknown"
        if gateway in self._states or len(self._states) < _MOST_STREAMS:
            self._states[gateway] = state

    def _remember(self) -> None:
        """Takes up what an earlier run stored: ranges, counts and hashes."""
        assert self._db is not None
        rows = self._db.execute(
            "SELECT site, gateway, stream, seq, sha256, kind, payload FROM batch ORDER BY 2, 3, 4"
        )
        for site, gateway, name, seq, sha256, kind, payload in rows:
            stream = self._streams.setdefault((gateway, name), _Stream(site))
            if seq in stream.ranges:
                self._counts["forks"] += 1
                continue
            self._counts["received"] += 1
            self._link(stream, _CHAIN_DECODER.decode(payload), sha256)
            stream.ranges.add(seq)
            body = self._parsed(kind, payload)
            self._count(gateway, body)
            self._notice(gateway, _CHAIN_DECODER.decode(payload), sha256, body)
        for gateway, payload in self._db.execute("SELECT gateway, payload FROM seal ORDER BY rowid"):
            self._witness(gateway).take_seal(msgspec.json.decode(payload))
        self._counts["twins"] = 0  # rows come back ordered by name, not as they came


def _keep(table: OrderedDict[int, str], seq: int, text: str) -> None:
    table[seq] = text
    if len(table) > _MOST_HASHES:
        table.popitem(last=False)
