"""Files into a folder of another machine, by SFTP: as `folders.py`, over an SSH connection.

The server's key must be known beforehand; a server that shows another is refused. Loaded only when a site
file names an sftp:// folder.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Never
from urllib.parse import unquote, urlsplit

import asyncssh

from daemon.credentials import first_line
from daemon.uplink.folders import places

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from daemon.uplink.dialect import Link, Parcel
    from daemon.uplink.tables import TailingsFilesTable

CONNECT_S = 20.0
CLOSE_S = 2.0
KEEPALIVE_S = 15.0  # three of these without an answer: the connection is lost
_PORT = 22
logging.getLogger("asyncssh").setLevel(logging.WARNING)  # the uplink says what matters, once


class SftpFolder:
    """A folder on an SSH server."""

    def __init__(self, table: TailingsFilesTable) -> None:
        self._table = table
        self._url = urlsplit(table.folder)
        self._left: set[str] = set()  # files that a lost connection may have left unfinished

    @asynccontextmanager
    async def open(self, greet: Callable[[], Sequence[Parcel]]) -> AsyncIterator[Link]:
        """Connect, and deliver first what `greet` makes.

        Raises:
            OSError: it cannot be had, or is lost; with a sentence.
        """
        password = await asyncio.to_thread(first_line, self._table.password_file)
        deadline_s = self._table.ack_deadline_s
        try:
            connection = await asyncssh.connect(
                self._url.hostname or "",
                self._url.port or _PORT,
                username=unquote(self._url.username or ""),
                password=password,
                client_keys=[self._table.key] if self._table.key else None,
                known_hosts=self._table.host_key,
                config=None,  # what stands in somebody's ~/.ssh is not the site file
                agent_path=None,
                connect_timeout=CONNECT_S,
                login_timeout=CONNECT_S,
                keepalive_interval=KEEPALIVE_S,
            )
            async with _closing(connection):
                async with _within(deadline_s):  # its keep-alives say nothing of the server behind it
                    sftp = await connection.start_sftp_client()
                link = _SftpLink(connection, sftp, unquote(self._url.path) or ".", self._left)
                parcels = greet()
                async with _within(deadline_s * (1 + len(parcels))):
                    await link.tidy()
                    await link.deliver(parcels)
                yield link
        except asyncssh.KeyImportError as error:
            raise OSError(f"the private key {self._table.key} cannot be used: {error}") from None
        except (asyncssh.Error, ValueError) as error:
            raise ConnectionError(f"sftp: {error}") from None


@asynccontextmanager
async def _within(deadline_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except TimeoutError:
        raise TimeoutError("sftp: connected, and no answer to what was asked") from None


@asynccontextmanager
async def _closing(connection: asyncssh.SSHClientConnection) -> AsyncIterator[None]:
    """Say goodbye at the end; to a server that does not answer that either, not for long."""
    try:
        yield
    finally:
        connection.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await connection.wait_closed()
        except TimeoutError:
            connection.abort()


class _SftpLink:
    def __init__(
        self, connection: asyncssh.SSHClientConnection, sftp: asyncssh.SFTPClient, folder: str, left: set[str]
    ) -> None:
        self._connection = connection
        self._sftp = sftp
        self._folder = folder.rstrip("/")
        self._made: set[str] = set()
        self._left = left

    async def deliver(self, parcels: Sequence[Parcel]) -> None:
        try:
            for parcel in parcels:
                await self._write(parcel)
        except asyncssh.Error as error:
            raise ConnectionError(f"sftp: {error}") from None

    async def tidy(self) -> None:
        """Take away what an earlier connection left unfinished."""
        for beside in list(self._left):
            with suppress(asyncssh.SFTPNoSuchFile):
                await self._sftp.remove(beside)
            self._left.discard(beside)

    async def watch(self) -> Never:
        await self._connection.wait_closed()
        raise ConnectionResetError("sftp: the connection was closed")

    async def _write(self, parcel: Parcel) -> None:
        for name in places(parcel.name):
            place = f"{self._folder}/{name}"
            there = await self._read(place)
            if there == parcel.payload:
                return
            if there is None:
                break
        folder = place.rpartition("/")[0]
        if folder not in self._made:
            await self._sftp.makedirs(folder, exist_ok=True)
            self._made.add(folder)
        beside = place + ".part"
        self._left.add(beside)
        async with self._sftp.open(beside, "wb") as file:
            await file.write(parcel.payload)
            await _durable(file)
        await self._sftp.posix_rename(beside, place)
        self._left.discard(beside)

    async def _read(self, place: str) -> bytes | None:
        try:
            async with self._sftp.open(place, "rb") as file:
                its: str | bytes = await file.read()
                assert isinstance(its, bytes)
                return its
        except asyncssh.SFTPNoSuchFile:
            return None


async def _durable(file: asyncssh.SFTPClientFile) -> None:
    try:
        await file.fsync()
    except asyncssh.SFTPOpUnsupported:  # a server that is not OpenSSH: it says "written" and we believe it
        return
