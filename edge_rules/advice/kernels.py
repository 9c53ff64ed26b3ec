"""The compiled kernels: arrays in and out, one record per channel, one entry point (`step`).

All of them in this one file: Numba's cache notices a change in the file of the function it compiled and
in no other. No fastmath: it would make a missing value (NaN) look finite. Nested arrays are assigned element
by element (Numba issue 7693). A sample that is missing or not later than the one before changes no
statistic.

The pages behind: Hampel filter (Davies and Gather 1993), window of 11 trailing samples, the newest among
them; robust local linear trend as in `edge_rules/law/trend.py`, the same arithmetic in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from math import copysign, isfinite, sqrt
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

WINDOW = 11
MIDDLE = WINDOW // 2
MAD_TO_SD = 1.4826  # of a Gaussian
NS_PER_H = 3.6e12
GATE = 3.0
STEP_RUN = 6
EARLY = 5.0  # sd by which a rate must stand out before the filter has settled: 3 would err in 5 % of starts
LATE_RUN = 10

# Every field is eight bytes wide, so packed is aligned and `descr` names fields only.
PARAMS = np.dtype(
    [
        ("hampel", "<i8"),  # 1: armed
        ("k", "<f8"),  # spreads from the median that make an outlier
        ("floor", "<f8"),  # smallest spread: quantised data has a MAD of zero
        ("trend", "<i8"),  # 1: armed
        ("r", "<f8"),  # variance of one reading
        ("q", "<f8"),  # wandering of the rate, unit^2/h^3
        ("rate_limit", "<f8"),  # per hour; inf: no verdict
    ]
)
STATE = np.dtype(
    [
        ("t", "<i8"),  # of the last sample taken, ns UTC
        ("late", "<i8"),  # samples in a row not later than `t`
        ("n", "<i8"),  # samples taken
        ("ring", "<f8", (WINDOW,)),  # the last of them, as they came
        ("sorted", "<f8", (WINDOW,)),  # the same by size
        # Outliers that wait for the two samples after them: row 0 has seen none, row 1 one come back.
        ("wait_on", "<i8", (2,)),
        ("wait_t", "<i8", (2,)),
        ("wait", "<f8", (2, 3)),  # value, median, spread
        ("spike_on", "<i8"),  # 1: a spike lies within the window
        ("quiet", "<i8"),  # samples since the last spike was decided
        ("x", "<f8"),
        ("v", "<f8"),  # per hour
        ("p00", "<f8"),
        ("p01", "<f8"),
        ("p11", "<f8"),
        ("run", "<i8"),  # gated in a row, signed
        ("steps", "<i8"),
        ("rate_on", "<i8"),  # 1: the rate is beyond its limit
    ]
)
OUT = np.dtype(
    [
        ("said", "<i8"),  # the flags below; np.record has a `flags` of its own
        ("median", "<f8"),
        ("spread", "<f8"),
        ("spike_t", "<i8"),
        ("spike", "<f8"),
        ("spike_median", "<f8"),
        ("spike_spread", "<f8"),
        ("level", "<f8"),
        ("rate", "<f8"),  # per hour
        ("rate_sd", "<f8"),
        ("steps", "<i8"),
    ]
)
MISSING = 1  # NaN or infinite: nothing happened
LATE = 2  # not later than the last: nothing happened
OUTLIER = 4  # of its own window; spike or step, the next two samples tell
SPIKE = 8  # decided now, of the sample before the last
SPIKE_PRESENT = 16  # the condition changed
SPIKE_GONE = 32
STEP = 64
RATE_PRESENT = 128
RATE_GONE = 256
RESTARTED = 512  # the clock had been in the future: statistics start anew
CHANGED = SPIKE_PRESENT | SPIKE_GONE | RATE_PRESENT | RATE_GONE

_F = TypeVar("_F", bound=Callable[..., Any])
Records = npt.NDArray[np.void]


def _compiled(function: _F) -> _F:
    return cast("_F", njit(cache=True, nogil=True)(function))


def records(dtype: np.dtype[np.void], count: int) -> Records:
    """`count` zeroed records, whose fields are attributes with the compiler on and off."""
    return np.zeros(count, dtype).view(np.recarray)


@_compiled
def forget(s: Any) -> None:
    """Statistics start anew; which conditions stand (`spike_on`, `rate_on`) is kept until data end them."""
    s.t = 0
    s.late = 0
    s.n = 0
    s.wait_on[0] = 0
    s.wait_on[1] = 0
    s.quiet = 0
    s.run = 0
    s.steps = 0


@_compiled
def replace_oldest(s: Any, x: float) -> int:
    """Put `x` in the ring and the sorted window in place of the oldest sample; how many there are."""
    size: int = min(s.n, WINDOW)
    if size == WINDOW:
        oldest = s.ring[s.n % WINDOW]
        j = 0
        while j < WINDOW - 1 and s.sorted[j] != oldest:
            j += 1
        size -= 1
        while j < size:
            s.sorted[j] = s.sorted[j + 1]
            j += 1
    j = size
    while j > 0 and s.sorted[j - 1] > x:
        s.sorted[j] = s.sorted[j - 1]
        j -= 1
    s.sorted[j] = x
    s.ring[s.n % WINDOW] = x
    return size + 1


@_compiled
def median_deviation(window: Any) -> float:
    """Median of |x - median| of a full sorted window: the middle one, walking outwards from the middle."""
    median = window[MIDDLE]
    low, high = MIDDLE - 1, MIDDLE + 1
    deviation = 0.0
    for _ in range(MIDDLE):
        below = median - window[low] if low >= 0 else np.inf
        above = window[high] - median if high < WINDOW else np.inf
        if below <= above:
            deviation = below
            low -= 1
        else:
            deviation = above
            high += 1
    return deviation


@_compiled
def hampel(s: Any, t: int, x: float, p: Any, o: Any) -> int:
    """Take `x` into the window; flags. An outlier is a spike once the next two samples have come back."""
    flags = 0
    if s.wait_on[1] and abs(x - s.wait[1, 1]) <= p.k * s.wait[1, 2]:
        flags |= SPIKE
        o.spike_t = s.wait_t[1]
        o.spike = s.wait[1, 0]
        o.spike_median = s.wait[1, 1]
        o.spike_spread = s.wait[1, 2]
    s.wait_on[1] = 1 if s.wait_on[0] and abs(x - s.wait[0, 1]) <= p.k * s.wait[0, 2] else 0
    s.wait_t[1] = s.wait_t[0]
    for j in range(3):
        s.wait[1, j] = s.wait[0, j]
    s.wait_on[0] = 0
    if replace_oldest(s, x) == WINDOW:
        median = s.sorted[MIDDLE]
        spread = max(MAD_TO_SD * median_deviation(s.sorted), p.floor)
        o.median = median
        o.spread = spread
        if abs(x - median) > p.k * spread and spread > 0.0:
            flags |= OUTLIER
            s.wait_on[0] = 1
            s.wait_t[0] = t
            s.wait[0, 0] = x
            s.wait[0, 1] = median
            s.wait[0, 2] = spread
    return flags | spike_condition(s, flags)


@_compiled
def spike_condition(s: Any, flags: int) -> int:
    """Present with the first spike, gone when none was decided for a whole window."""
    if flags & SPIKE:
        s.quiet = 0
        if not s.spike_on:
            s.spike_on = 1
            return SPIKE_PRESENT
    elif s.spike_on:
        s.quiet += 1
        if s.quiet >= WINDOW:
            s.spike_on = 0
            return SPIKE_GONE
    return 0


@_compiled
def trend(s: Any, dt: float, x: float, p: Any) -> int:
    """Predict over `dt` hours and correct by `x`; STEP or 0. The arithmetic of law/trend.py."""
    s.x += s.v * dt
    s.p00 += dt * (2.0 * s.p01 + dt * (s.p11 + p.q * dt / 3.0))
    s.p01 += dt * (s.p11 + p.q * dt / 2.0)
    s.p11 += p.q * dt
    error = x - s.x
    variance = s.p00 + p.r
    bound = GATE * sqrt(variance)
    flags = 0
    if abs(error) > bound:
        sign = 1 if error > 0.0 else -1
        s.run = s.run + sign if s.run * sign > 0 else sign
        if abs(s.run) >= STEP_RUN:
            s.p00 += error * error
            variance = s.p00 + p.r
            s.run = 0
            s.steps += 1
            flags = STEP
        else:
            variance *= abs(error) / bound
    else:
        s.run = 0
    gain0 = s.p00 / variance
    gain1 = s.p01 / variance
    s.x += gain0 * error
    s.v += gain1 * error
    s.p11 -= gain1 * s.p01
    s.p01 -= gain0 * s.p01
    s.p00 -= gain0 * s.p00
    s.p00 = max(s.p00, 1e-12 * p.r)
    s.p11 = max(s.p11, 1e-18 * p.r)
    most = sqrt(s.p00 * s.p11)
    if abs(s.p01) > most:
        s.p01 = copysign(most, s.p01)
    return flags


@_compiled
def rate_condition(s: Any, dt: float, p: Any) -> int:
    """Present when the rate is beyond the limit and stands out by 3 sd, by 5 until the filter has settled.

    Gone when it is one sd inside and the filter has settled: its variance is near that of the steady state.
    So neither noise at the limit, nor an outage, nor statistics that start anew end the condition.
    """
    sd = sqrt(s.p11)
    settled = s.p11 <= 4.0 * sqrt(2.0 * p.q * sqrt(p.q * p.r * dt))
    threshold = max(p.rate_limit, (3.0 if settled else EARLY) * sd)
    if not s.rate_on:
        if abs(s.v) > threshold:
            s.rate_on = 1
            return RATE_PRESENT
    elif settled and abs(s.v) <= threshold - sd:
        s.rate_on = 0
        return RATE_GONE
    return 0


@_compiled
def sample(s: Any, t: int, x: float, p: Any, o: Any) -> int:
    """All that one sample does to its channel; flags."""
    if not isfinite(x):
        return MISSING
    flags = 0
    if s.n > 0 and t <= s.t:
        s.late += 1
        if s.late < LATE_RUN:
            return LATE
        forget(s)
        flags = RESTARTED
    s.late = 0
    if p.hampel:
        flags |= hampel(s, t, x, p, o)
    elif s.spike_on:  # disarmed by a new site file
        s.spike_on = 0
        flags |= SPIKE_GONE
    if p.trend:
        if s.n == 0:
            s.x = x
            s.v = 0.0
            s.p00 = p.r
            s.p01 = 0.0
            s.p11 = p.r
        else:
            dt = (t - s.t) / NS_PER_H
            flags |= trend(s, dt, x, p)
            flags |= rate_condition(s, dt, p)
        o.level = s.x
        o.rate = s.v
        o.rate_sd = sqrt(s.p11)
        o.steps = s.steps
    elif s.rate_on:
        s.rate_on = 0
        flags |= RATE_GONE
    s.t = t
    s.n += 1
    return flags


@_compiled
def step(idx: Any, t: Any, x: Any, state: Records, params: Records, out: Records) -> None:
    """Take a batch of samples in order.

    Args:
        idx: (m,) int64, the channel of each sample: its row in `state` and `params`.
        t: (m,) int64, ns UTC.
        x: (m,) float64, in the channel's unit; NaN where missing.
        state: (channels,) STATE, changed in place.
        params: (channels,) PARAMS.
        out: (m,) OUT; `said` of every row is set, the others where their detector said something.
    """
    for j in range(idx.size):
        i = idx[j]
        out[j].said = sample(state[i], t[j], x[j], params[i], out[j])
