"""Tampering with a store, by hands with and without a key, and what the two verifiers make of it."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from daemon.keys import KeyRing, Place
from daemon.seal import ZERO_HASH, Seal, envelope, verify
from daemon.sealer import Checkpoints
from daemon.witness import Witness
from hardware_sim.receiver import Receiver
from hardware_sim.verify import verify as verify_platform

if TYPE_CHECKING:
    from pathlib import Path

TIME = "2026-11-23T08:00:00.000Z"
STREAM = "5eed"
ROOM = "pondwatch/1/site/gw1/"


@dataclass(frozen=True)
class Kept:
    seq: int
    payload: bytes
    hash: bytes
    kind: str = "audit"


def chained(bodies: list[bytes], stream: str = STREAM) -> list[Kept]:
    batches: list[Kept] = []
    prev = ZERO_HASH
    for seq, body in enumerate(bodies, 1):
        payload = envelope("test", stream, seq, prev, body)
        prev = sha256(payload).digest()
        batches.append(Kept(seq, payload, prev))
    return batches


class Gateway:
    """Batches, keys and seals as the daemon makes them: a seal every `every` batches, a key every `epoch`."""

    def __init__(self, folder: Path, count: int = 60, every: int = 5, epoch: int = 20) -> None:
        self.folder = folder
        self.bodies: list[bytes] = []
        self.ring = KeyRing.open(folder, "test", Place(STREAM, 0, ZERO_HASH.hex()), TIME)
        self.seals: list[Seal] = []
        self.announce()
        while len(self.bodies) < count:
            self.bodies.append(b'"n":%d' % len(self.bodies))
            seq = len(self.bodies)
            if seq % every == 0:
                self.seal()
            if seq % epoch == 0:
                self.ring.step(self.here(), TIME)
                self.announce()
        self.seal()

    def announce(self) -> None:
        """The key's certificate, as a batch of the chain."""
        record = b'"what":"key","to":' + msgspec.json.encode(self.ring.certificate)
        self.bodies.append(record)

    def here(self) -> Place:
        last = self.batches()[-1]
        return Place(STREAM, last.seq, last.hash.hex())

    def seal(self, here: Place | None = None, by: KeyRing | None = None) -> Seal:
        seal = sealed(by or self.ring, here or self.here())
        Checkpoints(self.folder, "test").append(seal)
        self.seals.append(seal)
        return seal

    def batches(self) -> list[Kept]:
        return chained(self.bodies)


def sealed(ring: KeyRing, here: Place) -> Seal:
    seal = Seal(1, "test", here.stream, here.seq, here.hash, TIME, ring.id, "ed25519", "")
    return msgspec.structs.replace(seal, signature=ring.sign(seal.statement()))


def found(folder: Path, batches: list[Kept]) -> tuple[int | None, list[int], list[str]]:
    """What `spool verify` makes of it: the break in the chain, the seqs and the sentences of the findings."""
    witness = Witness(folder, "test", STREAM)
    broken = verify(witness.watch(batches))
    return broken, [each.seq for each in witness.findings], [each.says for each in witness.findings]


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


def test_what_was_not_touched_is_whole_for_both_verifiers(gateway: Gateway, tmp_path: Path) -> None:
    assert found(gateway.folder, gateway.batches()) == (None, [], [])
    findings, said = verify_platform(received(tmp_path / "p.db", gateway, gateway.batches()))
    assert findings == []
    assert f"sealed up to {len(gateway.bodies)}" in said[0]


def test_a_changed_row_is_named_by_the_chain_itself(gateway: Gateway) -> None:
    batches = gateway.batches()
    for at in range(len(batches)):
        kept = batches[at]
        payload = kept.payload.replace(b'"seq":%d' % kept.seq, b'"seq":%d ' % kept.seq)
        changed = [*batches[:at], replace(kept, payload=payload), *batches[at + 1 :]]
        assert found(gateway.folder, changed)[0] == kept.seq


def test_a_chain_written_anew_from_any_batch_on_is_found_by_the_next_seal(gateway: Gateway) -> None:
    last = len(gateway.bodies)
    for seq in range(1, last + 1):
        bodies = [*gateway.bodies]
        bodies[seq - 1] = b'"forged":true'
        broken, seqs, says = found(gateway.folder, chained(bodies))
        assert broken is None  # as a chain it is whole: only signatures tell
        assert seq <= seqs[0] <= seq + 5
        assert "another hash" in says[0]


