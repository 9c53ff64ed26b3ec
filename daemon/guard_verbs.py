"""What people on duty can ask of a running core: modes, hand-over, readings by hand, patrols."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from daemon import requests
from daemon.alarms import Alarm, NotAllowed
from daemon.binder import duration_s
from daemon.control import Refused
from daemon.modes import STATE as MODES
from daemon.modes import Drill, Maintenance, Mute
from daemon.reading import parse_rfc3339
from daemon.water import Warned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.audit import Audit
    from daemon.clock import Clock
    from daemon.control import Caller, Verb
    from daemon.guard import Guard, Room
    from daemon.manual import Compared, Manual
    from daemon.modes import Mode
    from daemon.pipeline import Pipeline


class LeftOver(msgspec.Struct, frozen=True):
    """What one shift leaves to the next."""

    open: list[Alarm]
    overdue: list[str]
    maintenance: list[Maintenance]
    drill: Drill | None
    muted: list[Mute]
    missing: list[str]


class GuardVerbs:
    """One method for each verb; all answer from the event loop's one thread."""

    def __init__(
        self,
        clock: Clock,
        room: Room,
        guard: Guard,
        manual: Manual,
        pipeline: Pipeline,
        audit: Audit,
    ) -> None:
        self._clock = clock
        self._guard = guard
        self._manual = manual
        self._modes = room.modes
        self._water = room.water
        self._book = room.book
        self._stations = room.stations
        self._roster = room.roster
        self._water = room.water
        self._pipeline = pipeline
        self._audit = audit

    def table(self) -> Mapping[type[requests.Request], Verb]:
        return {
            requests.AlarmsAckAll: self._ack_all,
            requests.Handover: self._left,
            requests.HandoverSign: self._hand_over,
            requests.ModesList: self._list,
            requests.Maintain: self._maintain,
            requests.MaintainEnd: self._maintain_end,
            requests.Rehearse: self._drill,
            requests.RehearseEnd: self._drill_end,
            requests.MuteSound: self._mute,
            requests.MuteEnd: self._mute_end,
            requests.ManualReading: self._reading,
            requests.ManualPatrol: self._patrol,
            requests.StormWarning: self._warning,
        }

    # -- alarms --------------------------------------------------------------------------------------

    async def _ack_all(self, request: requests.AlarmsAckAll, caller: Caller) -> list[Alarm]:
        done = self._guard.acknowledge_all(request.pond, by=request.by, role=request.role, note=request.note)
        self._pipeline.announce(done)
        self._audit.record(
            "alarm.acknowledge",
            by=request.by,
            uid=caller.uid,
            subject=request.pond,
            after=[alarm.id for alarm in done],
            why=request.note,
            role=request.role,
        )
        return done

    async def _left(self, request: requests.Handover, caller: Caller) -> LeftOver:
        del request, caller
        orders = self._modes.open()
        return LeftOver(
            open=self._book.open(),
            overdue=[alarm.id for alarm in self._book.overdue(self._clock.wall_ns())],
            maintenance=[order for order in orders if isinstance(order, Maintenance)],
            drill=self._modes.drill,
            muted=[order for order in orders if isinstance(order, Mute)],
            missing=self._stations.missing(),
        )

    async def _hand_over(self, request: requests.HandoverSign, caller: Caller) -> LeftOver:
        """Both names stand under the same list, which the record fixes by its hash."""
        names = (request.by.strip(), request.to.strip())
        if not all(names) or names[0] == names[1]:
            raise NotAllowed("a hand-over needs two names: who hands over, and who takes over")
        unknown = [] if self._roster.is_empty else [n for n in names if self._roster.person(n) is None]
        if unknown:
            raise NotAllowed(f"the site file names no person {' and '.join(unknown)}")
        left = await self._left(requests.Handover(), caller)
        digest = sha256(msgspec.json.encode(left, order="deterministic")).hexdigest()
        after = {
            "open": [alarm.id for alarm in left.open],
            "overdue": left.overdue,
            "maintenance": [order.target for order in left.maintenance],
            "drill": left.drill,
            "muted": [order.pond for order in left.muted],
            "missing": left.missing,
            "sha256": digest,
        }
        self._audit.record(
            "handover", by=request.by, uid=caller.uid, subject=request.to, after=after, why=request.note
        )
        return left

    # -- modes ---------------------------------------------------------------------------------------

    async def _list(self, request: requests.ModesList, caller: Caller) -> Sequence[Mode]:
        del request, caller
        return self._modes.open()

    async def _maintain(self, request: requests.Maintain, caller: Caller) -> Maintenance:
        now_ns, until_ns = self._span(request.until)
        order = self._modes.maintain(
            request.target, by=request.by, reason=request.reason, now_ns=now_ns, until_ns=until_ns
        )
        self._began("maintenance", order.target, order, request.reason, caller)
        return order

    async def _maintain_end(self, request: requests.MaintainEnd, caller: Caller) -> Maintenance:
        _named(request.by)
        order = self._modes.end_maintenance(request.target)
        self._ended(order, request.by, caller)
        return order

    async def _mute(self, request: requests.MuteSound, caller: Caller) -> Mute:
        now_ns, until_ns = self._span(request.until)
        level: Any = self._guard.ringing(request.pond)
        order = self._modes.mute(
            request.pond, level, by=request.by, reason=request.reason, now_ns=now_ns, until_ns=until_ns
        )
        self._began("mute", order.pond, order, request.reason, caller)
        self._pipeline.announce(self._guard.look())  # the sound ends now, not at the next look
        return order

    async def _mute_end(self, request: requests.MuteEnd, caller: Caller) -> Mute:
        _named(request.by)
        order = self._modes.end_mute(request.pond)
        self._ended(order, request.by, caller)
        return order

    async def _drill(self, request: requests.Rehearse, caller: Caller) -> Drill:
        now_ns, until_ns = self._span(request.until)
        order = self._modes.rehearse(
            request.pond,
            request.level,
            by=request.by,
            reason=request.reason,
            now_ns=now_ns,
            until_ns=until_ns,
        )
        self._began("drill", order.pond, order, request.reason, caller)
        self._pipeline.announce(self._guard.rehearse(order))
        return order

    async def _drill_end(self, request: requests.RehearseEnd, caller: Caller) -> Drill:
        _named(request.by)
        order = self._modes.end_drill()
        self._ended(order, request.by, caller)
        return order

    def _began(self, what: str, subject: str, order: Mode, why: str, caller: Caller) -> None:
        self._audit.record(
            what, by=order.by, uid=caller.uid, subject=subject, after=order, why=why, states=(MODES,)
        )

    def _ended(self, order: Mode, by: str, caller: Caller) -> None:
        self._pipeline.announce(self._guard.end(order, "ended", by, caller.uid))

    def _span(self, until: str) -> tuple[int, int]:
        """Now, and the instant that `until` names."""
        now_ns = self._clock.wall_ns()
        try:
            return now_ns, now_ns + round(duration_s(until) * 1e9)
        except ValueError:
            return now_ns, _instant(until)

    # -- by hand -------------------------------------------------------------------------------------

    async def _reading(self, request: requests.ManualReading, caller: Caller) -> Compared:
        return self._manual.reading(
            request.channel,
            request.value,
            by=request.by,
            time_ns=_instant(request.at) if request.at else None,
            note=request.note,
            uid=caller.uid,
        )

    async def _patrol(self, request: requests.ManualPatrol, caller: Caller) -> list[str]:
        return self._manual.patrol(
            request.pond,
            request.section,
            by=request.by,
            found=request.found,
            abnormal=request.abnormal,
            time_ns=_instant(request.at) if request.at else None,
            uid=caller.uid,
        )

    async def _warning(self, request: requests.StormWarning, caller: Caller) -> list[Alarm]:
        """What the weather service or a platform warns of, until it ends."""
        if not request.by.strip():
            raise NotAllowed("who passes the warning on? A name is needed")
        now_ns, until_ns = self._span(request.until)
        if until_ns <= now_ns:
            raise NotAllowed(f"the warning ended at {request.until}: it changes nothing any more")
        text = request.text or ""
        warning = Warned(request.level, until_ns, request.source, text, request.ref, request.of)
        try:
            changed = self._water.warned(request.pond, warning, now_ns)
        except KeyError:
            raise NotAllowed(f"the site file names no pond {request.pond}") from None
        self._pipeline.announce(changed)
        self._audit.record(
            "rain.warning",
            by=request.by,
            uid=caller.uid,
            subject=request.pond,
            after=warning,
            why=request.source,
            states=tuple(self._water.moved()),
        )
        return changed


def _named(by: str) -> None:
    if not by.strip():
        raise NotAllowed("who ends it? A name is needed")


def _instant(text: str) -> int:
    """Raises Refused: neither a duration nor an instant with its zone."""
    try:
        time_ns = parse_rfc3339(text)
    except ValueError:
        time_ns = 0
    if not time_ns or ("+" not in text[10:] and "-" not in text[10:] and not text.endswith("Z")):
        raise Refused(f"{text!r} is no time: write '2 h', or an instant such as 2026-06-01T08:00:00+08:00", 2)
    return time_ns
