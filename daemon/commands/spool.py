"""The local archive: what is in it, how far it has gone upstream, whether it is whole; copies of it.

`resend` is for the running core: a range of the stream once more, to a platform that lost what it had.
"""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import msgspec

from daemon import requests
from daemon.archive import Archive, first_bad, head_of
from daemon.commands.surface import CommandError, control_socket, load_site, print_json, print_table
from daemon.commands.until import required
from daemon.ranges import Ranges
from daemon.reading import rfc3339
from daemon.salvage import salvage
from daemon.witness import Witness

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from daemon.batch import Batch
    from daemon.seal import Head


class GapRecord(msgspec.Struct, frozen=True):
    """Of a gap record, which batches it speaks of."""

    of: str
    from_seq: int | None
    to_seq: int | None


def options(parser: argparse.ArgumentParser) -> None:
    doing = ("status", "verify", "export", "salvage", "resend")
    parser.add_argument("do", nargs="?", choices=doing, default="status")
    parser.add_argument("--store", type=Path, metavar="FILE", help="this store file, such as one set aside")
    parser.add_argument(
        "--to",
        type=Path,
        metavar="FILE",
        help="export: .db adds to an SQLite file, .csv or .jsonl; salvage: .db",
    )
    parser.add_argument(
        "--after", type=int, default=0, metavar="SEQ", help="export to .csv, .jsonl: what comes after"
    )
    parser.add_argument("--range", metavar="FIRST-LAST", help="resend: these batches, as spool status shows")
    parser.add_argument("--uplink", metavar="ID", help="resend: over this one alone, not over all")
    parser.add_argument("--by", metavar="NAME", help="resend: who asks for it")
    parser.add_argument("--reason", help="resend: why")


def run(options: argparse.Namespace) -> int:
    if options.do == "resend":
        return _resend(options)
    site = load_site(options)
    path = options.store or site.store_folder / "spool.db"
    if options.do == "salvage":
        return _salvage(path, _target(options, (".db",)), json=options.json)
    with closing(_opened(path)) as archive:
        try:
            if options.do == "verify":
                return _verify(archive, path.parent, json=options.json)
            if options.do == "export":
                return _export(archive, _target(options, (".db", ".csv", ".jsonl")), options)
            return _status(archive, [table.id for table in site.uplinks], json=options.json)
        except apsw.Error as error:
            raise CommandError(f"{path} is damaged: {error}; try pondwatch spool salvage", 1) from None


def _target(options: argparse.Namespace, suffixes: tuple[str, ...]) -> Path:
    to: Path | None = options.to
    if to is None or to.suffix not in suffixes:
        raise CommandError(f"{options.do} needs --to FILE that ends in {' or '.join(suffixes)}", 2)
    return to


def _opened(path: Path) -> Archive:
    """The store, read only: the core may be writing it meanwhile."""
    if not path.exists():
        raise CommandError(
            f"there is no store at {path}: the core has not run yet, or [store] path differs", 3
        )
    try:
        return Archive(path)
    except apsw.Error as error:
        raise CommandError(f"{path} cannot be read: {error}", 3) from None


def _status(archive: Archive, uplinks: list[str], *, json: bool) -> int:
    kinds = archive.kinds()
    newest = max((row[4] for row in kinds), default=0)
    sums = "SELECT uplink, sum(last - first + 1) FROM settled GROUP BY uplink"
    settled = dict(archive.rows(sums))
    unsettled = {uplink: newest - settled.get(uplink, 0) for uplink in uplinks}
    if json:
        names = ("kind", "batches", "records", "first_seq", "last_seq")
        counted = [dict(zip(names, row, strict=False)) for row in kinds]
        about = {"stream": archive.stream, "mode": archive.mode}
        print_json(about | {"kinds": counted, "unsettled": unsettled})
        return 0
    print(f"stream {archive.stream}, mode {archive.mode}, {newest} batches written")
    if kinds:
        rows = [
            (kind, str(batches), str(records), f"{first}-{last}", rfc3339(since), rfc3339(until))
            for kind, batches, records, first, last, since, until in kinds
        ]
        print_table(("kind", "batches", "records", "seq", "from", "to"), rows)
    for uplink, batches in unsettled.items():
        print(f"uplink {uplink}: {batches} batches not settled")
    return 0


