"""What a device said: samples, their quality, and the frame in which they travel.

A reply yields many samples at one instant, so they travel together as one `Frame`; nothing
on the way from the wire to the disk makes an object per value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import nan
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator


class Quality(IntEnum):
    """The closed list of what can be said of a value; one byte each, worst last.

    Upstream a member is written `good`, `uncertain:<reason>` or `bad:<reason>` (`text`). A bad value
    is missing: its number is NaN here and `null` upstream.
    """

    GOOD = 0
    # Uncertain: there is a number, and a reason to look at it twice. It raises and never clears.
    GNSS_FLOAT = 1  # ambiguities not fixed
    NO_TEMPERATURE = 2  # reduced without the thermal correction
    UNCERTAIN_INPUT = 3  # an input of the derivation is uncertain
    COUNTER_RESET = 4  # the counter fell; what it counted before the fall is unknown
    MAINTENANCE = 5  # a person works on the device
    DEGRADED = 6  # the device itself says so
    CLOCK = 7  # the wall clock could not be trusted at this moment
    BASE_CHANGED = 8  # GNSS: rests on another base station than the origin was measured from
    FROZEN = 9  # the air is cold enough for the rain gauge to be frozen
    NEIGHBOUR = 10  # dry, while it rains at a neighbouring gauge
    MANUAL = 11  # read by a person and filled in, where the instrument has no value
    OLD_CONSTANTS = 12  # survey or calibration older than the site allows, or from before a raise
    # Bad: there is no number.
    NO_REPLY = 64  # silence up to the deadline
    BAD_REPLY = 65  # bytes came, none of them a valid answer
    REFUSED = 66  # Modbus exception
    BUSY = 67  # Modbus exceptions 5 and 6, or a busy status register
    LINE_DOWN = 68  # port gone, connection refused
    SENTINEL = 69  # the profile names this number as "no value"
    NOT_A_NUMBER = 70  # NaN or infinity on the wire
    SENSOR_FAULT = 71  # a status register says so
    NO_FIX = 72  # GNSS without a usable solution
    OUT_OF_SPAN = 73  # outside what the site file says the sensor can measure
    MISSING_INPUT = 74  # an input of the calibration or derivation is missing
    BELOW_TIP = 75  # water stands below the tip: no level, and never zero head
    OVERRUN = 76  # the bus had no time for this poll
    COUNTER_STEP = 77  # the counter moved more than the site allows from poll to poll
    BACK_OFF = 78  # not asked this time: the device has been silent

    @property
    def is_bad(self) -> bool:
        return self >= Quality.NO_REPLY

    @property
    def is_uncertain(self) -> bool:
        return Quality.GOOD < self < Quality.NO_REPLY

    @property
    def text(self) -> str:
        """As written upstream and in the command line's output."""
        return _TEXT[self]


_TEXT = {
    q: (
        "good"
        if q == Quality.GOOD
        else ("bad:" if q.is_bad else "uncertain:") + q.name.lower().replace("_", "-")
    )
    for q in Quality
}
QUALITY_OF_TEXT = {text: quality for quality, text in _TEXT.items()}

# There is a number, but no level may rest on it: it neither raises nor clears one, nor is the channel seen.
NO_EVIDENCE = frozenset({Quality.GNSS_FLOAT, Quality.BASE_CHANGED, Quality.MAINTENANCE})


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One request (or one sentence) of one device, compiled at configuration: who answers, with what.

    Compared by identity: the driver makes it once and every frame of that request carries it.
    """

    device: str
    name: str
    points: tuple[str, ...]
    units: tuple[str, ...]


# Made for every reply: quicker than a dataclass.
class Frame(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What one reply yielded; `numbers`, `values` and `qualities` are parallel to `block.points`.

    `tick_ns` is the scheduled instant the poll belongs to, `time_ns` when the reply was complete (both
    UTC), `mono_ns` the monotonic stamp of the latter. `numbers` are as decoded from the wire, before
    scale; empty when nothing came. `values` are in `block.units`, NaN where bad. `data` are the bytes they
    were decoded from, for people who want to see them.
    """

    block: Block
    tick_ns: int
    time_ns: int
    mono_ns: int
    numbers: Sequence[float]
    values: Sequence[float]
    qualities: bytes
    data: bytes = b""

    @classmethod
    def missing(cls, block: Block, tick_ns: int, time_ns: int, mono_ns: int, why: Quality) -> Frame:
        """The frame of a poll that brought nothing: every point bad, for the one reason."""
        n = len(block.points)
        return cls(block, tick_ns, time_ns, mono_ns, (), (nan,) * n, bytes((why,)) * n)

    def __iter__(self) -> Iterator[Sample]:
        numbers = self.numbers or (nan,) * len(self.values)
        rows = zip(self.block.points, self.block.units, numbers, self.values, self.qualities, strict=True)
        for point, unit, number, value, quality in rows:
            yield Sample(
                self.block.device, point, number, value, unit, Quality(quality), self.time_ns, self.mono_ns
            )


@dataclass(frozen=True, slots=True)
class Sample:
    """One point of a frame, made where a person or a test wants one."""

    device: str
    point: str
    number: float
    value: float
    unit: str
    quality: Quality
    time_ns: int
    mono_ns: int
