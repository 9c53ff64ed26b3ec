"""The oracles can fail: each of these mistakes, put into the store on purpose, is found by the tests' own checks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from daemon import packs, store_file
from daemon.archive import Archive, first_bad
from daemon.seal import envelope
from daemon.store import Draft, Store
from daemon.store_rows import StoreRows
from tests.daemon import test_spool_power as power
from tests.fault import test_disk_lies as lies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from daemon.batch import Batch


def found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mutate: Callable[[pytest.MonkeyPatch], None],
    phase: str,
) -> set[str]:
    """What the power-cut oracle says of a life that was lived with the mistake, cut at every point of `phase`."""
    with monkeypatch.context() as patch:
        mutate(patch)
        log = power.record(tmp_path / "live", patch)
    faults = (power.faults(disk, state) for disk, state in power.states_of(log, tmp_path, phase))
    return {fault.split(":")[0] for each in faults for fault in each}


def test_synchronous_normal_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = found(
        tmp_path, monkeypatch, lambda patch: patch.setattr(store_file, "SYNCHRONOUS", "NORMAL"), "settle"
    )
    assert faults & {"lost acknowledged batches", "set aside", "forgot what was settled"}


def test_trimming_before_settling_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trim_anything(self: Store, _: int) -> int:
        with self._writing():
            self._db.execute("DELETE FROM pack; DELETE FROM batch WHERE seq < ?", (self.last_seq,))
        return 1

    faults = found(tmp_path, monkeypatch, lambda patch: patch.setattr(Store, "trim", trim_anything), "trim")
    assert "trimmed what was not settled" in faults


def test_settled_ranges_outside_the_transaction_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are deleted in one commit and written in another: a cut between them forgets."""

    @contextlib.contextmanager
    def no_transaction(self: StoreRows) -> Iterator[None]:
        yield

    settle = Store._settle

    def torn(self: Store, uplink: str, pairs: list[tuple[int, int]]) -> None:
        writing = StoreRows._writing
        StoreRows._writing = no_transaction  # type: ignore[method-assign]
        try:
            settle(self, uplink, pairs)
        finally:
            StoreRows._writing = writing  # type: ignore[method-assign]

    faults = found(tmp_path, monkeypatch, lambda patch: patch.setattr(Store, "_settle", torn), "settle")
    assert "forgot what was settled" in faults


def test_settling_before_the_acknowledgement_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that settles what it commits would trim what nobody has."""
    commit = Store._commit

    def commit_and_settle(self: Store, *what: Any) -> list[Batch]:
        batches = commit(self, *what)
        if batches:
            self.settle("up", [(1, batches[-1].seq)])
        return batches

    faults = found(
        tmp_path, monkeypatch, lambda patch: patch.setattr(Store, "_commit", commit_and_settle), "settle"
    )
    assert "settled what nobody acknowledged" in faults


def test_a_chain_that_is_not_checked_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rotten(folder: Path, check: Callable[[Iterable[Batch], Any], int | None]) -> bool:
        with Archive(folder / "spool.db") as archive:
            return check(archive.batches(), archive.gone) is not None

    store = Store.open(tmp_path, "test", "b")
    store.commit([Draft("readings", b'"n":%d' % n, n, n, 1) for n in range(20)])
    store.close()
    db = apsw.Connection(str(tmp_path / "spool.db"))
    (payload,) = db.execute("SELECT payload FROM batch WHERE seq = 8").fetchone()  # type: ignore[misc]
    db.execute("UPDATE batch SET payload = ? WHERE seq = 8", (bytes(payload).replace(b'"n":7', b'"n":9'),))
    db.close()
    assert rotten(tmp_path, first_bad)
    assert not rotten(tmp_path, lambda batches, _: None if list(batches) else 0)  # the mistake itself


def test_a_pack_whose_hash_is_not_checked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = envelope("test", "ab", 1, bytes(32), b'"n":1')
    frame = packs.pack([packs.Row(1, 1, 1, 1, 1, payload)])
    with pytest.raises(packs.Damaged):
        packs.unpack(frame, bytes(32))


def test_believing_a_sync_after_one_that_failed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "_rewrite", lambda self, *, sure: None)
    monkeypatch.setattr(Store, "_close_db", lies.close_without_checkpoint)
    assert lies.lost_after_a_lie(tmp_path)
