"""The baselines of GNSS points: shown, tied anew after a change of the base station, kept in the store.

A base station that is replaced moves every displacement that rests on it by what nobody knows. Its readings
stay uncertain, and the origin stays where it was, until a survey says how far the point has truly moved from
its origin. The tie takes off the difference between that and what the receiver tells, so displacement goes on
through it: it is never set to zero, and what the dam moved while the station was changed is in the survey.
The alarm book is not touched; a level changes only by readings that come afterwards, and red stays latched.
"""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from daemon import requests
from daemon.alarms import NotAllowed
from daemon.reading import rfc3339
from drivers.gnss.baseline import Axis
from drivers.gnss.interval import NORMAL
from drivers.gnss.receiver import ANY_BASE, SOLUTIONS, GnssReceiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from daemon.audit import Audit
    from daemon.clock import Clock
    from daemon.config import Site
    from daemon.control import Caller, Verb
    from daemon.duty import Roster
    from drivers.gnss.receiver import Solution
    from drivers.recorder import Tap

STATE = "baseline:"  # prefix of a receiver's state among the stored ones
AXES = ("east", "north", "up")


class Tie(msgspec.Struct, frozen=True):
    """What a survey says of a base station: `offset_mm` is taken off what the receiver tells with it."""

    base: str
    offset_mm: Axis
    surveyed_mm: Axis
    uncertainty_mm: float
    moved: bool
    n: int
    spread_mm: Axis
    by: str
    witness: str
    reason: str
    time: str


class _Stored(msgspec.Struct):
    """`certain_mm`: the last displacement that rested on a known base station, fixed."""

    origin: tuple[float, ...] = ()
    base: str = ""
    ties: list[Tie] = []
    certain_mm: Axis | None = None
    certain_ns: int = 0


class Standing(msgspec.Struct, frozen=True):
    """How a receiver's baseline stands, by the last `n` fixed solutions with the base station heard.

    `told_mm` is what the receiver tells from the origin, `displacement_mm` the same less the tie.
    """

    device: str
    origin: dict[str, float]
    origin_base: str
    base: str
    is_known: bool
    n: int
    told_mm: Axis | None
    displacement_mm: Axis | None
    spread_mm: Axis | None
    certain_mm: Axis | None
    certain_time: str | None
    ties: list[Tie]


