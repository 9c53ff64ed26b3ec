"""Readings against the designer's levels: transitions, the roll-up to item and pond, the alarms they raise.

Nearly every reading is calm: good, and inside the band in which no level can change. One comparison
tells, and only what fails it is looked at. Rules and detectors have no say in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

from daemon import reasons
from daemon.alarms import LEVELS, Observation, Subject
from drivers.sample import Quality
from edge_rules.law.levels import Level, LevelJudge
from edge_rules.law.rollup import ChannelLevel, Counts, roll_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from daemon.alarms import Alarm, AlarmBook
    from daemon.channels import Group
    from daemon.config import ChannelTable, Site
    from daemon.reading import ReadingFrame
    from edge_rules.law.levels import Transition
    from edge_rules.law.rollup import RolledUp

NOT_ROLLED_UP = frozenset({"weather", "health"})  # no monitoring items of GB 39496-2020 5.5.2
STATE = "level:"  # prefix of a channel's judge among the stored states


@dataclass(slots=True, eq=False)
class _Watch:
    """An armed channel: its judge, and whether its present level can be seen at the moment."""

    table: ChannelTable
    judge: LevelJudge
    blind: bool = False

    @property
    def point(self) -> str:
        return self.table.monitoring_point or self.table.id


class Judge:
    """Levels of every armed channel, item and pond.

    Args:
        site: channels and ponds.
        groups: the compiled groups, whose order of channels the readings follow.
        book: where alarms are kept.
    """

    def __init__(self, site: Site, groups: Sequence[Group], book: AlarmBook) -> None:
        self._book = book
        self._watches = {
            table.id: _Watch(table, LevelJudge(table.levels)) for table in site.channels if table.levels
        }
        self._by_group: dict[int, list[tuple[int, _Watch]]] = {
            id(group): [
                (at, self._watches[channel])
                for at, channel in enumerate(group.channels)
                if channel in self._watches
            ]
            for group in groups
        }
        self._counts = {
            pond.id: Counts(
                pond.rollup.blue_to_yellow, pond.rollup.yellow_to_orange, pond.rollup.orange_to_red
            )
            for pond in site.ponds
        }
        self.items: dict[tuple[str, str], Level] = {}
        self.ponds: dict[str, Level] = {}
        for pond in self._counts:
            self._roll_up(pond)
        self._moved: set[str] = set()

    def take(self, group: Group, frame: ReadingFrame) -> list[Alarm]:
        """Judge the readings of one tick; returns the alarms that are new or changed."""
        alarms: list[Alarm] = []
        values, qualities = frame.values, frame.qualities
        for at, watch in self._by_group[id(group)]:
            judge = watch.judge
            if not qualities[at] and judge.calm_low <= values[at] <= judge.calm_high and not watch.blind:
                continue
            alarms += self._look(watch, frame.time_ns, values[at], Quality(qualities[at]))
        return alarms

    def level(self, channel: str) -> Level:
        """The level at which a channel stands; NONE where it is not armed."""
        watch = self._watches.get(channel)
        return watch.judge.level if watch else Level.NONE

    @property
    def armed(self) -> Iterable[str]:
        return self._watches

    # -- state that must outlive a restart -----------------------------------------------------------

    def states(self) -> Mapping[str, Callable[[], object]]:
        return {STATE + name: watch.judge.state for name, watch in self._watches.items()}

    def moved(self) -> set[str]:
        """The names of the states that moved since the last call."""
        moved, self._moved = self._moved, set()
        return moved

    def restore(self, name: str, state: Sequence[int | None]) -> None:
        """Take back a channel's level and hold; one that is no longer armed is passed over."""
        watch = self._watches.get(name.removeprefix(STATE))
        if watch is not None:
            watch.judge.restore(state)
            watch.blind = bool(watch.judge.level)  # until the first reading shows whether it still holds
            self._roll_up(watch.table.pond)

    # -- beyond the calm band ------------------------------------------------------------------------

    def _look(self, watch: _Watch, time_ns: int, value: float, quality: Quality) -> list[Alarm]:
        self._moved.add(STATE + watch.table.id)
        if quality.is_bad:
            return self._blinded(watch, time_ns, quality)
        transition = watch.judge.judge(time_ns, value, certain=quality == Quality.GOOD)
        alarms = []
        if transition is not None:
            alarms = [self._channel_alarm(watch, transition)]
            alarms += self._item_and_pond(watch.table, time_ns)
        elif watch.blind and watch.judge.level:
            alarms = [self._seen_again(watch, time_ns, value)]
        watch.blind = False
        return [alarm for alarm in alarms if alarm is not None]

    def _blinded(self, watch: _Watch, time_ns: int, quality: Quality) -> list[Alarm]:
        """A level whose channel can no longer be seen stays, and is said to be unknown."""
        watch.blind = True
        if not watch.judge.level:
            return []
        table = watch.table
        seen = Observation(
            level=LEVELS[watch.judge.level],
            condition="unknown",
            time_ns=time_ns,
            reason=reasons.level_unknown(watch.point, table.item, quality),
        )
        alarm = self._book.observe(_channel_subject(table), seen)
        return [alarm] if alarm else []

    def _channel_alarm(self, watch: _Watch, moved: Transition) -> Alarm | None:
        table = watch.table
        if moved.level == Level.NONE:
            reason = reasons.level_gone(watch.point, table.item, moved.value, table.unit)
        else:
            reason = reasons.level_present(
                watch.point, table.item, moved.level.text, moved.value, moved.limit, table.unit
            )
        assert table.levels is not None
        seen = Observation(
            level=LEVELS[moved.level],
            condition="present" if moved.level else "gone",
            time_ns=moved.time_ns,
            reason=reason,
            value=moved.value,
            limit=moved.limit,
            evidence={"unverified": moved.unverified, "source": table.levels.source},
        )
        return self._book.observe(_channel_subject(table), seen)

    def _seen_again(self, watch: _Watch, time_ns: int, value: float) -> Alarm | None:
        table, level = watch.table, watch.judge.level
        assert table.levels is not None
        limit = table.levels.limit(level) or nan
        reason = reasons.level_present(watch.point, table.item, level.text, value, limit, table.unit)
        seen = Observation(LEVELS[level], "present", time_ns, reason, value, limit)
        return self._book.observe(_channel_subject(table), seen)

    # -- the roll-up ---------------------------------------------------------------------------------

    def _roll_up(self, pond: str) -> tuple[RolledUp, Sequence[RolledUp]]:
        """The levels of the pond and its items anew."""
        channels = [
            ChannelLevel(watch.table.item, watch.point, watch.judge.level, known=not watch.blind)
            for watch in self._watches.values()
            if watch.table.pond == pond and watch.table.item not in NOT_ROLLED_UP
        ]
        rolled = roll_up(pond, channels, self._counts[pond])
        self.ponds[pond] = rolled.pond.level
        self.items |= {(pond, item.name): item.level for item in rolled.items}
        return rolled.pond, rolled.items

    def _item_and_pond(self, table: ChannelTable, time_ns: int) -> list[Alarm | None]:
        if table.item in NOT_ROLLED_UP:
            return []
        pond, items = self._roll_up(table.pond)
        item = next(each for each in items if each.name == table.item)
        return [self._item_alarm(table.pond, item, time_ns), self._pond_alarm(pond, items, time_ns)]

    def _item_alarm(self, pond: str, item: RolledUp, time_ns: int) -> Alarm | None:
        if item.level:
            reason = reasons.item_present(pond, item.name, item.level.text, self._points(pond, item.name))
        else:
            reason = reasons.item_gone(pond, item.name)
        subject = Subject("item", f"{pond}.{item.name}", pond=pond, item=item.name)
        return self._book.observe(subject, _rolled(item, time_ns, reason))

    def _pond_alarm(self, pond: RolledUp, items: Sequence[RolledUp], time_ns: int) -> Alarm | None:
        levels = {item.name: item.level.text for item in items}
        reason = (
            reasons.pond_present(pond.name, pond.level.text, levels)
            if pond.level
            else reasons.pond_gone(pond.name)
        )
        return self._book.observe(Subject("pond", pond.name, pond=pond.name), _rolled(pond, time_ns, reason))

    def _points(self, pond: str, item: str) -> Mapping[str, int]:
        """How many monitoring points of an item stand at each level, worst first."""
        points: dict[str, Level] = {}
        for watch in self._watches.values():
            if (watch.table.pond, watch.table.item) == (pond, item):
                points[watch.point] = max(points.get(watch.point, Level.NONE), watch.judge.level)
        return {each.text: list(points.values()).count(each) for each in sorted(Level, reverse=True) if each}


def _rolled(rolled: RolledUp, time_ns: int, reason: reasons.Reason) -> Observation:
    evidence = {"because": rolled.because, "counted": rolled.counted, "unknown": rolled.unknown}
    return Observation(
        LEVELS[rolled.level], "present" if rolled.level else "gone", time_ns, reason, evidence=evidence
    )


def _channel_subject(table: ChannelTable) -> Subject:
    return Subject(
        "channel",
        table.id,
        pond=table.pond,
        section=table.section or None,
        item=table.item,
        monitoring_point=table.monitoring_point or None,
        channel=table.id,
    )
