"""Modbus devices from profiles: requests compiled once, replies decoded into frames, writes verified."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from drivers.coalesce import Request, coalesce, divide
from drivers.contract import BadReply, Busy, Refused
from drivers.decode import TYPES
from drivers.framing import ModbusRefused
from drivers.model import DiscardStep, ReadStep, WaitStep, WriteStep
from drivers.pdu import read_pdu, write_pdu
from drivers.sample import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drivers.contract import Stamps
    from drivers.line import Line
    from drivers.model import CompiledProfile, Write
    from drivers.sample import Block
    from drivers.wire import SerialMode

__all__ = ["ModbusDevice", "read_pdu", "write_pdu"]

log = logging.getLogger(__name__)

_REPLY_HEAD_BYTES = 2  # function code, byte count
_WRITE_REPLY_BYTES = 5
_WRITTEN_AND_READ = 2  # requests
_COIL = 5
_COIL_READS = (1, 2)
_REGISTERS = 16
# Characters around the data on an RTU line: request 8; reply unit, function, byte count, checksum.
_REQUEST_CHARACTERS = 8
_REPLY_FRAME_CHARACTERS = 5
_WRITE_16_CHARACTERS = 11
_NO_SUCH_REGISTERS = (2, 3)  # exceptions that a device may mean for one register of many
_BROADCAST = 0
_BROADCAST_REST_S = 0.1  # Modbus over Serial Line 1.02, 2.4.1: 100 to 200 ms


@dataclass(frozen=True, slots=True)
class _Discard:
    """A request whose answer is forgotten."""

    request: Request


_Move = Request | _Discard | WriteStep | WaitStep


def _cycle(compiled: CompiledProfile) -> list[_Move]:
    """The profile's cycle with its reads joined, as far as nothing stands between them."""
    bus, moves = compiled.bus, list[_Move]()
    for kind, steps in groupby(compiled.steps, key=type):
        if kind is ReadStep:
            blocks = [step.block for step in steps if isinstance(step, ReadStep)]
            moves += coalesce(blocks, bus.max_registers, bridge=bus.bridge_holes)
            continue
        for step in steps:
            match step:
                case DiscardStep(block):
                    moves.append(_Discard(Request.of(block)))
                case WriteStep() | WaitStep():
                    moves.append(step)
    return moves


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
        self._cycle = _cycle(compiled)
        read = {s.block for s in compiled.steps if isinstance(s, ReadStep)}
        self._blocks = tuple(b.block for b in compiled.blocks if b in read)

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self._blocks

    @property
    def longest_s(self) -> float:
        """What a poll, or a write that is read back, can take if every reply comes at the last moment."""
        requests, waits_s = 0, 0.0
        for step in self._cycle:
            match step:
                case Request():
                    requests += len(step.blocks)  # one each, where the device refuses them together
                case WaitStep(s):
                    waits_s += s
                case _:
                    requests += 1
        return max(requests, _WRITTEN_AND_READ) * self._slowest_reply_s + waits_s

    @property
    def alike_s(self) -> float:
        """For how long a reply to one of its requests can be taken for that to another; 0: none are alike.

        The line sees to that for every request it sent itself. Not for one of the core that ended before.
        """
        asked = {(step.blocks[0].fn, step.count): step.at for step in self._requests()}
        alike = any(asked[step.blocks[0].fn, step.count] != step.at for step in self._requests())
        return self._slowest_reply_s if alike else 0.0

    def _requests(self) -> Iterator[Request]:
        """Every request for registers that it can come to make."""
        for step in self._cycle:
            match step:
                case Request():
                    yield step
                    yield from (Request.of(block) for block in step.blocks)
                case _Discard(request):
                    yield request

    @property
    def wake_s(self) -> float:
        """How long the device is not to be believed after its power comes."""
        return self._compiled.bus.wake_s

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
        told_s: float | None = None  # when the last broadcast went out, perhaps for another device
        at = 0
        while at < len(self._cycle):
            step = self._cycle[at]
            match step:
                case Request():
                    if not await self._fetch(line, step, frames, tick_ns, urgent=urgent):
                        self._cycle[at : at + 1] = divide(step)
                        continue
                case _Discard(request):
                    with contextlib.suppress(Refused, Busy):  # the reading that follows will say so
                        await self._read(line, request, urgent=urgent)
                case WriteStep(write, value) if write.broadcast and line.broadcasts:
                    told_s = await self._tell_all(line, write_pdu(write.fn, write.at, value), tick_ns)
                case WriteStep(write, value):
                    await self._write(line, write, value, urgent=urgent)
                case WaitStep(s):
                    past_s = 0.0 if told_s is None else asyncio.get_running_loop().time() - told_s
                    await asyncio.sleep(max(0.0, s - past_s))
                    told_s = None
            at += 1
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
        for step in self._cycle:
            match step:
                case (Request() as request) | _Discard(request):
                    characters = _REQUEST_CHARACTERS + _REPLY_FRAME_CHARACTERS + request.data_bytes
                case WriteStep(write, _):
                    sent = _WRITE_16_CHARACTERS if write.fn == _REGISTERS else _REQUEST_CHARACTERS
                    characters = sent + _REQUEST_CHARACTERS  # the reply is as long as a read request
                case _:
                    continue
            total_s += characters * character_s + around_s
        return total_s

    async def _fetch(
        self, line: Line, request: Request, frames: dict[Block, Frame], tick_ns: int, *, urgent: bool
    ) -> bool:
        """The frames of the request's blocks; False where the device refuses them together."""
        stamps = self._stamps
        try:
            reply = await self._read(line, request, urgent=urgent)
        except (Refused, Busy) as no:
            if len(request.blocks) > 1 and isinstance(no, ModbusRefused) and no.code in _NO_SUCH_REGISTERS:
                names = ", ".join(block.block.name for block in request.blocks)
                log.warning("%s refuses %s in one request (%s); now in several", self.device, names, no)
                return False
            time_ns, mono_ns = stamps.wall_ns(), stamps.monotonic_ns()
            for each in request.blocks:
                frames[each.block] = Frame.missing(each.block, tick_ns, time_ns, mono_ns, no.quality)
            return True
        time_ns, mono_ns = stamps.wall_ns(), stamps.monotonic_ns()
        for each, data in request.parts(reply[_REPLY_HEAD_BYTES:]):
            numbers, values, qualities = each.decode(data)
            frames[each.block] = Frame(
                each.block, tick_ns, time_ns, mono_ns, numbers, values, qualities, data
            )
        return True

    async def _read(self, line: Line, request: Request, *, urgent: bool) -> bytes:
        return await self._ask(line, request.pdu, _REPLY_HEAD_BYTES + request.data_bytes, urgent=urgent)

    async def _tell_all(self, line: Line, pdu: bytes, tick_ns: int) -> float:
        """Broadcast once for each tick, whoever of the line's devices comes first; when it went out."""
        told_ns, told_s = line.told.get(pdu, (-1, 0.0))
        if told_ns == tick_ns:
            return told_s
        rest_s = max(self._compiled.bus.turnaround_s, _BROADCAST_REST_S)
        await line.transact(
            _BROADCAST,
            pdu,
            reply_bytes=0,
            timeout_s=0.0,
            slowest_reply_s=0.0,
            gap_s=self._compiled.bus.gap_s,
            turnaround_s=rest_s,
        )
        now_s = asyncio.get_running_loop().time()
        line.told[pdu] = (tick_ns, now_s)
        return now_s

    async def _write(self, line: Line, write: Write, word: int, *, urgent: bool) -> None:
        await self._ask(line, write_pdu(write.fn, write.at, word), _WRITE_REPLY_BYTES, urgent=urgent)

    async def _number(self, line: Line, point: str) -> float:
        """The number of one point as it stands in the device now."""
        for block in self._compiled.blocks:
            if point in block.block.points:
                reply = await self._read(line, Request.of(block), urgent=True)
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
