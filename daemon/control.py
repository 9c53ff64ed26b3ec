"""The control socket: the only way to change anything in a running core.

A Unix socket, JSON, one object a line. A request names its verb in `do`; the answer is `{"ok": ...}`, or a
line `{"row": ...}` for each member of a stream and `{"ok": null}` at its end, or
`{"error": sentence, "exit": code}` with the exit code the command line ends with. A stream is the last thing
on its connection. Who calls is known from the kernel (SO_PEERCRED, unix(7)): only root and the core's own
user may change things; reading is for whom the socket's mode lets in.

Bounds: MAX_CLIENTS connections, LINE_BYTES a request, IDLE_S between requests, SEND_S for a client to take
what it asked for. Who breaks one is told so, if it can still hear, and dropped; the core waits for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import msgspec

from daemon.alarms import NotAllowed
from daemon.requests import REQUESTS, Request

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

log = logging.getLogger(__name__)

MAX_CLIENTS = 16
LINE_BYTES = 64 * 1024
IDLE_S = 60.0
SEND_S = 10.0
_PEERCRED = struct.Struct("3i")


class Refused(Exception):
    """A verb cannot do what it was asked; the message is a sentence for whoever asked.

    `exit` is what the command line ends with: 1 not well, 2 wrong usage, 3 the surroundings.
    """

    def __init__(self, message: str, exit: int = 1) -> None:  # noqa: A002 -- it is called so on the wire
        super().__init__(message)
        self.exit = exit


class _Over(Exception):
    """This connection has served its purpose."""


class SocketTaken(Exception):
    """Another process listens on the socket."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end, as the kernel knows it."""

    pid: int
    uid: int
    gid: int

    @property
    def may_change(self) -> bool:
        return self.uid in {0, os.getuid()}


# A verb answers once, or yields the rows of a stream.
Verb = Callable[[Any, Caller], "Awaitable[object] | AsyncIterator[object]"]


class Control:
    """Listens while entered.

    Args:
        path: where the socket is made; a dead one in its place is replaced.
        verbs: what is done for each type of request.
        mode: of the socket file.
    """

    def __init__(
        self, path: Path, verbs: Mapping[type[Request], Verb], *, mode: int = 0o660, idle_s: float = IDLE_S
    ) -> None:
        self._path = path
        self._verbs = verbs
        self._mode = mode
        self._idle_s = idle_s
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            SocketTaken: another core has the socket.
            OSError: the socket cannot be made there.
        """
        listening = _listening(self._path, self._mode)
        self._server = await asyncio.start_unix_server(self._connected, sock=listening, limit=LINE_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()
        self._path.unlink(missing_ok=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = _caller(writer)
        if len(self._clients) >= MAX_CLIENTS:
            writer.write(_error(f"{MAX_CLIENTS} clients are connected already; try again later", 3))
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer, caller), name=f"control pid {caller.pid}")
        self._clients.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A verb that raises what it should not costs its caller the connection, and nobody else anything."""
        self._clients.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller
    ) -> None:
        with contextlib.closing(writer), contextlib.suppress(_Over, ConnectionError, TimeoutError):
            while True:
                try:
                    async with asyncio.timeout(self._idle_s):
                        line = await reader.readline()
                except TimeoutError:
                    await _send(writer, _error(f"nothing was asked for {self._idle_s:g} s", 3))
                    return
                except ValueError:  # readline: longer than the limit
                    await _send(writer, _error(f"a request has at most {LINE_BYTES} bytes", 2))
                    return
                if not line.endswith(b"\n"):
                    return
                await self._answer(line, reader, writer, caller)

    async def _answer(
        self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller
    ) -> None:
        doing: object = None
        try:
            request, verb = self._request(line, caller)
            doing = verb(request, caller)
            if isinstance(doing, AsyncIterator):
                await _stream(doing, reader, writer)
            else:
                await _send(writer, _ok(await doing))
        except Refused as refused:
            await _send(writer, _error(str(refused), refused.exit))
        except NotAllowed as refused:
            await _send(writer, _error(str(refused), 1))
        if isinstance(doing, AsyncIterator):
            raise _Over

    def _request(self, line: bytes, caller: Caller) -> tuple[Request, Verb]:
        """What is asked, and who does it.

        Raises:
            Refused: bad JSON, an unknown verb, wrong members, or a caller who may not.
        """
        try:
            request: Request = msgspec.json.decode(line, type=REQUESTS)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Refused(f"this is no request: {error}", 2) from None
        name = request.__struct_config__.tag
        if type(request) not in self._verbs:
            raise Refused(f"{name} is not offered here", 2)
        if request.changes and not caller.may_change:
            raise Refused(f"{name} changes things: only root and {_own_user()} may", 3)
        if request.changes:
            log.info("control: %s by uid %d pid %d", request, caller.uid, caller.pid)
        return request, self._verbs[type(request)]


