"""Wires: Modbus RTU on a pseudo-terminal or over TCP, Modbus TCP, and a talking receiver on either.

Everything runs in event-loop callbacks: no task, no queue. Bounded everywhere: an unfinished request holds
at most 256 bytes; a client that does not read loses bytes on a pseudo-terminal, as on a real wire, and its
connection on TCP.
Replies leave in real time whatever the bench's clock does; on a serial line with a baud rate, no sooner than
their characters would have passed.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import sys
import termios
import time
import tty
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast

from hardware_sim import rtu
from hardware_sim.pace import Pace
from hardware_sim.station import Station

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hardware_sim.instruments.base import Instrument

_MOST_UNREAD: Final = 256 * 1024  # bytes a TCP client may leave unread
_MOST_CLIENTS: Final = 32
_STALE_BYTES: Final = 1024  # some six GNSS instants
MBAP: Final = struct.Struct(">HHHB")  # transaction, protocol, length from the unit on, unit
_MBAP_LENGTHS: Final = range(2, 255)
_TORN_AFTER_S: Final = 0.25  # a request begun so long ago is not going to be finished


# Who looks on as bytes pass: ("in" what a client sent | "out" what went back to it, the bytes).
Tap = Callable[[Literal["in", "out"], bytes], None]


class Wire(Protocol):
    """What the bench asks of every line."""

    tap: Tap

    @property
    def address(self) -> str: ...
    async def open(self) -> None: ...
    def close(self) -> None: ...
    def unplug(self) -> None: ...
    def plug(self) -> None: ...


def _unwatched(_direction: Literal["in", "out"], _data: bytes) -> None:
    return


class PtyPort:
    """One pseudo-terminal whose client side is found under `link`; can be unplugged and plugged again.

    The bench keeps the client side open too, so that a client that closes it does not end the line.
    """

    def __init__(self, link: Path, on_bytes: Callable[[bytes], None]) -> None:
        self._link = link
        self._on_bytes = on_bytes
        self._ends: tuple[int, int] | None = None
        self.tap: Tap = _unwatched

    @property
    def address(self) -> str:
        return str(self._link)

    def open(self) -> None:
        if self._ends is not None:
            return
        bench, client = os.openpty()
        tty.setraw(client)
        os.set_blocking(bench, False)
        asyncio.get_running_loop().add_reader(bench, self._readable, bench)
        self._ends = (bench, client)
        # The name changes hands in one step: a client finds the old port or the new one, never none.
        fresh = self._link.with_name(f".{self._link.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(client))
        fresh.replace(self._link)

    def close(self) -> None:
        """Takes the terminal away: whoever has it open sees it hang up."""
        if self._ends is None:
            return
        bench, client = self._ends
        self._ends = None
        asyncio.get_running_loop().remove_reader(bench)
        self._link.unlink(missing_ok=True)
        os.close(client)
        os.close(bench)

    def send(self, data: bytes) -> None:
        """Writes what fits; nobody reads, and the rest is lost, as on a wire."""
        if self._ends is None:
            return
        self.tap("out", data)
        try:
            os.write(self._ends[0], data)
        except BlockingIOError:
            return

    def drop_unread(self, more_than_bytes: int) -> None:
        """Empties what the client has left unread, if it is that much."""
        if self._ends is None:
            return
        unread = fcntl.ioctl(self._ends[1], termios.FIONREAD, bytes(4))
        if int.from_bytes(unread, sys.byteorder) > more_than_bytes:
            termios.tcflush(self._ends[1], termios.TCIFLUSH)

    def _readable(self, bench: int) -> None:
        try:
            data = os.read(bench, 4096)
        except BlockingIOError:
            return
        if data:
            self.tap("in", data)
            self._on_bytes(data)


class SerialWire:
    """A line on a pseudo-terminal."""

    def __init__(self, link: Path) -> None:
        self._port = PtyPort(link, self._received)

    @property
    def address(self) -> str:
        return self._port.address

    @property
    def tap(self) -> Tap:
        return self._port.tap

    @tap.setter
    def tap(self, tap: Tap) -> None:
        self._port.tap = tap

    async def open(self) -> None:
        self._port.open()

    def close(self) -> None:
        self._port.close()

    def unplug(self) -> None:
        self.close()

    def plug(self) -> None:
        self._port.open()

    def _received(self, data: bytes) -> None:
        raise NotImplementedError


class RtuWire(SerialWire):
    """A serial line of many Modbus RTU units.

    `baud` makes it take the time of a real one, and lose what is asked while an answer is still on its way.
    """

    def __init__(self, link: Path, instruments: Mapping[int, Instrument], baud: int | None = None) -> None:
        super().__init__(link)
        self.station = Station(instruments, rtu_faults=True)
        self._requests = rtu.RtuRequests()
        self._heard_s = 0.0
        self._pace = Pace(baud, self._port.send) if baud is not None else None

    def close(self) -> None:
        self.station.forget_delayed()
        if self._pace is not None:
            self._pace.forget()
        super().close()

    def _received(self, data: bytes) -> None:
        now_s = time.monotonic()
        if self._pace is not None and not self._pace.heard(len(data)):
            return
        send = self._port.send if self._pace is None else self._pace.send
        if now_s - self._heard_s > _TORN_AFTER_S:
            self._requests.drop()
        self._heard_s = now_s
        for request in self._requests.feed(data):
            unit, pdu = request[0], request[1:-2]
            if unit == 0:
                self.station.broadcast(pdu)
            else:
                self.station.serve(request, unit, pdu, rtu.frame, send)


class TalkerPtyWire(SerialWire):
    """A serial line on which a receiver talks; what a client says is ignored."""

    def _received(self, data: bytes) -> None:
        del data

    def send(self, data: bytes) -> None:
        """A real port that nobody has open keeps nothing; a terminal would keep 4 KiB of the past."""
        self._port.drop_unread(_STALE_BYTES)
        self._port.send(data)


class _Client(asyncio.Protocol):
    """One TCP client of a wire."""

    def __init__(self, wire: TcpWire) -> None:
        self._wire = wire
        self._held = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._wire.unplugged or len(self._wire.clients) >= _MOST_CLIENTS:
            self.abort()
        else:
            self._wire.clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._wire.clients.discard(self)

    def data_received(self, data: bytes) -> None:
        self._wire.tap("in", data)
        self._held += data
        if not self._wire.received(self._held, self.send):
            self.abort()

    def send(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._wire.tap("out", data)
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > _MOST_UNREAD:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class TcpWire:
    """A listening TCP address; unplugged it still accepts, and drops at once: its port stays its own."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self.clients: set[_Client] = set()
        self.unplugged = False
        self.tap: Tap = _unwatched

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._drop_clients()

    def unplug(self) -> None:
        self.unplugged = True
        self._drop_clients()

    def plug(self) -> None:
        self.unplugged = False

    def _drop_clients(self) -> None:
        for client in list(self.clients):
            client.abort()

    def received(self, held: bytearray, send: Callable[[bytes], None]) -> bool:
        """Takes what is whole from the front of `held`; False if it is no speech of this wire."""
        raise NotImplementedError


