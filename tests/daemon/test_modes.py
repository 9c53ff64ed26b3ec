"""Maintenance, drills, mutes: what is refused, how each ends by itself, what outlives a restart."""

from __future__ import annotations

import json
from math import nan
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.alarms import LEVELS, NotAllowed
from daemon.config import ChannelTable, DeviceTable, File, LineTable, Pond, Site, SiteTable
from daemon.modes import Drill, Maintenance, Modes, Mute
from drivers.sample import Block, Frame, Quality
from edge_rules.law.derived import Freeboard
from edge_rules.law.levels import Levels

if TYPE_CHECKING:
    from daemon.alarms import Level

S = 1_000_000_000
H = 3600 * S
ARMED = Levels(rising=True, red=1.0, source="d")


def device(name: str, line: str) -> DeviceTable:
    return DeviceTable(id=name, line=line, profile="p", every_s=60.0)


def channel(name: str, pond: str, **how: Any) -> ChannelTable:
    return ChannelTable(id=name, unit="m", item="pond-level", pond=pond, **how)


def modes() -> Modes:
    file = File(
        site=SiteTable(id="s", gateway="g"),
        ponds=(Pond(id="n"), Pond(id="e")),
        lines=(
            LineTable(id="l1", kind="modbus-rtu", port="x"),
            LineTable(id="l2", kind="modbus-rtu", port="y"),
        ),
        devices=(device("a", "l1"), device("b", "l1"), device("c", "l2")),
        channels=(
            channel("n.a", "n", source="a.x", barometer="c.p", levels=ARMED),
            channel("n.b", "n", source="b.x"),
            channel("n.board", "n", derive=Freeboard("n.b", 100.0), levels=ARMED),
            channel("e.c", "e", source="c.x", levels=ARMED),
            channel("e.a", "e", source="a.y", levels=ARMED),
        ),
    )
    return Modes(cast("Site", file))


def order(its: Modes, target: str, until_ns: int = H, by: str = "w", reason: str = "r") -> Maintenance:
    return its.maintain(target, by=by, reason=reason, now_ns=0, until_ns=until_ns)


def test_a_device_or_a_whole_line_can_be_under_maintenance() -> None:
    its = modes()
    order(its, "b")
    assert its.maintained == {"b"}
    its.end_maintenance("b")
    assert order(its, "a").devices == ("a",)
    assert its.maintained == {"a"}
    with pytest.raises(NotAllowed, match="is not under maintenance"):
        its.end_maintenance("b")


@pytest.mark.parametrize(
    ("before", "target", "pond"),
    [
        ((), "l1", "n"),  # all that pond n is armed with
        (("b",), "a", "n"),  # one after the other comes to the same
        (("b",), "c", "n"),  # n.a cannot do without its barometer, n.board not without b
        (("a",), "c", "e"),
    ],
)
def test_maintenance_never_takes_a_whole_pond(before: tuple[str, ...], target: str, pond: str) -> None:
    its = modes()
    for each in before:
        order(its, each)
    with pytest.raises(NotAllowed, match=f"no armed channel of pond {pond}"):
        order(its, target)
    assert its.maintained == set(before)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"target": "x"}, "no device or line x"),
        ({"by": " "}, "A name and a reason"),
        ({"reason": ""}, "A name and a reason"),
        ({"until_ns": 0}, "over already"),
        ({"until_ns": 8 * 24 * H}, "10080 min at most"),  # a repair has 7 days
    ],
)
def test_an_order_without_name_reason_or_a_proper_end_is_refused(how: dict[str, Any], words: str) -> None:
    with pytest.raises(NotAllowed, match=words):
        order(modes(), **({"target": "b"} | how))


def test_what_a_maintained_device_says_is_uncertain_and_what_is_missing_stays_missing() -> None:
    block = Block("b", "x", ("p",) * 4, ("m",) * 4)
    qualities = bytes((Quality.GOOD, Quality.CLOCK, Quality.NO_REPLY, Quality.SENTINEL))
    frame = Frame(block, 1, 2, 3, (1.0, 2.0, nan, nan), (1.0, 2.0, nan, nan), qualities)
    marked = modes().marked(frame)
    assert list(marked.qualities) == [
        Quality.MAINTENANCE,
        Quality.MAINTENANCE,
        Quality.NO_REPLY,
        Quality.SENTINEL,
    ]
    assert marked.values is frame.values


