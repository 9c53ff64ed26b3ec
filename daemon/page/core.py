"""The core as the page sees it: asked over its control socket, at most every EVERY_S, whoever looks on."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon import requests
from daemon.alarms import Alarm
from daemon.modes import Drill, Maintenance, Mute
from daemon.present import Present

if TYPE_CHECKING:
    from pathlib import Path

EVERY_S: Final = 1.0
_ANSWER_S: Final = 4.0
_LONGEST: Final = 16 * 1024 * 1024


class Left(msgspec.Struct, frozen=True):
    """Of a hand-over: what is open and what is ordered at the moment."""

    open: tuple[Alarm, ...] = ()
    maintenance: tuple[Maintenance, ...] = ()
    drill: Drill | None = None
    muted: tuple[Mute, ...] = ()


NOTHING: Final = Left()


@dataclass(frozen=True, slots=True)
class Seen:
    """What the core said; `present` is None, with `why`, where it did not."""

    present: Present | None
    left: Left = NOTHING
    why: str = ""


class Refused(Exception):
    """The core refuses, in its own words."""


class Core:
    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._seen = Seen(None, why="not asked yet")
        self._at_s = float("-inf")
        self._asking = asyncio.Lock()

    async def look(self) -> Seen:
        """How it is, no older than EVERY_S."""
        async with self._asking:
            if asyncio.get_running_loop().time() - self._at_s >= EVERY_S:
                self._seen = await self._look()
                self._at_s = asyncio.get_running_loop().time()
            return self._seen

    async def _look(self) -> Seen:
        try:
            async with asyncio.timeout(_ANSWER_S), _connected(self._socket) as (reader, writer):
                present = await _ask(reader, writer, requests.Present(), Present)
                left = await _ask(reader, writer, requests.Handover(), Left)
        except TimeoutError:
            return Seen(None, why=f"the core did not answer within {_ANSWER_S:g} s")
        except PermissionError:
            return Seen(None, why=f"this user may not open {self._socket}")
        except (OSError, EOFError):
            return Seen(None, why=f"no core listens at {self._socket}")
        except (Refused, msgspec.MsgspecError, ValueError) as error:
            return Seen(None, why=f"the core answers otherwise than this page expects: {error}")
        return Seen(present, left)


@contextlib.asynccontextmanager
async def _connected(path: Path) -> Any:
    reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST)
    try:
        yield reader, writer
    finally:
        writer.close()


async def _ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: requests.Request,
    kind: Any,
) -> Any:
    writer.write(msgspec.json.encode(request) + b"\n")
    line = await reader.readline()
    if not line:
        raise EOFError
    answer = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    if "ok" not in answer:
        raise Refused(msgspec.json.decode(answer["error"], type=str))
    return msgspec.json.decode(answer["ok"], type=kind)
