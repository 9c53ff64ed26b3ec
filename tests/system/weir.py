"""A weir in a TCP connection: what flows through can be held up, turned away, or led somewhere else."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from hardware_sim.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Weir:
    """Listens on `port` and leads to `target`."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.target = target
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[Any]] = set()

    def close(self) -> None:
        """Nothing flows any more; connections stay, and new ones are taken."""
        self._flows.clear()

    def open(self) -> None:
        self._flows.set()

    async def lead_to(self, target: int) -> None:
        """New connections go there; those there are end."""
        self.target = target
        await self._end()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.current_task()
        assert session is not None
        self._sessions.add(session)
        writers = [writer]
        try:
            await self._flows.wait()
            there, to = await asyncio.open_connection("127.0.0.1", self.target)
            writers.append(to)
            await _first(self._pump(reader, to), self._pump(there, writer))
        except (OSError, asyncio.CancelledError):
            pass  # the other side has gone, or we end it
        finally:
            self._sessions.discard(session)
            for each in writers:
                each.close()
            for each in writers:
                with suppress(OSError, asyncio.CancelledError):
                    await each.wait_closed()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while piece := await source.read(65_536):
            await self._flows.wait()
            sink.write(piece)
            await sink.drain()

    async def _end(self) -> None:
        sessions = list(self._sessions)
        for session in sessions:
            session.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._end()


async def _first(*works: Coroutine[Any, Any, None]) -> None:
    """Until one of them ends; the others are ended."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
            with suppress(OSError, asyncio.CancelledError):
                await task
