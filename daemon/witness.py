"""Holds a store against its seals and certificates: `pondwatch spool verify` beside the chain itself.

The chain alone shows a change that was made without care. Who writes all later hashes anew makes a whole
chain again; the first seal at or after the change then names another hash, and who cuts off the end leaves a
seal without its batch. What is named is the first seal that does not fit: the change lies between it and the
last that does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from daemon.keys import FOLDER, read_chain
from daemon.seal import ALGORITHM, key_id
from daemon.sealer import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from daemon.seal import Certificate, Seal, Sealed

B = TypeVar("B", bound="Sealed")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was signed; `seq` where in the store, 0 where nowhere in particular."""

    seq: int
    says: str


class Witness:
    """Everything signed that is kept beside the store of `stream` in `folder`.

    Args:
        folder: the store's folder.
        mode: of the store.
        stream: of the store; seals of other streams are checked for their signature alone.

    Attributes:
        findings: what does not fit, in order of seq once all batches were watched.
        root: id of the first key; "" where nothing was ever signed. Compare with what the platform knows.
        seals: how many seals and certificates of this stream hold the store to something.
    """

    def __init__(self, folder: Path, mode: str, stream: str) -> None:
        self.findings: list[Finding] = []
        self._stream = stream
        chain = read_chain(folder / FOLDER / f"{mode}.chain")
        self.root = chain[0].key if chain else ""
        self._epochs = self._check_chain(chain, mode)
        self._wanted: dict[int, tuple[str, str]] = {}  # seq -> hash it must have, and who says so
        for certificate in self._epochs.values():
            self._hold(
                certificate.stream, certificate.seq, certificate.hash, f"the certificate of {certificate.key}"
            )
        for seal in Checkpoints(folder, mode):
            if self._check_seal(seal):
                self._hold(seal.stream, seal.seq, seal.hash, f"the seal of {seal.time}")
        self.seals = len(self._wanted)
        self._good = 0

    def watch(self, batches: Iterable[B]) -> Iterator[B]:
        """`batches`, ascending and to the end, passed through and held against what was signed."""
        first = last = 0
        for batch in batches:
            first, last = first or batch.seq, batch.seq
            hash_, who = self._wanted.pop(batch.seq, ("", ""))
            if hash_ == batch.hash.hex():
                self._good = batch.seq
            elif hash_:
                after = f"after batch {self._good}, which fits" if self._good else "anywhere before"
                self._find(batch.seq, f"{who} has another hash for it: it was changed here or {after}")
            yield batch
        for seq, (_, who) in sorted(self._wanted.items()):
            if seq > last:
                self._find(
                    last + 1, f"{who} is for batch {seq}, and the store ends at {last}: its end is missing"
                )
                break
            if seq >= first:
                self._find(seq, f"{who} is for a batch that is missing")
        self.findings.sort(key=lambda finding: finding.seq)

    def _check_chain(self, chain: Sequence[Certificate], mode: str) -> dict[str, Certificate]:
        """The certificates that hold, by key, in their order."""
        good: dict[str, Certificate] = {}
        for certificate in chain:
            by = good.get(certificate.by)
            public = by.public if by else certificate.public
            newest = next(reversed(good), certificate.by)
            if certificate.mode != mode or not _holds(certificate, public):
                self._find(0, f"the certificate of key {certificate.key} is not well signed")
            elif by is None and good:
                self._find(
                    0, f"the chain of keys begins anew with {certificate.key}: ask who replaced the key"
                )
                good[certificate.key] = certificate
            elif by is not None and certificate.by != newest:
                self._find(0, f"key {certificate.by} has certified two successors: two hands have had it")
            elif (
                by is not None
                and (certificate.stream, certificate.seq) < (by.stream, by.seq)
                and (certificate.stream == by.stream)
            ):
                self._find(0, f"the certificate of key {certificate.key} goes back in the store")
            else:
                good[certificate.key] = certificate
        return good

    def _check_seal(self, seal: Seal) -> bool:
        certificate = self._epochs.get(seal.key)
        if certificate is None:
            return self._find(
                seal.seq, f"the seal of {seal.time} is by key {seal.key}, which nobody certified"
            )
        if not _holds(seal, certificate.public):
            return self._find(seal.seq, f"the seal of {seal.time} is not well signed")
        if not self._in_epoch(seal, certificate):  # a key of today must not seal the past
            return self._find(seal.seq, f"the seal of {seal.time} lies outside the epoch of its key")
        return True

    def _in_epoch(self, seal: Seal, certificate: Certificate) -> bool:
        """Between its own certificate and the next; a stream that ended before this key may not come back."""
        keys = list(self._epochs)
        at = keys.index(seal.key)
        if certificate.stream == seal.stream:
            begun = seal.seq >= certificate.seq
        else:
            begun = all(self._epochs[key].stream != seal.stream for key in keys[:at])
        after = self._epochs[keys[at + 1]] if at + 1 < len(keys) else None
        ended = after is not None and after.stream == seal.stream and seal.seq > after.seq
        return begun and not ended

    def _hold(self, stream: str, seq: int, hash_: str, who: str) -> None:
        if stream != self._stream or not seq:
            return
        before = self._wanted.setdefault(seq, (hash_, who))
        if before[0] != hash_:
            self._find(seq, f"{before[1]} and {who} differ")

    def _find(self, seq: int, says: str) -> bool:
        self.findings.append(Finding(seq, says))
        return False


def _holds(signed: Certificate | Seal, public: str) -> bool:
    """Whether `signed` carries the signature of the key `public` (hex)."""
    try:
        key = bytes.fromhex(public)
        Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(signed.signature), signed.statement())
    except (ValueError, InvalidSignature):
        return False
    named = getattr(signed, "public", public)
    return signed.alg == ALGORITHM and signed.key == key_id(bytes.fromhex(named))
