"""Readings against the designer's levels: transitions, the roll-up to item and pond, the alarms they raise.

Nearly every reading is calm: good, and inside the band in which no level can change. One comparison
tells, and only what fails it is looked at. Rules and detectors have no say in here.

A good value raises and clears. An uncertain one raises, marked unverified, and never clears. A value that is
no evidence (GNSS float, maintenance), or missing, does neither: a level whose channel cannot be seen stays
and is said to be unknown, until the channel is seen again or a named person's reading by hand stands for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemon import reasons
from daemon.alarms import LEVELS, NotAllowed, Observation, Subject
from daemon.rolled import RolledUpLevels, Watch
from drivers.sample import NO_EVIDENCE, Quality
from edge_rules.law.levels import ChannelJudge, Level
from edge_rules.law.water import in_force

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import date

    from daemon.alarms import Alarm, AlarmBook
    from daemon.channels import Group
    from daemon.config import ChannelTable, Site
    from daemon.reading import ReadingFrame
    from edge_rules.law.levels import Levels, Transition
    from edge_rules.law.water import OperatingLimit

_BAD = int(Quality.NO_REPLY)
STATE = "level:"  # prefix of a channel's judge among the stored states


class Judge:
    """Levels of every armed channel, item and pond.

    Args:
        site: channels and ponds.
        groups: the compiled groups, whose order of channels the readings follow.
        book: where alarms are kept.
        today: the local day, by which dated limits are chosen.
    """

    def __init__(
        self, site: Site, groups: Sequence[Group], book: AlarmBook, today: date | None = None
    ) -> None:
        self._book = book
        self._red_closed_by = " / ".join(site.alarms.red_closed_by)
        self._dated = {pond.id: pond.limits for pond in site.ponds if pond.limits}
        self._watches: dict[str, Watch] = {}
        for table in site.channels:
            levels = _levels(table, self._dated, today)
            if levels is not None:
                self._watches[table.id] = Watch(table, levels, ChannelJudge(levels))
        self._by_group: dict[int, list[tuple[int, ChannelJudge, Watch]]] = {
            id(group): [
                (at, self._watches[channel].judge, self._watches[channel])
                for at, channel in enumerate(group.channels)
                if channel in self._watches
            ]
            for group in groups
        }
        self._rolled = RolledUpLevels(site, book, list(self._watches.values()))
        self.items, self.ponds = self._rolled.items, self._rolled.ponds
        self._moved: set[str] = set()

    def take(self, group: Group, frame: ReadingFrame) -> list[Alarm]:
        """Judge the readings of one tick; returns the alarms that are new or changed."""
        alarms: list[Alarm] = []
        values, qualities = frame.values, frame.qualities
        for at, judge, watch in self._by_group[id(group)]:
            if not qualities[at] and judge.calm_low <= values[at] <= judge.calm_high:
                if watch.look:
                    alarms += self._seen(watch, frame.time_ns, values[at])
                continue
            if watch.dead and qualities[at] >= _BAD:  # and has been told
                continue
            alarms += self._look(watch, frame.time_ns, values[at], Quality(qualities[at]))
        return alarms

    def level(self, channel: str) -> Level:
        """The level at which a channel stands; NONE where it is not armed."""
        watch = self._watches.get(channel)
        return watch.judge.level if watch else Level.NONE

    def limits(self, channel: str) -> Levels | None:
        """The limits in force for a channel; None where it is not armed."""
        watch = self._watches.get(channel)
        return watch.levels if watch else None

    @property
    def armed(self) -> Iterable[str]:
        return self._watches

    def blind_sections(self, pond: str) -> list[str]:
        """Sections of the pond of which fewer monitoring points can be seen than they need."""
        return self._rolled.blind_sections(pond)

    # -- state that must outlive a restart -----------------------------------------------------------

    def states(self) -> Mapping[str, Callable[[], object]]:
        return {STATE + name: watch.judge.state for name, watch in self._watches.items()}

    def moved(self) -> set[str]:
        """The names of the states that moved since the last call."""
        moved, self._moved = self._moved, set()
        return moved

    def restore(self, name: str, state: Sequence[Any]) -> None:
        """Take back a channel's level and hold; one that is no longer armed is passed over."""
        watch = self._watches.get(name.removeprefix(STATE))
        if watch is not None:
            watch.judge.restore(state)
            watch.look = bool(watch.judge.level)  # the first reading will show whether it still holds
            watch.known = not watch.look
            self._rolled.roll_up(watch.table.pond)

    # -- what people do ------------------------------------------------------------------------------

    def by_hand(self, channel: str, time_ns: int, value: float, by: str) -> list[Alarm]:
        """Take a named person's reading: it stands for a channel that cannot be seen, or raises it higher.

        It lowers nothing that a living sensor says, and never releases red, but for a channel that cannot be
        seen it is the re-measurement that closing red asks for.
        """
        watch = self._watches.get(channel)
        if watch is None or not (watch.dead or watch.judge.level_of(value) > watch.judge.level):
            return []
        self._moved.add(STATE + channel)
        transition = watch.judge.set_to(time_ns, value)
        was_known, watch.known, watch.value = watch.known, True, value
        told: list[Alarm | None] = []
        if transition is not None:
            told.append(self._channel_alarm(watch, transition, by_hand=by))
        elif not was_known and watch.judge.level:
            told.append(self._seen_again(watch, time_ns, value))
        told += self._rolled.observe(watch.table, time_ns)
        return [alarm for alarm in told if alarm is not None]

    def is_latched(self, channel: str) -> bool:
        watch = self._watches.get(channel)
        return watch is not None and watch.judge.latched

    def release(self, channel: str, time_ns: int, *, handled_ns: int) -> list[Alarm]:
        """Let go of a channel's red; the alarms that change.

        Raises:
            NotAllowed: red is measured still, or nothing certain was measured since `handled_ns`.
        """
        watch = self._watches[channel]
        judge = watch.judge
        if judge.measured == Level.RED:
            raise NotAllowed(f"{channel} is still red: it cannot be closed")
        if judge.certain_ns <= handled_ns:
            raise NotAllowed(
                f"{channel} was not measured since it was handled: read it again, or enter a reading by hand"
            )
        transition = judge.release(time_ns, watch.value)
        assert transition is not None, "latched, and measured below red"
        self._moved.add(STATE + channel)
        told = [self._channel_alarm(watch, transition), *self._rolled.observe(watch.table, time_ns)]
        return [alarm for alarm in told if alarm is not None]

    # -- limits that are dated -----------------------------------------------------------------------

    def renew(self, today: date) -> None:
        """Arm what is judged by dated limits with those of the day; levels held stay until measured away."""
        for watch in self._watches.values():
            levels = _levels(watch.table, self._dated, today)
            if levels is not None and levels != watch.levels:
                watch.levels = levels
                watch.judge.arm(levels)
                self._moved.add(STATE + watch.table.id)

    # -- beyond the calm band ------------------------------------------------------------------------

    def _look(self, watch: Watch, time_ns: int, value: float, quality: Quality) -> list[Alarm]:
        if quality.is_bad or quality in NO_EVIDENCE:
            return self._blinded(watch, time_ns, quality)
        self._moved.add(STATE + watch.table.id)
        measured, watch.value = watch.judge.measured, value
        transition = watch.judge.judge(time_ns, value, certain=quality == Quality.GOOD)
        alarms: list[Alarm | None] = []
        if transition is not None:
            alarms = [self._channel_alarm(watch, transition), *self._rolled.observe(watch.table, time_ns)]
        elif not watch.known and watch.judge.level:
            alarms = [self._seen_again(watch, time_ns, value)]
        elif watch.judge.measured < measured == Level.RED:
            alarms = [self._held(watch, value)]
        alarms.append(self._no_longer_dead(watch, time_ns))
        return [alarm for alarm in alarms if alarm is not None]

    def _seen(self, watch: Watch, time_ns: int, value: float) -> list[Alarm]:
        """A calm value after one that was missing, or after a restart: what is held is known again."""
        watch.value = value
        told = [self._seen_again(watch, time_ns, value)] if watch.judge.level and not watch.known else []
        told.append(self._no_longer_dead(watch, time_ns))
        return [alarm for alarm in told if alarm is not None]

    def _no_longer_dead(self, watch: Watch, time_ns: int) -> Alarm | None:
        watch.look, watch.known = False, True
        if not watch.dead:
            return None
        watch.dead = False
        return self._rolled.observe_section(watch, time_ns)

    def _blinded(self, watch: Watch, time_ns: int, quality: Quality) -> list[Alarm]:
        """A level whose channel can no longer be seen stays, and is said to be unknown."""
        if watch.dead:
            return []
        watch.look = watch.dead = True
        watch.known = False
        table = watch.table
        alarms: list[Alarm | None] = [self._rolled.observe_section(watch, time_ns)]
        if watch.judge.level:
            seen = Observation(
                level=LEVELS[watch.judge.level],
                condition="unknown",
                time_ns=time_ns,
                reason=reasons.level_unknown(watch.point, table.item, quality),
            )
            alarms.insert(0, self._book.observe(_channel_subject(table), seen))
        return [alarm for alarm in alarms if alarm is not None]

    def _channel_alarm(self, watch: Watch, moved: Transition, by_hand: str = "") -> Alarm | None:
        table = watch.table
        if moved.level == Level.NONE:
            reason = (
                reasons.manual_gone(watch.point, table.item, moved.value, table.unit, by_hand)
                if by_hand
                else reasons.level_gone(watch.point, table.item, moved.value, table.unit)
            )
        else:
            reason = reasons.level_present(
                watch.point,
                table.item,
                moved.level.text,
                moved.value,
                moved.limit,
                table.unit,
                unverified=moved.unverified,
            )
        evidence: dict[str, object] = {
            "unverified": moved.unverified,
            "source": watch.levels.source,
            "approver": watch.levels.approver,
        }
        if table.uncertainty is not None:
            evidence["uncertainty"] = table.uncertainty
        if by_hand:
            evidence["by_hand"] = by_hand
        seen = Observation(
            level=LEVELS[moved.level],
            condition="present" if moved.level else "gone",
            time_ns=moved.time_ns,
            reason=reason,
            value=moved.value,
            limit=moved.limit,
            evidence=evidence,
        )
        return self._book.observe(_channel_subject(table), seen)

    def _seen_again(self, watch: Watch, time_ns: int, value: float) -> Alarm | None:
        table, level = watch.table, watch.judge.level
        limit = watch.judge.limit(level)
        if watch.judge.latched and watch.judge.measured < Level.RED:
            reason = reasons.red_latched(watch.point, table.item, value, table.unit, self._red_closed_by)
        else:
            reason = reasons.level_present(watch.point, table.item, level.text, value, limit, table.unit)
        seen = Observation(LEVELS[level], "present", time_ns, reason, value, limit)
        return self._book.observe(_channel_subject(table), seen)

    def _held(self, watch: Watch, value: float) -> Alarm | None:
        """Red is no longer measured, and stays: the alarm says what it waits for."""
        table = watch.table
        alarm = self._book.of(_channel_subject(table))
        if alarm is None:
            return None
        reason = reasons.red_latched(watch.point, table.item, value, table.unit, self._red_closed_by)
        latched = {"measured": LEVELS[watch.judge.measured], "value": value}
        return self._book.attach(alarm.id, {"latched": latched}, reason)


def _levels(
    table: ChannelTable, dated: Mapping[str, Sequence[OperatingLimit]], today: date | None
) -> Levels | None:
    """What a channel is judged by: its own levels, or of a pond's level what holds on the day."""
    if table.levels is not None or table.item != "pond-level" or table.pond not in dated or today is None:
        return table.levels
    return in_force(dated[table.pond], today).limit.levels


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
