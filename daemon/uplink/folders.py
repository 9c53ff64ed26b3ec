"""Files into a folder of this machine, whole or not at all.

A file is written beside its place under another name, made durable, and renamed. A place that is taken by
the same bytes is a repeat and left alone; by other bytes, the file moves on by a second: two batches of one
second must not cost each other their readings.
"""

from __future__ import annotations

import asyncio
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Never, Protocol

from daemon.uplink.dialect import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from daemon.uplink.dialect import Link, Parcel

_STAMP = re.compile(r"\d{14}")
_MOST_MOVES = 3600


class Folder(Protocol):
    """Where a dialect's files go."""

    def open(self, greet: Callable[[], Sequence[Parcel]]) -> AbstractAsyncContextManager[Link]:
        """Connect, and deliver first what `greet` makes."""
        ...


def places(name: str) -> Iterator[str]:
    """`name`, then the same a second later, and so on.

    Raises:
        Refused: an hour of seconds is taken.
    """
    stamp = _STAMP.search(name)
    if stamp is None:
        raise Refused(f"{name} has no moment in its name", for_good=True)
    moment = datetime.strptime(stamp[0], "%Y%m%d%H%M%S")  # noqa: DTZ007 -- local, as the name has it
    for seconds in range(_MOST_MOVES):
        later = moment + timedelta(seconds=seconds)
        yield f"{name[: stamp.start()]}{later:%Y%m%d%H%M%S}{name[stamp.end() :]}"
    raise Refused(f"{name}: the names of a whole hour are taken")


class LocalFolder:
    """A folder that somebody else empties.

    It has a thread of its own: a mount that hangs takes that one, and no other with each attempt.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, f"folder {path}")

    @asynccontextmanager
    async def open(self, greet: Callable[[], Sequence[Parcel]]) -> AsyncIterator[Link]:
        link = _LocalLink(self._path, self._thread)
        await link.deliver(greet())
        yield link


class _LocalLink:
    def __init__(self, path: Path, thread: ThreadPoolExecutor) -> None:
        self._path = path
        self._thread = thread

    async def deliver(self, parcels: Sequence[Parcel]) -> None:
        loop = asyncio.get_running_loop()
        for parcel in parcels:
            await loop.run_in_executor(self._thread, write, self._path, parcel)

    async def watch(self) -> Never:
        while True:  # noqa: ASYNC110 -- a folder does not go away by itself: a write says so
            await asyncio.sleep(3600.0)


def write(folder: Path, parcel: Parcel) -> None:
    """Put it there, durably.

    Raises:
        OSError: it cannot be written.
        Refused: there is no free name.
    """
    for name in places(parcel.name):
        place = folder / name
        if not place.exists():
            break
        if place.read_bytes() == parcel.payload:
            return
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(place.name + ".part")
    with beside.open("wb") as file:
        file.write(parcel.payload)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(place)
    durable = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(durable)
    finally:
        os.close(durable)
