"""A timer that keeps fractions of a millisecond.

asyncio sleeps in epoll_wait, whose timeout is rounded up to whole milliseconds: at 115200 baud a gap of
1.75 ms becomes up to 2.75 ms, one part in five of a short transaction. A timerfd (timerfd_create(2)) is a
descriptor that becomes readable at the instant asked for, and the loop waits for descriptors to the
microsecond. Python has it from 3.13 on (os.timerfd_create); before that the C library is called.

Where the kernel has none, or no descriptor is left, `Timer` falls back on the loop's own timers: never
early, up to a millisecond late. That costs speed and no correctness.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK and TFD_CLOEXEC are the same bits
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME
_NS = 1_000_000_000


class Timer(Protocol):
    """One instant at a time; setting it anew forgets the one before."""

    def set(self, when: float) -> None:
        """Call back at `when`, in the loop's time."""
        ...

    def stop(self) -> None: ...

    def close(self) -> None:
        """Stop, and let go of what the kernel lent."""
        ...


def timer(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Timer:
    """The most precise timer there is; `callback` may run once after `stop`, if it was due already."""
    try:
        return KernelTimer(loop, callback)
    except OSError:
        return LoopTimer(loop, callback)


class LoopTimer:
    """The event loop's own: up to 1 ms late."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop, self._callback = loop, callback
        self._timer: asyncio.TimerHandle | None = None

    def set(self, when: float) -> None:
        self.stop()
        self._timer = self._loop.call_at(when, self._callback)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        self.stop()


class _Itimerspec(ctypes.Structure):
    """struct itimerspec: interval and value, each seconds and nanoseconds."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class KernelTimer:
    """A timerfd on CLOCK_MONOTONIC, which is the loop's clock on Linux.

    Raises:
        OSError: the kernel has none, or no descriptor is left.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop, self._callback = loop, callback
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            self._settime = libc.timerfd_settime
            self._fd: int = libc.timerfd_create(time.CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        except AttributeError as error:  # another C library
            raise OSError(str(error)) from error
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Itimerspec()
        self._at = ctypes.byref(self._spec)
        loop.add_reader(self._fd, self._fired)

    def set(self, when: float) -> None:
        # All zero would disarm it; one nanosecond after the boot is as good.
        self._spec.value_s, self._spec.value_ns = divmod(max(1, int(when * _NS)), _NS)
        self._settime(self._fd, _ABSOLUTE, self._at, None)

    def stop(self) -> None:
        self._spec.value_s = self._spec.value_ns = 0
        self._settime(self._fd, _ABSOLUTE, self._at, None)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _fired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # set anew, or stopped, in the same round of the loop
        self._callback()
