"""A device model as its profile describes it, and the same compiled for one device of a site."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from drivers.decode import Decoded, Order, Place
    from drivers.sample import Block

Trust = Literal["manual", "driver", "community", "inferred"]
Speaks = Literal["modbus", "lines", "ubx", "sbf", "rtklib"]

OWN_UNIT = -1  # in an identity: the register holds the unit number itself


@dataclass(frozen=True, slots=True)
class Source:
    """Where a profile's facts come from, and how far each can be trusted."""

    doc: str
    url: str
    trust: Trust


@dataclass(frozen=True, slots=True)
class Bus:
    """How the device wants to be spoken to: defaults, which a site may override.

    `slowest_reply_s` is the latest moment after a request at which a reply can still come: until then
    nothing else may be asked, lest the late reply be taken for another's. `gap_s` is the silence before a
    request where the device wants more than 3.5 characters, `turnaround_s` the rest it needs after its
    reply, `wake_s` the wait after power-up, `period_min_s` the shortest useful interval between polls,
    `bridge_holes` whether registers nobody wants may be read along.
    """

    serial: str
    unit: int
    order: Order
    timeout_s: float
    slowest_reply_s: float
    gap_s: float
    turnaround_s: float
    wake_s: float
    period_min_s: float
    max_registers: int
    bridge_holes: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """A point that only rises: how wide it is, what sets it back, the largest believable step in counts.

    Counts are a frame's `numbers`, before scale; that is where they wrap.
    """

    bits: Literal[16, 32]
    resets: tuple[str, ...]
    max_step: int | None


@dataclass(frozen=True, slots=True)
class Point:
    """One number of a reply. `place` is None in a sentence."""

    name: str
    unit: str
    place: Place | None
    counter: Counts | None
    hidden: bool


@dataclass(frozen=True, slots=True, eq=False)
class CompiledBlock:
    """One request: function, address, how many registers (or coils), and what its reply means.

    `decode` takes the data bytes of the reply, without the byte count, and gives (numbers, values,
    qualities), each parallel to `points`; it raises BadReply on another length.
    """

    block: Block
    fn: int
    at: int
    count: int
    points: tuple[Point, ...]
    decode: Callable[[bytes], Decoded]

    @property
    def data_bytes(self) -> int:
        """Length of the data in a reply, without function and byte count."""
        return (self.count + 7) // 8 if self.fn in (1, 2) else 2 * self.count


@dataclass(frozen=True, slots=True, eq=False)
class CompiledSentence:
    """One kind of line: `decode` takes its fields as text, the tag left off; parallel to `points`."""

    block: Block
    tag: str
    points: tuple[Point, ...]
    decode: Callable[[Sequence[str]], Decoded]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A sentence whose fields a codec understands by their names; `tag` may have two parts, as in PTNL,GGK.

    The solution is float where all of `degraded` hold, fixed where all of `ok` do: numbers of these fields.
    """

    tag: str
    fields: tuple[str, ...]
    ok: Mapping[str, frozenset[float]]
    degraded: Mapping[str, frozenset[float]]


@dataclass(frozen=True, slots=True)
class Write:
    """Something that may be written: a coil (fn 5) or a register (fn 6, 16).

    `on`, `off` and `value` are the 16-bit values as they stand in the request; which of them there are is
    the device's nature. `verify` names the point that shows the result; `danger` says what it destroys.
    With `broadcast`, a step of the cycle sends it to all devices of a serial line at once, once for a tick.
    """

    name: str
    fn: Literal[5, 6, 16]
    at: int
    on: int | None
    off: int | None
    value: int | None
    verify: str
    danger: str
    broadcast: bool = False


@dataclass(frozen=True, slots=True)
class WriteStep:
    write: Write
    value: int


@dataclass(frozen=True, slots=True)
class WaitStep:
    s: float


@dataclass(frozen=True, slots=True)
class DiscardStep:
    """Read and forget: some devices answer the first time with what they measured last."""

    block: CompiledBlock


@dataclass(frozen=True, slots=True)
class ReadStep:
    block: CompiledBlock


Step = WriteStep | WaitStep | DiscardStep | ReadStep


@dataclass(frozen=True, slots=True)
class Identity:
    """Registers by which a scan knows the device: `words` stand from `at`; None is any number."""

    fn: Literal[3, 4]
    at: int
    words: tuple[int | None, ...]

    def fits(self, words: Sequence[int], unit: int) -> bool:
        """Whether `words`, read from unit `unit`, are those of this device."""
        wanted = (unit if word == OWN_UNIT else word for word in self.words)
        return len(words) == len(self.words) and all(
            w is None or w == word for w, word in zip(wanted, words, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """A golden frame: request and reply as they went over a wire, and what they must decode to.

    For Modbus both are RTU frames with their CRC; for sentences `tx` is empty and `rx` a line.
    """

    unit: int
    tx: bytes
    rx: bytes
    expect: Mapping[str, float | str]


@dataclass(frozen=True, slots=True, eq=False)
class CompiledProfile:
    """A profile for one device: what a driver works from."""

    id: str
    speaks: Speaks
    codec: str
    bus: Bus
    blocks: tuple[CompiledBlock, ...]
    sentences: tuple[CompiledSentence, ...]
    steps: tuple[Step, ...]
    writes: Mapping[str, Write]

    @property
    def points(self) -> dict[str, Point]:
        """Every point a channel can be made from, by name."""
        parts: tuple[CompiledBlock | CompiledSentence, ...] = (*self.blocks, *self.sentences)
        return {point.name: point for part in parts for point in part.points}


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """One device model, read from its file; its blocks belong to no device yet."""

    id: str
    title: str
    sources: tuple[Source, ...]
    speaks: Speaks
    codec: str
    bus: Bus
    blocks: tuple[CompiledBlock, ...]
    sentences: tuple[CompiledSentence, ...]
    steps: tuple[Step, ...]
    writes: Mapping[str, Write]
    proofs: tuple[Proof, ...]
    identity: Identity | None = None
    layouts: tuple[Layout, ...] = ()

    def compile(self, device: str, wanted: Collection[str] | None = None) -> CompiledProfile:
        """The profile for the site's `device`.

        With `wanted`, blocks that yield none of these points, nor show the result of a write, are left
        out: a register nobody wants costs bus time, and on a logger that measures when it is read, a whole
        measurement.
        """
        needed = {*wanted, *(w.verify for w in self.writes.values())} if wanted is not None else None
        blocks = {
            b.block.name: replace(b, block=replace(b.block, device=device))
            for b in self.blocks
            if needed is None or any(p.name in needed for p in b.points)
        }
        steps: list[Step] = []
        for step in self.steps:
            if not isinstance(step, ReadStep | DiscardStep):
                steps.append(step)
            elif step.block.block.name in blocks:
                steps.append(replace(step, block=blocks[step.block.block.name]))
        sentences = tuple(replace(s, block=replace(s.block, device=device)) for s in self.sentences)
        return CompiledProfile(
            self.id,
            self.speaks,
            self.codec,
            self.bus,
            tuple(blocks.values()),
            sentences,
            tuple(steps),
            self.writes,
        )
