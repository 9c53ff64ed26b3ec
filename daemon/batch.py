"""What goes into the store and what comes out of it, and by which names the store refuses.

StoreError
├── StoreBusy     another process writes it
├── StoreNewer    made by a newer version of this program
├── StoreMode     holds data of another mode; real and simulated never mix
├── StoreFull     no room: this commit was not made, a later one may be
└── StoreBroken   the disk or the file failed: takes nothing any more until it is opened anew
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeGuard, get_args

import msgspec

from daemon.reading import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.clock import Clock

Mode = Literal["real", "test", "simulated"]
Kind = Literal["readings", "alarms", "gaps", "audit"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

# Why batches are missing, or stand elsewhere, in a gap record:
#   store-lost      the store was damaged or gone; what had not left it may come back by salvage
#   store-restored  somebody put an older copy of the store in its place
#   memory-full     readings that waited in memory for a disk that took nothing
#   memory-only     no loss yet: the store cannot be used, what follows in this stream stands in memory alone
#   moved           no loss: these batches of a stream in memory follow in this one, with other seqs
#   pushed-out      the store was full, and no uplink that receipts had them all
#   damaged         the bytes on the disk are not those that were committed
GapReason = Literal[
    "store-lost", "store-restored", "memory-full", "memory-only", "moved", "pushed-out", "damaged"
]
GAP_REASONS: Final[tuple[GapReason, ...]] = get_args(GapReason)


class StoreError(Exception):
    """The store cannot do what was asked."""


class StoreBusy(StoreError):
    pass


class StoreNewer(StoreError):
    pass


class StoreMode(StoreError):
    pass


class StoreFull(StoreError):
    pass


class StoreBroken(StoreError):
    pass


@dataclass(frozen=True, slots=True)
class Draft:
    """What becomes a batch: `body` is its JSON members without braces, `count` the readings or records in it.

    `time_ns` is UTC, `mono_ns` the monotonic stamp beside it, both of the newest record.
    `mode` is the payload's where that is another than the store's: of a drill it is test.
    """

    kind: Kind
    body: bytes
    time_ns: int
    mono_ns: int
    count: int
    mode: Mode | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A committed batch: `payload` is what leaves, `hash` its SHA-256."""

    seq: int
    kind: Kind
    time_ns: int
    count: int
    payload: bytes
    hash: bytes


_SANE_NS = 1 << 62  # a time beyond the year 2116 is no time


def as_read(row: Sequence[Any]) -> Batch:
    """A row as a batch; where columns have rotted it has neither payload nor hash, so that it is bad."""
    seq, kind, time_ns, count, payload, digest = row
    if sane(time_ns) and isinstance(count, int) and isinstance(payload, bytes) and isinstance(digest, bytes):
        return Batch(seq, kind, time_ns, count, payload, digest)
    return Batch(seq, "readings", time_ns if sane(time_ns) else 0, 0, b"", b"")


def sane(time_ns: object) -> TypeGuard[int]:
    return isinstance(time_ns, int) and 0 <= time_ns < _SANE_NS


@dataclass(frozen=True, slots=True)
class Gap:
    """A run of batches that are missing; None is not known, times are ns UTC."""

    reason: GapReason
    of: str  # stream
    from_seq: int | None
    to_seq: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    count: int | None = None  # readings, or records

    def draft(self, clock: Clock) -> Draft:
        """The gap record, taken now; it ends now if its end is not known."""
        now_ns = clock.wall_ns()
        record = {
            "of": self.of,
            "from_seq": self.from_seq,
            "to_seq": self.to_seq,
            "from": None if self.since_ns is None else rfc3339(self.since_ns),
            "to": rfc3339(now_ns if self.until_ns is None else self.until_ns),
            "count": self.count,
            "reason": self.reason,
        }
        return Draft("gaps", msgspec.json.encode(record)[1:-1], now_ns, clock.monotonic_ns(), 1)


@dataclass(frozen=True, slots=True)
class Lost:
    """What a fresh store knows of the one whose place it takes; the gap is its first batch."""

    gap: Gap
    alarms: tuple[tuple[str, bytes], ...] = ()

    @property
    def reason(self) -> GapReason:
        return self.gap.reason

    @property
    def of(self) -> str:
        return self.gap.of
