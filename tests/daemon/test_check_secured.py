"""What `pondwatch check` says of uplinks with a url, TLS and a password."""

from __future__ import annotations

import pytest

from daemon.check_uplinks import check_uplinks
from daemon.findings import Findings
from tests.daemon.dialects import whole

INFLUX: dict[str, object] = {
    "id": "history",
    "kind": "influx",
    "url": "https://influx.example:8086/write?db=ponds",
}

SPARKPLUG: dict[str, object] = {
    "id": "scada",
    "kind": "sparkplug",
    "url": "mqtts://scada.example",
    "group": "tailings",
    "node": "gw1",
    "primary_host": "scada",
}


def said(uplink: dict[str, object]) -> tuple[list[str], list[str]]:
    """Problems and warnings."""
    found = Findings([])
    check_uplinks(whole({"site": {"id": "s", "gateway": "g"}, "uplink": [uplink]}), found)
    return [str(each) for each in found.problems], [str(each) for each in found.warnings]


def test_a_right_table_is_passed_in_silence() -> None:
    assert said(INFLUX) == said(SPARKPLUG) == ([], [])


@pytest.mark.parametrize(
    ("uplink", "problem"),
    [
        (INFLUX | {"url": "influx.example:8086"}, "uplink[0].url: 'influx.example:8086' must be https://"),
        (INFLUX | {"url": "https://gw1:secret@influx.example/write"}, "uplink[0].url: "),
        (INFLUX | {"url": "https://influx.example"}, "uplink[0].url: names no place to write to"),
        (INFLUX | {"url": "https://influx.example:99999/write"}, "uplink[0].url: "),
        (INFLUX | {"url": f"{INFLUX['url']}&precision=s"}, "uplink[0].url: must not say precision"),
        (INFLUX | {"url": "http://127.0.0.1/write", "ca": "ca.pem"}, "uplink[0].ca: is for TLS"),
        (INFLUX | {"key": "gw1.key"}, "uplink[0].certificate: is missing"),
        (INFLUX | {"password_file": "p"}, "uplink[0].username: is missing"),
        (INFLUX | {"username": "a", "token_file": "t"}, "uplink[0].token_file: stands beside a username"),
        (
            SPARKPLUG | {"url": "https://scada.example"},
            "uplink[0].url: 'https://scada.example' must be mqtt://",
        ),
        (SPARKPLUG | {"url": "mqtt://127.0.0.1", "ca": "k"}, "uplink[0].ca: is for TLS"),
    ],
)
def test_a_mistake_is_named_with_its_key(uplink: dict[str, object], problem: str) -> None:
    (only,), _ = said(uplink)
    assert only.startswith(problem)


def test_what_is_open_to_all_or_not_there_is_said() -> None:
    _, warnings = said(INFLUX | {"url": "http://influx.example/write", "token_file": "/no/token"})
    assert warnings == [
        "uplink[0].url: is not encrypted: anybody on the way can read and change what is sent",
        "uplink[0].token_file: there is no file /no/token",
    ]


def test_sparkplug_without_a_primary_host_waits_for_nobody_and_that_is_said() -> None:
    rest = {key: value for key, value in SPARKPLUG.items() if key != "primary_host"}
    _, (warning,) = said(rest)
    assert warning.startswith("uplink[0].primary_host: is missing: nobody is waited for")
