"""Synthetic GNSS: quiet years, and run-ups to failure whose law and onset the detectors do not know.

Hourly, in mm: white noise 2, AR(1) 1.5, a sidereal pattern 1.5, a daily wave 0.8, 1 % wrong fixes of 60, 3 %
missing, creep of 1 mm/d, and then v = dv/dt-type acceleration of exponent alpha (Voight 1988) towards the failure.
Nobody has published a displacement series with a known time of failure that could be used here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from daemon.backtest.figures import poisson_interval
from edge_rules.advice import kernels
from edge_rules.advice.detectors import Q_OF_VARIANCE, Batch, Detectors
from edge_rules.advice.messages import Advice, Channel
from tests.score.common import table

if TYPE_CHECKING:
    from collections.abc import Callable

Floats = npt.NDArray[np.float64]
HOUR_NS = 3_600_000_000_000
NOISE = 3.0  # what the site file would say: 2 mm white, 1.5 mm coloured, 1.5 mm sidereal
CREEP = 1.0 / 24.0
YEAR_H = 8766


def noise(rng: np.random.Generator, n: int, sidereal: float = 1.5) -> Floats:
    white = rng.normal(0.0, 2.0, n)
    drive = rng.normal(0.0, 1.5 * np.sqrt(1.0 - 0.9**2), n)
    slow = np.zeros(n)
    for i in range(1, n):
        slow[i] = 0.9 * slow[i - 1] + drive[i]
    h = np.arange(n)
    pattern = sidereal * np.sin(2 * np.pi * h / 23.934 * 3 + rng.uniform(0, 6.28))
    wave = 0.8 * np.sin(2 * np.pi * h / 24.0 + rng.uniform(0, 6.28))
    wrong = np.where(rng.random(n) < 0.01, rng.choice([-60.0, 60.0], n), 0.0)
    x = white + slow + pattern + wave + wrong
    x[rng.random(n) < 0.03] = np.nan
    return x  # type: ignore[no-any-return]


def run_up(n: int, lead_h: float, alpha: float, v0: float = CREEP) -> Floats:
    """Displacement of creep that turns, `lead_h` before the end, into acceleration towards failure at the end."""
    h = np.arange(n, dtype=float)
    left = np.maximum(n - h, 1e-3)
    v = np.full(n, v0)
    late = left < lead_h
    v[late] = v0 * (lead_h / left[late]) ** (1.0 / (alpha - 1.0))
    return np.cumsum(v)


def feed(
    x: Floats, limit_per_day: float, q: float = Q_OF_VARIANCE, onset: int = 1, noise_sd: float = NOISE
) -> kernels.Records:
    """One channel through the production kernel."""
    n = x.size
    state, params = kernels.records(kernels.STATE, 1), kernels.records(kernels.PARAMS, 1)
    params[0] = (
        0,
        8.0,
        0.0,
        1,
        noise_sd**2,
        q * noise_sd**2,
        limit_per_day / 24.0,
        0,
        0,
        0.0,
        onset,
        0,
        0 if onset else -1,
        0,
        0,
    )
    out, gaps = kernels.records(kernels.OUT, n), kernels.records(kernels.GAP, 2 * n + 2)
    kernels.step(
        np.zeros(n, np.int64),
        (np.arange(n) + 1) * HOUR_NS,
        x,
        x,
        kernels.bare(state),
        kernels.bare(params),
        np.zeros(0, np.int64),
        kernels.bare(kernels.records(kernels.HOURLY, 1)),
        kernels.bare(out),
        kernels.bare(gaps),
        np.zeros(1, np.int64),
    )
    return out


# -- the report -----------------------------------------------------------------------------------------

TRAIN_YEARS = 24
TRAIN_ALARMS = 2
RUNS = 120
WARM_H = 1500  # of quiet creep before each run
RUN_H = 960


def rate_limit() -> float:
    """mm/d: the lowest that two of 24 quiet channel-years exceed."""
    rng = np.random.default_rng(1)
    peaks = []
    for _ in range(TRAIN_YEARS):
        out = feed(noise(rng, YEAR_H) + CREEP * np.arange(YEAR_H), 1e9, onset=0)
        rate = np.abs(out["rate"][500:]) * 24.0
        peaks.append(float(rate[(out["said"][500:] & kernels.MISSING) == 0].max()))
    return sorted(peaks)[-TRAIN_ALARMS]


def leads(
    limit: float, shape: Callable[[np.random.Generator], tuple[float, float]]
) -> dict[str, list[float]]:
    """Hours before failure at which each rule first spoke of the run-up; 0: not before it."""
    rng = np.random.default_rng(7)
    found: dict[str, list[float]] = {"trend": [], "onset": [], "forecast": [], "early": []}
    bits = {
        "trend": kernels.RATE_PRESENT,
        "onset": kernels.ONSET_PRESENT,
        "forecast": kernels.FORECAST_PRESENT,
    }
    for _ in range(RUNS):
        lead, alpha = shape(rng)
        move = np.concatenate([CREEP * np.arange(WARM_H), CREEP * WARM_H + run_up(RUN_H, lead, alpha)])
        said = feed(noise(rng, move.size) + move, limit)["said"]
        for rule, bit in bits.items():
            when = move.size - np.flatnonzero(said & bit)
            when = when[when < RUN_H + WARM_H - 1000]
            found["early"] += list(when[when > lead])
            when = when[when <= lead]
            found[rule].append(float(when[0]) if when.size else 0.0)
    return found


def moved(shape: Callable[[np.random.Generator], tuple[float, float]], left_h: int) -> tuple[float, float]:
    """mm beyond creep that the run-ups have moved so many hours before failure: median, smallest 5 %."""
    rng = np.random.default_rng(7)
    beyond = []
    for _ in range(1000):
        path = run_up(RUN_H, *shape(rng))
        beyond.append(path[-left_h] - CREEP * (RUN_H - left_h))
    return float(np.median(beyond)), float(np.percentile(beyond, 5))


def forecasts(left_h: float, alpha: float, runs: int = 300) -> tuple[float, float, float, int]:
    """Median error (h) and coverage of the 90 % interval, its median width, and how many gave a forecast.

    Ninety-six hourly means of 2 mm white and 1 mm AR(1) noise; the law is one of the forecast's own unless alpha
    lies outside 1.7 to 2.4.
    """
    rng = np.random.default_rng(3)
    errors, covered, widths = [], [], []
    quantiles = np.empty(4)
    for _ in range(runs):
        n = kernels.HOURS
        left = left_h + np.arange(n - 1, -1, -1, dtype=float)
        power = 1.0 / (alpha - 1.0)
        if abs(power - 1.0) < 1e-9:
            x = -30.0 * np.log(left)
        else:
            x = (
                30.0
                * (left ** (1.0 - power) - left[0] ** (1.0 - power))
                / (power - 1.0)
                * left_h ** (power - 1.0)
            )
        slow = np.zeros(n)
        drive = rng.normal(0.0, np.sqrt(1.0 - 0.81), n)
        for i in range(1, n):
            slow[i] = 0.9 * slow[i - 1] + drive[i]
        x = x + rng.normal(0.0, 2.0, n) + slow
        h = np.arange(n, dtype=float) - (n - 1)
        if kernels.time_left(h, x, np.ones(n), n, 1.0, quantiles) != 0.0:
            errors.append(abs(quantiles[1] - left_h))
            covered.append(quantiles[0] <= left_h <= quantiles[2])
            widths.append(quantiles[2] - quantiles[0])
    return float(np.median(errors)), float(np.mean(covered)), float(np.median(widths)), len(errors)


def quiet_pond(years: int = 10, stations: int = 8) -> dict[str, int]:
    """Verdicts on a pond where nothing but creep happens: two sections, one base station."""
    limit = rate_limit()
    channels = [
        Channel(
            f"g{i}", "mm",
            Advice(hampel=True, resolution=0.1, trend_noise=NOISE, trend_rate_per_day=limit, onset=True, period_s=3600.0, domain="base"),
            section=f"s{i % 2}", monitoring_point=f"G{i}",
        )
        for i in range(stations)
    ]  # fmt: skip
    rng = np.random.default_rng(11)
    counts: dict[str, int] = {}
    judge = Detectors(channels)
    n = years * YEAR_H
    x = np.stack([noise(rng, n) + CREEP * np.arange(n) for _ in channels], axis=1).ravel()
    t = np.repeat((np.arange(n) + 1) * HOUR_NS, stations)
    name = np.tile(np.arange(stations), n)
    for at in range(0, x.size, 50_000):
        part = slice(at, at + 50_000)
        for verdict in judge.judge("s", at + 1, Batch(name[part], t[part], x[part], x[part])):
            if verdict.condition == "present":
                counts[verdict.rule] = counts.get(verdict.rule, 0) + 1
    return counts


def report() -> str:
    limit = rate_limit()
    cases: dict[str, Callable[[np.random.Generator], tuple[float, float]]] = {
        "240 h, alpha 2": lambda rng: (240.0, 2.0),
        "120 to 360 h, alpha 1.7 to 2.2": lambda rng: (rng.uniform(120.0, 360.0), rng.uniform(1.7, 2.2)),
    }
    rows: list[list[object]] = []
    for case, shape in cases.items():
        found = leads(limit, shape)
        cells = [
            f"{np.median(found[rule]):.0f} / {np.percentile(found[rule], 5):.0f}"
            for rule in ("trend", "onset", "forecast")
        ]
        rows.append([case, *cells, len(found["early"])])
    tries: list[list[object]] = []
    for alpha in (2.0, 1.75, 2.25, 1.5):
        for left in (48.0, 24.0, 12.0, 6.0):
            error, covered, width, made = forecasts(left, alpha)
            tries.append(
                [
                    f"{left:.0f} h",
                    alpha,
                    f"{error:.1f} h",
                    f"{covered:.0%}",
                    f"{width:.0f} h",
                    f"{made} of 300",
                ]
            )
    years = 10
    counts = quiet_pond(years)
    calls = sum(counts.get(rule, 0) for rule in ("corroborated", "forecast"))
    low, high = poisson_interval(calls)
    quiet = ", ".join(f"{rule} {count}" for rule, count in sorted(counts.items())) or "nothing"
    return (
        f"Rate limit {limit:.2f} mm/d: two alarms in {TRAIN_YEARS} quiet channel-years. Lead before failure in hours, "
        f"median / worst 5 %, {RUNS} runs.\n\n"
        + table(["run-up", "trend", "onset", "forecast", "alarms before it began"], rows)
        + "\n\nThe goal is 72 h in the median and 50 h in the worst 5 %. "
        + "; ".join(
            f"{case}: {at} h before failure they have moved {{:.1f}} mm beyond creep, {{:.1f}} mm in the smallest 5 %".format(
                *moved(shape, at)
            )
            for case, shape in cases.items()
            for at in (50,)
        )
        + f". One reading has a noise of {NOISE:g} mm, and its slow part leaves 0.9 mm in a mean over fifty hours: a run-up "
        "that begins late moves too little by then to be told from quiet years with two alarms in 24. Other filters, each "
        "with a limit of its own, gain nothing: q of 0.6e-8 to 5e-8 of the variance gives 66 to 68 h and 46 to 48 h in the "
        "first row, 77 to 78 h and 13 to 20 h in the second."
        + "\n\nTime of failure from 96 hourly means; the forecast weighs alpha 1.7 to 2.4, so 1.5 is a law it does not know.\n\n"
        + table(
            ["left", "alpha", "median error", "90 % interval covers", "its median width", "forecasts"], tries
        )
        + f"\n\nA quiet pond of 8 stations on one base, {years} years: {quiet}. Call-outs (inspect now): "
        f"{calls / years:.1f} per pond-year ({low / years:.2f} to {high / years:.2f})."
    )
