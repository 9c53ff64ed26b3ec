"""The state around the kernels: what is armed, what a batch changes, and the verdicts that follow.

Thresholds here are those of data quality and advice, never of a trigger level: k = 8 spreads for an
outlier, the rate that the site file calls worth a look. What is said does not depend on how a history is cut
into batches.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf, nan
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edge_rules.advice import kernels
from edge_rules.advice.checkpoint import Table
from edge_rules.advice.response import Responses
from edge_rules.advice.sections import Sections
from edge_rules.advice.verdicts import Speaker
from edge_rules.law.trend import MOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edge_rules.advice.messages import Advice, Channel, Reading, Rule, Verdict

K = 8.0
FLOOR_OF_RESOLUTION = 2.0
# q for a noise of one unit: 1e-7 mm^2/h^3 at 2 mm, the setting for hourly GNSS, made free of the unit.
Q_OF_VARIANCE = 2.5e-8
HOURS_PER_DAY = 24.0
CONDITIONS = ("spike_on", "rate_on", "step_left", "flat_on", "noise_on", "onset_on", "common_on", "gap_on")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Batch(NamedTuple):
    """Readings side by side, in the order of time in which they were stored.

    `name` is an index into `Detectors.names`, or -1 for a channel that no detector looks at; `x` is NaN where
    the reading is not good (and taken for it beyond law/trend.py's MOST), `raw` the number of the wire
    behind it, or the value.
    """

    name: np.ndarray[tuple[int], np.dtype[np.int64]]
    t: np.ndarray[tuple[int], np.dtype[np.int64]]
    x: np.ndarray[tuple[int], np.dtype[np.float64]]
    raw: np.ndarray[tuple[int], np.dtype[np.float64]]


class Detectors:
    """All armed channels of one configuration."""

    def __init__(self, channels: Iterable[Channel]) -> None:
        armed = [channel for channel in channels if channel.advice is not None]
        self.ids = [channel.id for channel in armed]
        row = {one: i for i, one in enumerate(self.ids)}
        self.responses = Responses(armed)
        self.names = [*self.ids, *(name for name in self.responses.parts if name not in row)]
        self._code = {name: code for code, name in enumerate(self.names)}
        self._parts = [self.responses.parts.get(name, []) for name in self.names]
        self._plays = np.array([bool(parts) for parts in self._parts], np.bool_)
        self._sources = {channel.id: channel.source for channel in armed}
        self.state = kernels.records(kernels.STATE, len(armed))
        self._params = kernels.records(kernels.PARAMS, len(armed))
        forecast = [c.id for c in armed if c.advice and c.advice.onset and c.advice.trend_noise]
        self._hourly = Table(forecast, kernels.records(kernels.HOURLY, len(forecast)))
        self._mates = np.zeros(0, np.int64)
        self._arm(armed, forecast)
        self._sections = Sections(armed)
        self._speaker = Speaker(armed, self._params, self.responses.ids)
        self._out = kernels.records(kernels.OUT, 0)
        self._gaps = kernels.records(kernels.GAP, 0)
        self._watch = np.zeros(1, np.int64)
        self._said = self._out["said"]
        self._bare: list[np.ndarray[Any, Any]] = []
        self._ended: list[tuple[str, Rule]] = []

    @property
    def tables(self) -> dict[str, Table]:
        """All there is to keep."""
        return {
            "channel": Table(self.ids, self.state),
            "hourly": self._hourly,
            "response": Table(self.responses.ids, self.responses.state),
        }

    def take_over(self, tables: Mapping[str, Table], *, statistics: bool) -> bool:
        """Continue from what another configuration kept, channel by channel, by id.

        Without `statistics`, or where an older version kept other fields, only the conditions that stand are
        kept, so that they can end one day; whether the statistics were.
        """
        mine = self.tables
        statistics = statistics and all(
            name in tables and tables[name].records.dtype == table.records.dtype
            for name, table in mine.items()
        )
        if statistics:
            for name, table in mine.items():
                table.take_over(tables[name], table.records.dtype.names or ())
        elif "channel" in tables:
            there = tables["channel"].records.dtype.names or ()
            mine["channel"].take_over(tables["channel"], [name for name in CONDITIONS if name in there])
            for name, field in (("hourly", "stage"), ("response", "on")):
                if name in tables:
                    mine[name].take_over(tables[name], [field])
        self._ended = _no_longer_watched(mine, tables)
        self._sections.restore(self.state, self.responses)
        return statistics

    def feed(self, stream: str, seq: int, readings: Sequence[Reading]) -> list[Verdict]:
        """What one batch changes, in the order of its readings; those of channels not armed only tell the time."""  # noqa: E501
        code, sources = self._code, self._sources
        name = [code.get(reading.channel, -1) for reading in readings]
        x = [_value(reading) for reading in readings]
        count = [
            reading.raw.get(sources.get(reading.channel, ""), value)
            for reading, value in zip(readings, x, strict=True)
        ]
        t = [_ns(reading.time) for reading in readings]
        batch = Batch(
            np.array(name, np.int64), np.array(t, np.int64), np.array(x, float), np.array(count, float)
        )
        return self.judge(stream, seq, batch)

    def judge(self, stream: str, seq: int, batch: Batch) -> list[Verdict]:
        """What a batch changes, in the order of its readings."""
        size = batch.name.size
        if not self.ids or size == 0:
            return []
        self._make_room(size)
        batch = batch._replace(x=np.where(np.abs(batch.x) < MOST, batch.x, nan))
        row = np.where(batch.name < len(self.ids), batch.name, -1)
        silent = kernels.step(row, batch.t, batch.x, batch.raw, *self._bare)
        said = self._said[:size]
        found = [(int(j), int(row[j]), self._out[j]) for j in np.flatnonzero(said & kernels.CHANGED)]
        gaps = [(int(gap.at), int(gap.row), gap) for gap in self._gaps[:silent]]
        responses = self._respond(batch)
        if not (found or gaps or responses or self._ended):
            return []
        verdicts = [
            self._speaker.disarmed(stream, seq, int(batch.t[0]), channel, rule)
            for channel, rule in self._ended
            if channel in self.ids
        ]
        self._ended = []
        verdicts += self._speaker.say(stream, seq, batch.t, found, gaps, responses)
        return self._sections.corroborate(stream, seq, verdicts)

    def _respond(self, batch: Batch) -> list[tuple[int, int, object]]:
        if not self.responses.ids:
            return []
        plays = np.flatnonzero((batch.name >= 0) & self._plays[batch.name])
        events = [
            (int(j), row, role, int(batch.t[j]), float(batch.x[j]))
            for j in plays
            for row, role in self._parts[batch.name[j]]
        ]
        return self.responses.feed(events) if events else []

    def _make_room(self, size: int) -> None:
        if self._out.size < size:
            self._out = kernels.records(kernels.OUT, size)
            self._said = self._out["said"]
            self._gaps = kernels.records(kernels.GAP, 2 * (size + len(self.ids)))
            parts = (self.state, self._params, self._mates, self._hourly.records, self._out, self._gaps)
            bare = [part if part is self._mates else kernels.bare(part) for part in parts]  # type: ignore[arg-type]
            self._bare = [*bare, self._watch]

    def _arm(self, armed: Sequence[Channel], forecast: Sequence[str]) -> None:
        domains: dict[str, list[int]] = {}
        for row, channel in enumerate(armed):
            if channel.advice and channel.advice.domain and channel.advice.trend_noise:
                domains.setdefault(channel.advice.domain, []).append(row)
        mates: list[int] = []
        for row, channel in enumerate(armed):
            assert channel.advice is not None
            others = [i for i in domains.get(channel.advice.domain, []) if i != row]
            others = others if row in domains.get(channel.advice.domain, []) else []
            hours = forecast.index(channel.id) if channel.id in forecast else -1
            self._params[row] = (*_params(channel.advice), hours, len(mates), len(mates) + len(others))
            mates += others
        self._mates = np.array(mates, np.int64)


def _params(advice: Advice) -> tuple[float, ...]:
    """The fields of PARAMS up to those that depend on other channels."""
    rate = advice.trend_rate_per_day
    variance = 0.0 if advice.trend_noise is None else advice.trend_noise**2
    return (
        int(advice.hampel),
        K,
        FLOOR_OF_RESOLUTION * advice.resolution,
        int(variance > 0.0),
        variance,
        Q_OF_VARIANCE * variance,
        inf if rate is None else rate / HOURS_PER_DAY,
        round((advice.flatline_s or 0.0) * 1e9),
        int(advice.noise),
        advice.resolution,
        int(advice.onset and variance > 0.0),
        round((advice.period_s or 0.0) * 1e9),
    )


def _no_longer_watched(mine: Mapping[str, Table], before: Mapping[str, Table]) -> list[tuple[str, Rule]]:
    """Conditions that stood in tables whose row for the channel is there no more."""
    fields: tuple[tuple[str, str, Rule], ...] = (
        ("hourly", "stage", "forecast"),
        ("response", "on", "response"),
    )
    return [
        (one, rule)
        for table, field, rule in fields
        if table in before
        for one, record in zip(before[table].ids, before[table].records[field], strict=True)
        if record and one not in mine[table].ids
    ]


def compile_kernels() -> None:
    """Run the entry points once with the very types of `Detectors.judge`: compiled and loaded afterwards."""

    def none(dtype: np.dtype[np.void]) -> kernels.Records:
        return kernels.bare(kernels.records(dtype, 0))

    nothing, values = np.zeros(0, np.int64), np.zeros(0)
    kernels.step(
        nothing, nothing, values, values, none(kernels.STATE), none(kernels.PARAMS), nothing,
        none(kernels.HOURLY), none(kernels.OUT), none(kernels.GAP), np.zeros(1, np.int64),
    )  # fmt: skip
    kernels.respond(
        nothing, nothing, nothing, values, none(kernels.RESPONSE), none(kernels.RESPONSE_PARAMS),
        none(kernels.RESPONSE_OUT),
    )  # fmt: skip


def _value(reading: Reading) -> float:
    return reading.value if reading.value is not None and reading.quality == "good" else nan


def _ns(time: datetime) -> int:
    """Exact: the payload's milliseconds never pass through a float."""
    since = time - _EPOCH
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
