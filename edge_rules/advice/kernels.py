"""The compiled kernels: arrays in and out, one record per channel, two entry points.

`step` looks at each sample of each channel, `respond` compares pore pressure with what rain and pond level
explain. Both say the same of a history whether it comes in one batch or in many.

All of them in this one file: Numba's cache notices a change in the file of the function it compiled and
in no other. No fastmath: it would make a missing value (NaN) look finite. Nested arrays are assigned element
by element (Numba issue 7693). A sample that is missing or not later than the one before changes no
statistic.

The pages behind: Hampel filter (Davies and Gather 1993), window of 11 trailing samples, the newest among
them; robust local linear trend as in `edge_rules/law/trend.py`, the same arithmetic in the same order; CUSUM
(Page 1954); least squares by Givens rotations (Gentleman 1973); Fukuzono's law of failure (1985) as a profile
likelihood in displacement.
"""

from __future__ import annotations

from collections.abc import Callable
from math import copysign, exp, inf, isfinite, log, pi, sqrt
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import config, njit

WINDOW = 11
MIDDLE = WINDOW // 2
MAD_TO_SD = 1.4826  # of a Gaussian
NS_PER_H = 3.6e12
NS_PER_D = 8.64e13
GATE = 3.0
STEP_RUN = 6
STEP_STANDS = 24  # samples for which a step is said to stand
EARLY = 5.0  # sd by which a rate must stand out before the filter has settled: 3 would err in 5 % of starts
LATE_RUN = 10
FLAT_MIN = 20  # equal counts in a row, whatever the commissioning saw
FLAT_TIMES = 5  # of the longest run that the commissioning saw
COMMISSIONING_NS = 14 * 24 * 3_600_000_000_000
NOISE_LEARN = 1000  # samples, and the memory of what is usual
NOISE_RECENT = 20
NOISE_MORE, NOISE_LESS = 4.0, 0.2
NOISE_CLIP = 12.0  # one spike must not pass for noise
FAST_Q = 100.0  # the quick follower's wandering, in that of the trend
ONSET_HOLD_NS = 3 * 3_600_000_000_000
ONSET_RATE, ONSET_GAIN = 3.0, 3.0  # standard deviations
MATES = 3  # of a failure domain, beside the channel itself: fewer have no median to speak of
REMOVED = 2.0  # standard deviations of one reading: a common part beyond is taken away
SHARED = 2  # in `rate_on`: the whole domain moves at that rate
COMMON = 3.0  # standard deviations of one reading by which a whole domain must have moved
FRESH_PERIODS = 3
STALE_PERIODS, DEAD_PERIODS = 2.5, 6.0

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
        ("flat_ns", "<i8"),  # 0: not armed; the same count for less is nothing
        ("noise", "<i8"),  # 1: armed
        ("resolution", "<f8"),
        ("onset", "<i8"),  # 1: steps and accelerations are told; needs the trend
        ("period_ns", "<i8"),  # 0: not known
        ("hours", "<i8"),  # row of HOURLY, -1: no forecast of failure
        ("mates_from", "<i8"),  # in `mates`: the other channels of its failure domain
        ("mates_to", "<i8"),
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
        ("step", "<f8"),  # size of the last step
        ("step_left", "<i8"),  # samples for which it still stands
        ("rate_on", "<i8"),  # 1: the rate is beyond its limit; 2: and the domain moves alike
        ("count", "<f8"),  # the raw count of the last sample
        ("first_t", "<i8"),  # of the first sample
        ("same_t", "<i8"),  # since then the count is the same
        ("same", "<i8"),  # so many samples
        ("longest", "<i8"),  # run that ended while commissioning
        ("flat_on", "<i8"),
        ("last", "<f8"),  # value of the last sample
        ("recent", "<f8"),  # mean |difference|, short memory
        ("usual", "<f8"),  # the same, long memory
        ("noise_on", "<i8"),  # 1: more than usual, -1: less
        ("fx", "<f8"),  # the quick follower
        ("fv", "<f8"),
        ("fp00", "<f8"),
        ("fp01", "<f8"),
        ("fp11", "<f8"),
        ("onset_t", "<i8"),  # since then both conditions of an onset hold; 0: they do not
        ("onset_on", "<i8"),  # sign of the movement that speeds up
        ("off", "<f8"),  # what the last sample was off its own trend, before the common part was removed
        ("common", "<f8"),  # the part removed from it
        ("common_run", "<i8"),  # samples in a row with a common part (on: without)
        ("common_on", "<i8"),
        ("gap_on", "<i8"),  # 1: stale, 2: dead
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
        ("fast", "<f8"),  # rate of the quick follower, per hour
        ("fast_sd", "<f8"),
        ("step", "<f8"),
        ("same", "<i8"),
        ("same_t", "<i8"),
        ("longest", "<i8"),
        ("recent", "<f8"),
        ("usual", "<f8"),
        ("common", "<f8"),
        ("common_rate", "<f8"),
        ("shared", "<i8"),
        ("h05", "<f8"),  # hours left until failure
        ("h50", "<f8"),
        ("h95", "<f8"),
        ("stage", "<i8"),
    ]
)
# A channel fell silent, as seen at the sample `at` of the batch.
GAP = np.dtype([("at", "<i8"), ("row", "<i8"), ("stage", "<i8"), ("since", "<i8")])
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
FLAT_PRESENT = 1024
FLAT_GONE = 2048
NOISE_PRESENT = 4096
NOISE_GONE = 8192
ONSET_PRESENT = 16384
ONSET_GONE = 32768
COMMON_PRESENT = 65536
COMMON_GONE = 131072
FORECAST_PRESENT = 262144  # or nearer than said before
FORECAST_GONE = 524288
GAP_GONE = 1048576
STEP_PRESENT = 2097152
STEP_GONE = 4194304
CHANGED = (
    SPIKE_PRESENT | SPIKE_GONE | RATE_PRESENT | RATE_GONE | FLAT_PRESENT | FLAT_GONE
    | NOISE_PRESENT | NOISE_GONE | ONSET_PRESENT | ONSET_GONE | COMMON_PRESENT | COMMON_GONE
    | FORECAST_PRESENT | FORECAST_GONE | GAP_GONE | STEP_PRESENT | STEP_GONE
)  # fmt: skip

