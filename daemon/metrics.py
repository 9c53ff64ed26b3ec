"""Every Prometheus metric, declared once, and the endpoint that serves them.

Counters and histograms are counted where things happen. What has a present state (values, ages, levels,
backlog) is read at the scrape from those who know it, so the hot path pays nothing for it.

The endpoint is our own (daemon/http.py): the library's server gives every idle connection a thread for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from daemon.http import Answer, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.metrics_core import Metric

    from daemon.http import Request

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Now(Protocol):
    """Who knows the present state: yields (metric name, label values, value)."""

    def gauges(self) -> Iterable[tuple[str, tuple[str, ...], float]]: ...


# name -> (help, labels); read at the scrape
_STATES: dict[str, tuple[str, tuple[str, ...]]] = {
    "pondwatch_device_up": ("1 while the device answers", ("line", "device")),
    "pondwatch_line_busy_ratio": ("share of the time since start that the line was in use", ("line",)),
    "pondwatch_channel_value": ("latest value; absent while bad", ("pond", "item", "channel", "unit")),
    "pondwatch_channel_age_seconds": ("since the latest good or uncertain reading", ("channel",)),
    "pondwatch_channel_period_seconds": ("how often it is to have a reading", ("channel",)),
    "pondwatch_channel_level": ("trigger level, 0 none to 4 red", ("channel",)),
    "pondwatch_item_level": ("level of an item, rolled up", ("pond", "item")),
    "pondwatch_pond_level": ("level of a pond, rolled up", ("pond",)),
    "pondwatch_section_blind": ("1 while fewer points are seen than it needs", ("pond", "section")),
    "pondwatch_alarms_open": ("alarms not closed", ("level", "response")),
    "pondwatch_alarms_overdue": ("alarms not handled by the end of their local day", ()),
    "pondwatch_spool_days_left": ("days an outage may last before anything undelivered is pushed out", ()),
    "pondwatch_spool_durable": ("0 while the disk cannot be used and batches stand in memory alone", ()),
    "pondwatch_spool_bytes": ("size of the store", ()),
    "pondwatch_spool_unsettled_batches": ("committed, not yet settled", ("uplink",)),
    "pondwatch_spool_oldest_unsettled_seconds": ("age of the oldest unsettled batch", ("uplink",)),
    "pondwatch_uplink_connected": ("1 while connected", ("uplink",)),
    "pondwatch_certificate_expires_timestamp_seconds": ("when the client certificate ends", ("uplink",)),
    "pondwatch_disk_free_bytes": ("free where the store lies", ()),
    "pondwatch_rules_up": ("1 while the rules process is connected", ()),
    "pondwatch_rules_lag_seconds": ("age of the oldest batch the rules process has not judged", ()),
    "pondwatch_clock_trusted": ("0 while the wall clock shows or did what nothing confirms", ()),
}


class Metrics:
    """The registry; one attribute for each metric that is counted as things happen."""

    def __init__(self, version: str, config_sha256: str) -> None:
        self.registry = CollectorRegistry()
        self._now: list[Now] = []
        counter = self._counter
        self.readings = counter("readings_total", "readings by quality class", ("line", "device", "quality"))
        self.poll_seconds = self._histogram(
            "poll_seconds",
            "time on the line of one poll of one device",
            ("line",),
            (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30, 120),
        )
        self.poll_overruns = counter("poll_overruns_total", "ticks without time on the line", ("line",))
        self.device_errors = counter(
            "device_errors_total", "failed transactions", ("line", "device", "reason")
        )
        self.commit_seconds = self._histogram(
            "commit_seconds",
            "time of one durable commit",
            (),
            (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2, 10),
        )
        self.uplink_rejected = counter("uplink_rejected_total", "batches refused upstream", ("uplink",))
        self.gaps = counter("gaps_total", "gaps announced", ("reason",))
        self._gauge("build_info", "version of the daemon", ("version",)).labels(version).set(1)
        self._gauge("config_info", "hash of the site file", ("sha256",)).labels(config_sha256).set(1)
        self.registry.register(_AtScrape(self._now))

    def watch(self, source: Now) -> None:
        """Have `source` asked at every scrape."""
        self._now.append(source)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _counter(self, name: str, help_: str, labels: Sequence[str]) -> Counter:
        return Counter(f"pondwatch_{name}", help_, labels, registry=self.registry)

    def _gauge(self, name: str, help_: str, labels: Sequence[str]) -> Gauge:
        return Gauge(f"pondwatch_{name}", help_, labels, registry=self.registry)

    def _histogram(self, name: str, help_: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
        return Histogram(f"pondwatch_{name}", help_, labels, buckets=buckets, registry=self.registry)


class _AtScrape:
    def __init__(self, sources: Sequence[Now]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        families = {
            name: GaugeMetricFamily(name, text, labels=labels) for name, (text, labels) in _STATES.items()
        }
        for source in self._sources:
            for name, labels, value in source.gauges():
                families[name].add_metric(labels, value)
        return families.values()


class Endpoint:
    """`GET /metrics`, `/healthz`, `/readyz`, and nothing else.

    Args:
        listen: host:port.
        metrics: what /metrics shows.
        health: sentences about what makes no progress; none means well. `/healthz` answers 503 with them.
        ready: whether the first poll of every line is done.
    """

    def __init__(
        self, listen: str, metrics: Metrics, health: Callable[[], Sequence[str]], ready: Callable[[], bool]
    ) -> None:
        self._server = Server(listen, self._answer)
        self._metrics = metrics
        self._health = health
        self._ready = ready

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            OSError: the port is taken.
        """
        await self._server.run()

    async def _answer(self, request: Request) -> Answer:
        if request.path == "/metrics":
            return Answer("200 OK", self._metrics.text(), _TEXT)
        if request.path == "/healthz":
            ills = self._health()
            return Answer("503 Service Unavailable" if ills else "200 OK", "\n".join(ills or ["ok"]) + "\n")
        if request.path == "/readyz":
            return Answer("200 OK" if self._ready() else "503 Service Unavailable", "\n")
        return Answer("404 Not Found", "there are /metrics, /healthz and /readyz\n")