def _own_user() -> str:
    """Whose process this is: by name, or by number where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"


async def _stream(
    rows: AsyncIterator[object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send the rows, until they end or the client sends anything more, were it its end."""
    gone = asyncio.create_task(reader.read(1), name="control client's end")
    row: asyncio.Future[Any] = gone
    try:
        while True:
            row = asyncio.ensure_future(anext(rows))
            await asyncio.wait({row, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise _Over
            await _send(writer, b'{"row":' + msgspec.json.encode(row.result()) + b"}\n")
    except StopAsyncIteration:
        await _send(writer, _ok(None))
    finally:
        row.cancel()
        gone.cancel()
        await asyncio.gather(row, gone, return_exceptions=True)
        if isinstance(rows, AsyncGenerator):
            await rows.aclose()


async def _send(writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line)
    try:
        async with asyncio.timeout(SEND_S):
            await writer.drain()
    except TimeoutError:
        writer.transport.abort()  # closing would wait for what it does not take
        raise


def _ok(result: object) -> bytes:
    return b'{"ok":' + msgspec.json.encode(result) + b"}\n"


def _error(message: str, code: int) -> bytes:
    return msgspec.json.encode({"error": message, "exit": code}) + b"\n"


def _caller(writer: asyncio.StreamWriter) -> Caller:
    peer = writer.get_extra_info("socket")
    return Caller(*_PEERCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)))


def _listening(path: Path, mode: int) -> socket.socket:
    """A socket bound to `path`, there from its first moment with no more than `mode`."""
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise SocketTaken(f"another core listens on {path}; stop it first")
        path.unlink()
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o777 & ~mode)
    try:
        listening.bind(str(path))
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(before)
    return listening


T = TypeVar("T")


class TooSlow(Refused):
    """A subscriber did not keep up."""


class Fanout(Generic[T]):
    """One source, many watchers; the source never waits.

    Each watcher has a queue of `size` items. Whose queue is full is dropped, with TooSlow at its end:
    a gap in what scrolls by would go unnoticed.
    """

    def __init__(self, size: int = 1000) -> None:
        self._size = size
        self._queues: set[asyncio.Queue[T | None]] = set()

    def __len__(self) -> int:
        """How many watch; with none, nothing need be made for them."""
        return len(self._queues)

    def publish(self, item: T) -> None:
        for queue in list(self._queues):
            if queue.qsize() < self._size:
                queue.put_nowait(item)
            else:
                self._queues.discard(queue)
                queue.put_nowait(None)

    async def watch(self) -> AsyncIterator[T]:
        """Everything published from now on.

        Raises:
            TooSlow: more than `size` items were waiting.
        """
        queue: asyncio.Queue[T | None] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while (item := await queue.get()) is not None:
                yield item
            raise TooSlow(f"dropped: more than {self._size} lines were waiting to be read")
        finally:
            self._queues.discard(queue)
