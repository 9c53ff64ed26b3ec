"""What is common to a failure domain, what speeds up, and when it would fail: kernels beside their twins."""

from __future__ import annotations

import random
import statistics
from math import log, pi, sin, sqrt
from typing import Any

import numpy as np
import pytest

from edge_rules.advice import kernels
from tests import naive
from tests.edge_rules.test_kernels_quality import DAY, H, Site

R, Q = 4.0, 1e-7


def movers(channels: int, **armed: Any) -> Site:
    """Rovers of one base station: each is a mate of all the others."""
    mates = [other for row in range(channels) for other in range(channels) if other != row]
    site = Site(channels, mates, trend=1, r=R, q=Q, period_ns=H, **armed)
    for row in range(channels):
        site.params[row].mates_from, site.params[row].mates_to = (
            row * (channels - 1),
            (row + 1) * (channels - 1),
        )
    return site


def test_the_common_part_is_the_median_of_what_the_others_are_off_their_own_trends() -> None:
    rng = random.Random(3)
    site = movers(5)
    jumped = [0.0] * 60 + [30.0] * 60
    for hour, jump in enumerate(jumped, 1):
        for row in range(5):
            before = [site.state[k].copy() for k in range(5)]
            site.feed(row, hour * H, rng.gauss(0.0, 2.0) + jump)
            if hour == 1:
                continue
            part = statistics.median(before[k].off for k in range(5) if k != row)
            expected = part if abs(part) > 2.0 * sqrt(R) else 0.0
            assert site.state[row].common == pytest.approx(expected, abs=1e-12)


def test_a_bumped_base_station_moves_no_rover_and_is_said_of_the_domain() -> None:
    rng = random.Random(5)
    site = movers(5, onset=1, rate_limit=2.0 / 24)
    said = 0
    for hour in range(1, 400):
        for row in range(5):
            out, _ = site.feed(row, hour * H, rng.gauss(0.0, 2.0) + (40.0 if hour > 200 else 0.0))
            said |= out.said
            assert not out.said & (kernels.RATE_PRESENT | kernels.STEP_PRESENT | kernels.ONSET_PRESENT)
    assert said & kernels.COMMON_PRESENT


def test_one_rover_that_moves_is_told_and_not_taken_for_the_base_station() -> None:
    rng = random.Random(6)
    site = movers(5, onset=1, rate_limit=2.0 / 24)
    flags = [0] * 5
    for hour in range(1, 400):
        for row in range(5):
            moved = 0.5 * max(0, hour - 200) if row == 2 else 0.0
            flags[row] |= site.feed(row, hour * H, rng.gauss(0.0, 2.0) + moved)[0].said
    told = kernels.RATE_PRESENT | kernels.STEP_PRESENT
    assert [bool(f & told) for f in flags] == [False, False, True, False, False]
    assert not any(f & kernels.COMMON_PRESENT for f in flags)


def test_the_quick_follower_and_the_onset_agree_with_their_twins_after_every_sample() -> None:
    """The onset by its definition, from the rates of two filters in matrices."""
    rng = random.Random(8)
    site = Site(trend=1, r=R, q=Q, onset=1)
    slow, quick = naive.TrendTwin(2.0, Q), naive.FollowTwin(2.0, kernels.FAST_Q * Q)
    since: int | None = None
    stands, stood = 0, 0
    onsets = 0
    for hour in range(1, 900):
        left = 960 - hour
        x = 0.04 * hour + (-60.0 * log(left / 360.0) if left < 360 else 0.0) + rng.gauss(0.0, 2.0)
        out, _ = site.feed(0, hour * H, x)
        slow.feed(float(hour), x)
        quick.feed(float(hour), x)
        assert site.state[0].fv == pytest.approx(quick.rate_per_h, rel=1e-6, abs=1e-12)
        if hour > 1:
            sign = 1 if slow.rate_per_h > 0 else -1
            moves = abs(slow.rate_per_h) > 3.0 * slow.rate_sd_per_h
            ahead = (quick.rate_per_h - slow.rate_per_h) * sign
            if stands:
                stands = stands if moves and ahead > 0.0 and sign == stands else 0
                since = since if stands else None
            elif not moves or ahead <= 3.0 * quick.rate_sd_per_h:
                since = None
            elif since is None:
                since = hour
            elif hour - since >= 3:
                stands = sign
        assert bool(out.said & kernels.ONSET_PRESENT) == bool(stands and not stood)
        assert bool(out.said & kernels.ONSET_GONE) == bool(stood and not stands)
        onsets += bool(stands and not stood)
        stood = stands
    assert onsets >= 1


