"""What goes over one line, written down: bytes with their times, and the frames that were made of them.

A recording is text, one JSON object a line: first a `Header`, then an `Event` for all that was sent ("tx")
and received ("rx"), and for each frame that was made of it ("frame"). The frames' values are not in it:
whoever replays the bytes through the same drivers gets them again (drivers/replay.py). "end" says that the
request before it was given up: what comes after is no answer to it. "tie" says that a GNSS base station was
tied to its receiver's origin. "lost" says that so many events are missing at this place.

`Tap` is where a line lets its bytes be seen; `Ring` keeps the latest of them in files.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec.structs import replace

from drivers.contract import WireError
from drivers.gnss.baseline import Axis
from drivers.line import Line
from drivers.sample import QUALITY_OF_TEXT, Quality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from drivers.contract import Stamps
    from drivers.framing import Framing
    from drivers.sample import Frame
    from drivers.wire import OnBytes, OnLoss, Wire

log = logging.getLogger(__name__)

FILES = 8  # of a ring; the oldest goes when a new one begins
PENDING_BYTES = 1 << 20  # waiting for the disk; what comes beyond is counted as lost
WRITE_EVERY_S = 1.0


class Unreadable(Exception):
    """A file is no recording; the message names the line."""


class Recorded(msgspec.Struct, frozen=True, omit_defaults=True):
    """A device on the recorded line; of a GNSS receiver its origin's base station, and those tied to it."""

    id: str
    profile: str
    unit: int | None
    base: str = ""
    ties: dict[str, Axis] = {}


