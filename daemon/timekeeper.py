"""Whether the wall clock can be believed, and what is said when it steps.

Stamps are never changed: a payload keeps the time that the clock told. Instead each step of the clock becomes
an audit record (`clock`, with `offset_ms`) in the chain, in its place: what was recorded in this boot before
it was stamped by the clock before the step. So the sum of the offsets of a boot's later `clock` records,
added to a reading's time, is when it was taken on the clock as it is now; docs/time.md says so to platforms.

While the clock is not trusted, readings that would be good are `uncertain:clock`: they raise levels and clear
none. We never set the clock; chrony, timesyncd or gpsd do.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Never

from msgspec.structs import replace

from daemon.audit import OURSELVES
from daemon.clock import NS, boot_id
from daemon.reading import parse_rfc3339, rfc3339
from drivers.sample import Quality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from typing import Protocol

    from daemon.audit import Audit
    from daemon.clock import Clock
    from daemon.reading import ReadingFrame

    class Receiver(Protocol):
        """A GNSS receiver that tells the date."""

        @property
        def told(self) -> tuple[int, int] | None:
            """How far UTC is ahead of our monotonic clock, and since when on that clock it says so (ns)."""
            ...


log = logging.getLogger(__name__)

BUILT_NS: Final = (
    int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * NS
)  # raised with each release: no clock
# that shows an earlier time is right
STATE: Final = "clock"
LOOK_EVERY_S = 10.0
STEADY_S = 3600.0  # without any evidence a clock that stepped is believed again after so long
GNSS_STEADY_S = 30.0  # a receiver whose own time jumps is no witness until it has been steady for so long
TOLERANCE_S = 5.0  # a sentence comes up to a second late, and later over a slow line
SAVE_EVERY_S = 3600.0
_CLOCK_FILE = "clock"
_UNSYNCHRONISED = 0x40  # STA_UNSYNC of adjtimex(2)
_STATUS_AT, _TIMEX_BYTES = 40, 256  # struct timex on 64-bit Linux: `status` follows five words
_CLOCKED = bytes([Quality.CLOCK]) + bytes(range(1, 256))


class Known(NamedTuple):
    """What is known of the present without the wall clock: it is `ns`, or, unless `exact`, not before it."""

    ns: int
    exact: bool


class Timekeeper:
    """Made once; `check` where stamps are taken, `run` now and then.

    Args:
        clock: whose wall time is in question.
        audit: records steps, before what comes after them.
        receivers: that tell the date.
        folder: of the store; the last time that was confirmed is saved there.
        kernel: whether the kernel says that its clock is synchronised; None where that cannot be asked.

    Attributes:
        trusted: whether the wall clock is believed.
        why: a few words of reason.
    """

    def __init__(
        self,
        clock: Clock,
        audit: Audit,
        receivers: Iterable[Receiver],
        folder: Path,
        *,
        kernel: Callable[[], bool | None] | None = None,
    ) -> None:
        self._clock = clock
        self._audit = audit
        self._receivers = list(receivers)
        self._path = folder / _CLOCK_FILE
        self._kernel = kernel or kernel_synchronised
        self._boot = boot_id()
        self._floor_ns = max(BUILT_NS, _saved_ns(self._path))
        self._stepped_ns: int | None = None
        self._saved_at_ns: int | None = None
        self._confirmed = False
        self.trusted, self.why = True, ""
        self.look()

    # -- steps ---------------------------------------------------------------------------------------

    def check(self) -> None:
        """Look whether the clock has stepped; called at the first frame stamped after it, and regularly."""
        was_ns = self._clock.monotonic_ns() + self._clock.ahead_ns
        moved_s = self._clock.rephase()
        if not moved_s:
            return
        now_ns = self._clock.wall_ns()
        self._stepped_ns = None if was_ns < self._floor_ns <= now_ns else self._clock.monotonic_ns()
        log.warning("the wall clock stepped by %+.1f s; polls go on, stamps follow it", moved_s)
        self.look()
        self._record(was_ns, now_ns)

    def _record(self, was_ns: int, now_ns: int) -> None:
        self._audit.record(
            "clock",
            by=OURSELVES,
            subject=self._boot,
            before=rfc3339(was_ns),
            after=rfc3339(now_ns),
            why=self.why,
            in_place=True,
            states=(STATE,),
            offset_ms=round((now_ns - was_ns) / 1e6),
            trusted=self.trusted,
        )

    def state(self) -> object:
        """What the next start needs to see whether the clock stepped meanwhile, in this boot."""
        return {"boot": self._boot, "ahead_ns": self._clock.ahead_ns}

    def resume(self, state: Mapping[str, Any] | None) -> None:
        """At the start, with the state as stored: record a step that came while nobody looked."""
        if state and state["boot"] == self._boot and self._clock.rate == 1.0:
            mono_ns, ahead_ns = self._clock.monotonic_ns(), self._clock.ahead_ns
            if abs(ahead_ns - state["ahead_ns"]) > self._clock.STEP_S * NS:
                self._record(mono_ns + state["ahead_ns"], mono_ns + ahead_ns)
                return
        self._audit.record("start", by=OURSELVES, subject=self._boot, states=(STATE,), trusted=self.trusted)

    # -- trust ---------------------------------------------------------------------------------------

    def look(self) -> None:
        """Weigh the evidence anew."""
        wall_ns, mono_ns = self._clock.wall_ns(), self._clock.monotonic_ns()
        told_ns = self._told()
        near = told_ns is not None and abs(mono_ns + told_ns - wall_ns) <= TOLERANCE_S * NS * self._clock.rate
        kernel = wall_ns >= BUILT_NS and self._clock.rate == 1.0 and bool(self._kernel())
        self._confirmed = kernel or near
        recent = self._stepped_ns is not None and mono_ns - self._stepped_ns < STEADY_S * NS
        if kernel:
            self._say(
                trusted=True,
                why="the kernel's clock is synchronised"
                + ("" if near or told_ns is None else "; the GNSS receiver tells another time"),
            )
        elif near:
            self._say(trusted=True, why="it is the GNSS receiver's time")
        elif told_ns is not None:
            self._say(trusted=False, why=f"the GNSS receiver says {rfc3339(mono_ns + told_ns)}")
        elif wall_ns < self._floor_ns:
            self._say(trusted=False, why=f"it shows a time before {rfc3339(self._floor_ns)}")
        elif recent:
            self._say(trusted=False, why="it stepped and nothing confirms it")
        else:
            self._say(trusted=True, why="nothing contradicts it")

    def known(self) -> Known | None:
        """What certificates are checked against while the wall clock shows what cannot be; else None."""
        mono_ns, told_ns = self._clock.monotonic_ns(), self._told()
        if not self.trusted and told_ns is not None:
            return Known(mono_ns + told_ns, exact=True)
        return Known(self._floor_ns, exact=False) if self._clock.wall_ns() < self._floor_ns else None

    def marked(self, readings: ReadingFrame) -> ReadingFrame:
        """`readings` as they are told while the clock is not trusted."""
        return replace(readings, qualities=readings.qualities.translate(_CLOCKED))

    async def run(self) -> Never:
        """Look now and then; save the time while it is confirmed."""
        while True:
            self.check()
            self.look()
            mono_ns = self._clock.monotonic_ns()
            due = self._saved_at_ns is None or mono_ns - self._saved_at_ns > SAVE_EVERY_S * NS
            if self._confirmed and due:
                self._saved_at_ns = mono_ns
                await asyncio.to_thread(_save, self._path, self._clock.wall_ns())
            await asyncio.sleep(LOOK_EVERY_S)

    def _told(self) -> int | None:
        """How far UTC is ahead of our monotonic clock, by a receiver that can be believed."""
        mono_ns = self._clock.monotonic_ns()
        for receiver in self._receivers:
            told = receiver.told
            if told is None or mono_ns - told[1] < GNSS_STEADY_S * NS * self._clock.rate:
                continue
            if mono_ns + told[0] >= BUILT_NS:  # else its week number has rolled over
                return told[0]
        return None

    def _say(self, *, trusted: bool, why: str) -> None:
        if trusted != self.trusted:
            log.warning("the wall clock is %s: %s", "trusted" if trusted else "not trusted", why)
        self.trusted, self.why = trusted, why


def kernel_synchronised() -> bool | None:
    """What adjtimex(2) says; None where it may not be asked (a seccomp filter)."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    if _libc().adjtimex(timex) < 0:
        return None
    return not int.from_bytes(timex.raw[_STATUS_AT : _STATUS_AT + 4], "little") & _UNSYNCHRONISED


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _saved_ns(path: Path) -> int:
    try:
        return parse_rfc3339(path.read_text().strip())
    except (OSError, ValueError):  # never saved, or torn: the build time is the floor then
        return 0


def _save(path: Path, time_ns: int) -> None:
    """Best effort: without it the floor is only lower."""
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("w") as file:
            file.write(rfc3339(time_ns))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except OSError as error:
        log.warning("%s: the time cannot be saved: %s", path, error.strerror)