@pytest.mark.parametrize("level", LEVELS[1:])
def test_each_level_can_be_muted_for_its_own_time_and_no_longer(level: Level) -> None:
    most_h = {"blue": 24.0, "yellow": 8.0, "orange": 1.0, "red": 0.25}[level]
    its = modes()
    with pytest.raises(NotAllowed, match="at most"):
        its.mute("n", level, by="w", reason="r", now_ns=0, until_ns=round(most_h * H) + S)
    its.mute("n", level, by="w", reason="r", now_ns=0, until_ns=round(most_h * H))
    assert its.is_muted("n")
    assert not its.is_muted("e")


def test_nothing_can_be_muted_where_nothing_rings() -> None:
    with pytest.raises(NotAllowed, match="nothing rings"):
        modes().mute("n", "none", by="w", reason="r", now_ns=0, until_ns=S)
    with pytest.raises(NotAllowed, match="no pond x; this site has n, e"):
        modes().mute("x", "red", by="w", reason="r", now_ns=0, until_ns=S)


@pytest.mark.parametrize(("muted", "now"), [(m, n) for m in LEVELS[1:] for n in LEVELS])
def test_a_mute_ends_when_its_pond_stands_higher(muted: Level, now: Level) -> None:
    its = modes()
    its.mute("n", muted, by="w", reason="r", now_ns=0, until_ns=60 * S)
    over = its.expire(30 * S, {"n": LEVELS.index(now)})
    assert bool(over) == (LEVELS.index(now) > LEVELS.index(muted))
    assert its.is_muted("n") != bool(over)


def test_only_one_drill_at_a_time_and_it_says_test() -> None:
    its = modes()
    assert its.payload_mode() is None
    its.rehearse("n", "orange", by="w", reason="r", now_ns=0, until_ns=H)
    assert its.payload_mode() == "test"
    with pytest.raises(NotAllowed, match="is under way"):
        its.rehearse("e", "red", by="w", reason="r", now_ns=0, until_ns=H)
    its.end_drill()
    assert its.payload_mode() is None
    with pytest.raises(NotAllowed, match="no drill"):
        its.end_drill()
    with pytest.raises(NotAllowed, match="at most"):
        its.rehearse("n", "red", by="w", reason="r", now_ns=0, until_ns=3 * H)


def all_three() -> Modes:
    its = modes()
    order(its, "b", H)
    its.mute("n", "yellow", by="w", reason="r", now_ns=0, until_ns=2 * H)
    its.rehearse("e", "red", by="w", reason="r", now_ns=0, until_ns=H + 1)
    return its


def test_all_end_by_themselves_each_in_its_time() -> None:
    its = all_three()
    assert its.expire(H - 1, {}) == []
    assert [type(each) for each in its.expire(H, {})] == [Maintenance]
    assert its.maintained == frozenset()
    assert [type(each) for each in its.expire(H + 1, {})] == [Drill]
    assert [type(each) for each in its.expire(2 * H, {})] == [Mute]
    assert its.open() == []


def test_a_clock_that_steps_back_before_the_order_ends_it() -> None:
    its = all_three()
    assert len(its.expire(-1, {})) == 3


def test_what_was_ordered_outlives_a_restart_as_far_as_the_site_still_has_it() -> None:
    (state,) = all_three().states().values()
    stored = json.loads(msgspec.json.encode(state()))
    again = modes()
    again.restore(stored)
    assert again.open() == all_three().open()
    assert again.maintained == {"b"}
    stored["maintenance"][0]["target"] = "gone"
    stored["drill"]["pond"] = "gone"
    stored["mutes"][0]["pond"] = "gone"
    again.restore(stored)
    assert (again.open(), again.maintained, again.drill) == ([], frozenset(), None)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", "l1", "l2"]), st.booleans()), max_size=12))
def test_no_order_of_orders_blinds_a_pond(steps: list[tuple[str, bool]]) -> None:
    its = modes()
    for target, ends in steps:
        try:
            if ends:
                its.end_maintenance(target)
            else:
                order(its, target)
        except NotAllowed:
            pass
        assert {"b"} > its.maintained or its.maintained in ({"a"}, {"b"}, {"c"}, set())
