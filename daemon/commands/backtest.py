"""Run levels and detectors over history, exactly as they run in production, and say how they would have done.

DATA.csv has the columns time, channel, value, in the order of time. What is written has the columns time,
channel, rule, score, level, quality, one line for each beginning and end: rule `level`, `item`, `pond` with
the colour, or a detector with its urgency; quality is good, suspect (a detector doubts the data) or
unverified.
"""

from __future__ import annotations

import csv
import sys
import time
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from daemon.commands.surface import CommandError, load_site, print_json, print_table
from daemon.reading import rfc3339

if TYPE_CHECKING:
    import argparse

    from daemon.backtest.figures import Delay, Explained, Rate
    from daemon.backtest.history import History

COLUMNS = ("time", "channel", "rule", "score", "level", "quality")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA.csv", help="time,channel,value")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="where what was said is written")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="series, levels and verdicts")
    parser.add_argument(
        "--began", type=Path, metavar="FILE.csv", help="time,channel of known beginnings: the delay is told"
    )


def run(options: argparse.Namespace) -> int:
    site = load_site(options)
    from daemon.backtest import figures, picture  # noqa: PLC0415 -- numpy and numba, after the site file is well
    from daemon.backtest.history import History, HistoryError  # noqa: PLC0415

    history = History(site)
    began = time.process_time()
    try:
        history.run(options.data)
        known = _beginnings(options.began, site.site.timezone) if options.began else []
    except HistoryError as error:
        raise CommandError(str(error), 2) from None
    took_s = time.process_time() - began
    if not history.courses:
        raise CommandError(f"{options.data}: no reading in it", 1)
    if options.out:
        _write(history, options.out)
    left_out = picture.draw(history, options.picture) if options.picture else 0
    rates, explained = figures.rates(history), figures.explained(history)
    delays = figures.delays(history.events, known)
    readings = sum(course.readings for course in history.courses.values())
    if options.json:
        print_json(
            {
                "readings": readings,
                "cpu_s": took_s,
                "rates": rates,
                "explained": explained,
                "delays": delays,
            }  # fmt: skip  # noqa: RUF028
        )
        return 0
    print(f"{readings} readings of {len(history.courses)} channels in {took_s:.1f} s of CPU")
    _print(rates, explained, delays)
    if left_out:
        print(f"{left_out} channels did not fit the picture", file=sys.stderr)
    return 0


def _print(rates: list[Rate], explained: list[Explained], delays: list[Delay]) -> None:
    if rates:
        print_table(
            ("channel", "rule", "alarms", "years", "per year", "95 %"),
            [
                (
                    r.channel,
                    r.rule,
                    str(r.alarms),
                    f"{r.years:.2f}",
                    f"{r.per_year:.2f}",
                    f"{r.low:.2f}..{r.high:.2f}",
                )
                for r in rates
            ],
        )
    else:
        print("nothing was said")
    for its in explained:
        state = "armed" if its.armed else "not armed: below 90 %, or too little history"
        print(
            f"{its.channel}: rain and pond level explain {its.explained_variance:.1%} of its variance over "
            f"{its.blocks} blocks; {state}"
        )
    for delay in delays:
        when = (
            "not found within 90 days"
            if delay.days is None
            else f"found after {delay.days:.2f} d by {delay.rule}"
        )
        print(f"{delay.channel} {rfc3339(delay.began_ns)}: {when}")


def _write(history: History, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for event in history.events:
            score = f"{event.score:.6g}" if isfinite(event.score) else ""
            rows.writerow(
                (rfc3339(event.time_ns), event.channel, event.rule, score, event.level, event.quality)
            )


def _beginnings(path: Path, timezone: str) -> list[tuple[str, int]]:
    zone = ZoneInfo(timezone)
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            rows = [(row["channel"], datetime.fromisoformat(row["time"])) for row in csv.DictReader(file)]
        except (KeyError, ValueError):
            raise CommandError(f"{path}: needs the columns time and channel", 2) from None
    return [
        (name, round((t if t.tzinfo else t.replace(tzinfo=zone)).timestamp() * 1e3) * 10**6)
        for name, t in rows
    ]
