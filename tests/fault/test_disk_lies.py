"""Row 10 to its end: a disk that drops what it could not sync, shows it all the same, and then loses power.

So Linux does with the pages of a failed fsync (PostgreSQL's "fsyncgate", 2018): they are marked clean, a read
shows them, the next fsync succeeds, and they were never written.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import apsw

from daemon import spool as spool_module
from daemon.batch import Draft
from daemon.clock import Clock
from daemon.room import Keeping
from daemon.seal import HeadFile
from daemon.store import Store
from tests.daemon.test_spool_power import Disk, Log, RecordingFile, RecordingVFS
from tests.fault.disk import error

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.seal import Head

COMMITS = 40


class LyingFile(RecordingFile):
    """A sync may fail; what it should have made durable is gone with the power, though it can be read."""

    def xSync(self, flags: int) -> None:  # noqa: N802 -- SQLite's name
        if LIES.due():
            self._log.add("dropped", self._name)
            raise error(apsw.SQLITE_IOERR_FSYNC)
        super().xSync(flags)


class Lies:
    """Which syncs fail: the nth from now on, once."""

    def __init__(self) -> None:
        self.after = -1

    def due(self) -> bool:
        self.after -= self.after >= 0
        return self.after == 0


LIES = Lies()


class LyingVFS(RecordingVFS):
    def xOpen(self, name: Any, flags: Any) -> LyingFile:  # noqa: N802
        return LyingFile(self._log, name, flags)


class LyingDisk(Disk):
    def take(self, event: tuple[str, str, int, bytes]) -> None:
        if event[0] == "dropped":  # clean in memory, never written
            self.pending.pop(event[1], None)
        else:
            super().take(event)


def close_without_checkpoint(store: Store) -> None:
    """As if the close had moved nothing: the next opening finds the WAL."""
    store._db.set_busy_timeout(0)
    reader = apsw.Connection(store._db.filename, flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM batch").fetchall()
    store._db.close()
    reader.close()


def lost_after_a_lie(folder: Path) -> list[str]:
    """Lives with one failed sync in each, cut at the end; what of the acknowledged is not there after it."""
    problems = []
    write = HeadFile.write
    for nth in range(1, 9):
        log = Log()
        vfs = LyingVFS(f"lying-{id(log)}", log)
        place = folder / f"live{nth}"

        def recording(self: HeadFile, head: Head, place: Path = place, log: Log = log) -> None:
            write(self, head)
            log.add("head", data=(place / "head").read_bytes())

        HeadFile.write = recording  # type: ignore[method-assign]
        try:
            acked = _live(place, vfs, nth, log)
        finally:
            HeadFile.write = write  # type: ignore[method-assign]
        disk = LyingDisk()
        for event in log.events:
            disk.take(event)
        state = folder / f"state{nth}"
        state.mkdir()
        disk.pending.clear()  # the cut comes at once: nothing that was not synced is there
        disk.crash(state, random.Random(nth))
        store = Store.open(state, "test", "after")
        there = [batch.seq for batch in store.walk()]
        if store.lost is not None or not set(acked) <= set(there):
            problems.append(f"sync {nth}: {len(set(acked) - set(there))} of {len(acked)} lost")
        store.close()
        vfs.unregister()
    return problems


def _live(place: Path, vfs: LyingVFS, nth: int, log: Log) -> list[int]:
    source = spool_module._Source(place, "test", "boot", Clock(), Keeping(), vfs.name)
    source.start()
    acked: list[int] = []
    for n in range(COMMITS):
        if n == 10:
            LIES.after = nth
        acked += [batch.seq for batch in source.commit([Draft("readings", b'"n":%d' % n, n, n, 1)], (), ())]
    assert not source.trouble
    LIES.after = -1
    log.add("acked", where=acked[-1])
    source.store._db.set_busy_timeout(0)
    events, log.events = log.events, []  # what closing does comes after the cut
    source.close()
    log.events = events
    return acked


def test_row_10_what_was_acknowledged_after_a_sync_that_lied_survives_a_power_cut(tmp_path: Path) -> None:
    assert lost_after_a_lie(tmp_path) == []
