"""Pore pressure compared with what rain and pond level explain: the second entry point."""

from __future__ import annotations

from math import exp, isfinite, log, pi, sqrt
from typing import Any

import numpy as np

from edge_rules.advice.kernels.channel import LATE_RUN
from edge_rules.advice.kernels.compiled import Records, compiled, entry
from edge_rules.advice.kernels.response_fit import inputs_live, part, rotate_in, solve, take_input
from edge_rules.advice.kernels.response_state import (
    FIT,
    PONDS,
    RESPONSE_ARMED,
    RESPONSE_DISARMED,
    RESPONSE_FROZEN,
    RESPONSE_GONE,
    RESPONSE_JUDGED,
    RESPONSE_PRESENT,
    TARGET,
    TAUS,
    TERMS,
)

HUBER = 3.0
CLIP = 4.0  # standard deviations that one block may move a variance
MEAN_CLIP = 6.0  # standard deviations that one block may move the mean
MONTHS = 4  # fewest maxima from which a limit is taken
EULER = 0.5772156649015329
BACK = 5  # blocks back within one sd that end the condition


@compiled
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
    off = y - s.mean_y
    s.mean_y += rate * off
    s.var_y += rate * (off * (y - s.mean_y) - s.var_y)
    s.mse += rate * (e * e - s.mse)


@compiled
def correlation(s: Any) -> float:
    return max(0.0, min(0.98, s.r1 / s.r0)) if s.r0 > 0.0 else 0.0


@compiled
def remember_peaks(s: Any, z: float, mean: float, p: Any) -> None:
    """Monthly maxima of both statistics, and the limits they ask for: of |z| in sd, of the mean in its unit.

    A limit is at least that of Gaussian noise, or the return level of a Gumbel law through the maxima (Gumbel
    1958) where residuals have heavier tails. A maximum counts at most as the limit it met: what a slow
    failure could do to its own limit is bounded.
    """
    s.peak[0] = max(s.peak[0], z)
    s.peak[1] = max(s.peak[1], mean)
    s.peak_blocks += 1
    if s.peak_blocks < p.month:
        return
    s.peaks += 1
    for j in range(2):
        floor = p.z if j == 0 else p.drift_z * mean_sd(s, p) * sqrt(s.r0)
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


@compiled
def follow_mean(s: Any, e: float, p: Any) -> None:
    """The exponential mean of the residual; blocks that are missing count as none."""
    bound = MEAN_CLIP * sqrt(s.r0)
    gap = s.block - s.prev_block
    s.drift = exp(-gap / p.week) * s.drift + (1.0 - exp(-1.0 / p.week)) * max(-bound, min(bound, e))


@compiled
def mean_sd(s: Any, p: Any) -> float:
    """Standard deviation of that mean in that of the residual, taken for a first-order autoregression."""
    keep = exp(-1.0 / p.week)
    together = keep * correlation(s)
    return sqrt((1.0 - keep) / (1.0 + keep) * (1.0 + together) / (1.0 - together))


@compiled
def response_condition(s: Any, e: float) -> int:
    """Mean or residual beyond its limit; gone after five blocks within one sd."""
    sd = sqrt(s.r0)
    drifts = abs(s.drift) > s.limit[1]
    if s.on == 0:
        if s.armed and (drifts or abs(e) > s.limit[0] * sd):
            s.on = 1 if (s.drift if drifts else e) > 0.0 else -1
            s.back = 0
            return RESPONSE_PRESENT
        return 0
    s.back = s.back + 1 if abs(e) <= sd else 0
    if s.back < BACK:
        return 0
    s.on = 0
    s.drift = 0.0
    return RESPONSE_GONE


@compiled
def arming(s: Any, evp: float, p: Any) -> int:
    armed = 1 if s.n >= p.learn and s.peaks >= MONTHS and evp >= p.evp else 0
    if armed == s.armed:
        return 0
    s.armed = armed
    return RESPONSE_ARMED if armed else RESPONSE_DISARMED


@compiled
def open_block(s: Any, block: int) -> None:
    s.block = block
    s.in_block = 0
    s.beyond = 0
    s.sum_y = 0.0
    for j in range(TERMS):
        s.sum_x[j] = 0.0


@compiled
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
            follow_mean(s, e, p)
        o.drift = s.drift
        if s.judged > TERMS and s.on == 0 and s.beyond == 0:
            remember_peaks(s, abs(o.z), abs(o.drift), p)
        o.z_limit = s.limit[0]
        o.drift_limit = s.limit[1]
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


@compiled
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


@entry
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
