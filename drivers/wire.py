"""Byte transports: a serial port and a TCP connection behind one small interface.

A wire carries bytes and knows no protocol. It reads as soon as something arrives, so that nothing old
waits in a buffer, and says at once when it is gone. It never opens again by itself: its owner does.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import termios
from typing import TYPE_CHECKING, Protocol

import serial

from drivers.contract import LineDown

if TYPE_CHECKING:
    from collections.abc import Callable

    OnBytes = Callable[[bytes], None]
    OnLoss = Callable[[LineDown], None]

_READ_BYTES = 4096
_UNIX98_PTY_MAJORS = range(136, 144)  # Documentation/admin-guide/devices.txt
_REMEDY = {
    errno.ENOENT: "does not exist; is the adapter plugged in?",
    errno.EACCES: "may not be opened by this user; add the user to the group of the device (dialout)",
    errno.EPERM: "may not be opened by this user; add the user to the group of the device (dialout)",
    errno.EBUSY: "is in use by another program; stop that program",
    errno.EAGAIN: "is in use by another program; stop that program",
}


class SerialMode(Protocol):
    """`9600 8N1` taken apart; `parity` is N, E or O."""

    @property
    def baud(self) -> int: ...
    @property
    def data_bits(self) -> int: ...
    @property
    def parity(self) -> str: ...
    @property
    def stop_bits(self) -> float: ...
    @property
    def bits_per_character(self) -> float: ...


class Wire(Protocol):
    """What a line (or a stream reader) needs of a transport; the callbacks run in the event loop."""

    @property
    def character_s(self) -> float:
        """Seconds one character takes on the wire; 0.0 where nobody can know."""
        ...

    @property
    def keeps_bytes(self) -> bool:
        """Whether bytes meant for somebody before may come after opening; the kernel's ports forget them."""
        ...

    async def open(self, on_bytes: OnBytes, on_loss: OnLoss) -> None:
        """Open and start reading.

        Raises:
            LineDown: not possible now, with the reason and the remedy in one sentence.
        """
        ...

    def close(self) -> None:
        """Let go of the port at once; neither callback is called any more."""
        ...

    def write(self, data: bytes) -> None:
        """Send without waiting; a wire that takes no more bytes reports its loss."""
        ...


class SerialWire:
    """A serial port, or a pseudo-terminal.

    pyserial opens and configures (in a thread: some adapters take their time); reading and writing go
    straight to the descriptor, see docs/decisions/0002-pyserial-opens-the-port.md.
    """

    def __init__(self, port: str, mode: SerialMode, *, write_s: float = 1.0) -> None:
        self.port = port
        self._mode = mode
        self._write_s = write_s
        self.character_s = mode.bits_per_character / mode.baud
        self.keeps_bytes = False
        self._handle: serial.Serial | None = None
        self._unsent = b""
        self._write_deadline: asyncio.TimerHandle | None = None

    async def open(self, on_bytes: OnBytes, on_loss: OnLoss) -> None:
        self.close()
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(None, _open_port, self.port, self._mode)
        try:
            handle = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)  # the thread cannot be cancelled
            raise
        self._loop, self._on_bytes, self._on_loss = loop, on_bytes, on_loss
        self._handle, self._fd = handle, handle.fileno()
        loop.add_reader(self._fd, self._readable)

    def close(self) -> None:
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        self._loop.remove_reader(self._fd)
        self._nothing_unsent()
        _close_port(handle)

    def write(self, data: bytes) -> None:
        if self._handle is None:
            return
        if self._unsent:
            self._lose("still holds the bytes of an earlier request")
            return
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._loop.add_writer(self._fd, self._writable)
            patience_s = self._write_s + len(data) * self.character_s
            self._write_deadline = self._loop.call_later(patience_s, self._lose, "takes no more bytes")

    def _writable(self) -> None:
        try:
            sent = os.write(self._fd, self._unsent)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._nothing_unsent()

    def _nothing_unsent(self) -> None:
        self._unsent = b""
        self._loop.remove_writer(self._fd)
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:  # EIO: the other end of a pty closed; ENODEV, ENXIO: unplugged
            self._lose(error.strerror or str(error))
            return
        if data:
            self._on_bytes(data)
        else:
            self._lose("hung up")

    def _lose(self, why: str) -> None:
        self.close()
        self._on_loss(LineDown(f"{self.port}: {why}"))


