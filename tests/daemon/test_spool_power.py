"""Power cuts: the store on a disk that forgets what was not synced, and writes it in any order.

A VFS records every write, truncation, deletion and sync of the real store, each commit that returned, and each head. A
crash state is the disk as it can look after any one of these events: what was synced, and of the later
writes any subset of their 512-byte sectors, or random bytes in their place. Directory entries are taken as
durable, as is a head that was written (it is synced before its write returns).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from daemon import store_file
from daemon.archive import first_bad
from daemon.ranges import Ranges
from daemon.room import Keeping
from daemon.seal import HeadFile, envelope
from daemon.store import Draft, Store
from daemon.store_file import migrations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.seal import Head
    from tests.conftest import Figure

SECTOR = 512
OLD = 89  # batches of the old store
UP = Keeping(("up",), frozenset({"up"}), frozenset({"up"}))
STATES = 300


@dataclass
class Log:
    """What happened, in order: (what, file name, where or how long, bytes)."""

    events: list[tuple[str, str, int, bytes]] = field(default_factory=list)
    phases: dict[str, list[range]] = field(default_factory=dict)  # name -> which events belong to it

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        first = len(self.events)
        yield
        self.phases.setdefault(name, []).append(range(first, len(self.events)))

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
        self.name = name
        self._log = log
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: Any) -> RecordingFile:  # noqa: N802
        return RecordingFile(self._log, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        self._log.add("delete", Path(name).name)
        super().xDelete(name, sync)


def schema_1(folder: Path, vfs: str) -> None:
    """A store as schema 1 left it: what follows begins with a migration."""
    folder.mkdir()
    db = apsw.Connection(str(folder / "spool.db"), vfs=vfs)
    db.pragma("journal_mode", "wal")
    db.execute(f"BEGIN; {migrations()[1]}; PRAGMA user_version=1; COMMIT")
    db.execute("INSERT INTO store VALUES (1, 'old1', 'test', NULL); INSERT INTO boot VALUES (1, 'boot-0')")
    prev = bytes(32)
    for seq in range(1, OLD + 1):
        payload = envelope("test", "old1", seq, prev, b'"n":%d' % seq)
        prev = sha256(payload).digest()
        row = (seq, "readings" if seq % 9 else "alarms", 1, 0, seq, 1, payload, prev)
        db.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    db.close()


def live(folder: Path, log: Log) -> None:
    """A short life: a migration, commits of all sizes, settling, checkpoints, packing, trimming, pushing out."""
    vfs = RecordingVFS(f"power-{id(log)}", log)
    rng = random.Random(7)
    schema_1(folder, vfs.name)
    log.add("acked", where=OLD)
    for start in range(2):
        with log.phase("start" if start else "migration"):
            store = Store.open(folder, "test", "boot", vfs=vfs.name, keeping=UP)
        for n in range(12):
            size = rng.choice([1, 30, 3000, 20_000])
            body = b'"x":"' + b"x" * size + b'"'
            store.commit([Draft("readings", body, n, n, 1)] * rng.choice([1, 1, 3]), [("a", b"%d" % n)])
            log.add("acked", where=store.last_seq)
            if n % 5 == 3:
                with log.phase("settle"):
                    store.settle("up", [(1, store.last_seq - 2)])
                log.add("settled", where=store.last_seq - 2)
            if n % 4 == 2:
                store.checkpoint_wal()
            if n == 9:
                log.add("may trim", where=store.last_seq)
                with log.phase("trim"):
                    store.trim(n - 5)
                log.add("trimmed", where=store.first_seq())
            if n == 10:
                store.pack(n)
        if start:
            log.add("may push out", where=store.last_seq)
            with log.phase("push out"):
                store._push_out(40_000)
            log.add("acked", where=store.last_seq)
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
    trimmed_to = 0
    pushed_below = 0

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
            case "trimmed":
                self.trimmed_to = where
            case "may push out":
                self.pushed_below = where
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

    def crash(self, folder: Path, rng: random.Random, kept_share: float | None = None) -> None:
        """Write one of the states in which the files may be found."""
        kept_share = rng.choice([0.0, 0.5, 0.9, 1.0]) if kept_share is None else kept_share
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


SHARES = (0.0, 0.3, 0.7, 0.95, 1.0)  # of the unsynced sectors that reached the disk


def states_of(log: Log, folder: Path, phase: str) -> Iterator[tuple[Disk, Path]]:
    """A state for each of SHARES after every single event of a phase."""
    rng = random.Random(11)
    disk, done = Disk(), 0
    for point in (point for span in log.phases[phase] for point in span):
        for event in log.events[done : point + 1]:
            disk.take(event)
        done = point + 1
        for share in SHARES:
            state = folder / "state"
            shutil.rmtree(state, ignore_errors=True)
            state.mkdir()
            disk.crash(state, rng, share)
            yield disk, state


def faults(disk: Disk, folder: Path) -> list[str]:
    """What a restart after this crash finds wrong."""
    if not (folder / "spool.db").exists() or not (folder / "spool.db").stat().st_size:
        return []  # before the old store was there
    store = Store.open(folder, "test", "boot-after", keeping=UP)
    found = []
    if store.lost is not None:
        found.append(f"set aside: {store.lost.reason}")
    seqs = [batch.seq for batch in store.walk()]
    if seqs:
        found += holes(disk, folder, store, seqs) + trimmed(disk, store, seqs[0])
    if disk.acked and (not seqs or seqs[-1] < disk.acked):
        found.append(f"lost acknowledged batches: {seqs[-1:]} < {disk.acked}")
    if disk.settled and disk.settled not in store.settled("up"):
        found.append("forgot what was settled")
    if disk.settled < store.last_seq in store._settled.get("up", Ranges()):  # its newest was never settled
        found.append("settled what nobody acknowledged")
    if first_bad(store.walk(), store._gone) is not None:
        found.append("chain")
    if disk.acked > OLD and "a" not in store.alarms():
        found.append("alarm book")
    store.commit([Draft("readings", b'"n":1', 0, 0, 1)])
    store.close()
    return found


def holes(disk: Disk, folder: Path, store: Store, seqs: list[int]) -> list[str]:
    """Missing seqs are those that the store knows of, and each loss among them is announced."""
    missing = seqs[-1] - seqs[0] + 1 - len(seqs)
    gone = store._gone.count(seqs[0], seqs[-1])
    found = []
    if missing != gone or (gone and not disk.pushed_below):
        found.append(f"hole: {missing} missing, {gone} known of")
    if pushed_out(store) != gone_as(folder, "pushed-out"):
        found.append("pushed out and not announced, or announced and here")
    return found


def trimmed(disk: Disk, store: Store, first: int) -> list[str]:
    """What was deleted from the front might be, and stays so."""
    found = []
    if first > max(1, disk.trimmed_below):
        found.append("trimmed too much")
    if first < disk.trimmed_to:
        found.append("what was trimmed is here again")
    if store._settled.get("up", Ranges()).count(1, first - 1) < first - 1:
        found.append("trimmed what was not settled")
    return found


def pushed_out(store: Store) -> Ranges:
    """What gap records say."""
    gaps = [json.loads(batch.payload) for batch in store.walk(kinds=("gaps",))]
    return Ranges((gap["from_seq"], gap["to_seq"]) for gap in gaps if gap["reason"] == "pushed-out")


def gone_as(folder: Path, reason: str) -> Ranges:
    """What the table of missing batches says."""
    db = apsw.Connection(str(folder / "spool.db"))
    rows = db.execute("SELECT first, last FROM gone WHERE reason = ?", (reason,)).fetchall()
    db.close()
    return Ranges((int(str(first)), int(str(last))) for first, last in rows)


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


@pytest.mark.fault(
    row=3,
    fault="power cut: unsynced writes, torn sectors",
    injected="any subset of the unsynced 512-byte sectors of our own store, at random events of a life (migration, commits, settling, packing, trimming, pushing out)",
    holds="nothing acknowledged lost, no hole that is not announced, the chain whole",
)
def test_no_power_cut_loses_an_acknowledged_batch_tears_the_chain_or_forgets_an_alarm(
    tmp_path: Path, recorded: Log, figure: Figure
) -> None:
    assert check(recorded, tmp_path, STATES, seed=1) == []
    figure(f"{STATES} crash states of {len(recorded.events)} events: 0 lost, 0 false")


@pytest.mark.fault(
    row=3,
    fault="the same with synchronous=NORMAL",
    injected="the same crash states",
    holds="the test finds losses, or it would prove nothing",
)
def test_the_same_crashes_do_find_the_losses_of_synchronous_normal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    monkeypatch.setattr(store_file, "SYNCHRONOUS", "NORMAL")
    log = record(tmp_path / "live", monkeypatch)
    monkeypatch.setattr(store_file, "SYNCHRONOUS", "FULL")
    found = len(check(log, tmp_path, 60, seed=1))
    assert found > 10
    figure(f"{found} faults in 60 crash states")


@pytest.mark.campaign
@pytest.mark.fault(
    row=3,
    fault="power cut, by the hundred thousand",
    injected="the same, at other random events",
    holds="nothing acknowledged lost, no hole that is not announced, the chain whole",
)
def test_power_cuts_by_the_hundred_thousand(tmp_path: Path, recorded: Log, figure: Figure) -> None:
    count = int(os.environ.get("COUNT") or 100_000)
    assert check(recorded, tmp_path, count, seed=random.randrange(1 << 30)) == []
    figure(f"{count:,} crash states of {len(recorded.events)} events: 0 lost, 0 false")
