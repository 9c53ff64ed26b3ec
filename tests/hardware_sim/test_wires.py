from __future__ import annotations

import asyncio
import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hardware_sim import rtu
from hardware_sim.faults import Fault, FaultUnknown
from hardware_sim.instruments.registers import TableLogger
from hardware_sim.instruments.waveshare_relay import WaveshareRelay
from hardware_sim.wires import ModbusTcpWire, RtuTcpWire, RtuWire, TalkerPtyWire, TalkerTcpWire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

READ = rtu.frame(5, bytes.fromhex("03 0000 0002"))
ANSWER = rtu.frame(5, bytes.fromhex("03 04 3FC00000"))  # 1.5, ABCD


class Port:
    """The client's end of a pseudo-terminal, read with a deadline."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def close(self) -> None:
        os.close(self.fd)

    async def ask(self, request: bytes, quiet_s: float = 0.05, at_least: int = 0) -> bytes:
        """What comes back, until the line has been quiet for so long after so many bytes."""
        os.write(self.fd, request)
        return await self.listen(quiet_s, at_least)

    async def listen(self, quiet_s: float = 0.05, at_least: int = 0) -> bytes:
        heard, last = b"", time.monotonic()
        while time.monotonic() - last < (quiet_s if len(heard) >= at_least else 5.0):
            try:
                heard += os.read(self.fd, 4096)
                last = time.monotonic()
            except BlockingIOError:
                pass
            await asyncio.sleep(0.001)
        return heard


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[tuple[RtuWire, Port]]:
    instruments = {5: TableLogger([[1.5]], 5, "ABCD"), 3: WaveshareRelay(lambda: 0.0)}
    wire = RtuWire(tmp_path / "line", instruments)
    await wire.open()
    port = Port(wire.address)
    yield wire, port
    port.close()
    wire.close()


Line = tuple[RtuWire, Port]


async def test_a_unit_answers_on_a_pseudo_terminal(line: Line) -> None:
    _, port = line
    assert await port.ask(READ) == ANSWER


async def test_an_unknown_unit_is_silent_and_the_next_request_is_answered(line: Line) -> None:
    _, port = line
    assert await port.ask(rtu.frame(77, bytes.fromhex("03 0000 0002"))) == b""
    assert await port.ask(READ) == ANSWER


async def test_a_request_with_a_wrong_checksum_is_not_answered(line: Line) -> None:
    _, port = line
    assert await port.ask(READ[:-1] + b"\x00") == b""


async def test_every_byte_value_crosses_the_terminal_untouched(tmp_path: Path) -> None:
    everything = bytes(range(256))
    wire = TalkerPtyWire(tmp_path / "raw")
    await wire.open()
    port = Port(wire.address)
    wire.send(everything)
    assert await port.listen() == everything
    port.close()
    wire.close()


async def test_a_port_that_nobody_reads_does_not_keep_the_past(tmp_path: Path) -> None:
    wire = TalkerPtyWire(tmp_path / "gnss")
    await wire.open()
    for instant in range(100):
        wire.send(b"$GNGGA,%07d,and so on, as long as a sentence usually is,,,,,,,,,,*00\r\n" % instant)
        await asyncio.sleep(0.002)  # the kernel hands bytes over in its own time
    port = Port(wire.address)
    heard = (await port.listen()).splitlines()
    assert heard[-1].startswith(b"$GNGGA,0000099")
    assert len(heard) < 40, "the terminal alone would have kept some 55"
    port.close()
    wire.close()


WHOLE = ANSWER
FAULTS = [
    ("silent", b""),
    ("bad_crc", WHOLE[:-1] + bytes((WHOLE[-1] ^ 0xFF,))),
    ("truncated", WHOLE[: len(WHOLE) // 2]),
    ("echo", READ + WHOLE),
    ("exception 6", rtu.frame(5, bytes((0x83, 6)))),
    ("noise", b"\x00\xff\x5a" + WHOLE),
    ("foreign", rtu.frame(6, WHOLE[1:-2]) + WHOLE),
    ("duplicate", WHOLE + WHOLE),
    ("byte_slow 0.002", WHOLE),
    ("late 0.02", WHOLE),
    ("sentinel", WHOLE),
]


@pytest.mark.parametrize(("fault", "heard"), FAULTS)
async def test_a_fault_is_heard_on_the_wire_and_ends(line: Line, fault: str, heard: bytes) -> None:
    wire, port = line
    wire.station.set_fault(5, Fault.parse(fault))
    assert await port.ask(READ, at_least=len(heard)) == heard
    wire.station.set_fault(5, Fault.parse("none"))
    assert await port.ask(READ, at_least=len(WHOLE)) == WHOLE


async def test_a_late_reply_comes_after_the_next_units_reply(line: Line) -> None:
    wire, port = line
    wire.station.set_fault(5, Fault("late", 0.05))
    relays = rtu.frame(3, bytes.fromhex("01 0000 0008"))
    assert await port.ask(READ + relays, 0.15) == rtu.frame(3, bytes.fromhex("01 01 00")) + ANSWER


@pytest.mark.parametrize(("fault", "switched"), [("silent", 0), ("exception 4", 0), ("bad_crc", 1)])
async def test_a_relay_switches_only_if_it_heard_the_request(line: Line, fault: str, switched: int) -> None:
    wire, port = line
    wire.station.set_fault(3, Fault.parse(fault))
    await port.ask(rtu.frame(3, bytes.fromhex("05 0000 FF00")))
    relay = wire.station.instruments[3]
    assert isinstance(relay, WaveshareRelay)
    assert sum(relay.closed) == switched


async def test_a_broadcast_is_obeyed_and_not_answered(line: Line) -> None:
    wire, port = line
    assert await port.ask(rtu.frame(0, bytes.fromhex("05 0001 FF00"))) == b""
    relay = wire.station.instruments[3]
    assert isinstance(relay, WaveshareRelay)
    assert relay.closed[1]


async def test_unplugging_hangs_up_and_plugging_gives_the_name_to_a_new_terminal(line: Line) -> None:
    wire, port = line
    before = Path(wire.address).readlink()
    wire.unplug()
    assert not Path(wire.address).is_symlink()
    with pytest.raises(OSError, match="Input/output"):
        os.write(port.fd, READ)
    # Somebody else takes the freed number, as it happens with USB adapters.
    held = os.openpty()
    wire.plug()
    assert Path(wire.address).readlink() != before
    again = Port(wire.address)
    assert await again.ask(READ) == ANSWER
    again.close()
    for fd in held:
        os.close(fd)


async def test_a_client_that_does_not_read_loses_bytes_and_harms_nobody(line: Line) -> None:
    wire, port = line
    for _ in range(3000):
        wire._port.send(bytes(64))
    await port.listen()
    assert await port.ask(READ) == ANSWER


@pytest.mark.parametrize(
    ("unit", "fault", "said"),
    [(9, "silent", "no unit 9"), (5, "unplug", "cannot happen"), (5, "float", "cannot happen")],
)
async def test_a_fault_that_cannot_be_is_refused(line: Line, unit: int, fault: str, said: str) -> None:
    with pytest.raises(FaultUnknown, match=said):
        line[0].station.set_fault(unit, Fault.parse(fault))


@pytest.mark.parametrize(
    "text", ["slient", "late", "late x", "late nan", "late -1", "silent 3", "exception 0", ""]
)
def test_a_fault_written_wrongly_is_refused(text: str) -> None:
    with pytest.raises(FaultUnknown):
        Fault.parse(text)


async def test_a_wire_with_a_baud_rate_takes_its_time_and_loses_what_is_said_into_an_answer(
    tmp_path: Path,
) -> None:
    baud = 1200  # 9 characters of answer take 75 ms
    wire = RtuWire(tmp_path / "line", {5: TableLogger([[1.5]], 5, "ABCD")}, baud)
    await wire.open()
    port = Port(wire.address)
    began_s = time.monotonic()
    assert await port.ask(READ, at_least=len(ANSWER)) == ANSWER
    assert time.monotonic() - began_s >= (len(READ) + len(ANSWER) + 3.5) * 10 / baud
    os.write(port.fd, READ)
    await asyncio.sleep(0.02)
    os.write(port.fd, READ)  # before the first is answered
    assert await port.listen(0.3, len(ANSWER)) == ANSWER
    assert await port.ask(READ, at_least=len(ANSWER)) == ANSWER
    port.close()
    wire.close()


async def test_the_units_of_a_bus_answer_behind_a_serial_device_server(line: Line) -> None:
    wire, port = line
    server = RtuTcpWire(wire.station)
    await server.open()
    reader, writer = await asyncio.open_connection(*server.address.split(":"))
    writer.write(READ[:5])
    await writer.drain()
    writer.write(READ[5:])
    assert await asyncio.wait_for(reader.readexactly(len(ANSWER)), 5) == ANSWER
    wire.station.set_fault(5, Fault("bad_crc"))  # of the bus, so it is heard either way
    writer.write(READ)
    heard = await asyncio.wait_for(reader.readexactly(len(ANSWER)), 5)
    assert heard == await port.ask(READ, at_least=len(ANSWER)) != ANSWER
    writer.close()
    server.close()


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 2) == b""
    except ConnectionResetError:
        return True


def mbap(transaction: int, unit: int, pdu: str) -> bytes:
    body = bytes((unit,)) + bytes.fromhex(pdu)
    return struct.pack(">HHH", transaction, 0, len(body)) + body


async def test_pipelined_requests_over_tcp_are_each_answered_in_order() -> None:
    wire = ModbusTcpWire({1: TableLogger([[1.5]], 1, "ABCD"), 2: TableLogger([[-2.0]], 2, "CDAB")})
    await wire.open()
    reader, writer = await asyncio.open_connection(*wire.address.split(":"))
    asked = [(1, 1), (2, 2), (3, 9), (4, 1)]  # unit 9 is nobody
    writer.write(b"".join(mbap(t, unit, "03 0000 0002") for t, unit in asked))
    expected = mbap(1, 1, "03 04 3FC00000") + mbap(2, 2, "03 04 0000C000") + mbap(4, 1, "03 04 3FC00000")
    assert await asyncio.wait_for(reader.readexactly(len(expected)), 2) == expected
    writer.write(mbap(5, 1, "03 0000 0002")[:9])
    await asyncio.sleep(0.01)
    writer.write(mbap(5, 1, "03 0000 0002")[9:])
    assert (await asyncio.wait_for(reader.readexactly(13), 2))[:2] == b"\x00\x05"
    writer.close()
    await writer.wait_closed()
    wire.close()


async def test_what_is_no_modbus_ends_the_connection() -> None:
    wire = ModbusTcpWire({1: TableLogger([[1.5]], 1)})
    await wire.open()
    reader, writer = await asyncio.open_connection(*wire.address.split(":"))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await ended(reader)
    writer.close()
    wire.close()


@pytest.mark.parametrize("fault", ["bad_crc", "echo", "noise"])
async def test_a_fault_of_serial_lines_cannot_happen_on_tcp(fault: str) -> None:
    wire = ModbusTcpWire({1: TableLogger([[1.5]], 1)})
    with pytest.raises(FaultUnknown, match="cannot happen"):
        wire.station.set_fault(1, Fault.parse(fault))


async def test_an_unplugged_tcp_line_comes_back_on_its_port() -> None:
    wire = ModbusTcpWire({1: TableLogger([[1.5]], 1, "ABCD")})
    await wire.open()
    host, port = wire.address.split(":")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(mbap(1, 1, "03 0000 0002"))
    await asyncio.wait_for(reader.readexactly(13), 2)
    wire.unplug()
    assert await ended(reader)
    writer.close()
    wire.plug()
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(mbap(2, 1, "03 0000 0002"))
    assert (await asyncio.wait_for(reader.readexactly(13), 2))[-4:] == bytes.fromhex("3FC00000")
    writer.close()
    await writer.wait_closed()
    wire.close()


async def test_every_client_of_a_tcp_stream_hears_every_sentence() -> None:
    wire = TalkerTcpWire()
    await wire.open()
    pairs = [await asyncio.open_connection(*wire.address.split(":")) for _ in range(2)]
    while len(wire.clients) < 2:
        await asyncio.sleep(0.001)
    wire.send(b"$GNGGA*00\r\n")
    for reader, writer in pairs:
        assert await asyncio.wait_for(reader.readline(), 2) == b"$GNGGA*00\r\n"
        writer.close()
        await writer.wait_closed()
    wire.close()
