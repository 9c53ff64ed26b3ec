"""Disks that fail on command: an apsw VFS for errors and lies, a small tmpfs for a disk that is really full."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

import apsw
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Faults:
    """What fails at this moment; `after` lets so many calls through first, `times` ends it by itself."""

    def __init__(self) -> None:
        self.what: set[str] = set()
        self.code = apsw.SQLITE_IOERR_FSYNC
        self.times = -1
        self.after = 0
        self.stall_s = 0.0
        self.page = -1  # reads of this byte offset of the database fail
        self.hits = 0

    def fail(self, *what: str, code: int, times: int = -1, after: int = 0) -> None:
        self.what, self.code, self.times, self.after = set(what), code, times, after

    def heal(self) -> None:
        self.what = set()
        self.page = -1

    def meet(self, what: str) -> None:
        if what == "sync" and self.stall_s:
            time.sleep(self.stall_s)
        if what not in self.what or self.times == 0:
            return
        if self.after:
            self.after -= 1
            return
        self.times -= self.times > 0
        self.hits += 1
        raise error(self.code)


def error(code: int) -> apsw.Error:
    """The apsw exception of an extended result code, as a VFS has to raise it."""
    kind = {10: apsw.IOError, 13: apsw.FullError, 14: apsw.CantOpenError, 8: apsw.ReadOnlyError}[code & 0xFF]
    raised: Any = kind("injected")
    raised.extendedresult = code
    return raised  # type: ignore[no-any-return]  # apsw does not declare extendedresult


class FaultyFile(apsw.VFSFile):
    def __init__(self, faults: Faults, name: Any, flags: Any) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._faults = faults
        self._main = str(path or "").endswith("spool.db")
        super().__init__("", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 -- SQLite's names
        self._faults.meet("read")
        if self._main and offset <= self._faults.page < offset + amount:
            self._faults.hits += 1
            raise error(apsw.SQLITE_IOERR_READ)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._faults.meet("write")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._faults.meet("sync")
        super().xSync(flags)


class FaultyVFS(apsw.VFS):
    def __init__(self, name: str, faults: Faults) -> None:
        self.name = name
        self._faults = faults
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: Any) -> FaultyFile:  # noqa: N802
        self._faults.meet("open")
        return FaultyFile(self._faults, name, flags)


@contextlib.contextmanager
def faulty() -> Iterator[tuple[str, Faults]]:
    faults = Faults()
    vfs = FaultyVFS(f"faulty-{id(faults)}", faults)
    try:
        yield vfs.name, faults
    finally:
        vfs.unregister()


class SmallDisk:
    """A tmpfs of its own; root only."""

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path = path
        self._size = megabytes << 20
        self._hog = path / "somebody-elses.log"
        if os.geteuid() != 0:
            pytest.skip("mounting a small disk needs root")
        path.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,nr_inodes=100", "pondwatch-test", str(path)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.decode().strip()}")

    def fill(self, leave: int = 0) -> None:
        """Somebody else takes all the room but `leave` bytes."""
        with self._hog.open("ab") as file, contextlib.suppress(OSError):
            while True:
                disk = os.statvfs(self.path)
                free = disk.f_bavail * disk.f_frsize - leave
                if free <= 0:
                    return
                os.write(file.fileno(), b"\0" * min(free, 1 << 16))

    def take_inodes(self) -> None:
        """Somebody else makes files until none can be made."""
        with contextlib.suppress(OSError):
            for n in range(1000):
                (self.path / f"somebody-elses.{n}").touch()

    def free(self) -> None:
        for path in self.path.glob("somebody-elses.*"):
            path.unlink()

    def read_only(self, on: bool) -> None:
        how = "remount,ro" if on else "remount,rw"
        subprocess.run(["mount", "-o", how, str(self.path)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=False)
