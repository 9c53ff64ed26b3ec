"""Stream stage, 15 min, with the technicians' flags: recall by their code, precision, false alarms.

The bounds of a window's spread (1.25 and 1.875 times the root mean square of the differences between neighbours) and
the rule of what has come back were chosen among some 200 settings by the earlier halves of these series and of the
wells: of those that halve the other alarms and lose no flag one that finds most of the spikes put into the wells. The later halves were
printed beside them, so they are not wholly unseen. Pulses of 2 cm, which MainStreet has every night and no technician
flagged, are what is left: the channel's own steps are as large in the day. A level that jumps and stays there is said
by nobody: it may be the water. Baselines get the lowest
limit that speaks as often on the first half of each series as our detectors do, and are judged like ours on
the second. What the codes mean is not published; code 10 goes by days of missing values, 5 and 4 by weeks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_rules.advice.detectors import Batch, Detectors
from edge_rules.advice.messages import Advice, Channel
from tests.score.common import BASELINES, NS_PER_D, Floats, Ints, alarms, limit_for, ns, number, opened, table

FILES = ("FranklinBasin2014", "FranklinBasin2020", "MainStreet2019", "TonyGrove2014")
QUIET = 96  # samples: a day
SLACK_NS = 2 * 3600 * 10**9
YEAR_NS = 365.25 * NS_PER_D


@dataclass(frozen=True)
class Stage:
    name: str
    t: Ints
    x: Floats
    flags: list[tuple[str, int, int]]  # code, from, to


def load(name: str) -> Stage:
    t: list[int] = []
    x: list[float] = []
    codes: list[str] = []
    with opened(f"lro_stage/{name}.csv.gz") as file:
        head = next(file).strip().split(",")
        at = head.index("stage")
        for line in file:
            row = line.strip().split(",")
            if len(row) == len(head) and row[0]:
                t.append(ns(row[0]))
                x.append(number(row[at]))
                codes.append("" if row[at + 2] in ("NULL", "") else row[at + 2])
    flags: list[tuple[str, int, int]] = []
    for when, code in zip(t, codes, strict=True):
        if not code:
            continue
        if flags and flags[-1][0] == code and when - flags[-1][2] <= SLACK_NS:
            flags[-1] = (code, flags[-1][1], when)
        else:
            flags.append((code, when, when))
    return Stage(name, np.array(t, np.int64), np.array(x), flags)


def ours(stage: Stage) -> list[tuple[str, int]]:
    advice = Advice(hampel=True, resolution=0.1, flatline_s=6 * 3600.0, noise=True, period_s=900.0)
    judge = Detectors([Channel("stage", "cm", advice)])
    # The clock of every reading, missing ones too, tells when others have fallen silent.
    batch = Batch(np.zeros(stage.t.size, np.int64), stage.t, stage.x, stage.x)
    return [
        (v.rule, int(np.datetime64(v.time[:-1], "ns").astype(np.int64)))
        for v in judge.judge("s", 1, batch)
        if v.condition == "present"
    ]


def flagged(stage: Stage, t: int) -> bool:
    return any(begin - SLACK_NS <= t <= end + SLACK_NS for _, begin, end in stage.flags)


def report() -> str:
    rows: list[list[object]] = []
    by_code: dict[str, list[bool]] = {}
    by_rule: dict[str, list[bool]] = {}
    for name in FILES:
        stage = load(name)
        half = int(stage.t[stage.t.size // 2])
        said = ours(stage)
        for rule, t in said:
            by_rule.setdefault(rule, []).append(flagged(stage, t))
        for code, begin, end in stage.flags:
            heard = any(begin - SLACK_NS <= t <= end + SLACK_NS for _, t in said)
            by_code.setdefault(code, []).append(heard)
        times = np.array([t for _, t in said], np.int64)
        rows.append([name, "ours", *_cells(stage, times, half)])
        budget = int((times < half).sum())
        first = int(np.searchsorted(stage.t, half))
        for method, scored in BASELINES.items():
            score = scored(stage.x, slice(0, first))
            limit = limit_for(score[:first], budget, QUIET)
            rows.append([name, method, *_cells(stage, stage.t[alarms(score, limit, QUIET)], half)])
    recall = [[code, len(heard), sum(heard)] for code, heard in sorted(by_code.items())]
    precision = [[rule, len(right), f"{np.mean(right):.0%}"] for rule, right in sorted(by_rule.items())]
    return (
        table(
            [
                "series",
                "method",
                "flagged events found (later half)",
                "alarms in them",
                "other alarms per year",
            ],
            rows,
        )
        + "\n\nOurs over the whole series, by the technicians' code:\n\n"
        + table(["code", "events", "found"], recall)
        + "\n\nand by detector:\n\n"
        + table(["detector", "alarms", "within a technician's flag"], precision)
    )


def _cells(stage: Stage, times: Ints, half: int) -> list[str]:
    later = [int(t) for t in times if t >= half]
    events = [(begin, end) for _, begin, end in stage.flags if end >= half]
    found = sum(any(b - SLACK_NS <= t <= e + SLACK_NS for t in later) for b, e in events)
    inside = sum(flagged(stage, t) for t in later)
    years = (int(stage.t[-1]) - half) / YEAR_NS
    share = f"{inside} of {len(later)}"
    return [f"{found} of {len(events)}", share, f"{(len(later) - inside) / years:.1f}"]
