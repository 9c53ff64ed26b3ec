"""What is kept of a pore pressure and of the rain and pond level that explain it."""

from __future__ import annotations

import numpy as np

TAU_D = (0.25, 1.0, 3.0, 12.0, 45.0, 150.0)  # memory of rain and of evaporation
POND_TAU_D = (1.0, 5.0, 15.0, 40.0)
TAUS, PONDS = len(TAU_D), len(POND_TAU_D)
INPUTS = 3  # rain, evaporation, pond level
RAIN, EVAPORATION, POND, TARGET = 0, 1, 2, 3
TERMS = 2 * TAUS + 1 + PONDS + 1  # and a constant
FIT = 2 * TERMS  # blocks before a prediction means anything

RESPONSE_PARAMS = np.dtype(
    [
        ("inputs", "<i8"),  # bit per input that the site file names
        ("step_ns", "<i8"),  # length of a block
        ("learn", "<i8"),  # blocks before anything is judged
        ("memory", "<f8"),  # blocks: forgetting of the fit
        ("year", "<f8"),  # blocks: memory of what the residual is like
        ("evp", "<f8"),  # explained share from which on it is judged
        ("week", "<f8"),  # blocks: memory of the residual's mean
        ("z", "<f8"),  # least limit of the residual, in its sd
        ("drift_z", "<f8"),  # and of that mean, in its own
        ("month", "<i8"),  # blocks of which the highest statistic is remembered
        ("months", "<f8"),  # per false alarm of either statistic
        ("low", "<f8"),  # yellow: beyond, nothing is learnt
        ("high", "<f8"),
    ]
)
RESPONSE = np.dtype(
    [
        ("in_n", "<i8", (INPUTS,)),
        ("in_t", "<i8", (INPUTS,)),
        ("in_dt", "<f8", (INPUTS,)),  # usual days between readings
        ("s", "<f8", (2 * TAUS + PONDS,)),  # exponentials of rain, evaporation, pond level
        ("w", "<f8", (2 * TAUS + PONDS,)),  # how much of each is filled
        ("pond", "<f8"),
        ("pond_ref", "<f8"),
        ("t", "<i8"),
        ("late", "<i8"),
        ("taken", "<i8"),  # samples of the target
        ("ref", "<f8"),  # its first value
        ("block", "<i8"),
        ("in_block", "<i8"),
        ("beyond", "<i8"),  # samples of this block at or beyond yellow
        ("sum_y", "<f8"),
        ("sum_x", "<f8", (TERMS,)),
        ("r", "<f8", (TERMS, TERMS)),  # upper triangle of the weighted least squares
        ("rhs", "<f8", (TERMS,)),
        ("theta", "<f8", (TERMS,)),
        ("n", "<i8"),  # blocks learnt
        ("judged", "<i8"),  # blocks whose residual counts
        ("prev_block", "<i8"),
        ("prev_e", "<f8"),
        ("r0", "<f8"),  # of the residual: variance, covariance with the one before
        ("r1", "<f8"),
        ("mean_y", "<f8"),
        ("var_y", "<f8"),
        ("mse", "<f8"),
        ("drift", "<f8"),  # of the residual, exponential
        # Of |z| and of the mean: the highest of this month, and mean and sum of squares of months before.
        ("peak", "<f8", (2,)),
        ("peak_blocks", "<i8"),
        ("peaks", "<i8"),
        ("peak_mean", "<f8", (2,)),
        ("peak_m2", "<f8", (2,)),
        ("limit", "<f8", (2,)),
        ("back", "<i8"),
        ("on", "<i8"),  # sign of the residual when the condition began
        ("armed", "<i8"),
    ]
)
RESPONSE_OUT = np.dtype(
    [
        ("said", "<i8"),
        ("measured", "<f8"),
        ("expected", "<f8"),
        ("sd", "<f8"),
        ("z", "<f8"),
        ("z_limit", "<f8"),
        ("drift", "<f8"),  # mean of the residual
        ("drift_limit", "<f8"),
        ("phi", "<f8"),
        ("evp", "<f8"),
        ("rain", "<f8"),  # what each input adds to the expectation
        ("evaporation", "<f8"),
        ("pond", "<f8"),
        ("block_t", "<i8"),  # end of the block judged
    ]
)
RESPONSE_PRESENT = 1
RESPONSE_GONE = 2
RESPONSE_ARMED = 4
RESPONSE_DISARMED = 8
RESPONSE_JUDGED = 16  # a block was closed and compared
RESPONSE_FROZEN = 32  # and not learnt from
