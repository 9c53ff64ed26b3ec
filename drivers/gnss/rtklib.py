"""Solutions of RTKLIB and its kin (Emlid) as text: east, north, up; latitude, longitude, height; x, y, z.

A line has no checksum, so it is taken only if it is written as RTKLIB writes it to the last column: the
decimals of each number, and its width. One digit lost shows in the width; one digit changed does not show,
and nothing in the format could show it. There is no line at all without a solution.

Time is GPST unless the header says UTC or JST; a receiver joined in mid-stream has not heard the header, and
GPST is what RTKLIB does by default. A header of another kind of solution stops the decoding.
Source: RTKLIB 71db0ffa src/solution.c (outenu, outpos, outecef, outsolheads); the demo5 branch appends
velocities.
"""

from __future__ import annotations

import re
from math import sqrt
from typing import TYPE_CHECKING, Literal

from drivers.gnss.baseline import geodetic, horizon
from drivers.gnss.epoch import MS, ROLLOVER_NS, Epoch, Fix, Moment, S, day_ns, gps_moment
from drivers.gnss.framer import IDLE_NS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from drivers.gnss.epoch import Told

LONGEST = 400

Kind = Literal["enu", "llh", "xyz"]

_HEADERS: dict[str, Kind] = {"e/n/u-baseline": "enu", "lat/lon/height": "llh", "x/y/z-ecef": "xyz"}
_COLUMNS: dict[Kind, tuple[tuple[int, int], ...]] = {  # (width, decimals) of the three coordinates
    "enu": ((14, 4), (14, 4), (14, 4)),
    "llh": ((14, 9), (14, 9), (10, 4)),
    "xyz": ((14, 4), (14, 4), (14, 4)),
}
_SEPARATOR = r"[ ,;\t]"
_TIME = (
    r"(?:(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d) "
    r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d(?:\.\d+)?)"
    rf"|(?P<week> *\d{{1,4}}){_SEPARATOR}(?P<tow> *\d+(?:\.\d+)?))"
)
_TIME_SYSTEM = re.compile(r"%\s+(GPST|UTC|JST)\b")
_END = re.compile(rb"[\r\n]")
_JST_AHEAD_NS = 9 * 3600 * S
_FIXES = {1: Fix.FIXED, 2: Fix.FLOAT}
_DEVIATIONS = 6  # three, and three signed roots of covariances


def _layout(kind: Kind) -> tuple[re.Pattern[str], tuple[int, ...]]:
    """What a line looks like, and how wide each of its columns is at least.

    A column is `%{width}.{decimals}f` behind a separator: padded with blanks, wider only where the number is.
    """
    columns = (*_COLUMNS[kind], *[(3, 0)] * 2, *[(8, 4)] * _DEVIATIONS, (6, 2), (6, 1))
    velocity = f"(?:{_column(5)}){{9}}".replace("( ", "(?: ")
    line = _TIME + "".join(_column(decimals) for _, decimals in columns) + f"(?:{velocity})?"
    return re.compile(line), tuple(width for width, _ in columns)


def _column(decimals: int) -> str:
    rest = rf"\.\d{{{decimals}}}" if decimals else ""
    return rf"{_SEPARATOR}( *-?\d+{rest})"


class Solutions:
    """A Decoder for one kind of solution. Held: one unfinished line."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._line, self._widths = _layout(kind)
        self._scale = "GPST"
        self._is_ours = True
        self._rest = b""
        self._heard_ns = 0

    def feed(self, data: bytes, at_ns: int) -> Iterable[Told]:
        if at_ns - self._heard_ns > IDLE_NS:
            self._rest = b""  # the rest of that line is not this
        self._heard_ns = at_ns
        *lines, rest = _END.split(self._rest + data)
        self._rest = rest if len(rest) <= LONGEST else rest[-LONGEST:]  # too long for ever: it is no line
        told = map(self._read, lines)
        return [each for each in told if each is not None]

    def flush(self, at_ns: int = 0) -> Iterable[Told]:
        del at_ns
        return ()

    def _read(self, line: bytes) -> Epoch | None:
        if len(line) >= LONGEST:
            return None
        text = line.decode("ascii", "replace")
        if text.startswith("%"):
            self._header(text)
            return None
        match = self._line.fullmatch(text) if self._is_ours else None
        if match is None:
            return None
        columns = match.groups()[-len(self._widths) :]
        if any(len(column) < width for column, width in zip(columns, self._widths, strict=True)):
            return None
        try:
            return _epoch(self._kind, _moment(match.groupdict(""), self._scale), list(map(float, columns)))
        except ValueError:
            return None

    def _header(self, text: str) -> None:
        for words, kind in _HEADERS.items():
            if words in text:
                self._is_ours = kind == self._kind
        if (match := _TIME_SYSTEM.match(text)) is not None:
            self._scale = match[1]


def _moment(named: dict[str, str], scale: str) -> Moment:
    """ValueError for a date that does not exist."""
    if named["week"]:
        return gps_moment(int(named["week"]), round(float(named["tow"]) * 1000))
    day = day_ns(int(named["year"]), int(named["month"]), int(named["day"]))
    minutes = int(named["hour"]) * 60 + int(named["minute"])
    of_day_ms = minutes * 60_000 + round(1000 * float(named["second"]))
    ahead_ns = _JST_AHEAD_NS if scale == "JST" else 0
    return Moment(day + of_day_ms * MS - ahead_ns, ROLLOVER_NS, scale == "GPST")


def _epoch(kind: Kind, when: Moment, columns: Sequence[float]) -> Epoch:
    first, second, third, code, satellites, *deviations, age_s, _ = columns
    where, sd = (first, second, third), (deviations[0], deviations[1], deviations[2])
    if kind == "llh":
        sd = (sd[1], sd[0], sd[2])  # north stands first here
    elif kind == "xyz":
        where = geodetic(*where)
        sd = _turned(deviations, where)
    return Epoch(when, _FIXES.get(int(code), Fix.NONE), code, where, sd, satellites, age_s=age_s)


def _turned(deviations: Sequence[float], where: tuple[float, float, float]) -> tuple[float, float, float]:
    """Deviations along x, y, z and the signed roots of the covariances xy, yz, zx into east, north, up."""
    xx, yy, zz, xy, yz, zx = (each * abs(each) for each in deviations)
    covariance = ((xx, xy, zx), (xy, yy, yz), (zx, yz, zz))
    east, north, up = (
        sqrt(max(0.0, sum(axis[i] * axis[j] * covariance[i][j] for i in range(3) for j in range(3))))
        for axis in horizon(where[0], where[1])
    )
    return east, north, up
