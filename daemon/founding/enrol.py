"""What makes a gateway itself: its store, the key that signs for it, and a request for a TLS certificate.

No private key ever leaves the box: the platform gets the id of the first key, and the request.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from daemon.clock import Clock, boot_id
from daemon.keys import FOLDER, KeyRing, Place, read_chain
from daemon.reading import rfc3339
from daemon.replace import replace
from daemon.seal import ZERO_HASH
from daemon.spool import Spool

if TYPE_CHECKING:
    from daemon.spool import Mode

SECRETS: Final = Path("/etc/pondwatch/secrets")


class Enrolled(NamedTuple):
    """`root` is the id of the first key: what a platform notes at enrolment."""

    stream: str
    root: str


async def first_key(store: Path, mode: Mode) -> Enrolled:
    """Make store and key where there are none; what is there stays.

    Raises:
        StoreError, KeyMode, OSError: the store or its key cannot be had.
    """
    await asyncio.to_thread(store.mkdir, 0o750, parents=True, exist_ok=True)
    async with Spool.open(store, mode, boot_id()) as spool:
        stream = spool.stream
        if spool.last_seq == 0:  # a store in use makes its own key, from where it stands
            here = Place(stream, 0, ZERO_HASH.hex())
            KeyRing.open(store, mode, here, rfc3339(Clock().wall_ns()))
    to_owner(store)
    return Enrolled(stream, read_chain(store / FOLDER / f"{mode}.chain")[0].key)


def to_owner(store: Path) -> None:
    """What root makes in the service's folder belongs to the service, who is the folder's owner."""
    owner = store.stat()
    if os.geteuid() == 0 and owner.st_uid:
        for path in store.rglob("*"):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def request(folder: Path, site: str, gateway: str) -> Path:
    """A client's key (P-256, 0600) and its certificate request; a key that is there is kept.

    The subject is what topics carry: organisation the site, common name the gateway.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key_path, request_path = folder / f"{gateway}.key", folder / f"{gateway}.csr"
    if key_path.exists():
        loaded = serialization.load_pem_private_key(key_path.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey), f"{key_path} is of another kind"
        key = loaded
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        replace(key_path, pem, mode=0o600)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, site),
            x509.NameAttribute(NameOID.COMMON_NAME, gateway),
        ]
    )
    asked = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    replace(request_path, asked.public_bytes(serialization.Encoding.PEM))
    return request_path
