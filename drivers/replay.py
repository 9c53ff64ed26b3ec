"""A recording through the same drivers: the frames that were made of these bytes, bit for bit.

Polled devices are asked in the order of the recording by their own driver, on a tape that stands for the
line: it hands each request the bytes that followed it, through the same framing. What depended on the moment
(stamps, ticks, and the frames the poller made where it asked nothing) is taken from the recording, so the
frames are equal in every field. Waiting steps of a cycle take no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace
from pymodbus.framer.rtu import FramerRTU

from drivers.contract import BadReply, LineDown, NoReply, WireError
from drivers.framing import Framing, MbapFraming, ModbusRefused, RtuFraming, error_of
from drivers.line import Line
from drivers.sample import Frame, Quality

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from drivers.gnss.receiver import GnssReceiver
    from drivers.modbus import ModbusDevice
    from drivers.recorder import Event
    from drivers.sample import Block
    from drivers.wire import OnBytes, OnLoss

_NO_SUCH_REGISTERS = 2
_READ_BYTES = 5
# Reasons that the bytes must show again; for any other the device was not asked.
_BY_THE_WIRE = (Quality.NO_REPLY, Quality.BAD_REPLY, Quality.REFUSED, Quality.BUSY)


@dataclass(slots=True)
class Then:
    """Stamps of a moment of the recording."""

    time_ns: int = 0
    mono_ns: int = 0

    def wall_ns(self) -> int:
        return self.time_ns

    def monotonic_ns(self) -> int:
        return self.mono_ns


@dataclass(slots=True)
class Exchange:
    """A request as it went, and what was heard until the next."""

    asked: bytes
    heard: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class Differences:
    """Where the replay does not agree with the recording; all zero unless profile or program changed."""

    frames: int = 0  # a frame the recording has, and the bytes do not yield
    lost: int = 0  # events that were not recorded


class _Nowhere:
    """The wire of a tape."""

    character_s = 0.0
    keeps_bytes = False

    async def open(self, on_bytes: OnBytes, on_loss: OnLoss) -> None:
        del on_bytes, on_loss
        raise LineDown("a recording is no line")

    def close(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        del data
        raise LineDown("a recording is no line")


class _Mbap(MbapFraming):
    """Takes the transaction id from the recording."""

    def number(self, asked: bytes) -> None:
        self.reset()
        self._id = (int.from_bytes(asked[:2], "big") - 1) & 0xFFFF


class Tape(Line):
    """Stands for a line: each request is answered with what the recording has after it."""

    def __init__(self, kind: str) -> None:
        self._tape_framing: Framing = _Mbap() if kind == "modbus-tcp" else RtuFraming()
        super().__init__(_Nowhere(), self._tape_framing, "recording", paced=False)
        self.left: deque[Exchange] = deque()

    async def transact(self, unit: int, pdu: bytes, *, reply_bytes: int, **_pace: object) -> bytes:
        """As `Line.transact`, without its pace; exchanges of others before this one are passed over.

        Raises:
            WireError: as it was then, as far as the bytes say so. What was never asked is refused, as a
                request for registers that do not exist: so a driver finds by itself how it was asked.
        """
        framing = self._tape_framing
        for passed, exchange in enumerate(self.left):
            if isinstance(framing, _Mbap):
                framing.number(exchange.asked)
            if framing.request(unit, pdu, reply_bytes) == exchange.asked:
                for _ in range(passed + 1):
                    self.left.popleft()
                return b"" if unit == 0 and not framing.names_requests else _reply(framing, exchange, unit)
        raise ModbusRefused("the recording has no such request", _NO_SUCH_REGISTERS)


def _reply(framing: Framing, exchange: Exchange, unit: int) -> bytes:
    for data in exchange.heard:
        reply = framing.feed(data)
        if reply is not None:
            if (error := error_of(unit, reply)) is not None:
                raise error
            return reply
    raise BadReply("as recorded") if framing.heard else NoReply("as recorded")


def polled(
    events: Iterable[Event], kind: str, drivers: Mapping[str, ModbusDevice], differences: Differences
) -> Iterator[Frame]:
    """The frames of a recorded line of this kind; devices that are not in `drivers` are passed over."""
    tape = Tape(kind)
    with asyncio.Runner(loop_factory=_InstantLoop) as runner:
        for exchanges, marks in _polls(events, differences):
            driver = drivers.get(marks[0].block.partition(".")[0])
            if driver is not None:
                tape.left = deque(exchanges)
                made = runner.run(_last_outcome(driver, tape, marks[0].tick_ns))
                blocks = {f"{block.device}.{block.name}": block for block in driver.blocks}
                yield from _stamped(marks, blocks, made, differences)


def _polls(events: Iterable[Event], differences: Differences) -> Iterator[tuple[list[Exchange], list[Event]]]:
    """What was said on the line before the frames of one poll, and these frames."""
    exchanges: list[Exchange] = []
    marks: list[Event] = []
    listening = False
    for event in events:
        if marks and (event.dir != "frame" or _poll_of(event) != _poll_of(marks[0])):
            yield exchanges, marks
            exchanges, marks, listening = [], [], False
        if event.dir == "tx":
            exchanges.append(Exchange(event.data))
            listening = True
        elif event.dir == "end":
            listening = False
        elif event.dir == "rx" and listening:  # what comes while nothing is asked belongs to nobody
            exchanges[-1].heard.append(event.data)
        elif event.dir == "frame":
            marks.append(event)
        elif event.dir == "lost":
            differences.lost += event.count
            exchanges, listening = [], False
    if marks:
        yield exchanges, marks


def _poll_of(mark: Event) -> tuple[str, int]:
    return mark.block.partition(".")[0], mark.tick_ns


async def _last_outcome(driver: ModbusDevice, tape: Tape, tick_ns: int) -> dict[str, Frame]:
    """By block: the frames of the last of the polls on this tape, nothing where it failed.

    A device that did not answer was asked once more, and a person may have asked it just before: the frames
    were made of the last.
    """
    made: dict[str, Frame] = {}
    left = len(tape.left) + 1
    while 0 < len(tape.left) < left:  # a poll that finds nothing of its own on the tape ends it
        left = len(tape.left)
        try:
            frames = await driver.poll(tape, tick_ns)
        except WireError:
            frames = []
        if len(tape.left) < left:
            made = {f"{frame.block.device}.{frame.block.name}": frame for frame in frames}
    return made


def _stamped(
    marks: Iterable[Event], blocks: Mapping[str, Block], made: Mapping[str, Frame], differences: Differences
) -> Iterator[Frame]:
    for mark in marks:
        frame = made.get(mark.block)
        if mark.why and mark.block in blocks:
            answered = frame is not None and len(frame.numbers) > 0
            differences.frames += answered and mark.quality in _BY_THE_WIRE
            yield Frame.missing(blocks[mark.block], mark.tick_ns, mark.time_ns, mark.mono_ns, mark.quality)
        elif frame is None or not len(frame.numbers):
            differences.frames += 1
        else:
            yield replace(frame, tick_ns=mark.tick_ns, time_ns=mark.time_ns, mono_ns=mark.mono_ns)


def heard(
    events: Iterable[Event], driver: GnssReceiver, then: Then, differences: Differences
) -> Iterator[Frame]:
    """The frames of a recorded stream; `then` must be the driver's clock."""
    blocks = {f"{block.device}.{block.name}": block for block in driver.blocks}
    made: deque[Frame] = deque()
    for event in events:
        then.time_ns, then.mono_ns = event.time_ns, event.mono_ns
        if event.dir == "rx":
            made.extend(driver.feed(event.data))
        elif event.dir == "tie":
            driver.tie(event.base, event.offset_mm)
        elif event.dir == "lost":
            differences.lost += event.count
        elif event.dir == "frame" and event.why:
            yield from _stamped([event], blocks, {}, differences)
        elif event.dir == "frame":
            if not made:
                made.extend(driver.due())  # it was asked then, or nothing would have come of it
            waiting = {event.block: made.popleft()} if made else {}
            yield from _stamped([event], blocks, waiting, differences)


