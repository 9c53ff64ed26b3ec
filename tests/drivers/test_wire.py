"""Opening, losing and closing real pseudo-terminals and sockets."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import os
import termios
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drivers import wire
from drivers.contract import LineDown
from drivers.wire import SerialWire, TcpWire
from tests.drivers.rtu_server import Mode, RtuServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import serial

TIOCGEXCL = 0x80045440  # asm-generic/ioctls.h


class Ends:
    """What a wire calls."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost: asyncio.Future[LineDown] = asyncio.get_running_loop().create_future()

    async def open(self, wire: SerialWire | TcpWire) -> None:
        await wire.open(self.received.extend, self.lost.set_result)

    async def wait_for(self, count: int) -> bytes:
        async with asyncio.timeout(5):
            while len(self.received) < count:
                await asyncio.sleep(0.001)
        return bytes(self.received)


@pytest.fixture
async def server() -> AsyncIterator[RtuServer]:
    server = RtuServer()
    yield server
    server.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_every_byte_value_passes_both_ways_unchanged(server: RtuServer) -> None:
    asyncio.get_running_loop().remove_reader(server.master)
    ends, port = Ends(), SerialWire(server.port, Mode())
    await ends.open(port)
    every = bytes(range(256))
    server.send(every)
    assert await ends.wait_for(256) == every
    port.write(every)
    assert os.read(server.master, 4096) == every
    port.close()


async def test_a_missing_port_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LineDown, match="ttyNONE does not exist; is the adapter plugged in"):
        await Ends().open(SerialWire(str(tmp_path / "ttyNONE"), Mode()))


async def test_a_port_in_use_is_said_in_a_sentence_and_free_after_closing(server: RtuServer) -> None:
    first, second = SerialWire(server.port, Mode()), SerialWire(server.port, Mode())
    await Ends().open(first)
    with pytest.raises(LineDown, match="is in use by another program"):
        await Ends().open(second)
    first.close()
    await Ends().open(second)
    second.close()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EBUSY])
