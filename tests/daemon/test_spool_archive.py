"""Packs, old schemas, and the store for other tools: verify, export, salvage."""

from __future__ import annotations

import base64
import csv
import json
import os
import random
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import msgspec
import pytest
import sqlite_utils
from hypothesis import given
from hypothesis import strategies as st

from daemon import export, packs, store_file
from daemon.archive import Archive, first_bad
from daemon.commands import main
from daemon.room import Keeping
from daemon.salvage import salvage
from daemon.seal import envelope, verify
from daemon.store import Draft, Store, StoreNewer

if TYPE_CHECKING:
    from daemon.batch import Batch
    from tests.conftest import Figure

UP = Keeping(("up",), frozenset({"up"}), frozenset({"up"}))
BYTES_PER_READING = 12


def open_store(folder: Path) -> Store:
    return Store.open(folder, "test", "boot-1", keeping=UP)


def scan(k: int, rng: random.Random, channels: int = 25) -> Draft:
    """One poll of vibrating wires: float32 registers, and what a polynomial makes of them."""
    readings = []
    for c in range(channels):
        raw = struct.unpack("f", struct.pack("f", 2600 + 7 * c + rng.gauss(0, 0.05)))[0]
        value = -0.1795 * (raw**2 / 1000 - 9082) + 0.1319 * (15 + rng.gauss(0, 0.1))
        ms = k * 10_000 + c * 37 + rng.randrange(4)
        stamp = f"2026-11-{1 + ms // 86_400_000:02}T{ms // 3_600_000 % 24:02}:{ms // 60_000 % 60:02}"
        time = f"{stamp}:{ms // 1000 % 60:02}.{ms % 1000:03}Z"
        readings.append(
            {
                "channel": f"n.pz{c:02}.pressure",
                "time": time,
                "value": value,
                "unit": "kPa",
                "quality": "good",
            }
            | {"raw": {f"vw{c}.freq03": raw}}
        )
    body = '"site":"s","gateway":"g","readings":' + json.dumps(readings, separators=(",", ":"))
    return Draft("readings", body.encode(), k * 10**10, k * 10**10, channels)


def filled(folder: Path, scans: int = 300, settle: bool = True) -> Store:
    """Scans with an alarm after every 50th, packed as far as they are settled."""
    rng = random.Random(5)
    store = open_store(folder)
    for k in range(scans):
        alarm = [Draft("alarms", b'"id":"a%d"' % k, k * 10**10, 0, 1)] * (k % 50 == 49)
        store.commit([scan(k, rng), *alarm], [("a", b"%d" % k)])
    if settle:
        store.settle("up", [(1, store.last_seq)])
    return store


def pack_all(store: Store) -> int:
    total = 0
    while packed := store.pack(0):
        total += packed
    return total


# -- packs ------------------------------------------------------------------------------------------


