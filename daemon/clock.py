"""Wall and monotonic time, and the bench's rate.

Three times are told apart. *Wall* time (UTC) stamps; it may step. *Monotonic* time measures; it never
steps. The *schedule* runs on monotonic time carrying the wall's phase, so that a stepped wall clock
moves the stamps and never delays a poll.

On the bench the clock may run faster: schedule, holds, windows and stamps follow the rate; deadlines on
wires and sockets stay real and are kept by the event loop. Bench and daemon agree by one shared text,
`<rate>@<real epoch seconds>`: bench time = epoch + (real time - epoch) x rate.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import time
from pathlib import Path
from typing import ClassVar, Self
from uuid import UUID

NS = 1_000_000_000
_SECONDS = struct.Struct("=d")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class BenchRateRefused(ValueError):
    """A rate other than 1 was asked of a gateway that is not simulated."""


class Clock:
    """The one source of time, handed to whoever needs it.

    Args:
        rate: bench seconds per real second; 1.0 on every gateway.
        origin_ns: real wall time (ns, UTC) at which bench time equals real time.
        step: on the bench, a file of eight bytes, a double: by how many seconds the wall is off.

    Attributes:
        steps: how often the wall clock has stepped.
    """

    STEP_S: ClassVar = 0.5  # smaller moves are what reading two clocks one after the other costs

    def __init__(self, rate: float = 1.0, origin_ns: int = 0, step: Path | None = None) -> None:
        self.rate = rate
        self._step = _mapped(step) if step is not None else None
        self._origin_ns = origin_ns
        self._mono_origin_ns = time.monotonic_ns()
        self._offset_ns = self.wall_ns() - self.monotonic_ns()
        self._step_ns = int(self.STEP_S * max(1.0, rate) * NS)
        self.steps = 0

    @classmethod
    def parse(cls, text: str, *, simulated: bool, step: str = "") -> Self:
        """The clock that `PONDWATCH_BENCH_CLOCK` asks for; empty text is the real clock.

        `step` is what `PONDWATCH_BENCH_STEP` names, heeded beside a rate only.

        Raises:
            BenchRateRefused: the site is not marked simulated, or the text is not `rate@seconds`.
        """
        if not text:
            return cls()
        rate, at, origin = text.partition("@")
        stepped = Path(step) if step and simulated else None
        try:
            origin_ns = int(float(origin) * NS) if at else time.time_ns()
            clock = cls(float(rate), origin_ns, stepped)
        except ValueError:
            raise BenchRateRefused(
                f"PONDWATCH_BENCH_CLOCK is {text!r}; it must be RATE@EPOCH_SECONDS"
            ) from None
        if not simulated:
            raise BenchRateRefused(
                "PONDWATCH_BENCH_CLOCK is set, but the site file does not say [site] mode = "
                '"simulated": a rate is for the bench only; unset the variable'
            )
        return clock

    def wall_ns(self) -> int:
        """UTC in nanoseconds since 1970, for stamps."""
        real = time.time_ns()
        if self._step is not None:
            real += int(_SECONDS.unpack_from(self._step)[0] / self.rate * NS)
        if self.rate == 1.0:
            return real
        return self._origin_ns + int((real - self._origin_ns) * self.rate)

    def monotonic_ns(self) -> int:
        """Nanoseconds that never step, at the clock's rate."""
        real = time.monotonic_ns()
        if self.rate == 1.0:
            return real
        return self._mono_origin_ns + int((real - self._mono_origin_ns) * self.rate)

    def schedule_ns(self) -> int:
        """Monotonic time carrying the wall's phase: what ticks are multiples of."""
        return self.monotonic_ns() + self._offset_ns

    @property
    def ahead_ns(self) -> int:
        """How far the wall is ahead of the monotonic clock, as of the last `rephase`."""
        return self._offset_ns

    def is_off(self, wall_ns: int, mono_ns: int) -> bool:
        """Whether two stamps of one instant show that the wall clock stepped since the last `rephase`."""
        return not -self._step_ns < wall_ns - mono_ns - self._offset_ns < self._step_ns

    def rephase(self) -> float:
        """Take the wall's phase anew; returns by how many seconds it had moved (0.0: not worth a word)."""
        wall_ns, mono_ns = self.wall_ns(), self.monotonic_ns()
        stepped = self.is_off(wall_ns, mono_ns)
        moved_s = (wall_ns - mono_ns - self._offset_ns) / NS
        self._offset_ns = wall_ns - mono_ns
        self.steps += stepped
        return moved_s if stepped else 0.0

    async def sleep_until(self, schedule_ns: int) -> None:
        """Wait for an instant of the schedule; at once if it has passed."""
        await asyncio.sleep(max(0.0, (schedule_ns - self.schedule_ns()) / NS / self.rate))


def _mapped(file: Path) -> mmap.mmap:
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), _SECONDS.size, access=mmap.ACCESS_READ)


def boot_id() -> str:
    """The kernel's id of this boot: monotonic stamps compare only within one.

    Source: random(4), /proc/sys/kernel/random/boot_id. A hardened unit hides that file and gives its content,
    without the hyphens (systemd.unit(5), %b).
    """
    given = os.environ.get("PONDWATCH_BOOT_ID")
    return str(UUID(given)) if given else _BOOT_ID.read_text().strip()
