"""Rain from a tipping bucket: intensity between tips, what the bucket misses, and when not to believe it.

Between two tips a bucket knows only that less than one tip has fallen, so intensity is the last tips over the
time since those before, and falls as one tip over the waiting time once that says less.

While the bucket turns, rain runs past it: of the true intensity I it shows Ir = I / (1 + I tau/h), with tau
the time it turns and h the depth of a tip, so I = Ir / (1 - Ir tau/h). Both come from the gauge's own
calibration, never from its model: buckets of one make differ by several per cent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, nan
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_rules.law.derived import Deriver, State

_HOUR_NS = 3_600_000_000_000
_HOUR_S = 3600.0
UNDERCATCH_MOST = 0.5  # beyond this share of time spent turning the formula is no correction any more

Remark = Literal["", "frozen", "neighbour"]


class TipIntensity:
    """Intensity in mm/h out of the depths of each poll, in mm; 0 until the first tip and long after one.

    A clock that steps back stands still here until the poll after.
    """

    def __init__(self, tip_mm: float, dry_after_s: float) -> None:
        self._tip_mm = tip_mm
        self._dry_after_ns = dry_after_s * 1e9
        self._now_ns = 0
        self._last_ns: int | None = None
        self._tip_ns: int | None = None  # of the last poll that brought tips, or of the first poll at all
        self._mm_per_h = 0.0

    def __call__(self, time_ns: int, values: Sequence[float]) -> float:
        (depth_mm,) = values
        if self._last_ns is not None:
            self._now_ns += max(0, time_ns - self._last_ns)
        self._last_ns = time_ns
        if self._tip_ns is None:
            self._tip_ns = self._now_ns
        if not isfinite(depth_mm):
            return nan
        waited_ns = self._now_ns - self._tip_ns
        if depth_mm > 0.0 and waited_ns:
            self._mm_per_h = depth_mm / waited_ns * _HOUR_NS
            self._tip_ns = self._now_ns
            return self._mm_per_h
        if waited_ns >= self._dry_after_ns:
            self._mm_per_h = 0.0
        elif waited_ns:
            self._mm_per_h = min(self._mm_per_h, self._tip_mm / waited_ns * _HOUR_NS)
        return self._mm_per_h

    def state(self) -> State:
        return [self._last_ns, self._now_ns, self._tip_ns, self._mm_per_h]

    def restore(self, state: State) -> None:
        self._last_ns, self._now_ns, self._tip_ns, self._mm_per_h = state


class Corrected:
    """A depth or an intensity, times what the intensity says the bucket missed."""

    def __init__(self, turn_s: float, tip_mm: float) -> None:
        self._h_per_mm = turn_s / tip_mm / _HOUR_S

    def __call__(self, time_ns: int, values: Sequence[float]) -> float:
        del time_ns
        amount, mm_per_h = values
        return amount / (1.0 - min(mm_per_h * self._h_per_mm, UNDERCATCH_MOST))

    def state(self) -> None:
        return None

    def restore(self, state: State) -> None:
        raise ValueError(f"a formula keeps no state, not {state!r}")


class GaugeCheck:
    """Passes a depth on, and says what speaks against it; `by` names what stands after the depth."""

    def __init__(
        self, frozen_below_c: float, thaw_s: float, neighbour_mm: float, *, by: Sequence[str]
    ) -> None:
        self._frozen_below_c = frozen_below_c
        self._thaw_ns = thaw_s * 1e9
        self._neighbour_mm = neighbour_mm
        self._by = by
        self._cold_ns: int | None = None

    def __call__(self, time_ns: int, values: Sequence[float]) -> float:
        self.remark(time_ns, values)
        return values[0] if all(map(isfinite, values)) else nan

    def remark(self, time_ns: int, values: Sequence[float]) -> Remark:
        """What speaks against the depth `values[0]`; what it is checked with may be NaN."""
        given = dict(zip(self._by, values[1:], strict=True))
        if given.get("air", nan) < self._frozen_below_c:
            self._cold_ns = time_ns
        if self._cold_ns is not None and 0 <= time_ns - self._cold_ns <= self._thaw_ns:
            return "frozen"
        blocked = values[0] == 0.0 and given.get("neighbour", nan) >= self._neighbour_mm
        return "neighbour" if blocked else ""

    def state(self) -> State:
        return [self._cold_ns]

    def restore(self, state: State) -> None:
        (self._cold_ns,) = state


def _key(doc: str, example: str, default: Any = ..., **how: str) -> Any:
    metadata = {"doc": doc, "example": example, **how}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class RainIntensity:
    """Intensity between tips, mm/h, from the depths of each poll; 0 once no tip came for `dry_after`."""

    of: str = _key("channel with the rain since the poll before, mm", '"n.rain"')
    tip_mm: float = _key("depth of one tip", "0.2")
    dry_after_s: float = _key(
        "no tip for this long: it does not rain", '"1 h"', 3600.0, key="dry_after", parse="duration"
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.of,)

    def problems(self) -> list[str]:
        named = {"tip_mm": self.tip_mm, "dry_after": self.dry_after_s}
        return [f"{name} {number:g} must be above 0" for name, number in named.items() if number <= 0]

    def make(self) -> Deriver:
        return TipIntensity(self.tip_mm, self.dry_after_s)


@dataclass(frozen=True, slots=True)
class RainUndercatch:
    """Depth or intensity corrected for what a tipping bucket misses while it turns, at most doubled."""

    of: str = _key("channel with the depth of each poll, or with the intensity itself", '"n.rain"')
    intensity: str = _key("channel with the intensity as measured, mm/h", '"n.rain.intensity"')
    tip_mm: float = _key("depth of one tip", "0.2")
    turn_s: float = _key(
        "how long the bucket turns, from the gauge's own calibration",
        '"450 ms"',
        key="turn",
        parse="duration",
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.of, self.intensity)

    def problems(self) -> list[str]:
        named = {"tip_mm": self.tip_mm, "turn": self.turn_s}
        return [f"{name} {number:g} must be above 0" for name, number in named.items() if number <= 0]

    def make(self) -> Deriver:
        return Corrected(self.turn_s, self.tip_mm)


@dataclass(frozen=True, slots=True)
class RainGauge:
    """A rain channel passed on, uncertain while the gauge may be frozen, or is dry where a neighbour is not.

    What it is checked with may be missing: the rain stands then, uncertain for its input.
    """

    of: str = _key("channel with a depth of rain, for the neighbour a sum over a window", '"n.rain.24h"')
    air: str = _key("channel with the air's temperature, degC", '"n.air"', "")
    frozen_below_c: float = _key("colder air may have frozen the gauge, degC", "1.0", 0.0)
    thaw_s: float = _key(
        "for so long after it the gauge may still hold ice", '"6 h"', 0.0, key="thaw", parse="duration"
    )
    neighbour: str = _key(
        "channel of a gauge nearby with the sum over the same window, mm", '"s.rain.24h"', ""
    )
    neighbour_mm: float = _key("so much there and nothing here: this gauge may be blocked", "10.0", 0.0)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.of, *(name for name in (self.air, self.neighbour) if name))

    def problems(self) -> list[str]:
        found = [] if self.air or self.neighbour else ["needs air, or neighbour, to be checked with"]
        if self.neighbour and self.neighbour_mm <= 0:
            found.append("neighbour_mm must be above 0: how much there, and nothing here, is suspicious")
        return found

    def make(self) -> Deriver:
        by = [kind for kind, name in (("air", self.air), ("neighbour", self.neighbour)) if name]
        return GaugeCheck(self.frozen_below_c, self.thaw_s, self.neighbour_mm, by=by)
