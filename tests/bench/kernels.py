"""Nanoseconds per sample and channel of the detectors, beside numpy, river and a C twin compiled in the same run.

All see the same samples: one of each channel a call, 1 % spikes, 1 % missing. Gate, Hampel and trend are armed:
what the C twin and the numpy form compute too. Their outliers and steps must agree with ours to the last flag. River
has neither Hampel's filter nor the trend; what it is given here is less.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from river import stats

from edge_rules.advice import kernels

CHANNELS = (1, 64, 1000, 10_000)
SAMPLES = 400_000  # in each measurement
RIVER_SAMPLES = 40_000
ROUNDS = 3
HOUR_NS = 3_600_000_000_000
K, FLOOR, RESOLUTION, R, Q = 8.0, 0.02, 0.01, 1.0, 2.5e-8
COMPARED = kernels.MISSING | kernels.OUTLIER | kernels.STEP


@dataclass(frozen=True)
class Figures:
    """ns per sample and channel; None: not measured, see `why`."""

    channels: int
    ours: float
    all_armed: float
    numpy: float | None
    c: float | None
    river: float


class Ours:
    """The production kernel; `everything` arms every detector that needs one channel only."""

    def __init__(self, channels: int, *, everything: bool = False) -> None:
        self._state = kernels.records(kernels.STATE, channels)
        self._params = kernels.records(kernels.PARAMS, channels)
        one = int(everything)
        period = HOUR_NS * one
        self._params[:] = (
            1,
            K,
            FLOOR,
            1,
            R,
            Q,
            np.inf,
            6 * HOUR_NS * one,
            one,
            RESOLUTION,
            one,
            period,
            -1,
            0,
            0,
        )
        self._idx = np.arange(channels)
        self._out = kernels.records(kernels.OUT, channels)
        self._gaps = kernels.records(kernels.GAP, 4 * channels)
        hours = kernels.records(kernels.HOURLY, 0)
        self._none, self._watch = np.zeros(0, np.int64), np.zeros(1, np.int64)
        self._state, self._params = kernels.bare(self._state), kernels.bare(self._params)
        self._hours, self._bare = kernels.bare(hours), kernels.bare(self._out)
        self._gaps = kernels.bare(self._gaps)
        self._said = self._bare["said"]

    def step(self, t: Any, x: Any) -> Any:
        kernels.step(
            self._idx,
            t,
            x,
            x,
            self._state,
            self._params,
            self._none,
            self._hours,
            self._bare,
            self._gaps,
            self._watch,
        )
        return self._said


class Numpy:
    """Every channel at once: window as rows, sorted anew; the trend's equations on vectors."""

    def __init__(self, channels: int) -> None:
        self._ring = np.full((kernels.WINDOW, channels), np.nan)
        self._n = np.zeros(channels, np.int64)
        self._last, self._swing = np.zeros(channels), np.zeros(channels)
        self._run = np.zeros(channels, np.int64)
        self._t = np.zeros(channels, np.int64)
        self._x, self._v = np.zeros(channels), np.zeros(channels)
        self._p00, self._p01, self._p11 = np.full(channels, R), np.zeros(channels), np.full(channels, R)
        self._all = np.arange(channels)

    def step(self, t: Any, x: Any) -> Any:
        ok = np.isfinite(x)
        at = self._n % kernels.WINDOW
        self._ring[at, self._all] = np.where(ok, x, self._ring[at, self._all])
        window = np.sort(self._ring, axis=0)
        median = window[kernels.MIDDLE]
        mad = np.sort(np.abs(self._ring - median), axis=0)[kernels.MIDDLE]
        deviation = kernels.MAD_TO_SD * mad
        square = np.minimum(deviation * deviation, kernels.SPREAD_MOST * kernels.SPREAD_MOST * self._swing)
        least = np.maximum(kernels.SPREAD_LEAST * kernels.SPREAD_LEAST * self._swing, FLOOR * FLOOR)
        full = ok & (self._n >= kernels.WINDOW - 1)
        outlier = (x - median) * (x - median) > K * K * np.maximum(square, least)
        said = np.where(full & outlier, kernels.OUTLIER, 0)
        self._swings(x, ok)
        said |= np.where(self._trend(t, x, ok), kernels.STEP, 0)
        self._n += ok
        self._t = np.where(ok, t, self._t)
        return np.where(ok, said, kernels.MISSING)

    def _swings(self, x: Any, ok: Any) -> None:
        square = (x - self._last) * (x - self._last)
        most = kernels.SWING_CLIP * kernels.SWING_CLIP * np.maximum(self._swing, RESOLUTION * RESOLUTION)
        square = np.where((self._n >= kernels.WINDOW) & (most > 0.0), np.minimum(square, most), square)
        share = 1.0 / np.clip(self._n, 1, kernels.SWING_LEARN)
        after = self._swing + share * (square - self._swing)
        self._swing = np.where(ok & (self._n > 0), after, self._swing)
        self._last = np.where(ok, x, self._last)

    def _trend(self, t: Any, x: Any, ok: Any) -> Any:
        first = ok & (self._n == 0)
        dt = (t - self._t) / kernels.NS_PER_H
        x_, v = self._x + self._v * dt, self._v
        p00 = self._p00 + dt * (2.0 * self._p01 + dt * (self._p11 + Q * dt / 3.0))
        p01 = self._p01 + dt * (self._p11 + Q * dt / 2.0)
        p11 = self._p11 + Q * dt
        error = x - x_
        variance = p00 + R
        bound = kernels.GATE * np.sqrt(variance)
        gated = np.abs(error) > bound
        sign = np.where(error > 0.0, 1, -1)
        run = np.where(gated, np.where(self._run * sign > 0, self._run + sign, sign), 0)
        stepped = np.abs(run) >= kernels.STEP_RUN
        p00 = np.where(stepped, p00 + error * error, p00)
        variance = np.where(stepped, p00 + R, np.where(gated, variance * np.abs(error) / bound, variance))
        gain0, gain1 = p00 / variance, p01 / variance
        new = (
            x_ + gain0 * error, v + gain1 * error, np.maximum(p00 - gain0 * p00, 1e-12 * R),
            p01 - gain0 * p01, np.maximum(p11 - gain1 * p01, 1e-18 * R),
        )  # fmt: skip
        most = np.sqrt(new[2] * new[4])
        new = (new[0], new[1], new[2], np.clip(new[3], -most, most), new[4])
        go = ok & ~first
        started = (x, 0.0, R, 0.0, R)
        old = (self._x, self._v, self._p00, self._p01, self._p11)
        self._x, self._v, self._p00, self._p01, self._p11 = (
            np.where(go, its, np.where(first, begun, before))
            for its, begun, before in zip(new, started, old, strict=True)
        )
        self._run = np.where(go, np.where(stepped, 0, run), self._run)
        return go & stepped


