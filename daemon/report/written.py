"""The report as one document: titles, tables, lists; then as text for a terminal or as HTML that prints."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unicodedata import east_asian_width
from zoneinfo import ZoneInfo

from daemon.report import shadow
from daemon.report.season import BY_HAND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.config import Site
    from daemon.report.figures import Month
    from daemon.report.season import Point
    from daemon.report.shadow import Trial

_KINDS: Final = {
    "channel": "测点",
    "item": "项目",
    "pond": "库",
    "advice": "建议",
    "fault": "故障",
    "system": "系统",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A title, sentences, and a table that may be empty."""

    title: str
    sentences: Sequence[str] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


class Writer:
    """Says it in one language, in the site's own time."""

    def __init__(self, site: Site, language: str) -> None:
        self._site = site
        self._zone = ZoneInfo(site.site.timezone)
        self.language = language

    def _say(self, zh: str, en: str) -> str:
        return zh if self.language == "zh" else en

    def _time(self, time_ns: int | None) -> str:
        if time_ns is None:
            return "-"
        return f"{datetime.fromtimestamp(time_ns / 1e9, UTC).astimezone(self._zone):%Y-%m-%d %H:%M}"

    def title(self, month: Month, *, season: bool) -> str:
        name = self._site.site.name or self._site.site.id
        if season:
            return self._say(f"{name} 汛前检查", f"{name}: check before the flood season")
        first = datetime.fromtimestamp(month.span.first_ns / 1e9, UTC).astimezone(self._zone)
        return self._say(f"{name} 监测月报 {first:%Y-%m}", f"{name}: monthly return {first:%Y-%m}")

    # -- the month -----------------------------------------------------------------------------------

    def month(self, month: Month) -> Iterator[Part]:
        yield self._about(month)
        yield self._complete(month)
        yield self._alarms(month)
        yield self._late(month)
        yield self._orders(month)
        yield self._thresholds(month)
        yield self._gaps(month)

    def _about(self, month: Month) -> Part:
        span = f"{self._time(month.span.first_ns)} - {self._time(month.span.end_ns)}"
        stored = f"{self._time(month.first_ns)} - {self._time(month.last_ns)}"
        said = [
            self._say(
                f"时段 {span}（{self._site.site.timezone}）", f"span {span} ({self._site.site.timezone})"
            ),
            self._say(f"存储中有 {stored}", f"the store has {stored}"),
        ]
        if self._site.site.mode != "real":
            said.append(self._say("这些不是真实数据", f"these data are {self._site.site.mode}, not real"))
        if month.damaged:
            said.append(self._say(f"{month.damaged} 包数据已损坏", f"{month.damaged} packs are damaged"))
        return Part(self._say("范围", "Scope"), said)

    def _complete(self, month: Month) -> Part:
        tables = {channel.id: channel for channel in self._site.channels}
        rows = []
        for name, channel in month.channels.items():
            worst = ", ".join(f"{why} {count}" for why, count in channel.bad.most_common(3))
            rows.append(
                (
                    name,
                    tables[name].item,
                    f"{channel.complete(month.span):.1%}",
                    str(channel.good),
                    str(channel.uncertain),
                    str(sum(channel.bad.values())),
                    str(len(channel.by_hand - channel.slots)),
                    worst,
                )
            )
        head = self._say(
            "通道 项目 完整率 良好 存疑 无效 人工补测 主要原因",
            "channel item complete good uncertain bad by-hand reasons",
        )
        shares = [channel.complete(month.span) for channel in month.channels.values()]
        mean = sum(shares) / len(shares) if shares else 0.0
        said = self._say(
            f"平均完整率 {mean:.1%}：有测值的周期占应测周期之比，人工补测不计。",
            f"mean {mean:.1%}: periods with a value of all periods; readings by hand do not count.",
        )
        return Part(self._say("数据完整性", "Completeness"), [said], head.split(), rows)

    def _alarms(self, month: Month) -> Part:
        counts: dict[tuple[str, str], int] = {}
        for alarm in month.alarms.values():
            counts[alarm.kind, alarm.worst] = counts.get((alarm.kind, alarm.worst), 0) + 1
        due = month.due()
        kept = sum(alarm.in_time for alarm in due)
        rate = f"{kept / len(due):.1%}" if due else "-"
        said = [
            self._say(
                f"当日处置率 {rate}：{len(due)} 个到期报警中 {kept} 个按期处置。",
                f"same-day rate {rate}: {kept} of {len(due)} alarms that fell due were handled in time.",
            ),
        ]
        if month.rehearsed:
            said.append(
                self._say(
                    f"另有演练报文 {month.rehearsed} 条，不计入。",
                    f"{month.rehearsed} messages of drills are not counted.",
                )
            )
        rows = [(self._say(_KINDS[kind], kind), level, str(n)) for (kind, level), n in sorted(counts.items())]
        return Part(
            self._say("报警", "Alarms"),
            said,
            self._say("类型 最高级别 次数", "kind worst count").split(),
            rows,
        )

    def _late(self, month: Month) -> Part:
        rows = [
            (
                name,
                alarm.worst,
                self._time(alarm.raised_ns),
                self._time(alarm.due_ns),
                self._time(alarm.handled_ns),
            )
            for name, alarm in month.alarms.items()
            if not alarm.in_time and alarm.due_ns - 1 in month.span
        ]
        head = self._say("报警 最高级别 发生 期限 处置", "alarm worst raised due handled").split()
        return Part(
            self._say("未按期处置", "Not handled in time"), [] if rows else [self._none()], head, rows
        )

    def _orders(self, month: Month) -> Part:
        rows = [
            (
                str(each["what"]),
                str(each.get("subject") or ""),
                str(each["by"]),
                str(each["time"]),
                str(each.get("why") or ""),
            )
            for each in month.did("mute", "maintenance", "drill")
        ]
        head = self._say("事项 对象 人员 时间 原因", "order subject by time why").split()
        title = self._say("静音、检修、演练", "Mutes, maintenance, drills")
        return Part(title, [] if rows else [self._none()], head, rows)

    def _thresholds(self, month: Month) -> Part:
        rows = [
            (
                str(record["time"]),
                str(record["by"]),
                str(change["name"]),
                _limits(change.get("from")),
                _limits(change.get("to")),
            )
            for record, change in month.thresholds()
        ]
        head = self._say("时间 人员 对象 原值 新值", "time by subject from to").split()
        return Part(self._say("限值变更", "Changes of limits"), [] if rows else [self._none()], head, rows)

    def _gaps(self, month: Month) -> Part:
        rows = [
            (
                str(gap["reason"]),
                str(gap["from"] or "-"),
                str(gap["to"]),
                str(gap["count"] if gap["count"] is not None else "-"),
            )
            for gap in month.gaps
        ]
        head = self._say("原因 自 至 数量", "reason from to count").split()
        return Part(self._say("数据缺口", "Gaps"), [] if rows else [self._none()], head, rows)

    def _none(self) -> str:
        return self._say("无", "none")

    # -- a trial run ---------------------------------------------------------------------------------

    def trial(self, trial: Trial) -> Iterator[Part]:
        said = [f"{self._time(begin)} - {self._time(end)}" for begin, end in trial.spans]
        false = sum(each["false"] for each in trial.counts().values())
        if trial.years:
            rate, low, high = trial.per_year(false)
            said.append(
                self._say(
                    f"误报 {false} 次，折合每年 {rate:.2f} 次（95 % 区间 {low:.2f} 至 {high:.2f}）。",
                    f"{false} false alarms, {rate:.2f} a year (95 %: {low:.2f} to {high:.2f}).",
                )
            )
        if left := len(trial.unlabelled()):
            said.append(
                self._say(
                    f"{left} 个报警尚未判定：pondwatch alarms label。",
                    f"{left} alarms are without a label: pondwatch alarms label.",
                )
            )
        if trial.damaged:
            said.append(self._say(f"{trial.damaged} 包数据已损坏", f"{trial.damaged} packs are damaged"))
        rows = [
            (
                self._say(_KINDS[kind], kind),
                what,
                *(str(n) for n in (sum(each.values()), *(each[label] for label in (*shadow.LABELS, "")))),
            )
            for (kind, what), each in sorted(trial.counts().items())
        ]
        head = self._say(
            "类型 级别或规则 次数 真 误 存疑 未判定", "kind level-or-rule count real false unsure none"
        ).split()
        yield Part(self._say("试运行", "Trial run"), said, head, rows)
        listed = [
            (self._time(each.raised_ns), each.worst, each.label or "-", each.by, each.note, each.id)
            for each in shadow.order(trial.alarms.values())
        ]
        head = self._say("发生 最高级别 判定 人员 说明 报警", "raised worst label by note alarm").split()
        yield Part(self._say("各报警", "Each alarm"), [] if listed else [self._none()], head, listed)

    # -- the season ----------------------------------------------------------------------------------

    def season(self, points: Sequence[Point]) -> Iterator[Part]:
        words = {"well": self._say("通过", "well"), "look": self._say("需处理", "look")}
        rows = [(self._say(each.zh, each.en), words[each.verdict], ", ".join(each.open)) for each in points]
        yield Part(
            self._say("程序能判断的", "What the program can tell"),
            (),
            self._say("项目 结论 待处理", "point verdict open").split(),
            rows,
        )
        blank = [(self._say(zh, en), "", "", "") for zh, en in BY_HAND]
        head = self._say("项目 结果 检查人 日期", "point found by date").split()
        yield Part(self._say("须由人到现场检查的", "What a person must look at"), (), head, blank)


