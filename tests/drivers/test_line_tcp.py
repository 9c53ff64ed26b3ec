"""A line over TCP: Modbus TCP with its ids, and RTU through a serial server."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from drivers.contract import BadReply, LineDown, NoReply, Refused
from drivers.framing import MbapFraming, RtuFraming
from drivers.line import Line
from drivers.wire import TcpWire
from tests.drivers.rtu_server import answer, data, read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Plan = list[tuple[float, bytes]]

TIMEOUT_S = 0.05


def reply_to(request: bytes, **changed: int) -> bytes:
    """The right Modbus TCP reply, except for what is changed."""
    identity, _, _, unit = struct.unpack_from(">HHHB", request)
    right = answer(request[6:] + b"\0\0")[1:-2]  # the RTU server's answer without unit and checksum
    header = {"identity": identity, "protocol": 0, "length": 1 + len(right), "unit": unit} | changed
    return struct.pack(">HHHB", *header.values()) + right


class TcpServer(asyncio.Protocol):
    """One that does what its plan says."""

    def __init__(self) -> None:
        self.plan: Callable[[bytes], Plan] = lambda request: [(0.0, reply_to(request))]
        self.connections = 0
        self.size = 12

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.connections += 1
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while len(self.received) >= self.size:
            request, self.received = self.received[: self.size], self.received[self.size :]
            for delay_s, reply in self.plan(request):
                asyncio.get_running_loop().call_later(delay_s, self.transport.write, reply)


@pytest.fixture
async def server() -> AsyncIterator[TcpServer]:
    protocol = TcpServer()
    server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
    protocol.port = server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    yield protocol
    server.close()
    if protocol.connections:
        protocol.transport.abort()
    await server.wait_closed()


@pytest.fixture
async def line(server: TcpServer) -> AsyncIterator[Line]:
    line = Line(TcpWire("127.0.0.1", server.port), MbapFraming(), "tcp-1")  # type: ignore[attr-defined]
    await line.open()
    yield line
    line.close()
    await asyncio.sleep(0)


async def ask(line: Line, at: int, *, unit: int = 1, fn: int = 3, count: int = 2, **options: Any) -> bytes:
    options = {"timeout_s": TIMEOUT_S, "slowest_reply_s": 0.15} | options
    reply = await line.transact(unit, read(fn, at, count), reply_bytes=2 + 2 * count, **options)
    return reply[2:]


async def test_a_reply_is_what_the_device_said(line: Line) -> None:
    assert await ask(line, 100) == data(1, 3, 100, 2)
    assert await ask(line, 7, unit=0, fn=4, count=125) == data(0, 4, 7, 125)  # on TCP unit 0 is a unit


async def test_a_late_reply_is_waited_for_and_known_by_its_id(server: TcpServer, line: Line) -> None:
    server.plan = lambda request: [(0.08 if request[8:10] == b"\0\x64" else 0.02, reply_to(request))]
    with pytest.raises(NoReply, match="no answer on line tcp-1"):
        await ask(line, 100, slowest_reply_s=5.0)
    begun = asyncio.get_running_loop().time()
    assert await ask(line, 500) == data(1, 3, 500, 2)  # the late one comes before it
    assert 0.04 < asyncio.get_running_loop().time() - begun < 0.5
    assert line.resyncs == 1


async def test_one_that_comes_later_than_it_should_is_still_nobodys_value(
    server: TcpServer, line: Line
) -> None:
    server.plan = lambda request: [(0.08 if request[8:10] == b"\0\x64" else 0.04, reply_to(request))]
    with pytest.raises(NoReply):
        await ask(line, 100, slowest_reply_s=0.0)
    assert await ask(line, 500) == data(1, 3, 500, 2)  # the late one comes before it


async def test_a_siren_waits_for_no_reply_that_was_given_up(server: TcpServer, line: Line) -> None:
    server.plan = lambda request: [] if request[8:10] == b"\0\x64" else [(0.0, reply_to(request))]
    with pytest.raises(NoReply):
        await ask(line, 100, slowest_reply_s=0.5)
    begun = asyncio.get_running_loop().time()
    routine = asyncio.create_task(ask(line, 500))
    await asyncio.sleep(0)
    assert await ask(line, 600, urgent=True) == data(1, 3, 600, 2)
    assert asyncio.get_running_loop().time() - begun < 0.2
    assert not routine.done()
    assert await routine == data(1, 3, 500, 2)
    assert asyncio.get_running_loop().time() - begun > 0.4


async def test_a_reply_that_was_answered_wrongly_or_on_a_lost_connection_is_not_waited_for(
    server: TcpServer, line: Line
) -> None:
    server.plan = lambda request: [(0.0, reply_to(request, unit=9))]
    with pytest.raises(BadReply):
        await ask(line, 100, slowest_reply_s=60.0)
    server.plan = lambda request: []
    asyncio.get_running_loop().call_later(0.01, server.transport.close)
    with pytest.raises(LineDown):
        await ask(line, 100, slowest_reply_s=60.0)
    server.plan = lambda request: [(0.0, reply_to(request))]
    await line.open()
    async with asyncio.timeout(2.0):
        assert await ask(line, 500) == data(1, 3, 500, 2)


@pytest.mark.parametrize(
    ("changed", "error"),
    [({"unit": 9}, BadReply), ({"identity": 999}, NoReply), ({"protocol": 1}, LineDown), ({"length": 999}, LineDown),
     ({"length": 1}, LineDown)],
)  # fmt: skip
async def test_a_reply_with_a_wrong_header_is_no_reply(
    server: TcpServer, line: Line, changed: dict[str, int], error: type[Exception]
) -> None:
    server.plan = lambda request: [(0.0, reply_to(request, **changed))]
    with pytest.raises(error):
        await ask(line, 100)
    assert line.is_open == (error is not LineDown)
    server.plan = lambda request: [(0.0, reply_to(request))]
    await line.open()
    assert await ask(line, 500) == data(1, 3, 500, 2)


async def test_replies_may_come_split_and_several_at_once(server: TcpServer, line: Line) -> None:
    server.plan = lambda request: [(0.002 * i, bytes((b,))) for i, b in enumerate(reply_to(request))]
    assert await ask(line, 100) == data(1, 3, 100, 2)
    server.plan = lambda request: [(0.0, reply_to(request, identity=1) * 3 + reply_to(request) * 2)]
    for at in range(5):
        assert await ask(line, at, count=125) == data(1, 3, at, 125)


async def test_a_reply_that_never_becomes_whole_is_a_bad_one(server: TcpServer, line: Line) -> None:
    server.plan = lambda request: [(0.0, reply_to(request)[:-1])]
    with pytest.raises(BadReply, match="no valid answer on line tcp-1, only: 00 01"):
        await ask(line, 100)


async def test_exceptions_are_refusals(server: TcpServer, line: Line) -> None:
    server.plan = lambda request: [(0.0, request[:4] + b"\0\3" + request[6:7] + b"\x83\2")]
    with pytest.raises(Refused, match="exception 2"):
        await ask(line, 100)


async def test_a_closed_connection_is_known_at_once(server: TcpServer, line: Line) -> None:
    server.plan = lambda request: []
    loop = asyncio.get_running_loop()
    loop.call_later(0.02, server.transport.close)
    begun = loop.time()
    with pytest.raises(LineDown, match="closed by the other side"):
        await ask(line, 1, timeout_s=30.0)
    assert loop.time() - begun < 1.0
    await line.open()
    server.plan = lambda request: [(0.0, reply_to(request))]
    assert await ask(line, 2) == data(1, 3, 2, 2)
    assert server.connections == 2


async def test_who_closes_the_line_frees_those_who_wait(server: TcpServer, line: Line) -> None:
    server.plan = lambda request: []
    waiting = [asyncio.create_task(ask(line, at, timeout_s=30.0), name=f"ask {at}") for at in (1, 2)]
    await asyncio.sleep(0.01)
    line.close()
    for ended in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(ended, LineDown)
        assert "was closed" in str(ended)


async def test_rtu_through_a_serial_server_keeps_the_silence(server: TcpServer) -> None:
    server.size = 8
    server.plan = lambda request: [(0.08 if request[2:4] == b"\0\x64" else 0.0, answer(request))]
    line = Line(TcpWire("127.0.0.1", server.port), RtuFraming(), "gateway")  # type: ignore[attr-defined]
    await line.open()
    with pytest.raises(NoReply):
        await ask(line, 100)
    assert await ask(line, 500) == data(1, 3, 500, 2)
    assert line.resyncs == 1
    line.close()
    await asyncio.sleep(0)


async def test_who_is_not_there_is_said_in_a_sentence() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(LineDown, match=f"127.0.0.1:{port}: .*refused"):
            await TcpWire("127.0.0.1", port).open(lambda data: None, lambda down: None)


async def test_connecting_has_a_deadline() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):  # a full queue: the kernel answers no further connection
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        with pytest.raises(LineDown, match=r"did not answer within 0\.1 s"):
            await TcpWire(*full.getsockname(), connect_s=0.1).open(lambda data: None, lambda down: None)
