"""Samples into readings: calibrate, derive, and wait for the inputs that belong to one tick.

The channels form a graph. A *node* is a block (frames come from it) or a group (readings come from
it); a *group* computes, in order, all channels that need the same nodes. A channel whose inputs are
all in one block is computed the moment the frame arrives. One that needs a barometer of another logger
waits until the frame of the same tick is there: its first input (`from`, or the first of `derive`) sets
the tick, and an input that is polled less often counts with its last tick at or before it. The poller
sends a frame for every tick, a missing one where nothing came, so a wait ends; PATIENCE_S is for the
case that it does not.

A value that is missing is NaN with its reason. Nothing is ever filled in from an earlier tick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, nan
from typing import TYPE_CHECKING

from daemon.dated import in_force
from daemon.reading import PointRaws, ReadingFrame, Script
from drivers.calibration import Count
from drivers.counter import Counter
from drivers.rhythm import Rhythm
from drivers.sample import NO_EVIDENCE, Block, Frame, Quality
from edge_rules.law.rain import GaugeCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from daemon.config import ChannelTable
    from daemon.dated import Period
    from drivers.calibration import Stateless
    from edge_rules.law.derived import Deriver

PATIENCE_S = 60.0  # longest wait for the other inputs of a tick, on the bench's clock
PENDING_TICKS = 8  # a group holds so many unfinished ticks; a further one finishes the oldest as it is
_KEPT_PARTS = 16  # ticks of an input that are kept: several may need the same one, or one comes minutes late
_HPA = {"hPa": 1.0, "mbar": 1.0, "kPa": 10.0, "Pa": 0.01}
_OWN = -1  # index of the "part" that is the group's own readings

_BAD = int(Quality.NO_REPLY)
_UNCERTAIN_INPUT = int(Quality.UNCERTAIN_INPUT)
_NO_TEMPERATURE = int(Quality.NO_TEMPERATURE)
_MISSING_INPUT = int(Quality.MISSING_INPUT)
_OUT_OF_SPAN = int(Quality.OUT_OF_SPAN)
_NOT_A_NUMBER = int(Quality.NOT_A_NUMBER)
_BELOW_TIP = int(Quality.BELOW_TIP)
_OLD_CONSTANTS = int(Quality.OLD_CONSTANTS)

Part = Frame | ReadingFrame
# Place in the block, span, calibration, and the point's name: a channel that is one number of one block.
_Plain = tuple[int, float, float, "Callable[[float], float] | None", str]


class UnknownInput(KeyError):
    """A channel names a point or channel that does not exist; the site check says so beforehand."""


@dataclass(frozen=True, slots=True)
class Source:
    """A block that frames come from, and how often."""

    block: Block
    every_ns: int


@dataclass(frozen=True, slots=True)
class _Ref:
    """Where an input stands: which of the group's parts, which place in it, and the factor to our unit."""

    part: int
    at: int
    factor: float = 1.0


@dataclass(slots=True)
class _Measured:
    """A channel measured by an instrument."""

    source: _Ref
    name: str
    low: float
    high: float
    calibration: Stateless | None
    counter: Counter | None
    per_count: float
    temperature: _Ref | None
    barometer: _Ref | None
    periods: Sequence[Period] = ()  # where its constants change or grow old

    def compute(self, parts: Sequence[Part], own: _Own) -> tuple[float, int]:
        part = parts[self.source.part]
        at = self.source.at
        quality = part.qualities[at]
        value = part.values[at]
        if quality >= _BAD:
            return nan, quality
        calibration, per_count = self.calibration, self.per_count
        if self.periods:
            calibration, per_count, doubt = self._then(part.time_ns)
            quality = quality or doubt
        if self.counter is not None:
            assert isinstance(part, Frame)
            gained, why = self.counter.step(part.numbers[at], part.tick_ns)  # counts wrap before scale
            if gained is None:
                return nan, int(why)
            value, quality = gained * per_count, max(quality, int(why))
        elif calibration is not None:
            celsius, celsius_quality = _input(self.temperature, parts, own)
            hpa, hpa_quality = _input(self.barometer, parts, own)
            if hpa_quality >= _BAD:
                return nan, _MISSING_INPUT
            if celsius_quality >= _BAD:
                quality, celsius = max(quality, _NO_TEMPERATURE), None
            elif celsius_quality or hpa_quality:
                quality = max(quality, _passed_on(celsius_quality, hpa_quality))
            value = calibration.apply(value, celsius, hpa)
        if self.low <= value <= self.high:
            return value, quality
        return nan, _OUT_OF_SPAN if value == value else _NOT_A_NUMBER  # noqa: PLR0124 -- NaN test

    def _then(self, time_ns: int) -> tuple[Stateless | None, float, int]:
        """Calibration, quantity of a count, and doubt about them, at an instant."""
        period = in_force(self.periods, time_ns)
        doubt = _OLD_CONSTANTS if time_ns >= period.doubtful_ns else 0
        if isinstance(period.calibration, Count):
            return None, period.calibration.per_count, doubt
        return period.calibration, 1.0, doubt

    def plain(self) -> _Plain | None:
        """The channel as `Group._compute_plain` takes it; None if it needs more than one number."""
        if (
            self.periods
            or self.counter is not None
            or self.temperature is not None
            or self.barometer is not None
        ):
            return None
        if self.source.part or self.source.factor != 1.0:
            return None
        apply = None if self.calibration is None else self.calibration.apply
        return (self.source.at, self.low, self.high, apply, self.name)

    def raw(self, parts: Sequence[Part]) -> Mapping[str, float]:
        part = parts[self.source.part]
        numbers = part.numbers if isinstance(part, Frame) else ()
        if not numbers:
            return _NO_RAW
        raw = {self.name: numbers[self.source.at]}
        for ref in (self.temperature, self.barometer):  # what else went into it, unless a channel shows it
            other = parts[ref.part] if ref is not None and ref.part != _OWN else None
            if ref is not None and isinstance(other, Frame) and other.numbers:
                raw[f"{other.block.device}.{other.block.points[ref.at]}"] = other.numbers[ref.at]
        return raw