@pytest.mark.parametrize("noise", [(0.0, 0.0), (0.4, 0.9)])
@pytest.mark.parametrize("alpha_power", [0.85, 1.0, 1.4])
@pytest.mark.parametrize("hours_left", [6.0, 72.0])
def test_the_time_left_agrees_with_a_fit_of_every_candidate_on_its_own(
    alpha_power: float, hours_left: float, noise: tuple[float, float]
) -> None:
    rng = random.Random(2)
    hours = [float(h) for h in range(-95, 1) if h % 17]  # with gaps, as after lost fixes
    m = alpha_power
    scale = 300.0 if m == 1.0 else 300.0 / abs(m - 1.0)
    moved = [
        scale
        * (-log(hours_left - h) if m == 1.0 else (hours_left - h) ** (1.0 - m))
        * (1 if m >= 1.0 else -1)
        for h in hours
    ]
    values = [x + rng.gauss(0.0, 0.5) for x in moved]
    quantiles = np.empty(4)
    n = len(hours)
    rate = kernels.time_left(np.array(hours), np.array(values), n, 1.0, *noise, quantiles)
    expected = naive.time_left_h(hours, values, 1.0, noise, (0.05, 0.5, 0.95))
    assert rate > 0.0
    assert expected is not None
    assert list(quantiles[:3]) == pytest.approx(expected, rel=1e-6)


def test_without_movement_in_the_direction_there_is_no_time_left_to_tell() -> None:
    n = 96
    hours, falling = np.arange(-95.0, 1.0), -(np.arange(96.0) ** 2)
    assert kernels.time_left(hours, falling, n, 1.0, 0.5, 0.9, np.empty(4)) == 0.0
    assert naive.time_left_h(list(hours), list(falling), 1.0, (0.5, 0.9), (0.5,)) is None
    assert kernels.time_left(hours, -falling, 20, 1.0, 0.5, 0.9, np.empty(4)) == 0.0


def test_the_colour_of_the_noise_agrees_with_its_autocovariances_and_finds_what_was_put_in() -> None:
    """Three parts white to one of memory 0.9, a wave of eight hours that is no slow noise, and gaps."""
    rng = random.Random(4)
    hourly = kernels.records(kernels.HOURLY, 1)
    record = kernels.bare(hourly)
    off: dict[int, float] = {}
    slow = 0.0
    for hour in range(105, 3900):
        slow = 0.9 * slow + rng.gauss(0.0, sqrt(1.0 - 0.81))
        if hour % 31 == 0 or 900 < hour < 960:
            continue
        off[hour] = slow + rng.gauss(0.0, sqrt(3.0)) + 0.7 * sin(2.0 * pi * hour / 8.0)
        off[hour] = max(-4.0, min(4.0, off[hour]))
        kernels.learn(record[0], hour, off[hour], 4.0)
        if hour % 1200 == 0 or hour == 3899:
            assert kernels.colour(record[0]) == pytest.approx(naive.colour_of(off, 4.0), rel=1e-9)
    share, phi = kernels.colour(record[0])
    assert share == pytest.approx(1.0 / 4.25, abs=0.1)
    assert phi == pytest.approx(0.9, abs=0.08)


def test_noise_is_not_learnt_from_what_moves() -> None:
    rng = random.Random(9)
    state, params = kernels.records(kernels.STATE, 1), kernels.records(kernels.PARAMS, 1)
    hourly = kernels.records(kernels.HOURLY, 1)
    params[0].trend, params[0].r, params[0].q, params[0].onset, params[0].rate_limit = 1, R, Q, 1, 2.0 / 24
    out, gaps = kernels.records(kernels.OUT, 1), kernels.records(kernels.GAP, 4)
    learnt = []
    for hour in range(1, 600):
        x = rng.gauss(0.0, 2.0) + 0.5 * max(0, hour - 400)
        kernels.step(
            np.zeros(1, np.int64), np.array([hour * H]), np.array([x]), np.array([x]), kernels.bare(state),
            kernels.bare(params), np.zeros(0, np.int64), kernels.bare(hourly), kernels.bare(out), kernels.bare(gaps),
            np.zeros(1, np.int64),
        )  # fmt: skip
        learnt.append(int(hourly[0].hours))
    assert learnt[390] == 200 + 390
    assert state[0].onset_on
    assert learnt[-1] == learnt[470]


class Modelled:
    """One pore pressure with rain and pond level, in blocks of a day."""

    def __init__(self) -> None:
        self.state = kernels.records(kernels.RESPONSE, 1)
        self.params = kernels.records(kernels.RESPONSE_PARAMS, 1)
        inputs = 1 << kernels.RAIN | 1 << kernels.POND
        self.params[0] = (
            inputs,
            DAY,
            2 * kernels.FIT,
            3650.0,
            365.0,
            0.9,
            7.0,
            6.0,
            4.0,
            30,
            240.0,
            -1e9,
            1e9,
        )

    def feed(self, role: int, t: int, x: float) -> Any:
        out = kernels.records(kernels.RESPONSE_OUT, 1)
        one = (np.array([0]), np.array([role]), np.array([t]), np.array([x]))
        kernels.respond(*one, *map(kernels.bare, (self.state, self.params, out)))
        return out[0]


