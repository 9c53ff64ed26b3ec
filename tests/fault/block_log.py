"""A disk that remembers the order of what was done to it: one file in a file system of our own, under a loop device.

    python -m tests.fault.block_log MOUNTPOINT IMAGE LOG

serves `MOUNTPOINT/disk`, at first the bytes of IMAGE, and writes to LOG every write and flush that reaches it, one after
the other, with their bytes. What is written to `MOUNTPOINT/marks` stands in LOG at its place between them. It speaks
the kernel's FUSE protocol (include/uapi/linux/fuse.h) itself, so that nothing has to be installed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_IN: Final = struct.Struct("<IIQQIIII")
_OUT: Final = struct.Struct("<IiQ")
_ATTR: Final = struct.Struct("<QQQQQQIIIIIIIIII")
_IO: Final = struct.Struct("<QQIIQII")
_EVENT: Final = struct.Struct("<BQI")
_MOST_WRITE: Final = 128 << 10
_BIG_WRITES, _DIRECT_IO = 1 << 5, 1
ROOT, DISK, MARKS = 1, 2, 3
NAMES: Final = {b"disk": DISK, b"marks": MARKS}


class Op(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    BATCH_FORGET = 42


class Event(NamedTuple):
    what: str  # write, flush or mark
    where: int
    data: bytes


_KINDS: Final = ("write", "flush", "mark")


def events(log: Path) -> Iterator[Event]:
    with log.open("rb") as file:
        while head := file.read(_EVENT.size):
            kind, where, size = _EVENT.unpack(head)
            yield Event(_KINDS[kind], where, file.read(size))


class Server:
    def __init__(self, image: bytes, log: Path) -> None:
        self._disk = bytearray(image)
        self._log = log.open("wb", buffering=0)

    def serve(self, mountpoint: Path) -> None:
        """Mount and answer, until it is unmounted."""
        fuse = os.open("/dev/fuse", os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={fuse},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}".encode()
        if libc.mount(b"pondwatch-test", os.fsencode(mountpoint), b"fuse", 0, options):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        while True:
            try:
                request = os.read(fuse, _MOST_WRITE + 8192)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.ENOENT, errno.EINTR):  # the caller gave up
                    continue
                raise
            _, code, unique, node, *_ = _IN.unpack_from(request)
            if code in (Op.FORGET, Op.BATCH_FORGET):
                continue
            try:
                answer, failed = self._answer(code, node, request[_IN.size :]), 0
            except OSError as error:
                answer, failed = b"", -int(error.errno or errno.EIO)
            os.write(fuse, _OUT.pack(_OUT.size + len(answer), failed, unique) + answer)

    def _answer(self, code: int, node: int, body: bytes) -> bytes:
        match code:
            case Op.INIT:
                return struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, _BIG_WRITES, 16, 12, _MOST_WRITE, 1, 0, 0, 0)
            case Op.STATFS:
                return struct.pack("<QQQQQIIII24x", 1 << 20, 1 << 19, 1 << 19, 100, 50, 4096, 255, 4096, 0)
            case Op.LOOKUP:
                found = NAMES.get(body.rstrip(b"\0"))
                if found is None:
                    raise OSError(errno.ENOENT, "no such file")
                return struct.pack("<QQQQII", found, 0, 3600, 3600, 0, 0) + self._attributes(found)
            case Op.GETATTR | Op.SETATTR:
                return struct.pack("<QII", 3600, 0, 0) + self._attributes(node)
            case Op.OPEN:
                return struct.pack("<QII", node, _DIRECT_IO if node == MARKS else 0, 0)
        return self._through(code, node, body)

    def _through(self, code: int, node: int, body: bytes) -> bytes:
        """What moves bytes."""
        match code:
            case Op.READ:
                _, offset, size, *_ = _IO.unpack_from(body)
                return bytes(self._disk[offset : offset + size]) if node == DISK else b""
            case Op.WRITE:
                return self._write(node, body)
            case Op.FSYNC:
                self._note(1, 0, b"")
                return b""
            case Op.RELEASE | Op.FLUSH:
                return b""
        raise OSError(errno.ENOSYS, "not needed here")

    def _write(self, node: int, body: bytes) -> bytes:
        _, offset, size, *_ = _IO.unpack_from(body)
        data = body[_IO.size : _IO.size + size]
        if node == DISK:
            self._disk[offset : offset + size] = data
        self._note(0 if node == DISK else 2, offset, data)
        return struct.pack("<II", size, 0)

    def _note(self, kind: int, where: int, data: bytes) -> None:
        self._log.write(_EVENT.pack(kind, where, len(data)) + data)

    def _attributes(self, node: int) -> bytes:
        size = len(self._disk) if node == DISK else 0
        mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o600
        return _ATTR.pack(node, size, size // 512, *[0] * 6, mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)


def main() -> None:
    mountpoint, image, log = map(Path, sys.argv[1:])
    Server(image.read_bytes(), log).serve(mountpoint)


if __name__ == "__main__":
    main()
