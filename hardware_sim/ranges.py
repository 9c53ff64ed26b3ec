"""Sets of sequence numbers as ranges: small while little is missing."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Ranges:
    """Whole numbers as sorted, disjoint, closed ranges."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __contains__(self, n: int) -> bool:
        i = bisect_right(self._firsts, n)
        return i > 0 and n <= self._lasts[i - 1]

    def __len__(self) -> int:
        return len(self._firsts)

    def add(self, n: int) -> None:
        i = bisect_right(self._firsts, n)
        if i and n <= self._lasts[i - 1]:
            return
        joins_left = i > 0 and self._lasts[i - 1] == n - 1
        joins_right = i < len(self._firsts) and self._firsts[i] == n + 1
        if joins_left and joins_right:
            self._lasts[i - 1] = self._lasts.pop(i)
            del self._firsts[i]
        elif joins_left:
            self._lasts[i - 1] = n
        elif joins_right:
            self._firsts[i] = n
        else:
            self._firsts.insert(i, n)
            self._lasts.insert(i, n)

    def pairs(self) -> list[list[int]]:
        return [[first, last] for first, last in zip(self._firsts, self._lasts, strict=True)]

    def missing(self) -> Iterator[tuple[int, int]]:
        """The ranges that lack between 1 and the highest number."""
        wanted = 1
        for first, last in zip(self._firsts, self._lasts, strict=True):
            if first > wanted:
                yield wanted, first - 1
            wanted = last + 1
