"""Rain as a level of its own: the highest of what the rainstorm bands and the storm signals say of one gauge.

Rainstorm (GB/T 28592): 50 mm in 24 h or 30 mm in 12 h; GB 51108-2015 8.3.7 (commentary) takes it for yellow.
Storm signals of the meteorological service: blue 50 mm in 12 h, yellow 50 in 6 h, orange 50 in 3 h, red 100
in 3 h. A signal is also given for rain that is to come; a gauge can tell only the half that has been reached.

The designer's own values and the warnings a platform sends are compared with this by whoever knows them.
None of it enters the roll-up of GB 39496-2020 5.5.4.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from edge_rules.law.derived import WindowSum
from edge_rules.law.limits import Level

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NS_PER_H = 3_600_000_000_000
HOURS = (1, 3, 6, 12, 24, 72)  # windows that are summed


class Mark(NamedTuple):
    """`mm` or more within `hours` is `level`."""

    hours: int
    mm: float
    level: Level
    source: str


MARKS = (
    Mark(24, 50.0, Level.YELLOW, "rainstorm, GB/T 28592"),
    Mark(12, 30.0, Level.YELLOW, "rainstorm, GB/T 28592"),
    Mark(12, 50.0, Level.BLUE, "blue storm signal"),
    Mark(6, 50.0, Level.YELLOW, "yellow storm signal"),
    Mark(3, 50.0, Level.ORANGE, "orange storm signal"),
    Mark(3, 100.0, Level.RED, "red storm signal"),
)


def reached(sums_mm: Mapping[int, float]) -> list[Mark]:
    """The marks that sums (hours -> mm) have reached, highest first, of equals the shortest."""
    found = [mark for mark in MARKS if sums_mm[mark.hours] >= mark.mm]
    return sorted(found, key=lambda mark: (-mark.level, mark.hours))


def caine_mm(hours: float) -> float:
    """Rain within `hours` at which shallow slides were seen, mm: Caine 1980, I = 14.82 D^-0.39 mm/h.

    0.167 h < D < 240 h. Fitted to slides and debris flows, not to dams: advice only, until a local curve
    replaces it.
    """
    return float(14.82 * hours**0.61)


def intense(sums_mm: Mapping[int, float]) -> list[int]:
    """The windows, in hours, in which the rain reaches Caine's curve."""
    return [hours for hours, mm in sums_mm.items() if mm >= caine_mm(hours)]


class GaugeSums:
    """The sums of one gauge over all windows."""

    def __init__(self) -> None:
        self._windows = {hours: WindowSum(hours * _NS_PER_H) for hours in HOURS}

    def feed(self, time_ns: int, mm: float) -> dict[int, float] | None:
        """Take the rain since the reading before; the sums by hours, None where the reading is missing.

        A missing reading ages the windows; what fell meanwhile is not known, and never taken for nothing.
        """
        sums = {hours: window(time_ns, (mm,)) for hours, window in self._windows.items()}
        return sums if isfinite(mm) else None

    def state(self) -> list[Any]:
        return [self._windows[hours].state() for hours in HOURS]

    def restore(self, state: Sequence[Any]) -> None:
        """Continue from a `state()`."""
        for hours, its in zip(HOURS, state, strict=True):
            self._windows[hours].restore(its)
