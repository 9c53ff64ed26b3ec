"""Rows 8 to 16 of the fault matrix: a disk that is full, fails, lies, turns read-only or stands still.

The oracle is the same for all: whatever was handed to `commit` is in the store afterwards exactly once and in
order, or a gap record in the chain says which batches are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import time
from asyncio.subprocess import PIPE
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from daemon import spool as spool_module
from daemon.archive import Archive
from daemon.spool import Draft, Keeping, Spool, StoreBroken
from daemon.store import Store
from tests.fault.disk import SmallDisk, faulty

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemon.spool import Kind
    from tests.conftest import Figure

SMALL = Keeping(("up",), frozenset({"up"}), frozenset({"up"}), 2 << 20)
KEEPING = Keeping(("up",), frozenset({"up"}), frozenset({"up"}), 64 << 20)


_LETTERS = str.maketrans("0123456789", "ghijklmnop")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    small = SmallDisk(tmp_path / "disk", 4)
    yield small
    small.unmount()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_AGAIN_FIRST_S", 0.02)
    monkeypatch.setattr(spool_module, "_AGAIN_MOST_S", 0.05)
    monkeypatch.setattr(spool_module, "CHORES_EVERY_S", 0.05)


def draft(n: int, kind: Kind = "readings", size: int = 2000) -> Draft:
    noise = os.urandom(size // 2).hex().translate(_LETTERS).encode()  # packing makes little room of it
    return Draft(kind, b'"n":%d,"x":"%b"' % (n, noise), n, n, 1)


async def payloads(spool: Spool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = 0
    while batches := await spool.peek(after):
        found += [json.loads(batch.payload) for batch in batches]
        after = batches[-1].seq
    return found


async def numbers(spool: Spool) -> list[int]:
    return [p["n"] for p in await payloads(spool) if "n" in p]


async def until_durable(spool: Spool, durable: bool = True) -> None:
    async with asyncio.timeout(30):
        while bool(spool.trouble) == durable:
            await asyncio.sleep(0.01)


def missing(found: list[dict[str, Any]]) -> set[int]:
    """The seqs between the first and the last that are not there."""
    seqs = {p["seq"] for p in found}
    return set(range(1, max(seqs) + 1)) - seqs


def announced(found: list[dict[str, Any]], reason: str) -> set[int]:
    gaps = [p for p in found if p.get("reason") == reason]
    return {seq for gap in gaps for seq in range(gap["from_seq"], gap["to_seq"] + 1)}


# -- row 10: EIO on fsync ---------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["sync", "write"])
@pytest.mark.fault(
    row=10,
    fault="EIO on fsync or write, once",
    injected="a VFS over the real store",
    holds="the file is opened anew, verified, written again: not believed, not twice",
)
async def test_row_10_a_failed_sync_or_write_is_healed_in_the_same_call_and_nothing_stands_twice(
    tmp_path: Path, what: str, figure: Figure
) -> None:
    with faulty() as (vfs, faults):
        async with Spool.open(tmp_path, "test", "boot", keeping=KEEPING, vfs=vfs) as spool:
            stream = spool.stream
            for n in range(1, 60):
                if n % 10 == 5:
                    faults.fail(what, code=apsw.SQLITE_IOERR_FSYNC, times=1, after=n % 3)
                batches = await spool.commit([draft(n)], [("a", b"%d" % n)], [("s", b"%d" % n)])
                assert len(batches) == 1
            assert faults.hits == 6
            assert (spool.stream, spool.trouble, spool.generation) == (stream, "", 0)
            assert await numbers(spool) == list(range(1, 60))
            assert await spool.alarms() == {"a": b"59"}
    figure(f"{what}: {faults.hits} errors, 59 batches each there once, 0 false acknowledgements")


@pytest.mark.fault(
    row=10,
    fault="EIO on fsync for as long as one looks",
    injected="the same",
    holds="batches go to memory, announced; then to the disk in order",
)
async def test_row_10_while_the_disk_fails_batches_go_to_memory_and_then_to_the_disk_once_and_in_order(
    tmp_path: Path, figure: Figure
) -> None:
    gaps: list[str] = []
    with faulty() as (vfs, faults):
        async with Spool.open(
            tmp_path, "test", "boot", keeping=KEEPING, vfs=vfs, on_gap=gaps.append
        ) as spool:
            stream = spool.stream
            replaced = spool.replaced
            await spool.commit([draft(1)])
            news = spool.subscribe()
            await spool.settle("up", [(1, 1)])
            faults.fail("sync", "open", code=apsw.SQLITE_IOERR_FSYNC)
            for n in range(2, 30):
                await spool.commit([draft(n)], [("a", b"%d" % n)])
                if n == 5:  # who waits for news hears of the new stream though its seqs are lower
                    assert await asyncio.wait_for(news.wait(), 1) is False
                    assert news.seq == 5
            assert spool.trouble
            assert spool.stream != stream
            assert replaced.is_set()
            assert [p.get("reason", p.get("n")) for p in await payloads(spool)] == [
                "memory-only",
                *range(2, 30),
            ]
            await spool.settle("up", [(1, 5)])  # the platform has 2..5 by now
            faults.heal()
            await until_durable(spool)
            assert spool.stream == stream
            assert spool.generation == 2
            await spool.commit([draft(30)])
            found = await payloads(spool)
        # The commit that broke had reached the disk, and was made in memory as well: a marked repeat.
        assert [p["n"] for p in found if "n" in p] == [1, 2, *range(6, 31)]
        (moved,) = [p for p in found if p.get("reason") == "moved"]
        assert (moved["from_seq"], moved["to_seq"], moved["count"]) == (2, 29, 25)
        assert gaps == ["memory-only"]
    store = Store.open(tmp_path, "test", "boot")
    assert (store.stream, store.lost) == (stream, None)
    assert store.alarms() == {"a": b"29"}
    store.close()
    figure("28 batches in memory, all but the platform's own on the disk again, 1 marked repeat, 0 lost")


# -- row 11: EIO on read ----------------------------------------------------------------------------


@pytest.mark.fault(
    row=11,
    fault="EIO on read of one page",
    injected="the same",
    holds="set aside within 5 s, a new stream begins, the loss is announced",
)
async def test_row_11_a_page_that_cannot_be_read_costs_the_file_and_not_the_recording(
    tmp_path: Path, figure: Figure
) -> None:
    with faulty() as (vfs, faults):
        async with Spool.open(tmp_path, "test", "boot", keeping=KEEPING, vfs=vfs) as spool:
            stream = spool.stream
            for n in range(1, 40):
                await spool.commit([draft(n, size=20_000)])
            await spool._do(spool._store.checkpoint_wal)
            faults.page = 60 * 4096
            began_s = time.monotonic()
            n = 40
            while spool.stream == stream:
                await spool.commit([draft(n)])
                with contextlib.suppress(StoreBroken):
                    await spool.peek(0, limit=100, max_bytes=1 << 30)
                n += 1
            took_s = time.monotonic() - began_s
            assert took_s < 5
            assert spool.lost is not None
            assert spool.lost.of == stream
            (gap,) = [p for p in await payloads(spool) if "reason" in p]
            assert (gap["of"], gap["from_seq"], gap["reason"]) == (stream, 1, "store-lost")
            await spool.commit([draft(n)])
        assert list(tmp_path.glob("spool.db.bad-*"))
    figure(f"a new stream after {took_s:.2f} s, 1 gap record")


# -- row 13: truncated or zeroed --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["zeroed", "torn"])
@pytest.mark.fault(
    row=13,
    fault="file truncated, zeroed",
    injected="1 MB of zeros over the head, or garbage in the midst, of a file in use",
    holds="set aside as .bad within 5 s, a new stream, the loss is announced",
)
async def test_row_13_a_file_destroyed_in_use_is_set_aside_within_5_s_and_announced(
    tmp_path: Path, how: str, figure: Figure
) -> None:
    async with Spool.open(tmp_path, "test", "boot", keeping=KEEPING) as spool:
        stream = spool.stream
        for n in range(1, 40):
            await spool.commit([draft(n, size=9000)], [("a1", b"{}")])
        await spool.settle("up", [(1, 7)])
        await spool._do(spool._store.checkpoint_wal)
        with (tmp_path / "spool.db").open("r+b") as file:
            file.seek(0 if how == "zeroed" else 8192)
            file.write(b"\0" * (1 << 20) if how == "zeroed" else b"\xff" * 400_000)
        await spool._do(lambda: spool._store._db.pragma("shrink_memory"))
        began_s = time.monotonic()
        n = 40
        while spool.stream == stream:
            await spool.commit([draft(n)])
            await spool.peek(0, limit=100, max_bytes=1 << 30)
            await asyncio.sleep(0)
            n += 1
        took_s = time.monotonic() - began_s
        assert took_s < 5
        assert spool.trouble == ""
        found = await payloads(spool)
        assert (found[0]["of"], found[0]["reason"]) == (stream, "store-lost")
    assert len(list(tmp_path.glob("spool.db.bad-*"))) >= 1
    figure(f"{how}: a new stream after {took_s:.2f} s")


# -- row 12: bit rot --------------------------------------------------------------------------------


@pytest.mark.fault(
    row=12,
    fault="bit rot",
    injected="a byte of a stored payload changed",
    holds="found by the chain, never sent, announced; the rest goes on",
)
async def test_row_12_a_flipped_bit_never_leaves_and_is_announced_and_the_rest_goes_on(
    tmp_path: Path, figure: Figure
) -> None:
    async with Spool.open(tmp_path, "test", "boot", keeping=KEEPING) as spool:
        for n in range(1, 10):
            await spool.commit([draft(n, size=50)])
    db = sqlite3.connect(tmp_path / "spool.db")
    (payload,) = db.execute("SELECT payload FROM batch WHERE seq = 4").fetchone()
    db.execute("UPDATE batch SET payload = ? WHERE seq = 4", [payload[:-9] + b"?" + payload[-8:]])
    db.commit()
    db.close()
    gaps: list[str] = []
    async with Spool.open(tmp_path, "test", "boot", keeping=KEEPING, on_gap=gaps.append) as spool:
        assert await numbers(spool) == [1, 2, 3, 5, 6, 7, 8, 9]
        found = await payloads(spool)
        assert missing(found) == announced(found, "damaged") == {4}
        assert gaps == ["damaged"]
        assert 4 in await spool.settled("up")  # nobody waits for it
        assert spool.last_seq == 10
    figure("1 of 9 batches damaged: not sent, announced, 8 sent")


# -- row 8: full ------------------------------------------------------------------------------------


@pytest.mark.fault(
    row=8,
    fault="ENOSPC while running",
    injected="tmpfs of 4 MB filled by another, 1000 commits more",
    holds="routine readings go, oldest first, alarms stay, each loss announced; recovery by itself",
)
async def test_row_8_on_a_full_disk_the_oldest_readings_go_alarms_stay_and_each_loss_is_announced(
    disk: SmallDisk, figure: Figure
) -> None:
    gaps: list[str] = []
    async with Spool.open(disk.path / "store", "test", "boot", keeping=KEEPING, on_gap=gaps.append) as spool:
        stream = spool.stream
        for n in range(1, 100):
            await spool.commit([draft(n, "alarms" if n % 20 == 0 else "readings")])
        disk.fill()
        for n in range(100, 1100):
            await spool.commit([draft(n, "alarms" if n % 20 == 0 else "readings")])
        assert spool.stream == stream
        assert spool.trouble == ""
        found = await payloads(spool)
        kept = [p["n"] for p in found if "n" in p]
        assert kept == sorted(kept)
        assert kept[-1] == 1099
        assert {n for n in kept if n % 20 == 0} == set(range(20, 1100, 20))
        gone = missing(found)
        assert len(gone) > 100
        assert announced(found, "pushed-out") == gone
        assert set(gaps) == {"pushed-out"}
        disk.free()
        async with asyncio.timeout(5):
            while not (disk.path / "store" / "ballast").exists():
                await asyncio.sleep(0.02)
        for n in range(1100, 1200):
            await spool.commit([draft(n)])
        assert len(await payloads(spool)) == len(found) + 100
    store = Store.open(disk.path / "store", "test", "boot", keeping=KEEPING)
    assert (store.stream, store.lost) == (stream, None)
    store.close()
    figure(f"{len(gone)} readings pushed out, all announced; 0 of 54 alarms")


async def test_row_8_the_size_cap_does_the_same_without_a_full_disk(tmp_path: Path) -> None:
    async with Spool.open(tmp_path, "test", "boot", keeping=SMALL) as spool:
        for n in range(1, 500):
            await spool.commit([draft(n, size=6000)])
            size = sum(f.stat().st_size for f in tmp_path.iterdir())
            # a pack that is being written lies in the WAL as well
            assert size <= SMALL.most_bytes + (256 << 10)
        found = await payloads(spool)
        assert announced(found, "pushed-out") == missing(found)
        assert len(missing(found)) > 100


async def test_row_8_what_was_receipted_is_pushed_out_without_a_gap(tmp_path: Path) -> None:
    async with Spool.open(tmp_path, "test", "boot", keeping=SMALL) as spool:
        for n in range(1, 500):
            (batch,) = await spool.commit([draft(n, size=6000)])
            await spool.settle("up", [(1, batch.seq)])
        found = await payloads(spool)
        assert found[0]["seq"] > 50
        assert [p["n"] for p in found] == list(range(found[0]["n"], 500))


@pytest.mark.fault(
    row=8,
    fault="ENOSPC at the start",
    injected="the same",
    holds="runs in memory, takes up the store when there is room",
)
async def test_row_8_a_start_on_a_full_disk_runs_in_memory_and_takes_up_the_store_when_there_is_room(
    disk: SmallDisk, figure: Figure
) -> None:
    async with Spool.open(disk.path / "store", "test", "boot", keeping=KEEPING) as spool:
        stream = spool.stream
        await spool.commit([draft(0)], [("old", b"{}")])
    (disk.path / "store" / "ballast").unlink(missing_ok=True)
    disk.fill()
    async with Spool.open(disk.path / "store", "test", "boot", keeping=KEEPING) as spool:
        for n in range(1, 20):
            await spool.commit([draft(n)], [("new", b"%d" % n)])
        disk.free()
        await until_durable(spool)
        assert spool.stream == stream
        assert await numbers(spool) == list(range(20))
        assert await spool.alarms() == {"old": b"{}", "new": b"19"}
    figure("19 batches taken in memory, all in the store afterwards")


# -- row 14: read-only ------------------------------------------------------------------------------


@pytest.mark.fault(
    row=14,
    fault="read-only file system",
    injected="tmpfs remounted ro",
    holds="recording goes on in memory; on the disk once it may be written",
)
async def test_row_14_on_a_disk_that_turned_read_only_everything_goes_on_in_memory(
    disk: SmallDisk, figure: Figure
) -> None:
    folder = disk.path / "store"
    async with Spool.open(folder, "test", "boot", keeping=SMALL) as spool:
        await spool.commit([draft(1)])
    disk.read_only(True)
    async with Spool.open(folder, "test", "boot", keeping=SMALL) as spool:
        assert "Read-only" in spool.trouble or spool.trouble
        for n in range(2, 50):
            await spool.commit([draft(n)])
        assert await numbers(spool) == list(range(2, 50))
        await asyncio.sleep(0.2)
        assert spool.trouble
        disk.read_only(False)
        await until_durable(spool)
        assert await numbers(spool) == list(range(1, 50))
    figure("48 batches taken in memory, all in the store afterwards")


async def test_the_ring_in_memory_is_bounded_and_says_what_it_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "MEMORY_BYTES", 2 << 20)
    with faulty() as (vfs, faults):
        faults.fail("open", code=apsw.SQLITE_CANTOPEN)
        async with Spool.open(tmp_path, "test", "boot", keeping=KEEPING, vfs=vfs) as spool:
            for n in range(1, 900):
                await spool.commit([draft(n, "alarms" if n % 20 == 0 else "readings")])
            assert await spool.size_bytes() <= 2 << 20
            found = await payloads(spool)
            assert announced(found, "pushed-out") == missing(found)
            assert {n for n in await numbers(spool) if n % 20 == 0} == set(range(20, 900, 20))
            faults.heal()
            await until_durable(spool)
            after = await payloads(spool)
            assert [p["n"] for p in after if "n" in p] == [p["n"] for p in found if "n" in p]


async def test_what_was_packed_in_memory_can_be_moved_whole(tmp_path: Path) -> None:
    with faulty() as (vfs, faults):
        faults.fail("open", code=apsw.SQLITE_CANTOPEN)
        async with Spool.open(tmp_path, "test", "boot", keeping=KEEPING, vfs=vfs) as spool:
            for n in range(1, 900):
                await spool.commit([draft(n, "alarms" if n % 20 == 0 else "readings")])
            loose = await spool._ask(lambda store: list(store.drafts()))
            packed = 0
            while some := await spool._ask(lambda store: store.pack(1 << 62)):
                packed += some
            assert packed > 256, "more than one pack"
            assert await spool._ask(lambda store: list(store.drafts())) == loose


# -- row 15: stalls ---------------------------------------------------------------------------------


@pytest.mark.fault(
    row=15,
    fault="a disk that stands still",
    injected="each fsync takes half a second",
    holds="the event loop runs on; the commit waits",
)
async def test_row_15_a_disk_that_stands_still_holds_up_nobody_but_the_commit(
    tmp_path: Path, figure: Figure
) -> None:
    with faulty() as (vfs, faults):
        async with Spool.open(tmp_path, "test", "boot", keeping=KEEPING, vfs=vfs) as spool:
            await spool.commit([draft(1)])
            faults.stall_s = 0.5
            committing = asyncio.create_task(spool.commit([draft(2)]))
            late_s = 0.0
            while not committing.done():
                began_s = time.monotonic()
                await asyncio.sleep(0.005)
                late_s = max(late_s, time.monotonic() - began_s - 0.005)
            assert late_s < 0.25
            faults.stall_s = 0.0
            assert await numbers(spool) == [1, 2]
    figure(f"event loop late by {late_s * 1000:.0f} ms at most in a stall of 500 ms")


# -- rows 9 and 16: no inodes, a reader that stays ---------------------------------------------------

READER = """
import sqlite3, sys
db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, isolation_level=None)
db.execute("BEGIN")
print(db.execute("SELECT count(*) FROM batch").fetchall(), flush=True)
sys.stdin.read()
"""


@pytest.mark.fault(
    row=9,
    fault="no inode is left",
    injected="a tmpfs whose inodes another takes, while the store runs and before it starts",
    holds="as with a full disk: recording goes on, in memory where it must; all on the disk when there are inodes",
)
async def test_row_9_without_inodes_recording_goes_on(disk: SmallDisk, figure: Figure) -> None:
    folder = disk.path / "store"
    async with Spool.open(folder, "test", "boot", keeping=SMALL) as spool:
        await spool.commit([draft(1)])
        disk.take_inodes()
        for n in range(2, 50):
            await spool.commit([draft(n)])
        in_use = await numbers(spool)
    async with Spool.open(folder, "test", "boot", keeping=SMALL) as spool:
        trouble = spool.trouble
        for n in range(50, 100):
            await spool.commit([draft(n)])
        disk.free()
        await until_durable(spool)
        found = await numbers(spool)
    assert in_use == list(range(1, 50))
    assert sorted(found) == list(range(1, 100))
    figure(f'48 batches while running, 50 after a start ("{trouble or "on the disk all the same"}"): 0 lost')


@pytest.mark.fault(
    row=16,
    fault="a reader that stays: another program with an open transaction",
    injected="a process with a read transaction for 400 commits of 4 kB; then its end; and our own export meanwhile",
    holds="commits go on; the WAL is bounded beside our own readers, and small again once a foreign one has gone",
)
async def test_row_16_a_reader_that_stays_costs_room_and_nothing_else(tmp_path: Path, figure: Figure) -> None:
    wal, limit = tmp_path / "spool.db-wal", SMALL.wal_bytes
    async with Spool.open(tmp_path, "test", "boot", keeping=replace(SMALL, most_bytes=8 << 20)) as spool:
        await spool.commit([draft(0)])
        limit = spool._store.keeping.wal_bytes
        ours = 0
        for n in range(1, 400):  # an archive reads all that is there after each tenth commit
            await spool.commit([draft(n, size=4000)])
            if n % 10 == 0:
                with Archive(tmp_path / "spool.db") as archive:
                    assert sum(1 for _ in archive.batches()) > 0
            ours = max(ours, wal.stat().st_size)
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-c", READER, str(tmp_path / "spool.db"), stdin=PIPE, stdout=PIPE
        )
        assert reader.stdin is not None
        assert reader.stdout is not None
        await reader.stdout.readline()
        for n in range(400, 800):
            await spool.commit([draft(n, size=4000)])
        held = wal.stat().st_size
        assert spool.trouble == ""
        reader.stdin.close()
        await reader.wait()
        n = 800
        while wal.stat().st_size > 2 * limit:
            await spool.commit([draft(n, size=4000)])
            n += 1
            await asyncio.sleep(0)
            assert n < 2000
        found = await payloads(spool)
    assert missing(found) == announced(found, "pushed-out")
    assert ours <= 4 * limit
    assert held > ours
    figure(
        f"WAL {ours >> 10} kB beside our own reader (limit {limit >> 10}), {held >> 10} kB after 400 commits beside "
        f"one that stays, small again {n - 800} commits after its end; no commit failed. A foreign reader is not ended"
    )
