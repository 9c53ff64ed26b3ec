from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_sim import receiver as receiver_module
from hardware_sim.mqtt import Reason
from hardware_sim.ranges import Ranges
from hardware_sim.receiver import Receiver

if TYPE_CHECKING:
    import random as random_module

STREAM = "0b5e"


def topic(kind: str, gateway: str = "gw1") -> str:
    return f"pondwatch/1/liaocheng-1/{gateway}/{kind}"


def payload(seq: int, prev: str, stream: str = STREAM, **more: Any) -> bytes:
    body = {"v": 1, "mode": "test", "stream": stream, "seq": seq, "prev": prev, **more}
    return json.dumps(body).encode()


def readings(*channels: str) -> dict[str, Any]:
    one = {"time": "2026-11-23T08:00:00.000Z", "value": 1.0, "unit": "m", "quality": "good", "raw": {}}
    return {"site": "s", "gateway": "g", "readings": [{"channel": c, **one} for c in channels]}


def chain(length: int, stream: str = STREAM) -> list[tuple[str, bytes]]:
    """A chain of batches as the gateway makes it, computed here and not by the code under test."""
    prev, out = "0" * 64, []
    for seq in range(1, length + 1):
        batch = payload(seq, prev, stream, **readings("a", "b"))
        prev = hashlib.sha256(batch).hexdigest()
        out.append((topic("readings"), batch))
    return out


def take_all(receiver: Receiver, batches: list[tuple[str, bytes]]) -> None:
    for where, batch in batches:
        assert receiver.take(where, batch) == Reason.SUCCESS


@given(st.integers(1, 30), st.randoms(use_true_random=False), st.data())
def test_whatever_the_order_and_the_repeats_a_whole_chain_is_whole(
    length: int, random: random_module.Random, data: st.DataObject
) -> None:
    batches = chain(length)
    repeats = data.draw(st.lists(st.sampled_from(batches), max_size=10))
    sent = [*batches, *repeats]
    random.shuffle(sent)
    receiver = Receiver()
    take_all(receiver, sent)
    summary = receiver.summary()
    assert (summary.received, summary.repeats) == (length, len(repeats))
    assert (summary.forks, summary.holes, summary.chain_breaks) == (0, 0, 0)
    assert summary.readings_by_channel == {"a": length, "b": length}


@given(st.integers(2, 30), st.data())
def test_what_never_came_is_a_hole_and_is_never_receipted(length: int, data: st.DataObject) -> None:
    lost = data.draw(st.sets(st.integers(1, length - 1), min_size=1))
    receiver = Receiver()
    take_all(receiver, [b for i, b in enumerate(chain(length), 1) if i not in lost])
    assert receiver.summary().holes == len(lost)
    settled = {
        seq
        for _, receipt in receiver.receipts()
        for first, last in json.loads(receipt)["settled"]
        for seq in range(first, last + 1)
    }
    assert settled == set(range(1, length + 1)) - lost


@given(st.integers(2, 20), st.data(), st.booleans())
def test_one_changed_byte_anywhere_breaks_the_chain(
    length: int, data: st.DataObject, backwards: bool
) -> None:
    batches = chain(length)
    changed = data.draw(st.integers(0, length - 2))  # the last one has no successor that could tell
    where, batch = batches[changed]
    batches[changed] = (where, batch.replace(b'"unit": "m"', b'"unit": "M"'))
    receiver = Receiver()
    take_all(receiver, batches[::-1] if backwards else batches)
    assert receiver.summary().chain_breaks == 1


def test_the_first_batch_has_nothing_before_it() -> None:
    receiver = Receiver()
    receiver.take(topic("audit"), payload(1, "f" * 64))
    assert receiver.summary().chain_breaks == 1


@pytest.mark.parametrize("stored", [False, True])
def test_other_bytes_under_the_same_name_are_a_fork_and_both_are_kept(tmp_path: Path, stored: bool) -> None:
    path = tmp_path / "platform.db"
    receiver = Receiver(path if stored else None)
    one, other = payload(1, "0" * 64, note="one"), payload(1, "0" * 64, note="two")
    for batch in (one, other, one):
        receiver.take(topic("audit"), batch)
    summary = receiver.summary()
    assert (summary.received, summary.repeats, summary.forks) == (1, 1, 1)
    if stored:
        assert receiver._db is not None
        kept = {row[0] for row in receiver._db.execute("SELECT payload FROM batch")}
        assert kept == {one, other}
    receiver.close()


def test_two_gateways_and_two_streams_do_not_meet() -> None:
    receiver = Receiver()
    first = payload(1, "0" * 64)
    for where, batch in (
        (topic("audit", "gw1"), first),
        (topic("audit", "gw2"), first),
        (topic("audit", "gw1"), payload(1, "0" * 64, "other")),
    ):
        receiver.take(where, batch)
    assert receiver.summary().received == 3
    assert {where for where, _ in receiver.receipts()} == {topic("receipts", "gw1"), topic("receipts", "gw2")}


def test_a_receipt_names_what_was_stored_once_and_repeats_again() -> None:
    receiver = Receiver()
    batches = chain(5)
    take_all(receiver, batches[:2] + batches[3:])
    [(where, receipt)] = receiver.receipts()
    assert where == topic("receipts")
    assert json.loads(receipt) == {"v": 1, "stream": STREAM, "settled": [[1, 2], [4, 5]]}
    assert receiver.receipts() == []
    take_all(receiver, batches[3:4])  # the gateway did not hear us: it is told again
    assert json.loads(receiver.receipts()[0][1])["settled"] == [[4, 4]]


