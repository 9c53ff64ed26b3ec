"""The guard room: what an alarm sets going once it is raised, and what people do about it.

Sirens and lamps follow the alarms of their pond; people are called, one after the other; drills, mutes and
maintenance end when they should; red is closed by whom the site file names. Outputs come first, before any
disk, call or record.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon import reasons
from daemon.alarms import LEVELS, NotAllowed, Observation, Subject
from daemon.audit import OURSELVES
from daemon.duty import CALLS, standing
from daemon.judge import STATE as LEVEL
from daemon.modes import STATE as MODES
from daemon.modes import Drill, Maintenance
from daemon.public_siren import STATE as SIRENS
from daemon.reading import parse_rfc3339, rfc3339
from daemon.subjects import Subjects
from daemon.water import STATE as RAIN
from drivers.sample import Quality
from edge_rules.law.levels import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from daemon.alarms import Alarm, AlarmBook, Deed
    from daemon.audit import Audit
    from daemon.channels import Group
    from daemon.clock import Clock
    from daemon.config import Site
    from daemon.duty import Called, Calls, Roster
    from daemon.judge import Judge
    from daemon.modes import Mode, Modes
    from daemon.outputs import Output
    from daemon.public_siren import Order, PublicSirens
    from daemon.reading import ReadingFrame
    from daemon.remeasure import Remeasure
    from daemon.stations import Stations
    from daemon.water import Water

log = logging.getLogger(__name__)

MOST_CALLS = 20  # calls that an alarm keeps as evidence, the latest
_DAM = frozenset({"channel", "item", "pond"})  # kinds of alarm that ring; a drill rings beside them


@dataclass(frozen=True, slots=True)
class Room:
    """What raises alarms, and who answers them: one of each for the whole core.

    Attributes:
        book: the alarms.
        judge: levels, and what red is held.
        water: rain and dated limits.
        modes: drills, mutes, maintenance.
        stations: devices that are silent.
        roster: who is on duty.
        calls: who was called.
        sirens: public sirens that the authority has sound.
    """

    book: AlarmBook
    judge: Judge
    water: Water
    modes: Modes
    stations: Stations
    roster: Roster
    calls: Calls
    sirens: PublicSirens

    def states(self) -> dict[str, Callable[[], object]]:
        """What must outlive a restart, beside the alarms themselves."""
        mine = {**self.judge.states(), **self.water.states(), **self.modes.states()}
        return mine | {CALLS: self.calls.state, SIRENS: self.sirens.state}

    def restore(self, name: str, state: Any) -> bool:
        """Hand a stored state to whose it is; False if it is nobody's here."""
        if name.startswith(LEVEL):
            self.judge.restore(name, state)
        elif name.startswith(RAIN):
            self.water.restore(name, state)
        elif name == MODES:
            self.modes.restore(state)
        elif name == CALLS:
            self.calls.restore(state)
        elif name == SIRENS:
            self.sirens.restore(state)
        else:
            return False
        return True


