"""Is the number to be believed: outliers of a window, counts that stand still, noise that changed."""

from __future__ import annotations

from math import inf
from typing import Any

from edge_rules.advice.kernels.channel import WINDOW
from edge_rules.advice.kernels.compiled import compiled
from edge_rules.advice.kernels.flags import (
    FLAT_GONE,
    FLAT_PRESENT,
    NOISE_GONE,
    NOISE_PRESENT,
    OUTLIER,
    SPIKE,
    SPIKE_GONE,
    SPIKE_PRESENT,
)

MIDDLE = WINDOW // 2
MAD_TO_SD = 1.4826  # of a Gaussian
FLAT_MIN = 20  # equal counts in a row, whatever the commissioning saw
FLAT_TIMES = 5  # of the longest run that the commissioning saw
COMMISSIONING_NS = 14 * 24 * 3_600_000_000_000
NOISE_LEARN = 1000  # samples, and the memory of what is usual
NOISE_RECENT = 20
NOISE_MORE, NOISE_LESS = 4.0, 0.2
NOISE_CLIP = 12.0  # one spike must not pass for noise


@compiled
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
    below = -inf
    for j in range(WINDOW - 1):
        here = s.sorted[j + 1] if s.sorted[j] >= oldest else s.sorted[j]
        s.sorted[j] = max(below, min(x, here))
        below = here
    s.sorted[WINDOW - 1] = max(below, x)
    s.ring[at] = x
    return WINDOW


@compiled
def median_deviation(s: Any) -> float:
    """Median of |x - median| of a full sorted window: of all runs of six with the middle in them the tightest."""  # noqa: E501
    median = s.sorted[MIDDLE]
    deviation = inf
    for j in range(MIDDLE + 1):
        deviation = min(deviation, max(median - s.sorted[j], s.sorted[j + MIDDLE] - median))
    return float(deviation)


@compiled
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


@compiled
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


@compiled
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


@compiled
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
