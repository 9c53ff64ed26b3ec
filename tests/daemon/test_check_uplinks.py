"""What `pondwatch check` says of uplinks: mistakes of a dialect's table, and what of a pond each carries."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.carried import Carried, carried
from daemon.check_uplinks import check_uplinks
from daemon.findings import Findings
from daemon.uplink.tables import DIALECTS
from tests.daemon.dialects import whole

HYDROLOGY: dict[str, Any] = {
    "id": "hydrology",
    "kind": "sl651",
    "address": "10.0.0.9:5001",
    "centre": 1,
    "station": "0012345678",
    "password": "1234",
    "station_class": "4B",
}
HAZARD: dict[str, Any] = {
    "id": "hazard",
    "kind": "geohazard-mqtt",
    "url": "mqtts://hazard.example:8883",
    "device": "17165802",
}
CHANNELS = {
    "line": [{"id": "bus", "kind": "tcp", "address": "a:1"}],
    "channel": [
        {"id": name, "pond": "n", "from": "a.b", "unit": unit, "item": item}
        for name, unit, item in (("n.pond.level", "m", "pond-level"), ("n.g01.north", "mm", "displacement"))
    ],
}


BIT = {"bit": 2, "channel": "n.pond.level", "when": "alarm"}


def said(element: dict[str, Any], **more: Any) -> list[str]:
    return found_in(HYDROLOGY | {"element": [{"channel": "n.pond.level", "element": "3B"} | element]} | more)


def found_in(uplink: dict[str, Any]) -> list[str]:
    found = Findings([])
    check_uplinks(whole({"site": {"id": "s", "gateway": "g"}, "uplink": [uplink]} | CHANNELS), found)
    return [str(each) for each in (*found.problems, *found.warnings)]


@pytest.mark.parametrize(
    ("element", "more", "sentence"),
    [
        ({"channel": "n.pond.levle"}, {}, "uplink[0].element[0].channel: there is no channel 'n.pond.levle'"),
        ({"element": "FF01"}, {}, "element[0].digits: is missing: this program knows no format of element FF01"),
        ({"step": "7 min"}, {}, "element[0].step: must be whole minutes that fit a whole number of times"),
        ({}, {"ack_deadline": "20 s"}, "uplink[0].ack_deadline: must leave time for three times reply_deadline"),
        ({}, {"clock_program": "/no/such"}, "uplink[0].clock_program: there is no file /no/such"),
        ({"base": 80.0}, {}, "element[0].base: is for F5 to FC: other levels are not relative"),
        ({"element": "F5"}, {}, "element[0].base: is missing: the levels of F5 to FC are relative"),
        ({"element": "F4", "base": 80.0}, {}, "element[0].base: is for F5 to FC"),
        ({"element": "F4", "step": "5 min"}, {}, "element[0].step: is what the standard says, for the groups of F4"),
        ({}, {"state": [BIT | {"channel": "n.x"}]}, "uplink[0].state[0].channel: there is no channel 'n.x'"),
        ({}, {"state": [BIT | {"below": 1.0}]}, "uplink[0].state[0]: needs one of below, above and when"),
        ({}, {"state": [BIT, BIT]}, "uplink[0].state[1].bit: bit 2 is said twice"),
        ({}, {"state": [BIT]}, "uplink[0].state[0]: needs `unwatched` of the uplink"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_hydrology_uplink_is_named_with_its_place(
    element: dict[str, Any], more: dict[str, Any], sentence: str
) -> None:
    assert any(sentence in each for each in said(element, **more)), said(element, **more)
    assert said({}) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([{"channel": "n.g01.nroth", "code": "L1_GP_1", "field": "gpsTotalX"}], "there is no channel 'n.g01.nroth'"),
        ([{"channel": "n.g01.north", "code": "L1_XX_1"}], "value[0].code: no public code shows L1_XX_1"),
        ([{"channel": "n.g01.north", "code": "L1_GP_1", "field": "x"}], "value[0].field: no public code shows 'x' of"),
        ([{"channel": "n.g01.north", "code": "L1_GP_1", "field": "gpsTotalX"}, {"channel": "n.pond.level", "code": "L1_GP_1"}],
         "value[1].field: L1_GP_1 cannot be a bare number and have fields"),
        ([{"channel": "n.g01.north", "code": "L3_ST_1"}, {"channel": "n.pond.level", "code": "L3_ST_1"}],
         "value[1]: tells a place or a channel a second time"),
        ([{"channel": "n.g01.north", "code": "S1_ZT_1"}], "value[0].field: is missing: S1_ZT_1 has fields"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_hazard_uplink_is_named_with_its_place(
    values: list[dict[str, Any]], sentence: str
) -> None:
    found = found_in(HAZARD | {"value": values})
    assert any(sentence in each for each in found), found
    assert (
        "uplink[0]: geohazard-mqtt is de facto, from public code: compare it with the platform's own text"
        in found
    )


def test_a_channel_may_go_by_itself_and_in_the_groups_of_the_hour_and_no_element_twice() -> None:
    level = {"channel": "n.pond.level", "element": "3B"}
    group = {"channel": "n.pond.level", "element": "F5", "base": 80.0}
    told = HYDROLOGY | {"element": [level, group], "state": [BIT], "unwatched": "00000480"}
    assert found_in(told) == []
    for twice in (level, group, group | {"element": "F6"}, group | {"channel": "n.g01.north"}):
        assert found_in(told | {"element": [level, group, twice]}) == [
            "uplink[0].element[2]: tells an element or a channel a second time"
        ]


# -- what of a pond each uplink carries ----------------------------------------------------------------

WET = ["displacement", "phreatic-line", "dry-beach", "rainfall", "pond-level", "landslide"]
EXTRA = ["pore-pressure", "seepage-flow", "turbidity"]
TAILINGS = {"id": "u", "kind": "tailings-files", "project": "3", "project_name": "p", "folder": "/f"}
MQTT = {"id": "u", "kind": "mqtt", "url": "mqtts://b:1", "settle": "puback"}
NODE = {"id": "u", "kind": "sparkplug", "url": "mqtts://b:1", "group": "g", "node": "n"}
LINES = {"id": "u", "kind": "influx", "url": "https://h/write?db=x"}
POINTS = [
    {"code": "1", "type": "KSW", "value": "n.pond-level"},
    {"code": "2", "type": "GNSS", "x": "n.displacement"},
    {"code": "3", "type": "BWY", "x": "n.landslide"},  # no public text has its real-time record
    {"code": "4", "type": "QRX", "control_depth": "6", "value": "n.phreatic-line"},
]
ALL = [{"code": str(i), "type": "GNSS", "x": f"n.{item}"} for i, item in enumerate(WET)]
BWY = [{"type": "BWYSS", "fields": ["code", "time", "x"]}]


@pytest.mark.parametrize(
    ("uplink", "carries", "leaves_out", "cannot_express"),
    [
        (MQTT, [*WET, *EXTRA], [], []),
        (NODE, [*WET, *EXTRA], [], []),
        (LINES, [*WET, *EXTRA], [], []),
        (TAILINGS | {"point": POINTS}, ["displacement", "phreatic-line", "pond-level"],
         ["dry-beach", "rainfall", "landslide"], EXTRA),
        (TAILINGS | {"point": POINTS, "record": BWY}, ["displacement", "phreatic-line", "pond-level", "landslide"],
         ["dry-beach", "rainfall"], EXTRA),
        (TAILINGS | {"point": ALL}, WET, [], EXTRA),
        (HYDROLOGY | {"element": [{"channel": "n.pond-level", "element": "3B"}]}, ["pond-level"],
         ["phreatic-line", "rainfall", *EXTRA], ["displacement", "dry-beach", "landslide"]),
        (HYDROLOGY | {"element": [{"channel": "n.displacement", "element": "FF01", "digits": 6, "decimals": 3}]},
         ["displacement"], ["phreatic-line", "rainfall", "pond-level", *EXTRA], ["dry-beach", "landslide"]),
        (HAZARD | {"value": [{"channel": "n.displacement", "code": "L1_GP_1", "field": "gpsTotalX"}]},
         ["displacement"], ["phreatic-line", "rainfall", "pond-level", "landslide", "pore-pressure"],
         ["dry-beach", "seepage-flow", "turbidity"]),
    ],
)  # fmt: skip
def test_each_uplink_says_what_of_a_pond_it_carries_and_what_it_has_no_words_for(
    uplink: dict[str, Any], carries: list[str], leaves_out: list[str], cannot_express: list[str]
) -> None:
    (its,) = carried(site_of(uplink, [*WET, *EXTRA]))
    assert its == Carried(uplink["id"], uplink["kind"], "n", carries, leaves_out, cannot_express, [])


def test_every_dialect_is_asked_what_it_carries() -> None:
    asked = {uplink["kind"] for uplink in (MQTT, NODE, LINES, TAILINGS, HYDROLOGY, HAZARD)}
    assert asked == {"mqtt", *DIALECTS}


def test_what_no_channel_monitors_and_what_a_pond_need_not_have_is_no_fault_of_the_uplink() -> None:
    (its,) = carried(site_of(MQTT, ["displacement", "rainfall"], kind="dry"))
    assert (its.carries, its.not_monitored) == (["displacement", "rainfall"], ["phreatic-line"])
    (its,) = carried(site_of(MQTT, WET, grade=4))
    assert its == Carried("u", "mqtt", "n", WET, [], [], [])


def site_of(uplink: dict[str, Any], items: list[str], kind: str = "wet", grade: int = 3) -> Any:
    channels = [{"id": f"n.{i}", "pond": "n", "from": "a.b", "unit": "m", "item": i} for i in items]
    return whole(
        {
            "site": {"id": "s", "gateway": "g"},
            "line": [{"id": "bus", "kind": "tcp", "address": "a:1"}],
            "pond": [{"id": "n", "kind": kind, "grade": grade}],
            "channel": channels,
            "uplink": [uplink],
        }
    )
