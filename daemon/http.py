"""A small HTTP server for what is only looked at: GET, one answer a connection, everything bounded.

It holds at most CONNECTIONS, each for at most DEADLINE_S and REQUEST_BYTES, in the event loop's one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

CONNECTIONS: Final = 8
DEADLINE_S: Final = 5.0
REQUEST_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked. `path` is as it came, without the query; header names are in small letters."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    status: str
    body: str | bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self, *, with_body: bool = True) -> bytes:
        data = self.body.encode() if isinstance(self.body, str) else self.body
        lines = {
            "Content-Type": self.content_type,
            "Content-Length": str(len(data)),
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",  # unless it says more
            **self.headers,
            "Connection": "close",
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"HTTP/1.1 {self.status}\r\n{head}\r\n".encode() + (data if with_body else b"")


class Server:
    """Serves until cancelled.

    Args:
        listen: host:port.
        answer: what a request is answered with.
        makes_room: when all places are taken, a newcomer gets that of whoever has waited longest to finish
            its request; otherwise it is sent away.
    """

    def __init__(
        self, listen: str, answer: Callable[[Request], Awaitable[Answer]], *, makes_room: bool = False
    ) -> None:
        host, _, port = listen.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._answer = answer
        self._makes_room = makes_room
        self._open = 0
        self._asking: dict[asyncio.StreamWriter, None] = {}  # in the order in which they came

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            OSError: the port is taken.
        """
        server = await asyncio.start_server(self._serve, self._host, self._port, limit=REQUEST_BYTES)
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        self._asking[writer] = None
        try:
            if self._has_room():
                writer.transport.set_write_buffer_limits(high=0)  # drained is then: all is on its way
                async with asyncio.timeout(DEADLINE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    self._asking.pop(writer, None)
                    writer.write(await self._answered(head))
                    await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            writer.transport.abort()  # whoever asks badly, or does not read; nobody else notices
        finally:
            self._open -= 1
            self._asking.pop(writer, None)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _has_room(self) -> bool:
        if self._open <= CONNECTIONS:
            return True
        if not self._makes_room:
            return False
        oldest = next(iter(self._asking))
        oldest.transport.abort()
        return True

    async def _answered(self, head: bytes) -> bytes:
        request = parsed(head)
        if request is None:
            return Answer("400 Bad Request", "this is no HTTP request\n").encode()
        if request.method not in ("GET", "HEAD"):
            allow = {"Allow": "GET, HEAD"}
            return Answer("405 Method Not Allowed", "only GET\n", headers=allow).encode()
        return (await self._answer(request)).encode(with_body=request.method == "GET")


def parsed(head: bytes) -> Request | None:
    """The request in a head that ends with an empty line; None if it is none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1.") or not parts[1].startswith("/"):  # noqa: PLR2004
        return None
    path, _, query = parts[1].partition("?")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(parts[0], path, query, headers)
