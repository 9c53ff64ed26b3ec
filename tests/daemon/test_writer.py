"""The writer over a real store: batches, alarms at once, a full disk, and the gap it may leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from typing import TYPE_CHECKING, cast

from daemon import writer as writer_module
from daemon.clock import Clock
from daemon.config import File, Site, SiteTable, StoreTable
from daemon.reading import ReadingFrame
from daemon.spool import Draft, Spool
from daemon.writer import BATCH_READINGS, Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

S = 1_000_000_000


class Bench:
    """A writer, its spool, and what it told."""

    def __init__(self, spool: Spool, linger_s: float) -> None:
        file = File(site=SiteTable(id="s", gateway="g"), store=StoreTable(linger_s=linger_s))
        self.spool = spool
        self.state = 0
        self.gaps: list[str] = []
        states = {"counter": lambda: self.state}
        self.writer = Writer(spool, Clock(), cast("Site", file), states, self.gaps.append)

    def put(self, n: int, readings: int = 1) -> None:
        names = [f"c{i}" for i in range(readings)]
        values = [float(n)] * readings
        self.writer.put(
            ReadingFrame(names, ["m"] * readings, n * S, n * S, n, values, bytes(readings), [{}] * readings)
        )

    async def payloads(self, kind: str = "readings") -> list[dict[str, object]]:
        return [json.loads(batch.payload) for batch in await self.spool.peek() if batch.kind == kind]


@contextlib.asynccontextmanager
async def writing(folder: Path, linger_s: float = 0.02) -> AsyncIterator[Bench]:
    async with Spool.open(folder, "test", "boot") as spool:
        bench = Bench(spool, linger_s)
        task = asyncio.create_task(bench.writer.run())
        try:
            yield bench
        finally:
            bench.writer.stop()
            await task


async def test_readings_wait_for_company_and_share_a_batch(tmp_path: Path) -> None:
    async with writing(tmp_path, linger_s=0.1) as bench:
        for n in range(5):
            bench.put(n)
            await asyncio.sleep(0.005)
        await bench.spool.committed(0)
        (payload,) = await bench.payloads()
    assert [r["value"] for r in cast("list[dict[str, float]]", payload["readings"])] == [0, 1, 2, 3, 4]
    assert (payload["site"], payload["gateway"], payload["mode"]) == ("s", "g", "test")


async def test_an_alarm_waits_for_nobody_and_comes_after_the_readings_it_rests_on(tmp_path: Path) -> None:
    async with writing(tmp_path, linger_s=60.0) as bench:
        bench.put(1)
        bench.writer.put_urgent([Draft("alarms", b'"id":"a"', S, 1, 1)], {"a": b"{}"})
        async with asyncio.timeout(5):
            await bench.spool.committed(1)
        assert [batch.kind for batch in await bench.spool.peek()] == ["readings", "alarms"]
        assert await bench.spool.alarms() == {"a": b"{}"}


async def test_a_large_heap_is_cut_into_batches_of_bounded_size(tmp_path: Path) -> None:
    async with writing(tmp_path) as bench:
        for n in range(3):
            bench.put(n, readings=BATCH_READINGS - 1)
        await bench.spool.committed(0)
    async with Spool.open(tmp_path, "test", "boot") as spool:
        counts = [batch.count for batch in await spool.peek()]
    assert max(counts) <= BATCH_READINGS
    assert sum(counts) == 3 * (BATCH_READINGS - 1)


async def test_frames_stay_whole_and_a_heap_of_them_makes_full_batches(tmp_path: Path) -> None:
    async with Spool.open(tmp_path, "test", "boot") as spool:
        bench = Bench(spool, 0.0)
        for n in range(200):
            bench.put(n, readings=24)
        bench.put(200, readings=BATCH_READINGS + 5)  # no frame is so large; it would be cut
        bench.writer.stop()
        await bench.writer.run()
        batches = await spool.peek()
    whole = BATCH_READINGS // 24 * 24
    assert [batch.count for batch in batches] == [whole, whole, 200 * 24 - 2 * whole, BATCH_READINGS, 5]
    assert [batch.time_ns for batch in batches] == [82 * S, 165 * S, 199 * S, 200 * S, 200 * S]
    readings = [r for batch in batches for r in json.loads(batch.payload)["readings"]]
    assert [r["value"] for r in readings] == [n for n in range(200) for _ in range(24)] + [200] * (
        BATCH_READINGS + 5
    )


async def test_a_state_is_stored_with_the_readings_that_moved_it(tmp_path: Path) -> None:
    async with writing(tmp_path) as bench:
        bench.state = 7
        bench.put(1)
        bench.writer.mark(["counter"])
        await bench.spool.committed(0)
        bench.state = 8  # not marked: nothing of it is stored
        bench.put(2)
        await bench.spool.committed(1)
        assert await bench.spool.states() == {"counter": (1, b"7")}


def stand_still(bench: Bench) -> threading.Event:
    """A disk that does nothing until the event is set."""
    gate = threading.Event()
    bench.spool._thread.submit(gate.wait, 30)
    return gate


async def test_what_comes_while_the_disk_stands_still_is_kept_and_stored_when_it_moves(
    tmp_path: Path,
) -> None:
    async with writing(tmp_path) as bench:
        gate = stand_still(bench)
        for n in range(1, 40):
            bench.put(n, readings=50)
            await asyncio.sleep(0.005)
        assert bench.writer.hanging_s() > 0.05
        gate.set()
        await bench.spool.committed(0)
    async with Spool.open(tmp_path, "test", "boot") as spool:
        assert sum(batch.count for batch in await spool.peek()) == 39 * 50
    assert bench.gaps == []


async def test_what_memory_cannot_hold_is_dropped_from_the_oldest_and_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MOST_WAITING", 100)
    async with writing(tmp_path) as bench:
        gate = stand_still(bench)
        bench.put(0, readings=50)
        while not bench.writer.hanging_s():
            await asyncio.sleep(0.005)
        for n in range(1, 11):
            bench.put(n, readings=20)
        gate.set()
        await bench.spool.committed(0, ["gaps"])
        (gap,) = await bench.payloads("gaps")
        kept = [batch.count for batch in await bench.spool.peek(kinds=("readings",))]
    assert (gap["reason"], gap["count"], gap["of"]) == ("memory-full", 100, bench.spool.stream)
    assert (gap["from"], gap["to"]) == ("1970-01-01T00:00:01.000Z", "1970-01-01T00:00:05.000Z")
    assert sum(kept) == 50 + 100
    assert bench.gaps == ["memory-full"]
