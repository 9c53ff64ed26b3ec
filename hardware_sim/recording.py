"""A recorded line plays back as a line of the bench, with its timing.

A recording (`pondwatch trace LINE --to FILE`) is JSON, one object a line: first the header with the line's
`line` and `kind`, then events with `mono_ns`, `dir` and the bytes as `hex`: "tx" went to the devices, "rx"
came from them, at "lost" some are missing. Read here a second time on purpose: the bench shares no code with
what it tests.

A polled line answers a request as it was answered then, after as long as it took then, in the recording's
order and over again from its beginning; a request that was never made gets no answer. These times are real
seconds; a recording made on a bench that ran faster is slower by as much. A line that speaks by itself says
everything once, at the bench's rate.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hardware_sim import rtu
from hardware_sim.wires import MBAP, SerialWire, TalkerPtyWire, TalkerTcpWire, TcpWire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from hardware_sim.clock import BenchClock
    from hardware_sim.wires import Wire

_MOST_EVENTS: Final = 1_000_000  # some 200 MB of file; what comes beyond is not played
_MOST_LATE: Final = 512  # chunks that wait for their time; more are not sent at all
_SPEAKING: Final = ("serial", "tcp")
_KINDS: Final = ("modbus-rtu", "rtu-over-tcp", "modbus-tcp", *_SPEAKING)
_TRANSACTION: Final = 2  # bytes of a Modbus TCP frame that are each client's own


class NotPlayable(ValueError):
    """The file is no recording that can be played; the message names file and line."""


@dataclass(frozen=True, slots=True)
class Playback:
    """A line of the bench that is made of a file; `spoken` is what it says by itself, and when (ns)."""

    name: str
    wire: Wire
    spoken: Sequence[tuple[int, bytes]] = ()

    async def play(self, clock: BenchClock) -> None:
        """Say all of it once, at the bench's rate."""
        began_s = clock.now_s()
        for at_ns, data in self.spoken:
            await clock.sleep_until(began_s + (at_ns - self.spoken[0][0]) / 1e9)
            assert isinstance(self.wire, TalkerPtyWire | TalkerTcpWire)
            self.wire.send(data)


class _Header(msgspec.Struct, frozen=True):
    line: str
    kind: str
    trace: int


class _Event(msgspec.Struct, frozen=True):
    mono_ns: int
    dir: str
    hex: str = ""


@dataclass(slots=True)
class Exchange:
    """A request, and what came back: seconds since the request, bytes."""

    asked: bytes
    at_ns: int
    heard: list[tuple[float, bytes]] = field(default_factory=list)


def load(path: Path, run_dir: Path) -> Playback:
    """The line that this file recorded, called `replay-LINE`; a serial one is linked in `run_dir`.

    Raises:
        NotPlayable: not a recording of version 1, an unknown kind of line, or nothing in it to play.
        OSError: the file cannot be read.
    """
    header, events = _read(path)
    name = f"replay-{header.line}"
    if header.kind in _SPEAKING:
        spoken = [(event.mono_ns, bytes.fromhex(event.hex)) for event in events if event.dir == "rx"]
        speaking = TalkerPtyWire(run_dir / name) if header.kind == "serial" else TalkerTcpWire()
        playback = Playback(name, speaking, spoken)
    else:
        answers = _Answers(exchanges(events), _TRANSACTION if header.kind == "modbus-tcp" else 0)
        serial = header.kind == "modbus-rtu"
        playback = Playback(
            name, _RtuWire(run_dir / name, answers) if serial else _TcpWire(answers, header.kind)
        )
    if not any(event.dir == "rx" for event in events):
        raise NotPlayable(f"{path}: nothing was heard on this line")
    return playback


