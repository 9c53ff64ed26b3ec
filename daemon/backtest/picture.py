"""A picture of a history as SVG: one band per channel with its course, its levels and what was said when."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from daemon.backtest.figures import beginnings
from edge_rules.law.levels import COLOURS as LEVELS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from daemon.backtest.history import Course, Event, History
    from daemon.config import ChannelTable

WIDTH, BAND, LEFT, RIGHT, TOP = 1200, 160, 70, 20, 28
MOST_CHANNELS = 30
COLOURS = {"blue": "#2b6cb0", "yellow": "#d69e00", "orange": "#dd6b20", "red": "#c53030"}
ADVICE = {"watch": "#805ad5", "inspect today": "#805ad5", "inspect now": "#b83280"}
TICKS = 8


def draw(history: History, path: Path) -> int:
    """Write the picture; how many channels did not fit."""
    shown = [
        (table, history.courses[table.id]) for table in history.site.channels if table.id in history.courses
    ]
    rest = max(0, len(shown) - MOST_CHANNELS)
    shown = shown[:MOST_CHANNELS]
    first = min(course.first_ns for _, course in shown)
    last = max(max(course.last_ns for _, course in shown), first + 1)  # noqa: PLW3301
    height = TOP + len(shown) * BAND + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '  # noqa: ISC004
        f'font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for at, (table, course) in enumerate(shown):
        events = [event for event in history.events if event.channel == table.id]
        parts += _band(TOP + at * BAND, table, course, events, (first, last))
    parts += _axis(height - 22, first, last)
    path.write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")
    return rest


def _band(
    top: int, table: ChannelTable, course: Course, events: Sequence[Event], span: tuple[int, int]
) -> list[str]:
    levels = _levels(table)
    values = [x for x in course.x if isfinite(x)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    near = [limit for _, limit in levels if low - (high - low) <= limit <= high + (high - low)]
    low, high = min([low, *near]), max([high, *near])
    room = (high - low or 1.0) * 0.05
    low, high = low - room, high + room

    def y(value: float) -> float:
        return top + 18 + (BAND - 34) * (high - value) / (high - low)

    parts = [
        f'<text x="{LEFT}" y="{top + 10}" font-weight="bold">{escape(table.id)} ({escape(table.unit)})</text>'
    ]
    for value in (low + room, high - room):
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.5g}</text>')  # noqa: PERF401
    for colour, limit in levels:
        if low <= limit <= high:
            parts.append(
                f'<path d="M{LEFT} {y(limit):.1f}H{WIDTH - RIGHT}" stroke="{COLOURS[colour]}" '
                f'stroke-dasharray="6 4"/>'
            )
    parts.append(f'<path d="{_line(course, span, y)}" fill="none" stroke="#2d3748" stroke-width="0.8"/>')
    return parts + [_mark(event, _x(event.time_ns, span), top) for event in beginnings(events)]


def _line(course: Course, span: tuple[int, int], y: object) -> str:
    """Broken where a reading is missing."""
    assert callable(y)
    pieces, pen = [], "M"
    for t, x in zip(course.t, course.x, strict=True):
        if not isfinite(x):
            pen = "M"
            continue
        pieces.append(f"{pen}{_x(t, span):.1f} {y(x):.1f}")
        pen = "L"
    return "".join(pieces)


def _mark(event: Event, x: float, top: int) -> str:
    colour = COLOURS.get(event.level) or ADVICE.get(event.level, "#718096")
    title = escape(f"{_day(event.time_ns)} {event.rule}: {event.text}")
    return (
        f'<path d="M{x:.1f} {top + 14}v{BAND - 26}" stroke="{colour}" stroke-width="1.2" opacity="0.7">'
        f"<title>{title}</title></path>"
    )


def _levels(table: ChannelTable) -> list[tuple[str, float]]:
    found = []
    for side in table.levels.sides() if table.levels else ():
        for level in LEVELS:
            limit = side.limit(level)
            if limit is not None:
                found.append((level.text, limit))
    return found


def _axis(y: int, first: int, last: int) -> list[str]:
    return [
        f'<text x="{_x(t, (first, last)):.0f}" y="{y}" text-anchor="middle">{_day(t)}</text>'
        for t in (first + (last - first) * k // TICKS for k in range(TICKS + 1))
    ]


def _x(t: int, span: tuple[int, int]) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (t - span[0]) / (span[1] - span[0])


def _day(t: int) -> str:
    return f"{datetime.fromtimestamp(t / 1e9, UTC):%Y-%m-%d}"
