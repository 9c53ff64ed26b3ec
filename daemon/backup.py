"""A gateway in one file, and a gateway made of it again.

The store is copied by SQLite itself while the core writes it, so the copy is of one moment. Private keys
stay where they are unless they are asked for: a copy of the signing key could seal in its name; who
restores without it begins a new chain of keys, which the platform is told. TLS keys and passwords are never
in it. A restored store is an old image: its head is put ahead of it, so the core begins a new stream and
announces what may lack, instead of giving numbers away a second time.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import zlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import apsw
import msgspec

from daemon.archive import Archive, first_bad
from daemon.keys import FOLDER
from daemon.seal import ZERO_HASH, Head, HeadFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.config import Site

_MANIFEST: Final = "manifest.json"
_STORE: Final = "spool.db"
_SITE: Final = "site.toml"
_CHUNK: Final = 1 << 20
_MOST_MANIFEST: Final = 1 << 20


class BackupError(Exception):
    """It cannot be made or used; one sentence."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is in a backup; `files`: name -> SHA-256 in hex."""

    format: int
    version: str
    time: str
    site: str
    gateway: str
    mode: str
    stream: str
    last_seq: int
    has_keys: bool
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gateway's files lie."""

    config: Path
    store: Path


# -- making ------------------------------------------------------------------------------------------------


def make(site: Site, to: Path, version: str, time: str, *, with_keys: bool) -> Manifest:
    """Write the backup of a gateway, running or not, to `to`; whole or not at all.

    Raises:
        BackupError: the store cannot be read, or is not whole.
        OSError: there is no room, or no such folder.
    """
    with tempfile.TemporaryDirectory(prefix=".pondwatch-backup-", dir=to.parent) as folder:
        copy = Path(folder) / _STORE
        try:
            last_seq, stream, mode = _copied(site.store_folder / _STORE, copy)
        except apsw.Error as error:
            raise BackupError(f"{site.store_folder / _STORE} cannot be read: {error}") from None
        members = {_STORE: copy, _SITE: site.path, **_keys(site.store_folder / FOLDER, with_keys=with_keys)}
        manifest = Manifest(
            1,
            version,
            time,
            site.site.id,
            site.site.gateway,
            mode,
            stream,
            last_seq,
            with_keys,
            {name: _digest(path) for name, path in members.items()},
        )
        whole = Path(folder) / "whole"
        with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            _write(file, manifest, members)
            file.flush()
            os.fsync(file.fileno())
        whole.rename(to)
    return manifest


def _copied(store: Path, to: Path) -> tuple[int, str, str]:
    """Copy the store as of one moment; its last seq, stream and mode, once the copy is known to be whole."""
    if not store.exists():
        raise BackupError(f"there is no store at {store}: the core has not run yet, or [store] path differs")
    with (
        closing(apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READONLY)) as source,
        closing(apsw.Connection(str(to))) as target,
    ):
        source.set_busy_timeout(10_000)
        with target.backup("main", source, "main") as copying:
            copying.step(-1)
        target.pragma("journal_mode", "delete")  # one file, without a WAL beside it
    return _looked_through(to)


def _looked_through(store: Path) -> tuple[int, str, str]:
    """Last seq, stream and mode of a store whose chain is whole.

    Raises:
        BackupError: it is not.
    """
    with Archive(store) as archive:
        bad = first_bad(archive.batches(), archive.gone)
        if bad is not None:
            raise BackupError(f"the chain is broken at batch {bad}: see pondwatch spool verify")
        return max((row[4] for row in archive.kinds()), default=0), archive.stream, archive.mode


def _keys(folder: Path, *, with_keys: bool) -> dict[str, Path]:
    """Certificates and seals, which are public, and the private key where it was asked for."""
    wanted = {".chain", ".new", ".old"} | ({".key"} if with_keys else set())
    return {
        f"{FOLDER}/{path.name}": path
        for path in sorted(folder.glob("*"))
        if path.suffix in wanted and path.stem in ("real", "test", "simulated") and path.is_file()
    }