class Twin:
    """The C form, compiled here."""

    def __init__(self, library: ctypes.CDLL, channels: int) -> None:
        library.pondwatch_twin_size.restype = ctypes.c_int64
        self._state = np.zeros(channels * library.pondwatch_twin_size(), np.uint8)
        self._idx = np.arange(channels)
        self._said = np.zeros(channels, np.int64)
        self._call = library.pondwatch_twin
        doubles = [ctypes.c_double] * 5
        self._call.argtypes = [
            *[ctypes.c_void_p] * 3,
            ctypes.c_int64,
            ctypes.c_void_p,
            *doubles,
            ctypes.c_void_p,
        ]
        self._call.restype = None

    def step(self, t: Any, x: Any) -> Any:
        self._call(
            self._idx.ctypes.data, t.ctypes.data, x.ctypes.data, x.size, self._state.ctypes.data,
            K, FLOOR, RESOLUTION, R, Q, self._said.ctypes.data,
        )  # fmt: skip
        return self._said


class River:
    """As near as river comes: rolling quantiles in place of Hampel's median, a running mean in place of the trend."""

    def __init__(self, channels: int) -> None:
        self._own: list[Any] = [
            ([stats.RollingQuantile(q, kernels.WINDOW) for q in (0.25, 0.5, 0.75)], stats.EWMean(0.05))
            for _ in range(channels)
        ]

    def step(self, t: Any, x: Any) -> Any:
        del t
        said: list[int] = []
        for value, ((low, middle, high), mean) in zip(x.tolist(), self._own, strict=True):
            if value != value:  # noqa: PLR0124 -- NaN test
                said.append(kernels.MISSING)
                continue
            for each in (low, middle, high, mean):
                each.update(value)
            spread = high.get() - low.get()
            said.append(kernels.OUTLIER * (abs(value - middle.get()) > K * max(spread, FLOOR)))
        return said


