"""What a history teaches: alarms per channel-year with their Poisson interval, delay, explained variance."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf
from typing import TYPE_CHECKING

from daemon.alarms import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from daemon.backtest.history import Event, History

FOUND_WITHIN_NS = 90 * 86400 * 10**9
LEVEL_RULES = ("level", "item", "pond")


@dataclass(frozen=True, slots=True)
class Rate:
    """How often one rule spoke of one channel, per year, with the exact 95 % interval."""

    channel: str
    rule: str
    alarms: int
    years: float
    per_year: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Explained:
    """How well a pore pressure follows from rain and pond level."""

    channel: str
    blocks: int
    explained_variance: float
    armed: bool


@dataclass(frozen=True, slots=True)
class Delay:
    """From a known beginning to the first alarm of that channel within 90 days; None: not found."""

    channel: str
    began_ns: int
    rule: str
    days: float | None


def poisson_interval(count: int, share: float = 0.95) -> tuple[float, float]:
    """The exact interval of a Poisson mean given one count (Garwood 1936)."""
    tail = (1.0 - share) / 2.0

    def at_most(n: int, mean: float) -> float:
        term = total = exp(-mean)
        for k in range(1, n + 1):
            term *= mean / k
            total += term
        return total

    def solve(n: int, target: float) -> float:
        low, high = 0.0, 10.0 * (count + 5)
        for _ in range(80):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if at_most(n, middle) > target else (low, middle)
        return high

    return (solve(count - 1, 1.0 - tail) if count else 0.0), solve(count, tail)


def beginnings(events: Iterable[Event]) -> Iterator[Event]:
    """What would have called somebody: a level that rises, a verdict that begins.

    A level that sinks, or is seen again after missing readings, calls nobody.
    """
    stands: dict[tuple[str, str], int] = {}
    for event in events:
        if event.rule not in LEVEL_RULES:
            if event.present:
                yield event
            continue
        before = stands.get((event.channel, event.rule), 0)
        stands[event.channel, event.rule] = LEVELS.index(event.level)
        if LEVELS.index(event.level) > before:
            yield event


def rates(history: History) -> list[Rate]:
    """One line per channel and rule that watches it, also where it said nothing."""
    counts: dict[tuple[str, str], int] = {}
    for event in beginnings(history.events):
        counts[event.channel, event.rule] = counts.get((event.channel, event.rule), 0) + 1
    longest = max((course.years for course in history.courses.values()), default=0.0)
    for table in history.site.channels:
        if table.levels is not None and table.id in history.courses:
            counts.setdefault((table.id, "level"), 0)
    found = []
    for (channel, rule), count in sorted(counts.items()):
        course = history.courses.get(channel)
        years = course.years if course else longest
        low, high = poisson_interval(count)
        found.append(
            Rate(
                channel,
                rule,
                count,
                years,
                *(number / years if years else inf for number in (count, low, high)),
            )  # fmt: skip  # noqa: RUF028
        )
    return found


def explained(history: History) -> list[Explained]:
    responses = history.detectors.responses
    found = []
    for name, record in zip(responses.ids, responses.state, strict=True):
        share = 1.0 - float(record.mse) / float(record.var_y) if record.var_y > 0.0 else 0.0
        found.append(Explained(name, int(record.n), share, bool(record.armed)))
    return found


def delays(events: Sequence[Event], began: Sequence[tuple[str, int]]) -> list[Delay]:
    """Delay of the first alarm, of whatever rule, after each known beginning."""
    found = []
    for channel, start_ns in began:
        after = (
            event
            for event in beginnings(events)
            if event.channel == channel and start_ns <= event.time_ns <= start_ns + FOUND_WITHIN_NS
        )
        first = min(after, key=lambda event: event.time_ns, default=None)
        days = None if first is None else (first.time_ns - start_ns) / 8.64e13
        found.append(Delay(channel, start_ns, first.rule if first else "", days))
    return found


def by_rule(events: Sequence[Event]) -> Mapping[str, int]:
    """Beginnings per rule."""
    counts: dict[str, int] = {}
    for event in beginnings(events):
        counts[event.rule] = counts.get(event.rule, 0) + 1
    return counts