class Baselines:
    """One for the whole core.

    Args:
        site: whose channels name their receivers.
        receivers: the GNSS devices.
        mark: called with the names of states that have moved.
        roster: who may sign, where the site file names people.
    """

    def __init__(
        self,
        site: Site,
        receivers: Iterable[GnssReceiver],
        clock: Clock,
        roster: Roster,
        audit: Audit,
        mark: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._receivers = {each.device: each for each in receivers}
        self._channels = {table.id: table for table in site.channels}
        self._clock = clock
        self._roster = roster
        self._audit = audit
        self._mark = mark
        self._taps: Mapping[str, Tap] = {}
        self._kept = {device: _Stored(_numbers(each)) for device, each in self._receivers.items()}
        for device, each in self._receivers.items():
            each.on_solution = partial(self._solved, device)

    def shown_by(self, taps: Mapping[str, Tap]) -> None:
        """Have each device's line show its ties: its recording must yield the same readings again."""
        self._taps = taps

    def known(self, device: str) -> tuple[str, dict[str, Axis]]:
        """The base station of a receiver's origin, and what is taken off with others."""
        kept = self._kept.get(device, _Stored())
        return kept.base, {tie.base: tie.offset_mm for tie in kept.ties}

    def table(self) -> Mapping[type[requests.Request], Verb]:
        return {requests.Baseline: self._show, requests.BaselineTie: self._tie}

    # -- state that must outlive a restart -----------------------------------------------------------

    def states(self) -> Mapping[str, Callable[[], object]]:
        return {STATE + device: partial(self._kept.__getitem__, device) for device in self._kept}

    def restore(self, stored: Mapping[str, tuple[int, bytes]]) -> None:
        """Go on with the ties of before; those of an origin that the site file no longer has are void."""
        for device, receiver in self._receivers.items():
            _, row = stored.get(STATE + device, (0, b""))
            if not row:
                continue
            kept = msgspec.json.decode(row, type=_Stored)
            if kept.origin != self._kept[device].origin:
                continue
            mine = self._kept[device]
            mine.base, mine.ties = kept.base, kept.ties
            mine.certain_mm, mine.certain_ns = kept.certain_mm, kept.certain_ns
            receiver.resume(kept.base, {tie.base: tie.offset_mm for tie in kept.ties})

    def _solved(self, device: str) -> None:
        """A period has its solution: the last certain one is what a tie is held against."""
        receiver, kept = self._receivers[device], self._kept[device]
        kept.base = "" if receiver.base == ANY_BASE else receiver.base
        if receiver.solutions and receiver.solutions[-1].rank == 0:
            last = receiver.solutions[-1]
            kept.certain_mm, kept.certain_ns = _less(last.enu_mm, _offset(kept, last.base)), last.tick_ns
        self._mark((STATE + device,))

    # -- verbs ---------------------------------------------------------------------------------------

    async def _show(self, request: requests.Baseline, caller: Caller) -> Standing:
        del caller
        return self._standing(self._device(request.channel), request.last)

    async def _tie(self, request: requests.BaselineTie, caller: Caller) -> Standing:
        self._signed(request)
        device = self._device(request.channel)
        kept, seen = self._kept[device], self._standing(device, request.last)
        self._enough(request, seen)
        assert seen.told_mm is not None
        assert seen.spread_mm is not None
        tie = Tie(
            base=seen.base,
            offset_mm=_less(seen.told_mm, request.surveyed_mm),
            surveyed_mm=request.surveyed_mm,
            uncertainty_mm=request.uncertainty_mm,
            moved=request.moved,
            n=seen.n,
            spread_mm=seen.spread_mm,
            by=request.by,
            witness=request.witness,
            reason=request.reason,
            time=rfc3339(self._clock.wall_ns()),
        )
        before = next((each for each in kept.ties if each.base == tie.base), None)
        kept.ties = [*(each for each in kept.ties if each.base != tie.base), tie]
        self._receivers[device].tie(tie.base, tie.offset_mm)
        if device in self._taps:
            self._taps[device].tie(device, tie.base, tie.offset_mm)
        self._audit.record(
            "baseline",
            by=request.by,
            uid=caller.uid,
            subject=device,
            before=before,
            after=tie,
            why=request.reason,
            states=(STATE + device,),
            in_place=True,
            witness=request.witness,
        )
        return self._standing(device, request.last)

    # -- pieces --------------------------------------------------------------------------------------

    def _device(self, name: str) -> str:
        """The one receiver behind a channel, or behind its inputs; a receiver may be named itself.

        Raises:
            NotAllowed: there is none, or several.
        """
        found = self._behind(name) if name in self._channels else {name} & self._receivers.keys()
        if len(found) == 1:
            return found.pop()
        if name not in self._channels:
            raise NotAllowed(f"there is no channel or GNSS receiver {name}")
        if found:
            raise NotAllowed(f"{name} rests on {', '.join(sorted(found))}: name one of them")
        raise NotAllowed(f"{name} rests on no GNSS receiver, so it has no baseline")

    def _behind(self, channel: str) -> set[str]:
        table = self._channels.get(channel)
        if table is None:
            return set()
        inputs = table.derive.inputs if table.derive is not None else (table.source,)
        found = {each.partition(".")[0] for each in inputs} & self._receivers.keys()
        return found.union(*(self._behind(each) for each in inputs if each != channel))

    def _standing(self, device: str, last: int) -> Standing:
        receiver, kept = self._receivers[device], self._kept[device]
        base = receiver.heard_base
        rows = _latest(receiver.solutions, base, last)
        told = _median(rows) if rows else None
        known = not base or receiver.base in (base, ANY_BASE) or any(tie.base == base for tie in kept.ties)
        return Standing(
            device=device,
            origin=dict(zip(receiver.origin.__slots__, kept.origin, strict=True)),
            origin_base=receiver.base,
            base=base,
            is_known=known,
            n=len(rows),
            told_mm=told,
            displacement_mm=_less(told, _offset(kept, base)) if told else None,
            spread_mm=_spread(rows, told) if told else None,
            certain_mm=kept.certain_mm,
            certain_time=rfc3339(kept.certain_ns) if kept.certain_mm else None,
            ties=kept.ties,
        )

    def _signed(self, request: requests.BaselineTie) -> None:
        names = (request.by.strip(), request.witness.strip())
        if not all(names) or names[0] == names[1]:
            raise NotAllowed("a tie needs two names: who surveyed, and who stands beside it")
        unknown = [] if self._roster.is_empty else [n for n in names if self._roster.person(n) is None]
        if unknown:
            raise NotAllowed(f"the site file names no person {' and '.join(unknown)}")
        if not request.reason.strip():
            raise NotAllowed("why? A tie needs a reason")
        if not (0.0 < request.uncertainty_mm < float("inf")):
            raise NotAllowed("--uncertainty is that of the survey, in mm, above 0")

    @staticmethod
    def _enough(request: requests.BaselineTie, seen: Standing) -> None:
        """Raises NotAllowed: too few solutions, too much scatter, or movement that nobody vouches for."""
        if seen.n < request.last:
            raise NotAllowed(
                f"{seen.device} has {seen.n} fixed solutions with base station {seen.base or '(unnamed)'}, "
                f"{request.last} are asked for: wait, or ask for fewer with --last"
            )
        assert seen.spread_mm is not None
        if max(seen.spread_mm) > request.uncertainty_mm:
            raise NotAllowed(
                f"the last {seen.n} solutions scatter by {_text(seen.spread_mm)} mm, more than the survey's "
                f"{request.uncertainty_mm:g} mm: ask for more with --last, or wait for a calmer sky"
            )
        if seen.certain_mm is None or request.moved:
            return
        apart = _less(request.surveyed_mm, seen.certain_mm)
        if max(map(abs, apart)) > request.uncertainty_mm:
            raise NotAllowed(
                f"the last certain displacement was {_text(seen.certain_mm)} mm ({seen.certain_time}), the "
                f"survey says {_text(request.surveyed_mm)}: if the point truly moved by {_text(apart)} "
                "since, say --moved"
            )


def _numbers(receiver: GnssReceiver) -> tuple[float, ...]:
    origin: Any = receiver.origin
    return tuple(getattr(origin, name) for name in origin.__slots__)


def _offset(kept: _Stored, base: str) -> Axis:
    return next((tie.offset_mm for tie in kept.ties if tie.base == base), (0.0, 0.0, 0.0))


def _latest(solutions: Iterable[Solution], base: str, last: int) -> list[Axis]:
    """The last fixed solutions with this base station, back to where another one was heard."""
    rows: list[Axis] = []
    for each in reversed(list(solutions)):
        if each.base != base or len(rows) == min(last, SOLUTIONS):
            break
        if each.is_fixed:
            rows.append(each.enu_mm)
    return rows


def _median(rows: list[Axis]) -> Axis:
    east, north, up = (median(column) for column in zip(*rows, strict=True))
    return east, north, up


def _spread(rows: list[Axis], around: Axis) -> Axis:
    east, north, up = (
        NORMAL * median(abs(value - centre) for value in column)
        for column, centre in zip(zip(*rows, strict=True), around, strict=True)
    )
    return east, north, up


def _less(a: Axis, b: Axis) -> Axis:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _text(mm: Axis) -> str:
    return ", ".join(f"{axis} {value:+.1f}" for axis, value in zip(AXES, mm, strict=True))
