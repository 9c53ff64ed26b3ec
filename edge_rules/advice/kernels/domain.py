"""What the channels of one failure domain do at once: the base station's doing, or the whole dam's."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from edge_rules.advice.kernels.channel import FRESH_PERIODS, STEP_RUN
from edge_rules.advice.kernels.compiled import Records, compiled
from edge_rules.advice.kernels.flags import COMMON_GONE, COMMON_PRESENT

MATES = 3  # of a failure domain, beside the channel itself: fewer have no median to speak of
REMOVED = 2.0  # standard deviations of one reading: a common part beyond is taken away
SHARED = 2  # in `rate_on`: the whole domain moves at that rate
COMMON = 3.0  # standard deviations of one reading by which a whole domain must have moved


@compiled
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


@compiled
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
