"""The rate of a quantity, from a robust two-state Kalman filter (local linear trend).

States are the quantity and its rate. Between samples the rate wanders as integrated white noise of
intensity q: F = [1 dt; 0 1], Q = q [dt^3/3 dt^2/2; dt^2/2 dt] (Harvey 1989, ch. 2). An innovation beyond
`GATE` standard deviations is given the weight Huber's psi gives it: its influence is bounded, and a
true fast movement never loses the filter. Gated innovations of one sign in a row are a step of the
quantity itself (a re-set antenna, a raised gauge): the level is set free to follow, the rate is not.

Time counts in hours here, so that q and the rates read as the figures of the field do.
"""

from __future__ import annotations

from math import copysign, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NS_PER_H = 3.6e12
GATE = 3.0  # standard deviations of the innovation
EARLY = 5.0  # standard deviations of the rate; 3 would err in one start of twenty, measured
STEP_RUN = 6  # gated in a row on one side: a step
MOST = (
    1e60  # nothing that is measured is as large; beyond, squares of squares overflow and the filter is lost
)

State = tuple[float, ...]


class TrendState:
    """The filter of one quantity.

    Args:
        noise: standard deviation of one reading, in the quantity's unit.
        q: intensity of the rate's wandering, unit^2/h^3. 1e-6 mm^2/h^3 suits hourly GNSS positions of a few
            mm noise; it is configuration for everything else.

    The rate starts at zero with a standard deviation of `noise` per hour, which the data soon outweigh.
    """

    __slots__ = ("_last_ns", "_p00", "_p01", "_p11", "_q", "_r", "_run", "_steady", "level", "rate_per_h")

    def __init__(self, noise: float, q: float) -> None:
        self._r = noise * noise
        self._q = q
        self.restart()

    def restart(self) -> None:
        """Forget everything learnt; the next sample is the first."""
        self._last_ns: int | None = None
        self.level = self.rate_per_h = 0.0
        self._p00 = self._p01 = self._p11 = 0.0
        self._run = 0
        self._steady = 0.0

    @property
    def rate_sd_per_h(self) -> float:
        """Standard deviation of `rate_per_h`; 0.0 before the first sample."""
        return sqrt(self._p11)

    @property
    def is_known(self) -> bool:
        """Whether the rate says anything: the filter has settled, or the rate stands out early.

        Settled: its sd is within twice that of the steady state, P11^2 = 2 q sqrt(q R dt).
        """
        if self._last_ns is None:
            return False
        return self._p11 <= 4.0 * self._steady or abs(self.rate_per_h) > EARLY * self.rate_sd_per_h

    def feed(self, time_ns: int, value: float) -> bool | None:
        """Take one sample. None: refused, nothing changed (NaN, beyond MOST, or not later than the last); True: a step."""  # noqa: E501
        if not abs(value) < MOST:
            return None
        if self._last_ns is None:
            self._last_ns, self.level = time_ns, value
            self._p00 = self._p11 = self._r
            return False
        dt = (time_ns - self._last_ns) / NS_PER_H
        if dt <= 0.0:
            return None
        self._last_ns = time_ns
        self._predict(dt)
        return self._correct(value)

    def _predict(self, dt: float) -> None:
        q = self._q
        self.level += self.rate_per_h * dt
        self._p00 += dt * (2.0 * self._p01 + dt * (self._p11 + q * dt / 3.0))
        self._p01 += dt * (self._p11 + q * dt / 2.0)
        self._p11 += q * dt
        self._steady = sqrt(2.0 * q * sqrt(q * self._r * dt))

    def _correct(self, value: float) -> bool:
        error = value - self.level
        s = self._p00 + self._r
        bound = GATE * sqrt(s)
        stepped = False
        if abs(error) > bound:
            sign = 1 if error > 0.0 else -1
            self._run = self._run + sign if self._run * sign > 0 else sign
            stepped = abs(self._run) >= STEP_RUN
            if stepped:
                self._p00 += error * error
                s = self._p00 + self._r
                self._run = 0
            else:
                s *= abs(error) / bound
        else:
            self._run = 0
        gain0, gain1 = self._p00 / s, self._p01 / s
        self.level += gain0 * error
        self.rate_per_h += gain1 * error
        self._p11 -= gain1 * self._p01
        self._p01 -= gain0 * self._p01
        self._p00 -= gain0 * self._p00
        self._floor()
        return stepped

    def _floor(self) -> None:
        """Rounding must leave a covariance: variances above zero, correlation within one."""
        self._p00 = max(self._p00, 1e-12 * self._r)
        self._p11 = max(self._p11, 1e-18 * self._r)
        most = sqrt(self._p00 * self._p11)
        if abs(self._p01) > most:
            self._p01 = copysign(most, self._p01)

    def state(self) -> State:
        """Plain numbers that `restore` continues from to the last bit; empty before the first sample."""
        if self._last_ns is None:
            return ()
        return (
            self._last_ns,
            self.level,
            self.rate_per_h,
            self._p00,
            self._p01,
            self._p11,
            self._run,
            self._steady,
        )

    def restore(self, state: Sequence[float]) -> None:
        """Continue from a `state()`.

        Raises:
            ValueError: not a state of this class.
        """
        self.restart()
        if not state:
            return
        last_ns, self.level, self.rate_per_h, self._p00, self._p01, self._p11, run, self._steady = state
        self._last_ns, self._run = int(last_ns), int(run)
