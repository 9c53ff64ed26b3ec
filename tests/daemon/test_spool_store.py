"""The store: what it commits, settles, trims, and what it does when it finds something else than it left."""

from __future__ import annotations

import json
import shutil
import sqlite3
from typing import TYPE_CHECKING

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.ranges import Ranges
from daemon.room import Keeping
from daemon.seal import verify
from daemon.store import (
    KINDS,
    Batch,
    Draft,
    Kind,
    Store,
    StoreBroken,
    StoreBusy,
    StoreFull,
    StoreMode,
    StoreNewer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def open_store(folder: Path) -> Store:
    return Store.open(folder, "test", "boot-1")


def draft(n: int, kind: Kind = "readings") -> Draft:
    return Draft(kind, b'"n":%d' % n, time_ns=n * 1000, mono_ns=n, count=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def close_and_read(folder: Path, store: Store) -> list[Batch]:
    store.close()
    again = open_store(folder)
    batches = list(again.walk())
    again.close()
    return batches


def test_a_batch_comes_back_as_the_bytes_that_were_committed(tmp_path: Path, store: Store) -> None:
    made = store.commit([draft(1), draft(2, "alarms")]) + store.commit([draft(3, "audit")])
    assert [(b.seq, b.kind, b.time_ns, b.count) for b in made] == [
        (1, "readings", 1000, 1),
        (2, "alarms", 2000, 1),
        (3, "audit", 3000, 1),
    ]
    assert [json.loads(b.payload)["n"] for b in made] == [1, 2, 3]
    assert {json.loads(b.payload)["stream"] for b in made} == {store.stream}
    assert close_and_read(tmp_path, store) == made
    assert verify(made) is None


def test_stream_sequence_alarms_and_states_go_on_after_a_restart(tmp_path: Path, store: Store) -> None:
    store.commit([draft(1)], [("a1", b'{"x":1}'), ("a2", b"{}")], [("level:pz03", b"[1]")])
    store.commit([draft(2)], [("a1", b'{"x":2}')], [("level:pz03", b"[2]"), ("rain", b"[]")])
    store.commit([], [("a3", b"null")])
    stream = store.stream
    store.close()
    store = open_store(tmp_path)
    assert (store.stream, store.last_seq, store.lost) == (stream, 2, None)
    assert store.alarms() == {"a1": b'{"x":2}', "a2": b"{}", "a3": b"null"}
    assert store.states() == {"level:pz03": (2, b"[2]"), "rain": (2, b"[]")}
    store.commit([draft(3)])
    assert verify(store.walk()) is None
    assert store.last_seq == 3
    store.close()


def test_each_batch_remembers_the_boot_its_monotonic_stamp_belongs_to(tmp_path: Path) -> None:
    for boot in ("boot-1", "boot-2", "boot-1"):
        store = Store.open(tmp_path, "test", boot)
        store.commit([draft(5)])
        store.close()
    db = sqlite3.connect(tmp_path / "spool.db")
    rows = db.execute(
        "SELECT boot_id, mono_ns FROM batch JOIN boot ON boot.id = boot ORDER BY seq"
    ).fetchall()
    db.close()
    assert rows == [("boot-1", 5), ("boot-2", 5), ("boot-1", 5)]


def test_peeking_is_bounded_by_number_bytes_range_and_kind(store: Store) -> None:
    store.commit([draft(n, KINDS[n % 4]) for n in range(1, 41)])
    assert [b.seq for b in store.batches(after=3, upto=9, limit=4)] == [4, 5, 6, 7]
    assert [b.seq for b in store.batches(kinds=("alarms",), upto=10)] == [1, 5, 9]
    assert [b.seq for b in store.batches(kinds=("readings",), after=4, limit=2)] == [8, 12]
    size = len(store.batches(limit=1)[0].payload)
    assert len(store.batches(max_bytes=2 * size)) == 2
    assert len(store.batches(max_bytes=1)) == 1
    assert store.latest == {"readings": 40, "alarms": 37, "gaps": 38, "audit": 39}
    assert [json.loads(p)["n"] for p in store.readings_after(30)] == [32, 36, 40]
    assert (store.time_of(7), store.time_of(41), store.first_seq()) == (7000, None, 1)


def test_walking_holds_no_read_transaction_open(tmp_path: Path, store: Store) -> None:
    store.commit([draft(n) for n in range(1, 301)])
    walk = store.walk()
    next(walk)
    store.commit([draft(301)])
    store.checkpoint_wal()
    assert sum(1 for _ in walk) == 300
    assert (tmp_path / "spool.db").stat().st_size > 4096


def test_alarms_are_found_without_reading_what_lies_before_them(store: Store) -> None:
    sql = "SELECT seq FROM batch WHERE seq BETWEEN 1 AND 9 AND kind = 'alarms' AND kind <> 'readings'"
    (plan,) = store._db.execute("EXPLAIN QUERY PLAN " + sql)
    assert "batch_urgent" in plan[3]


def test_a_commit_that_fails_leaves_nothing_and_the_next_takes_its_place(store: Store) -> None:
    store.commit([draft(1)])
    wrong = Draft("nonsense", b'"n":2', 2, 2, 1)  # type: ignore[arg-type]
    with pytest.raises(apsw.ConstraintError):
        store.commit([draft(2), wrong], [("a", b"{}")])
    assert store.alarms() == {}
    assert [b.seq for b in store.commit([draft(3)])] == [2]
    assert verify(store.walk()) is None


def test_a_full_disk_refuses_the_commit_and_a_later_one_is_taken(store: Store) -> None:
    store.commit([draft(1)])
    store._db.pragma("max_page_count", store._db.pragma("page_count"))
    big = Draft("readings", b'"x":"' + b"x" * 50_000 + b'"', 1, 1, 1)
    with pytest.raises(StoreFull, match="disk is full"):
        store.commit([big])
    assert store.last_seq == 1
    store._db.pragma("max_page_count", 100_000)
    store.commit([big])
    assert verify(store.walk()) is None


PAIRS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(PAIRS, max_size=4))
def test_settled_ranges_survive_as_the_set_they_are(
    tmp_path_factory: pytest.TempPathFactory, calls: list[list[tuple[int, int]]]
) -> None:
    folder = tmp_path_factory.mktemp("settle")
    store = open_store(folder)
    twin: set[int] = set()
    for call in calls:
        pairs = [(first, first + more) for first, more in call]
        store.settle("up", pairs)
        twin |= {n for first, last in pairs for n in range(first, last + 1)}
    store.close()
    store = open_store(folder)
    assert {n for first, last in store.settled("up") for n in range(first, last + 1)} == twin
    assert store.settled("up") == Ranges((n, n) for n in twin)  # and no two rows touch
    assert not store.settled("other")
    store.close()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_trimming_never_takes_what_is_unsettled_young_or_newest(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ages = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=30))
    settled = {u: data.draw(st.sets(st.integers(1, len(ages)))) for u in ("a", "b")}
    keep_before = data.draw(st.integers(0, 10))
    store = open_store(tmp_path_factory.mktemp("trim"))
    store.keeping = Keeping(("a", "b"), frozenset("ab"), frozenset("a"))
    store.commit([Draft("readings", b'"n":1', age, 0, 1) for age in ages])
    for uplink, seqs in settled.items():
        store.settle(uplink, [(n, n) for n in seqs])
    deleted = store.trim(keep_before)
    free = [n in settled["a"] & settled["b"] and ages[n - 1] < keep_before for n in range(1, len(ages))]
    assert deleted == next((i for i, may_go in enumerate(free) if not may_go), len(free))
    kept = list(store.walk())
    assert [b.seq for b in kept] == list(range(deleted + 1, len(ages) + 1))
    assert verify(kept) is None
    assert store.trim(keep_before) == 0
    store.commit([draft(1)])
    assert verify(store.walk()) is None
    store.close()


