"""What `pondwatch check` says of uplinks: mistakes of a dialect's table."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.check_uplinks import check_uplinks
from daemon.findings import Findings
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
CHANNELS = {
    "line": [{"id": "bus", "kind": "tcp", "address": "a:1"}],
    "channel": [
        {"id": name, "pond": "n", "from": "a.b", "unit": unit, "item": item}
        for name, unit, item in (("n.pond.level", "m", "pond-level"), ("n.g01.north", "mm", "displacement"))
    ],
}


def said(element: dict[str, Any], **more: Any) -> list[str]:
    uplink = HYDROLOGY | {"element": [{"channel": "n.pond.level", "element": "3B"} | element]} | more
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
    ],
)  # fmt: skip
def test_a_mistake_in_a_hydrology_uplink_is_named_with_its_place(
    element: dict[str, Any], more: dict[str, Any], sentence: str
) -> None:
    assert any(sentence in each for each in said(element, **more)), said(element, **more)
    assert said({}) == []
