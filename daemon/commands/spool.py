"""The local archive: what is in it and how far it has gone upstream; whether its chain is whole."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import apsw

from daemon.commands.surface import CommandError, load_site, print_json, print_table
from daemon.reading import rfc3339
from daemon.seal import verify
from daemon.spool import Batch

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

_KINDS = """
    SELECT kind, count(*), sum(count), min(seq), max(seq), min(time_ns), max(time_ns)
    FROM batch GROUP BY kind ORDER BY min(seq)
"""
_BATCHES = "SELECT seq, kind, time_ns, count, payload, hash FROM batch WHERE seq > ? ORDER BY seq LIMIT ?"
_CHUNK = 500  # between two chunks no read transaction is open, so the core can trim its WAL


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("do", nargs="?", choices=("status", "verify"), default="status")


def run(options: argparse.Namespace) -> int:
    site = load_site(options)
    with closing(_opened(site.store_folder / "spool.db")) as db:
        if options.do == "verify":
            return _verify(db, json=options.json)
        return _status(db, [table.id for table in site.uplinks], json=options.json)


def _opened(path: Path) -> apsw.Connection:
    """The store, read only: the core may be writing it meanwhile."""
    if not path.exists():
        raise CommandError(
            f"there is no store at {path}: the core has not run yet, or [store] path differs", 3
        )
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        db.set_busy_timeout(5000)
        _rows(db, "SELECT 1 FROM store")  # opens the file in fact
    except apsw.Error as error:
        raise CommandError(f"{path} cannot be read: {error}", 3) from None
    return db


def _rows(db: apsw.Connection, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
    return db.execute(sql, bindings).fetchall()


def _status(db: apsw.Connection, uplinks: list[str], *, json: bool) -> int:
    ((stream, mode),) = _rows(db, "SELECT stream, mode FROM store")
    kinds = _rows(db, _KINDS)
    newest = max((row[4] for row in kinds), default=0)
    settled = dict(_rows(db, "SELECT uplink, sum(last - first + 1) FROM settled GROUP BY uplink"))
    unsettled = {uplink: newest - settled.get(uplink, 0) for uplink in uplinks}
    if json:
        names = ("kind", "batches", "records", "first_seq", "last_seq")
        counted = [dict(zip(names, row, strict=False)) for row in kinds]
        print_json({"stream": stream, "mode": mode, "kinds": counted, "unsettled": unsettled})
        return 0
    print(f"stream {stream}, mode {mode}, {newest} batches written")
    if kinds:
        rows = [
            (kind, str(batches), str(records), f"{first}-{last}", rfc3339(since), rfc3339(until))
            for kind, batches, records, first, last, since, until in kinds
        ]
        print_table(("kind", "batches", "records", "seq", "from", "to"), rows)
    for uplink, batches in unsettled.items():
        print(f"uplink {uplink}: {batches} batches not settled")
    return 0


def _verify(db: apsw.Connection, *, json: bool) -> int:
    """Recompute the hash of every payload and follow `prev` from each to the one before."""
    ((count, last),) = _rows(db, "SELECT count(*), max(seq) FROM batch")
    broken = verify(_batches(db))
    if json:
        print_json({"batches": count, "last_seq": last, "broken_at": broken})
    elif broken is None:
        print(f"{count} batches, whole up to {last or 0}")
    else:
        print(f"the chain is broken at batch {broken}: it, or the one before, is not what was committed")
    return 0 if broken is None else 1


def _batches(db: apsw.Connection) -> Iterator[Batch]:
    after = 0
    while rows := _rows(db, _BATCHES, after, _CHUNK):
        yield from (Batch(*row) for row in rows)
        after = rows[-1][0]