_F = TypeVar("_F", bound=Callable[..., Any])
Records = npt.NDArray[np.void]


def _compiled(function: _F) -> _F:
    return cast("_F", njit(error_model="numpy", forceinline=True)(function))


def _entry(function: _F) -> _F:
    """Cached with all that it calls."""
    return cast("_F", njit(cache=True, nogil=True, error_model="numpy")(function))


def records(dtype: np.dtype[np.void], count: int) -> Records:
    """`count` zeroed records, whose fields are attributes with the compiler on and off."""
    return np.zeros(count, dtype).view(np.recarray)


def bare(array: Records) -> Records:
    """The same memory as the entry points take it fastest: a view without the attributes.

    Numba recognises a plain structured array in 0.2 us and a record array in many; with the compiler off it is
    the attributes that are needed.
    """  # noqa: E501
    if config.DISABLE_JIT:  # type: ignore[attr-defined]
        return array
    return array.view(np.dtype(array.dtype.descr), np.ndarray)


@_compiled
def forget(s: Any) -> None:
    """Statistics start anew; which conditions stand (`spike_on`, `rate_on`, ...) is kept until data end them."""  # noqa: E501
    s.same = 0
    s.longest = 0
    s.onset_t = 0
    s.common_run = 0
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
    """Put `x` in the ring and the sorted window in place of the oldest sample; how many there are.

    A full window is gone through without a branch: which sample is the oldest cannot be foreseen, and a wrong
    guess costs as much as all the rest.
    """
    at = s.n % WINDOW
    if s.n < WINDOW:
        j = s.n
        while j > 0 and s.sorted[j - 1] > x:
            s.sorted[j] = s.sorted[j - 1]
            j -= 1
        s.sorted[j] = x
        s.ring[at] = x
        return int(s.n + 1)
    oldest = s.ring[at]
    rank = 0
    for j in range(WINDOW):
        rank += 1 if s.sorted[j] < oldest else 0
    below = -inf
    for j in range(WINDOW - 1):
        here = s.sorted[j + 1] if j >= rank else s.sorted[j]
        s.sorted[j] = max(below, min(x, here))
        below = here
    s.sorted[WINDOW - 1] = max(below, x)
    s.ring[at] = x
    return WINDOW


@_compiled
def median_deviation(s: Any) -> float:
    """Median of |x - median| of a full sorted window: of all runs of six with the middle in them the tightest."""  # noqa: E501
    median = s.sorted[MIDDLE]
    deviation = inf
    for j in range(MIDDLE + 1):
        deviation = min(deviation, max(median - s.sorted[j], s.sorted[j + MIDDLE] - median))
    return float(deviation)


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
    s.wait_on[1] = 0
    if s.wait_on[0]:
        s.wait_on[0] = 0
        s.wait_on[1] = 1 if abs(x - s.wait[0, 1]) <= p.k * s.wait[0, 2] else 0
        s.wait_t[1] = s.wait_t[0]
        for j in range(3):
            s.wait[1, j] = s.wait[0, j]
    if replace_oldest(s, x) == WINDOW:
        median = s.sorted[MIDDLE]
        spread = max(MAD_TO_SD * median_deviation(s), p.floor)
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
            s.step = error
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
def step_condition(s: Any, flags: int) -> int:
    """Present with a step, gone when there was none for a day of hourly samples."""
    if flags & STEP:
        stood = s.step_left > 0
        s.step_left = STEP_STANDS
        return 0 if stood else STEP_PRESENT
    if s.step_left > 0:
        s.step_left -= 1
        if s.step_left == 0:
            return STEP_GONE
    return 0


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
def flat(s: Any, t: int, count: float, p: Any) -> int:
    """Runs of one raw count: a fault when longer than what the commissioning saw, and longer than `flat_ns`."""  # noqa: E501
    if s.n == 0:
        s.first_t = t
    if s.same > 0 and count == s.count:
        s.same += 1
        learnt = t - s.first_t >= COMMISSIONING_NS
        long = s.same > max(FLAT_MIN, FLAT_TIMES * s.longest) and t - s.same_t > p.flat_ns
        if learnt and long and not s.flat_on:
            s.flat_on = 1
            return FLAT_PRESENT
        return 0
    if t - s.first_t < COMMISSIONING_NS:
        s.longest = max(s.longest, s.same)
    s.count = count
    s.same_t = t
    s.same = 1
    if s.flat_on:
        s.flat_on = 0
        return FLAT_GONE
    return 0


@_compiled
def noise(s: Any, x: float, p: Any) -> int:
    """Differences between neighbours, lately against usually; differences are blind to a trend."""
    if s.n == 0:
        s.recent = 0.0
        s.usual = 0.0
        return 0
    difference = abs(x - s.last)
    floor = max(s.usual, p.resolution)
    if s.n > NOISE_LEARN:
        difference = min(difference, NOISE_CLIP * floor)
    s.recent += max(1.0 / NOISE_RECENT, 1.0 / s.n) * (difference - s.recent)
    s.usual += max(1.0 / NOISE_LEARN, 1.0 / s.n) * (difference - s.usual)
    if s.n <= NOISE_LEARN:
        return 0
    floor = max(s.usual, p.resolution)
    if s.noise_on == 0:
        if s.recent > NOISE_MORE * floor:
            s.noise_on = 1
            return NOISE_PRESENT
        if s.usual > p.resolution and s.recent < NOISE_LESS * s.usual:
            s.noise_on = -1
            return NOISE_PRESENT
    elif 2.0 * NOISE_LESS * s.usual < s.recent < 0.5 * NOISE_MORE * floor:
        s.noise_on = 0
        return NOISE_GONE
    return 0


