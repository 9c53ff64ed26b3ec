"""The store: commits, bytes, and thirty days offline; beside it an outbox of sqlite3 and aiomqtt.

200 channels every ten seconds, as JSON of payload version 1. The days offline are committed, packed and kept by the
store itself, with stamps of virtual time, because it takes no longer for being older; then the daemon is started on
what came of it, raises an alarm at once, and drains to a platform that verifies and receipts every batch.
`BENCH_DAYS=30` builds the whole month; without it a part is built, and the month is that part times their ratio.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from daemon.reading import rfc3339
from daemon.room import Keeping
from daemon.spool import Spool
from daemon.store import Draft, Store
from hardware_sim.broker import Broker
from hardware_sim.platform import Platform
from hardware_sim.ports import free_port
from hardware_sim.receiver import Receiver
from tests.bench import end_to_end
from tests.bench.outbox import Outbox, drain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CHANNELS = 200
EVERY_S = 10
MONTH_DAYS = 30.0
SCANS_A_DAY = 86400 // EVERY_S
COMMITS = 2000
FULL_READINGS = 2000  # what one batch holds at most
FULL_BATCHES = 4
FULL_COMMITS = 60
DRAIN_S = 20.0


@dataclass(frozen=True)
class Figures:
    """Of the store or of the plain outbox; None: it has no such thing."""

    commit_p50_ms: float
    commit_p99_ms: float
    readings_per_s: float
    bytes_per_reading: float  # of ours: once packed
    days: float
    batches: int
    loose_mb: float  # what the last hours take that are not packed yet; no more after a month
    build_s: float
    start_s: float | None
    start_empty_s: float | None
    first_alarm_s: float | None
    drained_per_s: float
    drained_mb_per_s: float

    @property
    def month_mb(self) -> float:
        return self.loose_mb + self.bytes_per_reading * MONTH_DAYS * SCANS_A_DAY * CHANNELS / 1e6

    @property
    def month_drain_s(self) -> float:
        return self.batches * MONTH_DAYS / self.days / self.drained_per_s


class Scans:
    """What 200 piezometers say, one scan after the other: raw frequencies that wander, pressures made of them."""

    def __init__(self, channels: int = CHANNELS) -> None:
        self._values = np.random.default_rng(1)
        self._raw = 2800.0 + self._values.normal(0.0, 30.0, channels)
        names = (f'"channel":"n.pz{n:03}.pressure","time":"' for n in range(channels))
        tail = '","value":{},"unit":"kPa","quality":"good","raw":{{"vw{}.freq{:02}":{}}}}}'
        rows = (f"{{{name}@{tail.format('@', n // 8, n % 8, '@')}" for n, name in enumerate(names))
        text = '"site":"bench","gateway":"gw1","readings":[' + ",".join(rows) + "]"
        self._text = text.split("@")
        self._channels = channels

    def body(self, time_ns: int) -> bytes:
        self._raw += self._values.normal(0.0, 0.02, self._channels)
        raw = np.round(self._raw, 3)
        values = np.round((raw - 2800.0) * 0.1795 + 100.0, 6).tolist()
        stamp = rfc3339(time_ns)
        parts = [""] * (2 * len(self._text) - 1)
        parts[::2] = self._text
        parts[1::6] = [stamp] * self._channels  # times, values and raw numbers by turns
        parts[3::6] = map(repr, values)
        parts[5::6] = map(repr, raw.tolist())
        return "".join(parts).encode()

    def drafts(self, first: int, count: int) -> list[Draft]:
        times = [k * EVERY_S * 10**9 for k in range(first, first + count)]
        return [Draft("readings", self.body(t), t, t, self._channels) for t in times]


def measure() -> list[Figures]:
    """Ours and the plain outbox."""
    days = float(os.environ.get("BENCH_DAYS") or 1.0)
    build = Path("build/bench/store")
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    return [asyncio.run(_ours(build, days)), asyncio.run(_plain(build))]


def table(ours: Figures, plain: Figures) -> str:
    """Ours, the plain outbox, and how they compare; then what the month was made of."""
    lines = [
        "| | store | plain outbox | ratio |",
        "|---|---|---|---|",
        _row("commit of 200 readings, p50 ms", ours.commit_p50_ms, plain.commit_p50_ms, "{:.2f}"),
        _row("commit of 200 readings, p99 ms", ours.commit_p99_ms, plain.commit_p99_ms, "{:.2f}"),
        _row("readings/s durable, 8,000 a commit", ours.readings_per_s, plain.readings_per_s, "{:,.0f}"),
        _row(
            "bytes on disk per reading once packed", ours.bytes_per_reading, plain.bytes_per_reading, "{:.1f}"
        ),
        _row("30 days offline: MB", ours.month_mb, plain.month_mb, "{:,.0f}"),
        _row("drain, batches/s", ours.drained_per_s, plain.drained_per_s, "{:,.0f}"),
        _row("drain, MB/s of payload", ours.drained_mb_per_s, plain.drained_mb_per_s, "{:.1f}"),
        _row("30 days drained, minutes", ours.month_drain_s / 60, plain.month_drain_s / 60, "{:,.1f}"),
        _row("start to first commit with the backlog, s", ours.start_s, plain.start_s, "{:.2f}"),
        _row("the same with an empty store, s", ours.start_empty_s, plain.start_empty_s, "{:.2f}"),
        _row("start to first alarm at the platform, s", ours.first_alarm_s, plain.first_alarm_s, "{:.2f}"),
    ]
    built = f"{ours.days:g} days of {ours.batches:,} batches were built in {ours.build_s:.0f} s"
    scaled = "" if ours.days == MONTH_DAYS else "; lines of 30 days are that times the ratio of days"
    return "\n".join(lines) + f"\n\n{built}{scaled}."


def _row(name: str, ours: float | None, plain: float | None, form: str) -> str:
    ratio = "" if not ours or not plain else f"{plain / ours:.2f}"
    shown = ("-" if each is None else form.format(each) for each in (ours, plain))
    return f"| {name} | {' | '.join(shown)} | {ratio} |"


# -- ours --------------------------------------------------------------------------------------------


async def _ours(build: Path, days: float) -> Figures:
    took_s, readings_per_s = await _committed(build / "commits")
    (build / "empty").mkdir()
    start_empty_s, _, _ = await _run(build / "empty", 0)
    folder = build / "backlog"
    build_s, batches, sizes, payload_bytes = await asyncio.to_thread(_backlog, folder / "store", days)
    start_s, first_alarm_s, drained_per_s = await _run(folder, batches)
    return Figures(
        *_p50_p99_ms(took_s),
        readings_per_s,
        sizes[0],
        days,
        batches,
        sizes[1],
        build_s,
        start_s,
        start_empty_s,
        first_alarm_s,
        drained_per_s,
        drained_per_s * payload_bytes / 1e6,
    )


async def _committed(folder: Path) -> tuple[list[float], float]:
    """How long each commit took that the event loop asked for, and how many readings a second could be kept."""
    took_s: list[float] = []
    scans = Scans().drafts(0, COMMITS)
    full = Scans(FULL_READINGS).drafts(COMMITS, FULL_BATCHES)
    async with Spool.open(folder, "simulated", "bench", on_commit_s=took_s.append) as spool:
        for draft in scans:
            await spool.commit([draft])
        began_s = time.perf_counter()
        for _ in range(FULL_COMMITS):
            await spool.commit(full)
        whole_s = time.perf_counter() - began_s
    return took_s[:COMMITS], FULL_COMMITS * FULL_BATCHES * FULL_READINGS / whole_s


def _backlog(folder: Path, days: float) -> tuple[float, int, tuple[float, float], float]:
    """Seconds, batches, `_sizes`, and payload bytes of a batch; packed as the core packs what is cold."""
    began_s = time.perf_counter()
    up = frozenset({"up"})
    store = Store.open(folder, "simulated", "bench", keeping=Keeping(("up",), up, up, 64 << 30))
    scans, hour, at_once = Scans(), 3600 // EVERY_S, 40
    batches = round(days * SCANS_A_DAY)
    payload_bytes = 0
    for first in range(0, batches, at_once):
        made = store.commit(scans.drafts(first, min(at_once, batches - first)))
        payload_bytes += sum(len(batch.payload) for batch in made)
        if store.wal_bytes > store.keeping.wal_bytes:
            store.checkpoint_wal()
        if first % hour == 0:
            while store.pack((first - hour) * EVERY_S * 10**9):
                pass
    store.checkpoint_wal()
    build_s = time.perf_counter() - began_s
    sizes = _sizes(store)
    store.close()
    return build_s, batches, sizes, payload_bytes / batches


def _sizes(store: Store) -> tuple[float, float]:
    """Bytes of disk pages per packed reading, and megabytes of all other pages."""
    sql = "SELECT (SELECT sum(count) FROM pack), (SELECT sum(pgsize) FROM dbstat WHERE name = 'pack')"
    ((readings, pages),) = store._db.execute(sql)
    return float(str(pages)) / float(str(readings)), (store.size_bytes() - float(str(pages))) / 1e6


async def _run(folder: Path, backlog: int) -> tuple[float, float, float]:
    """Of the daemon on that store: start to first commit, to the first alarm at the platform, batches/s drained."""
    receiver = Receiver()
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(end_to_end.modbus_server(folder))
        platform = await stack.enter_async_context(Platform(receiver))
        metrics = f"127.0.0.1:{free_port()}"
        load = end_to_end.Load("a backlog", 1, 1, 1.0, 1)
        site = end_to_end.site_file(load, folder, [port], platform.address, metrics)
        at_once = 'red = -1e30, hold = "1 s"'
        site.write_text(site.read_text().replace('red = 1e9, hold = "1 min"', at_once))
        began_s = time.monotonic()
        await stack.enter_async_context(end_to_end.core(site, folder, 1))
        start_s = await _until(lambda: end_to_end.commits(metrics), began_s)
        draining = asyncio.create_task(_drained_per_s(receiver, backlog))
        first_alarm_s = await _until(lambda: _told(receiver), began_s)
        return start_s, first_alarm_s, await draining


async def _drained_per_s(receiver: Receiver, backlog: int) -> float:
    """Batches a second from now on, until there are as many as that or `DRAIN_S` have passed."""
    before = received = receiver.summary().received
    from_s = now_s = time.monotonic()
    while received < backlog and now_s < from_s + DRAIN_S:
        await asyncio.sleep(0.05)
        received, now_s = receiver.summary().received, time.monotonic()
    return (received - before) / max(now_s - from_s, 1e-9)


async def _told(receiver: Receiver) -> int:
    return len(receiver.summary().alarms)


async def _until(look: Callable[[], Awaitable[float]], began_s: float) -> float:
    async with asyncio.timeout(120):
        while True:
            with contextlib.suppress(OSError):
                if await look():
                    return time.monotonic() - began_s
            await asyncio.sleep(0.02)


# -- plain -------------------------------------------------------------------------------------------


async def _plain(build: Path) -> Figures:
    """The same scans; its drain goes to the same transport, with nothing behind it that verifies."""
    outbox, path = Outbox(build / "outbox.db"), build / "outbox.db"
    scans = [draft.body for draft in Scans().drafts(0, COMMITS)]
    took_s = []
    for body in scans:
        began_s = time.perf_counter()
        outbox.put("readings", [body])
        took_s.append(time.perf_counter() - began_s)
    size = path.stat().st_size
    broker = Broker(lambda _client, _message: 0)
    await broker.start()
    sent, for_s = await drain(outbox, broker.address, DRAIN_S)
    broker.stop()
    full = [draft.body for draft in Scans(FULL_READINGS).drafts(0, FULL_BATCHES)]
    began_s = time.perf_counter()
    for _ in range(FULL_COMMITS):
        outbox.put("readings", full)
    whole_s = time.perf_counter() - began_s
    outbox.close()
    return Figures(
        *_p50_p99_ms(took_s),
        FULL_COMMITS * FULL_BATCHES * FULL_READINGS / whole_s,
        size / (COMMITS * CHANNELS),
        COMMITS / SCANS_A_DAY,
        COMMITS,
        0.0,
        sum(took_s),
        None,
        None,
        None,
        sent / for_s,
        sent / for_s * len(scans[0]) / 1e6,
    )


def _p50_p99_ms(took_s: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(took_s, n=100)
    return 1000 * cuts[49], 1000 * cuts[98]


def main() -> None:
    ours, plain = measure()
    print(table(ours, plain))


if __name__ == "__main__":
    main()
