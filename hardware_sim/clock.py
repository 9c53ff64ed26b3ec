"""The bench's own clock.

It keeps to the text that bench and daemon share, `<rate>@<real epoch seconds>`: bench time = epoch +
(real time - epoch) x rate. Written here a second time on purpose: the bench shares no code with what it
tests. Replies on wires and sockets never wait on this clock; they leave in real time.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BenchClock:
    """Bench seconds (UTC, since 1970) that run `rate` times as fast as real ones from `epoch_s` on."""

    rate: float
    epoch_s: float

    @classmethod
    def starting_now(cls, rate: float) -> BenchClock:
        """A clock on which bench and real time are equal at this moment (to the microsecond)."""
        return cls(rate, round(time.time(), 6))

    @classmethod
    def parse(cls, text: str) -> BenchClock:
        """The clock of `<rate>@<real epoch seconds>`.

        Raises:
            ValueError: the text has another form, or the rate is not positive.
        """
        rate, at, epoch = text.partition("@")
        if not at:
            raise ValueError(f"a bench clock is RATE@EPOCH_SECONDS, not {text!r}")
        clock = cls(float(rate), float(epoch))
        if not (clock.rate > 0 and math.isfinite(clock.rate) and math.isfinite(clock.epoch_s)):
            raise ValueError(f"a bench clock needs a positive, finite rate, not {text!r}")
        return clock

    def __str__(self) -> str:
        return f"{self.rate:g}@{self.epoch_s:.6f}"

    def now_s(self) -> float:
        """Bench time in seconds since 1970, UTC."""
        return self.epoch_s + (time.time() - self.epoch_s) * self.rate

    async def sleep_until(self, bench_s: float, *, least_real_s: float = 0.0) -> None:
        """Wait for an instant of bench time, and at least `least_real_s` of real time."""
        await asyncio.sleep(max(least_real_s, (bench_s - self.now_s()) / self.rate))
