"""Drawings of the page as SVG: a cross-section, displacement dials, rain, a line against its limits.

Every drawing is text in, text out. Colours come from the style sheet by class; what a colour says is said in
a word or a number too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from daemon.page.words import Say

WIDTH: Final = 1000.0
LEVELS: Final = ("blue", "yellow", "orange", "red")


@dataclass(frozen=True, slots=True)
class Tube:
    """A piezometer of a section; `head_m` None where nothing is known, `along_m` None where unplaced."""

    name: str
    tip_m: float
    head_m: float | None
    level: str
    limits: Mapping[str, float]
    along_m: float | None


@dataclass(frozen=True, slots=True)
class Water:
    """The pond beside the section."""

    level_m: float | None
    level: str
    limits: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of numbers onto a range of the drawing."""

    low: float
    high: float
    at_low: float
    at_high: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.at_low + share * (self.at_high - self.at_low)


def nice_steps(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers from low to high, about `most` of them."""
    raw = (high - low) / most or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= raw)
    first = math.ceil(low / step)
    return [n * step for n in range(first, math.floor(high / step) + 1)]


def text(x: float, y: float, words: str, css: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def rect(x: float, y: float, width: float, height: float, css: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{css}"/>'


def path(points: Sequence[tuple[float, float]], css: str, *, closed: bool = False) -> str:
    drawn = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{drawn}{"Z" if closed else ""}" class="{css}"/>'


def _svg(height: float, body: Sequence[str], css: str, label: str, width: float = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" class="{css}" role="img" aria-label="{escape(label)}">'
        f"{''.join(body)}</svg>"
    )


# -- cross-section -----------------------------------------------------------------------------------

_HEIGHT, _TOP, _BOTTOM, _LEFT, _RIGHT = 400.0, 78.0, 380.0, 64.0, 916.0
_WORD = 15.0  # height of a line of words
_POND = 150.0  # width of the pond beside the first point


def cross_section(
    tubes: Sequence[Tube], water: Water | None, outline: Sequence[tuple[float, float]], say: Say, label: str
) -> str:
    """The section's piezometers with the phreatic line through their heads, each against its limits."""
    placed = all(tube.along_m is not None for tube in tubes)
    tubes = sorted(tubes, key=lambda tube: tube.along_m or 0.0) if placed else tubes
    shown = outline if placed else ()
    y = _elevations(tubes, water, shown)
    alongs = [tube.along_m if placed else float(n) for n, tube in enumerate(tubes)]
    xs = _places([each or 0.0 for each in alongs], [along for along, _ in shown])
    body = [_grid(y)]
    if shown:
        surface = [(xs(along), y(elevation)) for along, elevation in shown]
        body.append(
            path([(surface[0][0], _BOTTOM), *surface, (surface[-1][0], _BOTTOM)], "soil", closed=True)
        )
    if water is not None:
        body += _pond(water, y, xs(alongs[0] or 0.0), say)
    at = [(tube, xs(along or 0.0)) for tube, along in zip(tubes, alongs, strict=True)]
    body += _wet(at, y)
    body += _limit_lines(at, y, say)
    body += _phreatic(at, y)
    for tube, x in at:
        body += _tube(tube, x, y)
    body.append(text(8, _TOP - 14, say("elevation"), "hint", "start"))
    return _svg(_HEIGHT, body, "section", label)


def _elevations(tubes: Sequence[Tube], water: Water | None, outline: Sequence[tuple[float, float]]) -> Axis:
    known = [each for tube in tubes for each in (tube.tip_m, tube.head_m, *tube.limits.values())]
    known += [elevation for _, elevation in outline]
    if water is not None:
        known += [water.level_m, *water.limits.values()]
    given = [each for each in known if each is not None]
    low, high = min(given), max(given)
    margin = max(0.05 * (high - low), 0.5)
    return Axis(low - margin, high + margin, _BOTTOM, _TOP)


def _places(alongs: Sequence[float], outline: Sequence[float]) -> Axis:
    low, high = min([*alongs, *outline]), max([*alongs, *outline])
    if low == high:
        low, high = low - 1, high + 1
    first = _LEFT + (20.0 if outline else _POND + 60)
    return Axis(low, high, first, _RIGHT - (20.0 if outline else 50.0))


def _grid(y: Axis) -> str:
    rows = nice_steps(y.low, y.high)
    return "".join(
        line(_LEFT, y(m), _RIGHT, y(m), "grid") + text(_LEFT - 8, y(m) + 4, f"{m:g}", "tick", "end")
        for m in rows
    )


def _pond(water: Water, y: Axis, first_x: float, say: Say) -> list[str]:
    right = max(_LEFT + 90, min(_LEFT + _POND, first_x - 40))
    body = []
    if water.level_m is not None:
        top = y(water.level_m)
        body.append(rect(_LEFT, top, right - _LEFT, _BOTTOM - top, "water"))
        body.append(line(_LEFT, top, right, top, "surface"))
    body += [line(_LEFT, y(m), right, y(m), f"limit {colour}") for colour, m in water.limits.items()]
    body += _apart([(right + 5, y(m), f"{m:g}", colour) for colour, m in water.limits.items()])
    x = (_LEFT + right) / 2
    body.append(text(x, 22, say("pond-level"), "name"))
    return [*body, _figure(x, water.level_m, water.level)]


def _figure(x: float, value_m: float | None, level: str) -> str:
    shown = "?" if value_m is None else f"{value_m:.2f}"
    return text(x, 52, shown, f"figure {'bad' if value_m is None else level}")


def _limit_lines(at: Sequence[tuple[Tube, float]], y: Axis, say: Say) -> list[str]:
    """Each level's limits joined from point to point, and its word at the last one that has it."""
    body: list[str] = []
    words: list[tuple[float, float, str, str]] = []
    for colour in LEVELS:
        here = [(x, y(tube.limits[colour])) for tube, x in at if colour in tube.limits]
        body += [line(*a, *b, f"limit {colour}") for a, b in pairwise(here)]
        body += [line(x - 20, m, x + 20, m, f"limit here {colour}") for x, m in here]
        if here:
            words.append((here[-1][0] + 28, here[-1][1], say(colour), colour))
    return [*body, *_apart(words)]


def _apart(words: Sequence[tuple[float, float, str, str]]) -> list[str]:
    """Words beside their heights, moved up where they would lie on each other."""
    taken: list[float] = []
    for _, at, _, _ in sorted(words, key=lambda each: -each[1]):
        taken.append(min(at, taken[-1] - _WORD) if taken else at)
    heights = zip(sorted(words, key=lambda each: -each[1]), taken, strict=True)
    return [text(x, at + 4, word, f"word {colour}", "start") for (x, _, word, colour), at in heights]


def _runs(at: Sequence[tuple[Tube, float]]) -> Iterator[tuple[float, float, float, float]]:
    """Neighbours whose heads are both known: place and head of one, then of the other."""
    for (a, ax), (b, bx) in pairwise(at):
        if a.head_m is not None and b.head_m is not None:
            yield ax, a.head_m, bx, b.head_m


def _wet(at: Sequence[tuple[Tube, float]], y: Axis) -> list[str]:
    return [
        path([(ax, y(a)), (bx, y(b)), (bx, _BOTTOM), (ax, _BOTTOM)], "wet", closed=True)
        for ax, a, bx, b in _runs(at)
    ]


def _phreatic(at: Sequence[tuple[Tube, float]], y: Axis) -> list[str]:
    """The line through the heads; where one is not known it is broken."""
    return [line(ax, y(a), bx, y(b), "phreatic") for ax, a, bx, b in _runs(at)]


def _tube(tube: Tube, x: float, y: Axis) -> list[str]:
    body = [
        line(x, _TOP - 16, x, y(tube.tip_m), "tube"),
        f'<circle cx="{x:.1f}" cy="{y(tube.tip_m):.1f}" r="4" class="tip"/>',
        text(x, 22, tube.name, "name"),
        _figure(x, tube.head_m, tube.level),
    ]
    if tube.head_m is not None:
        body.append(f'<circle cx="{x:.1f}" cy="{y(tube.head_m):.1f}" r="7" class="head {tube.level}"/>')
    return body


# -- displacement ------------------------------------------------------------------------------------

_DIAL = 260.0


def dial(
    east: float | None,
    north: float | None,
    limits: Mapping[str, float],
    azimuth_deg: float | None,
    say: Say,
    label: str,
) -> str:
    """The horizontal displacement as a vector seen from above, north up, with a ring at each limit."""
    centre, radius = _DIAL / 2, _DIAL / 2 - 24
    moved = None if east is None or north is None else math.hypot(east, north)
    reach = max([*limits.values(), (moved or 0.0) * 1.1]) or 1.0
    scale = radius / reach
    body = [
        line(centre - radius, centre, centre + radius, centre, "grid"),
        line(centre, centre - radius, centre, centre + radius, "grid"),
        text(centre, 14, say("north"), "hint"),
    ]
    for n, (colour, limit) in enumerate(limits.items()):
        body.append(f'<circle cx="{centre}" cy="{centre}" r="{limit * scale:.1f}" class="ring {colour}"/>')
        turned = math.radians(100 + 22 * n)  # each number at another side of its ring
        x, y = centre + limit * scale * math.sin(turned), centre - limit * scale * math.cos(turned)
        body.append(text(x + 3, y + 5, f"{limit:g}", f"word {colour}", "start"))
    if azimuth_deg is not None:
        turned = math.radians(azimuth_deg)
        x, y = centre + (radius + 12) * math.sin(turned), centre - (radius + 12) * math.cos(turned)
        body.append(line(centre, centre, x, y, "downstream"))
        body.append(text(x, y + 4, say("downstream"), "hint"))
    if moved is None:
        body.append(text(centre, centre + 10, "?", "figure bad"))
    else:
        assert east is not None
        assert north is not None
        body.append(_arrow(centre, centre + east * scale, centre - north * scale))
    return _svg(_DIAL, body, "dial", label, _DIAL)


def _arrow(centre: float, x: float, y: float) -> str:
    length = math.hypot(x - centre, y - centre)
    if length < 4:  # noqa: PLR2004 -- too short for a head
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="tip"/>'
    ux, uy = (x - centre) / length, (y - centre) / length
    size = min(13.0, length)
    left = (x - size * ux - size * 0.5 * uy, y - size * uy + size * 0.5 * ux)
    right = (x - size * ux + size * 0.5 * uy, y - size * uy - size * 0.5 * ux)
    return line(centre, centre, x - ux * size * 0.8, y - uy * size * 0.8, "arrow") + path(
        [(x, y), left, right], "tip", closed=True
    )


# -- against time ------------------------------------------------------------------------------------

_CHART, _CHART_TOP, _CHART_BOTTOM, _CHART_RIGHT = 190.0, 16.0, 160.0, 884.0


def rain_bars(sums_mm: Mapping[int, float], hours: Sequence[tuple[int, str]], say: Say, label: str) -> str:
    """Rain of each hour (its beginning -> sum); an hour of which nothing is stored has no bar and no zero."""
    high = max([*sums_mm.values(), 1.0])
    y = Axis(0.0, high * 1.05, _CHART_BOTTOM, _CHART_TOP)
    body = [_rows(y)]
    wide = (_CHART_RIGHT - _LEFT) / len(hours)
    for n, (hour, words) in enumerate(hours):
        x = _LEFT + n * wide
        if hour in sums_mm:
            top = y(sums_mm[hour])
            body.append(rect(x + 2, top, wide - 4, max(_CHART_BOTTOM - top, 1), "bar"))
            if sums_mm[hour] >= 0.05:  # noqa: PLR2004 -- else it reads 0.0
                body.append(text(x + wide / 2, top - 4, f"{sums_mm[hour]:.1f}", "small"))
        else:
            body.append(text(x + wide / 2, _CHART_BOTTOM - 5, "·", "hint"))
        body.append(text(x + wide / 2, _CHART_BOTTOM + 18, words, "tick"))
    return _svg(_CHART, [*body, text(8, 12, say("per_hour"), "hint", "start")], "chart", label)


def against_limits(
    points: Mapping[int, float | None],
    limits: Mapping[str, float],
    hours: Sequence[tuple[int, str]],
    step_ns: int,
    say: Say,
    label: str,
) -> str:
    """A quantity over the hours, broken where it is missing, with its limits as lines."""
    known = [value for value in points.values() if value is not None]
    given = [*known, *limits.values()]
    margin = max(0.08 * (max(given) - min(given)), 0.05)
    y = Axis(min(given) - margin, max(given) + margin, _CHART_BOTTOM, _CHART_TOP)
    x = Axis(hours[0][0], hours[-1][0] + 3600 * 10**9, _LEFT, _CHART_RIGHT)
    body = [_rows(y)]
    body += [text(x(hour), _CHART_BOTTOM + 18, words, "tick") for hour, words in hours]
    body += [line(_LEFT, y(limit), _CHART_RIGHT, y(limit), f"limit {c}") for c, limit in limits.items()]
    body += _apart([(_CHART_RIGHT + 6, y(limit), f"{say(c)} {limit:g}", c) for c, limit in limits.items()])
    times = sorted(points)
    for a, b in pairwise(times):
        va, vb = points[a], points[b]
        if va is not None and vb is not None and b - a <= 2 * step_ns:
            body.append(line(x(a), y(va), x(b), y(vb), "phreatic"))
    if times and (last := points[times[-1]]) is not None:
        body.append(f'<circle cx="{x(times[-1]):.1f}" cy="{y(last):.1f}" r="5" class="tip"/>')
    return _svg(_CHART, body, "chart", label)


def _rows(y: Axis) -> str:
    return "".join(
        line(_LEFT, y(v), _CHART_RIGHT, y(v), "grid") + text(_LEFT - 8, y(v) + 4, f"{v:g}", "tick", "end")
        for v in nice_steps(y.low, y.high, 5)
    )
