"""Tipping buckets and pulse counters: what came since the count before.

A counter that falls has either wrapped or been reset, and only the size of the step tells which. Rain is
never negative, and never made up:

- a step of at most `max_step`, taken modulo the counter's width, is believed (a wrap is such a step);
- so is, after polls that brought nothing, a rise of at most `max_step` for each of them: the bucket counts on
  while the line is down, and a storm is when lines are. Not a fall: then a reset would look like a wrap;
- a fall to a count of at most `max_step` is a restart: what it shows now has been counted since, so that
  much is reported, marked COUNTER_RESET, because what was counted before the fall is not known;
- anything else is COUNTER_STEP and yields nothing. Both the count before and the new one are kept: the
  next count that follows from either is believed again. So one count too high in between costs nothing,
  and a gauge that was exchanged costs one reading.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from drivers.sample import Quality


class CounterState(NamedTuple):
    """All a counter remembers, to be kept over a restart."""

    last: int | None
    doubtful: int | None
    last_ns: int | None = None


class Counter:
    """One counter of `bits` width whose readings rise by at most `max_step` counts in `every_ns`.

    Raises:
        ValueError: a step of half the width or more could not be told from a fall.
    """

    def __init__(self, bits: Literal[16, 32], max_step: int, every_ns: int = 0) -> None:
        self._modulus = 1 << bits
        if not 0 < max_step < self._modulus // 2:
            raise ValueError(
                f"max_step is {max_step}; for {bits} bits it must lie within 1 .. {self._modulus // 2 - 1}"
            )
        self._max_step = max_step
        self._every_ns = every_ns
        self._last_ns: int | None = None  # tick of the last count that was believed
        self._last: int | None = None
        self._doubtful: int | None = None

    def step(self, raw: float, tick_ns: int = 0) -> tuple[int | None, Quality]:
        """Counts since the reading before; None with the reason where that cannot be said.

        `tick_ns` is the instant of this reading. The first reading ever is None with MISSING_INPUT: there is
        nothing before it.
        """
        if not 0 <= raw < self._modulus or raw != int(raw):  # NaN fails the first comparison
            return None, Quality.NOT_A_NUMBER
        count = int(raw)
        if self._last is None:
            self._accept(count, tick_ns)
            return None, Quality.MISSING_INPUT
        for before in (self._last, self._doubtful):
            if before is not None and (gained := (count - before) % self._modulus) <= self._max_step:
                self._accept(count, tick_ns)
                return gained, Quality.GOOD
        if 0 <= (risen := count - self._last) <= self._most(tick_ns):
            self._accept(count, tick_ns)
            return risen, Quality.GOOD
        if count <= self._max_step:  # it fell: a rise to so small a count would have been believed above
            self._accept(count, tick_ns)
            return count, Quality.COUNTER_RESET
        self._doubtful = count
        return None, Quality.COUNTER_STEP

    def _most(self, tick_ns: int) -> int:
        """The largest believable rise since the last count that was believed."""
        if not self._every_ns or self._last_ns is None:
            return self._max_step
        polls = max(1, (tick_ns - self._last_ns) // self._every_ns)
        return min(polls * self._max_step, self._modulus // 2 - 1)

    def _accept(self, count: int, tick_ns: int) -> None:
        self._last, self._last_ns, self._doubtful = count, tick_ns, None

    def state(self) -> CounterState:
        return CounterState(self._last, self._doubtful, self._last_ns)

    def restore(self, state: CounterState) -> None:
        """Go on where another run stopped; what was counted in between is then one step."""
        self._last, self._doubtful, self._last_ns = CounterState(*state)