def _read(path: Path) -> tuple[_Header, list[_Event]]:
    with path.open("rb") as lines:
        header = _decoded(path, 1, lines.readline(), _Header)
        if header.trace != 1 or header.kind not in _KINDS:
            raise NotPlayable(f"{path}:1: version {header.trace} of a {header.kind} line cannot be played")
        if not header.line or set(header.line) & set("/\0"):  # it becomes the name of a link
            raise NotPlayable(f"{path}:1: {header.line!r} is no name of a line")
        numbered = enumerate(islice(lines, _MOST_EVENTS), 2)
        # a power cut leaves half a line at the end
        return header, [_event(path, n, line) for n, line in numbered if line.endswith(b"\n")]


def _event(path: Path, number: int, line: bytes) -> _Event:
    event: _Event = _decoded(path, number, line, _Event)
    try:
        bytes.fromhex(event.hex)
    except ValueError:
        raise NotPlayable(f"{path}:{number}: hex: {event.hex[:20]!r} are no bytes") from None
    return event


def _decoded(path: Path, number: int, line: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotPlayable(f"{path}:{number}: {error}") from None


def exchanges(events: Iterable[_Event]) -> list[Exchange]:
    """Requests with what was heard until the next; frames made of it, and losses, are passed over."""
    found: list[Exchange] = []
    open_ = False
    for event in events:
        if event.dir == "tx":
            found.append(Exchange(bytes.fromhex(event.hex), event.mono_ns))
            open_ = True
        elif event.dir == "rx" and open_:
            since_s = (event.mono_ns - found[-1].at_ns) / 1e9
            found[-1].heard.append((max(0.0, since_s), bytes.fromhex(event.hex)))
        elif event.dir == "lost":
            open_ = False
    return found


class _Answers:
    """Which exchange answers a request: the next of its kind, and after the last the first again."""

    def __init__(self, recorded: list[Exchange], own: int) -> None:
        self._own = own  # leading bytes that are each client's own
        self._same: dict[bytes, list[Exchange]] = {}
        for exchange in recorded:
            self._same.setdefault(exchange.asked[own:], []).append(exchange)
        self._next = dict.fromkeys(self._same, 0)
        self._late: set[asyncio.TimerHandle] = set()

    def answer(self, request: bytes, send: Callable[[bytes], None]) -> None:
        same = self._same.get(request[self._own :])
        if same is None:
            return
        at = self._next[request[self._own :]]
        self._next[request[self._own :]] = (at + 1) % len(same)
        mine = request[: self._own]
        for i, (after_s, data) in enumerate(same[at].heard):
            if len(self._late) < _MOST_LATE:
                self._send_later(after_s, mine + data[self._own :] if i == 0 else data, send)

    def forget(self) -> None:
        for handle in self._late:
            handle.cancel()
        self._late.clear()

    def _send_later(self, after_s: float, data: bytes, send: Callable[[bytes], None]) -> None:
        def fire() -> None:
            self._late.discard(handle)
            send(data)

        handle = asyncio.get_running_loop().call_later(after_s, fire)
        self._late.add(handle)


class _RtuWire(SerialWire):
    def __init__(self, link: Path, answers: _Answers) -> None:
        super().__init__(link)
        self._answers = answers
        self._requests = rtu.RtuRequests()

    def close(self) -> None:
        self._answers.forget()
        super().close()

    def _received(self, data: bytes) -> None:
        for request in self._requests.feed(data):
            self._answers.answer(request, self._port.send)


class _TcpWire(TcpWire):
    def __init__(self, answers: _Answers, kind: str) -> None:
        super().__init__()
        self._answers = answers
        self._mbap = kind == "modbus-tcp"

    def close(self) -> None:
        self._answers.forget()
        super().close()

    def received(self, held: bytearray, send: Callable[[bytes], None]) -> bool:
        if not self._mbap:
            for request in rtu.RtuRequests().feed(bytes(held)):
                self._answers.answer(request, send)
                held.clear()
            return len(held) <= rtu.LONGEST
        while len(held) >= MBAP.size and len(held) >= (whole := 6 + MBAP.unpack_from(held)[2]):
            self._answers.answer(bytes(held[:whole]), send)
            del held[:whole]
        return len(held) <= rtu.LONGEST
