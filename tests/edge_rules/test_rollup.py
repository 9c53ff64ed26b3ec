from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_rules.law.levels import Level
from edge_rules.law.rollup import ChannelLevel, Counts, PondLevel, roll_up

N, B, Y, O, R = Level  # noqa: E741 -- the colours' initials


def of_points(*levels: Level, item: str = "phreatic-line") -> list[ChannelLevel]:
    return [ChannelLevel(item, f"PZ{i:02}", level) for i, level in enumerate(levels, 1)]


def item_level(*levels: Level) -> Level:
    return roll_up("n", of_points(*levels)).items[0].level


@pytest.mark.parametrize(
    ("points", "item"),
    [
        ([B, B, B, B], Y),  # seen in print
        ([Y, Y, Y], O),  # seen in print
        ([O, O], R),  # seen in print
        ([B, B, B], B),
        ([Y, Y], Y),
        ([O], O),
        ([R], R),  # a single red point is a red item: conservative reading
        ([B, B, B, B, Y, Y], O),  # what was counted counts on: conservative reading
        ([B] * 8, Y),
        ([B] * 12, O),
        ([B] * 24, R),
        ([B, B, B, Y], Y),  # a yellow point is no blue one
        ([N, N], N),
        ([], N),
    ],
)
def test_points_make_their_item(points: list[Level], item: Level) -> None:
    if not points:
        assert roll_up("n", []) == roll_up("n", [], Counts())
        assert roll_up("n", []).pond.level == item
        return
    assert item_level(*points) == item


def test_items_make_the_pond_with_the_same_counts() -> None:
    four = [one for name in "abcd" for one in of_points(B, item=name)]
    result = roll_up("n", four)
    assert [item.level for item in result.items] == [B, B, B, B]
    assert (result.pond.level, result.pond.counted, result.pond.because) == (Y, True, ("a", "b", "c", "d"))


def test_three_channels_of_one_gnss_are_one_point_and_the_highest_stands_for_it() -> None:
    gnss = [ChannelLevel("displacement", "G01", level) for level in (B, N, B)]
    others = [ChannelLevel("displacement", f"G0{i}", B) for i in (2, 3)]
    (item,) = roll_up("n", gnss + others).items
    assert (item.level, item.because) == (B, ("G01", "G02", "G03"))


def test_the_result_names_the_points_that_made_the_level() -> None:
    (item,) = roll_up("n", of_points(B, B, B, B, Y, Y, N)).items
    assert item.because == ("PZ01", "PZ02", "PZ03", "PZ04", "PZ05", "PZ06")
    assert item.counted
    (single,) = roll_up("n", of_points(B, B, O)).items
    assert (single.because, single.counted) == (("PZ03",), False)


def test_the_counts_come_from_configuration() -> None:
    counts = Counts(blue_to_yellow=2)
    assert roll_up("n", of_points(B, B), counts).items[0].level == Y
    assert Counts(blue_to_yellow=0).problems() == ["blue_to_yellow is 0; at least 1"]


channels = st.lists(
    st.builds(
        ChannelLevel,
        item=st.sampled_from("abcde"),
        monitoring_point=st.sampled_from([f"P{i}" for i in range(8)]),
        level=st.sampled_from(Level),
        known=st.booleans(),
    ),
    max_size=40,
)
some_counts = st.builds(Counts, *[st.integers(1, 5)] * 3)


def levels_of(result: PondLevel) -> dict[str, Level]:
    return {item.name: item.level for item in result.items} | {"pond": result.pond.level}


@given(channels, some_counts, st.data())
def test_a_channel_that_rises_never_lowers_anything(
    before: list[ChannelLevel], counts: Counts, data: st.DataObject
) -> None:
    after = [
        ChannelLevel(
            c.item, c.monitoring_point, Level(data.draw(st.integers(c.level, Level.RED))), known=c.known
        )
        for c in before
    ]
    low, high = levels_of(roll_up("n", before, counts)), levels_of(roll_up("n", after, counts))
    assert all(high[name] >= low[name] for name in low)


@given(channels, some_counts, st.data())
def test_a_missing_or_unknown_channel_never_lowers_anything_and_is_named(
    before: list[ChannelLevel], counts: Counts, data: st.DataObject
) -> None:
    lost = {c.monitoring_point for c in before if data.draw(st.booleans())}
    after = [
        ChannelLevel(c.item, c.monitoring_point, c.level, known=c.known and c.monitoring_point not in lost)
        for c in before
    ]
    result = roll_up("n", after, counts)
    assert levels_of(result) == levels_of(roll_up("n", before, counts))
    assert lost <= {point for item in result.items for point in item.unknown}


@given(channels, some_counts)
def test_an_item_is_at_least_its_highest_point_and_the_named_points_alone_make_it(
    before: list[ChannelLevel], counts: Counts
) -> None:
    for item in roll_up("n", before, counts).items:
        of_item = [c for c in before if c.item == item.name]
        assert item.level >= max(c.level for c in of_item)
        named = [c for c in of_item if c.monitoring_point in item.because]
        if item.level:
            assert roll_up("n", named, counts).items[0].level == item.level


@given(channels, channels, some_counts)
def test_more_points_never_lower_anything(
    before: list[ChannelLevel], more: list[ChannelLevel], counts: Counts
) -> None:
    low, high = levels_of(roll_up("n", before, counts)), levels_of(roll_up("n", [*before, *more], counts))
    assert all(high[name] >= low[name] for name in low)


@given(channels, some_counts)
def test_further_channels_of_a_point_count_no_more_than_its_highest(
    before: list[ChannelLevel], counts: Counts
) -> None:
    again = [*before, *before, *(replace(each, level=Level.NONE) for each in before)]
    assert levels_of(roll_up("n", again, counts)) == levels_of(roll_up("n", before, counts))
