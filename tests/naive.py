"""Slow, obvious twins of what edge_rules computes cleverly: the history kept whole, nothing incremental.

Written from the definitions (algorithms 1.1, 1.3, 1.9), not from the code they check.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, inf, isfinite, log, prod, sqrt

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
    resolution: float = 0.0
    window: int = 11
    seen: list[float] = field(default_factory=list)

    def swing_at(self, i: int) -> float:
        """Mean square of the differences up to sample i, each clipped at five times the root of the mean before."""
        mean = 0.0
        for n in range(1, i + 1):
            square = (self.seen[n] - self.seen[n - 1]) * (self.seen[n] - self.seen[n - 1])
            most = 25.0 * max(mean, self.resolution * self.resolution)
            if n >= self.window and most > 0.0:
                square = min(square, most)
            mean += max(1.0 / 1000, 1.0 / n) * (square - mean)
        return mean

    def statistics_at(self, i: int) -> tuple[float, float] | None:
        """Median and spread of the window that ends at sample i; None before it is full."""
        if i + 1 < self.window:
            return None
        window = self.seen[i + 1 - self.window : i + 1]
        median = statistics.median(window)
        mad = statistics.median(abs(x - median) for x in window)
        swing = self.swing_at(i - 1)
        square = min(1.4826 * mad * (1.4826 * mad), 1.875 * 1.875 * swing)
        return median, sqrt(max(square, 1.25 * 1.25 * swing, self.floor * self.floor))

    def is_outlier(self, i: int) -> bool:
        found = self.statistics_at(i)
        return found is not None and abs(self.seen[i] - found[0]) > self.k * found[1] > 0.0

    def is_spike(self, i: int) -> bool:
        """Needs samples i + 1 and i + 2: both lost half its height at least, or lie on the other side."""
        if i < 0 or not self.is_outlier(i):
            return False
        found = self.statistics_at(i)
        assert found is not None
        median, spread = found
        height = self.seen[i] - median
        near = max(self.k * spread, 0.5 * abs(height))
        return all((self.seen[j] - median) * (1 if height > 0 else -1) <= near for j in (i + 1, i + 2))

    def feed(self, value: float) -> tuple[bool, bool]:
        """(is the sample before the last a spike, does the condition stand) after this sample."""
        if isfinite(value):
            self.seen.append(value)
        newest = len(self.seen) - 1
        decided = isfinite(value) and self.is_spike(newest - 2)
        stands = any(self.is_spike(at - 2) for at in range(newest, newest - self.window, -1))
        return decided, stands


@dataclass
class FlatTwin:
    """Stuck sensors by the definition, over the whole history of (t, raw count)."""

    flat_ns: int
    commissioning_ns: int = 14 * 24 * 3_600_000_000_000
    seen: list[tuple[int, float]] = field(default_factory=list)

    def feed(self, t: int, count: float) -> bool:
        """Does it stand after this sample?"""
        self.seen.append((t, count))
        first_t = self.seen[0][0]
        runs: list[list[int]] = []  # the positions of each run of equal counts
        for i, (_, each) in enumerate(self.seen):
            if i and each == self.seen[i - 1][1]:
                runs[-1].append(i)
            else:
                runs.append([i])
        natural: list[int] = []  # lengths of runs that ended before they were said to be stuck
        stuck = False
        for run in runs:
            longest = max(natural, default=0)
            began = self.seen[run[0]][0]
            stuck = any(
                n > (max(20, 5 * longest) if i < 1000 else max(6, 2 * longest))
                and self.seen[i][0] - began > self.flat_ns
                and self.seen[i][0] - first_t >= self.commissioning_ns
                for n, i in enumerate(run, 1)
            )
            if not stuck:
                natural.append(len(run))
        return stuck


def noise_means(values: list[float], resolution: float) -> tuple[float, float]:
    """Mean |difference| with short and with long memory, written out as weighted sums.

    Only for series without differences large enough to be clipped.
    """
    differences = [abs(b - a) for a, b in pairwise(values)]
    means = []
    for memory in (20, 1000):
        shares = [max(1.0 / memory, 1.0 / n) for n in range(1, len(differences) + 1)]
        weights = [share * prod(1.0 - later for later in shares[i + 1 :]) for i, share in enumerate(shares)]
        means.append(sum(w * d for w, d in zip(weights, differences, strict=True)))
    assert max(differences) < 12.0 * max(means[1], resolution)
    return means[0], means[1]


class FollowTwin(TrendTwin):
    """The quick follower: gated as the trend is, but it never takes a step for one."""

    def __init__(self, noise: float, q: float) -> None:
        super().__init__(noise, q, step_run=10_000)


def time_left_h(
    hours: list[float],
    values: list[float],
    sign: float,
    noise: tuple[float, float],
    shares: tuple[float, ...],
) -> list[float] | None:
    """Quantiles of the hours left until failure: every candidate fitted by generalised least squares on its own.

    `hours` end at 0. Candidates: 120 from 0.5 to 2000 h, evenly in the logarithm; rate as (t_f - t)^-m. `noise` is
    the share of the variance that is slow and its correlation from hour to hour; its covariance is written out.
    """
    slow, phi = noise
    left_h = np.exp(np.linspace(log(0.5), log(2000.0), 120))
    h, x = np.array(hours), np.array(values)
    covariance = slow * phi ** np.abs(h[:, None] - h[None, :]) + (1.0 - slow) * np.eye(h.size)
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    logs = np.full((left_h.size, 9), -np.inf)
    for j, left in enumerate(left_h):
        for k, m in enumerate(np.geomspace(1.0 / 1.4, 1.0 / 0.7, 9)):
            integral = (left - h) ** (1.0 - m) / (m - 1.0)
            integral = (integral - integral.mean()) / integral.std()
            design = root @ np.column_stack([np.ones(h.size), integral])
            found, *_ = np.linalg.lstsq(design, root @ x, rcond=None)
            rest = float(((root @ x - design @ found) ** 2).sum())
            if found[1] * sign > 0.0 and rest > 0.0:
                logs[j, k] = -0.5 * h.size * log(rest)
    if not np.isfinite(logs).any():
        return None
    mass = np.exp(logs - logs.max()).sum(axis=1)
    cumulated = np.cumsum(mass) / mass.sum()
    quantiles = []
    for share in shares:
        j = int(np.searchsorted(cumulated, share))
        quantiles.append(float(left_h[j]) if j < left_h.size - 1 else inf)
    return quantiles


def colour_of(off: dict[int, float], variance: float) -> tuple[float, float]:
    """Share of the noise that is slow and its hourly correlation, from all hours so far.

    Autocovariances at lags 1 to 24 of what each hour was off, as means in which the assumed noise counts as 200
    hours; only for fewer than 4,000 hours, none of them large enough to be clipped.
    """
    c0 = [variance] * 200
    assumed = [0.5 * variance * 0.9**lag for lag in range(1, 25)]
    third, day = [sum(assumed[:8])] * 200, [sum(assumed)] * 200
    for hour, here in off.items():
        c0.append(here * here)
        for lags, found in ((8, third), (24, day)):
            before = [off[hour - lag] for lag in range(1, lags + 1) if hour - lag in off]
            # Where nothing came before, the mean so far stands.
            found.append(here * statistics.mean(before) * lags if before else statistics.fmean(found))
    u = (sqrt(max(4.0 * statistics.fmean(day) / statistics.fmean(third) - 3.0, 1.0)) - 1.0) / 2.0
    phi = min(max(u, 0.05), 0.85) ** 0.125
    slow = statistics.fmean(third) / sum(phi**lag for lag in range(1, 9))
    return min(slow / statistics.fmean(c0), 0.95), phi


def memory(times_d: list[float], values: list[float], tau_d: float, at: int) -> float:
    """Exponential mean at sample `at` of what held in each interval up to it: the integral, normalised."""
    top = bottom = 0.0
    for i in range(1, at + 1):
        age_1, age_0 = times_d[at] - times_d[i - 1], times_d[at] - times_d[i]
        weight = exp(-age_0 / tau_d) - exp(-age_1 / tau_d)
        top += weight * values[i]
        bottom += weight
    return top / bottom


def lasting(blocks: list[int], residuals: list[float], memory_blocks: float) -> float:
    """Exponential mean of what is left at the last block, as a sum over all; a block without a reading has none."""
    share = 1.0 - exp(-1.0 / memory_blocks)
    pairs = zip(blocks, residuals, strict=True)
    return sum(share * exp((block - blocks[-1]) / memory_blocks) * e for block, e in pairs)


def weighted_fit(rows: list[list[float]], targets: list[float], weights: list[float]) -> np.ndarray:
    """Least squares of all rows at once."""
    root = np.sqrt(np.array(weights))
    found, *_ = np.linalg.lstsq(np.array(rows) * root[:, None], np.array(targets) * root, rcond=None)
    return np.asarray(found)


@dataclass(frozen=True)
class Armed:
    """An armed channel as the roll-up sees it; `level` 0..4."""

    pond: str
    section: str
    item: str
    point: str
    level: int
    seen: bool


NO_ITEMS = ("weather", "health")


def live_points(channels: list[Armed], pond: str, section: str) -> int:
    """Distinct monitoring points of a section of which at least one channel is seen."""
    return len(
        {
            (each.item, each.point)
            for each in channels
            if each.pond == pond and each.section == section and each.item not in NO_ITEMS and each.seen
        }
    )


def points_at(channels: list[Armed], pond: str, item: str, level: int) -> int:
    """Distinct monitoring points of an item whose highest channel stands at `level`."""
    mine = [each for each in channels if each.pond == pond and each.item == item]
    return sum(
        max(each.level for each in mine if each.point == point) == level
        for point in {each.point for each in mine}
    )