@dataclass(slots=True)
class _Derived:
    """A channel computed from other channels."""

    inputs: Sequence[_Ref]
    deriver: Deriver
    low: float
    high: float
    periods: Sequence[Period] = field(default=(), kw_only=True)  # where its constants grow old

    def compute(self, parts: Sequence[Part], own: _Own) -> tuple[float, int]:
        found = [_input(ref, parts, own) for ref in self.inputs]
        worst = max(quality for _, quality in found)
        if worst >= _BAD:
            return nan, _BELOW_TIP if worst == _BELOW_TIP else _MISSING_INPUT
        value = self.deriver(own.time_ns, [nan if v is None else v for v, _ in found])
        if value == -inf:
            return nan, _BELOW_TIP
        if self.low <= value <= self.high:
            if worst:
                return value, _passed_on(*(quality for _, quality in found))
            return value, self._doubt(own.time_ns) if self.periods else 0
        return nan, _OUT_OF_SPAN if value == value else _MISSING_INPUT  # noqa: PLR0124 -- NaN test

    def _doubt(self, time_ns: int) -> int:
        return _OLD_CONSTANTS if time_ns >= in_force(self.periods, time_ns).doubtful_ns else 0

    @staticmethod
    def plain() -> None:
        """Nothing derived is one number of a block."""

    def raw(self, parts: Sequence[Part]) -> Mapping[str, float]:
        del parts
        return _NO_RAW


_REMARKS = {"frozen": int(Quality.FROZEN), "neighbour": int(Quality.NEIGHBOUR)}


class _Dated:
    """A deriver without memory whose constants change: each instant has its own."""

    def __init__(self, periods: Sequence[Period]) -> None:
        self._periods = periods
        self._derivers = [period.derive.make() for period in periods if period.derive is not None]

    def __call__(self, time_ns: int, values: Sequence[float]) -> float:
        place = self._periods.index(in_force(self._periods, time_ns))
        return self._derivers[place](time_ns, values)

    def state(self) -> None:
        return None

    def restore(self, state: object) -> None:
        raise ValueError(f"dated formulas keep no state, not {state!r}")


@dataclass(slots=True)
class _Gauge(_Derived):
    """A depth of rain, passed on with what speaks against it; what it is checked with may be missing."""

    check: GaugeCheck

    def compute(self, parts: Sequence[Part], own: _Own) -> tuple[float, int]:
        (depth, quality), *others = [_input(ref, parts, own) for ref in self.inputs]
        if depth is None or quality >= _BAD:
            return nan, _MISSING_INPUT
        known = [nan if value is None or q >= _BAD else value for value, q in others]
        remark = self.check.remark(own.time_ns, [depth, *known])
        if not self.low <= depth <= self.high:
            return nan, _OUT_OF_SPAN
        if remark:
            return depth, _REMARKS[remark]
        return depth, _passed_on(quality) if quality or any(q for _, q in others) else 0


