"""What every driver promises, and the tree of what can go wrong on a wire.

WireError
├── LineDown         the port or connection is gone: everybody on the line suffers
└── DeviceError      one device failed; the line is well
    ├── NoReply      silence up to the deadline
    ├── BadReply     bytes, but no valid answer among them
    ├── Refused      a Modbus exception
    └── Busy         "later": exceptions 5 and 6, or a busy register; not a failure
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from drivers.sample import Quality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drivers.line import Line
    from drivers.rhythm import Rhythm
    from drivers.sample import Block, Frame


class WireError(Exception):
    """Anything a wire can do to us; `quality` is what the samples of the failed poll carry."""

    quality: ClassVar[Quality]


class LineDown(WireError):
    quality = Quality.LINE_DOWN


class DeviceError(WireError):
    quality = Quality.BAD_REPLY


class NoReply(DeviceError):
    quality = Quality.NO_REPLY


class BadReply(DeviceError):
    quality = Quality.BAD_REPLY


class Refused(DeviceError):
    quality = Quality.REFUSED


class Busy(DeviceError):
    quality = Quality.BUSY


class Stamps(Protocol):
    """The clock as drivers see it: when did this reply become complete."""

    def wall_ns(self) -> int: ...

    def monotonic_ns(self) -> int: ...


class PolledDriver(Protocol):
    """A device that answers when asked."""

    device: str

    @property
    def blocks(self) -> Sequence[Block]: ...

    async def poll(self, line: Line, tick_ns: int) -> list[Frame]:
        """One frame for each block, in order, or the WireError that ended the poll.

        A block that the device refuses does not cost the others theirs: its frame is missing with REFUSED.
        """
        ...


class StreamDriver(Protocol):
    """A device that speaks by itself, thinned to its rhythm."""

    device: str
    rhythm: Rhythm

    @property
    def blocks(self) -> Sequence[Block]: ...

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes; never raises for what is on the wire.

        `tick_ns` of a frame is the multiple of the device's period at or before the epoch's time.
        """
        ...

    def due(self) -> list[Frame]:
        """The frames of periods that are over and wait for bytes that may never come."""
        ...
