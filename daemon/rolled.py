"""From armed channels to items, ponds and sections: their levels, what is seen of them, their alarms."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

from daemon import reasons
from daemon.alarms import LEVELS, Observation, Subject
from edge_rules.law.levels import Level
from edge_rules.law.rollup import ChannelLevel, Counts, roll_up

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.alarms import Alarm, AlarmBook
    from daemon.config import ChannelTable, Site
    from edge_rules.law.levels import ChannelJudge, Levels
    from edge_rules.law.rollup import RolledUp

NOT_ROLLED_UP = frozenset({"weather", "health"})  # no monitoring items of GB 39496-2020 5.5.2


@dataclass(slots=True, eq=False)
class Watch:
    """An armed channel: its judge, and whether its present level can be seen at the moment."""

    table: ChannelTable
    levels: Levels
    judge: ChannelJudge
    known: bool = True  # a value stands behind the level held
    dead: bool = False  # the last reading was missing, or no evidence
    look: bool = False  # the next reading is looked at, however calm
    value: float = nan  # the last that was looked at

    @property
    def point(self) -> str:
        return self.table.monitoring_point or self.table.id


class RolledUpLevels:
    """Levels of items and ponds, GB 39496-2020 5.5.4, and which sections are blind.

    Args:
        site: ponds with their counts, sections with what they need.
        book: where alarms are kept.
        watches: every armed channel.
    """

    def __init__(self, site: Site, book: AlarmBook, watches: Sequence[Watch]) -> None:
        self._book = book
        # A reading looks at its own pond, item or section alone, however many there are.
        self._of_pond: dict[str, list[Watch]] = {pond.id: [] for pond in site.ponds}
        self._of_item: dict[tuple[str, str], list[Watch]] = {}
        self._of_section: dict[tuple[str, str], list[Watch]] = {}
        for watch in watches:
            table = watch.table
            if table.item not in NOT_ROLLED_UP:
                self._of_pond[table.pond].append(watch)
                self._of_item.setdefault((table.pond, table.item), []).append(watch)
                self._of_section.setdefault((table.pond, table.section), []).append(watch)
        self._counts = {
            pond.id: Counts(
                pond.rollup.blue_to_yellow, pond.rollup.yellow_to_orange, pond.rollup.orange_to_red
            )
            for pond in site.ponds
        }
        self._needed = {(section.pond, section.id): section.live_at_least for section in site.sections}
        self.items: dict[tuple[str, str], Level] = {}
        self.ponds: dict[str, Level] = {}
        for pond in self._counts:
            self.roll_up(pond)

    def roll_up(self, pond: str) -> tuple[RolledUp, Sequence[RolledUp]]:
        """The levels of the pond and its items anew."""
        channels = [
            ChannelLevel(watch.table.item, watch.point, watch.judge.level, known=watch.known)
            for watch in self._of_pond[pond]
        ]
        rolled = roll_up(pond, channels, self._counts[pond])
        self.ponds[pond] = rolled.pond.level
        self.items |= {(pond, item.name): item.level for item in rolled.items}
        return rolled.pond, rolled.items

    def observe(self, table: ChannelTable, time_ns: int) -> list[Alarm | None]:
        if table.item in NOT_ROLLED_UP:
            return []
        pond, items = self.roll_up(table.pond)
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
        for watch in self._of_item[pond, item]:
            points[watch.point] = max(points.get(watch.point, Level.NONE), watch.judge.level)
        return {each.text: list(points.values()).count(each) for each in sorted(Level, reverse=True) if each}

    # -- sections ------------------------------------------------------------------------------------

    def _live(self, pond: str, section: str) -> tuple[int, int] | None:
        """How many of a section's armed monitoring points can be seen, and how many are needed."""
        needed = self._needed.get((pond, section))
        if needed is None:  # of each reading of a channel without a section
            return None
        points: dict[tuple[str, str], bool] = {}
        for watch in self._of_section.get((pond, section), ()):
            key = (watch.table.item, watch.point)
            points[key] = points.get(key, False) or not watch.dead
        return (sum(points.values()), needed) if points else None

    def observe_section(self, watch: Watch, time_ns: int) -> Alarm | None:
        """A section that went blind raises urgency, never a colour."""
        table = watch.table
        live = self._live(table.pond, table.section)
        if live is None or table.item in NOT_ROLLED_UP:
            return None
        subject = Subject(
            "advice",
            f"{table.pond}.{table.section}.blind",
            pond=table.pond,
            section=table.section,
            rule="blind-section",
        )
        if live[0] < live[1]:
            evidence = {"urgency": "inspect today", "live": live[0], "needed": live[1]}
            reason = reasons.section_blind(table.section, *live)
            return self._book.observe(
                subject, Observation("none", "present", time_ns, reason, evidence=evidence)
            )
        return self._book.observe(
            subject, Observation("none", "gone", time_ns, reasons.section_seen(table.section))
        )

    def blind_sections(self, pond: str) -> list[str]:
        """Sections of the pond of which fewer monitoring points can be seen than they need."""
        counts = {section: self._live(pond, section) for p, section in self._needed if p == pond}
        return [section for section, live in counts.items() if live is not None and live[0] < live[1]]


def _rolled(rolled: RolledUp, time_ns: int, reason: reasons.Reason) -> Observation:
    evidence = {"because": rolled.because, "counted": rolled.counted, "unknown": rolled.unknown}
    return Observation(
        LEVELS[rolled.level], "present" if rolled.level else "gone", time_ns, reason, evidence=evidence
    )
