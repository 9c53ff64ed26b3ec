"""Power cuts: the store on a disk that forgets what was not synced, and writes it in any order.

A VFS records every write, truncation, deletion and sync of the real store, each commit that returned, and each head. A
crash state is the disk as it can look after any one of these events: what was synced, and of the later
writes any subset of their 512-byte sectors, or random bytes in their place. Directory entries are taken as
durable, as is a head that was written (it is synced before its write returns).
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from daemon import store as store_module
from daemon.seal import HeadFile, verify
from daemon.store import Draft, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.seal import Head

SECTOR = 512
STATES = 300


@dataclass
class Log:
    """What happened, in order: (what, file name, where or how long, bytes)."""

    events: list[tuple[str, str, int, bytes]] = field(default_factory=list)

    def add(self, what: str, name: str = "", where: int = 0, data: bytes = b"") -> None:
        self.events.append((what, name, where, data))


class RecordingFile(apsw.VFSFile):
    def __init__(self, log: Log, name: Any, flags: Any) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._log = log
        self._name = Path(path or "temporary").name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 -- SQLite's names
        self._log.add("write", self._name, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._log.add("truncate", self._name, size)
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._log.add("sync", self._name)
        super().xSync(flags)


class RecordingVFS(apsw.VFS):
    def __init__(self, name: str, log: Log) -> None:
        self._log = log
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: Any) -> RecordingFile:  # noqa: N802
        return RecordingFile(self._log, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        self._log.add("delete", Path(name).name)
        super().xDelete(name, sync)


def live(folder: Path, log: Log) -> None:
    """A short life: commits of all sizes, settling, checkpoints, trimming, two starts."""
    vfs = RecordingVFS(f"power-{id(log)}", log)
    rng = random.Random(7)
    for _ in range(2):
        store = Store.open(folder, "test", "boot", vfs=f"power-{id(log)}")
        for n in range(12):
            size = rng.choice([1, 30, 3000, 20_000])
            body = b'"x":"' + b"x" * size + b'"'
            store.commit([Draft("readings", body, n, n, 1)] * rng.choice([1, 1, 3]), [("a", b"%d" % n)])
            log.add("acked", where=store.last_seq)
            if n % 5 == 3:
                store.settle("up", [(1, store.last_seq - 2)])
                log.add("settled", where=store.last_seq - 2)
            if n % 4 == 2:
                store.checkpoint_wal()
            if n == 9:
                log.add("may trim", where=store.last_seq)
                store.trim(n - 5, ["up"])
        store.close()
    vfs.unregister()


@dataclass
class Disk:
    """Per file, what is certainly there, and the writes that may or may not be."""

    synced: dict[str, bytearray] = field(default_factory=dict)
    pending: dict[str, list[tuple[str, int, bytes]]] = field(default_factory=dict)
    acked = 0
    settled = 0
    trimmed_below = 0

    def take(self, event: tuple[str, str, int, bytes]) -> None:
        what, name, where, data = event
        match what:
            case "write" | "truncate":
                self.pending.setdefault(name, []).append((what, where, data))
            case "sync":
                self.synced[name] = self.after(name, self.pending.pop(name, []))
            case "delete":
                self.synced.pop(name, None)
                self.pending.pop(name, None)
            case "acked":
                self.acked = where
            case "settled":
                self.settled = where
            case "may trim":
                self.trimmed_below = where
            case "head":
                self.synced["head"] = bytearray(data)

    def after(self, name: str, writes: list[tuple[str, int, bytes]]) -> bytearray:
        content = bytearray(self.synced.get(name, b""))
        for what, where, data in writes:
            if what == "truncate":
                del content[where:]
                continue
            content.extend(bytes(max(0, where - len(content))))
            content[where : where + len(data)] = data
        return content

    def crash(self, folder: Path, rng: random.Random) -> None:
        """Write one of the states in which the files may be found."""
        kept_share = rng.choice([0.0, 0.5, 0.9, 1.0])
        for name in {*self.synced, *self.pending}:
            kept: list[tuple[str, int, bytes]] = []
            for what, where, data in self.pending.get(name, []):
                if what == "truncate":
                    kept += [(what, where, data)] * (rng.random() < kept_share)
                    continue
                for at in range(0, len(data), SECTOR):
                    sector = data[at : at + SECTOR]
                    if rng.random() < kept_share:
                        kept.append(("write", where + at, sector))
                    elif rng.random() < 0.1:
                        kept.append(("write", where + at, rng.randbytes(len(sector))))
            (folder / name).write_bytes(self.after(name, kept))


def crash_states(log: Log, folder: Path, count: int, seed: int) -> Iterator[tuple[Disk, Path]]:
    """`count` states after randomly chosen events; each folder is gone when the next is made."""
    rng = random.Random(seed)
    points = sorted(rng.randrange(len(log.events)) for _ in range(count))
    disk, done = Disk(), 0
    for point in points:
        for event in log.events[done : point + 1]:
            disk.take(event)
        done = point + 1
        state = folder / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        disk.crash(state, rng)
        yield disk, state


def faults(disk: Disk, folder: Path) -> list[str]:
    """What a restart after this crash finds wrong."""
    store = Store.open(folder, "test", "boot-after")
    found = []
    if store.lost is not None:
        found.append(f"set aside: {store.lost.reason}")
    seqs = [batch.seq for batch in store.walk()]
    if seqs and seqs != list(range(seqs[0], seqs[-1] + 1)):
        found.append("hole")
    if disk.acked and (not seqs or seqs[-1] < disk.acked):
        found.append(f"lost acknowledged batches: {seqs[-1:]} < {disk.acked}")
    if seqs and seqs[0] > max(1, disk.trimmed_below):
        found.append("trimmed too much")
    if disk.settled and disk.settled not in store.settled("up"):
        found.append("forgot what was settled")
    if verify(store.walk()) is not None:
        found.append("chain")
    if disk.acked and "a" not in store.alarms():
        found.append("alarm book")
    store.commit([Draft("readings", b'"n":1', 0, 0, 1)])
    store.close()
    return found


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    """The life of one store, and of its head."""
    return record(tmp_path / "live", monkeypatch)


def record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    write = HeadFile.write

    def recording_write(self: HeadFile, head: Head) -> None:
        write(self, head)
        log.add("head", data=(folder / "head").read_bytes())

    monkeypatch.setattr(HeadFile, "write", recording_write)
    live(folder, log)
    monkeypatch.setattr(HeadFile, "write", write)
    return log


def check(log: Log, folder: Path, count: int, seed: int) -> list[str]:
    return [fault for disk, state in crash_states(log, folder, count, seed) for fault in faults(disk, state)]


def test_no_power_cut_loses_an_acknowledged_batch_tears_the_chain_or_forgets_an_alarm(
    tmp_path: Path, recorded: Log
) -> None:
    assert check(recorded, tmp_path, STATES, seed=1) == []


def test_the_same_crashes_do_find_the_losses_of_synchronous_normal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SYNCHRONOUS", "NORMAL")
    log = record(tmp_path / "live", monkeypatch)
    monkeypatch.setattr(store_module, "SYNCHRONOUS", "FULL")
    assert len(check(log, tmp_path, 60, seed=1)) > 10


@pytest.mark.campaign
def test_power_cuts_by_the_thousand(tmp_path: Path, recorded: Log) -> None:
    count = int(os.environ.get("COUNT") or 20_000)
    assert check(recorded, tmp_path, count, seed=random.randrange(1 << 30)) == []
    print(f"power cuts: {count} crash states of {len(recorded.events)} events, 0 acknowledged batches lost")  # noqa: T201
