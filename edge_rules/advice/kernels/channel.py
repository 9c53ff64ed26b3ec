"""What is kept of a channel, what is asked of it and what is said of it: one record each.

Every field is eight bytes wide, so packed is aligned and `descr` names fields only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_rules.advice.kernels.compiled import compiled

WINDOW = 11
STEP_RUN = 6
LATE_RUN = 10
FRESH_PERIODS = 3
NS_PER_H = 3.6e12

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
        ("longest", "<i8"),  # run that ended by itself
        ("flat_on", "<i8"),
        ("last", "<f8"),  # value of the last sample
        ("recent", "<f8"),  # mean |difference|, short memory
        ("usual", "<f8"),  # the same, long memory
        ("noise_on", "<i8"),  # 1: more than usual, -1: less
        ("noise_t", "<i8"),  # since then it waits to begin or to end; 0: it does not
        ("swing", "<f8"),  # mean square of the difference between neighbours
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
        ("square", "<f8"),  # of the spread
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
        ("flat_limit", "<i8"),
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


@compiled
def forget(s: Any) -> None:
    """Statistics start anew; which conditions stand (`spike_on`, `rate_on`, ...) is kept until data end them."""  # noqa: E501
    s.same = 0
    s.longest = 0
    s.onset_t = 0
    s.noise_t = 0
    s.common_run = 0
    s.t = 0
    s.late = 0
    s.n = 0
    s.wait_on[0] = 0
    s.wait_on[1] = 0
    s.quiet = 0
    s.run = 0
    s.steps = 0
