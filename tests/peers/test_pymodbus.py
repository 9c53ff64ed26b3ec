"""The line against pymodbus's own server, over TCP and over RTU framing on TCP."""

from __future__ import annotations

import asyncio

import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient
from pymodbus.exceptions import ModbusIOException
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from drivers.contract import Refused
from drivers.framing import MbapFraming, RtuFraming
from drivers.line import Line
from drivers.modbus import read_pdu, write_pdu
from drivers.wire import TcpWire
from tests.drivers.rtu_server import RtuServer, answer, word

pytestmark = pytest.mark.peer


@pytest.mark.parametrize("framer", [FramerType.SOCKET, FramerType.RTU], ids=["modbus-tcp", "rtu-over-tcp"])
async def test_pymodbus_and_the_line_understand_each_other(framer: FramerType, unused_tcp_port: int) -> None:
    registers = SimData(address=0, values=list(range(300)), datatype=DataType.REGISTERS)
    device = SimDevice(id=1, simdata=[registers])
    server = ModbusTcpServer([device], framer=framer, address=("127.0.0.1", unused_tcp_port))
    await server.serve_forever(background=True)
    framing = MbapFraming() if framer == FramerType.SOCKET else RtuFraming()
    line = Line(TcpWire("127.0.0.1", unused_tcp_port), framing, "pymodbus")
    await line.open()

    async def ask(pdu: bytes, reply_bytes: int) -> bytes:
        return await line.transact(1, pdu, reply_bytes=reply_bytes, timeout_s=1.0, slowest_reply_s=1.0)

    expected = b"".join(n.to_bytes(2, "big") for n in range(100, 225))
    for fn in (3, 4):
        assert await ask(read_pdu(fn, 100, 125), 252) == bytes((fn, 250)) + expected
    assert await ask(write_pdu(6, 7, 4711), 5) == write_pdu(6, 7, 4711)
    assert await ask(write_pdu(16, 8, 815), 5) == b"\x10\x00\x08\x00\x01"
    assert await ask(read_pdu(3, 7, 2), 6) == b"\x03\x04\x12\x67\x03\x2f"
    with pytest.raises(Refused):
        await ask(read_pdu(3, 299, 2), 6)
    line.close()
    await server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus leaves it untyped
    await asyncio.sleep(0)


async def test_pymodbus_as_a_client_hands_a_late_reply_to_the_next_request() -> None:
    """Why the line is our own (docs/decisions/0001): when this fails, pymodbus has changed; look again."""
    server = RtuServer()
    server.plan = lambda request: [(0.08 if request[2:4] == b"\0\x64" else 0.0, answer(request))]
    client = AsyncModbusSerialClient(server.port, baudrate=115200, timeout=0.05, retries=0, reconnect_delay=0)
    await client.connect()
    with pytest.raises(ModbusIOException):
        await client.read_holding_registers(100, count=2, device_id=1)
    server.plan = lambda request: []
    wrong = await client.read_holding_registers(500, count=2, device_id=1)
    assert wrong.registers == [word(1, 3, 100), word(1, 3, 101)]
    client.close()
    server.close()
