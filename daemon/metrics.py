"""Every Prometheus metric, declared once, and the endpoint that serves them.

Counters and histograms are counted where things happen. What has a present state (values, ages, levels,
backlog) is read at the scrape from those who know it, so the hot path pays nothing for it.

The endpoint is our own: the library's server gives every idle connection a thread for ever. This one
holds at most CONNECTIONS, each for at most DEADLINE_S and REQUEST_BYTES.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.metrics_core import Metric

CONNECTIONS = 8
DEADLINE_S = 5.0
REQUEST_BYTES = 4096
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
    "pondwatch_channel_level": ("trigger level, 0 none to 4 red", ("channel",)),
    "pondwatch_item_level": ("level of an item, rolled up", ("pond", "item")),
    "pondwatch_pond_level": ("level of a pond, rolled up", ("pond",)),
    "pondwatch_alarms_open": ("alarms not closed", ("level", "response")),
    "pondwatch_alarms_overdue": ("alarms not handled by the end of their local day", ()),
    "pondwatch_spool_days_left": ("days an outage may last before anything undelivered is pushed out", ()),
    "pondwatch_spool_durable": ("0 while the disk cannot be used and batches stand in memory alone", ()),
    "pondwatch_spool_bytes": ("size of the store", ()),
    "pondwatch_spool_unsettled_batches": ("committed, not yet settled", ("uplink",)),
    "pondwatch_spool_oldest_unsettled_seconds": ("age of the oldest unsettled batch", ("uplink",)),
    "pondwatch_uplink_connected": ("1 while connected", ("uplink",)),
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
        self._host, _, port = listen.rpartition(":")
        self._port = int(port)
        self._metrics = metrics
        self._health = health
        self._ready = ready
        self._open = 0

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            OSError: the port is taken.
        """
        server = await asyncio.start_server(self._serve, self._host, self._port, limit=REQUEST_BYTES)
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS:
                writer.transport.set_write_buffer_limits(high=0)  # drained is then: all is on its way
                async with asyncio.timeout(DEADLINE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            writer.transport.abort()  # whoever asks badly, or does not read; nobody else notices
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method != b"GET":
            return _response("405 Method Not Allowed", "only GET\n")
        if path == b"/metrics":
            return _response("200 OK", self._metrics.text(), _TEXT)
        if path == b"/healthz":
            ills = self._health()
            return _response(
                "503 Service Unavailable" if ills else "200 OK", "\n".join(ills or ["ok"]) + "\n"
            )
        if path == b"/readyz":
            return _response("200 OK" if self._ready() else "503 Service Unavailable", "\n")
        return _response("404 Not Found", "there are /metrics, /healthz and /readyz\n")


def _response(status: str, body: str | bytes, content_type: str = "text/plain; charset=utf-8") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n"
        "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data
