"""The ticks of a device: multiples of its period, which may change at one of them."""

from __future__ import annotations

_KEPT = 2  # earlier periods; further back nobody asks


class Rhythm:
    """A period that knows from which tick on it holds. Times are integers of one scale (ns, UTC)."""

    __slots__ = ("_earlier", "_since", "newest")

    def __init__(self, every: int) -> None:
        self.newest = every  # the period in the end, which holds from `_since` on
        self._since = 0
        self._earlier: list[tuple[int, int]] = []  # (first tick, period) before that, rising

    def change(self, every: int, since: int) -> None:
        """From the tick `since`, a multiple of `every`, it holds; what was to change later does not."""
        known = [*self._earlier, (self._since, self.newest)]
        self._earlier = [each for each in known if each[0] < since][-_KEPT:] or known[:1]
        self.newest, self._since = every, since

    def every(self, at: int) -> int:
        """The period that holds at this instant."""
        if at >= self._since:
            return self.newest
        return next((every for since, every in reversed(self._earlier) if at >= since), self._earlier[0][1])

    def tick(self, at: int) -> int:
        """The youngest tick at or before `at`."""
        return at - at % self.every(at)

    def after(self, at: int) -> int:
        """The first tick later than `at`."""
        every = self.every(at)
        tick = at - at % every + every
        if at >= self._since:
            return tick
        return next((since for since, _ in self._earlier if at < since <= tick), min(tick, self._since))
