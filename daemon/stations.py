"""Devices that fall silent: one alarm each, and one for all that fall silent together.

A line that breaks, a logger that loses power: many devices are missing for one reason, and thirty alarms say
less than one that names thirty. What falls silent within the gathering time is one alarm, "n stations
missing"; it grows by what follows, and is gone when all of its devices answer again. A device under
maintenance raises nothing; if it is still silent when that ends, it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon import reasons
from daemon.alarms import Observation, Subject
from drivers.sample import Quality

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from daemon.alarms import Alarm, AlarmBook

TOGETHER = Subject("fault", "stations", rule="stations-missing")


@dataclass(slots=True)
class _Silent:
    """A device that stopped answering; `told`: in which alarm it is, "" while that is being gathered."""

    line: str
    error: str
    since_ns: int
    told: str = ""


class Stations:
    """The silent devices. Bounded by the devices of the site.

    Args:
        book: where alarms are kept; what it says of before a restart is taken up.
        gather_s: how long a first silent device waits for company.
    """

    def __init__(self, book: AlarmBook, gather_s: float) -> None:
        self._book = book
        self._gather_ns = round(gather_s * 1e9)
        self._silent: dict[str, _Silent] = {}
        together = book.of(TOGETHER)
        if together is not None and together.condition == "present":
            named = together.evidence["devices"]
            assert isinstance(named, list | tuple)
            for device in named:
                self._silent[str(device)] = _Silent("", "", 0, TOGETHER.key)

    def silent_s(self, device: str, now_ns: int) -> float:
        """For how long a device has been silent; 0.0 where it is not, or not since this start."""
        silent = self._silent.get(device)
        return (now_ns - silent.since_ns) / 1e9 if silent and silent.since_ns else 0.0

    def missing(self) -> list[str]:
        return sorted(self._silent)

    def down(self, line: str, device: str, error: str, now_ns: int) -> None:
        """A device has stopped answering; `look` tells."""
        if device not in self._silent:
            self._silent[device] = _Silent(line, error, now_ns)

    def up(self, line: str, device: str, now_ns: int) -> list[Alarm]:
        """A device answers; the alarms that change."""
        silent_s = self.silent_s(device, now_ns)
        silent = self._silent.pop(device, None)
        if silent is not None and silent.told == TOGETHER.key:
            return self._fewer(now_ns)
        reason = reasons.fault_gone(device, silent_s)
        alarm = self._book.observe(_alone(line, device), Observation("none", "gone", now_ns, reason))
        return [alarm] if alarm else []

    def look(self, now_ns: int, maintained: Collection[str] = ()) -> list[Alarm]:
        """Now and then: tell what has been gathered."""
        waiting = {
            name: each for name, each in self._silent.items() if not each.told and name not in maintained
        }
        if not waiting or not self._is_gathered(waiting.values(), now_ns):
            return []
        if len(waiting) == 1 and not self._group():
            ((device, silent),) = waiting.items()
            silent.told = _alone(silent.line, device).key
            reason = reasons.fault_present(device, Quality.NO_REPLY)
            seen = Observation("none", "present", now_ns, reason, evidence={"error": silent.error})
            alarm = self._book.observe(_alone(silent.line, device), seen)
            return [alarm] if alarm else []
        for silent in waiting.values():
            silent.told = TOGETHER.key
        return self._more(now_ns)

    def _is_gathered(self, waiting: Iterable[_Silent], now_ns: int) -> bool:
        """Whether the first has waited long enough; a clock that stepped back is no reason to wait on."""
        return not 0 <= now_ns - min(each.since_ns for each in waiting) < self._gather_ns

    def _group(self) -> list[str]:
        return sorted(name for name, each in self._silent.items() if each.told == TOGETHER.key)

    def _more(self, now_ns: int) -> list[Alarm]:
        devices = self._group()
        reason = reasons.stations_missing(devices, Quality.NO_REPLY)
        evidence = {"devices": devices, "count": len(devices)}
        old = self._book.of(TOGETHER)
        if old is not None and old.condition == "present":
            return [self._book.attach(old.id, evidence, reason)]
        seen = Observation("none", "present", now_ns, reason, evidence=evidence)
        alarm = self._book.observe(TOGETHER, seen)
        return [alarm] if alarm else []

    def _fewer(self, now_ns: int) -> list[Alarm]:
        if self._group():
            return self._more(now_ns)
        seen = Observation("none", "gone", now_ns, reasons.stations_back())
        alarm = self._book.observe(TOGETHER, seen)
        return [alarm] if alarm else []


def _alone(line: str, device: str) -> Subject:
    return Subject("fault", device, line=line, device=device)
