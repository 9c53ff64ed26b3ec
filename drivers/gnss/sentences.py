"""Makers' own sentences, read as a profile lays them out: which field is what is data, not code.

A field's name says what it holds. `VOCABULARY` has the names that mean something here; a field with any other
name is passed over. A sentence may have more fields than its profile names, as boards append some; one with
fewer is not understood, and nothing is taken from it.
"""

from __future__ import annotations

import re
from math import isnan, nan
from typing import TYPE_CHECKING

from drivers.gnss.epoch import DAY_NS, NOWHERE, ROLLOVER_NS, Epoch, Fix, Moment, day_ns
from drivers.gnss.nmea import Sentence, angle_deg, dated, number, time_of_day_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from drivers.gnss.epoch import Told
    from drivers.gnss.framer import Message
    from drivers.model import Layout

VECTOR = ("east_m", "north_m", "up_m")
GRID = ("easting_m", "northing_m", "height_m")
DEGREES = ("latitude_deg", "longitude_deg", "height_m")
MINUTES = ("latitude", "ns", "longitude", "ew", "height_m")
VOCABULARY: Mapping[str, str] = {
    "utc": "hhmmss.ss, time of day",
    "date_ddmmyy": "the date of utc",
    "date_mmddyy": "the date of utc",
    "time": "yyyymmddhhmmss.ss, UTC",
    "east_m": "east of the base station",
    "north_m": "north of the base station",
    "up_m": "above the base station",
    "easting_m": "grid coordinate",
    "northing_m": "grid coordinate",
    "latitude_deg": "signed decimal degrees",
    "longitude_deg": "signed decimal degrees",
    "latitude": "ddmm.mmmm, with ns",
    "ns": "N or S",
    "longitude": "dddmm.mmmm, with ew",
    "ew": "E or W",
    "height_m": "height; EHT or GHT may stand before the number",
    "satellites": "used in the solution",
    "base": "name of the base station",
    "age_s": "age of the corrections",
    "sd_east_m": "standard deviation",
    "sd_north_m": "standard deviation",
    "sd_up_m": "standard deviation",
    "sd_m": "one standard deviation of the whole position; it stands for each axis",
}
_PLACES = (VECTOR, GRID, DEGREES, MINUTES)  # the first that a sentence has whole counts
_HEIGHT_OF = re.compile(r"\s*(?:EHT|GHT)")  # Trimble: ellipsoidal, geoid
_DATE_LENGTH, _TIME_LENGTH = 6, 14


def place(names: Sequence[str]) -> tuple[str, ...]:
    """The fields that say where; empty if there are none."""
    return next((each for each in _PLACES if set(each) <= set(names)), ())


def problems(layouts: Sequence[Layout]) -> list[str]:
    """What keeps these sentences from yielding solutions."""
    found = []
    for layout in layouts:
        if not place(layout.fields):
            found.append(f"{layout.tag} has no position: it needs the fields {', '.join(VECTOR)}, or others")
        if not {"utc", "time"} & set(layout.fields):
            found.append(f"{layout.tag} has no time: it needs the field utc or time")
        if not layout.ok:
            found.append(f"{layout.tag} has no ok: which number means that the solution is fixed")
    return found


class Sentences:
    """The sentences of a profile; RMC and ZDA tell the date where they have none."""

    def __init__(self, layouts: Sequence[Layout]) -> None:
        self._layouts = {tuple(layout.tag.split(",")): layout for layout in layouts}

    def take(self, message: Message) -> Iterable[Told]:
        if not isinstance(message, Sentence):
            return ()
        tag, fields = message.tag, message.fields
        layout, skip = self._layouts.get((tag,)), 0
        if layout is None and fields:
            layout, skip = self._layouts.get((tag, fields[0])), 1  # as in PTNL,GGK
        if layout is None:
            return dated(tag[2:], fields)
        try:
            return (epoch(layout, fields[skip:]),)
        except ValueError:
            return ()

    def rest(self) -> Iterable[Told]:
        return ()


def epoch(layout: Layout, fields: Sequence[str]) -> Epoch:
    """The solution of one sentence; `fields` without its tag.

    Raises:
        ValueError: too few fields, or one that is not what its name says.
    """
    if len(fields) < len(layout.fields):
        raise ValueError(f"{len(fields)} fields instead of {len(layout.fields)}")
    named = dict(zip(layout.fields, fields, strict=False))
    where = _where(named)
    said = {name: _whole(named[name]) for name in (*layout.ok, *layout.degraded)}
    if not isnan(sum(where)) and layout.degraded and all(said[n] in of for n, of in layout.degraded.items()):
        fix = Fix.FLOAT
    elif not isnan(sum(where)) and all(said[n] in of for n, of in layout.ok.items()):
        fix = Fix.FIXED
    else:
        fix = Fix.NONE
    return Epoch(
        _when(named),
        fix,
        next(iter(said.values())),
        where,
        _sigma(named),
        _number(named, "satellites"),
        named.get("base", "").strip(),
        _number(named, "age_s"),
    )


def _where(named: Mapping[str, str]) -> tuple[float, float, float]:
    names = place(tuple(named))
    if not names:
        return NOWHERE
    if names is MINUTES:
        return (
            angle_deg(named["latitude"], 2, named["ns"], "NS", 90.0),
            angle_deg(named["longitude"], 3, named["ew"], "EW", 180.0),
            _height(named["height_m"]),
        )
    first, second, third = names
    return number(named[first]), number(named[second]), _height(named[third])


def _height(text: str) -> float:
    return number(_HEIGHT_OF.sub("", text, count=1))


def _sigma(named: Mapping[str, str]) -> tuple[float, float, float]:
    whole = _number(named, "sd_m")
    east, north, up = (_number(named, name) for name in ("sd_east_m", "sd_north_m", "sd_up_m"))
    return (whole, whole, whole) if not isnan(whole) else (east, north, up)


def _number(named: Mapping[str, str], name: str) -> float:
    return number(named.get(name, ""))


def _whole(text: str) -> float:
    """A code; NaN for none, which is none of the numbers a profile can list."""
    return float(int(text)) if text.strip() else nan


def _when(named: Mapping[str, str]) -> Moment | None:
    if text := named.get("time", "").strip():
        if len(text) < _TIME_LENGTH:
            raise ValueError(text)
        day = day_ns(int(text[:4]), int(text[4:6]), int(text[6:8]))
        return _moment(day, text[8:])
    utc = named.get("utc", "").strip()
    for name, year_at, month_at, day_at in (("date_ddmmyy", 4, 2, 0), ("date_mmddyy", 4, 0, 2)):
        if date := named.get(name, "").strip():
            if len(date) != _DATE_LENGTH:
                raise ValueError(date)
            year, month, day_of = (int(date[at : at + 2]) for at in (year_at, month_at, day_at))
            return _moment(day_ns(2000 + year, month, day_of), utc)
    of_day_ns = time_of_day_ns(utc)
    return None if of_day_ns is None else Moment(of_day_ns, DAY_NS)


def _moment(day: int, utc: str) -> Moment | None:
    of_day_ns = time_of_day_ns(utc)
    return None if of_day_ns is None else Moment(day + of_day_ns, ROLLOVER_NS)
