"""Each sample of each channel, in order: the entry point of the detectors."""

from __future__ import annotations

from math import isfinite, sqrt
from typing import Any

from edge_rules.advice.kernels.channel import LATE_RUN, forget
from edge_rules.advice.kernels.compiled import Records, compiled, entry
from edge_rules.advice.kernels.domain import SHARED, of_mates
from edge_rules.advice.kernels.flags import (
    CHANGED,
    COMMON_GONE,
    FLAT_GONE,
    GAP_GONE,
    LATE,
    MISSING,
    NOISE_GONE,
    ONSET_GONE,
    RATE_GONE,
    RATE_PRESENT,
    RESTARTED,
    SPIKE_GONE,
    STEP_GONE,
)
from edge_rules.advice.kernels.forecast import forecast
from edge_rules.advice.kernels.movement import movement
from edge_rules.advice.kernels.quality import flat, flat_limit, hampel, noise
from edge_rules.advice.kernels.silence import silences, stale_at


@compiled
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


@compiled
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
        flags |= noise(s, t, x, p)
    if p.hampel:
        flags |= hampel(s, t, x, p, o)
    if p.trend:
        flags |= movement(s, t, x, part, p)
        o.level = s.x
        o.rate = s.v
    if s.gap_on and p.period_ns:
        s.gap_on = 0
        flags |= GAP_GONE
    flags |= disarmed(s, p)
    s.last = x
    s.t = t
    s.n += 1
    return flags


@compiled
def tell(s: Any, o: Any) -> None:
    """What a verdict may have to say beyond the flags."""
    o.rate_sd = sqrt(s.p11)
    o.steps = s.steps
    o.shared = 1 if s.rate_on == SHARED else 0
    o.fast = s.fv
    o.fast_sd = sqrt(s.fp11)
    o.step = s.step
    o.same = s.same
    o.same_t = s.same_t
    o.longest = s.longest
    o.flat_limit = flat_limit(s)
    o.recent = s.recent
    o.usual = s.usual
    o.common = s.common


@entry
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
    watch: Any,
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
        watch: (1,) int64, ns UTC: no channel will have been silent for too long before; 0 at first, kept from
            batch to batch.
    """  # noqa: E501
    found = 0
    due = watch[0]
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
            if p.hours >= 0 and p.trend and not flags & (MISSING | LATE):
                flags |= forecast(hours[p.hours], t[j], x[j], s, p, o)
            if flags & CHANGED:
                tell(s, o)
            o.said = flags
            if p.period_ns and (s.n == 1 or flags & GAP_GONE):
                due = min(due, stale_at(s, p))
        if t[j] > due:
            found, due = silences(j, t[j], state, params, gaps, found)
    watch[0] = due
    return found
