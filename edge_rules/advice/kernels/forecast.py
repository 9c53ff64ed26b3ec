"""Time of failure of a movement that speeds up, by profile likelihood of its hourly means."""

from __future__ import annotations

from math import exp, inf, isfinite, log, sqrt
from typing import Any

import numpy as np

from edge_rules.advice.kernels.compiled import compiled
from edge_rules.advice.kernels.flags import FORECAST_GONE, FORECAST_PRESENT

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


@compiled
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


@compiled
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


@compiled
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


@compiled
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


@compiled
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


@compiled
def forecast(f: Any, t: int, x: float, s: Any, p: Any, o: Any) -> int:
    """Take a reading; flags of the hour it completes."""
    return forecast_condition(f, s.onset_on, sqrt(p.r), o) if collect(f, t, x) else 0
