"""Three things a person may order for a while: maintenance, a rehearsal, silence. All end by themselves.

*Maintenance* of a device or a line: what it says is stored and forwarded as uncertain:maintenance, is no
evidence for any level, and counts as blind. It never takes a whole pond: some armed channel of each pond
must stay outside. A *drill* sounds and calls as if a pond stood at a level; every payload says `test`
meanwhile, and a real alarm ends it at once. A *mute* stops the sound of a pond's outputs, nothing else, for
at most what the site file allows for the level that rings; a higher level ends it.

Whoever orders gives a name, a reason and a time. Nothing in here knows a clock, a disk or an output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec.structs import replace

from daemon.alarms import LEVELS, Level, NotAllowed
from drivers.sample import Quality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from daemon.config import ChannelTable, Site
    from drivers.sample import Frame

STATE = "modes"
NS = 1_000_000_000
# What is missing stays missing, for its own reason.
_MARKED = bytes(q if q >= Quality.NO_REPLY else Quality.MAINTENANCE for q in range(256))


class Maintenance(msgspec.Struct, frozen=True):
    """`target` is a device or a line; times are ns, UTC."""

    target: str
    devices: tuple[str, ...]
    by: str
    reason: str
    began_ns: int
    until_ns: int


class Drill(msgspec.Struct, frozen=True):
    pond: str
    level: Level
    by: str
    reason: str
    began_ns: int
    until_ns: int


class Mute(msgspec.Struct, frozen=True):
    """`level` is what rang when it was ordered: a higher one is heard."""

    pond: str
    level: Level
    by: str
    reason: str
    began_ns: int
    until_ns: int


Mode = Maintenance | Drill | Mute


class _Stored(msgspec.Struct):
    maintenance: list[Maintenance] = []
    drill: Drill | None = None
    mutes: list[Mute] = []


class Modes:
    """What is ordered at the moment. Bounded: one maintenance a target, one mute a pond, one drill."""

    def __init__(self, site: Site) -> None:
        self._table = site.alarms
        self._ponds = [pond.id for pond in site.ponds]
        self._lines = {
            line.id: tuple(device.id for device in site.devices if device.line == line.id)
            for line in site.lines
        }
        self._devices = {device.id for device in site.devices}
        self._needs = _needs(site.channels, self._devices)
        dated = {pond.id for pond in site.ponds if pond.limits}
        self._armed = [
            (channel.pond, channel.id)
            for channel in site.channels
            if channel.levels is not None or (channel.item == "pond-level" and channel.pond in dated)
        ]
        self._maintenance: dict[str, Maintenance] = {}
        self._mutes: dict[str, Mute] = {}
        self.drill: Drill | None = None
        self.maintained: frozenset[str] = frozenset()  # devices, looked up for every frame

    def open(self) -> list[Mode]:
        """All that is ordered."""
        drill = [self.drill] if self.drill else []
        return [*self._maintenance.values(), *drill, *self._mutes.values()]

    # -- ordering ------------------------------------------------------------------------------------

    def maintain(self, target: str, *, by: str, reason: str, now_ns: int, until_ns: int) -> Maintenance:
        """Put a device or a line under maintenance.

        Raises:
            NotAllowed: there is no such device or line, it would blind a whole pond, a name or reason is
                missing, or the time is none that is allowed.
        """
        if target not in self._devices and target not in self._lines:
            raise NotAllowed(f"there is no device or line {target}")
        _named(by, reason)
        _timely(now_ns, until_ns, self._table.maintain_at_most_s)
        devices = (target,) if target in self._devices else self._lines[target]
        blind = self.maintained | set(devices)
        for pond in self._ponds:
            armed = [channel for its, channel in self._armed if its == pond]
            if armed and all(self._needs[channel] & blind for channel in armed):
                raise NotAllowed(
                    f"no armed channel of pond {pond} would be left: maintain one part at a time"
                )
        order = Maintenance(target, devices, by, reason, now_ns, until_ns)
        self._maintenance[target] = order
        self._gather()
        return order

    def mute(self, pond: str, level: Level, *, by: str, reason: str, now_ns: int, until_ns: int) -> Mute:
        """Stop the sound of a pond's outputs while its level is no higher than `level`.

        Raises:
            NotAllowed: there is no such pond, nothing rings, a name or reason is missing, or the time is
                longer than the level may be muted.
        """
        self._known(pond)
        if level == "none":
            raise NotAllowed(f"nothing rings at pond {pond}: there is nothing to mute")
        _named(by, reason)
        most = self._table.mute
        most_s = (most.blue_s, most.yellow_s, most.orange_s, most.red_s)[LEVELS.index(level) - 1]
        _timely(now_ns, until_ns, most_s)
        order = Mute(pond, level, by, reason, now_ns, until_ns)
        self._mutes[pond] = order
        return order

    def rehearse(self, pond: str, level: Level, *, by: str, reason: str, now_ns: int, until_ns: int) -> Drill:
        """Begin a drill.

        Raises:
            NotAllowed: one is under way, there is no such pond, a name or reason is missing, or the time is
                none that is allowed.
        """
        self._known(pond)
        if self.drill is not None:
            raise NotAllowed(f"a drill of pond {self.drill.pond} is under way: end it first")
        if level == "none":
            raise NotAllowed("a drill needs a level: blue, yellow, orange or red")
        _named(by, reason)
        _timely(now_ns, until_ns, self._table.drill_at_most_s)
        self.drill = Drill(pond, level, by, reason, now_ns, until_ns)
        return self.drill

    # -- ending --------------------------------------------------------------------------------------

    def end_maintenance(self, target: str) -> Maintenance:
        """Raises NotAllowed: it is not under maintenance."""
        if target not in self._maintenance:
            raise NotAllowed(f"{target} is not under maintenance")
        ended = self._maintenance.pop(target)
        self._gather()
        return ended

    def end_mute(self, pond: str) -> Mute:
        """Raises NotAllowed: it is not muted."""
        if pond not in self._mutes:
            raise NotAllowed(f"pond {pond} is not muted")
        return self._mutes.pop(pond)

    def end_drill(self) -> Drill:
        """Raises NotAllowed: there is none."""
        if self.drill is None:
            raise NotAllowed("no drill is under way")
        ended, self.drill = self.drill, None
        return ended

    def expire(self, now_ns: int, levels: Mapping[str, int]) -> list[Mode]:
        """What has ended by itself: its time is over, or its pond (see LEVELS) stands higher than was muted.

        A wall clock that stepped back before the order began ends it as well: nothing lasts longer than it
        was meant to.
        """
        over: list[Mode] = []
        for order in self.open():
            ended = not order.began_ns <= now_ns < order.until_ns
            if isinstance(order, Mute):
                ended = ended or levels.get(order.pond, 0) > LEVELS.index(order.level)
            if not ended:
                continue
            over.append(order)
            match order:
                case Maintenance():
                    del self._maintenance[order.target]
                case Mute():
                    del self._mutes[order.pond]
                case Drill():
                    self.drill = None
        if over:
            self._gather()
        return over

    # -- what follows from them ----------------------------------------------------------------------

    def payload_mode(self) -> Literal["test"] | None:
        """What every payload says of its mode while a drill is under way."""
        return None if self.drill is None else "test"

    def is_muted(self, pond: str) -> bool:
        return pond in self._mutes

    def marked(self, frame: Frame) -> Frame:
        """The frame of a device under maintenance: its values are uncertain, what is missing stays so."""
        return replace(frame, qualities=frame.qualities.translate(_MARKED))

    # -- state that must outlive a restart -----------------------------------------------------------

    def states(self) -> Mapping[str, Callable[[], object]]:
        return {
            STATE: lambda: _Stored(list(self._maintenance.values()), self.drill, list(self._mutes.values()))
        }

    def restore(self, state: Any) -> None:
        """Take up what was ordered, as far as the site still has it; what is over ends at the next look."""
        stored = msgspec.convert(state, _Stored)
        self._maintenance = {
            each.target: each
            for each in stored.maintenance
            if each.target in self._devices or each.target in self._lines
        }
        self._mutes = {each.pond: each for each in stored.mutes if each.pond in self._ponds}
        self.drill = stored.drill if stored.drill and stored.drill.pond in self._ponds else None
        self._gather()

    def _gather(self) -> None:
        self.maintained = frozenset(d for each in self._maintenance.values() for d in each.devices)

    def _known(self, pond: str) -> None:
        if pond not in self._ponds:
            raise NotAllowed(f"there is no pond {pond}; this site has {', '.join(self._ponds)}")


def _named(by: str, reason: str) -> None:
    if not by.strip() or not reason.strip():
        raise NotAllowed("who orders this, and why? A name and a reason are needed")


def _timely(now_ns: int, until_ns: int, most_s: float) -> None:
    for_s = (until_ns - now_ns) / NS
    if for_s <= 0:
        raise NotAllowed("it would be over already: give a time to come")
    if for_s > most_s:
        raise NotAllowed(f"it may last {most_s / 60:g} min at most, not {for_s / 60:g}")


def _needs(channels: Iterable[ChannelTable], devices: set[str]) -> dict[str, set[str]]:
    """Channel -> the devices it cannot do without, its inputs' included."""
    tables = {channel.id: channel for channel in channels}
    known: dict[str, set[str]] = {}

    def of(name: str) -> set[str]:
        if name not in known:
            table = tables[name]
            known[name] = set()  # a channel computed from itself is refused by the site check
            inputs = [table.source, table.temperature, table.barometer]
            inputs += list(table.derive.inputs) if table.derive else []
            for each in filter(None, inputs):
                device = each.partition(".")[0]
                known[name] |= of(each) if each in tables and device not in devices else {device}
        return known[name]

    return {name: of(name) for name in tables}
