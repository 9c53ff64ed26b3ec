"""The page as HTML: what the core said and what the store has. No script, nothing from elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from daemon.page import tables
from daemon.page.history import DAY_NS, HOUR_NS, STEP_NS
from daemon.page.svg import Tube, Water, against_limits, cross_section, dial, rain_bars
from daemon.reading import parse_rfc3339
from edge_rules.law.derived import Horizontal, PiezometricElevation

if TYPE_CHECKING:
    from daemon.config import ChannelTable, Pond, Section, Site
    from daemon.modes import Maintenance, Mute
    from daemon.page.core import Seen
    from daemon.page.history import History
    from daemon.page.words import Say
    from daemon.present import ChannelNow

REFRESH_S: Final = 10


class View:
    """One look, drawn in one language.

    Args:
        site: the site file the page was started with.
        seen: what the core said.
        history: the last day, out of the store.
        now_ns: this moment as the core has it, or this machine where the core does not answer.
    """

    def __init__(self, site: Site, seen: Seen, history: History, now_ns: int, say: Say) -> None:
        self._site = site
        self._seen = seen
        self._history = history
        self._now_ns = now_ns
        self._zone = ZoneInfo(site.site.timezone)
        self._say = say
        present = seen.present
        self._now: dict[str, ChannelNow] = {each.id: each for each in present.channels} if present else {}
        self._levels = dict(present.ponds) if present else {}

    def html(self) -> str:
        say = self._say
        parts = [
            self._head(),
            *self._notices(),
            "<main>",
            *(self._pond(pond) for pond in self._site.ponds),
            tables.alarms(self._seen, self._local_text, say),
            tables.lines(self._site, self._seen, say),
            tables.delivery(self._seen, say),
            tables.channels(self._site, self._now, self._local_text, say),
            f"</main><footer>{say('limits')}</footer></body></html>",
        ]
        return "".join(parts)

    def _head(self) -> str:
        say, site = self._say, self._site.site
        name, other = escape(site.name or site.id), say.either("en", "zh")
        return (
            f'<!doctype html><html lang="{say.language}"><head><meta charset="utf-8">'
            f'<meta http-equiv="refresh" content="{REFRESH_S}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{name} · {say("title")}</title><link rel="icon" href="/icon.svg">'
            '<link rel="stylesheet" href="/page.css"></head><body>'
            f"<header><div><h1>{name}</h1><p>{say('title')} · {escape(site.id)} · "
            f"{say('gateway')} {escape(site.gateway)}</p></div>"
            f'<p class="when"><strong>{self._local(self._now_ns)}</strong> {escape(site.timezone)} '
            f'<a href="/?lang={other}" hreflang="{other}">{say("other")}</a></p></header>'
        )

    def _local(self, time_ns: int) -> str:
        return f"{datetime.fromtimestamp(time_ns / 1e9, UTC).astimezone(self._zone):%Y-%m-%d %H:%M:%S}"

    def _local_text(self, rfc3339: str) -> str:
        return self._local(parse_rfc3339(rfc3339))

    # -- what must be seen first ---------------------------------------------------------------------

    def _notices(self) -> list[str]:
        say, present, left = self._say, self._seen.present, self._seen.left
        found = []
        if present is None:
            found.append(("red", f"{say('no_core')} ({self._seen.why})"))
        if present is not None and present.mode != "real":
            found.append(("plain", say(f"mode_{present.mode}")))
        if present is not None and present.shadow:
            found.append(("plain", say("shadow")))
        if left.drill is not None:
            found.append(
                ("plain", f"{say('drill')}: {left.drill.pond} {say(left.drill.level)}, {left.drill.reason}")
            )
        if present is not None:
            found += [("red", f"{say('ill')}: {ill}") for ill in present.ills]
            if present.clock_why:
                found.append(("red", f"{say('clock')} {say('not_trusted')}: {present.clock_why}"))
        found += [("plain", self._order("maintained", order.target, order)) for order in left.maintenance]
        found += [("plain", self._order("muted", order.pond, order)) for order in left.muted]
        return [f'<p class="notice {css}">{escape(words)}</p>' for css, words in found]

    def _order(self, word: str, where: str, order: Maintenance | Mute) -> str:
        until = f"{self._say('until')} {self._local(order.until_ns)}"
        return f"{self._say(word)}: {where}, {order.by}, {order.reason}, {until}"

    # -- one pond ------------------------------------------------------------------------------------

    def _pond(self, pond: Pond) -> str:
        say = self._say
        level = self._levels.get(pond.id, "unknown")
        present = self._seen.present
        items = [(item, its) for where, item, its in present.items if where == pond.id] if present else []
        chips = "".join(f"<li>{say(item)} {tables.chip(its, say)}</li>" for item, its in items)
        title = escape(pond.name or pond.id)
        return (
            f'<section class="pond" id="pond-{escape(pond.id)}"><h2>{title} '
            f"<small>{say(pond.kind)} · {say('grade')} {pond.grade}</small> "
            f"{tables.chip(level, say, 'big')}</h2>"
            f'<ul class="items">{chips}</ul>'
            + "".join(
                self._section(pond, section) for section in self._site.sections if section.pond == pond.id
            )
            + self._vectors(pond)
            + self._trends(pond)
            + "</section>"
        )

    def _of(self, pond: Pond) -> list[ChannelTable]:
        return [channel for channel in self._site.channels if channel.pond == pond.id]

    def _value(self, channel: str) -> float | None:
        now = self._now.get(channel)
        return now.value if now else None

    def _limits(self, channel: str) -> dict[str, float]:
        now = self._now.get(channel)
        return now.limits if now else {}

    def _level(self, channel: str) -> str:
        now = self._now.get(channel)
        return now.level if now else "unknown"

    def _section(self, pond: Pond, section: Section) -> str:
        tubes = [
            Tube(
                channel.monitoring_point or channel.id,
                channel.derive.tip_elevation_m,
                self._value(channel.id),
                self._level(channel.id),
                self._limits(channel.id),
                channel.along_m,
            )
            for channel in self._of(pond)
            if channel.section == section.id and isinstance(channel.derive, PiezometricElevation)
        ]
        if not tubes:
            return ""
        ponds = [
            c.id for c in self._of(pond) if c.item == "pond-level" and c.unit == "m" and c.derive is None
        ]
        water = Water(self._value(ponds[0]), self._level(ponds[0]), self._limits(ponds[0])) if ponds else None
        say = self._say
        name = section.name or f"{say('section')} {section.id}"
        even = "" if all(tube.along_m is not None for tube in tubes) else f"<p class=hint>{say('even')}</p>"
        drawing = cross_section(tubes, water, section.outline, say, f"{name} {say('phreatic-line')}")
        return tables.figure(f"{escape(name)} · {say('phreatic-line')}", drawing + even)

    def _vectors(self, pond: Pond) -> str:
        dials = [
            self._dial(channel, channel.derive)
            for channel in self._of(pond)
            if isinstance(channel.derive, Horizontal)
        ]
        if not dials:
            return ""
        return tables.figure(f"{self._say('vectors')}, mm", f"<div class=dials>{''.join(dials)}</div>")

    def _dial(self, channel: ChannelTable, of: Horizontal) -> str:
        say = self._say
        azimuths = {s.id: s.downstream_azimuth_deg for s in self._site.sections if s.pond == channel.pond}
        east, north = self._value(of.east), self._value(of.north)
        ups = [
            each.id
            for each in self._site.channels
            if each.monitoring_point == channel.monitoring_point
            and each.pond == channel.pond
            and each.source.endswith(".up")
        ]
        rows = [
            (say("east_mm"), east),
            (say("north_mm"), north),
            *((say("up_mm"), self._value(up)) for up in ups),
        ]
        listed = "".join(f"<dt>{words}</dt><dd>{tables.number(value, 1)}</dd>" for words, value in rows)
        name = channel.monitoring_point or channel.id
        drawing = dial(east, north, self._limits(channel.id), azimuths.get(channel.section), say, name)
        chip = tables.chip(self._level(channel.id), say)
        return f"<div><h3>{escape(name)} {chip}</h3>{drawing}<dl>{listed}</dl></div>"

    # -- the last day --------------------------------------------------------------------------------

    def _trends(self, pond: Pond) -> str:
        mine = {channel.id for channel in self._of(pond)}
        hours = self._hours()
        figures = []
        for channel, sums in self._history.rain_mm.items():
            if channel in mine:
                figures.append(
                    self._trend(
                        "rainfall", channel, rain_bars(sums, hours, self._say, channel) if sums else ""
                    )
                )
        for channel, points in self._history.lines.items():
            if channel in mine:
                limits = self._limits(channel)
                drawn = (
                    against_limits(points, limits, hours, STEP_NS, self._say, channel) if _any(points) else ""
                )
                figures.append(self._trend("pond-level", channel, drawn))
        return "".join(figures)

    def _trend(self, item: str, channel: str, drawing: str) -> str:
        say = self._say
        shown = drawing or f"<p class=hint>{say('no_history')}</p>"
        return tables.figure(f"{say(item)} · {escape(channel)} · {say('last_day')}", shown)

    def _hours(self) -> list[tuple[int, str]]:
        """The beginnings of the last 24 hours, each with its hour of the day, every third written."""
        last = self._now_ns - self._now_ns % HOUR_NS
        begins = range(last - DAY_NS + HOUR_NS, last + 1, HOUR_NS)
        hours = [
            (begin, datetime.fromtimestamp(begin / 1e9, UTC).astimezone(self._zone).hour) for begin in begins
        ]
        return [(begin, f"{hour:02d}" if hour % 3 == 0 else "") for begin, hour in hours]


def _any(points: dict[int, float | None]) -> bool:
    return any(value is not None for value in points.values())