def test_trimming_goes_in_short_steps_until_nothing_is_left_to_do(store: Store) -> None:
    store.commit([draft(n) for n in range(1, 1202)])
    steps = []
    store.keeping = Keeping(("a",), frozenset("a"), frozenset("a"))
    store.settle("a", [(1, 1201)])
    while deleted := store.trim(10**18):
        steps.append(deleted)
    assert steps == [500, 500, 200]
    assert [b.seq for b in store.walk()] == [1201]


# -- opening ----------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path, store: Store) -> None:
    store.commit([draft(1)])
    with pytest.raises(StoreBusy, match="another process writes the store"):
        open_store(tmp_path)
    reader = sqlite3.connect(f"file:{tmp_path}/spool.db?mode=ro", uri=True)
    assert reader.execute("SELECT count(*) FROM batch").fetchone() == (1,)
    store.commit([draft(2)])
    assert reader.execute("SELECT count(*) FROM batch").fetchone() == (2,)
    reader.close()


def test_a_newer_schema_is_refused_with_a_remedy_and_left_alone(tmp_path: Path, store: Store) -> None:
    store.commit([draft(1)])
    store._db.pragma("user_version", 99)
    store.close()
    before = (tmp_path / "spool.db").read_bytes()
    with pytest.raises(StoreNewer, match=r"newer Pondwatch \(schema 99.*install that version"):
        open_store(tmp_path)
    assert (tmp_path / "spool.db").read_bytes() == before
    with pytest.raises(StoreNewer):  # not StoreBusy: the lock was given back
        open_store(tmp_path)


