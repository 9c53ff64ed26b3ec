"""InfluxDB's line protocol: a reading is a point of its channel's series, at the moment it was measured.

The store over there keeps one point for a series and a time: a batch handed over twice is one in effect.
Quality is a field and no tag, so a repeat cannot become another series. A missing value has no `value` field
and says why in `quality`. Source of the quoting: InfluxDB's line protocol reference, "special characters".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from daemon.reading import parse_rfc3339
from daemon.uplink.dialect import Parcel
from daemon.uplink.post import Post

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from daemon.uplink.dialect import Link, Told
    from daemon.uplink.tables import InfluxTable
    from daemon.uplink.tls import Times

# A tag must not contain a line break, and a backslash at its end would swallow what follows.
_TAG: Final = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ ", "\n": r"\ ", "\r": r"\ ", "\\": "/"})
_TEXT: Final = str.maketrans({'"': r"\"", "\\": r"\\"})
_MS_NS = 1_000_000


class Influx:
    """The dialect."""

    says_mode: ClassVar[bool] = True  # a tag: what is of a test is another series

    def __init__(self, table: InfluxTable, site: str, gateway: str, times: Times) -> None:
        self.where = table.url
        self._table = table
        self._of = {"site": site, "gateway": gateway}
        self._times = times

    def open(self) -> AbstractAsyncContextManager[Link]:
        return Post(self._table, self._times).open()

    def encode(self, told: Sequence[Told]) -> Sequence[Parcel]:
        lines = [line for one in told for line in self._lines(one)]
        return [Parcel("lines", "\n".join(lines).encode())] if lines else []

    def _lines(self, one: Told) -> Iterator[str]:
        for reading in one.readings:
            tags = self._of | {"channel": reading.channel, "mode": one.mode, "unit": reading.unit}
            fields = [("quality", _text(reading.quality))]
            if reading.value is not None:
                fields.insert(0, ("value", repr(float(reading.value))))
            yield _line(self._table.measurement, tags, fields, parse_rfc3339(reading.time))
        if (alarm := one.alarm) is not None:
            tags = self._of | {"about": alarm.id.rpartition(":")[0], "kind": alarm.kind, "mode": one.mode}
            tags |= {"pond": alarm.pond or "", "channel": alarm.channel or ""}
            said = {
                "id": alarm.id,
                "level": alarm.level,
                "was": alarm.was,
                "condition": alarm.condition,
                "response": alarm.response,
                "by": alarm.by,
                "note": alarm.note,
                "due": alarm.due,
                "reason_zh": alarm.reason.zh,
                "reason_en": alarm.reason.en,
            }
            fields = [(name, _text(text)) for name, text in said.items() if text]
            numbers = {"value": alarm.value, "limit": alarm.limit}
            fields += [(name, repr(float(n))) for name, n in numbers.items() if n is not None]
            # Two changes within a millisecond are two points: told apart by their places in the chain.
            time_ns = parse_rfc3339(alarm.time) + one.seq % _MS_NS
            yield _line(self._table.alarm_measurement, tags, fields, time_ns)


def _line(name: str, tags: Mapping[str, str], fields: Iterable[tuple[str, str]], time_ns: int) -> str:
    series = ",".join(
        [name, *(f"{key}={text.translate(_TAG)}" for key, text in sorted(tags.items()) if text)]
    )
    return f"{series} {','.join(f'{key}={value}' for key, value in fields)} {time_ns}"


def _text(text: str) -> str:
    return f'"{text.translate(_TEXT)}"'