def weather(days: int) -> tuple[list[float], list[float], list[float]]:
    """Rain (mm a day), pond level (m), and a pressure (kPa) that follows both with known memories."""
    rng = random.Random(12)
    rain = [rng.expovariate(0.2) if rng.random() < 0.3 else 0.0 for _ in range(days)]
    pond, pressure, wet, level = [], [], 0.0, 0.0
    for day in range(days):
        wet += (rain[day] - wet) / 12.0
        level += 0.02 * rain[day] - 0.05 * level
        pond.append(80.0 + level + 0.3 * np.sin(day / 40.0))
        pressure.append(100.0 + 3.0 * wet + 8.0 * (pond[-1] - 80.0) + rng.gauss(0.0, 0.3))
    return rain, pond, pressure


def test_the_expected_pressure_is_that_of_one_least_squares_fit_of_everything_so_far() -> None:
    """Columns from the whole history of the inputs, forgetting written out as weights."""
    days = 200
    rain, pond, pressure = weather(days)
    model = Modelled()
    rows: list[list[float]] = []
    targets: list[float] = []
    weights: list[float] = []
    checked = 0
    times = [float(day) for day in range(days)]
    above = [level - pond[0] for level in pond]
    for day in range(days):
        t = day * DAY
        model.feed(kernels.RAIN, t, rain[day])
        model.feed(kernels.POND, t, pond[day])
        out = model.feed(kernels.TARGET, t + H, pressure[day])
        # The block of the day before is judged by what was learnt up to the day before that.
        if rows and out.said & kernels.RESPONSE_JUDGED:
            theta = naive.weighted_fit(rows[:-1], targets[:-1], weights[:-1])
            expected = float(np.dot(theta, rows[-1])) + pressure[0]
            if len(rows) > 90:  # columns of slow memories are told apart by then
                assert out.expected == pytest.approx(expected, rel=1e-4)
                checked += 1
            if model.state[0].judged > kernels.TERMS and out.sd > 0.0:
                off = abs(out.measured - out.expected)
                weights[-1] = min(1.0, 3.0 * float(out.sd) / off)
        weights = [w * (1.0 - 1.0 / 3650.0) for w in weights]
        if day >= 1:
            row = [naive.memory(times, rain, tau, day) for tau in kernels.TAU_D]
            row.append(above[day])
            row += [naive.memory(times, above, tau, day) for tau in kernels.POND_TAU_D]
            rows.append([*row, 1.0])
            targets.append(pressure[day] - pressure[0])
            weights.append(1.0)
    assert checked > 50


def test_a_pressure_that_leaves_what_rain_and_pond_explain_is_said_and_learning_stops() -> None:
    rain, pond, pressure = weather(900)
    model, said, learnt = Modelled(), [], []
    for day in range(900):
        t = day * DAY
        model.feed(kernels.RAIN, t, rain[day])
        model.feed(kernels.POND, t, pond[day])
        drift = 0.1 * max(0, day - 700)
        out = model.feed(kernels.TARGET, t + H, pressure[day] + drift)
        if out.said & (kernels.RESPONSE_PRESENT | kernels.RESPONSE_GONE):
            said.append((day, int(out.said & kernels.RESPONSE_PRESENT)))
        learnt.append(int(model.state[0].n))
    assert model.state[0].armed
    assert len(said) == 1
    assert 700 < said[0][0] < 760
    assert said[0][1]
    assert learnt[-1] == learnt[said[0][0] + 1], "nothing is learnt from what is under verdict"


def test_what_lasts_of_the_residual_is_its_exponential_mean_over_the_days_that_were_read() -> None:
    rain, pond, pressure = weather(400)
    model = Modelled()
    blocks: list[int] = []
    residuals: list[float] = []
    checked = 0
    for day in range(400):
        t = day * DAY
        model.feed(kernels.RAIN, t, rain[day])
        model.feed(kernels.POND, t, pond[day])
        if day % 11 == 0 or 300 < day < 308:
            continue  # no reading of the pressure
        out = model.feed(kernels.TARGET, t + H, pressure[day])
        if out.said & kernels.RESPONSE_JUDGED and model.state[0].judged > kernels.TERMS + 1:
            bound = 6.0 * float(out.sd)
            blocks.append(int(out.block_t // DAY))
            residuals.append(max(-bound, min(bound, float(out.measured - out.expected))))
            if len(blocks) > 1 and blocks[-1] - blocks[0] > 250:
                assert out.drift == pytest.approx(naive.lasting(blocks, residuals, 7.0), abs=1e-9)
                checked += 1
    assert checked > 50