class Guard:
    """Made before the outputs, which `drive` hands in.

    Args:
        site: the red-closing roles, the key switch; in shadow no output moves and nobody is called.
        clock: stamps.
        room: the alarms and all around them.
        audit: what people do is written down there.
    """

    def __init__(self, site: Site, clock: Clock, room: Room, audit: Audit) -> None:
        self._clock = clock
        self._book = room.book
        self._judge = room.judge
        self._water = room.water
        self._modes = room.modes
        self._stations = room.stations
        self._roster = room.roster
        self._calls = room.calls
        self._sirens = room.sirens
        self._audit = audit
        self._subjects = Subjects(site)
        self._shadow = site.site.shadow
        self._red_closed_by = site.alarms.red_closed_by
        self._key_switch = site.alarms.key_switch
        self._key_was_on: bool | None = None
        self._outputs: list[Output] = []
        self._is_well: Callable[[], bool] = lambda: True
        self._remeasure: Remeasure | None = None

    def drive(
        self, outputs: Iterable[Output], is_well: Callable[[], bool], remeasure: Remeasure | None = None
    ) -> None:
        """Have these outputs follow, a watchdog relay as long as `is_well`; red asks `remeasure`."""
        self._outputs = list(outputs)
        self._is_well = is_well
        self._remeasure = remeasure
        self._switch()

    # -- outputs -------------------------------------------------------------------------------------

    def ring(self, raised: Sequence[Alarm]) -> list[Alarm]:
        """Readings raised or changed these: end a drill that a real alarm overrides, switch the outputs."""
        ended = []
        if self._modes.drill is not None and any(_is_real(alarm) for alarm in raised):
            ended = self.end(self._modes.end_drill(), "overridden")
        self._switch()
        if self._remeasure is not None:  # after the outputs: they take their turn on a line first
            for alarm in raised:
                self._remeasure.ask(alarm)
        return ended

    def _switch(self) -> None:
        alarms: list[Alarm] | None = None
        for output in self._outputs:
            table = output.table
            if self._shadow:
                output.want(False)  # noqa: FBT003 -- off
            elif table.kind == "watchdog":
                output.want(self._is_well())
            elif table.kind == "public":
                output.want(self._sirens.is_on(table.id))
            else:
                alarms = self._book.open() if alarms is None else alarms
                at = Level[table.at.upper()]
                wanted = (
                    self._level(table.pond) >= at
                    if table.until == "gone"
                    else self._rings(table.pond, at, table.after_calls, alarms)
                )
                output.want(wanted)

    def _level(self, pond: str) -> Level:
        """What a pond stands at, a drill included."""
        drill = self._modes.drill
        rehearsed = Level(LEVELS.index(drill.level)) if drill and drill.pond == pond else Level.NONE
        return max(self._judge.ponds[pond], rehearsed)

    def _rings(self, pond: str, at: Level, after_calls: int, alarms: Iterable[Alarm]) -> bool:
        """Whether somebody has still to acknowledge an alarm of that level, and was called often enough."""
        if self._modes.is_muted(pond):
            return False
        return any(
            alarm.pond == pond
            and alarm.response == "new"
            and (alarm.kind in _DAM or alarm.rule == "drill")
            and standing(alarm) >= at
            and self._calls.step(alarm.id) >= after_calls
            for alarm in alarms
        )

    # -- calls ---------------------------------------------------------------------------------------

    def called(self, changed: Sequence[Alarm]) -> list[Alarm]:
        """The changed alarms with whom they call, and others that call now."""
        if self._shadow:
            return list(changed)
        with_calls = {alarm.id: alarm for alarm in changed}
        now_ns = self._clock.wall_ns()
        late = [alarm.id for alarm in self._book.overdue(now_ns)]
        for call in self._calls.look(self._book.open(), late, now_ns):
            with_calls[call.alarm] = self._attached(call, now_ns)
        return list(with_calls.values())

    def _attached(self, call: Called, now_ns: int) -> Alarm:
        alarm = self._book.find(call.alarm)
        if not call.person and call.why == "raised":
            return alarm
        log.warning("%s: %s calls %s %s", call.alarm, call.why, call.role, call.person or "nobody")
        before = alarm.evidence.get("called", ())
        assert isinstance(before, list | tuple)
        told = {"person": call.person, "role": call.role, "why": call.why, "time": rfc3339(now_ns)}
        return self._book.attach(call.alarm, {"called": [*before, told][-MOST_CALLS:]})

    # -- now and then --------------------------------------------------------------------------------

    def look(self) -> list[Alarm]:
        """Every second: what ends by itself, what is due, who is called; the alarms that change."""
        now_ns = self._clock.wall_ns()
        levels = {pond: int(self._level(pond)) for pond in self._judge.ponds}
        changed = [a for order in self._modes.expire(now_ns, levels) for a in self.end(order, "ended")]
        changed += [
            a for siren in self._sirens.expire(now_ns) for a in self._silenced(siren, "ended", OURSELVES)
        ]
        changed += self._water.look(now_ns) + self._stations.look(now_ns, self._modes.maintained)
        self._switch()
        return changed

    def end(self, order: Mode, why: str, by: str = OURSELVES, uid: int | None = None) -> list[Alarm]:
        """Write down that a mode has ended (`ended`, or a drill `overridden`); the alarms that change."""
        self._switch()
        name = type(order).__name__.lower()
        subject = order.target if isinstance(order, Maintenance) else order.pond
        self._audit.record(
            f"{name}.end", by=by, uid=uid, subject=subject, before=order, why=why, states=(MODES,)
        )
        if not isinstance(order, Drill):
            return []
        reason = reasons.drill_over(order.pond, why)
        seen = Observation("none", "gone", self._clock.wall_ns(), reason, evidence={"drill": True})
        alarm = self._book.observe(_drill_subject(order.pond), seen)
        return [alarm] if alarm else []

    # -- public sirens -------------------------------------------------------------------------------

    def sound(self, output: str, *, key: str, by: str, seconds: float, why: str | None) -> list[Alarm]:
        """Have a public siren sound by the authority's signed request; the alarms that change.

        Raises:
            NotAllowed: see `PublicSirens.sound`.
        """
        now_ns = self._clock.wall_ns()
        order = self._sirens.sound(output, key=key, by=by, seconds=seconds, now_ns=now_ns)
        self._switch()
        log.warning("public siren %s sounds for %g s: %s, key %s", output, seconds, by, key)
        self._audit.record("siren", by=by, subject=output, after=order, why=why, states=(SIRENS,), key=key)
        reason = reasons.siren_sounds(output, by, rfc3339(order.until_ns))
        seen = Observation("none", "present", now_ns, reason, evidence={"by": by, "key": key})
        alarm = self._book.observe(self._siren_subject(output), seen)
        return [alarm] if alarm else []

    def silence(self, output: str, *, key: str, by: str, why: str | None) -> list[Alarm]:
        """The contrary.

        Raises:
            NotAllowed: see `PublicSirens.silence`.
        """
        return self._silenced(self._sirens.silence(output, key=key), why or "ended", by)

    def _silenced(self, order: Order, why: str, by: str) -> list[Alarm]:
        self._switch()
        self._audit.record("siren.end", by=by, subject=order.output, before=order, why=why, states=(SIRENS,))
        seen = Observation("none", "gone", self._clock.wall_ns(), reasons.siren_silent(order.output))
        alarm = self._book.observe(self._siren_subject(order.output), seen)
        return [alarm] if alarm else []

    def _siren_subject(self, output: str) -> Subject:
        return Subject("system", f"siren.{output}", pond=self._sirens.pond(output), rule="public-siren")

    def attach(self, alarm_id: str, measured: Sequence[Mapping[str, Any]]) -> list[Alarm]:
        """What was measured again around a red channel; nothing if somebody has closed it meanwhile."""
        try:
            return [self._book.attach(alarm_id, {"remeasured": measured})]
        except NotAllowed:
            return []

    # -- people --------------------------------------------------------------------------------------

    def respond(
        self, alarm_id: str, deed: Deed, *, by: str, role: str | None, note: str | None
    ) -> list[Alarm]:
        """Do what somebody does about an alarm; the alarms that change, that one last.

        Closing a red channel lets go of it, if the role may and it was measured again; it closes the alarm if
        nothing is left of it, and lowers it otherwise. What the site file has no more can be closed though
        nobody saw it go; red by the same role.

        Raises:
            NotAllowed: see `AlarmBook.respond`; or red, and not by whom the site file names.
        """
        now_ns = self._clock.wall_ns()
        alarm = self._book.find(alarm_id)
        changed: list[Alarm] = []
        channel = alarm.channel if alarm.kind == "channel" else None
        if deed == "close" and alarm.response == "handled" and channel and self._judge.is_latched(channel):
            self._may_close_red(by, role)
            changed = self._judge.release(channel, now_ns, handled_ns=parse_rfc3339(alarm.time))
            lowered = self._book.find(alarm_id)
            if lowered.condition != "gone":
                return [*(each for each in changed if each.id != alarm_id), lowered]
        absent = not self._subjects.has(alarm)
        if deed == "close" and absent and alarm.level == "red":
            self._may_close_red(by, role)
        done = self._book.respond(alarm_id, deed, by=by, role=role, note=note, time_ns=now_ns, absent=absent)
        self._switch()
        return [*(each for each in changed if each.id != alarm_id), done]

    def acknowledge_all(
        self, pond: str | None, *, by: str, role: str | None, note: str | None
    ) -> list[Alarm]:
        """Acknowledge everything that is new, of one pond or of all."""
        now_ns = self._clock.wall_ns()
        new = [a for a in self._book.open() if a.response == "new" and pond in (None, a.pond)]
        done = [
            self._book.respond(a.id, "acknowledge", by=by, role=role, note=note, time_ns=now_ns) for a in new
        ]
        self._switch()
        return done

    def turned(self, group: Group, frame: ReadingFrame) -> list[Alarm]:
        """Look for the key switch among the readings; turning it acknowledges."""
        if not self._key_switch or self._key_switch not in group.channels:
            return []
        at = group.channels.index(self._key_switch)
        if frame.qualities[at] != Quality.GOOD:
            return []
        was_on, self._key_was_on = self._key_was_on, frame.values[at] > 0
        if was_on is not False or not self._key_was_on:
            return []
        done = self.acknowledge_all(None, by="key switch", role=None, note=None)
        self._audit.record(
            "alarm.acknowledge", by="key switch", subject=self._key_switch, after=[alarm.id for alarm in done]
        )
        return done

    def _may_close_red(self, by: str, role: str | None) -> None:
        """Raises NotAllowed: red is closed by others."""
        person = self._roster.person(by)
        if not self._roster.is_empty:
            role = person.role if person else None
        if role not in self._red_closed_by:
            roles = " or ".join(self._red_closed_by)
            raise NotAllowed(f"red is closed by a {roles}; {by} is {role or 'none that the site file names'}")

    def rehearse(self, drill: Drill) -> list[Alarm]:
        """A drill has begun: its alarm, which rings and calls as a real one would."""
        reason = reasons.drill(drill.pond, drill.level, drill.by)
        seen = Observation(drill.level, "present", drill.began_ns, reason, evidence={"drill": True})
        alarm = self._book.observe(_drill_subject(drill.pond), seen)
        self._switch()
        return [alarm] if alarm else []

    def ringing(self, pond: str) -> str:
        """The highest level of a pond that nobody has acknowledged, as alarms write it."""
        levels = [
            standing(alarm)
            for alarm in self._book.open()
            if alarm.pond == pond
            and alarm.response == "new"
            and (alarm.kind in _DAM or alarm.rule == "drill")
        ]
        return LEVELS[max(levels, default=0)]


def _is_real(alarm: Alarm) -> bool:
    return alarm.kind in _DAM and alarm.response == "new" and alarm.level != "none"


def _drill_subject(pond: str) -> Subject:
    return Subject("system", f"{pond}.drill", pond=pond, rule="drill")
