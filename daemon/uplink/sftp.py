"""Files into a folder of another machine, by SFTP: as `folders.py`, over an SSH connection.

The server's key must be known beforehand; a server that shows another is refused. Loaded only when a site
file names an sftp:// folder.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
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
KEEPALIVE_S = 15.0  # three of these without an answer: the connection is lost
_PORT = 22
logging.getLogger("asyncssh").setLevel(logging.WARNING)  # the uplink says what matters, once


class SftpFolder:
    """A folder on an SSH server."""

    def __init__(self, table: TailingsFilesTable) -> None:
        self._table = table
        self._url = urlsplit(table.folder)

    @asynccontextmanager
    async def open(self, greet: Callable[[], Sequence[Parcel]]) -> AsyncIterator[Link]:
        """Connect, and deliver first what `greet` makes.

        Raises:
            OSError: it cannot be had, or is lost; with a sentence.
        """
        password = await asyncio.to_thread(first_line, self._table.password_file)
        try:
            async with (
                asyncssh.connect(
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
                ) as connection,
                connection.start_sftp_client() as sftp,
            ):
                link = _SftpLink(connection, sftp, unquote(self._url.path) or ".")
                await link.deliver(greet())
                yield link
        except asyncssh.KeyImportError as error:
            raise OSError(f"the private key {self._table.key} cannot be used: {error}") from None
        except (asyncssh.Error, ValueError) as error:
            raise ConnectionError(f"sftp: {error}") from None


class _SftpLink:
    def __init__(
        self, connection: asyncssh.SSHClientConnection, sftp: asyncssh.SFTPClient, folder: str
    ) -> None:
        self._connection = connection
        self._sftp = sftp
        self._folder = folder.rstrip("/")
        self._made: set[str] = set()

    async def deliver(self, parcels: Sequence[Parcel]) -> None:
        try:
            for parcel in parcels:
                await self._write(parcel)
        except asyncssh.Error as error:
            raise ConnectionError(f"sftp: {error}") from None

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
        async with self._sftp.open(beside, "wb") as file:
            await file.write(parcel.payload)
            await _durable(file)
        await self._sftp.posix_rename(beside, place)

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
