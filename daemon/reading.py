"""Readings: calibrated quantities of channels, in the two shapes in which they travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, overload

import msgspec

from drivers.sample import Quality

if TYPE_CHECKING:
    from collections.abc import Iterator

_JSON = msgspec.json.Encoder()
_QUALITY_TEXT = {int(quality): quality.text for quality in Quality}


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One reading as version 1 of the payload writes it; `value` is None where `quality` is bad."""

    channel: str
    time: str
    value: float | None
    unit: str
    quality: str
    raw: Mapping[str, float]


class ReadingFrame(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Readings of one instant that came of one frame, or of the frames of one tick.

    `values` and `qualities` are parallel to `channels` (ids) and `units`; a bad value is NaN. `raws` holds,
    for each, the wire's numbers by `device.point`; empty for derived channels. All times are ns,
    `time_ns` UTC: that of the frame that completed the tick. `script` writes such frames quickly.
    """

    channels: Sequence[str]
    units: Sequence[str]
    tick_ns: int
    time_ns: int
    mono_ns: int
    values: Sequence[float]
    qualities: bytes
    raws: Sequence[Mapping[str, float]]
    script: Script | None = None

    def __iter__(self) -> Iterator[Reading]:
        """The readings as they are written; NaN is written as null."""
        time = rfc3339(self.time_ns)
        rows = zip(self.channels, self.values, self.units, self.qualities, self.raws, strict=True)
        for channel, value, unit, quality, raw in rows:
            yield Reading(channel, time, value, unit, _QUALITY_TEXT[quality], raw)

    def json(self) -> bytes:
        """The readings as JSON objects with commas between them."""
        if self.script is not None and isinstance(self.raws, PointRaws):
            return self.script.written(self, self.raws.numbers)
        return _JSON.encode(list(self))[1:-1]


class PointRaws(Sequence[Mapping[str, float]]):
    """The raws of a frame each of whose readings rests on one number, or of a frame without numbers.

    Nearly nobody looks at them one by one, so they are not made before somebody does.
    """

    __slots__ = ("_names", "numbers")

    def __init__(self, names: Sequence[str], numbers: Sequence[float]) -> None:
        self._names = names
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, at: int) -> Mapping[str, float]: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Mapping[str, float]]: ...
    def __getitem__(self, at: int | slice) -> Mapping[str, float] | Sequence[Mapping[str, float]]:
        return list(self)[at]

    def __iter__(self) -> Iterator[Mapping[str, float]]:
        if not self.numbers:
            return iter([{}] * len(self._names))
        return ({name: number} for name, number in zip(self._names, self.numbers, strict=True))


class Script:
    """Writes frames of the same channels, whose raws are `PointRaws`, as JSON of payload version 1.

    From frame to frame only times and numbers change: what stands between them is put together once for each
    pattern of qualities. It is what msgspec would write, reading by reading (a test compares the two).
    """

    _MOST_PATTERNS = 64

    def __init__(self, channels: Sequence[str], units: Sequence[str], names: Sequence[str]) -> None:
        self._channels, self._units, self._names = channels, units, names
        self._texts: dict[tuple[bytes, bool], list[bytes]] = {}

    def written(self, frame: ReadingFrame, numbers: Sequence[float]) -> bytes:
        """The readings of `frame`; `numbers` are those of its raws, or none."""
        pattern = (frame.qualities, bool(numbers))
        texts = self._texts.get(pattern) or self._between(*pattern)
        parts = texts.copy()
        step = 6 if numbers else 4
        parts[1::step] = [rfc3339(frame.time_ns).encode()] * len(self._channels)
        parts[3::step] = _JSON.encode(frame.values)[1:-1].split(b",")
        if numbers:
            parts[5::step] = _JSON.encode(numbers)[1:-1].split(b",")
        return b"".join(parts)

    def _between(self, qualities: bytes, has_numbers: bool) -> list[bytes]:  # noqa: FBT001 -- of a pattern
        """The text, with an empty place for each reading's time, value and number."""
        texts: list[bytes] = []
        end = b""
        rows = zip(self._channels, self._units, qualities, self._names, strict=True)
        for channel, unit, quality, name in rows:
            raw = {name: 0.0} if has_numbers else {}
            text = _JSON.encode(Reading(channel, "", None, unit, _QUALITY_TEXT[quality], raw))
            before, _, after = text.partition(b'"time":""')
            between, _, after = after.partition(b"null")
            texts += [end + before + b'"time":"', b"", b'"' + between, b""]
            if has_numbers:
                texts += [after.removesuffix(b"0.0}}"), b""]
            end = b"}}," if has_numbers else after + b","
        if len(self._texts) >= self._MOST_PATTERNS:
            self._texts.clear()
        made = self._texts[qualities, has_numbers] = [*texts, end[:-1]]
        return made


def rfc3339(time_ns: int) -> str:
    """UTC with milliseconds, as the payload writes it: `2026-11-23T08:00:00.000Z`."""
    seconds, ns = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}.{ns // 1_000_000:03d}Z"


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since 1970 of a payload's time."""
    moment = datetime.fromisoformat(text)
    return round(moment.timestamp() * 1000) * 1_000_000
