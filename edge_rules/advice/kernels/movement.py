"""How a channel moves: the robust trend, its rate, steps, and the onset of an acceleration."""

from __future__ import annotations

from math import copysign, sqrt
from typing import Any

from edge_rules.advice.kernels.channel import NS_PER_H, STEP_RUN
from edge_rules.advice.kernels.compiled import compiled
from edge_rules.advice.kernels.domain import REMOVED, common_condition
from edge_rules.advice.kernels.flags import (
    ONSET_GONE,
    ONSET_PRESENT,
    RATE_GONE,
    RATE_PRESENT,
    STEP,
    STEP_GONE,
    STEP_PRESENT,
)

GATE = 3.0
STEP_STANDS = 24  # samples for which a step is said to stand
EARLY = 5.0  # sd by which a rate must stand out before the filter has settled: 3 would err in 5 % of starts
FAST_Q = 100.0  # the quick follower's wandering, in that of the trend
ONSET_HOLD_NS = 3 * 3_600_000_000_000
ONSET_RATE, ONSET_GAIN = 3.0, 3.0  # standard deviations

NEARLY = 0.999  # rounding moves a square by far less


@compiled
def beyond(x: float, times: float, variance: float) -> bool:
    """Whether abs(x) > times * sqrt(variance), to the bit.

    A root costs as much as thirty multiplications, and only what the squares leave open needs it.
    """
    return bool(x * x > NEARLY * times * times * variance and abs(x) > times * sqrt(variance))


@compiled
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


@compiled
def trend(s: Any, dt: float, x: float, p: Any) -> int:
    """Predict over `dt` hours and correct by `x`; STEP or 0. The arithmetic of law/trend.py."""
    s.x += s.v * dt
    s.p00 += dt * (2.0 * s.p01 + dt * (s.p11 + p.q * dt / 3.0))
    s.p01 += dt * (s.p11 + p.q * dt / 2.0)
    s.p11 += p.q * dt
    error = x - s.x
    variance = s.p00 + p.r
    flags = 0
    if beyond(error, GATE, variance):
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
            variance *= abs(error) / (GATE * sqrt(variance))
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
    if beyond(s.p01, 1.0, s.p00 * s.p11):
        s.p01 = copysign(sqrt(s.p00 * s.p11), s.p01)
    return flags


@compiled
def follow(s: Any, dt: float, x: float, p: Any) -> None:
    """The trend's filter with `FAST_Q` times its wandering: quick, noisy, to tell whether a rate grows."""
    q = FAST_Q * p.q
    s.fx += s.fv * dt
    s.fp00 += dt * (2.0 * s.fp01 + dt * (s.fp11 + q * dt / 3.0))
    s.fp01 += dt * (s.fp11 + q * dt / 2.0)
    s.fp11 += q * dt
    error = x - s.fx
    variance = s.fp00 + p.r
    if beyond(error, GATE, variance):
        variance *= abs(error) / (GATE * sqrt(variance))
    gain0 = s.fp00 / variance
    gain1 = s.fp01 / variance
    s.fx += gain0 * error
    s.fv += gain1 * error
    s.fp11 -= gain1 * s.fp01
    s.fp01 -= gain0 * s.fp01
    s.fp00 -= gain0 * s.fp00


@compiled
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


@compiled
def rate_condition(s: Any, dt: float, p: Any) -> int:
    """Present when the rate is beyond the limit and stands out by 3 sd, by 5 until the filter has settled.

    Gone when it is one sd inside and the filter has settled: its variance is near that of the steady state.
    So neither noise at the limit, nor an outage, nor statistics that start anew end the condition.
    """
    if not s.rate_on and not abs(s.v) > p.rate_limit:
        return 0
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


@compiled
def onset_condition(s: Any, t: int) -> int:
    """Present when the trend moves (3 sd) and the quick follower outruns it (3 sd) for 3 h, three samples at least.

    Gone when the quick follower no longer runs ahead, or the trend no longer moves.
    """  # noqa: E501
    sign = 1.0 if s.v > 0.0 else -1.0
    moves = beyond(s.v, ONSET_RATE, s.p11)
    ahead = (s.fv - s.v) * sign
    if s.onset_on:
        if not moves or ahead <= 0.0 or sign != s.onset_on:
            s.onset_on = 0
            s.onset_t = 0
            return ONSET_GONE
        return 0
    if not moves or ahead <= 0.0 or not beyond(ahead, ONSET_GAIN, s.fp11):
        s.onset_t = 0
        return 0
    if s.onset_t == 0:
        s.onset_t = t
    elif t - s.onset_t >= ONSET_HOLD_NS and s.t > s.onset_t:
        s.onset_on = 1 if sign > 0.0 else -1
        return ONSET_PRESENT
    return 0


@compiled
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
