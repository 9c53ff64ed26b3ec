"""Memories of rain, evaporation and pond level, and the least squares that join them to a pressure."""

from __future__ import annotations

from math import exp, isfinite, sqrt
from typing import Any

import numpy as np

from edge_rules.advice.kernels.channel import FRESH_PERIODS
from edge_rules.advice.kernels.compiled import compiled
from edge_rules.advice.kernels.response_state import INPUTS, POND, POND_TAU_D, PONDS, TAU_D, TAUS, TERMS

NS_PER_D = 8.64e13
RIDGE = 1e-10  # of a column's own weight: what the data say less about is left at zero


@compiled
def take_input(s: Any, which: int, t: int, x: float) -> None:
    """A reading of an input: rain and evaporation as amounts since the reading before, pond level as it is."""  # noqa: E501
    if not isfinite(x):
        return
    if s.in_n[which] == 0:
        s.in_n[which] = 1
        s.in_t[which] = t
        if which == POND:
            s.pond_ref = x
            s.pond = 0.0
        return
    dt = (t - s.in_t[which]) / NS_PER_D
    if dt <= 0.0:
        return
    s.in_dt[which] += max(0.05, 1.0 / s.in_n[which]) * (dt - s.in_dt[which])
    s.in_n[which] += 1
    s.in_t[which] = t
    if which == POND:
        s.pond = x - s.pond_ref
        for j in range(PONDS):
            fill(s, 2 * TAUS + j, dt / POND_TAU_D[j], s.pond)
    else:
        for j in range(TAUS):
            fill(s, which * TAUS + j, dt / TAU_D[j], x / dt)


@compiled
def fill(s: Any, j: int, share: float, x: float) -> None:
    """One exponential; the constant rate of the interval enters exactly."""
    a = exp(-share)
    s.s[j] = a * s.s[j] + (1.0 - a) * x
    s.w[j] = a * s.w[j] + (1.0 - a)


@compiled
def inputs_live(s: Any, t: int, p: Any) -> bool:
    for which in range(INPUTS):
        if p.inputs >> which & 1:
            if s.in_n[which] < 2:  # noqa: PLR2004 -- one reading has no interval
                return False
            if (t - s.in_t[which]) / NS_PER_D > FRESH_PERIODS * s.in_dt[which]:
                return False
    return True


@compiled
def rotate_in(s: Any, x: Any, y: float, weight: float, keep: float) -> None:
    """One row into the triangle (Givens), after the old rows have lost `1 - keep` of their weight."""
    root, old = sqrt(weight), sqrt(keep)
    row = np.empty(TERMS)
    for j in range(TERMS):
        row[j] = root * x[j]
        s.rhs[j] *= old
        for k in range(j, TERMS):
            s.r[j, k] *= old
    b = root * y
    for j in range(TERMS):
        if row[j] == 0.0:
            continue
        length = sqrt(s.r[j, j] * s.r[j, j] + row[j] * row[j])
        cos, sin = s.r[j, j] / length, row[j] / length
        for k in range(j, TERMS):
            above = s.r[j, k]
            s.r[j, k] = cos * above + sin * row[k]
            row[k] = cos * row[k] - sin * above
        above = s.rhs[j]
        s.rhs[j] = cos * above + sin * b
        b = cos * b - sin * above


@compiled
def solve(s: Any) -> None:
    """`theta` of the triangle, from the last row up; a column that the data do not tell apart stays at zero."""  # noqa: E501
    for j in range(TERMS - 1, -1, -1):
        weight = 0.0
        for k in range(j + 1):
            weight += s.r[k, j] * s.r[k, j]
        if s.r[j, j] * s.r[j, j] <= RIDGE * weight:
            s.theta[j] = 0.0
            continue
        rest = s.rhs[j]
        for k in range(j + 1, TERMS):
            rest -= s.r[j, k] * s.theta[k]
        s.theta[j] = rest / s.r[j, j]


@compiled
def part(s: Any, x: Any, first: int, end: int) -> float:
    total = 0.0
    for j in range(first, end):
        total += s.theta[j] * x[j]
    return total
