"""Synthetic GNSS: quiet years, and run-ups to failure whose law and onset the detectors do not know.

Hourly, in mm: white noise 2, AR(1) 1.5, a sidereal pattern 1.5, a daily wave 0.8, 1 % wrong fixes of 60, 3 %
missing, creep of 1 mm/d, and then v = dv/dt-type acceleration of exponent alpha (Voight 1988) towards the failure.
Nobody has published a displacement series with a known time of failure that could be used here.
"""

from __future__ import annotations


import numpy as np
import numpy.typing as npt

from edge_rules.advice import kernels
from edge_rules.advice.detectors import Q_OF_VARIANCE

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
    return x


def run_up(n: int, lead_h: float, alpha: float, v0: float = CREEP) -> Floats:
    """Displacement of creep that turns, `lead_h` before the end, into acceleration towards failure at the end."""
    h = np.arange(n, dtype=float)
    left = np.maximum(n - h, 1e-3)
    v = np.full(n, v0)
    late = left < lead_h
    v[late] = v0 * (lead_h / left[late]) ** (1.0 / (alpha - 1.0))
    return np.cumsum(v)


def feed(x: Floats, limit_per_day: float, q: float = Q_OF_VARIANCE, onset: int = 1, noise_sd: float = NOISE) -> kernels.Records:
    """One channel through the production kernel."""
    n = x.size
    state, params = kernels.records(kernels.STATE, 1), kernels.records(kernels.PARAMS, 1)
    params[0] = (0, 8.0, 0.0, 1, noise_sd**2, q * noise_sd**2, limit_per_day / 24.0, 0, 0, 0.0, onset, 0, 0 if onset else -1, 0, 0)
    out, gaps = kernels.records(kernels.OUT, n), kernels.records(kernels.GAP, 2 * n + 2)
    kernels.step(
        np.zeros(n, np.int64), (np.arange(n) + 1) * HOUR_NS, x, x, state, params, np.zeros(0, np.int64),
        kernels.records(kernels.HOURLY, 1), out, gaps,
    )
    return out