def test_a_tail_that_was_cut_off_is_found_by_the_newest_seal(gateway: Gateway) -> None:
    batches = gateway.batches()
    for keep in (1, 20, len(batches) - 1):
        _, seqs, says = found(gateway.folder, batches[:keep])
        assert seqs == [keep + 1]
        assert "its end is missing" in says[0]


def test_batches_trimmed_from_the_front_are_no_finding(gateway: Gateway) -> None:
    assert found(gateway.folder, gateway.batches()[33:]) == (None, [], [])


def test_the_thief_of_todays_key_cannot_seal_what_earlier_keys_have_sealed(gateway: Gateway) -> None:
    bodies = [*gateway.bodies]
    bodies[9] = b'"forged":true'
    forged = chained(bodies)
    for path in (gateway.folder / "checkpoints").iterdir():
        path.unlink()
    thief = KeyRing.open(gateway.folder, "test", gateway.here(), TIME)
    assert thief.id == gateway.ring.id
    for batch in forged[4::5]:
        gateway.seal(Place(STREAM, batch.seq, batch.hash.hex()), thief)
    _, seqs, says = found(gateway.folder, forged)
    assert "outside the epoch of its key" in says[0]
    assert any("the certificate of" in each and "another hash" in each for each in says)
    assert min(seqs) <= 15


def test_a_chain_of_keys_that_begins_anew_is_said(gateway: Gateway) -> None:
    (gateway.folder / "keys" / "test.key").unlink()
    KeyRing.open(gateway.folder, "test", gateway.here(), TIME)
    _, _, says = found(gateway.folder, gateway.batches())
    assert any("begins anew" in each for each in says)


def test_a_copy_of_the_key_that_goes_on_by_itself_is_said(gateway: Gateway, tmp_path: Path) -> None:
    chain = gateway.folder / "keys" / "test.chain"
    key = gateway.folder / "keys" / "test.key"
    image, before = key.read_bytes(), chain.read_bytes()
    gateway.ring.step(gateway.here(), TIME)
    key.write_bytes(image)
    KeyRing.open(gateway.folder, "test", gateway.here(), TIME).step(gateway.here(), TIME)
    assert len(chain.read_bytes()) > len(before)
    _, _, says = found(gateway.folder, gateway.batches())
    assert any("two hands" in each for each in says)


@pytest.mark.parametrize("member", ["seq", "hash", "time", "stream", "mode", "signature", "alg"])
def test_a_seal_with_any_member_changed_does_not_hold(gateway: Gateway, member: str, tmp_path: Path) -> None:
    seal = json.loads(msgspec.json.encode(gateway.seals[-1]))
    if member == "seq":
        seal["seq"] -= 1
    else:
        seal[member] = seal[member][:-1] + ("0" if seal[member][-1] != "0" else "1")
    Checkpoints(gateway.folder, "test").append(msgspec.convert(seal, Seal))
    _, _, says = found(gateway.folder, gateway.batches())
    assert len(says) == 1
    assert "not well signed" in says[0]
    receiver = Receiver()
    deliver(receiver, gateway, gateway.batches())
    receiver.take(ROOM + "seals", json.dumps(seal).encode())
    assert len(receiver.summary().seal_findings) == 1


def test_a_stranger_who_signs_with_a_key_of_his_own_seals_nothing(gateway: Gateway, tmp_path: Path) -> None:
    stranger = KeyRing.open(_made(tmp_path / "elsewhere"), "test", gateway.here(), TIME)
    gateway.seal(by=stranger)
    _, _, says = found(gateway.folder, gateway.batches())
    assert "which nobody certified" in says[0]


# -- the platform's own verifier ---------------------------------------------------------------------


def test_the_platform_finds_what_the_gateway_would_hide(gateway: Gateway, tmp_path: Path) -> None:
    """A gateway whose store was rewritten after the seals had left: the platform holds the old seals."""
    bodies = [*gateway.bodies]
    bodies[30] = b'"forged":true'
    findings, _ = verify_platform(received(tmp_path / "p.db", gateway, chained(bodies)))
    assert any("batch 35 of" in each or "batch 35 is not what was sealed" in each for each in findings)


def test_the_platform_names_a_missing_tail_and_a_missing_middle(gateway: Gateway, tmp_path: Path) -> None:
    batches = gateway.batches()
    findings, _ = verify_platform(received(tmp_path / "a.db", gateway, batches[:-3]))
    assert any("its end is missing" in each for each in findings)
    findings, _ = verify_platform(received(tmp_path / "b.db", gateway, batches[:30] + batches[32:]))
    assert any("batches 31 to 32 are missing" in each for each in findings)


