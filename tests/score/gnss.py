"""Eight GNSS stations in Japan, daily east, north, up, 2009 to 2018, with the earthquake of 2011-03-11.

The noise of each component is that of its first year (MAD of differences, as an engineer would set it); the
rest is production. After the earthquake the ground moves for years, which is no false alarm: those are counted
before it, from the second year on. The series were gap-filled and cleaned by whoever published them.
"""

from __future__ import annotations

import numpy as np

from daemon.backtest.figures import poisson_interval
from edge_rules.advice.detectors import Batch, Detectors
from edge_rules.advice.messages import Advice, Channel
from tests.score.common import BASELINES, DATA, NS_PER_D, Floats, Ints, alarms, columns, limit_for, ns, table

QUAKE = ns("2011-03-11")
FIRST_YEAR = 365
COMPONENTS = ("east", "north", "up")
QUIET = 30


def stations() -> list[str]:
    return sorted(path.name for path in (DATA / "gnss_japan_neu/dataset").glob("*neu9818.csv"))


def load(name: str) -> tuple[Ints, Floats]:
    """Days (ns) and (n, 3) mm."""
    rows = [
        row
        for row in columns(f"gnss_japan_neu/dataset/{name}", 0, "lon", "lat", "ver")
        if row[0] >= ns("2009-01-01")
    ]
    return np.array([t for t, _ in rows], np.int64), np.array([x for _, x in rows])


def noise_of(x: Floats) -> float:
    d = np.diff(x[:FIRST_YEAR])
    return float(max(1.4826 * np.median(np.abs(d - np.median(d))) / np.sqrt(2.0), 0.5))


def jump_at(t: Ints, x: Floats) -> float:
    at = int(np.searchsorted(t, QUAKE))
    return float(np.median(x[at + 1 : at + 6]) - np.median(x[at - 6 : at - 1]))


def report() -> str:
    rows: list[list[object]] = []
    false = {"ours": 0} | dict.fromkeys(BASELINES, 0)
    caught: dict[str, list[tuple[float, bool]]] = {name: [] for name in false}
    years = 0.0
    for name in stations():
        t, xyz = load(name)
        jumps, cells = [], []
        quiet = slice(FIRST_YEAR, int(np.searchsorted(t, QUAKE)))
        years += (quiet.stop - quiet.start) / 365.25
        counts: dict[str, set[int]] = {method: set() for method in false}
        for component, x in zip(COMPONENTS, xyz.T, strict=True):
            jump = jump_at(t, x)
            jumps.append(f"{jump:+.0f}")
            said = ours(component, t, x)
            counts["ours"] |= {s // (QUIET * NS_PER_D) for s in said if t[quiet.start] <= s < QUAKE}
            days = [(s - QUAKE) / NS_PER_D for s in said if QUAKE <= s <= QUAKE + 30 * NS_PER_D]
            cells.append(f"{days[0]:.0f} d" if days else "-")
            caught["ours"].append((abs(jump), bool(days)))
            for method, scored in BASELINES.items():
                score = scored(x, slice(0, FIRST_YEAR))
                limit = limit_for(score[:FIRST_YEAR], 0, QUIET)
                when = t[alarms(score, limit, QUIET)]
                counts[method] |= {int(w) // (QUIET * NS_PER_D) for w in when if t[quiet.start] <= w < QUAKE}
                hit = any(QUAKE <= w <= QUAKE + 30 * NS_PER_D for w in when)
                caught[method].append((abs(jump), hit))
        for method in false:
            false[method] += len(counts[method])
        rows.append([name[:4], " / ".join(jumps), " / ".join(cells)])
    return (
        table(["station", "step east / north / up, mm", "found after"], rows)
        + "\n\n"
        + table(
            ["method", "smallest caught", "largest missed", "false alarms per station-year (95 %)"],
            [[m, *_steps(caught[m]), _rate(false[m], years)] for m in false],
        )
    )


def ours(component: str, t: Ints, x: Floats) -> list[int]:
    """When the production detectors called for an inspection."""
    sd = noise_of(x)
    advice = Advice(trend_noise=sd, trend_rate_per_day=sd / 4.0, onset=True, period_s=86400.0)
    judge = Detectors([Channel(component, "mm", advice)])
    batch = Batch(np.zeros(t.size, np.int64), t, x, x)
    return [
        int(np.datetime64(v.time[:-1], "ns").astype(np.int64))
        for v in judge.judge("s", 1, batch)
        if v.condition == "present" and v.urgency is not None
    ]


def _steps(caught: list[tuple[float, bool]]) -> tuple[str, str]:
    hit = min((size for size, found in caught if found), default=float("nan"))
    miss = max((size for size, found in caught if not found), default=float("nan"))
    return tuple("-" if np.isnan(size) else f"{size:.1f} mm" for size in (hit, miss))  # type: ignore[return-value]


def _rate(count: int, years: float) -> str:
    low, high = poisson_interval(count)
    return f"{count / years:.2f} ({low / years:.2f} to {high / years:.2f})"
