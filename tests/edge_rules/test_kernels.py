from __future__ import annotations

import math
import os
import subprocess
import sys
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rules.advice import kernels
from edge_rules.advice.kernels.movement import beyond
from edge_rules.law.trend import TrendState
from tests import naive

H = 3_600_000_000_000
MIN = 60_000_000_000
JIT_OFF = os.environ.get("NUMBA_DISABLE_JIT") == "1"
few = settings(max_examples=150, deadline=None)


def run(idx: Any, t: Any, x: Any, state: Any, params: Any, out: Any) -> int:
    """The batch entry point for channels without failure domain, forecast or gaps."""
    none = np.zeros(0, np.int64)
    hours, gaps = kernels.records(kernels.HOURLY, 0), kernels.records(kernels.GAP, 0)
    parts: list[Any] = [kernels.bare(state), kernels.bare(params), none]
    parts += [kernels.bare(part) for part in (hours, out, gaps)]
    return kernels.step(idx, t, x, x, *parts, np.zeros(1, np.int64))  # type: ignore[call-arg]


class Channel:
    """One armed channel, fed sample by sample through the batch entry point."""

    def __init__(
        self, *, k: float = 8.0, floor: float = 0.02, noise: float = 2.0, limit: float = inf
    ) -> None:
        self.state = kernels.records(kernels.STATE, 1)
        self.params = kernels.records(kernels.PARAMS, 1)
        self.params[0] = (1, k, floor, 1, noise**2, 1e-6, limit, 0, 0, 0.0, 0, 0, -1, 0, 0)
        self.s: Any = self.state[0]

    def feed(self, t: int, x: float) -> Any:
        out = kernels.records(kernels.OUT, 1)
        run(np.array([0]), np.array([t]), np.array([x]), self.state, self.params, out)
        return out[0]


values = st.one_of(
    st.integers(-4, 4).map(lambda i: i / 100), st.sampled_from([nan, nan, inf, 50.0, -50.0, 50.02, 1e9])
)


