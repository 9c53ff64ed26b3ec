"""The offline bundle: package, wheelhouse, bill of materials, a signed list of all of it, an installer."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from systemd.package.sbom import sha256
from systemd.package.wheelhouse import NotBuilt

if TYPE_CHECKING:
    from collections.abc import Iterable

_INSTALLER = Path(__file__).with_name("install.sh")


def signing_key(path: Path | None) -> Ed25519PrivateKey:
    """The publisher's key; without one a key for this bundle alone, good against damage, not against malice.

    Raises:
        NotBuilt: the file is no Ed25519 key.
    """
    if path is None:
        return Ed25519PrivateKey.generate()
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise NotBuilt(f"{path}: no private key in PEM without a password: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise NotBuilt(f"{path}: no Ed25519 key; make one with openssl genpkey -algorithm ed25519")
    return key


def collect(folder: Path, files: Iterable[tuple[Path, str]], key: Ed25519PrivateKey) -> None:
    """The bundle as a folder: each file under its name, the list of hashes, its signature, the public key."""
    shutil.rmtree(folder, ignore_errors=True)
    for source, name in (*files, (_INSTALLER, "install.sh")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, folder / name)
    named = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    manifest = "".join(f"{sha256(folder / name)}  {name}\n" for name in named)
    (folder / "manifest.sha256").write_text(manifest)
    (folder / "manifest.sig").write_bytes(key.sign(manifest.encode()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "signer.pem").write_bytes(public)


def pack(folder: Path, time_s: int) -> Path:
    """One file of it, not compressed: what is in it is. Every file is of the same time and of root's."""

    def same(each: tarfile.TarInfo) -> tarfile.TarInfo:
        each.mtime, each.uid, each.gid, each.uname, each.gname = time_s, 0, 0, "root", "root"
        each.mode = 0o755 if each.isdir() else 0o644
        return each

    target = folder.with_name(folder.name + ".tar")
    with tarfile.open(target, "w") as archive:
        for path in (folder, *sorted(folder.rglob("*"))):
            archive.add(path, path.relative_to(folder.parent).as_posix(), recursive=False, filter=same)
    return target
