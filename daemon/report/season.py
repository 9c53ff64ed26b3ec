"""Before the flood season: what site file and store can tell, and what a person must look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from daemon.dated import SURVEYED, doubtful_on
from edge_rules.law.water import covered_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from daemon.config import Pond, Site
    from daemon.report.figures import Month

COMPLETE: Final = 0.95  # below it a channel is named; a choice for the list, no limit of any standard
Verdict = Literal["well", "look"]


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the check, in both languages; `open` has what is not well, and none means well."""

    zh: str
    en: str
    open: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        return "look" if self.open else "well"


# What no program can see. The person writes down what was found.
BY_HAND: Final = (
    ("警报器现场能听到（用演练验证）", "the siren is heard on the dam (try it by a drill)"),
    ("雨量计清洁、水平、无堵塞", "rain gauges are clean, level and not clogged"),
    (
        "水位计量程内无遮挡，与水尺比对",
        "nothing stands in the level gauge's way; compared with the staff gauge",
    ),
    ("渗压计与人工测压管比对", "piezometers are compared with readings by hand"),
    ("备用电源带载试验", "the standby supply was tried under load"),
    ("防雷接地检查", "lightning protection and earthing were looked at"),
    ("备用通信可用", "the second way of communication works"),
    ("值班表与电话核对", "duty roster and telephone numbers are right"),
)


def check(site: Site, month: Month, today: date, season_until: date) -> list[Point]:
    """The points that the program can judge; `month` are the last days as stored."""
    return [
        Point(
            "每个湿式库汛期限值有效",
            "every wet pond has limits for the season",
            tuple(_limits(site, today, season_until)),
        ),
        Point("每个限值有出处和批准人", "every limit has its source and approver", tuple(_sources(site))),
        Point("测量与率定未过期", "surveys and calibrations are not too old", tuple(_old(site, today))),
        Point("各测点数据完整", "every channel is complete", tuple(_incomplete(month))),
        Point("断面测点数足够", "every section has points enough", tuple(_thin(site))),
        Point("警报输出已配置", "every pond has an output that sounds", tuple(_silent(site))),
        Point("值班表覆盖全天", "somebody is on duty", () if site.duties else ("[[duty]]",)),
        Point("没有逾期未处置的报警", "no alarm is left unhandled", tuple(_unhandled(month))),
        Point("没有数据缺口", "no gap was announced", tuple(str(gap["reason"]) for gap in month.gaps)),
        Point("做过警报演练", "a drill was held", () if month.did("drill") else ("drill",)),
    ]


def _limits(site: Site, today: date, until: date) -> Iterator[str]:
    for pond in site.ponds:
        if pond.kind != "wet":
            continue
        if pond.limits:
            covered = _covered(pond, today)
            if covered is None or covered < until:
                yield f"{pond.id}: {covered or '-'} < {until}"
        elif not any(c.pond == pond.id and c.item == "pond-level" and c.levels for c in site.channels):
            yield f"{pond.id}: -"


def _covered(pond: Pond, today: date) -> date | None:
    return covered_until(pond.limits, today)


def _sources(site: Site) -> Iterator[str]:
    for channel in site.channels:
        if channel.levels is not None and not (
            channel.levels.source.strip() and channel.levels.approver.strip()
        ):
            yield channel.id


def _old(site: Site, today: date) -> Iterator[str]:
    """What rests on a survey without a date, or on numbers that are too old."""
    ponds = {pond.id: pond for pond in site.ponds}
    for channel in site.channels:
        day = doubtful_on(channel.taken, channel.derive, ponds[channel.pond])
        if day is not None and day <= today:
            yield f"{channel.id}: {day}"
        elif channel.taken is None and isinstance(channel.derive, SURVEYED):
            yield f"{channel.id}: -"


def _incomplete(month: Month) -> Iterator[str]:
    for name, channel in month.channels.items():
        if (share := channel.complete(month.span)) < COMPLETE:
            yield f"{name} {share:.0%}"


def _thin(site: Site) -> Iterator[str]:
    for section in site.sections:
        points = {
            c.monitoring_point or c.id
            for c in site.channels
            if c.pond == section.pond and c.section == section.id
        }
        if len(points) < section.live_at_least:
            yield f"{section.id}: {len(points)} < {section.live_at_least}"


def _silent(site: Site) -> Iterator[str]:
    if site.site.shadow:
        yield "[site] shadow"
    for pond in site.ponds:
        if not any(output.pond == pond.id for output in site.outputs):
            yield pond.id


def _unhandled(month: Month) -> Iterator[str]:
    for name, alarm in month.alarms.items():
        if alarm.handled_ns is None and not alarm.closed and alarm.due_ns < month.span.end_ns:
            yield name
