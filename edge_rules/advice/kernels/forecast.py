"""Time of failure of a movement that speeds up, by profile likelihood of its hourly means."""

from __future__ import annotations

from math import exp, inf, isfinite, log, sqrt
from typing import Any

import numpy as np

from edge_rules.advice.kernels.colour import COLOUR, colour, learn
from edge_rules.advice.kernels.compiled import compiled
from edge_rules.advice.kernels.flags import FORECAST_GONE, FORECAST_PRESENT

HOURS = 96  # hourly means kept
TRIES = 120  # candidate times of failure
SOONEST_H, LATEST_H = 0.5, 2000.0
STEP = log(LATEST_H / SOONEST_H) / (TRIES - 1)
POWERS = tuple(2.0 ** (i / 8) / 1.4 for i in range(9))  # of the rate: alpha 2.4 to 1.7, none of them 1 itself
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
        *COLOUR,
    ]
)


@compiled
def collect(f: Any, t: int, x: float, s: Any, variance: float) -> bool:
    """Take a reading into its hour; whether that completed one. Noise is learnt while nothing moves."""
    if not isfinite(x):
        return False
    hour = t // 3_600_000_000_000
    done = False
    if f.in_hour > 0 and hour > f.hour:
        f.ring_h[f.n % HOURS] = f.hour
        f.ring[f.n % HOURS] = f.sum / f.in_hour
        f.n += 1
        if s.onset_on == 0 and s.rate_on == 0:
            learn(f, f.hour, f.off_sum / f.in_hour, variance)
        done = True
    if f.in_hour == 0 or hour > f.hour:
        f.hour = hour
        f.sum = 0.0
        f.off_sum = 0.0
        f.in_hour = 0
    if hour == f.hour:
        f.sum += x
        f.off_sum += x - s.x
        f.in_hour += 1
    return done


@compiled
def unroll(f: Any, noise_sd: float, h: Any, x: Any) -> int:
    """The ring in order of time, hours counted from the newest, less what no neighbour confirms; how many."""
    n: int = min(f.n, HOURS)
    kept = 0
    for i in range(n):
        here = f.ring[(f.n - n + i) % HOURS]
        first = min(max(i - 2, 0), n - 5)
        near = 0  # of its four neighbours, so many confirm it
        for j in range(first, first + 5):
            if j != i and abs(here - f.ring[(f.n - n + j) % HOURS]) <= WRONG_FIX * noise_sd:
                near += 1
        if near > 0 or i >= n - 2:
            h[kept] = f.ring_h[(f.n - n + i) % HOURS] - f.ring_h[(f.n - 1) % HOURS]
            x[kept] = here
            kept += 1
    return kept


@compiled
def whitening(h: Any, n: int, slow: float, phi: float, white: Any) -> None:
    """For each hour: how much of the slow part remains, its gain, and the root of what cannot be foretold.

    The Kalman filter of white noise and an autoregression of unit variance together: what it cannot
    foretell of such noise is white. None of it depends on the series, so all candidates share it.
    """
    p = slow
    white[0, 0] = 0.0
    for i in range(n):
        if i > 0:
            white[0, i] = phi ** (h[i] - h[i - 1])
            p = slow + white[0, i] * white[0, i] * (p - slow)
        s = p + 1.0 - slow
        white[1, i] = p / s
        white[2, i] = 1.0 / sqrt(s)
        p -= white[1, i] * p


@compiled
def whiten(x: Any, n: int, white: Any, out: Any) -> None:
    slow = 0.0
    for i in range(n):
        slow *= white[0, i]
        error = x[i] - slow
        slow += white[1, i] * error
        out[i] = error * white[2, i]


@compiled
def product(a: Any, b: Any, n: int) -> float:
    total = 0.0
    for i in range(n):
        total += a[i] * b[i]
    return total


