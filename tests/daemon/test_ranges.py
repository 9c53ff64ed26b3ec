"""Ranges against their slow twin, a Python set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.ranges import Ranges

PAIRS = st.lists(
    st.tuples(st.integers(-5, 40), st.integers(0, 9)).map(lambda p: (p[0], p[0] + p[1])), max_size=20
)


def members(ranges: Ranges) -> set[int]:
    return {n for first, last in ranges for n in range(first, last + 1)}


@given(PAIRS)
def test_intervals_hold_what_a_set_holds(pairs: list[tuple[int, int]]) -> None:
    ranges, twin = Ranges(), set[int]()
    for first, last in pairs:
        merged = ranges.add(first, last)
        twin.update(range(first, last + 1))
        assert members(ranges) == twin
        assert merged in list(ranges)
        assert merged[0] <= first <= last <= merged[1]
    for n in range(-8, 55):
        assert (n in ranges) == (n in twin)


@given(PAIRS)
def test_intervals_are_sorted_and_never_touch(pairs: list[tuple[int, int]]) -> None:
    ends = [n for pair in Ranges(pairs) for n in pair]
    assert ends == sorted(ends)
    assert all(b + 1 < a for b, a in zip(ends[1::2], ends[2::2], strict=False))


@given(PAIRS, st.integers(-8, 55))
def test_the_gap_after_a_number_is_the_run_a_set_would_show(pairs: list[tuple[int, int]], after: int) -> None:
    ranges = Ranges(pairs)
    twin = members(ranges)
    first, last = ranges.gap_after(after)
    assert first == next(n for n in range(after + 1, 200) if n not in twin) == ranges.missing_after(after)
    above = [n for n in twin if n > first]
    assert last == (min(above) - 1 if above else None)


@given(PAIRS, st.integers(-8, 55), st.integers(-8, 55))
def test_count_is_the_sets_count(pairs: list[tuple[int, int]], first: int, last: int) -> None:
    ranges = Ranges(pairs)
    assert ranges.count(first, last) == sum(first <= n <= last for n in members(ranges))


@given(PAIRS)
def test_the_order_of_adding_never_matters_and_lists_carry_all(pairs: list[tuple[int, int]]) -> None:
    ranges = Ranges(pairs)
    assert ranges == Ranges(reversed(pairs)) == Ranges(ranges.to_list()) == ranges.copy()
    assert bool(ranges) == bool(pairs)


def test_a_copy_is_independent() -> None:
    ranges = Ranges([(1, 3)])
    ranges.copy().add(9)
    assert ranges.to_list() == [[1, 3]]


@pytest.mark.parametrize("pairs", [[(3, 1)], [(1, 2, 3)], [(1,)]])
def test_what_is_no_interval_is_refused(pairs: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"ends before|unpack"):
        Ranges(pairs)
