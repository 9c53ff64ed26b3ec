"""Channels from which nothing comes any more."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_rules.advice.kernels.compiled import Records, compiled

STALE_PERIODS, DEAD_PERIODS = 2.5, 6.0
STALE, DEAD = 1, 2  # stages of `gap_on`
NEVER = 9_223_372_036_854_775_807
# A channel fell silent, as seen at the sample `at` of the batch.
GAP = np.dtype([("at", "<i8"), ("row", "<i8"), ("stage", "<i8"), ("since", "<i8")])


@compiled
def stale_at(s: Any, p: Any) -> int:
    return int(s.t + int(STALE_PERIODS * p.period_ns))


@compiled
def silences(j: int, t: int, state: Records, params: Records, gaps: Records, found: int) -> tuple[int, int]:
    """Note the channels that have been silent for too long at `t`.

    How many notes there are, and when the next channel will have been, if nothing comes of it.
    """
    due = NEVER
    for i in range(state.size):
        s, p = state[i], params[i]
        if not p.period_ns or s.n == 0 or s.gap_on == DEAD:
            continue
        if t > stale_at(s, p):
            dead_at = s.t + int(DEAD_PERIODS * p.period_ns)
            stage = DEAD if t > dead_at else STALE
            if stage > s.gap_on:
                s.gap_on = stage
                gaps[found].at = j
                gaps[found].row = i
                gaps[found].stage = stage
                gaps[found].since = s.t
                found += 1
            if stage == STALE:
                due = min(due, dead_at)
        else:
            due = min(due, stale_at(s, p))
    return found, due
