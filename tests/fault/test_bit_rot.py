"""Row 12, the writer's side: a bit of the store has flipped, anywhere, and the core goes on with what is sound.

Half of the flips hit the first bytes of a row, where SQLite keeps the types and lengths of its columns: there a number
becomes bytes, and bytes a number, without SQLite finding anything wrong.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import struct
from itertools import islice
from typing import TYPE_CHECKING

import apsw
import pytest

from daemon.archive import Archive, first_bad
from daemon.salvage import salvage
from daemon.spool import Draft, Keeping, Spool, StoreBroken
from tests.daemon import test_spool_archive as archive
from tests.fault.test_core_starved import RED, polled, polls_on
from tests.system.running import Daemon, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Figure

PAGE = 4096
KEEPING = Keeping(("up",), frozenset({"up"}), frozenset({"up"}), 64 << 20)
LEAVES = (0x0A, 0x0D)  # of an index, of a table
FLIPS = 40


def row_heads(file: bytes) -> list[int]:
    """Where rows begin, by the pages' cell pointers (sqlite.org/fileformat2.html, 1.6)."""
    heads = []
    for page in range(0, len(file), PAGE):
        at = page + (100 if page == 0 else 0)
        kind, _, cells = struct.unpack_from(">BHH", file, at)
        if kind in LEAVES:
            heads += [page + cell for (cell,) in struct.iter_unpack(">H", file[at + 8 : at + 8 + 2 * cells])]
    return heads


async def rotten(folder: Path, pristine: dict[int, bytes]) -> str:
    """What became of a store with a flipped bit; raises what the core could not bear."""
    async with Spool.open(folder, "test", "boot", keeping=KEEPING) as spool:
        after = 0
        found: dict[int, bytes] = {}
        while True:
            try:
                batches = await spool.peek(after)
            except StoreBroken:  # once; who asks again is served by the store that took its place
                batches = await spool.peek(after := 0)
            if not batches:
                break
            found |= {batch.seq: batch.payload for batch in batches}
            after = batches[-1].seq
        if spool.lost is None:  # what is read is what was committed
            assert all(found[seq] == payload for seq, payload in pristine.items() if seq in found)
        await spool.alarms()
        await spool.states()
        (batch,) = await spool.commit([Draft("readings", b'"n":1', 1, 1, 1)], [("b", b"1")])
        await spool.settle("up", [(1, batch.seq)])
        await spool._ask(lambda store: store.pack(0))
        await spool.trim(1)
        return "set aside" if spool.lost else "went on"


async def flipped(folder: Path, count: int, seed: int) -> str:
    store = archive.filled(folder / "whole", 120)
    archive.pack_all(store)
    for k in range(120, 140):  # loose ones as well
        store.commit([archive.scan(k, random.Random(k))], [("a", b"{}")], [("s", b"1")])
    pristine = {batch.seq: batch.payload for batch in store.walk()}
    store._db.execute("VACUUM")
    store.close()
    whole = (folder / "whole/spool.db").read_bytes()
    heads, rng, outcomes = row_heads(whole), random.Random(seed), {"went on": 0, "set aside": 0}
    for n in range(count):
        byte = rng.choice(heads) + rng.randrange(14) if n % 2 else rng.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[min(byte, len(whole) - 1)] ^= 1 << rng.randrange(8)
        place = folder / "damaged"
        shutil.copytree(folder / "whole", place)
        (place / "spool.db").write_bytes(damaged)
        with_archive(place, folder / "saved.db")
        outcomes[await rotten(place, pristine)] += 1
        shutil.rmtree(place)
    return ", ".join(f"{number} {what}" for what, number in outcomes.items())


def with_archive(place: Path, saved: Path) -> None:
    """`spool verify` and `spool salvage` answer, or say in SQLite's words that it is damaged."""
    try:
        with Archive(place / "spool.db") as whole:
            first_bad(whole.batches(), whole.gone)
        salvage(place / "spool.db", saved)
    except apsw.Error:
        pass
    saved.unlink(missing_ok=True)


@pytest.mark.fault(
    row=12,
    fault="a bit of the store flipped before the core starts on it",
    injected="single bits, half of them where a row keeps the types of its columns; opened, read, committed to, packed, trimmed",
    holds="nothing rotten is read as sound, the core commits on: with this store, or with another and the loss announced",
)
async def test_a_flipped_bit_never_keeps_the_core_from_committing(tmp_path: Path, figure: Figure) -> None:
    figure(f"{FLIPS} flips: {await flipped(tmp_path, FLIPS, seed=3)}")