def _write(file: IO[bytes], manifest: Manifest, members: dict[str, Path]) -> None:
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
        body = msgspec.json.format(msgspec.json.encode(manifest))
        info = tarfile.TarInfo(_MANIFEST)
        info.size, info.mode = len(body), 0o600
        with tempfile.TemporaryFile() as text:
            text.write(body)
            text.seek(0)
            tar.addfile(info, text)
        for name, path in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = path.stat().st_size, 0o600
            with path.open("rb") as content:
                tar.addfile(info, content)


# -- using -------------------------------------------------------------------------------------------------


def read(path: Path) -> Manifest:
    """What a backup says of itself.

    Raises:
        BackupError: it is none.
        OSError: it cannot be read.
    """
    try:
        with tarfile.open(path, "r:gz") as tar:
            first = tar.next()
            content = tar.extractfile(first) if first is not None and first.name == _MANIFEST else None
            if content is None:
                raise BackupError(f"{path} is no backup of Pondwatch")
            return msgspec.json.decode(content.read(_MOST_MANIFEST), type=Manifest)
    except (tarfile.TarError, zlib.error, EOFError, msgspec.DecodeError) as error:
        raise BackupError(f"{path} is no backup of Pondwatch, or damaged: {error}") from None


def restore(path: Path, to: Place) -> tuple[Manifest, bool]:
    """Put a backup in its place; what it says of itself, and whether the site file was put there too.

    A site file that is there stays. Nothing is touched before every byte was compared with its hash and the
    chain was looked through.

    Raises:
        BackupError: it is damaged, or a store is there already.
        OSError: there is no room, or no such folder.
    """
    manifest = read(path)
    if (to.store / _STORE).exists():
        raise BackupError(f"{to.store / _STORE} is there already: stop the core and move that folder away")
    to.store.mkdir(mode=0o750, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pondwatch-restore-", dir=to.store) as folder:
        taken = dict(_taken(path, manifest, Path(folder)))
        missing = manifest.files.keys() - taken.keys()
        if missing:
            raise BackupError(f"{path} is damaged: it lacks {', '.join(sorted(missing))}")
        last_seq, stream, _ = _store_of(taken[_STORE], path)
        if (last_seq, stream) != (manifest.last_seq, manifest.stream):
            raise BackupError(f"{path}: its store is another than it says")
        with closing(HeadFile(to.store / "head")) as head:  # another process that writes here would have it
            head.write(Head(stream, last_seq + 1, ZERO_HASH))
        (to.store / FOLDER).mkdir(mode=0o700, exist_ok=True)
        for name, file in taken.items():
            if name.startswith(f"{FOLDER}/"):
                file.rename(to.store / name)
        placed = not to.config.exists()
        if placed:
            to.config.parent.mkdir(parents=True, exist_ok=True)
            to.config.write_bytes(taken[_SITE].read_bytes())
        taken[_STORE].rename(to.store / _STORE)  # last: before it there is no store
    return manifest, placed


def _store_of(store: Path, path: Path) -> tuple[int, str, str]:
    try:
        return _looked_through(store)
    except apsw.Error as error:
        raise BackupError(f"{path} is damaged: {error}") from None


def _taken(path: Path, manifest: Manifest, folder: Path) -> Iterator[tuple[str, Path]]:
    """The members that the manifest names, each compared with its hash; whatever else is there is left."""
    (folder / FOLDER).mkdir()
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                if content is None or member.name not in manifest.files:
                    continue
                place = (
                    folder / (FOLDER if member.name.startswith(f"{FOLDER}/") else "") / Path(member.name).name
                )
                with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    while chunk := content.read(_CHUNK):
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                if _digest(place) != manifest.files[member.name]:
                    raise BackupError(f"{path} is damaged: {member.name} has another hash")
                yield member.name, place
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        raise BackupError(f"{path} is damaged: {error}") from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
