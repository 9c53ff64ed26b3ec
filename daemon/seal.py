"""The hash chain through the batches, what is signed of it, and the head file that remembers where it ended.

Each payload carries `prev`, the SHA-256 of the exact bytes of the payload before it; whoever holds two
neighbours can tell whether one was changed. Whoever holds them all can write a chain anew, so places of it
are signed now and then: a seal says that batch `seq` had this hash, and so fixes every batch before it.
daemon/keys.py has the keys, daemon/sealer.py signs, daemon/witness.py checks; docs/tamper-evidence.md says
what that proves and what not.

SQLite itself notices neither a flipped bit nor a WAL whose tail was lost, so the last committed
(stream, seq, hash) is kept a second time, outside the store.
"""

from __future__ import annotations

import fcntl
import os
import re
import zlib
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

import msgspec

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
    return b"".join((head.encode(), body, b"}"))  # one copy of what may be long


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


# -- what is signed ----------------------------------------------------------------------------------

ALGORITHM = "ed25519"


def key_id(public: bytes) -> str:
    """The name of a public key: 16 hex digits of its SHA-256."""
    return sha256(public).hexdigest()[:16]


class Certificate(msgspec.Struct, frozen=True):
    """The key `by` says that `public` signs for what comes after batch `seq` of `stream`; hex throughout.

    The first of a chain is signed by its own key.
    """

    mode: str
    key: str
    alg: str
    public: str
    by: str
    stream: str
    seq: int
    hash: str
    time: str
    signature: str

    def statement(self) -> bytes:
        """The signed bytes: one line for each member, so that no two certificates share them."""
        members = (
            self.mode,
            self.key,
            self.alg,
            self.public,
            self.by,
            self.stream,
            self.seq,
            self.hash,
            self.time,
        )
        return _lines("pondwatch-key 1", *members)


class Seal(msgspec.Struct, frozen=True):
    """The key says: batch `seq` of `stream` has this hash, and this was the newest at `time`."""

    v: int
    mode: str
    stream: str
    seq: int
    hash: str
    time: str
    key: str
    alg: str
    signature: str

    def statement(self) -> bytes:
        """The signed bytes."""
        members = (self.mode, self.stream, self.seq, self.hash, self.time, self.key, self.alg)
        return _lines("pondwatch-seal 1", *members)


def place(payload: bytes) -> tuple[str, str, int]:
    """Mode, stream and seq of a payload.

    Raises:
        ValueError: it is none of ours.
    """
    match = _ENVELOPE.match(payload)
    if match is None:
        raise ValueError("this is no payload of version 1")
    return match[1].decode(), match[2].decode(), int(match[3])


def _lines(*members: object) -> bytes:
    return "".join(f"{member}\n" for member in members).encode()


# -- the head ----------------------------------------------------------------------------------------


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
        return _read_slot(os.pread(self._fd, self._SLOT_BYTES, index * self._SLOT_BYTES))

    @classmethod
    def peek(cls, path: Path) -> Head | None:
        """What it says, for who does not write the store: without the lock, which another process may hold.

        Raises:
            OSError: it cannot be read.
        """
        data, size = path.read_bytes(), cls._SLOT_BYTES
        return max((_read_slot(data[at : at + size]) for at in (0, size)), key=lambda slot: slot[0])[1]


def _read_slot(page: bytes) -> tuple[int, Head | None]:
    """Its turn and what it says; 0 and None where it was torn or never written."""
    line, _, crc = page.partition(b"\n")[0].rpartition(b" ")
    if crc != b"%08x" % zlib.crc32(line) or not line.startswith(b"pondwatch-head 1 "):
        return 0, None
    turn, stream, seq, digest = line.decode().split(" ")[2:]
    return int(turn), Head(stream, int(seq), bytes.fromhex(digest))
