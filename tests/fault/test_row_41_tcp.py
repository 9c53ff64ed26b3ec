"""Row 41: Modbus TCP servers that answer wrongly, in pieces, or several times at once."""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from drivers.contract import LineDown, WireError
from drivers.framing import MbapFraming, RtuFraming
from drivers.line import Line
from drivers.wire import TcpWire
from tests.drivers.rtu_server import answer, data, read
from tests.drivers.test_line_tcp import TcpServer, reply_to
from tests.fault.bus import polled, share

if TYPE_CHECKING:
    from tests.conftest import Figure

    Plan = list[tuple[float, bytes]]

REQUESTS, TIMEOUT_S = 3000, 0.02
RIGHT, WRONG = "right", "wrong"


class Mutations:
    """What a server does with a request: half of the replies are spoilt, one way or another."""

    def __init__(self, seed: int, server: TcpServer) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.kinds = [getattr(self, name) for name in dir(self) if name.startswith("fault_")]

    def __call__(self, request: bytes) -> Plan:
        if self.random.random() < 0.5:
            return [(0.0, reply_to(request))]
        fault = self.random.choice(self.kinds)
        return fault(request)  # type: ignore[no-any-return]

    def fault_wrong_id(self, request: bytes) -> Plan:
        return [(0.0, reply_to(request, identity=self.random.randrange(0x10000)))]

    def fault_wrong_unit(self, request: bytes) -> Plan:
        return [(0.0, reply_to(request, unit=request[6] ^ self.random.randint(1, 255)))]

    def fault_wrong_length(self, request: bytes) -> Plan:
        return [(0.0, reply_to(request, length=self.random.randrange(0x10000)))]

    def fault_wrong_protocol(self, request: bytes) -> Plan:
        return [(0.0, reply_to(request, protocol=self.random.randint(1, 0xFFFF)))]

    def fault_wrong_count(self, request: bytes) -> Plan:
        reply = bytearray(reply_to(request))
        reply[8] ^= self.random.randint(1, 255)
        return [(0.0, bytes(reply))]

    def fault_another_function(self, request: bytes) -> Plan:
        reply = bytearray(reply_to(request))
        reply[7] ^= self.random.randint(1, 255)
        return [(0.0, bytes(reply))]

    def fault_shorter_body(self, request: bytes) -> Plan:
        reply = reply_to(request)[: -self.random.randint(1, 4)]
        return [(0.0, reply[:4] + struct.pack(">H", len(reply) - 6) + reply[6:])]

    def fault_late(self, request: bytes) -> Plan:
        return [(self.random.uniform(0.5, 2.5) * TIMEOUT_S, reply_to(request))]

    def fault_several_at_once(self, request: bytes) -> Plan:
        before = reply_to(request, identity=self.random.randrange(0x10000))
        return [(0.0, before + reply_to(request) + before)]

    def fault_split(self, request: bytes) -> Plan:
        reply, cut = reply_to(request), self.random.randint(1, 12)
        return [(0.0, reply[:cut]), (self.random.uniform(0.0, TIMEOUT_S / 2), reply[cut:])]

    def fault_truncated(self, request: bytes) -> Plan:
        return [(0.0, reply_to(request)[: self.random.randint(1, 12)])]

    def fault_garbage(self, request: bytes) -> Plan:
        return [(0.0, self.random.randbytes(self.random.randint(1, 40)))]

    def fault_hang_up(self, request: bytes) -> Plan:
        self.server.transport.close()
        return []


async def one_connection(seed: int, count: int) -> Counter[str]:
    """A reply with the right id, unit, function, count and length holds the right registers, or the fault is no fault."""
    server, tally = TcpServer(), Counter[str]()
    server.plan = mutations = Mutations(seed, server)
    listening = await asyncio.get_running_loop().create_server(lambda: server, "127.0.0.1", 0)
    line = Line(TcpWire("127.0.0.1", listening.sockets[0].getsockname()[1]), MbapFraming(), f"tcp {seed}")
    for _ in range(count):
        at, unit = mutations.random.randrange(0xFF00), mutations.random.randint(1, 247)
        try:
            await line.open()
            reply = await line.transact(
                unit, read(3, at, 2), reply_bytes=6, timeout_s=TIMEOUT_S, slowest_reply_s=TIMEOUT_S
            )
        except WireError as error:
            tally[type(error).__name__] += 1
            if isinstance(error, LineDown):
                line.close()
        else:
            tally[RIGHT if reply[2:] == data(unit, 3, at, 2) else WRONG] += 1
    line.close()
    listening.close()
    await asyncio.sleep(0)
    return tally