def _open_port(port: str, mode: SerialMode) -> serial.Serial:
    """An exclusively opened port whose reads never block; runs in a thread.

    Raises:
        LineDown: with what is wrong and what to do.
    """
    try:
        handle = serial.Serial(
            port,
            baudrate=mode.baud,
            bytesize=mode.data_bits,
            parity=mode.parity,
            stopbits=mode.stop_bits,
            exclusive=True,
            # Makes pyserial set VMIN=1, so that a read of 0 bytes means "hung up" and nothing else.
            inter_byte_timeout=0,
        )
    except OSError as error:
        raise LineDown(f"{port} {_REMEDY.get(error.errno or 0, f'cannot be opened: {error}')}") from error
    except (termios.error, ValueError) as error:  # termios.error is no OSError
        text = f"{mode.baud} {mode.data_bits}{mode.parity}{mode.stop_bits:g}"
        raise LineDown(
            f"{port} does not do {text} ({error}); a pseudo-terminal knows no parity and no 7 bits"
        ) from error
    try:
        _claim(handle.fileno())
        with contextlib.suppress(ValueError, NotImplementedError):  # not every driver knows it
            handle.set_low_latency_mode(True)  # 1 ms instead of 16 ms in USB adapters of FTDI
    except OSError as error:
        handle.close()
        raise LineDown(f"{port} vanished while it was opened: {error}") from error
    return handle


def _claim(fd: int) -> None:
    """Keep programs out that do not ask for pyserial's advisory lock.

    Not on a pseudo-terminal, where the flag outlives its owner: after a kill nobody but root could open
    it again. tty_ioctl(4).
    """
    if os.major(os.fstat(fd).st_rdev) not in _UNIX98_PTY_MAJORS:
        fcntl.ioctl(fd, termios.TIOCEXCL)


def _close_port(handle: serial.Serial) -> None:
    # Without the flush the kernel may wait up to 30 s for bytes that will never leave (closing_wait).
    with contextlib.suppress(OSError, termios.error):
        termios.tcflush(handle.fileno(), termios.TCIOFLUSH)
    with contextlib.suppress(OSError):
        handle.close()


def _close_unwanted(opening: asyncio.Future[serial.Serial]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        _close_port(opening.result())


class TcpWire:
    """A TCP connection: to a Modbus TCP server, or to a serial server that passes bytes through.

    Args:
        host: name or address; IPv6 without brackets.
        port: number of the port.
        connect_s: how long connecting may take.
        dead_s: after how long without acknowledgement the kernel gives the connection up, in use and idle.
    """

    character_s = 0.0
    keeps_bytes = True

    def __init__(self, host: str, port: int, *, connect_s: float = 5.0, dead_s: float = 20.0) -> None:
        self.address = f"{host}:{port}"
        self._host, self._port = host, port
        self._connect_s, self._dead_s = connect_s, dead_s
        self._link: _Link | None = None

    async def open(self, on_bytes: OnBytes, on_loss: OnLoss) -> None:
        self.close()
        link = _Link(self.address, on_bytes, on_loss)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                await loop.create_connection(lambda: link, self._host, self._port)
        except TimeoutError:
            raise LineDown(f"{self.address} did not answer within {self._connect_s:g} s") from None
        except OSError as error:
            number = error.errno or 0  # asyncio words it anew; the resolver's numbers are below zero
            reason = os.strerror(number) if number > 0 else str(error)
            raise LineDown(f"{self.address}: {reason}") from error
        if link.lost is not None:  # closed again before we came to it
            raise link.lost
        dead_s = max(1, int(self._dead_s))
        sock = link.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, dead_s // 2))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, dead_s // 4))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, dead_s * 1000)
        link.opened = True
        self._link = link

    def close(self) -> None:
        if self._link is not None:
            self._link.wanted = False
            self._link.transport.abort()
            self._link = None

    def write(self, data: bytes) -> None:
        if self._link is not None:
            self._link.write(data)


class _Link(asyncio.BufferedProtocol):
    """One connection. asyncio sets TCP_NODELAY by itself; this kind of protocol spares 256 KiB per read."""

    def __init__(self, address: str, on_bytes: OnBytes, on_loss: OnLoss) -> None:
        self.wanted = True
        self.opened = False
        self.lost: LineDown | None = None
        self._address, self._on_bytes, self._on_loss = address, on_bytes, on_loss
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 -- asyncio's signature
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.wanted:
            self._on_bytes(bytes(self._buffer[:nbytes]))

    def write(self, data: bytes) -> None:
        # Requests are small and one at a time: what piles up is for a peer that no longer reads.
        if self.transport.get_write_buffer_size() > _READ_BYTES:
            self._lose("takes no more bytes")
            self.transport.abort()
        else:
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(str(exc) if exc else "closed by the other side")

    def _lose(self, why: str) -> None:
        if not self.wanted:
            return
        self.wanted = False
        self.lost = LineDown(f"{self._address}: {why}")
        if self.opened:
            self._on_loss(self.lost)