@compiled
def likelihoods(
    h: Any, x: Any, n: int, sign: float, slow: float, phi: float, found: Any
) -> tuple[float, float]:
    """Log likelihood of each candidate; the greatest, and its rate now, 0 where none moves by `sign`.

    Generalised least squares of x on a constant and the integral of (left - h)^-m, scaled to rate 1/left
    now, with the noise's variance maximised.
    """
    white, ratio, g = np.empty((3, HOURS)), np.empty(HOURS), np.empty(HOURS)
    one, xs, gs = np.empty(HOURS), np.empty(HOURS), np.empty(HOURS)
    whitening(h, n, slow, phi, white)
    for i in range(n):
        g[i] = 1.0
    whiten(g, n, white, one)
    for i in range(n):
        g[i] = x[i] - x[0]
    whiten(g, n, white, xs)
    oo, ox = product(one, one, n), product(one, xs, n)
    xx = product(xs, xs, n) - ox * ox / oo
    best, rate = -inf, 0.0
    for j in range(TRIES):
        left = SOONEST_H * exp(STEP * j)
        for i in range(n):
            ratio[i] = log((left - h[i]) / left)
        for k in range(len(POWERS)):
            m = POWERS[k]
            for i in range(n):
                g[i] = (exp((1.0 - m) * ratio[i]) - 1.0) / (m - 1.0)
            whiten(g, n, white, gs)
            og = product(one, gs, n)
            gg = product(gs, gs, n) - og * og / oo
            gx = product(gs, xs, n) - og * ox / oo
            rest = xx - gx * gx / gg if gg > 0.0 else 0.0
            found[j, k] = -inf
            if gx * sign > 0.0 and rest > 0.0:
                found[j, k] = -0.5 * n * log(rest)
                if found[j, k] > best:
                    best, rate = found[j, k], gx / gg / left
    return best, rate


@compiled
def time_left(h: Any, x: Any, n: int, sign: float, slow: float, phi: float, quantiles: Any) -> float:
    """5, 50 and 95 % of the hours left until failure, by profile likelihood; the rate now, or 0: no forecast.

    The rate goes as (t_f - t)^-m, m = 1 / (alpha - 1) (Voight 1988; alpha = 2 is Fukuzono's line of the inverse
    velocity), of the movement's sign. Nobody knows alpha beforehand, so every exponent has its say. Candidates
    are spread evenly in the logarithm; inf: beyond the last of them. quantiles[3] is the share of what lies
    beyond `SURE_H`. `slow` and `phi` say what the noise is like (see colour.py).
    """  # noqa: E501
    if n < FEWEST:
        return 0.0
    likelihood = np.empty((TRIES, len(POWERS)))
    best, rate = likelihoods(h, x, n, sign, slow, phi, likelihood)
    if rate == 0.0:
        return 0.0
    mass, unsure = 0.0, 0.0
    share_of = np.empty(TRIES)
    for j in range(TRIES):
        share_of[j] = 0.0
        for k in range(len(POWERS)):
            share_of[j] += exp(likelihood[j, k] - best)
        mass += share_of[j]
        if SOONEST_H * exp(STEP * j) > SURE_H:
            unsure += share_of[j]
    quantiles[3] = unsure / mass
    for q in range(3):
        share = 0.05 + 0.45 * q
        quantiles[q] = inf
        cumulated = 0.0
        for j in range(TRIES - 1):
            cumulated += share_of[j]
            if cumulated >= share * mass:
                quantiles[q] = SOONEST_H * exp(STEP * j)
                break
    return rate


@compiled
def forecast_condition(f: Any, sign: int, noise_sd: float, o: Any) -> int:
    """After a completed hour of a movement that speeds up: the time left, and whether there is news in it."""
    quantiles = np.empty(4)
    h, x = np.empty(HOURS), np.empty(HOURS)
    rate = 0.0
    if sign and f.n >= FEWEST:
        slow, phi = colour(f)
        rate = time_left(h, x, unroll(f, noise_sd, h, x), float(sign), slow, phi, quantiles)
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


@compiled
def forecast(f: Any, t: int, x: float, s: Any, p: Any, o: Any) -> int:
    """Take a reading; flags of the hour it completes."""
    return forecast_condition(f, s.onset_on, sqrt(p.r), o) if collect(f, t, x, s, p.r) else 0