@pytest.mark.fault(
    row=41, fault="Modbus TCP: wrong id, unit, length, protocol, function, count; coalesced, split, late, garbage",
    injected="half of the replies of 30 servers, at random",
    holds="none accepted; what the stream can no longer be understood ends the connection, a new one serves",
)  # fmt: skip
async def test_row_41_only_the_reply_to_the_question_is_its_answer(figure: Figure) -> None:
    total: Counter[str] = Counter()
    for tally in await asyncio.gather(*(one_connection(seed, REQUESTS // 30) for seed in range(30))):
        total += tally
    wrong = total[WRONG]
    figure(
        f"{wrong} wrong of {sum(total.values()):,} requests, {total[RIGHT]:,} answered right, {total['LineDown']} connections ended"
    )
    assert wrong == 0
    assert total[RIGHT] > REQUESTS // 5  # on a machine with time to spare it is half and more
    assert {"NoReply", "BadReply", "LineDown"} <= set(total)


@pytest.mark.fault(
    row=41, fault="RTU over TCP: a port server between the gateway and an RTU line",
    injected="one reply in ten up to `slowest_reply` late, one in ten in two pieces",
    holds="no value of another question; every other poll on time",
)  # fmt: skip
async def test_row_41_rtu_over_tcp_keeps_the_discipline_of_a_serial_line(figure: Figure) -> None:
    server, draw = TcpServer(), random.Random(41)
    server.size = 8

    def plan(request: bytes) -> Plan:
        reply, fault = answer(request), draw.random()
        if fault < 0.1:
            return [(draw.uniform(0.04, 0.075), reply)]
        return [(0.0, reply[:7]), (0.005, reply[7:])] if fault < 0.2 else [(0.0, reply)]

    server.plan = plan
    listening = await asyncio.get_running_loop().create_server(lambda: server, "127.0.0.1", 0)
    line = Line(TcpWire("127.0.0.1", listening.sockets[0].getsockname()[1]), RtuFraming(), "port server")
    async with polled(line, (1, 2, 3), every_s=0.3, timeout_s=0.04, slowest_s=0.08) as bus:
        while not bus.record.good:  # a port server may have kept bytes: first it is listened to
            await asyncio.sleep(0.02)
        since_ns = bus.clock.schedule_ns()
        await asyncio.sleep(4.0)
        good, ticks = bus.on_time((1, 2, 3), since_ns)
    listening.close()
    figure(f"{bus.record.wrong} wrong values, {share(good, ticks)} polls on time")
    assert not bus.record.wrong
    assert good >= 0.9 * ticks >= 30


class Keeping(TcpServer):
    """A serial server that keeps what its line says while nobody is connected, for whoever comes next."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 8
        self.kept = b""
        self.hangs_up = False
        self.plan = self.pass_on

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        kept, self.kept = self.kept, b""
        asyncio.get_running_loop().call_later(0.03, self.transport.write, kept)

    def pass_on(self, request: bytes) -> Plan:
        if self.hangs_up:
            self.kept += answer(request)
            self.transport.close()
            return []
        return [(0.1, answer(request))]  # later than what was kept


@pytest.mark.fault(
    row=41, fault="RTU over TCP: the connection is lost and made again while a reply is under way",
    injected="the port server hangs up and sends the reply to whoever connects next, 20 times",
    holds="no value of another question",
)  # fmt: skip
async def test_row_41_what_a_port_server_kept_over_a_reconnect_is_nobodys_value(figure: Figure) -> None:
    ask: Any = {"reply_bytes": 6, "timeout_s": 0.2, "slowest_reply_s": 0.01}

    async def reconnected(seed: int) -> bool:
        """Whether the question after the reconnection got its own answer."""
        server = Keeping()
        its = await asyncio.get_running_loop().create_server(lambda: server, "127.0.0.1", 0)
        line = Line(TcpWire("127.0.0.1", its.sockets[0].getsockname()[1]), RtuFraming(), f"server {seed}")
        await line.open()
        server.hangs_up = True
        with pytest.raises(LineDown):
            await line.transact(1, read(3, 100 + seed, 2), **ask)
        server.hangs_up = False
        await line.open()
        reply = await line.transact(1, read(3, 500 + seed, 2), **ask)
        line.close()
        its.close()
        return reply[2:] == data(1, 3, 500 + seed, 2)

    right = await asyncio.gather(*map(reconnected, range(20)))
    await asyncio.sleep(0)
    figure(f"{right.count(False)} wrong of {len(right)} reconnections")
    assert all(right)
