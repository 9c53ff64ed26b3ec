"""The key that signs for this gateway, and the chain of certificates behind it.

Forward security: a key signs for one epoch only. Then a new one is made, the old one signs a certificate for
it (and for the place in the store at which it takes over), and the old private key is overwritten. Who
copies the key today can sign from today on; for what was sealed in earlier epochs no private key exists any
more. The first certificate is signed by its own key: its id is what a platform is told at enrolment.

`keys/MODE.key` (0600) holds the private key and its certificate and is replaced in one rename: it is the
truth. `keys/MODE.chain` has all certificates, a line of JSON each; the newest is put there again if a power
cut came between the two. Modes have keys of their own: nothing simulated is signed with a site's real key.
Why this ratchet and no other: docs/decisions/0005-seals-by-a-chain-of-keys.md.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from daemon.seal import ALGORITHM, Certificate, key_id

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

FOLDER = "keys"
_MOST_BYTES = 64 << 10  # a key file is about a kilobyte


class _KeyFile(msgspec.Struct, frozen=True):
    private: str
    certificate: Certificate


class KeyMode(Exception):
    """The key file was made for another mode."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a store: the batch `seq` of `stream` has this hash (hex); seq 0 before the first."""

    stream: str
    seq: int
    hash: str


class KeyRing:
    """The private key of this epoch; made by `open`. Its methods touch the disk.

    Attributes:
        certificate: of the key in use.
    """

    def __init__(self, folder: Path, mode: str, key: Ed25519PrivateKey, certificate: Certificate) -> None:
        self.certificate = certificate
        self._path = folder / f"{mode}.key"
        self._mode = mode
        self._key = key

    @property
    def id(self) -> str:
        return self.certificate.key

    @classmethod
    def open(cls, store: Path, mode: str, here: Place, time: str) -> Self:
        """The key of `mode` in the folder `store`; made if there is none, or none that can be read.

        Args:
            store: the store's folder.
            mode: real, test or simulated.
            here: from where on a new key would sign.
            time: RFC 3339, for its certificate.

        Raises:
            KeyMode: somebody put another mode's key in its place.
            OSError: the folder cannot be read or written.
        """
        folder = store / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        found = _read(folder / f"{mode}.key")
        if found is None:
            key = Ed25519PrivateKey.generate()
            ring = cls(folder, mode, key, _certified(key, key, mode, here, time))
            ring._save()
        else:
            ring = cls(
                folder,
                mode,
                Ed25519PrivateKey.from_private_bytes(bytes.fromhex(found.private)),
                found.certificate,
            )
            if found.certificate.mode != mode:
                raise KeyMode(
                    f"{ring._path} is a key for {found.certificate.mode} data: put it back where it was"
                )
        ring._append()
        return ring

    def sign(self, statement: bytes) -> str:
        """The signature in hex."""
        return self._key.sign(statement).hex()

    def step(self, here: Place, time: str) -> Certificate:
        """Begin a new epoch after `here`: the new key's certificate. The old key is gone when this returns.

        Raises:
            OSError: the disk refuses; the old key stays in use.
        """
        key = Ed25519PrivateKey.generate()
        old = self._key, self.certificate
        certificate = _certified(key, self._key, self._mode, here, time)
        self._key, self.certificate = key, certificate
        try:
            self._save()
        except OSError:
            self._key, self.certificate = old
            raise
        self._append()
        return certificate

    def _save(self) -> None:
        """Replace the key file, then overwrite what the old one held.

        On flash, in a journal or in a snapshot a copy may outlive that; the disk offers nothing better.
        """
        body = msgspec.json.encode(_KeyFile(self._key.private_bytes_raw().hex(), self.certificate))
        fresh = self._path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        _write(fresh, body, os.O_CREAT | os.O_EXCL)
        try:
            before = os.open(self._path, os.O_WRONLY)
        except FileNotFoundError:
            before = -1
        try:
            fresh.rename(self._path)
            _sync_folder(self._path.parent)
            if before >= 0:
                os.pwrite(before, b"\0" * os.fstat(before).st_size, 0)
                os.fsync(before)
        finally:
            if before >= 0:
                os.close(before)

    def _append(self) -> None:
        """Put the certificate into the chain file unless it is there."""
        path = self._path.with_suffix(".chain")
        chain = read_chain(path)
        if self.certificate in chain[-1:]:
            return
        line = msgspec.json.encode(self.certificate) + b"\n"
        torn = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        _write(path, (b"\n" if torn else b"") + line, os.O_CREAT | os.O_APPEND)
        _sync_folder(path.parent)


def read_chain(path: Path) -> list[Certificate]:
    """The certificates of a chain file, oldest first; lines torn by a power cut are left out.

    Raises:
        OSError: the file is there and cannot be read.
    """
    found = []
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            found.append(msgspec.json.decode(line, type=Certificate))
        except msgspec.DecodeError:
            continue
    return found


def _certified(
    key: Ed25519PrivateKey, by: Ed25519PrivateKey, mode: str, here: Place, time: str
) -> Certificate:
    public = key.public_key().public_bytes_raw()
    unsigned = Certificate(
        mode=mode,
        key=key_id(public),
        alg=ALGORITHM,
        public=public.hex(),
        by=key_id(by.public_key().public_bytes_raw()),
        stream=here.stream,
        seq=here.seq,
        hash=here.hash,
        time=time,
        signature="",
    )
    return msgspec.structs.replace(unsigned, signature=by.sign(unsigned.statement()).hex())


def _read(path: Path) -> _KeyFile | None:
    """What the key file holds; one that cannot be understood is set aside and counts as none."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                log.warning("%s could be read by others; it is closed to them now", path)
                os.fchmod(file.fileno(), 0o600)
            found = msgspec.json.decode(file.read(_MOST_BYTES), type=_KeyFile)
        if len(bytes.fromhex(found.private)) == 32:  # noqa: PLR2004 -- Ed25519
            return found
        why = "its length is wrong"
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, ValueError) as error:
        why = str(error)
    log.error("%s is no key (%s): a new chain of keys begins; tell the platform its first id", path, why)
    path.rename(path.with_suffix(".bad"))
    return None


def _write(path: Path, body: bytes, flags: int) -> None:
    fd = os.open(path, os.O_WRONLY | flags, 0o600)
    try:
        os.write(fd, body)
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