def _limits(side: object) -> str:
    if not isinstance(side, dict):
        return "-"
    about = {key: side[key] for key in ("levels", "limits", "limit", "rollup") if key in side}
    colours = about.get("levels")
    if isinstance(colours, dict):
        return " ".join(
            f"{c}={colours[c]:g}" for c in ("blue", "yellow", "orange", "red") if colours.get(c) is not None
        )
    return str(about)


# -- as text and as HTML -----------------------------------------------------------------------------


def as_text(title: str, parts: Sequence[Part]) -> str:
    lines = [title, "=" * _wide(title)]
    for part in parts:
        lines += ["", part.title, "-" * _wide(part.title), *part.sentences]
        if part.rows:
            lines += _aligned([part.head, *part.rows])
    return "\n".join(lines) + "\n"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(_wide(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        cells = (cell + " " * (width - _wide(cell)) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _wide(text: str) -> int:
    return sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


_STYLE: Final = Path(__file__).with_name("report.css")


def as_html(title: str, parts: Sequence[Part], language: str) -> str:
    """One file without anything from elsewhere."""
    body = "".join(f"<h2>{escape(part.title)}</h2>{_sentences(part)}{_table(part)}" for part in parts)
    signs = ("编制：", "审核：", "日期：") if language == "zh" else ("made by:", "checked by:", "date:")
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE.read_text()}</style></head><body><h1>{escape(title)}</h1>{body}"
        f"<footer>{''.join(f'<span>{each}</span>' for each in signs)}</footer></body></html>\n"
    )


def _sentences(part: Part) -> str:
    return "".join(f"<p>{escape(each)}</p>" for each in part.sentences)


def _table(part: Part) -> str:
    if not part.rows:
        return ""
    head = "".join(f"<th>{escape(each)}</th>" for each in part.head)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in part.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
