"""What a dialect is: batches in, messages or files out, an acknowledgement back.

A dialect is data and a pure encoder, and a way to hand over what it made. Which batch goes next, what becomes
of one that is refused, what is settled: all that is the uplink's, see `dialect_uplink.py`, and the same for
every dialect. A dialect may be handed the same batch twice, after a crash in a company of other batches; so
what it makes must be harmless twice: told apart at the other end by place and time, never by counting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Never, Protocol

import msgspec

from daemon.alarms import Alarm
from daemon.batch import Kind, Mode
from daemon.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from daemon.batch import Batch


@dataclass(frozen=True, slots=True)
class Told:
    """A batch as a dialect sees it; `readings` or `alarm` according to `kind`, the others neither."""

    seq: int
    kind: Kind
    mode: Mode
    time_ns: int
    readings: Sequence[Reading] = ()
    alarm: Alarm | None = None


class Parcel(NamedTuple):
    """One message or file: `name` is a topic, a path, or what else the dialect calls things by."""

    name: str
    payload: bytes


class Refused(Exception):
    """The other side has it and will not take it; `for_good`: nor at another time."""

    def __init__(self, why: str, *, for_good: bool = False) -> None:
        super().__init__(why)
        self.for_good = for_good


class Link(Protocol):
    """One connection. What it raises beside `Refused` is OSError: the connection is given up."""

    async def deliver(self, parcels: Sequence[Parcel]) -> None:
        """Return once the other side has all of them."""
        ...

    async def watch(self) -> Never:
        """What has to be done beside delivering; raises when the connection is lost."""
        ...


class Dialect(Protocol):
    """How one kind of platform is spoken to."""

    says_mode: ClassVar[bool]  # whether what it makes says that data are of a test, or simulated
    where: str  # for the log: whom it speaks to

    def encode(self, told: Sequence[Told]) -> Sequence[Parcel]:
        """What there is to hand over of these batches; nothing of what the dialect has no words for."""
        ...

    def open(self) -> AbstractAsyncContextManager[Link]:
        """Connect, and say what has to be said first."""
        ...


class _Mode(msgspec.Struct):
    mode: Mode


class _Readings(msgspec.Struct):
    mode: Mode
    readings: list[Reading]


def told(batch: Batch) -> Told:
    """The batch, read.

    Raises:
        Refused: for good; the bytes are not those of a payload.
    """
    try:
        if batch.kind == "readings":
            its = msgspec.json.decode(batch.payload, type=_Readings)
            return Told(batch.seq, batch.kind, its.mode, batch.time_ns, tuple(its.readings))
        mode = msgspec.json.decode(batch.payload, type=_Mode).mode
        alarm = msgspec.json.decode(batch.payload, type=Alarm) if batch.kind == "alarms" else None
    except msgspec.DecodeError as error:
        raise Refused(f"its payload cannot be read: {error}", for_good=True) from None
    return Told(batch.seq, batch.kind, mode, batch.time_ns, (), alarm)


def json(value: Any) -> bytes:
    """As the platforms' own examples are written: UTF-8, no escapes, no spaces."""
    return msgspec.json.encode(value)
