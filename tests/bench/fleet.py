"""What a fleet costs who receives it: real gateways' uplinks, one mosquitto, two consumers, PostgreSQL.

First a backlog as after an outage, as fast as it goes; then gateways that live from day to day, for the time from a
reading to its row. CPU is what the kernel charged each program, children and all. The gateways share the machine
with those who receive, so the rate is what all of it does together, and CPU per batch is what to plan with.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.fault.way import MOSQUITTO, Mosquitto
from tests.system.fleet import Consumer, Gateways, assert_everything_once
from tests.system.postgres import BINARIES, PSQL, Postgres
from tests.system.running import until

PROCESSES = 2


@dataclass(frozen=True)
class Load:
    name: str
    gateways: int  # in each process
    readings: int  # in each batch
    backlog: int = 0
    every_s: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Figures:
    """`*_us`: CPU for one batch; bytes are the database's on disk, indexes and all, and its log."""

    name: str
    gateways: int
    readings: int
    batches: int
    batches_per_s: float
    mosquitto_us: float
    consumers_us: float
    postgres_us: float
    gateways_us: float
    bytes_per_reading: float
    log_bytes_per_reading: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None


LOADS = (
    Load("backlog, 20 readings a batch", 20, 20, backlog=150),
    Load("backlog, 200 readings a batch", 20, 200, backlog=50),
    Load("live, 200 gateways", 100, 20, every_s=4.0, seconds=40.0),
)


def measure(loads: tuple[Load, ...] = LOADS) -> list[Figures]:
    """Every load in turn; nothing where mosquitto or PostgreSQL is not installed."""
    if MOSQUITTO is None or not BINARIES or PSQL is None:
        return []
    with Postgres() as postgres:
        return [asyncio.run(_measured(load, postgres)) for load in loads]


async def _measured(load: Load, postgres: Postgres) -> Figures:
    conninfo = postgres.fresh()
    folder = Path(tempfile.mkdtemp(prefix="pondwatch-fleet-"))
    try:
        async with contextlib.AsyncExitStack() as stack:
            broker = await stack.enter_async_context(Mosquitto(folder / "broker"))
            options = {"readings": load.readings, "receipt-deadline": 60.0}
            options |= {"backlog": load.backlog} if load.backlog else {"every": load.every_s}
            gateways = [
                await stack.enter_async_context(
                    Gateways(folder, n * load.gateways, load.gateways, broker.port, **options)
                )
                for n in range(PROCESSES)
            ]
            if load.backlog:
                for each in gateways:
                    await until(partial(_is_filled, each), "the backlog is there", 600)
            consumers = [
                await stack.enter_async_context(Consumer(f"consumer-{n}", folder, broker.port, conninfo))
                for n in range(2)
            ]
            programs = [
                [broker.pid],
                [each.pid for each in consumers],
                [postgres.pid()],
                [g.pid for g in gateways],
            ]
            before_s, log = [_cpu_s(pids) for pids in programs], _log_bytes(postgres)
            began_s = time.monotonic()
            (folder / "go").touch()
            if load.seconds:
                await asyncio.sleep(load.seconds)
                for each in gateways:
                    each.signal_end()
            gone_s = [0.0, 0.0, 0.0, 0.0]
            while not all(each.progress().get("done") for each in gateways):
                gone_s = [max(a, _cpu_s(pids)) for a, pids in zip(gone_s, programs, strict=True)]
                await asyncio.sleep(0.1)
            took_s = time.monotonic() - began_s
            used_s = [b - a for a, b in zip(before_s, gone_s, strict=True)]
            batches = assert_everything_once(postgres, gateways, load.readings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    readings = int(postgres.psql("SELECT count(*) FROM reading")[0][0])
    size = int(postgres.psql("SELECT pg_database_size(current_database())")[0][0])
    empty = int(postgres.psql("SELECT pg_database_size('template1')")[0][0])
    mosquitto_us, consumers_us, postgres_us, gateways_us = (used / batches * 1e6 for used in used_s)
    p50_ms, p99_ms = _latency(postgres) if load.seconds else (None, None)
    return Figures(
        load.name,
        PROCESSES * load.gateways,
        load.readings,
        batches,
        batches / took_s,
        mosquitto_us,
        consumers_us,
        postgres_us,
        gateways_us,
        (size - empty) / readings,
        (_log_bytes(postgres) - log) / readings,
        p50_ms,
        p99_ms,
    )


def _is_filled(gateways: Gateways) -> bool:
    return "filled" in gateways.log.read_text()


def _latency(postgres: Postgres) -> tuple[float, float]:
    """From a reading to the row of its batch, ms, from psql."""
    late = "1000 * extract(epoch FROM b.received - r.time)"
    query = (
        f"SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY {late}), "
        f"percentile_cont(0.99) WITHIN GROUP (ORDER BY {late}) FROM reading r JOIN batch b USING (stream_id, seq)"
    )
    ((p50, p99),) = postgres.psql(query)
    return float(p50), float(p99)


def _log_bytes(postgres: Postgres) -> int:
    return int(postgres.psql("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")[0][0])


def _cpu_s(pids: list[int]) -> float:
    """Of these processes and their children, all threads."""
    total = 0
    for pid in [*pids, *(child for parent in pids for child in _children(parent))]:
        for each in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(each.read_text().split()[0])
    return total / 1e9


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [
            int(each) for each in re.findall(r"\d+", Path(f"/proc/{pid}/task/{pid}/children").read_text())
        ]
    return []


def table(rows: list[Figures]) -> str:
    if not rows:
        return "mosquitto or PostgreSQL is not installed here."
    head = (
        "| load | gateways | batches | batches/s | readings/s | CPU us per batch: mosquitto | consumers | PostgreSQL "
        "| gateways | bytes/reading | log bytes/reading | reading to row, ms: p50 | p99 |"
    )
    lines = [
        head,
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        late = (
            "- | -" if row.latency_p50_ms is None else f"{row.latency_p50_ms:.0f} | {row.latency_p99_ms:.0f}"
        )
        lines.append(
            f"| {row.name} | {row.gateways} | {row.batches:,} | {row.batches_per_s:,.0f} "
            f"| {row.batches_per_s * row.readings:,.0f} | {row.mosquitto_us:,.0f} | {row.consumers_us:,.0f} "
            f"| {row.postgres_us:,.0f} | {row.gateways_us:,.0f} | {row.bytes_per_reading:.0f} "
            f"| {row.log_bytes_per_reading:.0f} | {late} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measure()))
