"""The bench's control socket: JSON lines over a Unix socket, one answer per request, in order.

    {"do": "summary"}                                        what the platform received
    {"do": "truth"}                                          the dam now
    {"do": "relays"}                                         which contacts are closed
    {"do": "facts"}                                          what bench.json says
    {"do": "fault", "target": "rs485-1/192", "fault": "late 0.5"}
    {"do": "platform", "away_s": 20}                         also "receipts", "acks", "keeps":
    true | false, "refuse": reason code

An answer is an object; one with `error` says in a sentence what was wrong with the request.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import msgspec

from hardware_sim.faults import FaultUnknown

if TYPE_CHECKING:
    from pathlib import Path

    from hardware_sim.bench import Bench

_LONGEST_LINE: Final = 64 * 1024
_MOST_UNREAD: Final = 16 * 1024 * 1024  # bytes of answers a client may leave unread


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do"):
    def obey(self, bench: Bench) -> Any:
        raise NotImplementedError


class _Summary(_Request, frozen=True, tag="summary"):
    def obey(self, bench: Bench) -> Any:
        return bench.platform.receiver.summary()


class _Truth(_Request, frozen=True, tag="truth"):
    def obey(self, bench: Bench) -> Any:
        return bench.truth()


class _Relays(_Request, frozen=True, tag="relays"):
    def obey(self, bench: Bench) -> Any:
        return {"closed": bench.relays.closed, "switched": bench.relays.switched}


class _Facts(_Request, frozen=True, tag="facts"):
    def obey(self, bench: Bench) -> Any:
        return bench.facts()


class _SetFault(_Request, frozen=True, tag="fault"):
    target: str
    fault: str

    def obey(self, bench: Bench) -> Any:
        bench.set_fault(self.target, self.fault)
        return {"target": self.target, "fault": self.fault}


class _Misbehave(_Request, frozen=True, tag="platform"):
    away_s: Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)] | None = None
    receipts: bool | None = None
    acks: bool | None = None
    keeps: bool | None = None
    refuse: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None

    def obey(self, bench: Bench) -> Any:
        platform = bench.platform
        if self.receipts is not None:
            platform.receipts = self.receipts
        if self.acks is not None:
            platform.acks = self.acks
        if self.keeps is not None:
            platform.keeps = self.keeps
        if self.refuse is not None:
            platform.refuse = self.refuse
        if self.away_s is not None:
            platform.go_away(self.away_s)
        return {
            "here": platform.here,
            "receipts": platform.receipts,
            "acks": platform.acks,
            "keeps": platform.keeps,
            "refuse": platform.refuse,
        }


_DECODER: Final = msgspec.json.Decoder(_Summary | _Truth | _Relays | _Facts | _SetFault | _Misbehave)


def assert_free(folder: Path) -> None:
    """No other bench lives there: two would take each other's terminals and files away.

    Raises:
        OSError: one answers on its socket.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(folder / "bench.sock")) == 0:
            raise OSError(f"a bench or demo runs in {folder} already: end it first, or choose another folder")


class ControlSocket:
    def __init__(self, path: Path, bench: Bench) -> None:
        self._path = path
        self._bench = bench
        self._server: asyncio.Server | None = None
        self.clients: set[_Client] = set()

    async def open(self) -> None:
        """Listens; a socket left behind by an earlier bench is replaced.

        Raises:
            OSError: the folder cannot be written, or the path is too long for a Unix socket.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Client(self), self._path)

    def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for client in list(self.clients):
            client.abort()
        self._path.unlink(missing_ok=True)

    def answer(self, line: bytes) -> bytes:
        try:
            return msgspec.json.encode(_DECODER.decode(line).obey(self._bench)) + b"\n"
        except (msgspec.MsgspecError, FaultUnknown) as error:
            return msgspec.json.encode({"error": str(error)}) + b"\n"


class _Client(asyncio.Protocol):
    def __init__(self, socket: ControlSocket) -> None:
        self._socket = socket
        self._held = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._socket.clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._socket.clients.discard(self)

    def data_received(self, data: bytes) -> None:
        self._held += data
        *lines, rest = bytes(self._held).split(b"\n")
        self._held = bytearray(rest)
        assert self._transport is not None
        for line in lines:
            self._transport.write(self._socket.answer(line))
        if len(self._held) > _LONGEST_LINE or self._transport.get_write_buffer_size() > _MOST_UNREAD:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