def _passed_on(*qualities: int) -> int:
    """What a value computed from uncertain ones is: no evidence if one of them is none, else uncertain."""
    return next((quality for quality in NO_EVIDENCE if quality in qualities), _UNCERTAIN_INPUT)


_NO_RAW: Mapping[str, float] = {}
_NEVER: Mapping[str, Sequence[Period]] = {}


@dataclass(slots=True)
class _Own:
    """The readings of the tick that a group has computed so far."""

    time_ns: int
    values: list[float]
    qualities: bytearray


def _input(ref: _Ref | None, parts: Sequence[Part], own: _Own) -> tuple[float | None, int]:
    if ref is None:
        return None, 0
    holder = own if ref.part == _OWN else parts[ref.part]
    return holder.values[ref.at] * ref.factor, holder.qualities[ref.at]


@dataclass(slots=True, eq=False)
class Group:
    """Channels that need the same nodes; `nodes[0]` sets the tick."""

    nodes: list[Block | Group]
    rhythm: Rhythm  # of the first node
    device: str
    channels: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    steps: list[_Measured | _Derived] = field(default_factory=list)
    stateful: list[str] = field(default_factory=list)  # channels whose state moves with each reading
    plain: list[_Plain] = field(default_factory=list)  # the steps as `_compute_plain` takes them, or none
    names: list[str] = field(default_factory=list)  # of the plain steps: their points
    places: Callable[[Sequence[float]], Sequence[float]] | None = (
        None  # ... and numbers, where not all in order
    )
    good: bytes = b""  # ... and qualities, where there is nothing to remark on
    script: Script | None = None
    rhythms: list[Rhythm] = field(default_factory=list)  # of each node
    waiting: dict[int, tuple[Part, int]] = field(default_factory=dict)  # tick -> first part, since when
    others: list[dict[int, Part]] = field(default_factory=list)  # per further node: tick -> part

    def put(self, node: Block | Group, part: Part, mono_ns: int) -> list[Sequence[Part]]:
        """Take a part; returns the sets of parts that are now complete, oldest tick first."""
        if len(self.nodes) == 1:
            return [(part,)]
        if node is self.nodes[0]:
            self.waiting[part.tick_ns] = (part, mono_ns)
        else:
            kept = self.others[self.nodes.index(node) - 1]
            kept[part.tick_ns] = part
            while len(kept) > _KEPT_PARTS:
                del kept[next(iter(kept))]
        done = [tick for tick in self.waiting if None not in self._parts(tick)]
        spare = len(self.waiting) - len(done) - PENDING_TICKS
        if spare > 0:
            done += [tick for tick in self.waiting if tick not in done][:spare]
        return [self._take(tick) for tick in sorted(done)]

    def expire(self, before_mono_ns: int) -> list[Sequence[Part]]:
        """The ticks that have waited since before `before_mono_ns`, with what they have."""
        late = [tick for tick, (_, since) in self.waiting.items() if since < before_mono_ns]
        return [self._take(tick) for tick in sorted(late)]

    def _parts(self, tick_ns: int) -> list[Part | None]:
        first, _ = self.waiting[tick_ns]
        others = (
            kept.get(rhythm.tick(tick_ns)) for kept, rhythm in zip(self.others, self.rhythms[1:], strict=True)
        )
        return [first, *others]

    def _take(self, tick_ns: int) -> Sequence[Part]:
        parts = self._parts(tick_ns)
        first, _ = self.waiting.pop(tick_ns)
        return [
            part if part is not None else _absent(node, first)
            for part, node in zip(parts, self.nodes, strict=True)
        ]

    def compute(self, parts: Sequence[Part]) -> ReadingFrame:
        first = parts[0]
        if self.plain:
            assert isinstance(first, Frame)
            return self._compute_plain(first)
        own = _Own(first.time_ns, [], bytearray())
        for step in self.steps:
            value, quality = step.compute(parts, own)
            own.values.append(value)
            own.qualities.append(quality)
        raws = [step.raw(parts) for step in self.steps]
        return ReadingFrame(
            self.channels,
            self.units,
            first.tick_ns,
            first.time_ns,
            first.mono_ns,
            own.values,
            bytes(own.qualities),
            raws,
        )

    def compile(self, plain: list[_Plain]) -> None:
        """Every channel is one number of one block: `plain`, in their order."""
        self.plain = plain
        self.names = [name for *_, name in plain]
        places = [at for at, *_ in plain]
        block = self.nodes[0]
        assert isinstance(block, Block)
        if places != list(range(len(block.points))):
            self.places = lambda numbers: [numbers[at] for at in places]
        self.good = bytes(len(plain))
        self.script = Script(self.channels, self.units, self.names)

    def _compute_plain(self, frame: Frame) -> ReadingFrame:
        """What `compute` does, where every channel is one number of one block (a test compares the two).

        Nearly every value of a large site comes this way, so nothing is called but the calibration.
        """
        script = self.script
        assert script is not None
        given, grades = frame.values, frame.qualities
        if any(grades) or (values := self._all_good(given)) is None:
            values, qualities = self._one_by_one(given, grades)
        else:
            qualities = self.good
        numbers = frame.numbers
        if numbers and self.places is not None:
            numbers = self.places(numbers)
        return ReadingFrame(
            self.channels,
            self.units,
            frame.tick_ns,
            frame.time_ns,
            frame.mono_ns,
            values,
            qualities,
            PointRaws(self.names, numbers),
            script,
        )

    def _all_good(self, given: Sequence[float]) -> list[float] | None:
        """The values of a frame that has nothing to remark on; None where one leaves its span."""
        values = [given[at] if apply is None else apply(given[at]) for at, _, _, apply, _ in self.plain]
        for value, (_, low, high, _, _) in zip(values, self.plain, strict=True):
            if not low <= value <= high:
                return None
        return values

    def _one_by_one(self, given: Sequence[float], grades: bytes) -> tuple[list[float], bytes]:
        values, qualities = [], bytearray()
        for at, low, high, apply, _ in self.plain:
            value, quality = given[at], grades[at]
            if quality < _BAD:
                if apply is not None:
                    value = apply(value)
                if not low <= value <= high:
                    quality = _OUT_OF_SPAN if value == value else _NOT_A_NUMBER  # noqa: PLR0124 -- NaN test
                    value = nan
            values.append(value)
            qualities.append(quality)
        return values, bytes(qualities)


