"""Channels from which nothing comes any more."""

from __future__ import annotations

import numpy as np

from edge_rules.advice.kernels.compiled import Records, compiled

STALE_PERIODS, DEAD_PERIODS = 2.5, 6.0
# A channel fell silent, as seen at the sample `at` of the batch.
GAP = np.dtype([("at", "<i8"), ("row", "<i8"), ("stage", "<i8"), ("since", "<i8")])


@compiled
def next_silence(state: Records, params: Records) -> int:
    """When the next channel will have been silent for too long, if nothing comes of it."""
    due = 9_223_372_036_854_775_807
    for i in range(state.size):
        s, p = state[i], params[i]
        if p.period_ns and s.n > 0 and s.gap_on < 2:  # noqa: PLR2004 -- dead: nothing further to say
            due = min(due, s.t + int((DEAD_PERIODS if s.gap_on else STALE_PERIODS) * p.period_ns))
    return due


@compiled
def silences(j: int, t: int, state: Records, params: Records, gaps: Records, found: int) -> int:
    """Note the channels that have been silent for too long at `t`; how many notes there are."""
    for i in range(state.size):
        s, p = state[i], params[i]
        if p.period_ns and s.n > 0:
            stage = (t - s.t > STALE_PERIODS * p.period_ns) + (t - s.t > DEAD_PERIODS * p.period_ns)
            if stage > s.gap_on:
                s.gap_on = stage
                gaps[found].at = j
                gaps[found].row = i
                gaps[found].stage = stage
                gaps[found].since = s.t
                found += 1
    return found
