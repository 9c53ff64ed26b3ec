"""Noise that is a function of (seed, stream, tick): the same however often and in what order it is asked.

SplitMix64 (Steele, Lea, Flood 2014) as a counter-based generator, Box-Muller on two of its outputs.
"""

from __future__ import annotations

from functools import lru_cache
from math import cos, log, pi, sqrt

_MASK = (1 << 64) - 1


def _mix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


@lru_cache(maxsize=256)
def _key(seed: int, stream: int) -> int:
    return _mix(_mix(seed & _MASK) ^ stream)


def gauss(seed: int, stream: int, tick: int) -> float:
    """A standard normal number, fixed for the three arguments."""
    first = _mix(_key(seed, stream) ^ (tick & _MASK))
    uniform = (first + 1) / (_MASK + 2)  # never 0
    angle = _mix(first) / _MASK
    return sqrt(-2.0 * log(uniform)) * cos(2.0 * pi * angle)
