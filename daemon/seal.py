"""The hash chain through the batches, and the head file that remembers where it ended.

Each payload carries `prev`, the SHA-256 of the exact bytes of the payload before it; whoever holds two
neighbours can tell whether one was changed. SQLite itself notices neither a flipped bit nor a WAL
whose tail was lost, so the last committed (stream, seq, hash) is kept a second time, outside the store.
"""

from __future__ import annotations

import fcntl
import os
import re
import zlib
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ZERO_HASH = bytes(32)
_ENVELOPE = re.compile(
    rb'\{"v":1,"mode":"([a-z]+)","stream":"([0-9A-Za-z-]+)","seq":(\d+),"prev":"([0-9a-f]{64})"[,}]'
)


def envelope(mode: str, stream: str, seq: int, prev: bytes, body: bytes) -> bytes:
    """The exact bytes of a payload: version, mode, place in the chain, and `body`.

    Args:
        mode: real, test or simulated.
        stream: the store's identity.
        seq: this batch's number.
        prev: SHA-256 (32 bytes) of the payload of seq - 1; `ZERO_HASH` for the first.
        body: JSON members without braces, not empty.
    """
    head = f'{{"v":1,"mode":"{mode}","stream":"{stream}","seq":{seq},"prev":"{prev.hex()}",'
    return head.encode() + body + b"}"


class Sealed(Protocol):
    """What `verify` looks at of a batch."""

    @property
    def seq(self) -> int: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def hash(self) -> bytes: ...


def verify(batches: Iterable[Sealed]) -> int | None:
    """The seq of the first batch that does not stand where it says, or None when all do.

    `batches` must be neighbours, ascending. The `prev` of the first can only be checked when its seq is 1;
    of the last one it is only known that nobody after it contradicts: compare with the head.
    """
    before: tuple[bytes, int, bytes] | None = None
    for batch in batches:
        match = _ENVELOPE.match(batch.payload)
        if match is None or int(match[3]) != batch.seq or sha256(batch.payload).digest() != batch.hash:
            return batch.seq
        prev = bytes.fromhex(match[4].decode())
        here = (match[2], batch.seq - 1, prev)
        if before is None and batch.seq == 1 and prev != ZERO_HASH:
            return batch.seq
        if before is not None and before != here:
            return batch.seq
        before = (match[2], batch.seq, batch.hash)
    return None


class HeadBusy(Exception):
    """Another process holds the head file, so it writes the store."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last batch known to be committed; seq 0 and `ZERO_HASH` before the first."""

    stream: str
    seq: int
    hash: bytes


class HeadFile:
    """Two slots, written in turn, so that a write torn by a power cut leaves the other one readable.

    A slot is one line of text, `pondwatch-head 1 <turn> <stream> <seq> <hash> <crc32>`, in a page of its own.
    Whoever holds it open holds its lock, and so the right to write the store beside it.
    """

    _SLOT_BYTES = 4096

    def __init__(self, path: Path) -> None:
        """Open or create the file at `path`.

        Raises:
            HeadBusy: another process has it.
            OSError: it can be neither opened nor created.
        """
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
        self._fd = self._file.fileno()
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 2 * self._SLOT_BYTES)  # of fixed size, so later syncs are of data alone
        except OSError as error:
            self._file.close()
            if isinstance(error, BlockingIOError):
                raise HeadBusy(f"{path} is held by another process") from None
            raise
        self._turn, self._head = max((self._slot(i) for i in (0, 1)), key=lambda slot: slot[0])

    def read(self) -> Head | None:
        """What was written last, or None when neither slot can be read."""
        return self._head

    def write(self, head: Head) -> None:
        """Put `head` into the older slot and wait until the disk has it."""
        turn = self._turn + 1
        line = f"pondwatch-head 1 {turn} {head.stream} {head.seq} {head.hash.hex()}".encode()
        slot = b"%b %08x\n" % (line, zlib.crc32(line))
        # The whole page is written, so that nothing of a longer line before it stays behind.
        os.pwrite(self._fd, slot.ljust(self._SLOT_BYTES, b"\0"), turn % 2 * self._SLOT_BYTES)
        os.fdatasync(self._fd)
        self._turn, self._head = turn, head

    def close(self) -> None:
        self._file.close()

    def _slot(self, index: int) -> tuple[int, Head | None]:
        text = os.pread(self._fd, self._SLOT_BYTES, index * self._SLOT_BYTES).partition(b"\n")[0]
        line, _, crc = text.rpartition(b" ")
        if crc != b"%08x" % zlib.crc32(line) or not line.startswith(b"pondwatch-head 1 "):
            return 0, None
        turn, stream, seq, digest = line.decode().split(" ")[2:]
        return int(turn), Head(stream, int(seq), bytes.fromhex(digest))
