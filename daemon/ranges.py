"""Sets of whole numbers as a few closed intervals: what has been settled, compactly."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Ranges:
    """A set of integers, kept as sorted, disjoint, closed intervals that never touch.

    Two parallel lists, so that every question is one bisection.
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, pairs: Iterable[Sequence[int]] = ()) -> None:
        """The union of `pairs` (first, last), in any order, overlapping or not.

        Raises:
            ValueError: a pair is not two numbers, or its last comes before its first.
        """
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in pairs:
            self.add(first, last)

    def add(self, first: int, last: int | None = None) -> tuple[int, int]:
        """Put `first`..`last` (or `first` alone) in; returns the interval it is now part of.

        Raises:
            ValueError: last < first.
        """
        last = first if last is None else last
        if last < first:
            raise ValueError(f"the interval {first}..{last} ends before it begins")
        i = bisect_left(self._lasts, first - 1)  # from here on intervals reach up to us
        j = bisect_right(self._firsts, last + 1)  # from here on they begin beyond us
        if i < j:
            first = min(first, self._firsts[i])
            last = max(last, self._lasts[j - 1])
        self._firsts[i:j] = [first]
        self._lasts[i:j] = [last]
        return first, last

    def __contains__(self, number: int) -> bool:
        i = bisect_right(self._firsts, number) - 1
        return i >= 0 and number <= self._lasts[i]

    def gap_after(self, number: int) -> tuple[int, int | None]:
        """The first run of missing numbers above `number`; its last is None when nothing follows it."""
        missing = number + 1
        i = bisect_right(self._firsts, missing) - 1
        if i >= 0 and missing <= self._lasts[i]:
            missing = self._lasts[i] + 1
        return missing, self._firsts[i + 1] - 1 if i + 1 < len(self._firsts) else None

    def missing_after(self, number: int) -> int:
        """The smallest number above `number` that is not in the set."""
        return self.gap_after(number)[0]

    def count(self, first: int, last: int) -> int:
        """How many members lie in `first`..`last`."""
        i = bisect_left(self._lasts, first)
        j = bisect_right(self._firsts, last)
        inside = zip(self._firsts[i:j], self._lasts[i:j], strict=True)
        return sum(max(0, min(b, last) - max(a, first) + 1) for a, b in inside)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The intervals, ascending."""
        return zip(self._firsts, self._lasts, strict=True)

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and (self._firsts, self._lasts) == (other._firsts, other._lasts)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Ranges({self.to_list()})"

    def to_list(self) -> list[list[int]]:
        """As payloads and receipts write it: `[[1, 4711], [4720, 4733]]`."""
        return [[first, last] for first, last in self]

    def copy(self) -> Self:
        return type(self)(self)
