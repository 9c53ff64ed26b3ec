"""The alarm book over a store that is lost, found, or stands in memory for a while."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import apsw
import pytest

from daemon import alarms, reasons
from daemon import spool as spool_module
from daemon.alarms import AlarmBook, Observation, Subject
from daemon.clock import Clock
from daemon.spool import Draft, Keeping, Spool, Store, StoreBroken
from daemon.store_watch import StoreWatch
from tests.fault.disk import faulty
from tests.system.running import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from daemon.alarms import Alarm

S = 1_000_000_000
KEEPING = Keeping(("up",), frozenset({"up"}), frozenset(), 64 << 20)
PZ = Subject("channel", "pz03", channel="pz03")
RAIN = Subject("channel", "rain", channel="rain")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_AGAIN_FIRST_S", 0.02)
    monkeypatch.setattr(spool_module, "_AGAIN_MOST_S", 0.05)
    monkeypatch.setattr("daemon.store_watch.LOOK_EVERY_S", 0.02)


class Core:
    """Book and watch over a spool; what is announced is committed, as the pipeline and the writer do it."""

    def __init__(self, spool: Spool, book: AlarmBook) -> None:
        self.spool, self.book = spool, book
        self.renewed = 0
        self.told: list[Alarm] = []
        self._changed: list[Alarm] = []
        self.watch = StoreWatch(spool, book, Clock(), self._announce, self._renew)

    def _announce(self, changed: Sequence[Alarm]) -> None:
        self.told += changed
        self._changed += changed

    def _renew(self) -> None:
        self.renewed += 1

    async def commit(self) -> None:
        changed, self._changed = self._changed, []
        drafts = [Draft("alarms", alarms.body(alarm), 1, 1, 1) for alarm in changed]
        await self.spool.commit(drafts, [(alarm.id, alarms.encode(alarm)) for alarm in changed])

    def see(self, subject: Subject, time_s: int) -> Alarm:
        seen = Observation("yellow", "present", time_s * S, reasons.store_back())
        alarm = self.book.observe(subject, seen)
        assert alarm is not None
        self._announce([alarm])
        return alarm

    def names(self) -> set[str]:
        return {alarm.id.rpartition(":")[0] for alarm in self.book.open()}

    def store_is_back(self) -> bool:
        """It was said, and the book of the store is taken up."""
        gone = any(alarm.id.startswith("system:store:") and alarm.condition == "gone" for alarm in self.told)
        return gone and self.renewed > 0


@contextlib.asynccontextmanager
async def core(spool: Spool) -> AsyncIterator[Core]:
    rows = [alarms.decode(row) for row in (await spool.alarms()).values()]
    made = Core(spool, AlarmBook(rows, timezone=ZoneInfo("UTC")))
    task = asyncio.create_task(made.watch.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_core_that_started_without_its_disk_takes_up_the_book_and_closes_what_was_raised_twice(
    tmp_path: Path,
) -> None:
    async with Spool.open(tmp_path, "test", "boot", keeping=KEEPING) as spool, core(spool) as before:
        old = before.see(PZ, 1000)
        before.see(RAIN, 1001)
        await before.commit()
    with faulty() as (vfs, faults):
        faults.fail("open", code=apsw.SQLITE_CANTOPEN)
        async with (
            Spool.open(tmp_path, "test", "boot", keeping=KEEPING, vfs=vfs) as spool,
            core(spool) as now,
        ):
            await until(lambda: now.names() == {"system:store"}, "people hear of it")
            new = now.see(PZ, 2000)
            await now.commit()
            faults.heal()
            await until(now.store_is_back, "the store is taken up")
            assert now.names() == {"system:store", "channel:pz03", "channel:rain"}
            await now.commit()
            assert now.renewed == 1
            rows = {id_: alarms.decode(row) for id_, row in (await spool.alarms()).items()}
            assert rows[old.id].response == "closed"
            assert new.id in (rows[old.id].note or "")
            assert rows[new.id].response == "new"
            (store,) = [alarm for alarm in rows.values() if alarm.id.startswith("system:store:")]
            assert store.condition == "gone"


async def test_a_new_store_has_the_whole_book_though_the_old_one_could_not_be_read(tmp_path: Path) -> None:
    async with Spool.open(tmp_path, "test", "boot", keeping=KEEPING) as spool, core(spool) as now:
        pz = now.see(PZ, 1000)
        await now.commit()
        await spool._do(spool._store.checkpoint_wal)
        stream = spool.stream
        (tmp_path / "damaged").touch()  # as the store leaves it where it meets a broken page
        (tmp_path / "spool.db").write_bytes(b"\0" * 8192)

        def broken(store: Store) -> None:
            if store.stream == stream:
                raise StoreBroken("the store is damaged")

        await spool._ask(broken)
        await until(lambda: now.renewed, "the new store is taken up")
        assert spool.stream != stream
        assert not spool.trouble
        assert pz.id in await spool.alarms()