@few
@given(st.lists(values, max_size=50), st.sampled_from([1.0, 3.0, 8.0]), st.sampled_from([0.0, 0.02]))
@pytest.mark.parametrize("missing_at", ["nowhere", "first", "middle", "last"])
def test_hampel_agrees_with_its_slow_twin_after_every_sample(
    missing_at: str, series: list[float], k: float, floor: float
) -> None:
    holes = {"nowhere": [], "first": [0], "middle": [len(series) // 2], "last": [len(series)]}[missing_at]
    for hole in holes:
        series = [*series[:hole], nan, *series[hole:]]
    channel, twin = Channel(k=k, floor=floor), naive.HampelTwin(k, floor)
    stood = False
    for i, x in enumerate(series):
        out = channel.feed((i + 1) * MIN, x)
        spike, stands = twin.feed(x)
        assert bool(out.said & kernels.SPIKE) == spike
        assert bool(out.said & kernels.SPIKE_PRESENT) == (stands and not stood)
        assert bool(out.said & kernels.SPIKE_GONE) == (stood and not stands)
        stood = stands
        assert bool(out.said & kernels.MISSING) == (not math.isfinite(x))
        newest = len(twin.seen) - 1
        if math.isfinite(x):
            assert bool(out.said & kernels.OUTLIER) == twin.is_outlier(newest)
            if (found := twin.statistics_at(newest)) is not None:
                assert (out.median, math.sqrt(out.square)) == found
        if spike:
            assert (out.spike, out.spike_median, out.spike_spread) == (
                twin.seen[newest - 2],
                *(twin.statistics_at(newest - 2) or ()),
            )


@few
@given(
    st.lists(
        st.tuples(
            st.sampled_from([-2.0, 0.0, 0.02, 1.0, 1.0, 30.0]),
            st.one_of(st.floats(-10, 10), st.sampled_from([nan, inf, 200.0, 200.0, -150.0])),
        ),
        max_size=60,
    )
)
def test_the_trend_kernel_is_the_law_s_trend_to_the_last_bit(walk: list[tuple[float, float]]) -> None:
    """The law's filter is checked against its twin in matrices; here two forms of one arithmetic."""
    channel, law = Channel(), TrendState(2.0, 1e-6)
    at_ns, late = H, 0
    for dt_h, x in walk:
        at_ns += round(dt_h * H)
        out = channel.feed(at_ns, x)
        stepped = law.feed(at_ns, x)
        late = late + 1 if out.said & kernels.LATE else 0
        if out.said & kernels.RESTARTED:
            law.restart()
            stepped = law.feed(at_ns, x)
        assert (stepped is None) == bool(out.said & (kernels.LATE | kernels.MISSING))
        assert bool(stepped) == bool(out.said & kernels.STEP)
        if stepped is not None:
            assert (out.level, out.rate, math.sqrt(channel.s.p11)) == (
                law.level,
                law.rate_per_h,
                law.rate_sd_per_h,
            )


@few
@given(
    st.floats(1e-30, 1e30),
    st.sampled_from([1.0, 3.0]),
    st.integers(-3, 3),
    st.booleans(),
    st.floats(0.0, 2.0),
)
def test_squares_decide_as_the_root_does_to_the_last_bit(
    variance: float, times: float, ulps: int, negative: bool, share: float
) -> None:
    """At the bound itself, a few bits beside it, and anywhere."""
    bound = times * math.sqrt(variance)
    near = bound
    for _ in range(abs(ulps)):
        near = math.nextafter(near, math.copysign(inf, ulps))
    for x in (near, share * bound):
        expected = x > times * math.sqrt(variance)
        assert beyond(-x if negative else x, times, variance) == expected
    assert not beyond(nan, times, variance)


def test_missing_and_late_samples_change_no_statistic() -> None:
    channel = Channel()
    for hour in range(1, 30):
        channel.feed(hour * H, math.sin(hour))
    before = channel.state.tobytes()
    assert channel.feed(30 * H, nan).said == kernels.MISSING
    assert channel.feed(31 * H, inf).said == kernels.MISSING
    assert channel.state.tobytes() == before
    for late in range(1, kernels.LATE_RUN):
        assert channel.feed(29 * H, 1.0).said == kernels.LATE
        assert channel.s.late == late
    channel.s.late = 0
    assert channel.state.tobytes() == before


def test_a_clock_that_came_back_from_the_future_restarts_the_statistics() -> None:
    channel = Channel()
    channel.feed(10**6 * H, 5.0)
    flags = [channel.feed(hour * H, 5.0).said for hour in range(1, 12)]
    assert flags == [kernels.LATE] * 9 + [kernels.RESTARTED, 0]


def test_nan_is_missing_which_fastmath_would_not_see() -> None:
    assert Channel().feed(H, nan).said == kernels.MISSING
    if not JIT_OFF:
        assert not kernels.step.targetoptions.get("fastmath")  # type: ignore[attr-defined]


def test_a_step_is_no_spike_and_a_spike_is_said_two_samples_later() -> None:
    quiet = [0.0, 0.01, -0.01, 0.02, 0.0, -0.02, 0.01, 0.0, 0.01, -0.01, 0.0]
    stepped, spiked = Channel(), Channel()
    for i, x in enumerate([*quiet, *(5.0 + q for q in quiet * 2)], 1):
        assert not stepped.feed(i * MIN, x).said & kernels.SPIKE
    flags = [spiked.feed(i * MIN, x).said for i, x in enumerate([*quiet, 5.0, *quiet, *quiet], 1)]
    assert flags.index(kernels.OUTLIER) == 11
    assert flags.index(kernels.SPIKE | kernels.SPIKE_PRESENT) == 13
    assert flags.index(kernels.SPIKE_GONE) == 13 + 11


@pytest.mark.parametrize("k", [0.75, 1.0, 1.5])
@pytest.mark.skipif(JIT_OFF, reason="100,000 samples are for the compiled kernel")
def test_outliers_in_clean_noise_come_as_often_as_their_definition_has_them(k: float) -> None:
    """Neighbours in white noise differ by a mean square of two variances; windows of 11 by numpy."""
    n = 100_000
    channel = Channel(k=k, floor=0.0)
    out = kernels.records(kernels.OUT, n)
    x = np.random.default_rng(11).normal(size=n)
    run(np.zeros(n, np.int64), np.arange(1, n + 1) * MIN, x, channel.state, channel.params, out)
    share = float(np.mean((out["said"] & kernels.OUTLIER) > 0))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernels.WINDOW)
    median = np.median(windows, axis=1)
    mad = 1.4826 * np.median(np.abs(windows - median[:, None]), axis=1)
    spread = np.clip(mad, 1.25 * 2**0.5, 1.875 * 2**0.5)
    assert share == pytest.approx(float(np.mean(np.abs(x[10:] - median) > k * spread)), rel=0.05)


def test_a_wave_that_the_channel_knows_is_no_spike_in_a_calm_hour_and_a_pulse_that_overshoots_is_one() -> (
    None
):
    rng = np.random.default_rng(3)
    rough = np.where(np.arange(960) % 96 < 24, 1.0, 0.02) * rng.normal(size=960)  # six rough hours a day
    calm, errs = Channel(floor=0.02), Channel(floor=0.02)
    rippled, spoilt = rough.copy(), rough.copy()
    rippled[900] += 1.0  # fifty times what scatters now, but such as comes every day
    spoilt[900:902] += (-30.0, -31.0)  # out of the water, and put back a little higher
    spoilt[902:] += 5.0
    said = [
        [one.feed((i + 1) * 15 * MIN, x).said for i, x in enumerate(xs)]
        for one, xs in ((calm, rippled), (errs, spoilt))
    ]
    assert not any(flags & kernels.SPIKE for flags in said[0][890:])
    assert [i for i, flags in enumerate(said[1]) if flags & kernels.SPIKE_PRESENT and i > 800] == [903]


def test_a_batch_equals_its_samples_one_by_one_for_every_channel() -> None:
    m, channels = 300, 3
    rng = np.random.default_rng(2)
    idx = rng.integers(0, channels, m)
    t = np.arange(1, m + 1) * H
    x = np.where(rng.random(m) < 0.1, np.nan, rng.normal(size=m))
    params = kernels.records(kernels.PARAMS, channels)
    params[:] = (1, 3.0, 0.0, 1, 1.0, 1e-6, 0.01, 0, 0, 0.0, 0, 0, -1, 0, 0)
    whole, single = kernels.records(kernels.STATE, channels), kernels.records(kernels.STATE, channels)
    out, one = kernels.records(kernels.OUT, m), kernels.records(kernels.OUT, m)
    run(idx, t, x, whole, params, out)
    for j in range(m):
        row = slice(j, j + 1)
        run(idx[row], t[row], x[row], single, params, one[row])
    assert whole.tobytes() == single.tobytes()
    assert out.tobytes() == one.tobytes()


def test_the_rate_condition_keeps_standing_until_the_rate_is_known_to_be_inside() -> None:
    channel = Channel(noise=1.0, limit=0.1)
    flags = [channel.feed(hour * H, 0.5 * hour).said for hour in range(1, 100)]
    assert sum(bool(f & kernels.RATE_PRESENT) for f in flags) == 1
    assert not any(f & kernels.RATE_GONE for f in flags)
    kernels.forget(channel.s)
    flags = [channel.feed(hour * H, 50.0).said for hour in range(200, 400)]
    gone = [i for i, f in enumerate(flags) if f & kernels.RATE_GONE]
    assert len(gone) == 1
    assert gone[0] > 20, "not before the rate is known again"


@pytest.mark.skipif(JIT_OFF, reason="this is the run with the compiler off")
def test_all_this_holds_with_the_compiler_off() -> None:
    """The same tests on the same source as plain Python: what is right is not the compiler's doing."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:]
