"""Constants with a date: which held when, who took them, and from when on they are not to be relied on.

A reading is computed with the constants of its own instant, in the running core as in `pondwatch replay`;
what is stored stays as it was computed. Constants grow old: a survey of ground, crest, beach or pipe mouth
after `survey_valid` of its pond or at the next raise of the dam, anything at the end of its own `valid`. From
then on what is computed from them is uncertain, until newer ones are in the site file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from drivers.calibration import KINDS as CALIBRATIONS
from drivers.calibration import Calibration
from drivers.gnss.baseline import Baseline, Reference  # noqa: TC001 -- the binder reads the types
from edge_rules.law import derived
from edge_rules.law.derived import KINDS as DERIVATIONS
from edge_rules.law.derived import Derivation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from daemon.config import ChannelTable, Pond, Site

SURVEY_VALID_S: Final = 92 * 86400.0  # three months, our own rule: no standard was seen that names a time
FOREVER_NS: Final = 2**63 - 1
SURVEYED: Final = (
    derived.BurialDepth,
    derived.Freeboard,
    derived.DryBeach,
    derived.ProjectedFreeboard,
    derived.ProjectedBeach,
)  # they rest on a surface that deposits, settlement and raises change
_MAY_BE_SURVEYED = (*SURVEYED, derived.Linear)  # as the mouth of a standpipe, which grows with the dam


def _key(doc: str, example: str, default: Any = ..., **how: Any) -> Any:
    metadata = {"doc": doc, "example": example, **how}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Taken:
    """Where constants come from."""

    on: date = _key("local day of the survey or calibration", '"2026-05-10"', parse="date")
    by: str = _key("who measured", '"李工"', pattern=r".*\S.*")
    document: str = _key("where it is written down", '"survey 2026-05, sheet 3"', "")
    valid_s: float | None = _key(
        "how long it may be relied on; absent: the pond's survey_valid for what is surveyed, else for ever",
        '"365 days"',
        None,
        key="valid",
        parse="duration",
        exclusive_min=0.0,
    )


@dataclass(frozen=True, slots=True)
class Raise:
    """The dam was raised: a survey from before that day does not describe it any more."""

    on: date = _key("local day", '"2026-09-01"', parse="date")
    by: str = _key("who says so", '"王工"', pattern=r".*\S.*")
    note: str = _key("which lift, to which elevation", '"lift 14, to 104.0 m"', "")


def _until() -> Any:
    return _key("the instant at which newer ones took over", '"2026-05-10T09:30:00+08:00"', parse="instant")


def _by() -> Any:
    return _key("who put the newer ones in", '"王工"', pattern=r".*\S.*")


@dataclass(frozen=True, slots=True)
class ChannelWas:
    """What held for a channel before; the keys that are absent were as they are now."""

    until: datetime = _until()
    by: str = _by()
    sensor: str = _key("serial number of the sensor then", '"VW-1093"', "")
    calibration: Calibration | None = _key(
        "numbers of the calibration sheet then",
        '{ kind = "linear", scale = 1.0, offset = 0.3 }',
        None,
        variants=CALIBRATIONS,
    )
    derive: Derivation | None = _key(
        "the derivation then, of the same kind and from the same channels",
        '{ kind = "piezometric-elevation", of = "n.pz03.pressure", tip_elevation_m = 78.40 }',
        None,
        variants=DERIVATIONS,
    )
    taken: Taken | None = _key("where they came from", '{ on = "2025-04-02", by = "李工" }', None)


@dataclass(frozen=True, slots=True)
class DeviceWas:
    """What held for a device before; the keys that are absent were as they are now."""

    until: datetime = _until()
    by: str = _by()
    serial_number: str = _key("as engraved on the one that was there", '"VTN-2019-0044"', "")
    baseline: Baseline | None = _key(
        "GNSS only: the origin then",
        "{ latitude_deg = 36.123456789, longitude_deg = 115.987654321, height_m = 84.1200 }",
        None,
    )
    reference: Reference | None = _key(
        "likewise, of a vector", "{ east_m = -5654.4012, north_m = 12167.7631, up_m = -42.3190 }", None
    )


@dataclass(frozen=True, slots=True)
class Period:
    """Constants of a channel, in force until `until_ns`, excluded; doubtful from `doubtful_ns` on."""

    until_ns: int
    calibration: Calibration | None
    derive: Derivation | None
    doubtful_ns: int


def in_force(periods: Sequence[Period], time_ns: int) -> Period:
    """The one in force at an instant; the last is in force for ever."""
    return next(each for each in periods if time_ns < each.until_ns)


def ns(moment: datetime) -> int:
    """An instant, in nanoseconds UTC."""
    return round(moment.timestamp() * 1e6) * 1000


def periods(site: Site) -> Mapping[str, Sequence[Period]]:
    """Those of every channel whose constants change or grow old."""
    zone = ZoneInfo(site.site.timezone)
    ponds = {pond.id: pond for pond in site.ponds}
    found = {channel.id: tuple(_of(channel, ponds[channel.pond], zone)) for channel in site.channels}
    return {
        channel: its for channel, its in found.items() if len(its) > 1 or its[0].doubtful_ns != FOREVER_NS
    }


def _of(channel: ChannelTable, pond: Pond, zone: ZoneInfo) -> Iterator[Period]:
    for was in channel.was:
        derive = was.derive or channel.derive
        doubtful_ns = _doubtful_ns(was.taken, derive, pond, zone)
        yield Period(ns(was.until), was.calibration or channel.calibration, derive, doubtful_ns)
    yield Period(
        FOREVER_NS,
        channel.calibration,
        channel.derive,
        _doubtful_ns(channel.taken, channel.derive, pond, zone),
    )


def _doubtful_ns(taken: Taken | None, derive: Derivation | None, pond: Pond, zone: ZoneInfo) -> int:
    day = doubtful_on(taken, derive, pond)
    return FOREVER_NS if day is None else ns(datetime.combine(day, time(), zone))


def doubtful_on(taken: Taken | None, derive: Derivation | None, pond: Pond) -> date | None:
    """The first local day on which constants are not to be relied on any more, if there is one."""
    if taken is None:
        return None
    days = []
    is_survey = isinstance(derive, _MAY_BE_SURVEYED)
    valid_s = taken.valid_s or (pond.survey_valid_s if is_survey else None)
    if valid_s is not None:
        days.append(taken.on + timedelta(seconds=valid_s))
    if is_survey:
        days += [each.on for each in pond.raises if each.on > taken.on]
    return min(days, default=None)
