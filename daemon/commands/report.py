"""The monthly return out of the store: completeness, alarms, same-day rate, mutes, changes of limits.

--season: the check before the flood season instead; --shadow: the summary of a trial run. Text on screen;
--to FILE.html or FILE.txt writes it.
"""

from __future__ import annotations

import re
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from zoneinfo import ZoneInfo

import apsw

from daemon.archive import Archive
from daemon.commands.surface import CommandError, load_site, print_json
from daemon.report import season, shadow, written
from daemon.report.figures import NS, Month, Span, collect
from daemon.state import periods_s

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from daemon.config import Site

T = TypeVar("T")
_LOOK_BACK_D = 30  # the check before the season looks at so many days


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--month", metavar="YYYY-MM", help="which month (the last one that is over)")
    parser.add_argument(
        "--season", metavar="YYYY-MM-DD", help="the check before the season that ends on this day"
    )
    parser.add_argument(
        "--shadow",
        action="store_true",
        help="the trial run: alarms in shadow and what engineers made of them",
    )
    parser.add_argument("--to", type=Path, metavar="FILE", help=".html prints on A4; .txt")
    parser.add_argument("--language", choices=("zh", "en"), default="zh")


def run(options: argparse.Namespace) -> int:
    site = load_site(options)
    if options.to is not None and options.to.suffix not in (".html", ".txt"):
        raise CommandError("--to needs a FILE that ends in .html or .txt", 2)
    zone = ZoneInfo(site.site.timezone)
    now = datetime.now(UTC).astimezone(zone)
    writer = written.Writer(site, options.language)
    if options.season:
        span = Span(round((now - timedelta(days=_LOOK_BACK_D)).timestamp()) * NS, round(now.timestamp()) * NS)
        month = _collected(site, span)
        points = season.check(site, month, now.date(), _day(options.season))
        _give(options, writer.title(month, season=True), list(writer.season(points)))
        return int(any(point.open for point in points))
    if options.shadow:
        return _trial(options, site, writer)
    month = _collected(site, Span.of_month(*_month(options.month, now.date()), zone))
    if month.first_ns is None:
        raise CommandError("the store has nothing of that month; name another with --month YYYY-MM", 1)
    _give(options, writer.title(month, season=False), list(writer.month(month)))
    return 0


def _trial(options: argparse.Namespace, site: Site, writer: written.Writer) -> int:
    trial = _read(site, shadow.collect)
    if not trial.spans:
        raise CommandError("the site never ran in shadow; [site] shadow = true begins a trial run", 1)
    name = site.site.name or site.site.id
    title = f"{name} 试运行总结" if options.language == "zh" else f"{name}: trial run"
    _give(options, title, list(writer.trial(trial)))
    return int(bool(trial.unlabelled()))


def _collected(site: Site, span: Span) -> Month:
    return _read(site, lambda archive: collect(archive, span, periods_s(site)))


def _read(site: Site, take: Callable[[Archive], T]) -> T:
    path = site.store_folder / "spool.db"
    if not path.exists():
        raise CommandError(
            f"there is no store at {path}: the core has not run yet, or [store] path differs", 3
        )
    try:
        with closing(Archive(path)) as archive:
            return take(archive)
    except apsw.Error as error:
        raise CommandError(f"{path} cannot be read: {error}", 3) from None


def _month(text: str | None, today: date) -> tuple[int, int]:
    if text is None:
        last = today.replace(day=1) - timedelta(days=1)
        return last.year, last.month
    if re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text) is None:
        raise CommandError(f"--month {text} is no month, as in 2026-11", 2)
    return int(text[:4]), int(text[5:])


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CommandError(f"--season {text} is no date, as in 2026-09-30", 2) from None


def _give(options: argparse.Namespace, title: str, parts: Sequence[written.Part]) -> None:
    if options.to is not None:
        html = options.to.suffix == ".html"
        text = written.as_html(title, parts, options.language) if html else written.as_text(title, parts)
        options.to.write_text(text, encoding="utf-8")
        print(f"{title}: {options.to}")
    elif options.json:
        print_json({"title": title, "parts": [_plain(part) for part in parts]})
    else:
        print(written.as_text(title, parts), end="")


def _plain(part: written.Part) -> dict[str, object]:
    rows = [dict(zip(part.head, row, strict=True)) for row in part.rows]
    return {"title": part.title, "sentences": list(part.sentences), "rows": rows}