def _absent(node: Block | Group, like: Part) -> Part:
    """The part of an input that never came for this tick."""
    if isinstance(node, Block):
        return Frame.missing(node, like.tick_ns, like.time_ns, like.mono_ns, Quality.MISSING_INPUT)
    n = len(node.channels)
    return ReadingFrame(
        node.channels,
        node.units,
        like.tick_ns,
        like.time_ns,
        like.mono_ns,
        (nan,) * n,
        bytes((_MISSING_INPUT,)) * n,
        (_NO_RAW,) * n,
    )


class Channels:
    """All channels of the site, compiled; frames in, frames of readings out.

    Args:
        tables: the site file's channels, in any order.
        sources: every block of every device, with its period.
        dated: channel id -> its constants through time, of those whose constants change or grow old.
    """

    def __init__(
        self,
        tables: Sequence[ChannelTable],
        sources: Sequence[Source],
        dated: Mapping[str, Sequence[Period]] = _NEVER,
    ) -> None:
        self._dated = dated
        self.groups: list[Group] = []
        self._rhythms = {source.block: Rhythm(source.every_ns) for source in sources}
        self._every_ns = {source.block.device: source.every_ns for source in sources}
        self._points = {
            (source.block.device, point): (source.block, at)
            for source in sources
            for at, point in enumerate(source.block.points)
        }
        self._tables = {table.id: table for table in tables}
        self._places: dict[str, tuple[Group, int]] = {}
        self._stateful: dict[str, Counter | Deriver] = {}
        for table in tables:
            self._place(table.id)
        self._children: dict[Block | Group, list[Group]] = {}
        for group in self.groups:
            plain = [step.plain() for step in group.steps]
            if None not in plain:
                group.compile([row for row in plain if row is not None])
            for node in group.nodes:
                self._children.setdefault(node, []).append(group)

    # -- running -------------------------------------------------------------------------------------

    def on_frame(self, frame: Frame) -> Iterator[tuple[Group, ReadingFrame]]:
        """The readings that `frame` completes, inputs before what is derived from them."""
        return self._deliver(frame.block, frame, frame.mono_ns)

    def expire(self, mono_ns: int) -> Iterator[tuple[Group, ReadingFrame]]:
        """The readings of ticks that have waited PATIENCE_S for an input; called now and then."""
        for group in self.groups:
            if group.waiting:
                for parts in group.expire(mono_ns - int(PATIENCE_S * 1e9)):
                    yield from self._computed(group, parts, mono_ns)

    def _deliver(self, node: Block | Group, part: Part, mono_ns: int) -> Iterator[tuple[Group, ReadingFrame]]:
        for group in self._children.get(node, ()):
            for parts in group.put(node, part, mono_ns):
                yield from self._computed(group, parts, mono_ns)

    def _computed(
        self, group: Group, parts: Sequence[Part], mono_ns: int
    ) -> Iterator[tuple[Group, ReadingFrame]]:
        readings = group.compute(parts)
        yield group, readings
        yield from self._deliver(group, readings, mono_ns)

    def set_every(self, device: str, every_ns: int, since_ns: int) -> None:
        """From the tick `since_ns` on the device is polled at another period."""
        for block, rhythm in self._rhythms.items():
            if block.device == device:
                rhythm.change(every_ns, since_ns)

    # -- state that must outlive a restart -----------------------------------------------------------

    def states(self) -> Mapping[str, Callable[[], object]]:
        """Channel id -> what gives its state as JSON-able data: counters, rates, rain windows."""
        return {channel: keeper.state for channel, keeper in self._stateful.items()}

    def restore(self, channel: str, state: object) -> None:
        """Take back the state of a channel; one that the site no longer has is passed over."""
        if channel in self._stateful:
            self._stateful[channel].restore(state)  # type: ignore[arg-type]

    # -- compiling -----------------------------------------------------------------------------------

    def _place(self, channel: str) -> tuple[Group, int]:
        """Compile a channel after its inputs; returns its group and its place in it."""
        if channel in self._places:
            return self._places[channel]
        table = self._tables.get(channel)
        if table is None:
            raise UnknownInput(channel)
        inputs = self._inputs(table)
        group = self._group([node for node, _, _ in inputs])
        refs = [self._ref(group, node, at, factor) for node, at, factor in inputs]
        low, high = table.span or (-inf, inf)
        group.steps.append(
            self._derived(table, refs, low, high) if table.derive else self._measured(table, refs, low, high)
        )
        group.channels.append(channel)
        group.units.append(table.unit)
        if channel in self._stateful:
            group.stateful.append(channel)
        self._places[channel] = (group, len(group.channels) - 1)
        return self._places[channel]

    def _inputs(self, table: ChannelTable) -> list[tuple[Block | Group, int, float]]:
        if table.derive is not None:
            return [(*self._place(name), 1.0) for name in table.derive.inputs]
        names = [name for name in (table.source, table.temperature, table.barometer) if name]
        found = [self._find(name) for name in names]
        if table.barometer:
            node, at, _ = found[-1]
            found[-1] = (node, at, _HPA[node.units[at]])
        return found

    def _find(self, name: str) -> tuple[Block | Group, int, float]:
        device, _, point = name.partition(".")
        if (device, point) in self._points:
            return (*self._points[device, point], 1.0)
        return (*self._place(name), 1.0)

    def _group(self, nodes: list[Block | Group]) -> Group:
        unique = list(dict.fromkeys(nodes))
        for group in self.groups:
            reach = {group, *group.nodes}
            same_tick = unique[0] is group or unique[0] is group.nodes[0]
            if same_tick and (set(unique) == set(group.nodes) or (group in unique and set(unique) <= reach)):
                return group
        rhythms = [self._rhythms[n] if isinstance(n, Block) else n.rhythm for n in unique]
        group = Group(unique, rhythms[0], unique[0].device, rhythms=rhythms)
        group.others = [{} for _ in unique[1:]]
        self.groups.append(group)
        return group

    @staticmethod
    def _ref(group: Group, node: Block | Group, at: int, factor: float) -> _Ref:
        return _Ref(_OWN if node is group else group.nodes.index(node), at, factor)

    def _measured(self, table: ChannelTable, refs: list[_Ref], low: float, high: float) -> _Measured:
        rest = refs[1:]
        temperature = rest.pop(0) if table.temperature else None
        barometer = rest.pop(0) if table.barometer else None
        calibration, counter, per_count = table.calibration, None, 1.0
        if isinstance(calibration, Count):
            device = table.source.partition(".")[0]
            counter = Counter(calibration.bits, calibration.max_step, self._every_ns[device])
            per_count = calibration.per_count
            self._stateful[table.id] = counter
            calibration = None
        periods = self._dated.get(table.id, ())
        return _Measured(
            refs[0], table.source, low, high, calibration, counter, per_count, temperature, barometer, periods
        )

    def _derived(self, table: ChannelTable, refs: list[_Ref], low: float, high: float) -> _Derived:
        assert table.derive is not None
        periods = self._dated.get(table.id, ())
        deriver = _Dated(periods) if len(periods) > 1 else table.derive.make()
        if deriver.state() is not None:
            self._stateful[table.id] = deriver
        if isinstance(deriver, GaugeCheck):
            return _Gauge(refs, deriver, low, high, deriver)
        return _Derived(refs, deriver, low, high, periods=periods)
