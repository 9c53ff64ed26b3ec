"""Detectors of river (Montiel et al. 2021) as baselines: its own code, its own settings unless said here.

Each scores a sample before it learns it. River has no limits to compare at an equal rate of false alarms except
by score, so its drift detector is read by its test statistic instead of by the threshold it ships with.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from river import anomaly, drift

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.score.common import Floats


class Scorer(Protocol):
    """What the training part has set up; then one sample after the other."""

    def take(self, value: float) -> float: ...


class Gaussian:
    """GaussianScorer: how far out in the normal law of all samples so far; it saturates at 1."""

    def __init__(self, train: Floats) -> None:
        del train
        self._scorer: Any = anomaly.GaussianScorer()

    def take(self, value: float) -> float:
        score = float(self._scorer.score_one(None, value))
        self._scorer.learn_one(None, value)
        return score


class Deviation:
    """StandardAbsoluteDeviation: distance from the mean of all samples so far, in their standard deviations."""

    def __init__(self, train: Floats) -> None:
        del train
        self._scorer: Any = anomaly.StandardAbsoluteDeviation()

    def take(self, value: float) -> float:
        score = float(self._scorer.score_one(None, value))
        self._scorer.learn_one(None, value)
        return score


class Trees:
    """HalfSpaceTrees on the value scaled to [0, 1] by the training part, as its documentation asks."""

    def __init__(self, train: Floats) -> None:
        low, high = float(np.nanmin(train)), float(np.nanmax(train))
        self._low, self._span = low, (high - low) or 1.0
        self._scorer: Any = anomaly.HalfSpaceTrees(seed=1)

    def take(self, value: float) -> float:
        scaled = {"x": min(1.0, max(0.0, (value - self._low) / self._span))}
        score = float(self._scorer.score_one(scaled))
        self._scorer.learn_one(scaled)
        return score


class PageHinkley:
    """PageHinkley on the value in standard deviations of the training part; its statistic is the score."""

    def __init__(self, train: Floats) -> None:
        self._mean, self._sd = float(np.nanmean(train)), float(np.nanstd(train)) or 1.0
        self._scorer: Any = drift.PageHinkley(threshold=float("inf"))

    def take(self, value: float) -> float:
        its = self._scorer
        its.update((value - self._mean) / self._sd)
        up = its._sum_increase - its._min_increase  # river tells only its verdict
        return float(max(up, its._max_decrease - its._sum_decrease))


RIVER: dict[str, Callable[[Floats], Scorer]] = {
    "river GaussianScorer": Gaussian,
    "river StandardAbsoluteDeviation": Deviation,
    "river HalfSpaceTrees": Trees,
    "river PageHinkley": PageHinkley,
}


class Run:
    """A scorer on its way through a series; a copy of it can go on with other samples."""

    def __init__(self, name: str, train: Floats) -> None:
        self._scorer = RIVER[name](train)

    def scores(self, values: Floats) -> Floats:
        return np.array([self._scorer.take(float(value)) for value in values])

    def copy(self) -> Self:
        return copy.deepcopy(self)
