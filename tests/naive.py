"""Slow, obvious twins of what edge_rules computes cleverly: the history kept whole, nothing incremental.

Written from the definitions (algorithms 1.1, 1.3, 1.9), not from the code they check.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from math import isfinite, sqrt

import numpy as np


@dataclass
class Bell:
    """One trigger level: its limit, whether it rings, and all samples since that last changed."""

    limit: float
    rings: bool = False
    heard: list[tuple[int, float, bool]] = field(default_factory=list)


@dataclass
class LevelTwin:
    """Trigger levels by looking back over the whole history at every sample.

    `limits` maps 1..4 to limits; absent levels are absent.
    """

    rising: bool
    limits: dict[int, float]
    hysteresis: float
    hold_ns: int

    def __post_init__(self) -> None:
        self.bells = {level: Bell(limit) for level, limit in self.limits.items()}
        self.elapsed_ns = 0
        self.last_ns: int | None = None
        self.level = 0

    def judge(self, time_ns: int, value: float, certain: bool) -> tuple[int, int, int, bool] | None:
        """(was, level, since_ns, unverified) of a change, or None."""
        if not isfinite(value):
            return None
        if self.last_ns is not None and time_ns > self.last_ns:
            self.elapsed_ns += time_ns - self.last_ns
        self.last_ns = time_ns
        began: dict[int, int] = {}
        for level, bell in self.bells.items():
            bell.heard.append((self.elapsed_ns, value, certain))
            start = self._start_of_run(bell)
            if start is not None and self.elapsed_ns - start >= self.hold_ns:
                began[level] = start
        for level in began:
            bell = self.bells[level]
            bell.rings, bell.heard = not bell.rings, []
        was, self.level = self.level, max((k for k, bell in self.bells.items() if bell.rings), default=0)
        if was == self.level:
            assert not began
            return None
        decided_by = max(began) if self.level > was else min(began)
        return was, self.level, time_ns - (self.elapsed_ns - began[decided_by]), not certain

    def _start_of_run(self, bell: Bell) -> int | None:
        """When the run towards a change began that the newest sample continues; None if it does not."""
        _, newest, certain = bell.heard[-1]
        if bell.rings and not (certain and self._inside(newest, bell.limit)):
            return None
        if not bell.rings and not self._beyond(newest, bell.limit):
            return None
        start = None
        for elapsed_ns, value, certain in reversed(bell.heard):
            if bell.rings:
                if not self._inside(value, bell.limit):
                    break
                start = elapsed_ns if certain else start
            elif self._beyond(value, bell.limit):
                start = elapsed_ns
            elif certain:
                break
        return start

    def _beyond(self, value: float, limit: float) -> bool:
        return value > limit if self.rising else value < limit

    def _inside(self, value: float, limit: float) -> bool:
        return value <= limit - self.hysteresis if self.rising else value >= limit + self.hysteresis


class TrendTwin:
    """The robust local linear trend in matrices, covariance in Joseph's form. Times in hours."""

    def __init__(self, noise: float, q: float, gate: float = 3.0, step_run: int = 6) -> None:
        self.r, self.q, self.gate, self.step_run = noise**2, q, gate, step_run
        self.x: np.ndarray | None = None
        self.p = np.zeros((2, 2))
        self.signs: list[int] = []
        self.last_h = 0.0

    def feed(self, time_h: float, value: float) -> bool | None:
        if not isfinite(value):
            return None
        if self.x is None:
            self.x, self.p, self.last_h = np.array([value, 0.0]), np.eye(2) * self.r, time_h
            return False
        dt = time_h - self.last_h
        if dt <= 0:
            return None
        self.last_h = time_h
        f = np.array([[1.0, dt], [0.0, 1.0]])
        h = np.array([[1.0, 0.0]])
        self.x = f @ self.x
        self.p = f @ self.p @ f.T + self.q * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        error = value - self.x[0]
        s = self.p[0, 0] + self.r
        gated = abs(error) > self.gate * sqrt(s)
        self.signs.append(int(np.sign(error)) if gated else 0)
        stepped = gated and self.signs[-self.step_run :] == [self.signs[-1]] * self.step_run
        if stepped:
            self.signs = []
            self.p[0, 0] += error**2
            s = self.p[0, 0] + self.r
        elif gated:
            s = s * abs(error) / (self.gate * sqrt(s))
        r = s - self.p[0, 0]
        gain = self.p @ h.T / s
        self.x = self.x + gain[:, 0] * error
        left = np.eye(2) - gain @ h
        self.p = left @ self.p @ left.T + gain @ gain.T * r
        return stepped

    @property
    def rate_per_h(self) -> float:
        assert self.x is not None
        return float(self.x[1])

    @property
    def rate_sd_per_h(self) -> float:
        return sqrt(self.p[1, 1])


@dataclass
class HampelTwin:
    """Spikes by the definition: an outlier of its trailing window of 11 whose next two samples come back."""

    k: float
    floor: float
    window: int = 11
    seen: list[float] = field(default_factory=list)

    def statistics_at(self, i: int) -> tuple[float, float] | None:
        """Median and spread of the window that ends at sample i; None before it is full."""
        if i + 1 < self.window:
            return None
        window = self.seen[i + 1 - self.window : i + 1]
        median = statistics.median(window)
        mad = statistics.median(abs(x - median) for x in window)
        return median, max(1.4826 * mad, self.floor)

    def is_outlier(self, i: int) -> bool:
        found = self.statistics_at(i)
        return found is not None and abs(self.seen[i] - found[0]) > self.k * found[1] > 0.0

    def is_spike(self, i: int) -> bool:
        """Needs samples i + 1 and i + 2."""
        if i < 0 or not self.is_outlier(i):
            return False
        found = self.statistics_at(i)
        assert found is not None
        median, spread = found
        return all(abs(self.seen[j] - median) <= self.k * spread for j in (i + 1, i + 2))

    def feed(self, value: float) -> tuple[bool, bool]:
        """(is the sample before the last a spike, does the condition stand) after this sample."""
        if isfinite(value):
            self.seen.append(value)
        newest = len(self.seen) - 1
        decided = isfinite(value) and self.is_spike(newest - 2)
        stands = any(self.is_spike(at - 2) for at in range(newest, newest - self.window, -1))
        return decided, stands
