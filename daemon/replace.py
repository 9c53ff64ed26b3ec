"""A file in the place of another: whole or not at all, durable, with the owner and mode of the one before."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def replace(path: Path, text: bytes, *, mode: int = 0o644) -> None:
    """Put `text` at `path`; a power cut leaves what was there, or this. `mode`: where nothing was there.

    Raises:
        OSError: it cannot be written there; nothing has changed.
    """
    path = path.resolve()  # a link stays one
    fresh = path.with_name(f".{path.name}.new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            _like(path, file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except OSError:
        with suppress(OSError):
            fresh.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _like(path: Path, fd: int, mode: int) -> None:
    """Owner and mode of what is at `path`; who may not give a file away keeps the mode all the same."""
    with suppress(FileNotFoundError):
        there = path.stat()
        mode = there.st_mode & 0o777
        if (there.st_uid, there.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, there.st_uid, there.st_gid)
    os.fchmod(fd, mode)