@dataclass(frozen=True, slots=True)
class Read:
    """A question and its good answer, as RTU frames with their checksums whatever wire they came over."""

    unit: int
    fn: int
    at: int
    count: int
    tx: bytes
    rx: bytes

    @property
    def data(self) -> bytes:
        """The answer's data, without function and byte count."""
        return self.rx[3:-2]


def reads(events: Iterable[Event], kind: str) -> Iterator[Read]:
    """Every read (functions 1 to 4) of a recording that was answered well."""
    heads = 6 if kind == "modbus-tcp" else 0
    for exchange in _exchanges(events):
        unit, pdu = exchange.asked[heads], exchange.asked[heads + 1 :]
        if kind != "modbus-tcp":
            pdu = pdu[:-2]
        if len(pdu) != _READ_BYTES or pdu[0] not in (1, 2, 3, 4):
            continue
        fn, at, count = struct.unpack(">BHH", pdu)
        size = 2 + ((count + 7) // 8 if fn in (1, 2) else 2 * count)
        framing: Framing = _Mbap() if kind == "modbus-tcp" else RtuFraming()
        if isinstance(framing, _Mbap):
            framing.number(exchange.asked)
        framing.request(unit, pdu, size)
        with contextlib.suppress(WireError):
            reply = _reply(framing, exchange, unit)
            yield Read(unit, fn, at, count, _rtu(unit, pdu), _rtu(unit, reply))


def _exchanges(events: Iterable[Event]) -> Iterator[Exchange]:
    exchange: Exchange | None = None
    for event in events:
        if event.dir in ("tx", "end", "lost") and exchange is not None:
            yield exchange
            exchange = None
        if event.dir == "tx":
            exchange = Exchange(event.data)
        elif event.dir == "rx" and exchange is not None:
            exchange.heard.append(event.data)
    if exchange is not None:
        yield exchange


def _rtu(unit: int, pdu: bytes) -> bytes:
    body = bytes((unit,)) + pdu
    return body + FramerRTU.compute_CRC(body).to_bytes(2, "big")


class _Skipping(selectors.DefaultSelector):
    """Waits for nothing: the time that would have been waited is added up."""

    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.skipped_s += timeout or 0.0
        return super().select(timeout and 0.0)


class _InstantLoop(asyncio.SelectorEventLoop):
    """An event loop whose sleeps are over at once."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return super().time() + self._skipping.skipped_s
