"""Requests that are signed, and everything that only looks like it: row 53 of the fault matrix."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from daemon import requests
from daemon.alarms import NotAllowed
from daemon.audit import Audit
from daemon.clock import Clock
from daemon.config import File, SiteTable, StoreTable
from daemon.seal import key_id
from daemon.uplink.envelope import (
    REQUEST_BYTES,
    Acknowledge,
    Gate,
    Measure,
    NotAdmitted,
    Resend,
    Silence,
    Sound,
    Wanted,
)
from daemon.uplink.orders import MOST_WAITING, REFUSALS_A_MINUTE, Orders
from daemon.writer import Writer
from hardware_sim.request import signed

if TYPE_CHECKING:
    from daemon.config import Site
    from daemon.spool import Draft, Spool

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
RESEND = {"do": "resend", "stream": "s1", "from_seq": 3, "to_seq": 9}


def message(request: Any, seq: int = 1, key: Ed25519PrivateKey = KEY, **where: str) -> bytes:
    place = {"site": "site", "gateway": "gw1"} | where
    return signed(key, place["site"], place["gateway"], seq, request)


def gate(admitted: dict[str, int] | None = None) -> Gate:
    return Gate([PUBLIC.hex()], "site", "gw1", admitted or {})


def why(gate: Gate, payload: bytes) -> str:
    with pytest.raises(NotAdmitted) as refused:
        gate.admit(payload)
    return str(refused.value)


def test_a_signed_request_is_admitted_once_and_then_a_replay_after_a_restart_too() -> None:
    first = gate()
    envelope, request = first.admit(message(RESEND, seq=7))
    assert request == Resend("s1", 3, 9)
    assert envelope.key == key_id(PUBLIC)
    assert "replay" in why(first, message(RESEND, seq=7))
    assert "replay" in why(first, message(RESEND, seq=6))
    again = gate(json.loads(json.dumps(first.state())))
    assert "replay" in why(again, message(RESEND, seq=7))
    assert again.admit(message({"do": "measure"}, seq=8))[1] == Measure()


def test_a_strangers_key_and_anothers_gateway_are_refused() -> None:
    stranger = Ed25519PrivateKey.generate()
    assert "does not name" in why(gate(), message(RESEND, key=stranger))
    forged = json.loads(message(RESEND, key=stranger)) | {"key": key_id(PUBLIC)}
    assert "signature" in why(gate(), json.dumps(forged).encode())
    assert "signature" in why(gate(), message(RESEND, gateway="gw2"))
    assert "signature" in why(gate(), message(RESEND, site="other"))


@pytest.mark.parametrize("member", ["seq", "request", "signature", "key"])
def test_no_member_can_be_changed_on_the_way(member: str) -> None:
    envelope = json.loads(message(RESEND, seq=5))
    envelope[member] = (
        envelope[member] + 1 if member == "seq" else envelope[member].replace("3", "4", 1) + " "
    )
    mine = gate()
    why(mine, json.dumps(envelope).encode())
    assert mine.state() == {key_id(PUBLIC): 0}  # and nothing of it counts


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"x" * (REQUEST_BYTES + 1), "more than"),
        (b"", "no envelope"),
        (b"\xff\xfe", "no envelope"),
        (b"[" * 10_000, "no envelope"),
        (b'{"v":1,"key":' + b"[" * 10_000, "no envelope"),
        (b'{"v":2,"key":"","seq":1,"request":"","signature":""}', "no envelope"),
        (b'{"v":1,"key":"","seq":1e999,"request":"","signature":""}', "no envelope"),
    ],
    ids=["oversize", "empty", "no text", "deep", "deep inside", "another version", "huge number"],
)
def test_what_is_no_envelope_costs_a_sentence(payload: bytes, reason: str) -> None:
    assert reason in why(gate(), payload)


@pytest.mark.parametrize(
    "request_",
    [
        {"do": "shell", "command": "reboot"},
        {"do": "resend"},
        RESEND | {"extra": 1},
        {"do": "measure", "channels": "all"},
        [],
        "x",
    ],
)
def test_a_well_signed_request_for_something_unknown_is_refused_and_uses_up_no_number(request_: Any) -> None:
    mine = gate()
    assert "nothing known" in why(mine, message(request_, seq=4))
    mine.admit(message(RESEND, seq=4))


def test_a_deep_request_within_a_good_envelope_is_refused() -> None:
    mine = gate()
    deep = "[" * 7000
    assert "nothing known" in why(mine, _signed_text(deep))


@pytest.mark.parametrize("seq", [0, -1, 1 << 63, 1 << 70])
def test_numbers_outside_the_range_are_refused(seq: int) -> None:
    why(gate(), message(RESEND, seq=seq))


@given(st.binary(max_size=400))
def test_no_bytes_at_all_raise_anything_else(payload: bytes) -> None:
    why(gate(), payload)


@given(st.integers(0, 300), st.integers(0, 255))
def test_no_single_changed_byte_passes(at: int, byte: int) -> None:
    original = message(RESEND, seq=9)
    changed = bytearray(original)
    changed[at % len(changed)] = byte
    mine = gate()
    try:
        envelope, _ = mine.admit(bytes(changed))
    except NotAdmitted:
        return
    assert json.loads(bytes(changed)) == json.loads(original)  # white space, or the byte that was there
    assert envelope.seq == 9


# -- doing them --------------------------------------------------------------------------------------


class Kept(Writer):
    """A writer that keeps what it is handed."""

    def __init__(self) -> None:
        file = File(site=SiteTable(id="s", gateway="g"), store=StoreTable())
        super().__init__(cast("Spool", None), Clock(), cast("Site", file), {}, lambda _: None)
        self.audit = Audit(self, Clock(), cast("Site", file))
        self.marked: list[str] = []

    def put_urgent(self, drafts: Any, alarm_rows: Any) -> None:
        del alarm_rows
        drafts_: list[Draft] = list(drafts)
        self._others.extend(drafts_)
        self.marked += sorted(self._dirty)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(b"{" + draft.body + b"}") for draft in self._others]


class Core:
    """What orders act on: verbs as the control socket has them, and a resend that is written down."""

    def __init__(self) -> None:
        self.writer = Kept()
        self.deeds: list[Any] = []
        self.resent: list[tuple[str, int, int]] = []
        verbs: dict[Any, Any] = {requests.Read: self._read, requests.AlarmsAck: self._ack}
        verbs[requests.StormWarning] = self._warn
        self.sirens: list[tuple[Any, str]] = []
        self.orders = Orders("up", gate(), self.writer.audit, verbs, self._resend, self)

    def _resend(self, stream: str, first: int, last: int) -> str:
        self.resent.append((stream, first, last))
        return "" if stream == "s1" else "the stream here is s1"

    async def _read(self, request: requests.Read, caller: object) -> list[dict[str, Any]]:
        del caller
        return [{"channel": name, "value": 1.5} for name in request.channels]

    async def _warn(self, request: requests.StormWarning, caller: object) -> list[str]:
        del caller
        self.deeds.append((request.pond, request.level))
        return []

    def order(self, request: Sound | Silence, key: str) -> list[str]:
        if request.output != "public":
            raise NotAllowed("no public siren is called so")
        self.sirens.append((request, key))
        return ["system:siren.public:1"]

    async def _ack(self, request: requests.AlarmsAck, caller: object) -> dict[str, str]:
        del caller
        self.deeds.append((request.id, request.by))
        if request.id == "none":
            raise NotAllowed("no open alarm is called none")
        return {"id": request.id}

    async def done(self, count: int) -> list[dict[str, Any]]:
        task = asyncio.create_task(self.orders.run())
        async with asyncio.timeout(5):
            while sum(r["what"] == "request.done" for r in self.writer.records()) < count:
                await asyncio.sleep(0.001)
        task.cancel()
        return [record for record in self.writer.records() if record["what"] == "request.done"]


async def test_what_is_asked_is_done_and_both_are_in_the_audit() -> None:
    core = Core()
    core.orders.take(message(RESEND, seq=1))
    core.orders.take(message({"do": "measure", "channels": ["a"]}, seq=2))
    core.orders.take(message({"do": "acknowledge", "alarm": "x", "by": "王工"}, seq=3))
    core.orders.take(message({"do": "acknowledge", "alarm": "none", "by": "王工"}, seq=4))
    core.orders.take(message(RESEND | {"stream": "s9"}, seq=5))
    results = [record["to"] for record in await core.done(5)]
    assert core.resent == [("s1", 3, 9), ("s9", 3, 9)]
    assert core.deeds == [("x", "王工"), ("none", "王工")]
    assert results[:3] == [{"ok": None}, {"ok": [{"channel": "a", "value": 1.5}]}, {"ok": {"id": "x"}}]
    assert results[3:] == [{"refused": "no open alarm is called none"}, {"refused": "the stream here is s1"}]
    asked = [record for record in core.writer.records() if record["what"] == "request"]
    assert [record["by"] for record in asked] == [f"key {key_id(PUBLIC)}"] * 5
    assert asked[0]["to"] == RESEND
    assert "requests:up" in core.writer.marked  # the state goes with the record


async def test_a_warning_and_a_public_siren_are_asked_for_by_signed_request() -> None:
    core = Core()
    warning = {"do": "warning", "pond": "n", "level": "orange", "until": "6 h", "source": "14", "by": "台"}
    core.orders.take(message(warning, seq=1))
    core.orders.take(message({"do": "siren.sound", "output": "public", "seconds": 60, "by": "局"}, seq=2))
    core.orders.take(message({"do": "siren.sound", "output": "other", "seconds": 60, "by": "局"}, seq=3))
    core.orders.take(message({"do": "siren.silence", "output": "public", "by": "局"}, seq=4))
    results = [record["to"] for record in await core.done(4)]
    assert core.deeds == [("n", "orange")]
    name = key_id(PUBLIC)
    assert core.sirens == [(Sound("public", 60.0, "局"), name), (Silence("public", "局"), name)]
    assert results[2] == {"refused": "no public siren is called so"}


def test_no_request_of_the_control_socket_has_a_public_siren_sound() -> None:
    tags = {str(each.__struct_config__.tag) for each in requests.Request.__subclasses__()}
    assert not [tag for tag in tags if "siren" in tag]


async def test_refusals_are_audited_and_a_flood_of_them_fills_nothing() -> None:
    core = Core()
    for _ in range(1000):
        core.orders.take(b"[" * 1000)
    records = core.writer.records()
    assert len(records) == REFUSALS_A_MINUTE
    assert {record["what"] for record in records} == {"request.refused"}
    assert records[0]["why"] == "it is no envelope"
    core.orders._refusals.clear()
    core.orders.take(message(RESEND, key=Ed25519PrivateKey.generate()))
    assert core.writer.records()[-1]["not_recorded_before"] == 1000 - REFUSALS_A_MINUTE


async def test_more_requests_than_can_wait_are_refused() -> None:
    core = Core()
    for seq in range(1, MOST_WAITING + 3):
        core.orders.take(message(RESEND, seq=seq))
    refused = [record for record in core.writer.records() if record["what"] == "request.refused"]
    assert [record["why"] for record in refused] == ["too many requests are waiting"] * 2


def _signed_text(text: str) -> bytes:
    """An envelope around text that is no JSON."""
    return signed(KEY, "site", "gw1", 1, text, raw=True)


def test_every_request_on_the_page_is_admitted_and_none_is_left_out() -> None:
    page = (Path(__file__).parents[2] / "docs" / "requests.md").read_text()
    shown = [json.loads(line) for line in page.splitlines() if line.startswith('{"do"')]
    mine = gate()
    for seq, request in enumerate(shown, 1):
        mine.admit(message(request, seq=seq))
    assert {request["do"] for request in shown} == {
        each.__struct_config__.tag for each in (*Wanted.__subclasses__(), *Acknowledge.__subclasses__())
    }