def test_the_platform_takes_seals_keys_and_batches_in_any_order(gateway: Gateway) -> None:
    receiver = Receiver()
    for seal in reversed(gateway.seals):
        receiver.take(ROOM + "seals", msgspec.json.encode(seal))
    for batch in reversed(gateway.batches()):
        receiver.take(ROOM + batch.kind, batch.payload)
    summary = receiver.summary()
    assert summary.seal_findings == []
    assert summary.sealed_up_to == {f"gw1/{STREAM}": len(gateway.bodies)}
    assert (summary.holes, summary.chain_breaks, summary.forks) == (0, 0, 0)


def test_the_first_key_is_held_to_what_was_noted_at_enrolment(gateway: Gateway, tmp_path: Path) -> None:
    path = received(tmp_path / "p.db", gateway, gateway.batches())
    root = Witness(gateway.folder, "test", STREAM).root
    findings, said = verify_platform(path, {"gw1": root})
    assert findings == []
    assert not any("trusted because" in each for each in said)
    findings, _ = verify_platform(path, {"gw1": "0" * 16})
    assert any("the first key must be" in each for each in findings)


def test_todays_key_seals_no_earlier_epoch_for_the_platform_either(gateway: Gateway) -> None:
    receiver = Receiver()
    deliver(receiver, gateway, gateway.batches())
    batch = gateway.batches()[9]
    late = sealed(gateway.ring, Place(STREAM, batch.seq, batch.hash.hex()))
    receiver.take(ROOM + "seals", msgspec.json.encode(late))
    assert any("signs only from" in each for each in receiver.summary().seal_findings)


def test_two_gateways_from_one_image_are_reported_and_nothing_is_overwritten(tmp_path: Path) -> None:
    one = Gateway(_made(tmp_path / "one"), count=25, epoch=100)
    image = (one.folder / "keys" / "test.key").read_bytes()
    other = Gateway(_made(tmp_path / "other"), count=25, epoch=100)
    (other.folder / "keys" / "test.key").write_bytes(image)  # cloned: the same key, the same stream
    (other.folder / "keys" / "test.chain").unlink()
    other.ring = KeyRing.open(other.folder, "test", other.here(), TIME)
    other.bodies = [*one.bodies, *(b'"twin":%d' % n for n in range(5))]
    one.bodies += [b'"own":%d' % n for n in range(5)]
    receiver = Receiver(tmp_path / "p.db")
    for gateway in (one, other):
        gateway.ring.step(gateway.here(), TIME)
        gateway.announce()
        gateway.seal()
        deliver(receiver, gateway, gateway.batches())
    summary = receiver.summary()
    assert summary.forks == 6
    assert any("two hands" in each for each in summary.seal_findings)
    with sqlite3.connect(tmp_path / "p.db") as db:
        both = db.execute("SELECT seq, count(*) FROM batch GROUP BY seq HAVING count(*) > 1").fetchall()
    assert len(both) == 6
    receiver.close()


def test_two_gateways_of_one_name_with_stores_of_their_own_are_noticed() -> None:
    receiver = Receiver()
    ours, theirs = chained([b'"what":"x"'] * 3, "aa"), chained([b'"what":"x"'] * 3, "bb")
    for a, b in zip(ours, theirs, strict=True):
        receiver.take(ROOM + "audit", a.payload)
        receiver.take(ROOM + "audit", b.payload)
    assert receiver.summary().twins == 4
    assert receiver.summary().received == 6


def deliver(receiver: Receiver, gateway: Gateway, batches: list[Kept]) -> None:
    for batch in batches:
        receiver.take(ROOM + batch.kind, batch.payload)
    for seal in gateway.seals:
        receiver.take(ROOM + "seals", msgspec.json.encode(seal))


def received(path: Path, gateway: Gateway, batches: list[Kept]) -> Path:
    receiver = Receiver(path)
    deliver(receiver, gateway, batches)
    receiver.close()
    return path


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_ed25519_here_and_there_are_the_rfcs() -> None:
    """RFC 8032, 7.1, test 1: the key, an empty message, its signature."""
    private = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    assert private.public_key().public_bytes_raw().hex() == (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    )
    assert (
        private.sign(b"")
        .hex()
        .startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555")
    )
