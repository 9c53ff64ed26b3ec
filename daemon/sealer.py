"""Seals the chain: every minute in which it grew, and at once when an alarm is in it.

A seal is kept in the store's folder (`checkpoints/`) and handed to every uplink. It covers all that came
before it, so an uplink needs only the newest; here the last few days of them are kept, and of older times
the certificates, one an hour, which fix the chain just as well.

Sealing stands in nobody's way: batches are committed and leave whether or not it works.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Never

import msgspec

from daemon.audit import OURSELVES
from daemon.keys import KeyRing, Place
from daemon.reading import rfc3339
from daemon.seal import ALGORITHM, ZERO_HASH, Seal, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daemon.audit import Audit
    from daemon.clock import Clock
    from daemon.spool import Spool

log = logging.getLogger(__name__)

EVERY_S = 60.0
EPOCH_S = 3600.0  # a stolen key can rewrite at most what its epoch has sealed
LEAST_S = 1.0  # real seconds between two seals, whatever the bench's rate
FOLDER = "checkpoints"
SEGMENT_BYTES = 1 << 20  # of a file of checkpoints; two are kept: four days at a seal a minute


class Checkpoints:
    """The seals of one mode on disk: JSON lines in two files; when the newer is full the older is dropped."""

    def __init__(self, store: Path, mode: str) -> None:
        self._new, self._old = (store / FOLDER / f"{mode}.{name}" for name in ("new", "old"))

    def append(self, seal: Seal) -> None:
        """Keep a seal; synced, for it may be all that shows a missing tail.

        Raises:
            OSError: the disk refuses.
        """
        self._new.parent.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self._new.stat().st_size > SEGMENT_BYTES:
                self._new.replace(self._old)
        with self._new.open("ab") as file:
            file.write(msgspec.json.encode(seal) + b"\n")
            file.flush()
            os.fdatasync(file.fileno())

    def __iter__(self) -> Iterator[Seal]:
        """Oldest first; lines torn by a power cut are left out."""
        for path in (self._old, self._new):
            with contextlib.suppress(FileNotFoundError):
                for line in path.read_bytes().splitlines():
                    with contextlib.suppress(msgspec.DecodeError):
                        yield msgspec.json.decode(line, type=Seal)


class Sealer:
    """Made once; `run` seals until cancelled.

    Args:
        spool: whose chain.
        clock: stamps; on the bench minutes pass at its rate.
        audit: announces each new key in the chain.
        folder: of the store.
        mode: chooses the key.
        tell: given each seal as its payload; must not block.
    """

    def __init__(
        self,
        spool: Spool,
        clock: Clock,
        audit: Audit,
        folder: Path,
        mode: str,
        tell: Callable[[bytes], None],
    ) -> None:
        self._spool = spool
        self._clock = clock
        self._audit = audit
        self._folder = folder
        self._mode = mode
        self._tell = tell
        self._checkpoints = Checkpoints(folder, mode)
        self._sealed: tuple[str, int] = ("", 0)
        self._failing = False
        self._keys: KeyRing | None = None
        self.key = ""

    async def run(self) -> Never:
        """Seal until cancelled.

        Raises:
            KeyMode, StoreError: there is another mode's key, or the store fails; the caller begins again.
        """
        loop = asyncio.get_running_loop()
        news = self._spool.subscribe()
        ring = self._keys = await self._ring()
        self.key = ring.id
        log.info("seals are signed with key %s", ring.id)
        self._announce(ring, None)  # at each start: a cut may have come before the last time was committed
        every_s = max(LEAST_S, EVERY_S / self._clock.rate)
        epoch_ends_s = loop.time() + EPOCH_S / self._clock.rate
        next_s = loop.time() + every_s
        while True:
            alarm = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_s):
                    alarm = await news.wait()
            if alarm or loop.time() >= next_s:
                await self._seal(ring)
                next_s = loop.time() + every_s
            if loop.time() >= epoch_ends_s:
                await self._step(ring)
                epoch_ends_s = loop.time() + max(LEAST_S, EPOCH_S / self._clock.rate)

    async def finish(self) -> None:
        """Seal what was committed last, at the end of the process.

        Raises:
            StoreError: the store fails.
        """
        if self._keys is not None:
            await self._seal(self._keys)

    async def _seal(self, ring: KeyRing) -> None:
        here = await self._here()
        if not here.seq or (here.stream, here.seq) == self._sealed:
            return
        unsigned = Seal(
            1, self._mode, here.stream, here.seq, here.hash, self._now(), ring.id, ALGORITHM, signature=""
        )
        seal = msgspec.structs.replace(unsigned, signature=ring.sign(unsigned.statement()))
        self._sealed = (here.stream, here.seq)
        self._tell(msgspec.json.encode(seal))
        try:
            await asyncio.to_thread(self._checkpoints.append, seal)
            self._failing = False
        except OSError as error:
            self._disk_failed(error)

    async def _ring(self) -> KeyRing:
        """The key; waited for while the disk fails."""
        while True:
            here = await self._here()
            try:
                return await asyncio.to_thread(KeyRing.open, self._folder, self._mode, here, self._now())
            except OSError as error:
                self._disk_failed(error)
            await asyncio.sleep(EVERY_S)

    async def _step(self, ring: KeyRing) -> None:
        """A new key; what the old one has sealed can be sealed by nobody any more."""
        before, here = ring.id, await self._here()
        try:
            await asyncio.to_thread(ring.step, here, self._now())
        except OSError as error:
            self._disk_failed(error)
            return
        self.key = ring.id
        self._announce(ring, before)

    def _disk_failed(self, error: OSError) -> None:
        """A disk that fails costs seals and nothing else; said once."""
        if not self._failing:
            log.error("keys and checkpoints in %s: %s; it is tried again", self._folder, error.strerror)
        self._failing = True

    def _announce(self, ring: KeyRing, before: str | None) -> None:
        certificate = ring.certificate
        self._audit.record("key", by=OURSELVES, subject=certificate.key, before=before, after=certificate)

    async def _here(self) -> Place:
        """The newest batch."""
        last = self._spool.last_seq
        for batch in await self._spool.peek(last - 1, last) if last else ():
            _, stream, seq = place(batch.payload)
            return Place(stream, seq, batch.hash.hex())
        return Place(self._spool.stream, 0, ZERO_HASH.hex())

    def _now(self) -> str:
        return rfc3339(self._clock.wall_ns())