def test_packed_batches_come_back_byte_for_byte_in_any_range(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = list(store.walk())
    assert pack_all(store) > 250
    assert list(store.walk()) == before
    assert verify(store.walk()) is None
    for after, upto in ((0, 1), (60, 61), (49, 130), (255, 260), (290, 10**9)):
        assert store.batches(after, upto, limit=1000) == [b for b in before if after < b.seq <= upto]
        kinds = [b for b in before if after < b.seq <= upto and b.kind == "readings"]
        assert store.batches(after, upto, ("readings",), 1000) == kinds
    latest, first = dict(store.latest), store.first_seq()
    store.close()
    store = open_store(tmp_path)
    assert (store.latest, store.first_seq(), store.lost) == (latest, first, None)
    assert list(store.walk()) == before
    assert store.time_of(77) == before[76].time_ns
    store.close()


def test_a_routine_reading_takes_at_most_12_bytes_of_disk_once_packed(tmp_path: Path) -> None:
    store = filled(tmp_path, 500)
    store.checkpoint_wal()
    loose = store.size_bytes() / (500 * 25)
    pack_all(store)
    ((packed, size),) = store._db.execute(
        "SELECT (SELECT sum(count) FROM pack), (SELECT sum(pgsize) FROM dbstat WHERE name = 'pack')"
    )
    store.close()
    per_reading = float(str(size)) / float(str(packed))
    print(f"{loose:.1f} bytes a reading as committed, {per_reading:.2f} of disk pages packed")  # noqa: T201
    assert per_reading <= BYTES_PER_READING


def test_only_what_is_settled_or_old_is_packed_and_the_newest_stays_loose(tmp_path: Path) -> None:
    store = filled(tmp_path, 200, settle=False)
    assert store.pack(0) == 0
    store.settle("up", [(1, 100)])
    assert 64 <= pack_all(store) <= 100
    while store.pack(10**18):
        pass
    (left,) = store._row("SELECT count(*) FROM batch WHERE kind = 'readings'") or (0,)
    assert left < 64
    assert verify(store.walk()) is None
    store.close()


def test_drafts_are_what_batches_were_made_from_packed_or_not(tmp_path: Path) -> None:
    store = filled(tmp_path, 100)
    before = list(store.drafts())
    assert pack_all(store) > 60
    assert list(store.drafts()) == before
    assert before[70][1].mono_ns == before[70][1].time_ns
    store.close()


def test_trimming_takes_packs_as_a_whole(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = list(store.walk())
    pack_all(store)
    trimmed = 0
    assert store.trim(200 * 10**10) == 0  # a pack goes when all of it may
    while deleted := store.trim(280 * 10**10):
        trimmed += deleted
    left = list(store.walk())
    assert left == before[trimmed:]
    assert 200 < trimmed < 290
    assert verify(left) is None
    store.close()


def test_numbers_of_every_form_survive_packing() -> None:
    words = [
        "0",
        "-0.0",
        "1e5",
        "1.5e-07",
        "1E5",
        "0.1",
        "-12345678901234567890",
        "1.7976931348623157e308",
        "2.50",
    ]
    rows, prev = [], bytes(32)
    for seq in range(1, 90):
        some = [words[(seq * k) % len(words)] for k in range(1, 5)] + [repr(random.Random(seq).random())]
        body = b'"x":[' + ",".join(some).encode() + b'],"t":"\\u4e2d 12:30\\n\xe4\xb8\xad"'
        payload = envelope("test", "ab12", seq, prev if seq % 7 else bytes(32), body)
        rows.append(packs.Row(seq, 1, seq, seq, 5, payload))
        prev = sha256(payload).digest()
    frame = packs.pack(rows)
    assert packs.unpack(frame, prev) == rows
    for at in range(0, len(frame), 7):
        flipped = bytearray(frame)
        flipped[at] ^= 4
        with pytest.raises(packs.Damaged):
            packs.unpack(bytes(flipped), prev)


# A pack as version 0 of this room made it: every number a column, times taken apart, planes of what Python prints.
OLD_PACK = base64.b85decode(
    "D77#BWGDkI5CFs)mYkIVl>z|*0s)l+0Rsa8l>`9<1Ob%=0R;sCl?DL@1_6}^0S5;Gl?VX{2mzG|0SO5Kl?nk03IUZ10SgNOl"
    "?(w43;}@w#2^5X#F={{b|N|eEFx`hWMv{cB64M6Y$7Zob98cLVQnHhB4J_xWpQwFWp*MuB58DUa%Ev;X>Mn8B05`pB4cP_Zf"
    "<34B03^)dUR=R0000~06G9V09qm}B6eYHb!Bp4cOp7_B4jRj0DXO3eVp6?5X2WT3dAEZG77{RF$yvYGYT{cH3~KgHwrikISM"
    "f_3NbMkG77{aFgFUsJ2EgbHVVWqEio|)#4jx}GYZ5bFgOatBQP-vFfs}-GYT*?3NSSaFg7>}FjFuvE-)}K3dCRl0962*RgwT"
    "4nnqQbRU`n%nHNa_ahY9`034Zg(M478;MLH{#lpb6xwo}HU{pWeruw^#(_Rfq_vEVpKwt<)X%83C91zSiW*JjH-6pxpSaFo!"
    "XB(8S2F0hnj&s(*(Yi}`wa2T#kSgC#JK5vv-zPh)0hzMQ<^LBkN@RYPu|7L7Wid7ik&+7yBp_e{RArk3gPg@B0r)Cdv}HTA7"
    "KqhRoTI+eb>mu9N+7PXaRes>hd(kQ%Y?({c3ig~eb%t}E56O*Q7Xe+^C(MT2p2eTNC=6*g)j(*E3p2kO~A9ivU=+"
)


def test_a_pack_made_before_times_were_kept_whole_comes_back() -> None:
    rows, prev = [], bytes(32)
    for seq in range(1, 13):
        raw = b'{"d.x1":%r,"d.x2":1e16}' % (1.25e-7 * 3**seq)
        time = b"2026-11-23T08:%02d:00.000Z" % seq
        reading = b'{"channel":"pz07","time":"%b","value":%r,"raw":%b}' % (time, 1 / seq, raw)
        payload = envelope("real", "ab12", seq, prev, b'"site":"s2","readings":[%b]' % reading)
        prev = sha256(payload).digest()
        rows.append(packs.Row(seq, 1, seq, seq, 1, payload))
    assert packs.unpack(OLD_PACK, prev) == rows
    assert packs.unpack(packs.pack(rows), prev) == rows


@given(
    numbers=st.lists(
        st.lists(
            st.one_of(
                st.floats(allow_nan=False, allow_infinity=False).map(msgspec.json.encode),
                st.integers().map(lambda n: b"%d" % n),
                st.sampled_from(("2.50", "1E5", "-0.0", "123456789012.0", "1e16", "0.00001234567890123")).map(
                    str.encode
                ),
                st.from_regex(rb"[-0-9.:TZe+]{1,24}", fullmatch=True).map(lambda text: b'"%b"' % text),
            ),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_the_values_are_a_pack_gives_back_the_very_bytes(numbers: list[list[bytes]]) -> None:
    rows, prev = [], bytes(32)
    for seq, (a, b, c) in enumerate(numbers, 1):
        payload = envelope("test", "ab12", seq, prev, b'"a":%b,"readings":[%b,{"raw":%b}]' % (a, b, c))
        prev = sha256(payload).digest()
        rows.append(packs.Row(seq, 1, seq, seq, 5, payload))
    assert packs.unpack(packs.pack(rows), prev) == rows


def test_packs_come_back_should_numbers_be_printed_otherwise_one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, prev = [], bytes(32)
    for seq in range(1, 90):
        payload = envelope("test", "ab12", seq, prev, b'"value":%r' % random.Random(seq).gauss(0, 100))
        prev = sha256(payload).digest()
        rows.append(packs.Row(seq, 1, seq, seq, 5, payload))
    frame = packs.pack(rows)
    monkeypatch.setattr(packs, "_written", lambda values: [b"%.20f" % value for value in values])
    assert packs.unpack(frame, prev) == rows


def test_packing_holds_one_pack_in_memory_however_large_the_batches_are(tmp_path: Path) -> None:
    rng = random.Random(3)
    store = open_store(tmp_path)
    for k in range(120):
        store.commit([scan(k, rng, 2000)])
    store.settle("up", [(1, store.last_seq)])
    tracemalloc.start()
    try:
        assert 2 <= store.pack(0) <= 6
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    store.close()
    assert peak < 24 << 20  # thirty megabytes of payloads lie there


# -- bit flips --------------------------------------------------------------------------------------


def found_wrong(folder: Path, pristine: list[Batch]) -> bool | None:
    """Whether a damaged copy is noticed; None: the flip was inert, every batch reads as before."""
    try:
        with Archive(folder / "spool.db") as archive:
            batches = list(archive.batches())
            bad = first_bad(batches, archive.gone)
    except (apsw.Error, ValueError):
        return True
    if [(b.seq, b.payload) for b in batches] == [(b.seq, b.payload) for b in pristine]:
        return bad is not None or None
    head_behind = batches[-1].seq < pristine[-1].seq if batches else True
    return bad is not None or head_behind


def flips(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """How many single-bit flips were found, and how many were not; inert ones count as neither."""
    store = filled(folder / "store", 120)
    pack_all(store)
    store._db.execute("VACUUM")  # free pages would only make inert flips
    store.close()
    with Archive(folder / "store/spool.db") as archive:
        pristine = list(archive.batches())
    whole = (folder / "store/spool.db").read_bytes()
    rng, found, missed = random.Random(seed), 0, 0
    (folder / "copy").mkdir()
    for _ in range(count):
        at = rng.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        (folder / "copy/spool.db").write_bytes(damaged)
        wrong = found_wrong(folder / "copy", pristine)
        found += wrong is True
        missed += wrong is False
    return found, missed


@pytest.mark.fault(
    row=12,
    fault="a bit of the file flipped",
    injected="single bits of a store, at random",
    holds="each flip that changes what is read is found",
)
def test_a_flipped_bit_that_changes_what_is_read_is_always_found(tmp_path: Path, figure: Figure) -> None:
    found, missed = flips(tmp_path, 150, seed=2)
    assert missed == 0
    assert found > 60
    figure(f"{found} of {found + missed} found; the others of 150 changed nothing that is read")


@pytest.mark.campaign
@pytest.mark.fault(
    row=12,
    fault="bits of the file flipped, by the thousand",
    injected="the same",
    holds="every flip that changes what is read is found",
)
def test_bit_flips_by_the_thousand(tmp_path: Path, figure: Figure) -> None:
    count = int(os.environ.get("COUNT") or 10_000)
    found, missed = flips(tmp_path, count, seed=random.randrange(1 << 30))
    figure(
        f"{count:,} flips: {found:,} found, {missed} missed, {count - found - missed:,} changed nothing that is read"
    )
    assert missed == 0


@dataclass
class Health:
    """One look at the process and the store."""

    rss_kb: int
    descriptors: int
    store_bytes: int


def virtual_days(folder: Path, days: int) -> tuple[list[Health], int]:
    """A scan of 25 channels every ten minutes, settled, packed and trimmed as the core does it, kept for 30 days.

    A look at each day's end, and the longest WAL.
    """
    rng, looks, wal_bytes = random.Random(1), [], 0
    store = open_store(folder)
    per_day = 144
    ready = [scan(k, rng).body for k in range(per_day)]
    for k in range(days * per_day):
        now_ns = k * 600 * 10**9
        (batch,) = store.commit([Draft("readings", ready[k % per_day], now_ns, now_ns, 25)], [("a", b"1")])
        store.settle("up", [(1, batch.seq)])
        wal_bytes = max(wal_bytes, store.wal_bytes)
        if store.wal_bytes > store.keeping.wal_bytes:
            store.checkpoint_wal()
        if k % per_day == per_day - 1:
            while store.pack(now_ns):
                pass
            store.trim(now_ns - 30 * 86400 * 10**9)
            rss_kb = int(Path("/proc/self/statm").read_text().split()[1]) * 4
            looks.append(Health(rss_kb, len(list(Path("/proc/self/fd").iterdir())), store.size_bytes()))
    store.close()
    return looks, wal_bytes


def flat(looks: list[Health], wal_bytes: int) -> str:
    """Held to: no growth from the first quarter on."""
    early, late = looks[len(looks) // 4], looks[-1]
    text = (
        f"{len(looks)} virtual days: RSS {early.rss_kb} to {late.rss_kb} kB from the first quarter on, "
        f"{late.descriptors} descriptors throughout, WAL at most {wal_bytes >> 10} kB, store {late.store_bytes >> 10} kB"
    )
    assert late.rss_kb - early.rss_kb < 8_000, text
    assert late.descriptors == early.descriptors, text
    assert wal_bytes < 2 * Keeping().wal_bytes, text
    return text


@pytest.mark.fault(
    row=58,
    fault="a virtual year, its first two weeks",
    injected="a scan every ten minutes, committed, settled, packed, trimmed on virtual time",
    holds="memory, descriptors and WAL stay flat",
)
def test_virtual_weeks_leave_memory_descriptors_and_wal_flat(tmp_path: Path, figure: Figure) -> None:
    figure(flat(*virtual_days(tmp_path, 14)))


@pytest.mark.campaign
@pytest.mark.fault(
    row=58,
    fault="a virtual year",
    injected="the same for 365 days, batches kept for 30",
    holds="memory, descriptors, WAL and the file stay flat",
)
def test_a_virtual_year_leaves_memory_descriptors_wal_and_file_flat(tmp_path: Path, figure: Figure) -> None:
    looks, wal_bytes = virtual_days(tmp_path, int(os.environ.get("COUNT") or 365))
    figure(flat(looks, wal_bytes))
    sizes = [look.store_bytes for look in looks]
    assert max(sizes[-30:]) < 2 * max(sizes[: max(60, len(sizes) // 4)])


# -- schemas ----------------------------------------------------------------------------------------


def old_store(folder: Path) -> None:
    """A store as schema 1 left it, with a backlog; the dump is older than any later migration."""
    db = apsw.Connection(str(folder / "spool.db"))
    db.execute(Path(__file__).with_name("store_schema_1.sql").read_text()).fetchall()
    db.close()


@pytest.mark.fault(
    row=55,
    fault="upgrade amid a backlog",
    injected="a frozen dump of a store of schema 1, 199 batches, 150 of them settled",
    holds="read, migrated, gone on with; settled stays settled",
)
def test_a_store_of_schema_1_goes_on_with_its_backlog(tmp_path: Path, figure: Figure) -> None:
    old_store(tmp_path)
    with Archive(tmp_path / "spool.db") as archive:  # the command line reads it as it is
        assert sum(1 for _ in archive.batches()) == 199
    store = open_store(tmp_path)
    assert (store.stream, store.last_seq, store.lost) == ("old1", 199, None)
    assert store.settled("up").to_list() == [[1, 150]]
    assert store.alarms() == {"a": b"{}"}
    store.commit([Draft("readings", b'"n":200', 200, 0, 1)])
    assert pack_all(store) > 0
    assert verify(store.walk()) is None
    assert store.trim(10**18) == 0  # schema 1 does not say what was receipted
    store.close()
    figure("199 batches, same stream, chain whole")


@pytest.mark.fault(
    row=55,
    fault="downgrade amid a backlog",
    injected="a store of schema 3, a program that knows 1",
    holds="refused in a sentence; the file is as it was",
)
def test_a_downgrade_is_refused_in_a_sentence_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    filled(tmp_path, 5).close()
    before = (tmp_path / "spool.db").read_bytes()
    only_first = {1: store_file.migrations()[1]}
    monkeypatch.setattr(store_file, "migrations", lambda: only_first)
    with pytest.raises(StoreNewer, match=r"newer Pondwatch \(schema 3, this one knows 1\): install"):
        open_store(tmp_path)
    assert (tmp_path / "spool.db").read_bytes() == before
    figure("refused, the file unchanged to the byte")


# -- other tools ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "store"
    store = filled(folder)
    pack_all(store)
    store.close()
    return folder


@pytest.fixture
def packed(made_once: Path, tmp_path: Path) -> Path:
    """306 batches, most of them packed."""
    return Path(shutil.copytree(made_once, tmp_path / "store"))


def test_an_export_grows_and_holds_each_reading_once(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.db"
    with Archive(packed / "spool.db") as archive:
        assert export.to_sqlite(archive, out) == 306
    store = open_store(packed)
    rng = random.Random(9)
    store.commit([scan(300, rng), Draft("gaps", b'"of":"x","reason":"y"', 1, 1, 1)])
    store.close()
    for added in (2, 0):
        with Archive(packed / "spool.db") as archive:
            assert export.to_sqlite(archive, out) == added
    db = sqlite_utils.Database(out)
    assert db["readings"].count == 301 * 25
    assert db["alarms"].count == 6
    assert [row["id"] for row in db["alarms"].rows][:2] == ["a49", "a99"]
    assert {row["channel"] for row in db["latest"].rows} == {f"n.pz{c:02}.pressure" for c in range(25)}
    assert sum(row["readings"] for row in db["daily"].rows) == 301 * 25
    assert next(iter(db["gaps"].rows))["of"] == "x"
    (row,) = db.query("SELECT raw, value FROM readings WHERE seq = 1 AND n = 0")
    assert json.loads(row["raw"])["vw0.freq03"] > 2000
    db.close()


def test_every_table_and_view_of_the_documented_export_is_there_and_sqlite_utils_shows_it(
    packed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pond.db"
    with Archive(packed / "spool.db") as archive:
        export.to_sqlite(archive, out)
    page = (Path(__file__).parents[2] / "docs/archive.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    db = sqlite_utils.Database(out)
    assert documented == set(db.table_names() + db.view_names())
    db.close()
    told = subprocess.run(
        [sys.executable, "-m", "sqlite_utils", "rows", out, "latest", "--limit", "2"],
        capture_output=True,
        check=True,
    )
    assert len(json.loads(told.stdout)) == 2


def test_open_alarms_are_those_whose_newest_record_is_not_closed(packed: Path, tmp_path: Path) -> None:
    store = open_store(packed)
    record = b'"id":"%b","response":"%b","time":"2026-11-24T08:0%d:00.000Z"'
    changes = [(b"x", b"new", 0), (b"y", b"new", 1), (b"x", b"handled", 2), (b"y", b"closed", 2)]
    store.commit([Draft("alarms", record % change, 1, 1, 1) for change in changes])
    store.close()
    with Archive(packed / "spool.db") as archive:
        export.to_sqlite(archive, tmp_path / "pond.db")
    db = sqlite_utils.Database(tmp_path / "pond.db")
    states = {row["id"]: row["response"] for row in db["open_alarms"].rows}
    db.close()
    assert (states.get("x"), states.get("y")) == ("handled", None)


def test_csv_is_what_backtest_reads_and_json_lines_are_the_very_payloads(
    packed: Path, tmp_path: Path
) -> None:
    with Archive(packed / "spool.db") as archive:
        with (tmp_path / "o.csv").open("w", newline="") as text:
            assert export.to_csv(archive, text) == 306
        with (tmp_path / "o.jsonl").open("wb") as lines:
            assert export.to_json_lines(archive, lines, after=300) == 306
        payloads = [b.payload for b in archive.batches(300)]
    with (tmp_path / "o.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == 300 * 25
    assert list(rows[0])[:3] == ["time", "channel", "value"]
    assert (tmp_path / "o.jsonl").read_bytes().splitlines() == payloads


SITE = """
[site]
id = "s"
gateway = "g"
mode = "test"
[store]
path = "{folder}"
[[pond]]
id = "n"
kind = "dry"
"""


def spool(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> tuple[int, str]:
    site = folder.parent / "site.toml"
    site.write_text(SITE.format(folder=folder))
    code = main(["spool", *words, "--config", str(site)])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_verify_follows_packs_and_holes_that_are_announced(
    packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert spool(capsys, packed, "verify") == (0, "306 batches, whole up to 306\n")
    store = open_store(packed)
    store.keeping = Keeping()  # nobody receipts: what goes is a loss
    assert store._push_out(1) == 1
    store.close()
    code, said = spool(capsys, packed, "verify")
    assert (code, "whole up to" in said) == (0, True)
    db = apsw.Connection(str(packed / "spool.db"))
    db.execute("DELETE FROM gone")
    db.close()
    assert spool(capsys, packed, "verify")[0] == 1


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("DELETE FROM batch WHERE seq > 290", "batch 291 and what came after it is missing"),
        ("DELETE FROM batch WHERE seq = 50 OR seq = 51", "broken at batch"),
        ("UPDATE batch SET payload = x'00' WHERE seq = 300", "broken at batch 300"),
        ("UPDATE pack SET frame = zeroblob(length(frame)) WHERE first = 1", "broken at batch 1:"),
        ("UPDATE pack SET hash = zeroblob(32) WHERE first = 1", "broken at batch 1:"),
    ],
)
def test_verify_names_the_first_batch_that_is_not_what_was_committed(
    packed: Path, capsys: pytest.CaptureFixture[str], sql: str, says: str
) -> None:
    db = apsw.Connection(str(packed / "spool.db"))
    db.execute(sql)
    db.close()
    code, said = spool(capsys, packed, "verify")
    assert code == 1
    assert says in said


def test_salvage_saves_all_but_the_rows_of_a_ruined_page(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(packed)
    made = store.commit([Draft("readings", b'"readings":[],"n":%d' % n, n, 0, 1) for n in range(3000)])
    store.close()
    bad = packed / "spool.db.bad-1"
    shutil.move(packed / "spool.db", bad)
    whole = bytearray(bad.read_bytes())
    page = next(i for i in range(0, len(whole), 4096) if made[1500].payload in whole[i : i + 4096])
    whole[page : page + 4096] = b"\xff" * 4096
    bad.write_bytes(whole)
    out = tmp_path / "saved.db"
    code, said = spool(capsys, packed, "salvage", "--store", str(bad), "--to", str(out))
    assert code == 1
    assert "could not be saved" in said
    with Archive(out) as archive:
        saved = {b.seq: b.payload for b in archive.batches()}
    assert 3306 - 40 < len(saved) < 3306
    assert all(saved[b.seq] == b.payload for b in made if b.seq in saved)
    assert made[1500].seq not in saved
    assert spool(capsys, packed, "export", "--store", str(out), "--to", str(tmp_path / "x.db"))[0] == 0


def test_salvage_of_a_sound_store_loses_nothing(packed: Path, tmp_path: Path) -> None:
    found: Any = salvage(packed / "spool.db", tmp_path / "saved.db")
    assert (found.saved.to_list(), found.missing.to_list()) == ([[1, 306]], [])


def test_an_export_needs_to_be_told_where(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = spool(capsys, packed, "export")
    assert code == 2
    assert "--to FILE" in said


def test_days_left_follow_from_the_rate_of_what_is_here(tmp_path: Path) -> None:
    store = Store.open(
        tmp_path, "test", "b", keeping=Keeping(("up",), frozenset({"up"}), frozenset(), 8 << 20)
    )
    rng = random.Random(1)
    for k in range(100):
        store.commit([scan(k, rng)])
    store.checkpoint_wal()
    unsettled = store.days_left()
    store.settle("up", [(1, 100)])
    settled = store.days_left()
    span_days = 99 * 10 / 86400
    assert settled == pytest.approx(store.keeping.database_bytes / store.size_bytes() * span_days, rel=0.2)
    assert settled - unsettled == pytest.approx(span_days, rel=0.05)
    store.close()


def test_sqlite3_of_the_system_reads_an_export(packed: Path, tmp_path: Path) -> None:
    with Archive(packed / "spool.db") as archive:
        export.to_sqlite(archive, tmp_path / "o.db")
    db = sqlite3.connect(tmp_path / "o.db")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert db.execute("SELECT count(*) FROM readings WHERE channel = 'n.pz03.pressure'").fetchone() == (300,)
    db.close()