async def test_the_kernels_refusals_name_the_remedy(
    server: RtuServer, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Root may open everything, so the kernel's answer is put in its mouth."""

    def refuse(*_args: object, **_options: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LineDown, match=r"add the user to the group|is in use by another program"):
        await Ends().open(SerialWire(server.port, Mode()))


async def test_something_that_is_no_serial_port_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    before = descriptors()
    with pytest.raises(LineDown, match="cannot be opened"):
        await Ends().open(SerialWire(str(tmp_path / "file"), Mode()))
    assert descriptors() == before


async def test_a_mode_the_port_does_not_have_is_refused_and_leaves_it_free(server: RtuServer) -> None:
    """A pseudo-terminal has no parity: the C library says so once nothing else of the mode is left to change."""
    port = SerialWire(server.port, Mode())
    await Ends().open(port)
    port.close()
    before = descriptors()
    even = SerialWire(server.port, Mode(parity="E"))
    with contextlib.suppress(LineDown):
        await Ends().open(even)
        even.close()
    with pytest.raises(LineDown, match=r"does not do 115200 8E1 .*pseudo-terminal knows no parity"):
        await Ends().open(even)
    assert descriptors() == before
    await Ends().open(port)
    port.close()


async def test_an_impossible_speed_is_refused(server: RtuServer) -> None:
    with pytest.raises(LineDown, match=r"does not do -1 8N1"):
        await Ends().open(SerialWire(server.port, Mode(baud=-1)))


async def test_an_unplugged_port_is_lost_at_once(server: RtuServer) -> None:
    ends, port = Ends(), SerialWire(server.port, Mode())
    await ends.open(port)
    server.unplug()
    async with asyncio.timeout(1):
        down = await ends.lost
    assert server.port in str(down)
    port.write(b"nobody listens")
    port.close()


async def test_a_port_that_takes_no_more_bytes_is_lost_by_its_deadline(server: RtuServer) -> None:
    asyncio.get_running_loop().remove_reader(server.master)
    ends, port = Ends(), SerialWire(server.port, Mode(baud=4_000_000), write_s=0.05)
    await ends.open(port)
    port.write(bytes(1 << 17))
    async with asyncio.timeout(5):
        down = await ends.lost
    assert "takes no more bytes" in str(down)


async def test_bytes_that_had_to_wait_are_sent_in_order(server: RtuServer) -> None:
    loop, sent, arrived = asyncio.get_running_loop(), os.urandom(100_000), bytearray()
    loop.remove_reader(server.master)
    ends, port = Ends(), SerialWire(server.port, Mode())
    await ends.open(port)
    port.write(sent)
    async with asyncio.timeout(5):
        while len(arrived) < len(sent):
            await asyncio.sleep(0)
            with contextlib.suppress(BlockingIOError):
                arrived += os.read(server.master, 4096)
    assert arrived == sent
    port.write(b"next")
    assert os.read(server.master, 4096) == b"next"
    assert not ends.lost.done()
    port.close()


async def test_a_request_behind_unsent_bytes_loses_the_port(server: RtuServer) -> None:
    asyncio.get_running_loop().remove_reader(server.master)
    ends, port = Ends(), SerialWire(server.port, Mode())
    await ends.open(port)
    port.write(bytes(1 << 20))
    port.write(b"next")
    assert "still holds the bytes of an earlier request" in str(await ends.lost)


async def test_opening_does_not_stop_the_event_loop_and_a_cancelled_opening_leaks_nothing(
    server: RtuServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, open_port = threading.Event(), wire._open_port

    def slowly(port: str, mode: wire.SerialMode) -> serial.Serial:
        go_on.wait(5)
        return open_port(port, mode)

    monkeypatch.setattr(wire, "_open_port", slowly)
    before = descriptors()
    opening = asyncio.create_task(Ends().open(SerialWire(server.port, Mode())), name="open")
    await asyncio.sleep(0.01)  # passes: the loop is free
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go_on.set()
    async with asyncio.timeout(5):
        while True:  # the lock is free again once the thread is through
            await asyncio.sleep(0.005)
            port = SerialWire(server.port, Mode())
            try:
                await Ends().open(port)
            except LineDown:
                continue
            break
    port.close()
    assert descriptors() == before


async def test_other_programs_are_kept_out_of_real_ports_and_pseudo_terminals_left_as_they_were(
    server: RtuServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exclusive(fd: int) -> int:
        flag = array.array("i", [0])
        fcntl.ioctl(fd, TIOCGEXCL, flag)
        return flag[0]

    wire._claim(server._keeper)
    assert exclusive(server._keeper) == 0
    monkeypatch.setattr(wire, "_UNIX98_PTY_MAJORS", range(0))
    wire._claim(server._keeper)
    assert exclusive(server._keeper) == 1
    fcntl.ioctl(server._keeper, termios.TIOCNXCL)


async def test_a_connection_whose_peer_reads_nothing_is_lost_before_it_fills_the_memory() -> None:
    release = asyncio.Event()

    async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1)
    ends = Ends()
    link = TcpWire("127.0.0.1", server.sockets[0].getsockname()[1])
    await ends.open(link)
    async with asyncio.timeout(10):
        while not ends.lost.done():
            link.write(bytes(250))
    assert "takes no more bytes" in str(ends.lost.result())
    release.set()
    await asyncio.sleep(0.01)
    server.close()
    await server.wait_closed()


async def test_a_peer_that_hangs_up_at_once_is_never_taken_for_an_open_connection() -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    for _ in range(50):
        ends, link = Ends(), TcpWire("127.0.0.1", server.sockets[0].getsockname()[1])
        try:
            await ends.open(link)
        except LineDown:
            assert not ends.lost.done()
        else:
            async with asyncio.timeout(1):
                await ends.lost
    server.close()
    await server.wait_closed()


async def test_a_closed_wire_calls_nobody_any_more() -> None:
    release = asyncio.Event()

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await release.wait()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    ends = Ends()
    link = TcpWire("127.0.0.1", server.sockets[0].getsockname()[1])
    await ends.open(link)
    assert await ends.wait_for(5) == b"hello"
    link.close()
    release.set()
    await asyncio.sleep(0.02)
    assert not ends.lost.done()
    server.close()
    await server.wait_closed()
