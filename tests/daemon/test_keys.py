"""The keys of a gateway: made once, replaced each epoch, and gone when replaced."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from daemon.keys import KeyMode, KeyRing, Place, read_chain
from hardware_sim import verify

if TYPE_CHECKING:
    from pathlib import Path

TIME = "2026-11-23T08:00:00.000Z"


def at(seq: int, stream: str = "s1") -> Place:
    return Place(stream, seq, f"{seq:064x}")


def ring(store: Path, mode: str = "test") -> KeyRing:
    return KeyRing.open(store, mode, at(0), TIME)


def test_the_key_is_made_at_the_first_start_for_its_owner_alone_and_found_at_the_next(tmp_path: Path) -> None:
    first = ring(tmp_path)
    path = tmp_path / "keys" / "test.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    again = ring(tmp_path)
    assert again.certificate == first.certificate
    assert again.sign(b"x") == first.sign(b"x")
    assert read_chain(path.with_suffix(".chain")) == [first.certificate]


def test_each_mode_has_a_key_of_its_own_and_anothers_is_refused(tmp_path: Path) -> None:
    real, simulated = ring(tmp_path, "real"), ring(tmp_path, "simulated")
    assert real.id != simulated.id
    (tmp_path / "keys" / "real.key").replace(tmp_path / "keys" / "simulated.key")
    with pytest.raises(KeyMode, match="is a key for real data"):
        ring(tmp_path, "simulated")


def test_every_certificate_is_signed_by_the_key_before_it(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    for seq in range(1, 6):
        keys.step(at(seq), TIME)
    chain = read_chain(tmp_path / "keys" / "test.chain")
    assert [each.seq for each in chain] == [0, 1, 2, 3, 4, 5]
    publics = {each.key: each.public for each in chain}
    for each in chain:  # by the platform's own words, which share no code with the daemon
        verify.check_signature(
            "pondwatch-key 1", verify.KEY_LINES, json.loads(json.dumps(_record(each))), publics[each.by]
        )
    assert [each.by for each in chain] == [chain[0].key, *(each.key for each in chain[:-1])]


def test_after_a_step_nothing_on_the_disk_can_sign_for_the_epoch_before(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    path = tmp_path / "keys" / "test.key"
    private = json.loads(path.read_bytes())["private"]
    with path.open("rb") as old:  # as somebody would who still has the file open
        keys.step(at(7), TIME)
        assert private.encode() not in old.read()
    for file in path.parent.iterdir():
        assert private.encode() not in file.read_bytes()
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(keys.certificate.public))
    public.verify(bytes.fromhex(keys.sign(b"now")), b"now")
    assert Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private)).sign(b"now").hex() != keys.sign(
        b"now"
    )


def test_a_power_cut_between_key_and_chain_loses_no_certificate(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    chain = tmp_path / "keys" / "test.chain"
    before = chain.read_bytes()
    keys.step(at(1), TIME)
    after = chain.read_bytes()
    for cut in range(len(before), len(after)):
        chain.write_bytes(after[:cut])
        assert ring(tmp_path).certificate == keys.certificate
        assert [each.key for each in read_chain(chain)][-1] == keys.id
        assert len(read_chain(chain)) == 2


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 900, b'{"private": "00"', b'{"private":"zz","certificate":{}}']
)
def test_a_key_file_that_cannot_be_read_is_set_aside_and_a_new_chain_begins(
    tmp_path: Path, content: bytes
) -> None:
    first = ring(tmp_path)
    path = tmp_path / "keys" / "test.key"
    path.write_bytes(content)
    second = ring(tmp_path)
    assert second.id != first.id
    assert second.certificate.by == second.id
    assert path.with_suffix(".bad").read_bytes() == content


def test_a_key_file_that_others_could_read_is_closed_to_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ring(tmp_path)
    path = tmp_path / "keys" / "test.key"
    path.chmod(0o644)
    ring(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "could be read by others" in caplog.text


def test_a_disk_that_refuses_the_new_key_keeps_the_old_one_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ring(tmp_path)
    before = keys.sign(b"x")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("daemon.keys._write", full)
    with pytest.raises(OSError, match="No space"):
        keys.step(at(1), TIME)
    assert keys.sign(b"x") == before
    monkeypatch.undo()
    assert ring(tmp_path).sign(b"x") == before


def _record(struct: object) -> dict[str, object]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}  # type: ignore[attr-defined]
