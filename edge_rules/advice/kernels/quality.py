"""Is the number to be believed: outliers of a window, counts that stand still, noise that changed."""

from __future__ import annotations

from math import inf, sqrt
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
SWING_LEARN = 1000  # samples: memory of how far neighbours lie apart
SWING_CLIP = 5.0  # one spike must not widen what is usual
# The spread of a window lies between these shares of the usual swing: a calm hour makes no spike of a
# ripple, and a window that rises steadily hides none.
SPREAD_LEAST, SPREAD_MOST = 1.25, 1.875
BACK = 0.5  # share of a spike's height within which its followers have come back
FLAT_FEW = 1000  # samples: fewer say little about the longest run
FLAT_MIN, FLAT_TIMES = 20, 5  # equal counts in a row, and of the longest run seen: until then
FLAT_LEAST, FLAT_TWICE = 6, 2  # from then on: were runs geometric, one in 1000 samples would be that long
COMMISSIONING_NS = 14 * 24 * 3_600_000_000_000
NOISE_LEARN = 1000  # samples, and the memory of what is usual
NOISE_RECENT = 20
NOISE_MORE, NOISE_LESS = 4.0, 0.2
NOISE_CLIP = 12.0  # one spike must not pass for noise
NOISE_HOLD_NS = 24 * 3_600_000_000_000  # a calm night is no fault, and a calm hour no end of one


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
def swing(s: Any, x: float, p: Any) -> None:
    """Mean square of the difference between neighbours, clipped, with a long memory."""
    if s.n == 0:
        s.swing = 0.0
        return
    square = (x - s.last) * (x - s.last)
    most = SWING_CLIP * SWING_CLIP * max(s.swing, p.resolution * p.resolution)
    if s.n >= WINDOW and most > 0.0:
        square = min(square, most)
    share = 1.0 / SWING_LEARN if s.n >= SWING_LEARN else 1.0 / s.n
    s.swing += share * (square - s.swing)


@compiled
def came_back(s: Any, row: int, x: float, p: Any) -> bool:
    """Whether `x` is back from the outlier in `row`: near its median, or beyond on the other side."""
    height = s.wait[row, 0] - s.wait[row, 1]
    off = x - s.wait[row, 1] if height > 0.0 else s.wait[row, 1] - x
    return bool(off <= max(p.k * s.wait[row, 2], BACK * abs(height)))


@compiled
def hampel(s: Any, t: int, x: float, p: Any, o: Any) -> int:
    """Take `x` into the window; flags. An outlier is a spike once the next two samples have come back.

    Squares are compared, so that a root is drawn of outliers only.
    """
    flags = 0
    if s.wait_on[1] and came_back(s, 1, x, p):
        flags |= SPIKE
        o.spike_t = s.wait_t[1]
        o.spike = s.wait[1, 0]
        o.spike_median = s.wait[1, 1]
        o.spike_spread = s.wait[1, 2]
    s.wait_on[1] = 0
    if s.wait_on[0]:
        s.wait_on[0] = 0
        s.wait_on[1] = 1 if came_back(s, 0, x, p) else 0
        s.wait_t[1] = s.wait_t[0]
        for j in range(3):
            s.wait[1, j] = s.wait[0, j]
    if replace_oldest(s, x) == WINDOW:
        median = s.sorted[MIDDLE]
        deviation = MAD_TO_SD * median_deviation(s)
        square = min(deviation * deviation, SPREAD_MOST * SPREAD_MOST * s.swing)
        square = max(square, SPREAD_LEAST * SPREAD_LEAST * s.swing, p.floor * p.floor)
        o.median = median
        o.square = square
        if (x - median) * (x - median) > p.k * p.k * square and square > 0.0:
            flags |= OUTLIER
            s.wait_on[0] = 1
            s.wait_t[0] = t
            s.wait[0, 0] = x
            s.wait[0, 1] = median
            s.wait[0, 2] = sqrt(square)
    swing(s, x, p)  # afterwards: no sample widens its own measure
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
def flat_limit(s: Any) -> int:
    """Equal counts in a row that are still natural, by the longest run that ended by itself."""
    if s.n < FLAT_FEW:
        return int(max(FLAT_MIN, FLAT_TIMES * s.longest))
    return int(max(FLAT_LEAST, FLAT_TWICE * s.longest))


@compiled
def flat(s: Any, t: int, count: float, p: Any) -> int:
    """Runs of one raw count: a fault when longer than `flat_limit`, and longer than `flat_ns`."""
    if s.n == 0:
        s.first_t = t
    if s.same > 0 and count == s.count:
        s.same += 1
        learnt = t - s.first_t >= COMMISSIONING_NS
        if learnt and not s.flat_on and s.same > flat_limit(s) and t - s.same_t > p.flat_ns:
            s.flat_on = 1
            return FLAT_PRESENT
        return 0
    if not s.flat_on:
        s.longest = max(s.longest, s.same)
    s.count = count
    s.same_t = t
    s.same = 1
    if s.flat_on:
        s.flat_on = 0
        return FLAT_GONE
    return 0


@compiled
def noise(s: Any, t: int, x: float, p: Any) -> int:
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
    return noise_condition(s, t, p)


@compiled
def noise_condition(s: Any, t: int, p: Any) -> int:
    """Present at once with more than usual, after a day with less; gone after a day within both."""
    floor = max(s.usual, p.resolution)
    if s.noise_on == 0:
        if s.recent > NOISE_MORE * floor:
            s.noise_on = 1
            s.noise_t = 0
            return NOISE_PRESENT
        waits = s.usual > p.resolution and s.recent < NOISE_LESS * s.usual
    else:
        waits = 2.0 * NOISE_LESS * s.usual < s.recent < 0.5 * NOISE_MORE * floor
    if not waits:
        s.noise_t = 0
        return 0
    if s.noise_t == 0:
        s.noise_t = t
    if t - s.noise_t < NOISE_HOLD_NS:
        return 0
    s.noise_t = 0
    if s.noise_on:
        s.noise_on = 0
        return NOISE_GONE
    s.noise_on = -1
    return NOISE_PRESENT