class Header(msgspec.Struct, frozen=True):
    """What is recorded: a line of this kind; `serial` is empty where there is none; `mode` is the site's."""

    line: str
    kind: str
    serial: str
    mode: str
    devices: tuple[Recorded, ...]
    trace: Literal[1] = 1


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened, at `time_ns` (UTC) and `mono_ns` of the daemon's clock.

    A frame's times are its own; `why` is its quality where nothing came, `block` is device.block, of a tie
    the device.
    """

    time_ns: int
    mono_ns: int
    dir: Literal["tx", "rx", "end", "frame", "tie", "lost"]
    hex: str = ""
    block: str = ""
    tick_ns: int = 0
    why: str = ""
    count: int = 0
    base: str = ""
    offset_mm: Axis = (0.0, 0.0, 0.0)

    @property
    def data(self) -> bytes:
        return bytes.fromhex(self.hex)

    @property
    def quality(self) -> Quality:
        """Of a frame without values."""
        return QUALITY_OF_TEXT[self.why]


_encoder = msgspec.json.Encoder()
_header = msgspec.json.Decoder(Header)
_event = msgspec.json.Decoder(Event)


def encoded(part: Header | Event) -> bytes:
    """One line of a recording."""
    return _encoder.encode(part) + b"\n"


def tied(header: Header, tie: Event) -> Header:
    """The header of a file that begins after this tie."""
    devices = (
        replace(each, ties={**each.ties, tie.base: tie.offset_mm}) if each.id == tie.block else each
        for each in header.devices
    )
    return replace(header, devices=tuple(devices))


def read(lines: Iterable[bytes], name: str) -> tuple[Header, Iterator[Event]]:
    """The header of a recording, and its events as they are read on.

    A last line that a power cut left unfinished is passed over.

    Raises:
        Unreadable: `lines` are no recording; also while its events are read on.
    """
    numbered = enumerate(lines, 1)
    try:
        header = _header.decode(next(numbered, (1, b""))[1])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"{name}:1: is no recording: {error}") from None

    def events() -> Iterator[Event]:
        for number, line in numbered:
            if not line.endswith(b"\n"):
                return
            try:
                event = _event.decode(line)
                bytes.fromhex(event.hex)
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                raise Unreadable(f"{name}:{number}: is no event: {error}") from None
            if event.why and event.why not in QUALITY_OF_TEXT:
                raise Unreadable(f"{name}:{number}: {event.why!r} is no quality")
            yield event

    return header, events()


class Tap:
    """What passes on a line, for whoever listens; with nobody listening it costs next to nothing.

    Attributes:
        listeners: called with each event, in the event loop; they must not block.
    """

    def __init__(self, header: Header, stamps: Stamps) -> None:
        self.header = header
        self.listeners: list[Callable[[Event], None]] = []
        self._stamps = stamps

    def on_trace(self, direction: str, _time_ns: int, data: bytes) -> None:
        """As `Line.on_trace` wants it."""
        if self.listeners:
            self._tell("tx" if direction == "tx" else "rx", data)

    def gave_up(self) -> None:
        """The request under way failed."""
        if self.listeners:
            self._tell("end", b"")

    def tie(self, device: str, base: str, offset_mm: Axis) -> None:
        """A base station was tied to the origin of this receiver."""
        now = self._stamps.wall_ns(), self._stamps.monotonic_ns()
        event = Event(*now, "tie", block=device, base=base, offset_mm=offset_mm)
        self.header = tied(self.header, event)
        for listener in self.listeners:
            listener(event)

    def _tell(self, direction: Literal["tx", "rx", "end"], data: bytes) -> None:
        event = Event(self._stamps.wall_ns(), self._stamps.monotonic_ns(), direction, data.hex(" "))
        for listener in self.listeners:
            listener(event)

    def frame(self, frame: Frame) -> None:
        """A frame was made of what came, or of its absence."""
        if not self.listeners:
            return
        block = f"{frame.block.device}.{frame.block.name}"
        why = "" if len(frame.numbers) else Quality(frame.qualities[0]).text
        event = Event(frame.time_ns, frame.mono_ns, "frame", block=block, tick_ns=frame.tick_ns, why=why)
        for listener in self.listeners:
            listener(event)


class TappedLine(Line):
    """A line whose bytes a tap sees, and which of its requests were given up."""

    def __init__(self, wire: Wire, framing: Framing, tap: Tap, *, paced: bool = True) -> None:
        super().__init__(wire, framing, tap.header.line, paced=paced)
        self.on_trace = tap.on_trace
        self._tap = tap

    async def transact(self, unit: int, pdu: bytes, **how: Any) -> bytes:
        """As `Line.transact`."""
        try:
            return await super().transact(unit, pdu, **how)
        except (WireError, asyncio.CancelledError):
            self._tap.gave_up()
            raise


class TappedWire:
    """A wire whose bytes a tap sees: for lines that only listen."""

    def __init__(self, wire: Wire, tap: Tap) -> None:
        self._wire, self._tap = wire, tap
        self.character_s, self.keeps_bytes = wire.character_s, wire.keeps_bytes

    async def open(self, on_bytes: OnBytes, on_loss: OnLoss) -> None:
        def seen(data: bytes) -> None:
            self._tap.on_trace("rx", 0, data)
            on_bytes(data)

        await self._wire.open(seen, on_loss)

    def close(self) -> None:
        self._wire.close()

    def write(self, data: bytes) -> None:
        self._tap.on_trace("tx", 0, data)
        self._wire.write(data)


class Ring:
    """The latest events of one line in at most FILES files of together at most `limit_bytes`.

    A new file begins with each start, so a crash costs at most one unfinished line and a second of events.
    The disk is written once a second in a thread; while it takes nothing, PENDING_BYTES wait in memory, and
    what comes beyond is lost, which the recording says.
    """

    def __init__(self, folder: Path, header: Header, limit_bytes: int) -> None:
        self._folder = folder
        self._header = header
        self._file_bytes = max(len(encoded(header)), limit_bytes // FILES)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._lost = 0
        self._failing = False
        self._path: Path | None = None
        self._size = 0

    def put(self, event: Event) -> None:
        """Take an event; never blocks."""
        if event.dir == "tie":
            self._header = tied(self._header, event)
        if self._lost and self._pending_bytes < PENDING_BYTES // 2:
            self._append(encoded(Event(event.time_ns, event.mono_ns, "lost", count=self._lost)))
            self._lost = 0
        line = encoded(event)
        if self._lost or self._pending_bytes + len(line) > PENDING_BYTES:
            self._lost += 1
        else:
            self._append(line)

    def _append(self, line: bytes) -> None:
        self._pending.append(line)
        self._pending_bytes += len(line)

    async def run(self) -> None:
        """Write until cancelled, and what waits then."""
        writing: asyncio.Task[None] | None = None
        try:
            while True:
                await asyncio.sleep(WRITE_EVERY_S)
                if self._pending:
                    write = asyncio.to_thread(self._flush, self._taken())
                    writing = asyncio.create_task(write, name=f"recording {self._folder.name}")
                    await asyncio.shield(writing)
        finally:
            if writing is not None:
                await asyncio.wait({writing}, timeout=WRITE_EVERY_S)
            if writing is None or writing.done():  # a disk that hangs is not waited for
                self._flush(self._taken())

    def _taken(self) -> list[bytes]:
        lines, self._pending, self._pending_bytes = self._pending, [], 0
        return lines

    def _flush(self, lines: list[bytes]) -> None:
        """Write; in a thread, one at a time."""
        try:
            self._write(lines)
        except OSError as error:
            self._lost += len(lines)
            if not self._failing:
                log.error("%s: recording stops: %s", self._folder, error)  # noqa: TRY400 -- a disk, no bug
            self._failing = True
            self._path = None
        else:
            if self._failing:
                log.warning("%s: recording goes on", self._folder)
            self._failing = False

    def _write(self, lines: Sequence[bytes]) -> None:
        while lines:
            if self._path is None or self._size >= self._file_bytes:
                self._begin()
            assert self._path is not None
            n, size = 0, self._size
            while n < len(lines) and (n == 0 or size < self._file_bytes):
                size += len(lines[n])
                n += 1
            with self._path.open("ab") as out:
                out.write(b"".join(lines[:n]))
            self._size, lines = size, lines[n:]

    def _begin(self) -> None:
        """A new file; the oldest goes, so that the new one has room too."""
        self._folder.mkdir(parents=True, exist_ok=True)
        files = recordings(self._folder)
        number = int(files[-1].stem) + 1 if files else 1
        for old in files[: max(0, len(files) - FILES + 1)]:
            old.unlink()
        self._path = self._folder / f"{number:08d}.jsonl"
        begins = encoded(self._header)
        self._path.write_bytes(begins)
        self._size = len(begins)


def recordings(folder: Path) -> list[Path]:
    """The files of a ring, oldest first."""
    return sorted(path for path in folder.glob("*.jsonl") if path.stem.isdigit())
