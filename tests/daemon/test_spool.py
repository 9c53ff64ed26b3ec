"""The spool before the event loop: one thread, turns, news, checkpoints between commits."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING

import pytest

from daemon import spool as spool_module
from daemon.seal import verify
from daemon.spool import Draft, Keeping, Spool, StoreBusy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from daemon.spool import Kind


def draft(n: int, kind: Kind = "readings", size: int = 1) -> Draft:
    return Draft(kind, b'"n":%d,"x":"%b"' % (n, b"x" * size), n, n, 1)


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    async with Spool.open(tmp_path, "test", "boot") as opened:
        yield opened


async def test_what_was_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    async with Spool.open(tmp_path, "test", "boot") as spool:
        batches = await spool.commit([draft(1), draft(2, "alarms")], [("a", b"{}")], [("s", b"[]")])
        await spool.settle("up", [(1, 1)])
        stream = spool.stream
    async with Spool.open(tmp_path, "test", "boot") as spool:
        assert (spool.stream, spool.last_seq, spool.lost) == (stream, 2, None)
        assert await spool.peek() == batches
        assert await spool.alarms() == {"a": b"{}"}
        assert await spool.states() == {"s": (2, b"[]")}
        assert (await spool.settled("up")).to_list() == [[1, 1]]
        assert await spool.first_seq() == 1
        assert await spool.size_bytes() > 4096
        assert [json.loads(p)["n"] async for p in spool.readings_after(0)] == [1]


async def test_many_callers_get_one_unbroken_chain(spool: Spool) -> None:
    made = await asyncio.gather(*(spool.commit([draft(n), draft(n)]) for n in range(300)))
    assert sorted(b.seq for pair in made for b in pair) == list(range(1, 601))
    assert all(second.seq == first.seq + 1 for first, second in made)
    assert verify(await spool.peek(limit=1000, max_bytes=1 << 30)) is None


async def test_the_queue_before_the_thread_is_bounded(spool: Spool) -> None:
    gate = threading.Event()
    spool._thread.submit(gate.wait)  # a disk that stands still
    calls = [asyncio.create_task(spool.commit([draft(n)])) for n in range(200)]
    await asyncio.sleep(0.05)
    assert spool._thread._work_queue.qsize() == spool_module.MOST_WAITING
    gate.set()
    await asyncio.gather(*calls)
    assert spool.last_seq == 200


async def test_news_tells_of_the_newest_batch_and_whether_an_alarm_is_among_it(spool: Spool) -> None:
    news = spool.subscribe()
    await spool.commit([draft(1)])
    await spool.commit([draft(2, "alarms"), draft(3)])
    assert await news.wait() is True  # both commits in one piece of news
    assert news.seq == 3
    waiting = asyncio.create_task(news.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    await spool.commit([draft(4)])
    assert await waiting is False
    assert news.seq == 4


async def test_waiting_for_one_kind_is_not_woken_by_another(spool: Spool) -> None:
    waiting = asyncio.create_task(spool.committed(0, ("readings",)))
    await spool.commit([draft(1, "alarms")])
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await spool.commit([draft(2)])
    assert await waiting == 2
    assert await spool.committed(1) == 2


async def test_a_commit_is_announced_even_when_its_caller_has_gone(spool: Spool) -> None:
    gate = threading.Event()
    spool._thread.submit(gate.wait)
    caller = asyncio.create_task(spool.commit([draft(1)]))
    await asyncio.sleep(0.01)
    follower = asyncio.create_task(spool.commit([draft(2)]))
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.sleep(0)
    caller.cancel()
    await follower
    assert spool.last_seq == len(await spool.peek())


async def test_each_commit_reports_how_long_it_took(tmp_path: Path) -> None:
    took: list[float] = []
    async with Spool.open(tmp_path, "test", "boot", on_commit_s=took.append) as spool:
        for n in range(5):
            await spool.commit([draft(n)])
    assert len(took) == 5
    assert all(0 < s < 5 for s in took)


async def test_a_large_wal_is_checkpointed_between_commits_and_stays_bounded(
    tmp_path: Path, spool: Spool
) -> None:
    for n in range(60):
        await spool.commit([draft(n, size=250_000)])
    assert (tmp_path / "spool.db-wal").stat().st_size < 3 * spool_module._WAL_BYTES
    assert (tmp_path / "spool.db").stat().st_size > 8_000_000


async def test_a_small_wal_is_checkpointed_when_nothing_happens(
    tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spool.commit([draft(1)])
    before = (tmp_path / "spool.db").stat().st_size
    monkeypatch.setattr(spool_module, "_IDLE_S", 0.01)
    await spool.commit([draft(2, size=50_000)])
    await asyncio.sleep(0.2)
    assert (tmp_path / "spool.db").stat().st_size > before + 50_000
    assert await spool._do(lambda: spool._store.wal_bytes) == 0


async def test_trimming_leaves_room_for_commits_in_between(spool: Spool) -> None:
    spool._store.keeping = Keeping(("a",), frozenset("a"), frozenset("a"))
    await spool.commit([draft(n) for n in range(1300)])
    await spool.settle("a", [(1, 1300)])
    trimming = asyncio.create_task(spool.trim(10**18))
    await spool.commit([draft(2000)])
    assert await trimming >= 1299
    assert len(await spool.peek()) <= 2


async def test_a_store_that_is_held_elsewhere_is_refused(tmp_path: Path, spool: Spool) -> None:
    with pytest.raises(StoreBusy):
        async with Spool.open(tmp_path, "test", "boot"):
            pass
