"""The compiled kernels: arrays in and out, one record per channel, two entry points.

`step` looks at each sample of each channel, `respond` compares pore pressure with what rain and pond level
explain. Both say the same of a history whether it comes in one batch or in many.

No fastmath: it would make a missing value (NaN) look finite. Nested arrays are assigned element by element
(Numba issue 7693). Compiled functions hand on records and no arrays where it matters: Numba counts references
to arrays by atomic instructions. A sample that is missing or not later than the one before changes no statistic.

The pages behind: Hampel filter (Davies and Gather 1993), window of 11 trailing samples, the newest among
them; robust local linear trend as in `edge_rules/law/trend.py`, the same arithmetic in the same order; exponential
means of residuals (Roberts 1959); least squares by Givens rotations (Gentleman 1973); Fukuzono's law of failure (1985) as a profile
likelihood in displacement.
"""  # noqa: E501

from __future__ import annotations

from edge_rules.advice.kernels.channel import LATE_RUN, NS_PER_H, OUT, PARAMS, STATE, STEP_RUN, WINDOW, forget
from edge_rules.advice.kernels.colour import colour, learn
from edge_rules.advice.kernels.compiled import Records, bare, records
from edge_rules.advice.kernels.domain import COMMON, SHARED
from edge_rules.advice.kernels.flags import (
    CHANGED,
    COMMON_GONE,
    COMMON_PRESENT,
    FLAT_GONE,
    FLAT_PRESENT,
    FORECAST_GONE,
    FORECAST_PRESENT,
    GAP_GONE,
    LATE,
    MISSING,
    NOISE_GONE,
    NOISE_PRESENT,
    ONSET_GONE,
    ONSET_PRESENT,
    OUTLIER,
    RATE_GONE,
    RATE_PRESENT,
    RESTARTED,
    SPIKE,
    SPIKE_GONE,
    SPIKE_PRESENT,
    STEP,
    STEP_GONE,
    STEP_PRESENT,
)
from edge_rules.advice.kernels.forecast import HOURLY, HOURS, STAGES_H, time_left
from edge_rules.advice.kernels.movement import FAST_Q, GATE, ONSET_GAIN
from edge_rules.advice.kernels.quality import (
    MAD_TO_SD,
    MIDDLE,
    NOISE_LESS,
    NOISE_MORE,
    SPREAD_LEAST,
    SPREAD_MOST,
    SWING_CLIP,
    SWING_LEARN,
)
from edge_rules.advice.kernels.response import respond
from edge_rules.advice.kernels.response_state import (
    EVAPORATION,
    FIT,
    POND,
    POND_TAU_D,
    RAIN,
    RESPONSE,
    RESPONSE_GONE,
    RESPONSE_JUDGED,
    RESPONSE_OUT,
    RESPONSE_PARAMS,
    RESPONSE_PRESENT,
    TARGET,
    TAU_D,
    TERMS,
)
from edge_rules.advice.kernels.sample import step
from edge_rules.advice.kernels.silence import DEAD_PERIODS, GAP, STALE_PERIODS

__all__ = [
    "CHANGED",
    "COMMON",
    "COMMON_GONE",
    "COMMON_PRESENT",
    "DEAD_PERIODS",
    "EVAPORATION",
    "FAST_Q",
    "FIT",
    "FLAT_GONE",
    "FLAT_PRESENT",
    "FORECAST_GONE",
    "FORECAST_PRESENT",
    "GAP",
    "GAP_GONE",
    "GATE",
    "HOURLY",
    "HOURS",
    "LATE",
    "LATE_RUN",
    "MAD_TO_SD",
    "MIDDLE",
    "MISSING",
    "NOISE_GONE",
    "NOISE_LESS",
    "NOISE_MORE",
    "NOISE_PRESENT",
    "NS_PER_H",
    "ONSET_GAIN",
    "ONSET_GONE",
    "ONSET_PRESENT",
    "OUT",
    "OUTLIER",
    "PARAMS",
    "POND",
    "POND_TAU_D",
    "RAIN",
    "RATE_GONE",
    "RATE_PRESENT",
    "RESPONSE",
    "RESPONSE_GONE",
    "RESPONSE_JUDGED",
    "RESPONSE_OUT",
    "RESPONSE_PARAMS",
    "RESPONSE_PRESENT",
    "RESTARTED",
    "SHARED",
    "SPIKE",
    "SPIKE_GONE",
    "SPIKE_PRESENT",
    "SPREAD_LEAST",
    "SPREAD_MOST",
    "STAGES_H",
    "STALE_PERIODS",
    "STATE",
    "STEP",
    "STEP_GONE",
    "STEP_PRESENT",
    "STEP_RUN",
    "SWING_CLIP",
    "SWING_LEARN",
    "TARGET",
    "TAU_D",
    "TERMS",
    "WINDOW",
    "Records",
    "bare",
    "colour",
    "forget",
    "learn",
    "records",
    "respond",
    "step",
    "time_left",
]
