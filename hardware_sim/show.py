"""What the demo shows: a live table on a terminal, plain lines where there is none."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


LINE_EVERY_S = 2.5
ALARM_LINES = 10
_STYLE = {
    "none": "green",
    "blue": "bold blue",
    "yellow": "bold yellow",
    "orange": "bold orange1",
    "red": "bold red",
}


@dataclass(slots=True)
class Seen:
    """What the demo knows at this moment, from the outside."""

    readings: dict[str, dict[str, Any]] = field(default_factory=dict)
    polled: set[str] = field(default_factory=set)
    count: int = 0
    alarms: dict[str, dict[str, Any]] = field(default_factory=dict)
    worst: str = "none"
    metrics: dict[str, float] = field(default_factory=dict)
    platform: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)


class Show(Protocol):
    def started(self, listen: str, facts: dict[str, Any], run_dir: Path) -> None: ...
    def alarm(self, alarm: dict[str, Any]) -> None: ...
    def refresh(self, seen: Seen, speed: float) -> None: ...
    def note(self, text: str) -> None: ...


@contextlib.contextmanager
def open_show(channels: dict[str, str], facts: dict[str, Any]) -> Iterator[Show]:
    """The table where standard output is a terminal, else lines."""
    del facts
    if not sys.stdout.isatty():
        yield Lines(channels)
        return
    console = Console()
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        yield Screen(channels, live)


def _addresses(listen: str, facts: dict[str, Any], run_dir: Path) -> list[str]:
    port = facts["platform"].rpartition(":")[2]
    page = [f"look at it    {facts['page']}"] if facts["page"] else []
    return [
        *page,
        f"instruments   {', '.join(facts['lines'].values())}",
        f"platform      mqtt://{facts['platform']}",
        f"listen in     mosquitto_sub -V mqttv5 -p {port} -t 'pondwatch/#' -v",
        f"metrics       http://{listen}/metrics",
        f"ask it        PONDWATCH_RUN={run_dir} .venv/bin/pondwatch alarms list",
    ]


def _pond_level(metrics: dict[str, float]) -> str:
    names = ("none", "blue", "yellow", "orange", "red")
    levels = [int(v) for k, v in metrics.items() if k.startswith("pondwatch_pond_level")]
    return names[max(levels, default=0)]


def _backlog(metrics: dict[str, float]) -> tuple[bool, int]:
    up = any(v for k, v in metrics.items() if k.startswith("pondwatch_uplink_connected"))
    return up, int(sum(v for k, v in metrics.items() if k.startswith("pondwatch_spool_unsettled_batches")))


class Lines:
    """One line every few seconds, and one for each alarm."""

    def __init__(self, channels: dict[str, str]) -> None:
        self._channels = channels
        self._next = 0.0

    def started(self, listen: str, facts: dict[str, Any], run_dir: Path) -> None:
        print("pondwatch demo: a simulated pond, a real daemon, a receiving platform")
        for line in _addresses(listen, facts, run_dir):
            print("  " + line)
        print(flush=True)

    def alarm(self, alarm: dict[str, Any]) -> None:
        print(f"  >> {alarm['level']:>6} {alarm['condition']:<7} {alarm['reason']['en']}", flush=True)

    def refresh(self, seen: Seen, speed: float) -> None:
        del speed
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LINE_EVERY_S
        up, backlog = _backlog(seen.metrics)
        values = "  ".join(
            f"{name.split('.', 1)[-1]} {_value(seen, name)} {self._channels[name]}" for name in self._chosen()
        )
        platform = "here" if up else "AWAY" if seen.metrics else "-"
        print(
            f"{now - seen.began:5.1f} s  pond {_pond_level(seen.metrics):<6}  {values}  "
            f"stored {seen.count}  platform {platform}, {backlog} to settle",
            flush=True,
        )

    def note(self, text: str) -> None:
        print(text, flush=True)

    def _chosen(self) -> list[str]:
        """The channels a person wants to see move: pond level, the first phreatic line, rain."""
        wanted = (".pond.level", ".pz01.elevation", ".rain.1h")
        return [name for end in wanted for name in self._channels if name.endswith(end)]


class Screen:
    """A table of every channel, the latest alarms below it."""

    def __init__(self, channels: dict[str, str], live: Live) -> None:
        self._channels = channels
        self._live = live
        self._alarms: list[Text] = []
        self._head: list[str] = []

    def started(self, listen: str, facts: dict[str, Any], run_dir: Path) -> None:
        self._head = _addresses(listen, facts, run_dir)

    def alarm(self, alarm: dict[str, Any]) -> None:
        line = Text(f"{alarm['time'][11:19]}  {alarm['level']:>6}  {alarm['condition']:<7}  ")
        line.stylize(_STYLE[alarm["level"]])
        line.append(f"{alarm['reason']['zh']}  {alarm['reason']['en']}")
        self._alarms = [*self._alarms, line][-ALARM_LINES:]

    def refresh(self, seen: Seen, speed: float) -> None:
        up, backlog = _backlog(seen.metrics)
        level = _pond_level(seen.metrics)
        title = Text(f" {time.monotonic() - seen.began:.0f} s at x{speed:g}   pond ")
        title.append(level, _STYLE[level])
        title.append(f"   {seen.count} readings   platform ")
        if seen.metrics:  # before that nobody knows
            title.append("here" if up else "AWAY", "green" if up else "bold red")
        title.append(f", {backlog} batches to settle")
        table = Table(title=title, title_justify="left", expand=True)
        for column in ("channel", "value", "unit", "quality", "level", "time"):
            table.add_column(column, justify="right" if column == "value" else "left")
        names = ("none", "blue", "yellow", "orange", "red")
        for name, unit in self._channels.items():
            reading = seen.readings.get(name, {})
            at = names[int(seen.metrics.get(f'pondwatch_channel_level{{channel="{name}"}}', 0))]
            table.add_row(
                name,
                _value(seen, name),
                unit,
                reading.get("quality", ""),
                Text("" if at == "none" else at, _STYLE[at]),
                reading.get("time", "")[11:19],
            )
        self._live.update(Group(*(Text(line, "dim") for line in self._head), table, *self._alarms))

    def note(self, text: str) -> None:
        self._alarms.append(Text(text, "dim"))


def _value(seen: Seen, channel: str) -> str:
    value = seen.readings.get(channel, {}).get("value")
    return "-" if value is None else f"{value:.2f}"