def test_simulated_data_never_mixes_with_real(tmp_path: Path) -> None:
    Store.open(tmp_path, "simulated", "b").close()
    with pytest.raises(StoreMode, match="holds simulated data and the site is real"):
        Store.open(tmp_path, "real", "b")
    Store.open(tmp_path, "simulated", "b").close()


def grown(folder: Path, n: int) -> str:
    """A store with `n` more batches and an alarm; returns its stream."""
    store = open_store(folder)
    store.commit([draft(i) for i in range(1, n + 1)], [("a1", b'{"id":"a1"}')])
    stream: str = store.stream
    store.close()
    return stream


def gap_of(store: Store) -> dict[str, object]:
    (first,) = store.batches(limit=1)
    assert (first.seq, first.kind) == (1, "gaps")
    record: dict[str, object] = json.loads(first.payload)
    return record


def test_a_restored_image_begins_a_new_stream_says_so_and_keeps_its_alarms(tmp_path: Path) -> None:
    old = grown(tmp_path, 5)
    store = open_store(tmp_path)
    store.settle("up", [(1, 3)])
    store.close()
    shutil.copy(tmp_path / "spool.db", tmp_path / "backup")
    grown(tmp_path, 4)
    shutil.copy(tmp_path / "backup", tmp_path / "spool.db")  # somebody puts the backup back
    store = open_store(tmp_path)
    assert store.stream != old
    gap = gap_of(store)
    assert (gap["of"], gap["from_seq"], gap["to_seq"], gap["reason"]) == (old, 4, None, "store-restored")
    assert gap["from"] == "1970-01-01T00:00:00.000Z"
    assert store.alarms() == {"a1": b'{"id":"a1"}'}
    assert not store.settled("up")
    stream = store.stream
    store.close()
    store = open_store(tmp_path)  # and it is a store like any other from here on
    assert (store.stream, store.last_seq, store.lost) == (stream, 1, None)
    store.close()
    assert len(list(tmp_path.glob("spool.db.bad-*"))) == 1


