"""The summary of a trial run: what alarmed in shadow, and what engineers made of it; out of the store."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon.alarms import LEVELS
from daemon.audit import SHADOW
from daemon.backtest.figures import poisson_interval
from daemon.report.figures import NS, raised_ns
from daemon.spool_verbs import LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daemon.archive import Archive

LABELS: Final = ("real", "false", "unsure")
_YEAR_NS: Final = 31_557_600 * NS


@dataclass(slots=True)
class Shadowed:
    """One alarm of the trial run."""

    id: str
    kind: str
    rule: str
    worst: str
    raised_ns: int
    reason: Mapping[str, str]
    label: str = ""
    by: str = ""
    note: str = ""


@dataclass(slots=True)
class Trial:
    """A trial run: its alarms by id, and from when to when it went on (ns, UTC)."""

    alarms: dict[str, Shadowed] = field(default_factory=dict)
    spans: list[tuple[int, int]] = field(default_factory=list)
    damaged: int = 0

    @property
    def years(self) -> float:
        return sum(end - begin for begin, end in self.spans) / _YEAR_NS

    def unlabelled(self) -> list[Shadowed]:
        return [alarm for alarm in self.alarms.values() if not alarm.label]

    def counts(self) -> dict[tuple[str, str], Counter[str]]:
        """(kind, level or rule) -> how many of each label; "" is none."""
        found: dict[tuple[str, str], Counter[str]] = {}
        for alarm in self.alarms.values():
            what = alarm.worst if alarm.worst != "none" else alarm.rule
            found.setdefault((alarm.kind, what), Counter())[alarm.label] += 1
        return found

    def per_year(self, count: int) -> tuple[float, float, float]:
        """How often a year, and the exact 95 % interval; of a trial that has lasted at all."""
        low, high = poisson_interval(count)
        return count / self.years, low / self.years, high / self.years


def collect(archive: Archive) -> Trial:
    """Read the store once; what was not in shadow does not count, and a trial may have been interrupted."""
    trial = Trial()
    since_ns = last_ns = 0
    for batch in archive.batches():
        if not batch.payload:
            trial.damaged += 1
            continue
        last_ns = max(last_ns, batch.time_ns)
        if batch.kind not in ("alarms", "audit"):
            continue
        payload = msgspec.json.decode(batch.payload)
        if batch.kind == "alarms":
            _alarm(trial, payload)
        elif payload["what"] == LABEL:
            _label(trial, payload)
        elif payload["what"] == SHADOW:
            if since_ns:
                trial.spans.append((since_ns, batch.time_ns))
            since_ns = batch.time_ns if payload["to"] else 0
    if since_ns:
        trial.spans.append((since_ns, last_ns))
    return trial


def _alarm(trial: Trial, alarm: Mapping[str, Any]) -> None:
    if not alarm.get("shadow"):
        return
    its = trial.alarms.get(alarm["id"])
    if its is None:
        its = trial.alarms[alarm["id"]] = Shadowed(
            alarm["id"],
            alarm["kind"],
            alarm["rule"] or "",
            alarm["level"],
            raised_ns(alarm["id"]),
            alarm["reason"],
        )
    if LEVELS.index(alarm["level"]) > LEVELS.index(its.worst):
        its.worst, its.reason = alarm["level"], alarm["reason"]


def _label(trial: Trial, record: Mapping[str, Any]) -> None:
    its = trial.alarms.get(record["subject"])
    if its is not None:
        its.label, its.by, its.note = record["to"], record["by"], record["why"] or ""


def order(alarms: Iterable[Shadowed]) -> list[Shadowed]:
    """Worst and oldest first."""
    return sorted(alarms, key=lambda alarm: (-LEVELS.index(alarm.worst), alarm.raised_ns))