def test_gap_records_excuse_what_the_gateway_itself_declares_lost() -> None:
    receiver = Receiver()
    batches = chain(6)
    take_all(receiver, batches[:2] + batches[5:])
    assert receiver.summary().holes == 3
    last = hashlib.sha256(batches[5][1]).hexdigest()
    gap: dict[str, Any] = {
        "of": STREAM,
        "from_seq": 3,
        "to_seq": 4,
        "from": None,
        "to": None,
        "count": 4,
        "reason": "disk",
    }
    receiver.take(topic("gaps"), payload(7, last, **gap))
    summary = receiver.summary()
    assert (summary.holes, summary.gaps) == (1, 1)


@given(st.sets(st.integers(1, 40)), st.lists(st.tuples(st.integers(1, 40), st.integers(0, 15)), max_size=6))
def test_holes_are_counted_as_a_set_would(here: set[int], gaps: list[tuple[int, int]]) -> None:
    stream = receiver_module._Stream("s")
    for seq in here:
        stream.ranges.add(seq)
    stream.excused.extend((first, first + more) for first, more in gaps)
    excused = {n for first, more in gaps for n in range(first, first + more + 1)}
    assert stream.holes() == len(set(range(1, max(here, default=0) + 1)) - here - excused)


def test_alarms_are_listed_and_counted_by_level() -> None:
    receiver = Receiver()
    alarm: dict[str, Any] = {
        "id": "A1",
        "kind": "channel",
        "condition": "present",
        "response": "new",
        "time": "t",
        "was": "none",
    }
    prev = "0" * 64
    for seq, level in enumerate(("blue", "yellow", "yellow"), 1):
        batch = payload(seq, prev, **alarm, level=level, channel="n.pz01.elevation")
        prev = hashlib.sha256(batch).hexdigest()
        receiver.take(topic("alarms"), batch)
    summary = receiver.summary()
    assert summary.levels == {"blue": 1, "yellow": 2}
    assert [a.level for a in summary.alarms] == ["blue", "yellow", "yellow"]
    assert summary.alarms[0].channel == "n.pz01.elevation"


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"not json",
        b"[]",
        payload(0, "0" * 64),
        payload(1, "0" * 64).replace(b'"v": 1', b'"v": 2'),
        payload(1, "0" * 64, readings=[{"value": 1}]),
        bytes.fromhex("28b52ffd"),  # zstd, which this platform does not unpack
    ],
)
def test_what_is_no_version_1_payload_is_refused_and_counted(batch: bytes) -> None:
    receiver = Receiver()
    assert receiver.take(topic("readings"), batch) == Reason.PAYLOAD_INVALID
    assert receiver.summary().malformed == 1
    assert receiver.receipts() == []


def test_status_is_remembered_and_topics_of_others_are_left_alone() -> None:
    receiver = Receiver()
    receiver.take(topic("status"), b'{"v":1,"mode":"test","state":"online","version":"0"}')
    assert receiver.take("weather/now", b"\xff") == Reason.SUCCESS
    assert receiver.take(topic("requests"), b"{}") == Reason.SUCCESS
    assert receiver.summary().states == {"gw1": "online"}
    assert receiver.summary().malformed == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(0, 12))
def test_a_restarted_platform_remembers_every_batch(length: int, cut: int) -> None:
    batches = chain(length)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "platform.db"
        before = Receiver(path)
        take_all(before, batches[:cut])
        before.close()
        after = Receiver(path)
        assert after.summary().received == min(cut, length)
        take_all(after, batches)
        summary = after.summary()
        after.close()
    assert (summary.received, summary.repeats) == (length, min(cut, length))
    assert (summary.holes, summary.forks, summary.chain_breaks) == (0, 0, 0)


def test_memory_has_bounds_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver_module, "_MOST_HASHES", 3)
    monkeypatch.setattr(receiver_module, "_MOST_STREAMS", 1)
    receiver = Receiver()
    batches = chain(10)
    take_all(receiver, batches)
    take_all(receiver, batches[:1])  # its hash was forgotten, and there is no file to look it up
    assert receiver.summary().unverified == 1
    assert receiver.take(topic("audit"), payload(1, "0" * 64, "second")) == Reason.QUOTA_EXCEEDED
    assert receiver.summary().received == 10


@given(st.lists(st.integers(1, 40)))
def test_ranges_hold_what_a_set_holds(numbers: list[int]) -> None:
    ranges, plain = Ranges(), set()
    for n in numbers:
        ranges.add(n)
        plain.add(n)
        assert {m for a, b in ranges.pairs() for m in range(a, b + 1)} == plain
    assert all((n in ranges) == (n in plain) for n in range(42))
    firsts = [a for a, _ in ranges.pairs()]
    assert all(b + 1 < a for (_, b), a in zip(ranges.pairs(), firsts[1:], strict=False))
    lacking = {m for a, b in ranges.missing() for m in range(a, b + 1)}
    assert lacking == set(range(1, max(plain, default=0) + 1)) - plain