def test_an_image_that_went_another_way_than_its_head_is_a_restored_one(tmp_path: Path) -> None:
    old = grown(tmp_path, 2)
    shutil.copytree(tmp_path, tmp_path / "copy")
    grown(tmp_path, 3)
    store = open_store(tmp_path / "copy")
    store.commit([draft(77)] * 4)
    store.close()
    shutil.copy(tmp_path / "copy" / "spool.db", tmp_path / "spool.db")
    store = open_store(tmp_path)
    assert gap_of(store)["of"] == old
    assert store.stream != old
    store.close()


def test_a_store_of_an_earlier_stream_put_back_is_a_restored_one(tmp_path: Path) -> None:
    grown(tmp_path, 2)
    shutil.copy(tmp_path / "spool.db", tmp_path / "backup")
    (tmp_path / "spool.db").unlink()
    second = grown(tmp_path, 1)
    shutil.copy(tmp_path / "backup", tmp_path / "spool.db")
    store = open_store(tmp_path)
    gap = gap_of(store)
    assert (gap["of"], gap["from_seq"], gap["reason"]) == (second, 1, "store-restored")
    store.close()


def test_a_store_that_vanished_is_announced(tmp_path: Path) -> None:
    old = grown(tmp_path, 2)
    (tmp_path / "spool.db").unlink()
    store = open_store(tmp_path)
    assert store.lost is not None
    assert (gap_of(store)["of"], gap_of(store)["reason"]) == (old, "store-lost")
    store.close()


@pytest.mark.parametrize(
    "damage", [b"", b"\0" * 8192, b"no database at all " * 999], ids=["empty", "zeros", "text"]
)
def test_a_damaged_file_is_set_aside_and_a_new_stream_begins(tmp_path: Path, damage: bytes) -> None:
    old = grown(tmp_path, 2)
    (tmp_path / "spool.db").write_bytes(damage)
    store = open_store(tmp_path)
    assert (gap_of(store)["of"], gap_of(store)["reason"]) == (old, "store-lost")
    assert [p.read_bytes() for p in tmp_path.glob("spool.db.bad-*")] == ([damage] if damage else [])
    store.commit([draft(1)])
    store.close()


def test_damage_found_in_use_stops_the_store_and_the_next_start_begins_anew(tmp_path: Path) -> None:
    old = grown(tmp_path, 3000)
    path = tmp_path / "spool.db"
    whole = bytearray(path.read_bytes())
    (root,) = (
        sqlite3.connect(path).execute("SELECT rootpage FROM sqlite_schema WHERE name = 'batch'").fetchone()
    )
    middle = len(whole) // 2 // 4096 * 4096
    assert middle != (root - 1) * 4096
    whole[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(whole)
    store = open_store(tmp_path)  # opening looks at the ends only: the start does not wait for gigabytes
    assert store.stream == old
    with pytest.raises(StoreBroken, match="damaged"):
        list(store.walk())
    with pytest.raises(StoreBroken, match="damaged"):
        store.commit([draft(1)])
    store.close()
    store = open_store(tmp_path)
    assert (gap_of(store)["of"], gap_of(store)["reason"]) == (old, "store-lost")
    assert store.alarms() == {"a1": b'{"id":"a1"}'}
    store.close()
    store = open_store(tmp_path)
    assert store.lost is None
    store.close()


def test_a_lost_head_is_no_loss_of_the_store(tmp_path: Path) -> None:
    old = grown(tmp_path, 2)
    (tmp_path / "head").unlink()
    store = open_store(tmp_path)
    assert (store.stream, store.last_seq, store.lost) == (old, 2, None)
    store.close()


def test_a_head_one_commit_behind_its_store_is_a_cut_between_the_two_and_no_restore(tmp_path: Path) -> None:
    old = grown(tmp_path, 2)
    head = (tmp_path / "head").read_bytes()
    grown(tmp_path, 1)
    (tmp_path / "head").write_bytes(head)
    store = open_store(tmp_path)
    assert (store.stream, store.last_seq, store.lost) == (old, 3, None)
    store.close()


def test_a_folder_that_cannot_be_made_is_the_callers_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        open_store(tmp_path / "file" / "store")
