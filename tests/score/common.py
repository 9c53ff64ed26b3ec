"""What every part of the scoreboard shares: real data, budgets, and the plain baselines.

A baseline turns a series into a score, sample by sample and without looking ahead; its limit is the lowest
that keeps to the same number of alarms on the earlier part as it is given, and is then judged on the later.
"""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import numpy as np
import numpy.typing as npt

from tests.score.rivers import RIVER, Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
NS_PER_D = 86400 * 10**9
DATA = Path(os.environ.get("PONDWATCH_DATA") or Path(__file__).parents[3] / "shared" / "data")


def opened(name: str) -> TextIO:
    path = DATA / name
    if path.suffix == ".gz":
        return cast("TextIO", gzip.open(path, "rt", encoding="utf-8-sig"))
    return path.open(encoding="utf-8-sig")


def columns(name: str, time: str | int, *values: str | int) -> Iterator[tuple[int, tuple[float, ...]]]:
    """(ns, values) of each row; what is no number is NaN."""
    with opened(name) as file:
        rows = csv.reader(file)
        head = next(rows)
        at = [column if isinstance(column, int) else head.index(column) for column in (time, *values)]
        for row in rows:
            if len(row) > max(at):
                yield ns(row[at[0]]), tuple(number(row[i]) for i in at[1:])


def ns(text: str) -> int:
    date, _, clock = text.strip().replace("T", " ").partition(" ")
    hour, _, rest = (clock or "0:00").partition(":")
    moment = datetime.fromisoformat(f"{date} {int(hour):02d}:{rest}").replace(tzinfo=UTC)
    return round(moment.timestamp() * 1e3) * 10**6


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return float("nan")
    return value if value != -9999.0 else float("nan")


def series(name: str, time: str | int, value: str | int) -> tuple[Ints, Floats]:
    rows = list(columns(name, time, value))
    return np.array([t for t, _ in rows], np.int64), np.array([x[0] for _, x in rows])


# -- baselines ------------------------------------------------------------------------------------------

Score = Callable[[Floats, slice], Floats]


def fixed_range(x: Floats, train: slice) -> Floats:
    """Distance beyond the range of the training part, in its standard deviations; from its middle before."""
    middle, sd = np.nanmedian(x[train]), np.nanstd(x[train]) or 1.0
    return cast("Floats", np.abs(x - middle) / sd)


def rate_of_change(x: Floats, train: slice) -> Floats:
    del train
    filled = hold(x)
    return np.abs(np.diff(filled, prepend=filled[0]))


def ewma_z(x: Floats, train: slice, share: float = 0.01) -> Floats:
    del train
    filled = hold(x)
    score, mean, var = np.zeros(x.size), filled[0], 0.0
    for i in range(1, x.size):
        off = filled[i] - mean
        score[i] = abs(off) / np.sqrt(var) if var > 0.0 and i > 1.0 / share else 0.0
        mean += share * off
        var = (1.0 - share) * (var + share * off * off)
    return score


def textbook_cusum(x: Floats, train: slice) -> Floats:
    """Page's CUSUM with k = 0.5 on the training part's mean and standard deviation, not whitened."""
    filled = hold(x)
    z = (filled - np.nanmean(x[train])) / (np.nanstd(x[train]) or 1.0)
    score, up, down = np.zeros(x.size), 0.0, 0.0
    for i, value in enumerate(z):
        up, down = max(0.0, up + value - 0.5), max(0.0, down - value - 0.5)
        score[i] = max(up, down)
    return score


def of_river(name: str) -> Score:
    return lambda x, train: Run(name, x[train]).scores(hold(x))


BASELINES: dict[str, Score] = {
    "fixed range": fixed_range,
    "rate of change": rate_of_change,
    "EWMA z": ewma_z,
    "textbook CUSUM": textbook_cusum,
    **{name: of_river(name) for name in RIVER},
}


def hold(x: Floats) -> Floats:
    """The last finite value where one is missing: baselines know no better."""
    at = np.where(np.isfinite(x), np.arange(x.size), 0)
    filled = x[np.maximum.accumulate(at)]
    return np.where(np.isfinite(filled), filled, np.nanmedian(x))


def alarms(score: Floats, limit: float, quiet: int) -> Ints:
    """Where alarms begin: beyond the limit, and not within `quiet` samples of the one before."""
    found: list[int] = []
    last = -quiet - 1
    for i in np.flatnonzero(score > limit):
        if i - last > quiet:
            found.append(int(i))
        last = int(i)
    return np.array(found, np.int64)


def limit_for(score: Floats, budget: int, quiet: int) -> float:
    """The lowest limit with at most `budget` alarms."""
    low, high = 0.0, float(np.nanmax(score)) * (1.0 + 1e-9) + 1e-12
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if alarms(score, middle, quiet).size <= budget else (middle, high)
    return high


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def percent(found: Sequence[float | None]) -> str:
    return f"{100.0 * sum(f is not None for f in found) / max(len(found), 1):.0f} %"


def middle(found: Sequence[float | None], unit: str = "d") -> str:
    values = [f for f in found if f is not None]
    return f"{np.median(values):.1f} {unit}" if values else "-"
