"""Modbus devices from profiles: requests compiled once, replies decoded into frames, writes verified."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING

from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from drivers.contract import BadReply, Busy, Refused
from drivers.decode import TYPES
from drivers.model import CompiledBlock, DiscardStep, ReadStep, WaitStep, WriteStep
from drivers.sample import Frame

if TYPE_CHECKING:
    from drivers.contract import Stamps
    from drivers.line import Line
    from drivers.model import CompiledProfile, Write
    from drivers.sample import Block
    from drivers.wire import SerialMode

_READ = {
    1: ReadCoilsRequest,
    2: ReadDiscreteInputsRequest,
    3: ReadHoldingRegistersRequest,
    4: ReadInputRegistersRequest,
}
_REPLY_HEAD_BYTES = 2  # function code, byte count
_WRITE_REPLY_BYTES = 5
_COIL = 5
_COIL_READS = (1, 2)
_REGISTERS = 16
# Characters around the data on an RTU line: request 8; reply unit, function, byte count, checksum.
_REQUEST_CHARACTERS = 8
_REPLY_FRAME_CHARACTERS = 5
_WRITE_16_CHARACTERS = 11


def read_pdu(fn: int, at: int, count: int) -> bytes:
    """The request that reads `count` coils (fn 1, 2) or registers (fn 3, 4) from address `at`.

    Raises:
        ValueError: address or count out of range.
    """
    request = _READ[fn](address=at, count=count)
    return bytes((fn,)) + bytes(request.encode())


def write_pdu(fn: int, at: int, word: int) -> bytes:
    """The request that writes one coil (fn 5) or one register (fn 6, 16).

    A coil's request has a register's shape; some makers put other numbers than FF00 and 0000 in it.
    """
    if fn == _REGISTERS:
        return bytes((fn,)) + bytes(WriteMultipleRegistersRequest(address=at, registers=[word]).encode())
    return bytes((fn,)) + bytes(WriteSingleRegisterRequest(address=at, registers=[word]).encode())


class ModbusDevice:
    """One device on a Modbus line: a PolledDriver.

    Args:
        device: the site's name of it.
        compiled: its profile, compiled for it.
        unit: its number on the line.
        stamps: the clock that says when a reply was complete.
        timeout_s, slowest_reply_s: the site's word in place of the profile's.
    """

    def __init__(
        self,
        device: str,
        compiled: CompiledProfile,
        unit: int,
        stamps: Stamps,
        *,
        timeout_s: float | None = None,
        slowest_reply_s: float | None = None,
    ) -> None:
        bus = compiled.bus
        self.device = device
        self.unit = unit
        self._compiled = compiled
        self._stamps = stamps
        self._timeout_s = bus.timeout_s if timeout_s is None else timeout_s
        slowest_s = bus.slowest_reply_s if slowest_reply_s is None else slowest_reply_s
        self._slowest_reply_s = max(slowest_s, self._timeout_s)
        self._read_pdus = {b: read_pdu(b.fn, b.at, b.count) for b in compiled.blocks}
        read = {s.block for s in compiled.steps if isinstance(s, ReadStep)}
        self._blocks = tuple(b.block for b in compiled.blocks if b in read)

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self._blocks

    @property
    def cost_s(self) -> float:
        """Bus time an unanswered request takes: its deadline, or the silence after it if that is longer."""
        return self._slowest_reply_s

    def words(self, point: str, frame: Frame) -> tuple[int, ...]:
        """The registers (or the one coil) a point stands in, as they came; none in a missing frame."""
        for block in self._compiled.blocks:
            for each in block.points:
                if block.block is frame.block and each.name == point and each.place and frame.data:
                    if block.fn in _COIL_READS:
                        return (frame.data[each.place.at // 8] >> each.place.at % 8 & 1,)
                    words = struct.unpack(f">{len(frame.data) // 2}H", frame.data)
                    return words[each.place.at : each.place.at + TYPES[each.place.type][1]]
        return ()

    async def poll(self, line: Line, tick_ns: int, *, urgent: bool = False) -> list[Frame]:
        """Go through the profile's cycle once.

        Returns:
            One frame per block, in the profile's order. A block that the device refuses, or for which it
            is busy, is missing with that reason and does not cost the others theirs.

        Raises:
            NoReply, BadReply, LineDown: that ended the poll; also Refused and Busy, where a step of the
                cycle that writes met them, for then nothing was measured.
        """
        frames: dict[Block, Frame] = {}
        for step in self._compiled.steps:
            match step:
                case ReadStep(block):
                    frames[block.block] = await self._frame(line, block, tick_ns, urgent=urgent)
                case DiscardStep(block):
                    with contextlib.suppress(Refused, Busy):  # the reading that follows will say so
                        await self._read(line, block, urgent=urgent)
                case WriteStep(write, value):
                    await self._write(line, write, value, urgent=urgent)
                case WaitStep(s):
                    await asyncio.sleep(s)
        return [frames[block] for block in self._blocks]

    async def write(self, line: Line, name: str, on: bool) -> None:  # noqa: FBT001 -- agreed
        """Switch the profile's write `name` on or off, before routine polls, and see that it was done.

        Raises:
            KeyError: the profile has no such write; ValueError: it has no `on` (or `off`).
            BadReply: it reads back otherwise, or the profile names no point that would show it.
            NoReply, Refused, Busy, LineDown: as of a poll.
        """
        write = self._compiled.writes[name]
        word = write.on if on else write.off
        if word is None:
            raise ValueError(f"{name} of {self.device} has no value for {'on' if on else 'off'}")
        await self._write(line, write, word, urgent=True)
        if not write.verify:
            raise BadReply(
                f"{name} of {self.device} was written, but its profile names no point that shows it"
            )
        expected = float(word != 0) if write.fn == _COIL else float(word)
        number = await self._number(line, write.verify)
        if number != expected:
            raise BadReply(
                f"{name} of {self.device} was switched {'on' if on else 'off'} but {write.verify} "
                f"reads {number:g} instead of {expected:g}"
            )

    def wire_seconds(self, mode: SerialMode) -> float:
        """Seconds one poll occupies a serial line if the device answers at once.

        Requests and replies character by character, 3.5 characters (or the device's gap) before each
        request, its rest after the reply; waiting steps leave the line to others. Modbus over Serial Line
        1.02, 2.5.1.
        """
        character_s = mode.bits_per_character / mode.baud
        bus = self._compiled.bus
        around_s = max(bus.gap_s, 3.5 * character_s) + bus.turnaround_s
        total_s = 0.0
        for step in self._compiled.steps:
            match step:
                case ReadStep(block) | DiscardStep(block):
                    characters = _REQUEST_CHARACTERS + _REPLY_FRAME_CHARACTERS + block.data_bytes
                case WriteStep(write, _):
                    request = _WRITE_16_CHARACTERS if write.fn == _REGISTERS else _REQUEST_CHARACTERS
                    characters = request + _REQUEST_CHARACTERS  # the reply is as long as a read request
                case _:
                    continue
            total_s += characters * character_s + around_s
        return total_s

    async def _frame(self, line: Line, block: CompiledBlock, tick_ns: int, *, urgent: bool) -> Frame:
        stamps = self._stamps
        try:
            reply = await self._read(line, block, urgent=urgent)
        except (Refused, Busy) as no:
            return Frame.missing(block.block, tick_ns, stamps.wall_ns(), stamps.monotonic_ns(), no.quality)
        time_ns, mono_ns = stamps.wall_ns(), stamps.monotonic_ns()
        data = reply[_REPLY_HEAD_BYTES:]
        numbers, values, qualities = block.decode(data)
        return Frame(block.block, tick_ns, time_ns, mono_ns, numbers, values, qualities, data)

    async def _read(self, line: Line, block: CompiledBlock, *, urgent: bool) -> bytes:
        size = _REPLY_HEAD_BYTES + block.data_bytes
        return await self._ask(line, self._read_pdus[block], size, urgent=urgent)

    async def _write(self, line: Line, write: Write, word: int, *, urgent: bool) -> None:
        await self._ask(line, write_pdu(write.fn, write.at, word), _WRITE_REPLY_BYTES, urgent=urgent)

    async def _number(self, line: Line, point: str) -> float:
        """The number of one point as it stands in the device now."""
        for block in self._compiled.blocks:
            if point in block.block.points:
                reply = await self._read(line, block, urgent=True)
                numbers, _, _ = block.decode(reply[_REPLY_HEAD_BYTES:])
                return numbers[block.block.points.index(point)]
        raise BadReply(
            f"{point} of {self.device} cannot be read back: no block of its profile was compiled with it"
        )

    async def _ask(self, line: Line, pdu: bytes, reply_bytes: int, *, urgent: bool) -> bytes:
        bus = self._compiled.bus
        return await line.transact(
            self.unit,
            pdu,
            reply_bytes=reply_bytes,
            timeout_s=self._timeout_s,
            slowest_reply_s=self._slowest_reply_s,
            gap_s=bus.gap_s,
            turnaround_s=bus.turnaround_s,
            urgent=urgent,
        )