@pytest.mark.campaign
@pytest.mark.fault(row=12, fault="the same by the thousand", injected="as above", holds="as above")
async def test_thousands_of_flipped_bits_never_keep_the_core_from_committing(
    tmp_path: Path, figure: Figure
) -> None:
    count = int(os.environ.get("COUNT") or 3_000)
    figure(f"{count:,} flips: {await flipped(tmp_path, count, seed=random.randrange(1 << 30))}")


def key_of(file: bytes, seq: int) -> int:
    """Where the key of batch `seq` (128 to 255: two bytes) ends, behind the length of its row."""
    for head in row_heads(file):
        at = head
        while file[at] & 0x80:
            at += 1
        if file[at + 1 : at + 3] == bytes([0x81, seq - 128]):
            return at + 2
    raise AssertionError(f"batch {seq} is not there")


async def test_a_rotten_key_ends_neither_verify_nor_the_core_in_a_circle(tmp_path: Path) -> None:
    """Batch 141 becomes 173, before 142: who goes on behind the last row read comes back to 142 for ever."""
    store = archive.filled(tmp_path, 138)
    store.commit([archive.scan(k, random.Random(k)) for k in range(2)])
    pristine = {batch.seq: batch.payload for batch in store.walk()}
    store.close()
    whole_file = (tmp_path / "spool.db").read_bytes()
    file = bytearray(whole_file)
    file[key_of(whole_file, 141)] ^= 0x20
    (tmp_path / "spool.db").write_bytes(file)
    with Archive(tmp_path / "spool.db") as whole:
        try:
            read = sum(1 for _ in islice(whole.batches(), 1000))
        except apsw.CorruptError:
            read = 0
        assert read < 1000
    assert await rotten(tmp_path, pristine) == "set aside"


CUT = "CAST(substr(body, 1, length(body) / 2) AS BLOB)"
ALTERED = "CAST(replace(replace(CAST(body AS TEXT), 'red', 'blue'), '5.', '6.') AS BLOB)"  # JSON as before


@pytest.mark.parametrize("rot", [CUT, ALTERED], ids=["cut", "altered"])
@pytest.mark.fault(
    row=12,
    fault="the rows of the alarm book and of what judging goes on from have rotted",
    injected="half of every row cut away, or other numbers and levels in them, between two runs of a real core",
    holds="the core starts and polls; the alarm is the one that the chain told of, with what people did about it",
)
async def test_a_core_takes_its_book_from_the_chain_where_the_rows_have_rotted(
    tmp_path: Path, rot: str, figure: Figure
) -> None:
    async with polled(tmp_path, RED) as (instruments, _, site, _):
        async with Daemon(site, tmp_path) as core:
            (alarm, *_) = await until(lambda: core.ask("alarms.list"), "the alarm is raised")
            await core.ask("alarms.ack", id=alarm["id"], by="王工", role="值班")
            before = await core.ask("alarms.list")
            assert await core.stop() == 0
        with contextlib.closing(apsw.Connection(str(core.store / "spool.db"))) as db:
            db.execute(f"UPDATE alarm SET body = {rot}")
            db.execute(f"UPDATE state SET body = {rot} WHERE body <> {rot}")
            states = db.changes()
        async with Daemon(site, tmp_path) as core:
            await polls_on(instruments)
            after = await core.ask("alarms.list")
            assert await core.stop() == 0
        log = core.log.read_text()
        with contextlib.closing(apsw.Connection(str(core.store / "spool.db"))) as db:
            ((sound, every),) = db.execute(
                "SELECT sum(CAST(body AS TEXT) LIKE '%\"red\"%'), count(*) FROM alarm"
            )
    assert [(a["id"], a["level"], a["response"], a["by"]) for a in after] == [
        (a["id"], a["level"], a["response"], a["by"]) for a in before
    ]
    assert "is taken from the chain, present acknowledged" in log
    assert log.count("begins anew, it cannot be read back from the store") == states
    assert sound == every
    figure(f"{states} states and the book rotten: polled on, {len(after)} alarms as they were")
