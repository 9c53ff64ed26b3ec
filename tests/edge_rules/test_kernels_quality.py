"""Stuck, noisy and silent channels: each kernel beside its twin, sample by sample."""

from __future__ import annotations

import random
from itertools import accumulate
from math import nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_rules.advice import kernels
from tests import naive

H = 3_600_000_000_000
DAY = 24 * H
NOT_ARMED = (0, 8.0, 0.0, 0, 1.0, 1e-6, 1e9, 0, 0, 0.0, 0, 0, -1, 0, 0)
few = settings(max_examples=80, deadline=None)


class Site:
    """Channels without forecast, fed sample by sample through the batch entry point."""

    def __init__(self, channels: int = 1, mates: list[int] | None = None, **armed: Any) -> None:
        self.state = kernels.records(kernels.STATE, channels)
        self.params = kernels.records(kernels.PARAMS, channels)
        for row in range(channels):
            self.params[row] = NOT_ARMED
            for name, value in armed.items():
                self.params[row][name] = value
        self._mates = np.array(mates or [], np.int64)
        self._watch = np.zeros(1, np.int64)

    def feed(self, row: int, t: int, x: float, count: float | None = None) -> tuple[Any, list[Any]]:
        """The record of the sample, and the silences noted."""
        out, gaps = self.feed_batch([row], [t], [x], [x if count is None else count])
        return out[0], gaps

    def feed_batch(self, *columns: list[Any]) -> tuple[Any, list[Any]]:
        """The records of the samples (rows, times, values, counts), and the silences noted."""
        row, t, x, count = (np.array(column) for column in columns)
        out = kernels.records(kernels.OUT, row.size)
        gaps = kernels.records(kernels.GAP, 2 * (row.size + self.state.size))
        hours = kernels.records(kernels.HOURLY, 0)
        state, params, none, into, notes = map(kernels.bare, (self.state, self.params, hours, out, gaps))
        found = kernels.step(row, t, x, count, state, params, self._mates, none, into, notes, self._watch)
        return out, list(gaps[:found])


@few
@given(st.lists(st.tuples(st.sampled_from([1, 2, 2, 9]), st.integers(1, 60)), min_size=1, max_size=12))
def test_flatline_agrees_with_its_slow_twin_after_every_sample(runs: list[tuple[int, int]]) -> None:
    site, twin = Site(flat_ns=6 * H), naive.FlatTwin(6 * H)
    stood, t = False, 0
    for count, length in runs:
        for _ in range(length):
            t += 3 * H
            out, _ = site.feed(0, t, 1.0, float(count))
            stands = twin.feed(t, float(count))
            assert bool(out.said & kernels.FLAT_PRESENT) == (stands and not stood)
            assert bool(out.said & kernels.FLAT_GONE) == (stood and not stands)
            stood = stands


def test_a_sensor_stuck_after_its_commissioning_is_said_once_and_ends_with_the_next_count() -> None:
    site = Site(flat_ns=6 * H)
    said = [site.feed(0, h * H, 1.0, float(h))[0].said for h in range(1, 400)]
    said += [site.feed(0, h * H, 1.0, 7.0)[0].said for h in range(400, 450)]
    said.append(site.feed(0, 450 * H, 1.0, 8.0)[0].said)
    assert [i for i, each in enumerate(said) if each] == [399 + 20, 449]
    assert (said[419], said[449]) == (kernels.FLAT_PRESENT, kernels.FLAT_GONE)


def test_the_means_of_the_noise_kernel_are_the_written_out_sums() -> None:
    rng = random.Random(4)
    values = [rng.gauss(0.0, 1.0) for _ in range(1200)]
    site = Site(noise=1, resolution=0.01)
    for i, x in enumerate(values, 1):
        site.feed(0, i * H, x)
        if i in (2, 3, 25, 900, 1200):
            state = site.state[0]
            recent, usual = naive.noise_means(values[:i], 0.01)
            assert (state.recent, state.usual) == (pytest.approx(recent), pytest.approx(usual))


@pytest.mark.parametrize(("factor", "sign"), [(8.0, 1), (0.05, -1)])
def test_a_channel_that_grows_noisy_or_smooth_is_said_and_one_spike_is_not(factor: float, sign: int) -> None:
    rng = random.Random(9)
    site = Site(noise=1, resolution=1e-3)
    usual = [rng.gauss(0.0, 1.0) for _ in range(1500)]
    usual[1400] = 1e6
    changed = [factor * rng.gauss(0.0, 1.0) for _ in range(120)]
    again = [rng.gauss(0.0, 1.0) for _ in range(300)]
    flags = [site.feed(0, i * H, x)[0].said for i, x in enumerate([*usual, *changed, *again], 1)]
    (present,) = (i for i, f in enumerate(flags) if f & kernels.NOISE_PRESENT)
    (gone,) = (i for i, f in enumerate(flags) if f & kernels.NOISE_GONE)
    assert 1500 <= present < 1620 <= gone
    state = site.state[0]
    assert state.noise_on == 0
    site = Site(noise=1, resolution=1e-3)
    for i, x in enumerate([*usual, *changed], 1):
        site.feed(0, i * H, x)
    assert site.state[0].noise_on == sign


