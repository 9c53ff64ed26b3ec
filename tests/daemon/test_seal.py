"""The chain, checked by json and hashlib alone; the head file, checked by tearing it."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.seal import ZERO_HASH, Head, HeadBusy, HeadFile, envelope, verify

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Row:
    seq: int
    payload: bytes
    hash: bytes


def chain(n: int) -> list[Row]:
    rows, prev = [], ZERO_HASH
    for seq in range(1, n + 1):
        payload = envelope("test", "ab12", seq, prev, b'"readings":[%d]' % seq)
        prev = hashlib.sha256(payload).digest()
        rows.append(Row(seq, payload, prev))
    return rows


def test_the_envelope_is_exactly_the_bytes_the_interface_page_names() -> None:
    payload = envelope("simulated", "5f3a", 7, bytes(range(32)), b'"site":"s","readings":[]')
    assert payload == (
        b'{"v":1,"mode":"simulated","stream":"5f3a","seq":7,'
        b'"prev":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",'
        b'"site":"s","readings":[]}'
    )
    assert json.loads(payload)["seq"] == 7


def test_prev_is_the_hash_of_the_payload_before_and_zeros_for_the_first() -> None:
    payloads = [row.payload for row in chain(3)]
    assert json.loads(payloads[0])["prev"] == "0" * 64
    for before, after in itertools.pairwise(payloads):
        assert json.loads(after)["prev"] == hashlib.sha256(before).hexdigest()


def test_a_whole_chain_verifies_from_any_start() -> None:
    rows = chain(5)
    assert verify(rows) is None
    assert verify(rows[2:]) is None
    assert verify([]) is None


@given(st.integers(0, 4), st.integers(0, 10_000))
def test_one_flipped_bit_is_found_at_its_own_batch(row: int, bit: int) -> None:
    rows = chain(5)
    damaged = bytearray(rows[row].payload)
    damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
    rows[row] = replace(rows[row], payload=bytes(damaged))
    assert verify(rows) == row + 1


@given(st.integers(0, 3))
def test_a_batch_forged_together_with_its_hash_is_found_at_the_next(row: int) -> None:
    rows = chain(5)
    payload = rows[row].payload.replace(b"readings", b"readinks")
    rows[row] = Row(row + 1, payload, hashlib.sha256(payload).digest())
    assert verify(rows) == row + 2


def test_a_missing_a_repeated_and_a_swapped_batch_are_found() -> None:
    rows = chain(4)
    assert verify([rows[0], rows[2], rows[3]]) == 3
    assert verify([rows[0], rows[0], rows[1]]) == 1
    assert verify([rows[1], rows[0]]) == 1
    assert verify([replace(rows[0], seq=2)]) == 2


def test_a_first_batch_that_names_a_predecessor_is_found() -> None:
    payload = envelope("test", "ab12", 1, b"x" * 32, b'"a":1')
    assert verify([Row(1, payload, hashlib.sha256(payload).digest())]) == 1


def test_batches_of_another_stream_do_not_continue_a_chain() -> None:
    rows = chain(2)
    payload = envelope("test", "ffff", 2, rows[0].hash, b'"a":1')
    assert verify([rows[0], Row(2, payload, hashlib.sha256(payload).digest())]) == 2


HEADS = [Head("ab12", seq, hashlib.sha256(b"%d" % seq).digest()) for seq in (0, 7, 12345678901, 8)]


def test_the_head_is_read_back_after_each_write(tmp_path: Path) -> None:
    file = HeadFile(tmp_path / "head")
    assert file.read() is None
    for head in HEADS:
        file.write(head)
        file.close()
        file = HeadFile(tmp_path / "head")
        assert file.read() == head
    file.close()
    assert (tmp_path / "head").stat().st_size == 8192


@pytest.mark.parametrize("kept", [0, 1, 17, 40, 60, 100, 120, 512, 4095])
def test_a_write_torn_anywhere_leaves_the_head_before_it_or_the_new_one(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "head"
    file = HeadFile(path)
    for older, newer in itertools.pairwise(HEADS):
        file.write(older)
        before = path.read_bytes()
        file.write(newer)
        after = path.read_bytes()
        (slot,) = (i for i in (0, 4096) if before[i : i + 4096] != after[i : i + 4096])
        torn = bytearray(before)
        torn[slot : slot + kept] = after[slot : slot + kept]
        (tmp_path / "torn").write_bytes(torn)
        reopened = HeadFile(tmp_path / "torn")
        assert reopened.read() in (older, newer)
        reopened.close()
    file.close()


def test_garbage_in_one_slot_leaves_the_other_and_garbage_in_both_is_no_head(tmp_path: Path) -> None:
    path = tmp_path / "head"
    file = HeadFile(path)
    file.write(HEADS[1])
    file.write(HEADS[2])
    file.close()
    whole = path.read_bytes()
    newest = 4096 if b" 12345678901 " in whole[4096:] else 0
    path.write_bytes(whole[:newest] + os.urandom(4096) + whole[newest + 4096 :])
    file = HeadFile(path)
    assert file.read() == HEADS[1]
    file.write(HEADS[3])  # and it can go on from there
    assert file.read() == HEADS[3]
    file.close()
    path.write_bytes(os.urandom(8192))
    file = HeadFile(path)
    assert file.read() is None
    file.close()


def test_whoever_has_the_head_open_has_it_alone(tmp_path: Path) -> None:
    file = HeadFile(tmp_path / "head")
    with pytest.raises(HeadBusy, match="another process"):
        HeadFile(tmp_path / "head")
    file.close()
    HeadFile(tmp_path / "head").close()
