"""Pond level and barometer of an active tailings dam, 5 min, three months, without labels.

Every alarm counts as false, although the pond rose after rain and whoever pumped is not known. The first month
sets the baselines' limits (none, or as many alarms as ours there) and the noise; July and August judge.
"""

from __future__ import annotations

import numpy as np

from daemon.backtest.figures import poisson_interval
from edge_rules.advice.detectors import Batch, Detectors
from edge_rules.advice.messages import Advice, Channel
from tests.score.common import BASELINES, NS_PER_D, Floats, Ints, alarms, limit_for, ns, series, table

FILE = "tailings_pond_ouellet/site_data/pp_station.csv"
SENSORS = {
    "pond level, m": (4, 0.01, 0.05),
    "barometer, mbar": (3, 0.1, 5.0),
}  # column, resolution, rate a day
JULY = ns("2020-07-01")
QUIET = 288
MONTH_D = 30.44


def report() -> str:
    rows: list[list[object]] = []
    for sensor, (column, resolution, rate) in SENSORS.items():
        t, x = series(FILE, 0, column)
        first = int(np.searchsorted(t, JULY))
        months = (t[-1] - JULY) / NS_PER_D / MONTH_D
        said = ours(t, x, first, resolution, rate)
        counts: dict[str, int] = {}
        for rule, when in said:
            if when >= JULY:
                counts[rule] = counts.get(rule, 0) + 1
        for rule in ("hampel", "flatline", "noise", "gap", "trend"):
            rows.append([sensor, rule, _rate(counts.get(rule, 0), months)])  # noqa: PERF401
        budget = sum(when < JULY for _, when in said)
        for name, scored in BASELINES.items():
            score = scored(x, slice(0, first))
            limit = limit_for(score[:first], budget, QUIET)
            rows.append([sensor, name, _rate(alarms(score[first:], limit, QUIET).size, months)])
    return table(["sensor", "detector", "alarms per sensor-month (95 %)"], rows)


def ours(t: Ints, x: Floats, first: int, resolution: float, rate: float) -> list[tuple[str, int]]:
    d = np.diff(x[:first])
    noise = max(1.4826 * float(np.nanmedian(np.abs(d))) / np.sqrt(2.0), resolution)
    advice = Advice(
        hampel=True,
        resolution=resolution,
        flatline_s=6 * 3600.0,
        noise=True,
        period_s=300.0,
        trend_noise=noise,
        trend_rate_per_day=rate,
    )
    judge = Detectors([Channel("s", "u", advice)])
    batch = Batch(np.zeros(t.size, np.int64), t, x, x)
    return [
        (v.rule, int(np.datetime64(v.time[:-1], "ns").astype(np.int64)))
        for v in judge.judge("s", 1, batch)
        if v.condition == "present"
    ]


def _rate(count: int, months: float) -> str:
    low, high = poisson_interval(count)
    return f"{count / months:.1f} ({low / months:.1f} to {high / months:.1f})"
