"""The ticks of a device: multiples of its period, which may change at one of them."""

from __future__ import annotations

_KEPT = 3  # changes; further back nobody asks


class Rhythm:
    """A period that knows from which tick on it holds. Times are integers of one scale (ns, UTC)."""

    __slots__ = ("_changes",)

    def __init__(self, every: int) -> None:
        self._changes = [(0, every)]  # (first tick, period), rising

    def change(self, every: int, since: int) -> None:
        """From the tick `since`, a multiple of `every`, it holds; what was to change later does not."""
        earlier = [change for change in self._changes if change[0] < since]
        self._changes = [*earlier[1 - _KEPT :], (since, every)]

    @property
    def newest(self) -> int:
        """The period in the end."""
        return self._changes[-1][1]

    def every(self, at: int) -> int:
        """The period that holds at this instant."""
        for since, every in reversed(self._changes):
            if at >= since:
                return every
        return self._changes[0][1]

    def tick(self, at: int) -> int:
        """The youngest tick at or before `at`."""
        return at - at % self.every(at)

    def after(self, at: int) -> int:
        """The first tick later than `at`."""
        tick = self.tick(at) + self.every(at)
        return next((since for since, _ in self._changes if at < since <= tick), tick)
