"""What the daemon believes, learned as anybody can: over its control socket (JSON, one object a line).

Two connections are held while the daemon is there: one hears `tail`, one asks for `status` and `alarms.list`
every half second. When it goes away what it said is kept and `here` turns False; it is looked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

_ASK_EVERY_S: Final = 0.5
_AGAIN_S: Final = 0.5
_ANSWER_S: Final = 10.0
_LONGEST_LINE: Final = 4 * 1024 * 1024
_MOST_CHANNELS: Final = 10_000  # further ones are left out


class Reading(msgspec.Struct, frozen=True):
    """A row of `tail`."""

    channel: str
    time: str
    value: float | None
    unit: str
    quality: str


class _Row(msgspec.Struct, frozen=True):
    row: Reading | None = None


class _Status(msgspec.Struct, frozen=True):
    ponds: dict[str, str]
    uplinks: dict[str, Any]


class Refused(Exception):
    """The daemon is not there or refuses; the message is its sentence."""


_ROW: Final = msgspec.json.Decoder(_Row)


class Believed:
    """Attributes: `readings` the latest by channel, `alarms` the open ones as the daemon lists them."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.here = False
        self.readings: dict[str, Reading] = {}
        self.alarms: list[dict[str, Any]] = []
        self.ponds: dict[str, str] = {}
        self.uplinks: dict[str, Any] = {}

    async def run(self) -> None:
        """Listen and ask, over and over, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again_and_again(self._listen), name="page tail")
            group.create_task(self._again_and_again(self._look), name="page look")

    async def acknowledge(self, alarm: str, by: str) -> None:
        """Acknowledge an alarm in somebody's name.

        Raises:
            Refused: as the daemon says it, or it is not there.
        """
        try:
            async with asyncio.timeout(_ANSWER_S), self._connected() as (reader, writer):
                await _asked(reader, writer, {"do": "alarms.ack", "id": alarm, "by": by})
        except (OSError, TimeoutError, ConnectionError):
            raise Refused(f"no daemon listens at {self._socket}") from None

    async def _again_and_again(self, work: Any) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError, Refused, msgspec.MsgspecError, ValueError):
                await work()
            self.here = False
            await asyncio.sleep(_AGAIN_S)

    async def _listen(self) -> None:
        async with self._connected() as (reader, writer):
            writer.write(b'{"do":"tail"}\n')
            while line := await reader.readline():
                row = _ROW.decode(line).row
                if row is not None and (row.channel in self.readings or len(self.readings) < _MOST_CHANNELS):
                    self.readings[row.channel] = row

    async def _look(self) -> None:
        async with self._connected() as (reader, writer):
            while True:
                async with asyncio.timeout(_ANSWER_S):
                    status = msgspec.convert(await _asked(reader, writer, {"do": "status"}), _Status)
                    self.alarms = await _asked(reader, writer, {"do": "alarms.list"})
                self.ponds, self.uplinks, self.here = status.ponds, status.uplinks, True
                await asyncio.sleep(_ASK_EVERY_S)

    @contextlib.asynccontextmanager
    async def _connected(self) -> Any:
        reader, writer = await asyncio.open_unix_connection(self._socket, limit=_LONGEST_LINE)
        try:
            yield reader, writer
        finally:
            writer.close()


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Any) -> Any:
    writer.write(msgspec.json.encode(request) + b"\n")
    line = await reader.readline()
    if not line:
        raise Refused("the daemon broke off")
    answer = msgspec.json.decode(line)
    if "ok" not in answer:
        raise Refused(answer["error"])
    return answer["ok"]