def compiled(folder: Path) -> ctypes.CDLL | None:
    """The twin as a library, or None where there is no gcc."""
    if shutil.which("gcc") is None:
        return None
    library = folder / "twin.so"
    source = Path(__file__).with_name("twin.c")
    flags = ["-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, str(source), "-o", str(library), "-lm"], check=True)
    return ctypes.CDLL(str(library))


def samples(channels: int, rounds: int) -> tuple[Any, Any]:
    """(rounds, channels) times and values."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(rounds, channels))
    x[rng.random(x.shape) < 0.01] += 50.0
    x[rng.random(x.shape) < 0.01] = np.nan
    t = np.broadcast_to((np.arange(rounds)[:, None] + 1) * HOUR_NS, x.shape).copy()
    return t, x


def per_sample(make: Any, t: Any, x: Any) -> float:
    """Best of some rounds, ns of CPU: others may share the machine."""
    best = np.inf
    for _ in range(ROUNDS):
        form = make()
        began = time.process_time_ns()
        for k in range(x.shape[0]):
            form.step(t[k], x[k])
        best = min(best, (time.process_time_ns() - began) / x.size)
    return float(best)


def disagreements(one: Any, other: Any, t: Any, x: Any) -> int:
    """Samples on which two forms flag otherwise."""
    return sum(
        int(np.sum((one.step(t[k], x[k]) & COMPARED) != (other.step(t[k], x[k]) & COMPARED)))
        for k in range(x.shape[0])
    )


def measure() -> list[Figures]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(Path(folder))
        for channels in CHANNELS:
            t, x = samples(channels, max(20, SAMPLES // channels // (10 if channels == 1 else 1)))
            few = slice(0, 200)
            few_rounds = max(5, RIVER_SAMPLES // channels)
            assert disagreements(Ours(channels), Numpy(channels), t[few], x[few]) == 0
            if library is not None:
                assert disagreements(Ours(channels), Twin(library, channels), t[few], x[few]) == 0
            found.append(
                Figures(
                    channels,
                    per_sample(lambda n=channels: Ours(n), t, x),
                    per_sample(lambda n=channels: Ours(n, everything=True), t, x),
                    per_sample(lambda n=channels: Numpy(n), t[:2000], x[:2000]),
                    None if library is None else per_sample(lambda n=channels: Twin(library, n), t, x),
                    per_sample(lambda n=channels: River(n), t[:few_rounds], x[:few_rounds]),
                )
            )
    return found


def table(rows: list[Figures]) -> str:
    lines = [
        "| channels | ours, Hampel and trend | ours, all armed | numpy | C twin | river, less of it |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (row.ours, row.all_armed, row.numpy, row.c, row.river)
        texts = ["-" if cell is None else f"{cell:,.0f}" for cell in cells]
        lines.append(f"| {row.channels:,} | {' | '.join(texts)} |")
    return "\n".join(lines)
