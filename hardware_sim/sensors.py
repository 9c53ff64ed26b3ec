"""What one instrument feels of the dam: the truth, or what a sick sensor makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from hardware_sim.dam import Truth
    from hardware_sim.faults import Fault

# The parts of the truth that a sensor can get wrong; a drift's or spike's number is in its unit.
Quantity = Literal["pore_kpa", "rain_mm", "pond_m", "pressure_hpa"]
_MINUTE_S = 60
_SPIKES_ONE_IN = 7  # minutes


class Sensor:
    """Called, it gives the truth as its instrument feels it."""

    def __init__(self, truth: Callable[[], Truth], quantity: Quantity) -> None:
        self._truth = truth
        self._quantity: Quantity = quantity
        self._fault: Fault | None = None
        self._since: Truth | None = None

    def suffer(self, fault: Fault | None) -> None:
        """`stuck`, `drift` or `spike` from now on; anything else leaves the sensor well."""
        self._fault = fault
        self._since = self._truth() if fault is not None else None

    def __call__(self) -> Truth:
        truth = self._truth()
        if self._fault is None or self._since is None:
            return truth
        match self._fault.kind:
            case "stuck":
                return self._feels(truth, getattr(self._since, self._quantity))
            case "drift":
                return self._off(truth, self._fault.number * (truth.t_s - self._since.t_s) / 3600.0)
            case "spike" if int(truth.t_s // _MINUTE_S) % _SPIKES_ONE_IN == 0:
                return self._off(truth, self._fault.number)
        return truth

    def _off(self, truth: Truth, by: float) -> Truth:
        value = getattr(truth, self._quantity)
        wrong = tuple(each + by for each in value) if isinstance(value, tuple) else value + by
        return self._feels(truth, wrong)

    def _feels(self, truth: Truth, value: Any) -> Truth:
        changed: dict[str, Any] = {self._quantity: value}
        return replace(truth, **changed)