def test_a_calm_night_is_no_fault_and_a_calm_hour_is_no_end_of_one() -> None:
    """Less than usual counts after a whole day, and what stands ends after a whole day within both bounds."""
    rng = random.Random(2)
    site = Site(noise=1, resolution=1e-3)
    said: list[tuple[float, int]] = []

    def feed(hours: range, factor: float) -> None:
        for quarter in range(4 * hours.start, 4 * hours.stop):
            flags = int(site.feed(0, (quarter + 1) * H // 4, factor * rng.gauss(0.0, 1.0))[0].said)
            said.extend(
                (quarter / 4, each) for each in (kernels.NOISE_PRESENT, kernels.NOISE_GONE) if flags & each
            )

    feed(range(500), 1.0)
    feed(range(500, 520), 0.02)  # a night
    feed(range(520, 560), 1.0)
    assert not said
    feed(range(560, 600), 0.02)
    ((at, flag),) = said
    assert flag == kernels.NOISE_PRESENT
    assert 584 <= at < 600
    feed(range(600, 620), 1.0)
    feed(range(620, 640), 0.02)
    feed(range(640, 660), 1.0)
    assert len(said) == 1
    feed(range(660, 700), 1.0)
    assert [flag for _, flag in said] == [kernels.NOISE_PRESENT, kernels.NOISE_GONE]


def test_once_the_natural_runs_are_known_a_stuck_sensor_is_said_sooner() -> None:
    """A thousand readings with runs of three at most: the seventh equal one is too many."""
    site, twin = Site(flat_ns=H), naive.FlatTwin(H)
    counts = [float(i // 3) for i in range(1200)]
    said = [site.feed(0, (i + 1) * H, 1.0, count)[0].said for i, count in enumerate(counts)]
    assert not any(said)
    stuck = [site.feed(0, (1201 + i) * H, 1.0, -1.0)[0].said for i in range(10)]
    assert [i for i, each in enumerate(stuck) if each] == [6]
    twin.seen = [((i + 1) * H, count) for i, count in enumerate(counts)]
    assert [twin.feed((1201 + i) * H, -1.0) for i in range(7)] == [False] * 6 + [True]


@few
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([1, 5, 10, 20, 31, 70]), st.booleans()), max_size=40
    )
)
def test_silences_agree_with_their_definition_after_every_sample(
    samples: list[tuple[int, int, bool]],
) -> None:
    """Stale beyond 2.5 periods without a sample, dead beyond 6; a sample that is missing is none."""
    period = 10 * H
    site = Site(3, period_ns=period)
    last: dict[int, int] = {}
    stage = dict.fromkeys(range(3), 0)
    t = 0
    for row, hours, missing in samples:
        t += hours * H
        out, gaps = site.feed(row, t, nan if missing else 1.0)
        if not missing:
            assert bool(out.said & kernels.GAP_GONE) == (stage[row] > 0)
            last[row], stage[row] = t, 0
        expected = set()
        for other, since in last.items():
            now = (t - since > 2.5 * period) + (t - since > 6 * period)
            if now > stage[other]:
                stage[other] = now
                expected.add((other, now, since))
        assert {(int(g.row), int(g.stage), int(g.since)) for g in gaps} == expected


@few
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([-200, 1, 5, 20, 31, 70]), st.booleans()), max_size=40
    )
)
def test_a_silence_is_noted_at_the_same_sample_however_the_history_is_cut(
    samples: list[tuple[int, int, bool]],
) -> None:
    """The clock may come back from the future, too; channels have periods of their own."""
    whole, single = Site(3), Site(3)
    for site in (whole, single):
        site.params["period_ns"] = (2 * H, 10 * H, 60 * H)
    rows = [row for row, _, _ in samples]
    times = list(accumulate((hours * H for _, hours, _ in samples), initial=1000 * H))[1:]
    values = [nan if missing else 1.0 for _, _, missing in samples]

    def said(gaps: list[Any], at: int = 0) -> list[tuple[int, ...]]:
        return [(int(g.at) + at, int(g.row), int(g.stage), int(g.since)) for g in gaps]

    together = said(whole.feed_batch(rows, times, values, values)[1]) if samples else []
    apart = []
    for j, (row, t, x) in enumerate(zip(rows, times, values, strict=True)):
        apart += said(single.feed(row, t, x)[1], j)
    assert together == apart
    assert whole.state.tobytes() == single.state.tobytes()
