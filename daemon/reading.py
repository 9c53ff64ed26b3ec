"""Readings: calibrated quantities of channels, in the two shapes in which they travel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from drivers.sample import Quality

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_QUALITY_TEXT = {int(quality): quality.text for quality in Quality}


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One reading as version 1 of the payload writes it; `value` is None where `quality` is bad."""

    channel: str
    time: str
    value: float | None
    unit: str
    quality: str
    raw: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class ReadingFrame:
    """Readings of one instant that came of one frame, or of the frames of one tick.

    `values` and `qualities` are parallel to `channels` (ids) and `units`; a bad value is NaN. `raws` holds,
    for each, the wire's numbers by `device.point`; empty for derived channels. All times are ns,
    `time_ns` UTC: that of the frame that completed the tick.
    """

    channels: Sequence[str]
    units: Sequence[str]
    tick_ns: int
    time_ns: int
    mono_ns: int
    values: Sequence[float]
    qualities: bytes
    raws: Sequence[Mapping[str, float]]

    def __iter__(self) -> Iterator[Reading]:
        """The readings as they are written; NaN is written as null."""
        time = rfc3339(self.time_ns)
        rows = zip(self.channels, self.values, self.units, self.qualities, self.raws, strict=True)
        for channel, value, unit, quality, raw in rows:
            yield Reading(channel, time, value, unit, _QUALITY_TEXT[quality], raw)


def rfc3339(time_ns: int) -> str:
    """UTC with milliseconds, as the payload writes it: `2026-11-23T08:00:00.000Z`."""
    seconds, ns = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns // 1_000_000:03d}Z"


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since 1970 of a payload's time."""
    moment = datetime.fromisoformat(text)
    return round(moment.timestamp() * 1000) * 1_000_000