class ModbusTcpWire(TcpWire):
    """Modbus TCP with several units; pipelined requests are answered one by one, in order.

    Source: MODBUS Messaging on TCP/IP V1.0b, 3.1.3 (MBAP header).
    """

    def __init__(self, instruments: Mapping[int, Instrument], host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host, port)
        self.station = Station(instruments, rtu_faults=False)

    def close(self) -> None:
        self.station.forget_delayed()
        super().close()

    def received(self, held: bytearray, send: Callable[[bytes], None]) -> bool:
        while len(held) >= MBAP.size:
            transaction, protocol, length, unit = MBAP.unpack_from(held)
            if protocol != 0 or length not in _MBAP_LENGTHS:
                return False
            if len(held) < 6 + length:
                return True
            request = bytes(held[: 6 + length])
            del held[: 6 + length]

            def framed(of_unit: int, pdu: bytes, transaction: int = transaction) -> bytes:
                return MBAP.pack(transaction, 0, len(pdu) + 1, of_unit) + pdu

            self.station.serve(request, unit, request[MBAP.size :], framed, send)
        return True


class RtuTcpWire(TcpWire):
    """A serial device server: the units of a serial line, asked over TCP in the frames of that line.

    It is transparent: what two clients say at once is one stream to it, and spoils both.
    """

    def __init__(self, station: Station, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host, port)
        self.station = station
        self._requests = rtu.RtuRequests()

    def received(self, held: bytearray, send: Callable[[bytes], None]) -> bool:
        data = bytes(held)
        held.clear()
        for request in self._requests.feed(data):
            unit, pdu = request[0], request[1:-2]
            if unit == 0:
                self.station.broadcast(pdu)
            else:
                self.station.serve(request, unit, pdu, rtu.frame, send)
        return True


class TalkerTcpWire(TcpWire):
    """A receiver's TCP stream: every client hears everything; what clients say is ignored."""

    def received(self, held: bytearray, send: Callable[[bytes], None]) -> bool:
        del send
        held.clear()
        return True

    def send(self, data: bytes) -> None:
        for client in list(self.clients):
            client.send(data)
