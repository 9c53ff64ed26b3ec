"""Parcels as bodies of HTTP POST, one connection kept open; what the answer means for a batch.

    2xx                       the other side has it
    400 413 422 and other 4xx it will not take this body, now or later: refused for good
    401 403 404 408 425 429   nothing is wrong with the body: who we are, what is there, when. Tried again
    3xx 5xx, nothing at all   likewise

http.client blocks, so it lives in a thread; to give up means to shut the socket down under it, and the thread
closes what it still has.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import http.client
import socket
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Never, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from daemon.credentials import first_line
from daemon.uplink.dialect import Refused
from daemon.uplink.tls import context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from daemon.uplink.dialect import Link, Parcel
    from daemon.uplink.tables import InfluxTable
    from daemon.uplink.tls import Times

T = TypeVar("T")
CONNECT_S = 10.0  # a thread that connects cannot be woken: this is how long the end may wait for it
_TAKEN, _REFUSED = range(200, 300), range(400, 500)
_NOT_THE_BODY: Final = frozenset({401, 403, 404, 408, 425, 429})
_MOST_ANSWER_BYTES = 64 << 10
_MOST_WHY = 300


class Post:
    """Where to, and as whom; files are read anew for each connection, so that a renewed one is taken."""

    def __init__(self, table: InfluxTable, times: Times) -> None:
        self._table = table
        self._times = times

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Connect.

        Raises:
            OSError: it cannot be had, or is lost.
        """
        link = await asyncio.to_thread(self._made)
        try:
            await asyncio.to_thread(link.connect)
            yield link
        finally:
            link.close()

    def _made(self) -> _PostLink:
        table = self._table
        url = urlsplit(table.url)
        host = url.hostname or ""
        connection = (
            http.client.HTTPSConnection(
                host, url.port, timeout=CONNECT_S, context=context(table, self._times)
            )
            if url.scheme == "https"
            else http.client.HTTPConnection(host, url.port, timeout=CONNECT_S)
        )
        query = urlencode([*parse_qsl(url.query, keep_blank_values=True), ("precision", "ns")])
        target = f"{quote(url.path, safe='/%') or '/'}?{query}"
        return _PostLink(connection, target, _headers(table), table.ack_deadline_s)


class _PostLink:
    def __init__(
        self,
        connection: http.client.HTTPConnection,
        target: str,
        headers: dict[str, str],
        answer_s: float,
    ) -> None:
        connection.auto_open = 0  # what was given up must not come back
        self._connection = connection
        self._target = target
        self._headers = headers
        self._answer_s = answer_s
        self._busy = self._closed = False

    def connect(self) -> None:
        """In a thread.

        Raises:
            OSError: it cannot be had, or was given up meanwhile.
        """
        self._in_thread(self._connected)

    def _connected(self) -> None:
        try:
            self._connection.connect()
        except UnicodeError as error:
            raise OSError(f"{self._connection.host} cannot be a host: {error}") from None
        self._connection.sock.settimeout(self._answer_s)
        if self._closed:
            raise ConnectionAbortedError("given up")

    def _in_thread(self, work: Callable[[], T]) -> T:
        self._busy = True
        try:
            return work()
        finally:
            self._busy = False
            if self._closed:
                self._connection.close()

    async def deliver(self, parcels: Sequence[Parcel]) -> None:
        for parcel in parcels:
            status, why = await asyncio.to_thread(self._posted, parcel.payload)
            if status in _TAKEN:
                continue
            said = f"HTTP {status}: {why}"
            if status in _REFUSED and status not in _NOT_THE_BODY:
                raise Refused(said, for_good=True)
            raise ConnectionError(said)

    async def watch(self) -> Never:
        """Nothing: that the other side has gone is seen at the next body."""
        await asyncio.Event().wait()
        raise AssertionError

    def close(self) -> None:
        """From the event loop, at any moment; whichever of loop and thread is last closes."""
        self._closed = True
        its = self._connection.sock
        if its is not None:
            with suppress(OSError):
                its.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in it
        if not self._busy:
            self._connection.close()

    def _posted(self, payload: bytes) -> tuple[int, str]:
        """In a thread: the answer's status and words.

        Raises:
            OSError: there was none.
        """
        body = gzip.compress(payload, 6, mtime=0)
        try:
            return self._in_thread(partial(self._asked, body))
        except (ConnectionError, http.client.HTTPException):
            # One that was idle may have been closed at the other end, and a body may come twice.
            self._connection.close()
        try:
            return self._in_thread(partial(self._asked, body))
        except http.client.HTTPException as error:
            raise ConnectionError(f"no HTTP answer: {error!r}") from None

    def _asked(self, body: bytes) -> tuple[int, str]:
        if self._connection.sock is None:
            self._connected()
        self._connection.request("POST", self._target, body, self._headers)
        with self._connection.getresponse() as answer:
            text = answer.read(_MOST_ANSWER_BYTES).decode(errors="replace")
            if answer.read(1):
                self._connection.close()
        return answer.status, " ".join(text.split())[:_MOST_WHY] or answer.reason


def _headers(table: InfluxTable) -> dict[str, str]:
    headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": "gzip"}
    if table.token_file:
        token = (first_line(table.token_file) or "").strip()
        if not (token.isascii() and token.isprintable()):
            raise OSError(f"{table.token_file} has no token in its first line")
        headers["Authorization"] = f"Token {token}"
    elif table.username:
        both = f"{table.username}:{first_line(table.password_file) or ''}"
        headers["Authorization"] = "Basic " + base64.b64encode(both.encode()).decode()
    return headers
