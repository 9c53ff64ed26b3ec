"""Pore pressure expected from rain and pond level: what is armed, and limits that follow from a budget.

The expectation is a weighted least squares fit of the block mean (a day by default) to exponential memories
of rain and evaporation (6 h to 150 d), to pond level and its memories of 5 and 40 d, and a constant: an
output-error model without a memory of the pressure itself, since one that follows its own past forgives a
slow drift. It is judged only where it explains 90 % of the variance, one block ahead, and never learns from
a channel at or beyond yellow or under verdict.

Two statistics share the false alarms that the site file allows per year: the residual itself, and its
exponential mean over a week (Roberts 1959). A residual wanders for weeks, with floods and dry spells that
the model gets wrong; whitened at lag one, most of a ramp is gone, and a CUSUM of that finds it later.
"""

from __future__ import annotations

from math import inf
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from edge_rules.advice import kernels

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge_rules.advice.messages import Advice, Channel, Response

EVP_TO_ARM = 0.9
WEEK_D = 7.0  # memory of the residual's mean
MEMORY_YEARS = 10.0
YEAR_S = 365.25 * 86400.0


def residual_limit(samples_per_alarm: float) -> float:
    """The two-sided limit of a standard normal sample; correlated samples cross it more rarely, in clusters."""  # noqa: E501
    return -NormalDist().inv_cdf(0.5 / max(samples_per_alarm, 2.0))


class Responses:
    """The modelled channels of one configuration, and which reading plays which part for them."""

    def __init__(self, channels: Iterable[Channel]) -> None:
        modelled = [
            (channel, channel.advice, channel.advice.response)
            for channel in channels
            if channel.advice and channel.advice.response
        ]
        self.ids = [channel.id for channel, _, _ in modelled]
        self.state = kernels.records(kernels.RESPONSE, len(modelled))
        self.params = kernels.records(kernels.RESPONSE_PARAMS, len(modelled))
        self.parts: dict[str, list[tuple[int, int]]] = {}
        for row, (channel, advice, response) in enumerate(modelled):
            self.params[row] = _params(channel, advice, response)
            for name, role in (*_inputs(response), (channel.id, kernels.TARGET)):
                self.parts.setdefault(name, []).append((row, role))

    def feed(self, events: Sequence[tuple[int, int, int, int, float]]) -> list[tuple[int, int, Any]]:
        """Take (position, row, role, t, x) in order; (position, row, RESPONSE_OUT) of what changed."""
        import numpy as np  # noqa: PLC0415

        at, row, role, t, x = (np.array(column) for column in zip(*events, strict=True))
        out = kernels.records(kernels.RESPONSE_OUT, len(events))
        kernels.respond(
            row.astype(np.int64), role.astype(np.int64), t.astype(np.int64), x.astype(np.float64),
            kernels.bare(self.state), kernels.bare(self.params), kernels.bare(out),
        )  # fmt: skip
        changed = kernels.RESPONSE_PRESENT | kernels.RESPONSE_GONE
        return [(int(at[j]), int(row[j]), out[j]) for j in np.flatnonzero(out["said"] & changed)]


def _inputs(response: Response) -> list[tuple[str, int]]:
    named = (
        (response.rain, kernels.RAIN),
        (response.evaporation, kernels.EVAPORATION),
        (response.pond, kernels.POND),
    )
    return [(name, role) for name, role in named if name]


def _params(channel: Channel, advice: Advice, response: Response) -> tuple[float, ...]:
    year = YEAR_S / response.step_s
    week = WEEK_D * 86400.0 / response.step_s
    each = 2.0 * year / advice.false_alarms_per_year  # blocks per false alarm of either statistic
    return (
        sum(1 << role for _, role in _inputs(response)),
        round(response.step_s * 1e9),
        max(round(response.learn_s / response.step_s), 2 * kernels.FIT),
        MEMORY_YEARS * year,
        year,
        EVP_TO_ARM,
        week,
        residual_limit(each),
        residual_limit(each / (2.0 * week)),  # means so far apart are independent of each other
        round(year / 12.0),
        24.0 / advice.false_alarms_per_year,
        -inf if channel.yellow_low is None else channel.yellow_low,
        inf if channel.yellow_high is None else channel.yellow_high,
    )
