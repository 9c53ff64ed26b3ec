"""What the noise of hourly means is like: a white part and a slow one, learnt while nothing moves.

GNSS errors of neighbouring hours are alike (troposphere, multipath), and a slow part hides an acceleration as white
noise does not. The model is white noise and a first-order autoregression; its two unknowns follow from the sums of
the autocovariance over eight hours and over a day, from which waves of a day and of a third of it drop out.
"""  # noqa: E501

from __future__ import annotations

from math import sqrt
from typing import Any

from edge_rules.advice.kernels.compiled import compiled

DAY, THIRD = 24, 8  # hours; a power of the third gives the day: 1 + u + u^2 times it
CLIP = 3.0  # standard deviations that one hour may move a moment
MEMORY_H = 4383.0  # half a year
# Until it is learnt: half of the variance slow, with a memory of ten hours, worth so many hours.
ASSUMED_H = 200
ASSUMED_SLOW, ASSUMED_PHI = 0.5, 0.9
LEAST, MOST = 0.05, 0.85  # of phi^8: phi from 0.69 to 0.98
MOST_SLOW = 0.95

COLOUR = [
    ("off_sum", "<f8"),  # what the readings of this hour are off the trend
    ("off", "<f8", (DAY,)),  # means of the last hours
    ("off_h", "<i8", (DAY,)),  # which hours these are
    ("hours", "<i8"),  # learnt, the assumed among them
    ("c0", "<f8"),  # variance
    ("c_third", "<f8"),  # covariances at lags of 1 to 8 hours, summed
    ("c_day", "<f8"),  # and at 1 to 24
]


@compiled
def geometric(phi: float, count: int) -> float:
    """Sum of phi^1 to phi^count."""
    return phi * (1.0 - phi**count) / (1.0 - phi)


@compiled
def assume(f: Any, variance: float) -> None:
    f.hours = ASSUMED_H
    f.c0 = variance
    f.c_third = ASSUMED_SLOW * variance * geometric(ASSUMED_PHI, THIRD)
    f.c_day = ASSUMED_SLOW * variance * geometric(ASSUMED_PHI, DAY)


@compiled
def learn(f: Any, hour: int, off: float, variance: float) -> None:
    """Take what the mean of an hour was off the trend; `variance` of one reading, for the very first."""
    if f.hours == 0:
        assume(f, variance)
    bound = CLIP * sqrt(f.c0)
    off = max(-bound, min(bound, off))
    f.hours += 1
    share = max(1.0 / f.hours, 1.0 / MEMORY_H)
    f.c0 += share * (off * off - f.c0)
    third = day = 0.0
    in_third = in_day = 0
    for lag in range(1, DAY + 1):
        j = (hour - lag) % DAY
        if f.off_h[j] == hour - lag:
            day += f.off[j]
            in_day += 1
            if lag <= THIRD:
                third += f.off[j]
                in_third += 1
    if in_third > 0:
        f.c_third += share * (off * third * THIRD / in_third - f.c_third)
    if in_day > 0:
        f.c_day += share * (off * day * DAY / in_day - f.c_day)
    f.off[hour % DAY] = off
    f.off_h[hour % DAY] = hour


@compiled
def colour(f: Any) -> tuple[float, float]:
    """Share of the variance that is slow, and its correlation from hour to hour."""
    if f.hours == 0:
        return ASSUMED_SLOW, ASSUMED_PHI
    if f.c_third <= 0.0 or f.c0 <= 0.0:
        return 0.0, 0.0
    # day / third = 1 + u + u^2 with u = phi^8
    u = 0.5 * (sqrt(max(4.0 * f.c_day / f.c_third - 3.0, 1.0)) - 1.0)
    phi = min(max(u, LEAST), MOST) ** (1.0 / THIRD)
    return min(f.c_third / geometric(phi, THIRD) / f.c0, MOST_SLOW), phi
