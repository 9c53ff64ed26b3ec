"""From monitoring points to items to the pond, GB 39496-2020 5.5.4.

Seen in print: 4 blue points make their item yellow, 3 yellow orange, 2 orange red; and 4 blue items are
counted as one yellow item. Where the clause was not seen, or says nothing, the conservative reading
stands here, to be checked against the printed standard:

- an item is at least as high as its highest single point, the pond as its highest single item;
- what was counted counts on: 4 blue and 2 yellow points are 3 yellow, hence orange;
- items count towards the pond with the same counts as points towards their item;
- a missing or unknown point keeps the level it held: it never lowers anything.

What is counted are distinct monitoring points, never channels: one GNSS with east, north and up is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from edge_rules.law.levels import COLOURS, Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_Unit = tuple[str, ...]  # what counts as one on its rung: a point, or those counted together
_NOBODY: _Unit = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of one colour are counted as one of the next."""

    blue_to_yellow: int = 4
    yellow_to_orange: int = 3
    orange_to_red: int = 2

    def problems(self) -> list[str]:
        named = {
            "blue_to_yellow": self.blue_to_yellow,
            "yellow_to_orange": self.yellow_to_orange,
            "orange_to_red": self.orange_to_red,
        }
        return [f"{name} is {count}; at least 1" for name, count in named.items() if count < 1]


@dataclass(frozen=True, slots=True)
class ChannelLevel:
    """The level a channel holds; `known` is False while no certain value stands behind it."""

    item: str
    monitoring_point: str
    level: Level
    known: bool = True


@dataclass(frozen=True, slots=True)
class RolledUp:
    """A level and why: `because` names the points (of the pond: the items) that made it, sorted.

    `counted` is True where no single one of them stands as high as `level`. `unknown` names those whose
    present state is not known, whatever level they hold; one channel of a point suffices.
    """

    name: str
    level: Level
    because: tuple[str, ...]
    counted: bool
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PondLevel:
    pond: RolledUp
    items: tuple[RolledUp, ...]


def roll_up(pond: str, channels: Iterable[ChannelLevel], counts: Counts | None = None) -> PondLevel:
    """The levels of every item that occurs in `channels`, sorted by name, and of the pond."""
    counts = counts or Counts()
    by_item: dict[str, dict[str, Level]] = {}
    unknown: dict[str, set[str]] = {}
    for channel in channels:
        points = by_item.setdefault(channel.item, {})
        before = points.setdefault(channel.monitoring_point, Level.NONE)
        points[channel.monitoring_point] = max(before, channel.level)
        unknown.setdefault(channel.item, set())
        if not channel.known:
            unknown[channel.item].add(channel.monitoring_point)
    items = tuple(_climb(item, by_item[item], unknown[item], counts) for item in sorted(by_item))
    half_known = {item.name for item in items if item.unknown}
    return PondLevel(_climb(pond, {item.name: item.level for item in items}, half_known, counts), items)


def _climb(name: str, levels: Mapping[str, Level], unknown: set[str], counts: Counts) -> RolledUp:
    """Climb the ladder rung by rung; on each stand those of that level and those counted up from below."""
    needed = (1, counts.blue_to_yellow, counts.yellow_to_orange, counts.orange_to_red)
    top, because = Level.NONE, _NOBODY
    units: list[_Unit] = []
    for rung, need in zip(COLOURS, needed, strict=True):
        units = [(one,) for one in sorted(levels) if levels[one] == rung] + _counted_together(units, need)
        if units:
            top, because = rung, tuple(sorted(chain.from_iterable(units)))
    single = max(levels.values(), default=Level.NONE)
    return RolledUp(name, top, because, top > single, tuple(sorted(unknown)))


def _counted_together(units: list[_Unit], need: int) -> list[_Unit]:
    """Each full group of `need` as one unit of the next rung; what is left over counts no further."""
    starts = range(0, len(units) - need + 1, need)
    return [tuple(chain.from_iterable(units[i : i + need])) for i in starts]
