"""Rain and the pond's level beyond the designer's channels.

The rain level of a pond is the highest of the designer's own values, the rainstorm bands, the storm signals
and the warnings that a platform sends. It has alarms of its own and stays out of the roll-up. Orange (or what
the site file says) advises to stop production and withdraw people; a section that is blind then asks for a
reading by hand, within the configured time and again after it.

A platform's warning is an alarm of its own as well, of any pond, so that it is acknowledged and handled by
name, and the platform sees it. It ends by itself; a gauge that is dead takes nothing from it.

A good reading raises and clears; an uncertain one (a frozen gauge, a counter that fell) raises and never
clears; a missing one does neither, and while no gauge can be read the level is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from daemon import reasons
from daemon.alarms import LEVELS, Observation, Subject
from daemon.reading import rfc3339
from drivers.sample import NO_EVIDENCE, Quality
from edge_rules.law.levels import Level
from edge_rules.law.storm import GaugeSums, intense, reached
from edge_rules.law.water import covered_until, in_force

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date, tzinfo

    from daemon.alarms import Alarm, AlarmBook
    from daemon.channels import Group
    from daemon.config import Pond, RainTable, Site
    from daemon.judge import Judge
    from daemon.reading import ReadingFrame

STATE = "rain:"  # prefix of a gauge's sums, and of a pond's warning, among the stored states
_WARNING = "rain:warning:"
_OF = ("storm", "earthquake")


class Warned(msgspec.Struct, frozen=True):
    """A warning that a platform sent: `level` as LEVELS writes it, until when (ns, UTC), who said so.

    `text` are its words, `ref` is the platform's own name for it. One of an earthquake makes no rain level.
    """

    level: str
    until_ns: int
    source: str
    text: str = ""
    ref: str | None = None
    of: Literal["storm", "earthquake"] = "storm"

    def at(self, time_ns: int) -> Level:
        """The level it has at that moment."""
        return Level(LEVELS.index(self.level)) if time_ns < self.until_ns else Level.NONE


@dataclass(slots=True, eq=False)
class _Gauge:
    """A rain gauge: its sums, the level they reach, and whether that may fall at the moment."""

    sums: GaugeSums = field(default_factory=GaugeSums)
    level: Level = Level.NONE
    because: str = ""
    depths_mm: dict[int, float] = field(default_factory=dict)
    seen: bool = True


class Water:
    """The rain level of every pond that has one, and what follows from it.

    Args:
        site: ponds, their gauges, their dated limits.
        groups: the compiled groups, whose order of channels the readings follow.
        judge: the designer's levels, blind sections, and what is judged by dated limits.
        book: where alarms are kept.
        timezone: of the days by which limits are dated.
    """

    def __init__(
        self, site: Site, groups: Sequence[Group], judge: Judge, book: AlarmBook, timezone: tzinfo
    ) -> None:
        self._judge = judge
        self._book = book
        self._timezone = timezone
        self._manual_within_s = site.alarms.manual_within_s
        self._renew_ahead = timedelta(seconds=site.alarms.renew_ahead_s)
        self._ponds = {pond.id: pond for pond in site.ponds}
        self._sections = [(section.pond, section.id) for section in site.sections]
        gauges = {name for pond in site.ponds if pond.rain for name in pond.rain.gauges}
        self._gauges = {name: _Gauge() for name in sorted(gauges)}
        self._by_group = {
            id(group): [(at, name) for at, name in enumerate(group.channels) if name in gauges]
            for group in groups
        }
        self._warnings: dict[str, Warned] = {}  # by pond, and by pond and kind where it is no storm
        self._answered: dict[tuple[str, str], int] = {}  # section -> when it was last read by hand
        self._moved: set[str] = set()
        self.levels: dict[str, Level] = {pond.id: Level.NONE for pond in site.ponds if pond.rain}

    # -- readings ------------------------------------------------------------------------------------

    def take(self, group: Group, frame: ReadingFrame) -> list[Alarm]:
        """Sum what the gauges of this frame say; returns the alarms that are new or changed."""
        mine = self._by_group[id(group)]
        if not mine:
            return []
        for at, name in mine:
            self._feed(name, frame.time_ns, frame.values[at], Quality(frame.qualities[at]))
        names = {name for _, name in mine}
        told: list[Alarm | None] = []
        for pond in self._ponds.values():
            if pond.rain is not None and names & set(pond.rain.gauges):
                told += self._pond(pond, pond.rain, frame.time_ns)
        return [alarm for alarm in told if alarm is not None]

    def _feed(self, name: str, time_ns: int, depth_mm: float, quality: Quality) -> None:
        gauge = self._gauges[name]
        self._moved.add(STATE + name)
        usable = not quality.is_bad and quality not in NO_EVIDENCE
        sums = gauge.sums.feed(time_ns, depth_mm if usable else float("nan"))
        gauge.seen = sums is not None
        if sums is None:
            return
        marks = reached(sums)
        level = marks[0].level if marks else Level.NONE
        gauge.depths_mm = sums
        if level >= gauge.level or quality == Quality.GOOD:
            gauge.level = level
            gauge.because = (
                f"{marks[0].source}: {sums[marks[0].hours]:.1f} mm / {marks[0].hours} h" if marks else ""
            )

    def look(self, time_ns: int) -> list[Alarm]:
        """Now and then: warnings that end, sections that went blind, limits that run out."""
        told: list[Alarm | None] = []
        for pond in self._ponds.values():
            for of in _OF:
                told += self._warning(pond.id, of, time_ns)
            if pond.rain is not None:
                told += self._pond(pond, pond.rain, time_ns)
            if pond.limits:
                told.append(self._limits(pond, time_ns))
        return [alarm for alarm in told if alarm is not None]

    def warned(self, pond: str, warning: Warned, time_ns: int) -> list[Alarm]:
        """Take a warning of the platform (a rain forecast, a storm signal) for one of our ponds.

        Raises:
            KeyError: there is no such pond; ValueError: `level` is no level.
        """
        if warning.level not in LEVELS:
            raise ValueError(f"{warning.level!r} is no level: {', '.join(LEVELS)}")
        rain, key = self._ponds[pond].rain, _key(pond, warning.of)
        before = self._warnings.get(key)
        told: list[Alarm | None] = []
        if before is not None and before.ref != warning.ref:  # another one: people are asked anew
            self._warnings[key] = msgspec.structs.replace(before, until_ns=time_ns)
            told += self._warning(pond, warning.of, time_ns)
        self._warnings[key] = warning
        self._moved.add(_WARNING + key)
        told += self._warning(pond, warning.of, time_ns)
        if rain is not None:
            told += self._pond(self._ponds[pond], rain, time_ns)
        return [alarm for alarm in told if alarm is not None]

    def _warning(self, pond: str, of: str, time_ns: int) -> list[Alarm | None]:
        """The alarm that a platform's warning is."""
        warning = self._warnings.get(_key(pond, of))
        if warning is None:
            return []
        subject = Subject("advice", f"{pond}.warning", pond=pond, item="weather", rule="platform-warning")
        if of == "earthquake":
            subject = Subject("advice", f"{pond}.earthquake", pond=pond, rule="earthquake")
        level = warning.at(time_ns)
        if not level:
            reason = reasons.warning_over(pond, of, warning.source, withdrawn=warning.level == "none")
            return [self._book.observe(subject, Observation("none", "gone", time_ns, reason))]
        until = datetime.fromtimestamp(warning.until_ns / 1e9, self._timezone)
        reason = reasons.warning_present(
            pond, of, warning.level, warning.source, f"{until:%Y-%m-%d %H:%M}", warning.text
        )
        evidence = {"source": warning.source, "until": rfc3339(warning.until_ns), "ref": warning.ref}
        seen = Observation(warning.level, "present", time_ns, reason, evidence=evidence)  # type: ignore[arg-type]  # `warned` has looked
        alarm = self._book.observe(subject, seen)
        if alarm is None:  # as high as before: other words, or a later end, ask nobody anew
            stands = self._book.of(subject)
            if stands is not None and stands.reason != reason:
                return [self._book.attach(stands.id, evidence, reason)]
        return [alarm]

    def stirs(self, pond: str, time_ns: int) -> bool:
        """Whether it rains there as the rain level counts it, or a warning of any kind is in force."""
        warnings = [self._warnings.get(_key(pond, of)) for of in _OF]
        return bool(self.levels.get(pond)) or any(each is not None and each.at(time_ns) for each in warnings)

    def read_by_hand(self, pond: str, section: str, time_ns: int) -> None:
        """Somebody has read an instrument of this section, or walked along it."""
        self._answered[pond, section] = time_ns

    # -- the rain level ------------------------------------------------------------------------------

    def _pond(self, pond: Pond, rain: RainTable, time_ns: int) -> list[Alarm | None]:
        gauges = [self._gauges[name] for name in rain.gauges]
        sources = [(gauge.level, gauge.because) for gauge in gauges]
        sources.append((self._judge.items.get((pond.id, "rainfall"), Level.NONE), "designer's trigger level"))
        warning = self._warnings.get(pond.id)
        warned = warning.at(time_ns) if warning is not None else Level.NONE
        if warning is not None:
            sources.append((warned, warning.source))
        level, because = max(sources, key=lambda each: each[0])
        self.levels[pond.id] = level
        known = level == warned or any(gauge.seen for gauge in gauges)
        told = [self._level_alarm(pond.id, level, because, gauges, time_ns, known=known)]
        told.append(self._stop_alarm(pond.id, level, Level[rain.stop_at.upper()], time_ns))
        told.append(self._intense_alarm(pond.id, gauges, time_ns))
        told += self._manual_alarms(pond.id, level, time_ns)
        return told

    def _level_alarm(
        self, pond: str, level: Level, because: str, gauges: Sequence[_Gauge], time_ns: int, *, known: bool
    ) -> Alarm | None:
        subject = Subject("advice", f"{pond}.rain", pond=pond, item="rainfall", rule="rain-level")
        if level and not known:
            seen = Observation(LEVELS[level], "unknown", time_ns, reasons.rain_unknown(pond))
        elif level:
            sums = {f"{hours}h": round(mm, 1) for gauge in gauges for hours, mm in gauge.depths_mm.items()}
            evidence = {"because": because, "sums_mm": sums, "urgency": "inspect today"}
            reason = reasons.rain_present(pond, level.text, because)
            seen = Observation(LEVELS[level], "present", time_ns, reason, evidence=evidence)
        else:
            seen = Observation("none", "gone", time_ns, reasons.rain_gone(pond))
        return self._book.observe(subject, seen)

    def _stop_alarm(self, pond: str, level: Level, stop_at: Level, time_ns: int) -> Alarm | None:
        subject = Subject("advice", f"{pond}.stop", pond=pond, item="rainfall", rule="stop-and-withdraw")
        if level >= stop_at:
            reason = reasons.stop_and_withdraw(pond, level.text)
            evidence = {"urgency": "inspect now", "rain": level.text}
            seen = Observation("none", "present", time_ns, reason, evidence=evidence)
        else:
            seen = Observation("none", "gone", time_ns, reasons.stop_over(pond))
        return self._book.observe(subject, seen)

    def _intense_alarm(self, pond: str, gauges: Sequence[_Gauge], time_ns: int) -> Alarm | None:
        subject = Subject("advice", f"{pond}.intensity", pond=pond, item="rainfall", rule="caine-1980")
        hours = sorted({each for gauge in gauges if gauge.depths_mm for each in intense(gauge.depths_mm)})
        if hours:
            evidence = {"urgency": "watch", "hours": hours}
            reason = reasons.rain_intense(pond, ", ".join(map(str, hours)))
            seen = Observation("none", "present", time_ns, reason, evidence=evidence)
        else:
            seen = Observation("none", "gone", time_ns, reasons.rain_gone(pond))
        return self._book.observe(subject, seen)

    def _manual_alarms(self, pond: str, level: Level, time_ns: int) -> list[Alarm | None]:
        """A blind section in orange rain asks for a reading by hand; it is due when that time is over."""
        blind = self._judge.blind_sections(pond) if level >= Level.ORANGE else []
        told = []
        for its_pond, section in self._sections:
            if its_pond != pond:
                continue
            subject = Subject(
                "advice", f"{pond}.{section}.manual", pond=pond, section=section, rule="manual-reading"
            )
            within_s = self._manual_within_s
            answered_s = (time_ns - self._answered.get((pond, section), 0)) / 1e9
            if section in blind and not 0 <= answered_s < within_s:
                reason = reasons.manual_wanted(section, within_s / 60)
                due_ns = time_ns + round(within_s * 1e9)
                evidence = {"urgency": "inspect now"}
                seen = Observation("none", "present", time_ns, reason, evidence=evidence, due_ns=due_ns)
            else:
                seen = Observation("none", "gone", time_ns, reasons.manual_no_longer_wanted(section))
            told.append(self._book.observe(subject, seen))
        return told

    # -- dated limits --------------------------------------------------------------------------------

    def _limits(self, pond: Pond, time_ns: int) -> Alarm | None:
        today = local_day(time_ns, self._timezone)
        self._judge.renew(today)
        subject = Subject(
            "system", f"{pond.id}.limits", pond=pond.id, item="pond-level", rule="operating-limit"
        )
        last = covered_until(pond.limits, today)
        if last is not None and last - today > self._renew_ahead:
            seen = Observation("none", "gone", time_ns, reasons.limits_renewed(pond.id))
        else:
            ends = in_force(pond.limits, today).limit.until if last is None else last
            reason = reasons.limits_run_out(pond.id, str(ends), valid=last is not None)
            evidence = {"urgency": "inspect today" if last is None else "watch", "until": str(ends)}
            seen = Observation("none", "present", time_ns, reason, evidence=evidence)
        return self._book.observe(subject, seen)

    # -- state that must outlive a restart -----------------------------------------------------------

    def states(self) -> Mapping[str, Callable[[], object]]:
        def of(gauge: _Gauge) -> Callable[[], object]:
            return lambda: [int(gauge.level), gauge.because, gauge.sums.state()]

        def warning(key: str) -> Callable[[], object]:
            return lambda: self._warnings.get(key)

        return {STATE + name: of(gauge) for name, gauge in self._gauges.items()} | {
            _WARNING + key: warning(key) for pond in self._ponds for key in (_key(pond, of) for of in _OF)
        }

    def moved(self) -> set[str]:
        """The names of the states that moved since the last call."""
        moved, self._moved = self._moved, set()
        return moved

    def restore(self, name: str, state: Any) -> None:
        """Take back a gauge's sums or a pond's warning; what the site no longer has is passed over."""
        if name.startswith(_WARNING):
            key = name.removeprefix(_WARNING)
            if state is not None and key.partition("/")[0] in self._ponds:
                self._warnings[key] = msgspec.convert(state, Warned)
            return
        gauge = self._gauges.get(name.removeprefix(STATE))
        if gauge is not None:
            level, gauge.because, sums = state
            gauge.level = Level(level)
            gauge.sums.restore(sums)


def _key(pond: str, of: str) -> str:
    return pond if of == "storm" else f"{pond}/{of}"


def local_day(time_ns: int, timezone: tzinfo) -> date:
    """The day by which limits are dated."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).astimezone(timezone).date()