def _verify(archive: Archive, folder: Path, *, json: bool) -> int:
    """The hash of every payload, `prev` from each to the one before, and what head and seals remember."""
    head = head_of(folder)  # before the batches: so it is not ahead of a store that is well
    seen = _Seen(archive.stream, head)
    witness = Witness(folder, archive.mode, archive.stream)
    broken = first_bad(seen.watch(witness.watch(archive.batches())), archive.gone)
    findings = [finding.says for finding in witness.findings] + seen.findings(archive.lost())
    bad = min((seq for seq in (broken, seen.bad) if seq is not None), default=None)
    if json:
        about = {"batches": seen.count, "last_seq": seen.last, "broken_at": bad}
        print_json(about | {"seals": witness.seals, "first_key": witness.root, "findings": findings})
        return 0 if bad is None and not findings else 1
    if bad is None:
        print(f"{seen.count} batches, whole up to {seen.last}")
    elif bad > seen.last:
        print(f"batch {bad} and what came after it is missing: the head remembers {head.seq if head else 0}")
    else:
        print(f"the chain is broken at batch {bad}: it, or the one before, is not what was committed")
    for finding in findings:
        print(finding)
    if not findings and witness.seals:
        print(f"{witness.seals} seals and certificates hold; the first key is {witness.root}")
    return 0 if bad is None and not findings else 1


class _Seen:
    """What is noted while batches go by: how many, what the head says of them, which gaps are announced."""

    def __init__(self, stream: str, head: Head | None) -> None:
        self.count = self.last = 0
        self.bad: int | None = None
        self._stream = stream
        self._head = head if head is not None and head.stream == stream else None
        self._said = Ranges()

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.count, self.last = self.count + 1, batch.seq
            if self._head is not None and batch.seq == self._head.seq and batch.hash != self._head.hash:
                self.bad = batch.seq
            if batch.kind == "gaps":
                self._note(batch.payload)
            yield batch
        if self._head is not None and self._head.seq > self.last:
            self.bad = self.last + 1

    def _note(self, payload: bytes) -> None:
        with suppress(msgspec.DecodeError, ValueError):  # what is no record announces nothing
            gap = msgspec.json.decode(payload, type=GapRecord)
            if gap.of == self._stream and gap.from_seq is not None and gap.to_seq is not None:
                self._said.add(gap.from_seq, gap.to_seq)

    def findings(self, lost: Ranges) -> list[str]:
        silent = [(a, b) for a, b in lost if self._said.count(a, b) <= b - a]
        return [f"batches {a} to {b} are missing and no gap record says so" for a, b in silent]


def _export(archive: Archive, to: Path, options: argparse.Namespace) -> int:
    from daemon import export  # noqa: PLC0415 -- sqlite-utils takes 80 ms, which only this verb needs

    if to.suffix == ".db":
        said = f"{export.to_sqlite(archive, to)} batches added to {to}"
    elif to.suffix == ".csv":
        with to.open("w", newline="", encoding="utf-8") as text:
            said = f"{to} has the readings up to batch {export.to_csv(archive, text, options.after)}"
    else:
        with to.open("wb") as lines:
            said = f"{to} has the payloads up to batch {export.to_json_lines(archive, lines, options.after)}"
    print_json({"to": str(to), "says": said}) if options.json else print(said)
    return 0


def _resend(options: argparse.Namespace) -> int:
    first, last = _range(required(options, "range"))
    by = required(options, "by")
    wanted = requests.SpoolResend(first, last, by, options.uplink, options.reason)
    going = requests.ask(control_socket(options), wanted, requests.Resending)
    if options.json:
        print_json(going)
    else:
        over = ", ".join(going.uplinks)
        print(f"batches {going.from_seq} to {going.to_seq} will be sent again over {over}")
    return 0


def _range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    try:
        return int(first), int(last if dash else first)
    except ValueError:
        raise CommandError(f"--range {text} is not two batch numbers such as 120-180", 2) from None


def _salvage(path: Path, to: Path, *, json: bool) -> int:
    if not path.exists():
        raise CommandError(f"there is no file {path}", 3)
    try:
        found = salvage(path, to)
    except FileExistsError:
        raise CommandError(f"{to} is there already: choose another name", 2) from None
    except apsw.Error as error:
        raise CommandError(f"nothing of {path} can be read: {error}", 1) from None
    saved = sum(last - first + 1 for first, last in found.saved)
    if json:
        print_json({"saved": found.saved.to_list(), "missing": found.missing.to_list()})
    else:
        print(f"{saved} batches saved to {to}")
        for first, last in found.missing:
            print(f"batches {first} to {last} could not be saved")
    return 0 if not found.missing else 1
