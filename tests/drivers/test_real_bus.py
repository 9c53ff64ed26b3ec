"""What buses in the field do that no single fault of the campaign is: several at once, and wires that go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.contract import BadReply, LineDown, NoReply, WireError
from drivers.framing import MbapFraming, RtuFraming
from drivers.line import Line
from drivers.wire import SerialWire, TcpWire
from tests.drivers.rtu_server import Mode, RtuServer, adu, answer, data, read
from tests.drivers.test_line_tcp import TcpServer, reply_to

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S, SLOWEST_S = 0.05, 0.15
WRITE = b"\x06\x00\x07\x12\x34"


async def ask(line: Line, at: int, *, unit: int = 1, count: int = 2, **options: Any) -> bytes:
    options = {"timeout_s": TIMEOUT_S, "slowest_reply_s": SLOWEST_S} | options
    reply = await line.transact(unit, read(3, at, count), reply_bytes=2 + 2 * count, **options)
    return reply[2:]


async def write(line: Line) -> bytes:
    return await line.transact(1, WRITE, reply_bytes=5, timeout_s=TIMEOUT_S, slowest_reply_s=SLOWEST_S)


async def test_an_adapter_that_hears_itself_before_a_device_that_is_late(
    server: RtuServer, line: Line
) -> None:
    server.plan = lambda request: [(0.0, request), (0.1 if request[3] == 100 else 0.01, answer(request))]
    for at in (100, 500, 100, 501):
        if at == 100:
            with pytest.raises(NoReply):
                await ask(line, at)
        else:
            assert await ask(line, at) == data(1, 3, at, 2)
    assert line.resyncs == 2


async def test_a_late_reply_to_a_write_is_not_that_to_the_same_write_later(
    server: RtuServer, line: Line
) -> None:
    """The first is answered while the line is silent; the second is not answered at all, and that is said."""
    await ask(line, 1)
    plans = [[(0.1, WRITE)], []]
    server.plan = lambda request: [(at_s, adu(1, pdu)) for at_s, pdu in plans.pop(0)]
    for _ in range(2):
        with pytest.raises(NoReply):
            await write(line)


async def test_a_late_exception_is_nobodys_refusal(server: RtuServer, line: Line) -> None:
    refusal = adu(1, b"\x83\x02")
    server.plan = lambda request: [(0.1, refusal)] if request[3] == 100 else [(0.0, answer(request))]
    with pytest.raises(NoReply):
        await ask(line, 100)
    assert await ask(line, 500) == data(1, 3, 500, 2)


async def test_a_unit_that_answers_what_another_was_asked(server: RtuServer, line: Line) -> None:
    """Two units set to one number would be worse: this one at least says who it is."""

    def plan(request: bytes) -> list[tuple[float, bytes]]:
        other = adu(2, answer(request)[1:-2])
        return [(0.0, other)] if request[3] == 100 else [(0.0, other + answer(request))]

    server.plan = plan
    with pytest.raises(BadReply, match="only: 02 03 04"):
        await ask(line, 100)
    assert await ask(line, 500) == data(1, 3, 500, 2)


@pytest.mark.parametrize("code", [10, 11])
async def test_what_a_gateway_does_not_reach_is_silent(server: RtuServer, line: Line, code: int) -> None:
    server.plan = lambda request: [(0.0, adu(1, bytes((0x83, code))))]
    with pytest.raises(NoReply, match=f"unit 1 answered exception {code}: the gateway"):
        await ask(line, 100)
    assert line.resyncs == 0


# -- a UART at the wrong parity ----------------------------------------------------------------------------


def bits_of(sent: bytes, parity: str) -> Iterator[int]:
    """As they stand on the wire, which rests at 1."""
    for byte in sent:
        ones = [byte >> i & 1 for i in range(8)]
        check = {"N": [], "E": [sum(ones) % 2], "O": [1 - sum(ones) % 2]}[parity]
        yield from (0, *ones, *check, 1)
    yield from [1] * 12


def heard_as(bits: list[int], parity: str) -> bytes:
    """A UART that does not check parity, as a terminal has it; a character without its stop bit is a 0."""
    heard, at, width = bytearray(), 0, 9 + (parity != "N")
    while at + width < len(bits):
        if bits[at]:
            at += 1
            continue
        byte = sum(bit << i for i, bit in enumerate(bits[at + 1 : at + 9]))
        heard.append(byte if bits[at + width] else 0)
        at += width + bits[at + width]
    return bytes(heard)


def test_the_uart_of_this_test_hears_what_was_sent() -> None:
    everything = bytes(range(256))
    for parity in "NEO":
        assert heard_as(list(bits_of(everything, parity)), parity) == everything


@given(st.integers(0, 0xFFFF), st.integers(1, 20), st.permutations("NEO"))
def test_a_device_with_another_parity_says_nothing_or_the_truth(
    at: int, count: int, parities: list[str]
) -> None:
    framing, pdu = RtuFraming(), read(3, at, count)
    request = framing.request(1, pdu, 2 + 2 * count)
    reply = framing.feed(heard_as(list(bits_of(answer(request), parities[0])), parities[1]))
    assert reply in (None, answer(request)[1:-2])


# -- wires that go -----------------------------------------------------------------------------------------


async def test_an_adapter_that_vanishes_in_the_middle_of_a_write(server: RtuServer) -> None:
    """Half of the bytes are out, the rest waits for room: the port is lost at once, not at the deadline."""
    loop = asyncio.get_running_loop()
    loop.remove_reader(server.master)
    wire = SerialWire(server.port, Mode(), write_s=60.0)
    lost: asyncio.Future[LineDown] = loop.create_future()
    await wire.open(lambda _: None, lost.set_result)
    wire.write(bytes(1 << 17))
    assert not lost.done()
    loop.add_reader(server.master, lambda: None)  # unplug takes it away
    server.unplug()
    async with asyncio.timeout(2.0):
        assert "takes no more bytes" not in str(await lost)
    wire.write(b"nobody is there")
    wire.close()


# -- Modbus TCP --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [-5, -4, -3, -2, -1, 1, 2, 3, 7, 13, 100, 244])
async def test_a_server_that_miscounts_one_reply_costs_some_requests_and_no_value(off: int) -> None:
    """Its length says where the next header is looked for: too long swallows the next reply."""
    server = TcpServer()
    listening = await asyncio.get_running_loop().create_server(lambda: server, "127.0.0.1", 0)
    line = Line(TcpWire("127.0.0.1", listening.sockets[0].getsockname()[1]), MbapFraming(), "tcp-1")
    asked = 0

    def plan(request: bytes) -> list[tuple[float, bytes]]:
        nonlocal asked
        asked += 1
        right = reply_to(request)
        (length,) = struct.unpack_from(">H", right, 4)
        return [(0.0, right if asked != 3 else right[:4] + struct.pack(">H", length + off) + right[6:])]

    server.plan = plan
    right = 0
    for at in range(60):
        with contextlib.suppress(WireError):
            await line.open()
            assert await ask(line, at, timeout_s=0.1, slowest_reply_s=0.1) == data(1, 3, at, 2)
            right += 1
    line.close()
    listening.close()
    await asyncio.sleep(0)
    assert right >= 30, "it is in step again"


async def test_a_serial_server_cuts_and_joins_as_it_likes() -> None:
    """Each reply in pieces of its own; what the line said before comes in one piece with it."""
    server = TcpServer()
    server.size = 8
    listening = await asyncio.get_running_loop().create_server(lambda: server, "127.0.0.1", 0)
    line = Line(TcpWire("127.0.0.1", listening.sockets[0].getsockname()[1]), RtuFraming(), "gateway")
    await line.open()
    for cut in range(1, 9):
        noise = os.urandom(3) + adu(2, answer(adu(2, read(3, cut, 2)))[1:-2])

        def plan(request: bytes, cut: int = cut, noise: bytes = noise) -> list[tuple[float, bytes]]:
            reply = answer(request)
            return [(0.0, noise + reply[:cut]), (0.005, reply[cut:] + noise)]

        server.plan = plan
        assert await ask(line, 100 + cut) == data(1, 3, 100 + cut, 2)
    line.close()
    listening.close()
    await asyncio.sleep(0)
