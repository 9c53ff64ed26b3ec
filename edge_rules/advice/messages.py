"""The lines between core and rules process, and the shapes behind them; msgspec only, no numpy.

JSON lines in UTF-8. The worker greets with `Hello`, the core answers with `Config` and then shows batches,
each the stored payload of one `readings` message; the worker answers each with its verdicts and `Judged`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec

Rule = Literal[
    "hampel",
    "flatline",
    "noise",
    "gap",
    "trend",
    "step",
    "onset",
    "forecast",
    "response",
    "common-mode",
    "corroborated",
]
Urgency = Literal["watch", "inspect today", "inspect now"]


class Response(msgspec.Struct, frozen=True):
    """The channels from which a pore pressure is expected; "" where there is none."""

    rain: str = ""
    evaporation: str = ""
    pond: str = ""
    step_s: float = 86400.0
    learn_s: float = 365 * 86400.0


class Advice(msgspec.Struct, frozen=True):
    """Which detectors a channel has; numbers in its unit, rates per day."""

    hampel: bool = False
    resolution: float = 0.0
    flatline_s: float | None = None
    noise: bool = False
    period_s: float | None = None
    trend_noise: float | None = None
    trend_rate_per_day: float | None = None
    onset: bool = False
    domain: str = ""
    response: Response | None = None
    false_alarms_per_year: float = 0.1


class Channel(msgspec.Struct, frozen=True):
    """A channel with advice.

    `source` is the point whose raw number tells a stuck sensor; the channel is at or beyond yellow up from
    `yellow_high`, down from `yellow_low`.
    """

    id: str
    unit: str
    advice: Advice | None = None
    source: str = ""
    section: str = ""
    monitoring_point: str = ""
    yellow_low: float | None = None
    yellow_high: float | None = None


class Config(msgspec.Struct, frozen=True):
    stream: str
    config_sha256: str
    channels: Sequence[Channel]


class Reading(msgspec.Struct, frozen=True):
    """What of a reading the detectors look at; a reading that is not good counts as missing."""

    channel: str
    time: datetime
    value: float | None
    quality: str
    raw: Mapping[str, float] = {}


class Line(msgspec.Struct, frozen=True):
    """Any line of the core: a configuration, or else a batch of `readings`."""

    config: Config | None = None
    stream: str = ""
    seq: int = 0
    readings: Sequence[Reading] = ()


class Reason(msgspec.Struct, frozen=True):
    zh: str
    en: str


class Verdict(msgspec.Struct, frozen=True):
    """A condition that began or ended, and the {stream, seq} it rests on. Missing numbers are null."""

    stream: str
    seq: int
    channel: str
    rule: Rule
    kind: Literal["quality", "advice"]
    condition: Literal["present", "gone"]
    urgency: Urgency | None
    score: float
    value: float | None
    limit: float | None
    time: str
    reason: Reason
    evidence: dict[str, float | str]


class Position(msgspec.Struct, frozen=True):
    """The last batch judged; stream None: none yet."""

    stream: str | None = None
    seq: int = 0


class Hello(msgspec.Struct, frozen=True):
    stream: str | None
    seq: int
    hello: int = 1