@_compiled
def of_mates(rates: bool, t: int, state: Records, params: Records, mates: Any, p: Any) -> float:  # noqa: ARG001, FBT001
    """Median over the other live channels of the failure domain: of their rates, or of what they are off.

    0 where fewer than `MATES` of them live. What all rovers of one base station do at once is the base
    station's doing, or the whole dam's.
    """
    count = p.mates_to - p.mates_from
    if count < MATES:
        return 0.0
    found = np.empty(count)
    live = 0
    for k in range(p.mates_from, p.mates_to):
        mate = state[mates[k]]
        if mate.n > 0 and abs(t - mate.t) <= FRESH_PERIODS * p.period_ns:
            value = mate.v if rates else mate.off
            j = live
            while j > 0 and found[j - 1] > value:
                found[j] = found[j - 1]
                j -= 1
            found[j] = value
            live += 1
    if live < MATES:
        return 0.0
    return float(0.5 * (found[(live - 1) // 2] + found[live // 2]))


@_compiled
def common_condition(s: Any, p: Any) -> int:
    """Present once the domain has been off by 3 sd for six samples, gone when back within 2 for as many."""
    sd = sqrt(p.r)
    against = abs(s.common) <= (COMMON - 1.0) * sd if s.common_on else abs(s.common) > COMMON * sd
    s.common_run = s.common_run + 1 if against else 0
    if s.common_run < STEP_RUN:
        return 0
    s.common_run = 0
    s.common_on = 1 - s.common_on
    return COMMON_PRESENT if s.common_on else COMMON_GONE


@_compiled
def follow(s: Any, dt: float, x: float, p: Any) -> None:
    """The trend's filter with `FAST_Q` times its wandering: quick, noisy, to tell whether a rate grows."""
    q = FAST_Q * p.q
    s.fx += s.fv * dt
    s.fp00 += dt * (2.0 * s.fp01 + dt * (s.fp11 + q * dt / 3.0))
    s.fp01 += dt * (s.fp11 + q * dt / 2.0)
    s.fp11 += q * dt
    error = x - s.fx
    variance = s.fp00 + p.r
    bound = GATE * sqrt(variance)
    if abs(error) > bound:
        variance *= abs(error) / bound
    gain0 = s.fp00 / variance
    gain1 = s.fp01 / variance
    s.fx += gain0 * error
    s.fv += gain1 * error
    s.fp11 -= gain1 * s.fp01
    s.fp01 -= gain0 * s.fp01
    s.fp00 -= gain0 * s.fp00


@_compiled
def onset_condition(s: Any, t: int) -> int:
    """Present when the trend moves (3 sd) and the quick follower outruns it (3 sd) for 3 h, three samples at least.

    Gone when the quick follower no longer runs ahead, or the trend no longer moves.
    """  # noqa: E501
    sign = 1.0 if s.v > 0.0 else -1.0
    moves = abs(s.v) > ONSET_RATE * sqrt(s.p11)
    ahead = (s.fv - s.v) * sign
    if s.onset_on:
        if not moves or ahead <= 0.0 or sign != s.onset_on:
            s.onset_on = 0
            s.onset_t = 0
            return ONSET_GONE
        return 0
    if not moves or ahead <= ONSET_GAIN * sqrt(s.fp11):
        s.onset_t = 0
        return 0
    if s.onset_t == 0:
        s.onset_t = t
    elif t - s.onset_t >= ONSET_HOLD_NS and s.t > s.onset_t:
        s.onset_on = 1 if sign > 0.0 else -1
        return ONSET_PRESENT
    return 0


@_compiled
def start(s: Any, x: float, p: Any) -> None:
    """The first sample of both filters."""
    s.x = x
    s.v = 0.0
    s.p00 = p.r
    s.p01 = 0.0
    s.p11 = p.r
    s.fx = x
    s.fv = 0.0
    s.fp00 = p.r
    s.fp01 = 0.0
    s.fp11 = p.r
    s.off = 0.0
    s.common = 0.0


@_compiled
def movement(s: Any, t: int, x: float, part: float, p: Any) -> int:
    """Trend, onset; `part` is common to the failure domain and is taken from `x` before; flags."""
    if s.n == 0:
        start(s, x, p)
        return 0
    dt = (t - s.t) / NS_PER_H
    flags = 0
    if p.mates_to > p.mates_from:
        # Little of it is everybody's own noise, and taking that away would let the domain wander as one.
        s.common = part if abs(part) > REMOVED * sqrt(p.r) else 0.0
        s.off = x - (s.x + s.v * dt)
        x -= s.common
        flags |= common_condition(s, p)
    flags |= trend(s, dt, x, p)
    flags |= rate_condition(s, dt, p)
    if p.onset:
        flags |= step_condition(s, flags)
        follow(s, dt, x, p)
        flags |= onset_condition(s, t)
    return flags


# -- time of failure ------------------------------------------------------------------------------------

HOURS = 96  # hourly means kept
TRIES = 120  # candidate times of failure
SOONEST_H, LATEST_H = 0.5, 2000.0
POWERS = (0.7, 0.85, 1.0, 1.2, 1.45)  # exponents of the rate: alpha 2.4, 2.2, 2, 1.8, 1.7
CORRELATED = 3.0  # readings that count as one
FEWEST = 24  # hourly means for a forecast
# Median hours left at which it is said, and said again, once all but half a per cent lies within ten days.
STAGES_H = (72.0, 24.0, 12.0, 6.0)
SURE_H, UNSURE = 240.0, 5e-3
OVER_H = 96.0  # median beyond which it is taken back
WRONG_FIX = 6.0  # sd off each of its four neighbours

HOURLY = np.dtype(
    [
        ("hour", "<i8"),
        ("sum", "<f8"),
        ("in_hour", "<i8"),
        ("n", "<i8"),
        ("ring_h", "<i8", (HOURS,)),
        ("ring", "<f8", (HOURS,)),
        ("stage", "<i8"),  # 0: nothing said; rises as the time left shrinks
    ]
)


@_compiled
def collect(f: Any, t: int, x: float) -> bool:
    """Take a reading into its hour; whether an hour before it was completed."""
    if not isfinite(x):
        return False
    hour = t // 3_600_000_000_000
    done = False
    if f.in_hour > 0 and hour > f.hour:
        f.ring_h[f.n % HOURS] = f.hour
        f.ring[f.n % HOURS] = f.sum / f.in_hour
        f.n += 1
        done = True
    if f.in_hour == 0 or hour > f.hour:
        f.hour = hour
        f.sum = 0.0
        f.in_hour = 0
    if hour == f.hour:
        f.sum += x
        f.in_hour += 1
    return done


@_compiled
def unroll(f: Any, noise_sd: float, h: Any, x: Any, w: Any) -> int:
    """The ring in order of time, hours counted from the newest; weight 0 for what no neighbour confirms."""
    n: int = min(f.n, HOURS)
    for i in range(n):
        j = (f.n - n + i) % HOURS
        h[i] = f.ring_h[j] - f.ring_h[(f.n - 1) % HOURS]
        x[i] = f.ring[j]
    for i in range(n):
        first = min(max(i - 2, 0), n - 5)
        near = 0  # of its four neighbours, so many confirm it
        for j in range(first, first + 5):
            if j != i and abs(x[i] - x[j]) <= WRONG_FIX * noise_sd:
                near += 1
        w[i] = 0.0 if near == 0 and i < n - 2 else 1.0
    return n


@_compiled
def fitted(h: Any, x: Any, w: Any, n: int, left: float, m: float) -> tuple[float, float]:
    """Slope and sum of squares left of the fit of x to the integral of (left - h)^-m, scaled to rate 1/left now."""  # noqa: E501
    sw = sg = sx = sgg = sgx = sxx = 0.0
    for i in range(n):
        ratio = (left - h[i]) / left
        g = -log(ratio) if m == 1.0 else (ratio ** (1.0 - m) - 1.0) / (m - 1.0)
        y = x[i] - x[0]
        sw += w[i]
        sg += w[i] * g
        sx += w[i] * y
        sgg += w[i] * g * g
        sgx += w[i] * g * y
        sxx += w[i] * y * y
    across = sgg - sg * sg / sw
    if across <= 0.0:
        return 0.0, 0.0
    slope = (sgx - sg * sx / sw) / across
    return slope, sxx - sx * sx / sw - slope * slope * across


@_compiled
def time_left(h: Any, x: Any, w: Any, n: int, sign: float, quantiles: Any) -> float:  # noqa: C901, PLR0912
    """5, 50 and 95 % of the hours left until failure, by profile likelihood; the rate now, or 0: no forecast.

    The rate goes as (t_f - t)^-m, m = 1 / (alpha - 1) (Voight 1988; alpha = 2 is Fukuzono's line of the inverse
    velocity), of the movement's sign. Nobody knows alpha beforehand, so every exponent has its say. Candidates
    are spread evenly in the logarithm; inf: beyond the last of them. quantiles[3] is the share of what lies
    beyond `SURE_H`.
    """  # noqa: E501
    total = 0.0
    for i in range(n):
        total += w[i]
    if total < FEWEST:
        return 0.0
    likelihood = np.empty((TRIES, len(POWERS)))
    best, rate = -inf, 0.0
    step = log(LATEST_H / SOONEST_H) / (TRIES - 1)
    for j in range(TRIES):
        left = SOONEST_H * exp(step * j)
        for k in range(len(POWERS)):
            m = POWERS[k]
            slope, rest = fitted(h, x, w, n, left, m)
            likelihood[j, k] = -inf
            if slope * sign <= 0.0 or rest <= 0.0:
                continue
            likelihood[j, k] = -0.5 * total / CORRELATED * log(rest)
            if likelihood[j, k] > best:
                best, rate = likelihood[j, k], slope / left
    if rate == 0.0:
        return 0.0
    mass, unsure = 0.0, 0.0
    share_of = np.empty(TRIES)
    for j in range(TRIES):
        share_of[j] = 0.0
        for k in range(len(POWERS)):
            share_of[j] += exp(likelihood[j, k] - best)
        mass += share_of[j]
        if SOONEST_H * exp(step * j) > SURE_H:
            unsure += share_of[j]
    quantiles[3] = unsure / mass
    for q in range(3):
        share = 0.05 + 0.45 * q
        quantiles[q] = inf
        cumulated = 0.0
        for j in range(TRIES - 1):
            cumulated += share_of[j]
            if cumulated >= share * mass:
                quantiles[q] = SOONEST_H * exp(step * j)
                break
    return rate


@_compiled
def forecast_condition(f: Any, sign: int, noise_sd: float, o: Any) -> int:
    """After a completed hour of a movement that speeds up: the time left, and whether there is news in it."""
    quantiles = np.empty(4)
    h, x, w = np.empty(HOURS), np.empty(HOURS), np.empty(HOURS)
    rate = 0.0
    if sign and f.n >= FEWEST:
        rate = time_left(h, x, w, unroll(f, noise_sd, h, x, w), float(sign), quantiles)
    stage = 0
    if rate != 0.0:
        o.h05 = quantiles[0]
        o.h50 = quantiles[1]
        o.h95 = quantiles[2]
        if quantiles[3] <= UNSURE:
            for j in range(len(STAGES_H)):
                stage += quantiles[1] < STAGES_H[j]
    if stage > f.stage:
        f.stage = stage
        o.stage = stage
        return FORECAST_PRESENT
    if f.stage and (sign == 0 or rate == 0.0 or quantiles[1] > OVER_H):
        f.stage = 0
        return FORECAST_GONE
    return 0


@_compiled
def disarmed(s: Any, p: Any) -> int:
    """Conditions that stand though a new site file no longer watches for them end."""
    flags = 0
    if s.spike_on and not p.hampel:
        s.spike_on = 0
        flags |= SPIKE_GONE
    if s.flat_on and not p.flat_ns:
        s.flat_on = 0
        flags |= FLAT_GONE
    if s.noise_on and not p.noise:
        s.noise_on = 0
        flags |= NOISE_GONE
    if s.step_left and not p.onset:
        s.step_left = 0
        flags |= STEP_GONE
    if s.rate_on and not p.trend:
        s.rate_on = 0
        flags |= RATE_GONE
    if s.onset_on and not p.onset:
        s.onset_on = 0
        flags |= ONSET_GONE
    if s.gap_on and not p.period_ns:
        s.gap_on = 0
        flags |= GAP_GONE
    if s.common_on and p.mates_to == p.mates_from:
        s.common_on = 0
        flags |= COMMON_GONE
    return flags


@_compiled
def sample(t: int, x: float, count: float, part: float, s: Any, p: Any, o: Any) -> int:
    """What one sample does to its channel by itself; flags.

    It takes records and no arrays: Numba counts references to every array that a function is given, by
    atomic instructions which cost more than the sample itself.
    """
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
    if p.flat_ns:
        flags |= flat(s, t, count, p)
    if p.noise:
        flags |= noise(s, x, p)
    if p.hampel:
        flags |= hampel(s, t, x, p, o)
    if p.trend:
        flags |= movement(s, t, x, part, p)
        o.level = s.x
        o.rate = s.v
        o.rate_sd = sqrt(s.p11)
        o.steps = s.steps
        o.shared = 1 if s.rate_on == SHARED else 0
    if s.gap_on and p.period_ns:
        s.gap_on = 0
        flags |= GAP_GONE
    flags |= disarmed(s, p)
    s.last = x
    s.t = t
    s.n += 1
    return flags


@_compiled
def tell(s: Any, o: Any) -> None:
    """What a verdict may have to say beyond the flags."""
    o.fast = s.fv
    o.fast_sd = sqrt(s.fp11)
    o.step = s.step
    o.same = s.same
    o.same_t = s.same_t
    o.longest = s.longest
    o.recent = s.recent
    o.usual = s.usual
    o.common = s.common


@_compiled
def next_silence(state: Records, params: Records) -> int:
    """When the next channel will have been silent for too long, if nothing comes of it."""
    due = 9_223_372_036_854_775_807
    for i in range(state.size):
        s, p = state[i], params[i]
        if p.period_ns and s.n > 0 and s.gap_on < 2:  # noqa: PLR2004 -- dead: nothing further to say
            due = min(due, s.t + int((DEAD_PERIODS if s.gap_on else STALE_PERIODS) * p.period_ns))
    return due


@_compiled
def silences(j: int, t: int, state: Records, params: Records, gaps: Records, found: int) -> int:
    """Note the channels that have been silent for too long at `t`; how many notes there are."""
    for i in range(state.size):
        s, p = state[i], params[i]
        if p.period_ns and s.n > 0:
            stage = (t - s.t > STALE_PERIODS * p.period_ns) + (t - s.t > DEAD_PERIODS * p.period_ns)
            if stage > s.gap_on:
                s.gap_on = stage
                gaps[found].at = j
                gaps[found].row = i
                gaps[found].stage = stage
                gaps[found].since = s.t
                found += 1
    return found


@_entry
def step(
    idx: Any,
    t: Any,
    x: Any,
    count: Any,
    state: Records,
    params: Records,
    mates: Any,
    hours: Records,
    out: Records,
    gaps: Records,
) -> int:
    """Take a batch of samples in order; how many `gaps` were noted.

    Args:
        idx: (m,) int64, the channel of each sample: its row in `state` and `params`; -1: it only tells the time.
        t: (m,) int64, ns UTC.
        x: (m,) float64, in the channel's unit; NaN where missing.
        count: (m,) float64, the raw number behind `x`, or `x` where there is none.
        state: (channels,) STATE, changed in place.
        params: (channels,) PARAMS.
        mates: (any,) int64, rows of `state`; PARAMS says which belong to a channel.
        hours: (forecast,) HOURLY, changed in place.
        out: (m or more,) OUT; `said` of the first m is set, the others where their detector said something.
        gaps: (2 (channels + m),) GAP.
    """  # noqa: E501
    found = 0
    due = next_silence(state, params)
    for j in range(idx.size):
        i = idx[j]
        o = out[j]
        o.said = 0
        if i >= 0:
            s, p = state[i], params[i]
            part = 0.0
            has_mates = p.mates_to > p.mates_from and isfinite(x[j])
            if has_mates:
                part = of_mates(False, t[j], state, params, mates, p)  # noqa: FBT003 -- compiled
            flags = sample(t[j], x[j], count[j], part, s, p, o)
            if has_mates and flags & RATE_PRESENT:
                o.common_rate = of_mates(True, t[j], state, params, mates, p)  # noqa: FBT003 -- compiled
                if abs(s.v - o.common_rate) <= p.rate_limit:
                    s.rate_on = SHARED
                    o.shared = 1
            if p.hours >= 0 and p.trend and not flags & (MISSING | LATE):
                f = hours[p.hours]
                if collect(f, t[j], x[j]):
                    flags |= forecast_condition(f, s.onset_on, sqrt(p.r), o)
            if flags & CHANGED:
                tell(s, o)
            o.said = flags
        if t[j] > due:
            found = silences(j, t[j], state, params, gaps, found)
            due = next_silence(state, params)
    return found


# -- pore pressure expected from rain and pond level ---------------------------------------------------

TAU_D = (0.25, 1.0, 3.0, 12.0, 45.0, 150.0)  # memory of rain and of evaporation
POND_TAU_D = (1.0, 5.0, 15.0, 40.0)
TAUS, PONDS = len(TAU_D), len(POND_TAU_D)
INPUTS = 3  # rain, evaporation, pond level
RAIN, EVAPORATION, POND, TARGET = 0, 1, 2, 3
TERMS = 2 * TAUS + 1 + PONDS + 1  # and a constant
FIT = 2 * TERMS  # blocks before a prediction means anything
HUBER = 3.0
CLIP = 4.0  # standard deviations that one block may move a variance
CUSUM_CLIP = 3.0  # so that one outlier cannot fire it
MONTHS = 4  # fewest maxima from which a limit is taken
EULER = 0.5772156649015329
BACK = 5  # blocks back within one sd that end the condition
RIDGE = 1e-10  # of a column's own weight: what the data say less about is left at zero

RESPONSE_PARAMS = np.dtype(
    [
        ("inputs", "<i8"),  # bit per input that the site file names
        ("step_ns", "<i8"),  # length of a block
        ("learn", "<i8"),  # blocks before anything is judged
        ("memory", "<f8"),  # blocks: forgetting of the fit
        ("year", "<f8"),  # blocks: memory of what the residual is like
        ("evp", "<f8"),  # explained share from which on it is judged
        ("k", "<f8"),  # CUSUM: allowance and limit, in sd of the innovation
        ("h", "<f8"),
        ("z", "<f8"),  # limit of the residual, in its sd
        ("month", "<i8"),  # blocks of which the highest statistic is remembered
        ("months", "<f8"),  # per false alarm of either statistic
        ("low", "<f8"),  # yellow: beyond, nothing is learnt
        ("high", "<f8"),
    ]
)
RESPONSE = np.dtype(
    [
        ("in_n", "<i8", (INPUTS,)),
        ("in_t", "<i8", (INPUTS,)),
        ("in_dt", "<f8", (INPUTS,)),  # usual days between readings
        ("s", "<f8", (2 * TAUS + PONDS,)),  # exponentials of rain, evaporation, pond level
        ("w", "<f8", (2 * TAUS + PONDS,)),  # how much of each is filled
        ("pond", "<f8"),
        ("pond_ref", "<f8"),
        ("t", "<i8"),
        ("late", "<i8"),
        ("taken", "<i8"),  # samples of the target
        ("ref", "<f8"),  # its first value
        ("block", "<i8"),
        ("in_block", "<i8"),
        ("beyond", "<i8"),  # samples of this block at or beyond yellow
        ("sum_y", "<f8"),
        ("sum_x", "<f8", (TERMS,)),
        ("r", "<f8", (TERMS, TERMS)),  # upper triangle of the weighted least squares
        ("rhs", "<f8", (TERMS,)),
        ("theta", "<f8", (TERMS,)),
        ("n", "<i8"),  # blocks learnt
        ("judged", "<i8"),  # blocks whose residual counts
        ("prev_block", "<i8"),
        ("prev_e", "<f8"),
        ("r0", "<f8"),  # of the residual: variance, covariance with the one before
        ("r1", "<f8"),
        ("i2", "<f8"),  # variance of the innovation
        ("mean_y", "<f8"),
        ("var_y", "<f8"),
        ("mse", "<f8"),
        ("up", "<f8"),
        ("down", "<f8"),
        # Of |z| and of the CUSUM: the highest of this month, and mean and sum of squares of months before.
        ("peak", "<f8", (2,)),
        ("peak_blocks", "<i8"),
        ("peaks", "<i8"),
        ("peak_mean", "<f8", (2,)),
        ("peak_m2", "<f8", (2,)),
        ("limit", "<f8", (2,)),
        ("back", "<i8"),
        ("on", "<i8"),  # sign of the residual when the condition began
        ("armed", "<i8"),
    ]
)
RESPONSE_OUT = np.dtype(
    [
        ("said", "<i8"),
        ("measured", "<f8"),
        ("expected", "<f8"),
        ("sd", "<f8"),
        ("z", "<f8"),
        ("z_limit", "<f8"),
        ("cusum", "<f8"),
        ("cusum_limit", "<f8"),
        ("phi", "<f8"),
        ("evp", "<f8"),
        ("rain", "<f8"),  # what each input adds to the expectation
        ("evaporation", "<f8"),
        ("pond", "<f8"),
        ("block_t", "<i8"),  # end of the block judged
    ]
)
RESPONSE_PRESENT = 1
RESPONSE_GONE = 2
RESPONSE_ARMED = 4
RESPONSE_DISARMED = 8
RESPONSE_JUDGED = 16  # a block was closed and compared
RESPONSE_FROZEN = 32  # and not learnt from


@_compiled
def take_input(s: Any, which: int, t: int, x: float) -> None:
    """A reading of an input: rain and evaporation as amounts since the reading before, pond level as it is."""  # noqa: E501
    if not isfinite(x):
        return
    if s.in_n[which] == 0:
        s.in_n[which] = 1
        s.in_t[which] = t
        if which == POND:
            s.pond_ref = x
            s.pond = 0.0
        return
    dt = (t - s.in_t[which]) / NS_PER_D
    if dt <= 0.0:
        return
    s.in_dt[which] += max(0.05, 1.0 / s.in_n[which]) * (dt - s.in_dt[which])
    s.in_n[which] += 1
    s.in_t[which] = t
    if which == POND:
        s.pond = x - s.pond_ref
        for j in range(PONDS):
            fill(s, 2 * TAUS + j, dt / POND_TAU_D[j], s.pond)
    else:
        for j in range(TAUS):
            fill(s, which * TAUS + j, dt / TAU_D[j], x / dt)


@_compiled
def fill(s: Any, j: int, share: float, x: float) -> None:
    """One exponential; the constant rate of the interval enters exactly."""
    a = exp(-share)
    s.s[j] = a * s.s[j] + (1.0 - a) * x
    s.w[j] = a * s.w[j] + (1.0 - a)


@_compiled
def inputs_live(s: Any, t: int, p: Any) -> bool:
    for which in range(INPUTS):
        if p.inputs >> which & 1:
            if s.in_n[which] < 2:  # noqa: PLR2004 -- one reading has no interval
                return False
            if (t - s.in_t[which]) / NS_PER_D > FRESH_PERIODS * s.in_dt[which]:
                return False
    return True


@_compiled
def rotate_in(s: Any, x: Any, y: float, weight: float, keep: float) -> None:
    """One row into the triangle (Givens), after the old rows have lost `1 - keep` of their weight."""
    root, old = sqrt(weight), sqrt(keep)
    row = np.empty(TERMS)
    for j in range(TERMS):
        row[j] = root * x[j]
        s.rhs[j] *= old
        for k in range(j, TERMS):
            s.r[j, k] *= old
    b = root * y
    for j in range(TERMS):
        if row[j] == 0.0:
            continue
        length = sqrt(s.r[j, j] * s.r[j, j] + row[j] * row[j])
        cos, sin = s.r[j, j] / length, row[j] / length
        for k in range(j, TERMS):
            above = s.r[j, k]
            s.r[j, k] = cos * above + sin * row[k]
            row[k] = cos * row[k] - sin * above
        above = s.rhs[j]
        s.rhs[j] = cos * above + sin * b
        b = cos * b - sin * above


@_compiled
def solve(s: Any) -> None:
    """`theta` of the triangle, from the last row up; a column that the data do not tell apart stays at zero."""  # noqa: E501
    for j in range(TERMS - 1, -1, -1):
        weight = 0.0
        for k in range(j + 1):
            weight += s.r[k, j] * s.r[k, j]
        if s.r[j, j] * s.r[j, j] <= RIDGE * weight:
            s.theta[j] = 0.0
            continue
        rest = s.rhs[j]
        for k in range(j + 1, TERMS):
            rest -= s.r[j, k] * s.theta[k]
        s.theta[j] = rest / s.r[j, j]


@_compiled
def residual_statistics(s: Any, e: float, y: float, p: Any) -> None:
    """What residuals are like: variance, correlation with the one before, share explained."""
    s.judged += 1
    rate = max(1.0 / s.judged, 1.0 / p.year)
    if s.judged > TERMS:
        bound = CLIP * sqrt(s.r0)
        clipped = max(-bound, min(bound, e))
    else:
        clipped = e
    s.r0 += rate * (clipped * clipped - s.r0)
    if s.block == s.prev_block + 1:
        bound = CLIP * sqrt(s.r0)
        before = max(-bound, min(bound, s.prev_e))
        s.r1 += rate * (clipped * before - s.r1)
        i = e - correlation(s) * s.prev_e
        if s.judged > TERMS:
            bound = CLIP * sqrt(s.i2)
            i = max(-bound, min(bound, i))
        s.i2 += rate * (i * i - s.i2)
    off = y - s.mean_y
    s.mean_y += rate * off
    s.var_y += rate * (off * (y - s.mean_y) - s.var_y)
    s.mse += rate * (e * e - s.mse)


@_compiled
def correlation(s: Any) -> float:
    return max(0.0, min(0.98, s.r1 / s.r0)) if s.r0 > 0.0 else 0.0


@_compiled
def remember_peaks(s: Any, z: float, p: Any) -> None:
    """Monthly maxima of both statistics, and the limits they ask for.

    A limit is that of white Gaussian noise, or the return level of a Gumbel law through the maxima (Gumbel
    1958) where residuals have heavier tails. A maximum counts at most as the limit it met: what a slow
    failure could do to its own limit is bounded.
    """
    s.peak[0] = max(s.peak[0], z)
    s.peak[1] = max(s.peak[1], s.up, s.down)
    s.peak_blocks += 1
    if s.peak_blocks < p.month:
        return
    s.peaks += 1
    for j in range(2):
        floor = p.z if j == 0 else p.h
        peak = s.peak[j] if s.limit[j] == 0.0 else min(s.peak[j], s.limit[j])
        off = peak - s.peak_mean[j]
        s.peak_mean[j] += off / s.peaks
        s.peak_m2[j] += off * (peak - s.peak_mean[j])
        if s.peaks >= MONTHS:
            scale = sqrt(6.0 * s.peak_m2[j] / (s.peaks - 1)) / pi
            level = -log(-log(1.0 - 1.0 / p.months)) - EULER
            s.limit[j] = max(floor, s.peak_mean[j] + scale * level)
        s.peak[j] = 0.0
    s.peak_blocks = 0


@_compiled
def walk(s: Any, e: float, p: Any) -> None:
    """The CUSUM of the whitened residual."""
    if s.block == s.prev_block + 1 and s.i2 > 0.0:
        i = (e - correlation(s) * s.prev_e) / sqrt(s.i2)
        i = max(-CUSUM_CLIP, min(CUSUM_CLIP, i))
        s.up = max(0.0, s.up + i - p.k)
        s.down = max(0.0, s.down - i - p.k)


@_compiled
def response_condition(s: Any, e: float) -> int:
    """CUSUM or residual beyond its limit; gone after five blocks within one sd."""
    sd = sqrt(s.r0)
    drifts = max(s.up, s.down) > s.limit[1]
    if s.on == 0:
        if drifts or abs(e) > s.limit[0] * sd:
            if s.armed:
                s.on = 1 if (s.up > s.down if drifts else e > 0.0) else -1
                s.back = 0
                return RESPONSE_PRESENT
            s.up = 0.0
            s.down = 0.0
        return 0
    s.back = s.back + 1 if abs(e) <= sd else 0
    if s.back < BACK:
        return 0
    s.on = 0
    s.up = 0.0
    s.down = 0.0
    return RESPONSE_GONE


@_compiled
def close_block(s: Any, p: Any, o: Any) -> int:
    """Compare the finished block with what was expected of it, then learn from it, unless that is forbidden."""  # noqa: E501
    x = np.empty(TERMS)
    for j in range(TERMS):
        x[j] = s.sum_x[j] / s.in_block
    y = s.sum_y / s.in_block
    flags = 0
    weight = 1.0
    frozen = s.beyond > 0
    if s.n >= FIT:
        solve(s)
        expected = 0.0
        for j in range(TERMS):
            expected += s.theta[j] * x[j]
        e = y - expected
        flags = RESPONSE_JUDGED
        o.measured = y + s.ref
        o.expected = expected + s.ref
        o.rain = part(s, x, 0, TAUS)
        o.evaporation = part(s, x, TAUS, 2 * TAUS)
        o.pond = part(s, x, 2 * TAUS, TERMS - 1)
        o.evp = 1.0 - s.mse / s.var_y if s.var_y > 0.0 else 0.0
        flags |= arming(s, o.evp, p)
        o.sd = sqrt(s.r0)
        o.z = e / o.sd if o.sd > 0.0 else 0.0
        if s.judged > TERMS:
            walk(s, e, p)
        o.cusum = max(s.up, s.down)
        if s.judged > TERMS and s.on == 0 and s.beyond == 0:
            remember_peaks(s, abs(o.z), p)
        o.z_limit = s.limit[0]
        o.cusum_limit = s.limit[1]
        if s.peaks >= MONTHS:
            flags |= response_condition(s, e)
        frozen = frozen or (s.on != 0 and s.peaks >= MONTHS)
        o.phi = correlation(s)
        if s.judged > TERMS and abs(e) > HUBER * o.sd:
            weight = HUBER * o.sd / abs(e)
        if not frozen and 2 * s.n >= p.learn:
            residual_statistics(s, e, y, p)
        s.prev_e = e
        s.prev_block = s.block
    if frozen:
        return flags | RESPONSE_FROZEN
    rotate_in(s, x, y, weight, 1.0 - 1.0 / p.memory)
    s.n += 1
    return flags


@_compiled
def part(s: Any, x: Any, first: int, end: int) -> float:
    total = 0.0
    for j in range(first, end):
        total += s.theta[j] * x[j]
    return total


@_compiled
def arming(s: Any, evp: float, p: Any) -> int:
    armed = 1 if s.n >= p.learn and s.peaks >= MONTHS and evp >= p.evp else 0
    if armed == s.armed:
        return 0
    s.armed = armed
    return RESPONSE_ARMED if armed else RESPONSE_DISARMED


@_compiled
def open_block(s: Any, block: int) -> None:
    s.block = block
    s.in_block = 0
    s.beyond = 0
    s.sum_y = 0.0
    for j in range(TERMS):
        s.sum_x[j] = 0.0


@_compiled
def take_target(s: Any, t: int, y: float, p: Any, o: Any) -> int:  # noqa: C901
    """A reading of the pressure; flags of the block it closes."""
    if not isfinite(y):
        return 0
    if s.taken > 0 and t <= s.t:
        s.late += 1
        if s.late < LATE_RUN:
            return 0
        s.prev_block = -2  # a clock that came back from the future: the fit is kept, the run is not
        open_block(s, t // p.step_ns)
    s.late = 0
    if s.taken == 0:
        s.ref = y
        open_block(s, t // p.step_ns)
    s.taken += 1
    s.t = t
    flags = 0
    block = t // p.step_ns
    if block != s.block:
        if s.in_block > 0:
            o.block_t = (s.block + 1) * p.step_ns
            flags = close_block(s, p, o)
        open_block(s, block)
    if not inputs_live(s, t, p):
        return flags
    s.in_block += 1
    if y >= p.high or y <= p.low:
        s.beyond += 1
    s.sum_y += y - s.ref
    for j in range(2 * TAUS):
        if s.w[j] > 0.0:
            s.sum_x[j] += s.s[j] / s.w[j]
    s.sum_x[2 * TAUS] += s.pond
    for j in range(PONDS):
        if s.w[2 * TAUS + j] > 0.0:
            s.sum_x[2 * TAUS + 1 + j] += s.s[2 * TAUS + j] / s.w[2 * TAUS + j]
    s.sum_x[TERMS - 1] += 1.0
    return flags


@_entry
def respond(idx: Any, role: Any, t: Any, x: Any, state: Records, params: Records, out: Records) -> None:
    """Take a batch of samples in order, each in the part it plays for one modelled channel.

    Args:
        idx: (m,) int64, row of the modelled channel in `state` and `params`.
        role: (m,) int64, RAIN, EVAPORATION, POND or TARGET.
        t: (m,) int64, ns UTC.
        x: (m,) float64; NaN where missing.
        state: (modelled,) RESPONSE, changed in place.
        params: (modelled,) RESPONSE_PARAMS.
        out: (m,) RESPONSE_OUT; filled where `said` is not 0.
    """
    for j in range(idx.size):
        s, p = state[idx[j]], params[idx[j]]
        if role[j] == TARGET:
            out[j].said = take_target(s, t[j], x[j], p, out[j])
        else:
            take_input(s, role[j], t[j], x[j])
