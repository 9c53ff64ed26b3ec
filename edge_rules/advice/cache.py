"""Where Numba keeps what it compiled, and whether that can be trusted.

The folder is named after the bytes of all kernels and Numba's version, so an upgrade never meets stale
code. A manifest with the hash of every file is written when the kernels have run, and taken away before they
run the next time: a file damaged by a power cut, or a compiled kernel that kills the process, is met by a
fresh compilation (about eight seconds) instead of a crash loop. The folder is 0700: it holds pickles, which
are code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path

_MANIFEST = "manifest.json"
_KERNELS = Path(__file__).with_name("kernels")


def fingerprint(kernels: Path = _KERNELS) -> str:
    """SHA-256, in hex, over Numba's version and the name and bytes of every file of the kernels."""
    files = sorted(kernels.glob("*.py"))
    each = [hashlib.sha256(file.name.encode() + b"\0" + file.read_bytes()).digest() for file in files]
    return hashlib.sha256(version("numba").encode() + b"".join(each)).hexdigest()


def folder_for(cache_dir: Path) -> Path:
    """The cache folder of these kernels under this Numba."""
    return cache_dir / f"numba-{fingerprint()}"


def open_cache(cache_dir: Path) -> Path:
    """Make the folder ready and name it to Numba (`NUMBA_CACHE_DIR`); call before Numba is imported.

    Whatever is not exactly what `seal` saw is removed, as are the folders of other versions.

    Raises:
        OSError: the folder cannot be made or emptied.
    """
    folder = folder_for(cache_dir)
    for other in cache_dir.glob("numba-*"):
        if other != folder or not _is_sealed(folder):
            shutil.rmtree(other)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / _MANIFEST).unlink(missing_ok=True)
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    return folder


def seal(folder: Path) -> None:
    """The kernels have run: what lies in the folder is good."""
    (folder / _MANIFEST).write_text(json.dumps(_hashes(folder)))


def _is_sealed(folder: Path) -> bool:
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        return False
    try:
        sealed = json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    return bool(sealed == _hashes(folder))


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }
