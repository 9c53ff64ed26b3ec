"""What an open store does in the long run: packs, trims, makes room, and says what it lost."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from math import nan
from typing import TYPE_CHECKING, Any

from daemon import packs
from daemon.batch import Batch, Gap, StoreFull, sane
from daemon.ranges import Ranges
from daemon.store_file import PAGE_BYTES
from daemon.store_rows import StoreRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_TRIM_BATCHES = 500
_PACK_SPAN = _TRIM_BATCHES - 1  # no pack is longer than what one trim may take
_PACK_LEAST = 64  # fewer wait for company, unless they are large
_PUSH_ROWS = 200
_SPAN_LEAST_S = 600.0
_LOOSE = """
    SELECT seq, boot, time_ns, mono_ns, count, payload, hash FROM batch
    WHERE kind = 'readings' AND seq < ?
      AND seq > coalesce((SELECT last FROM pack ORDER BY first DESC LIMIT 1), 0)
    ORDER BY seq LIMIT ?
"""
# The first that has to stay: a young batch, or a pack that is young or reaches beyond the cut.
_STAYS = """
    SELECT min(seq) FROM (
        SELECT * FROM (SELECT seq FROM batch WHERE seq < ?1 AND time_ns >= ?2 ORDER BY seq LIMIT 1)
        UNION ALL
        SELECT * FROM (SELECT first FROM pack WHERE first < ?1 AND (time_ns >= ?2 OR last >= ?1)
                       ORDER BY first LIMIT 1)
    )
"""
_OLDEST_READINGS = """
    SELECT * FROM (
        SELECT seq, seq, time_ns, time_ns, count, length(payload) FROM batch
        WHERE kind = 'readings' AND seq < ?1 ORDER BY seq LIMIT ?2)
    UNION ALL
    SELECT * FROM (
        SELECT first, last, since_ns, time_ns, count, length(frame) FROM pack ORDER BY first LIMIT ?2)
    ORDER BY 1
"""
_OLDEST_OTHERS = """
    SELECT seq, seq, time_ns, time_ns, count, length(payload) FROM batch
    WHERE kind <> 'readings' AND seq < ? ORDER BY seq LIMIT ?
"""


class StoreUpkeep(StoreRows):
    """`Store` without its beginning and its commits."""

    # -- what has been for long --------------------------------------------------------------------------

    def pack(self, cold_before_ns: int) -> int:
        """Pack the oldest readings that lie loose and are settled everywhere, or older than `cold_before_ns`.

        Returns how many batches; 0 when too few are there, so it is called again until then.
        """
        group: list[packs.Row] = []
        size, full = 0, False
        with self._sure():  # row by row: as many as one pack may hold can be many times its size
            for *fields, digest in self._db.execute(_LOOSE, (self.last_seq, packs.MOST_BATCHES)):
                row = packs.Row(*fields)
                if not _sound(row, digest):
                    self._found_damage(row.seq, row.seq, row.time_ns, row.time_ns, row.records)
                    continue
                full = size >= packs.MOST_BYTES or (bool(group) and row.seq - group[0].seq >= _PACK_SPAN)
                if full or not (row.time_ns < cold_before_ns or self._everywhere(row.seq, row.seq)):
                    break
                group.append(row)
                size += len(row.payload)
        if not group or not (full or len(group) >= _PACK_LEAST):
            return 0
        self._put_pack(group, packs.pack(group))
        return len(group)

    def _put_pack(self, group: Sequence[packs.Row], frame: bytes) -> None:
        times = [row.time_ns for row in group]
        records = sum(row.records for row in group)
        digest = sha256(group[-1].payload).digest()
        row = (group[0].seq, group[-1].seq, min(times), max(times), len(group), records, digest, frame)
        with self._writing():  # deleted first: their pages are room for the pack even in a full store
            self._db.executemany("DELETE FROM batch WHERE seq = ?", [(row.seq,) for row in group])
            self._db.execute("INSERT INTO pack VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def trim(self, keep_before_ns: int) -> int:
        """Delete the oldest batches that every archive has receipted and that are older than that instant.

        Without an archive nothing is deleted: the only copy stays. Only from the front, so that what stays is
        one unbroken chain: a batch that has to stay keeps all after it. The newest batch always stays.
        Deletes at most 500 at once, so that no commit waits long; returns how many, to be called again until
        0. The file does not shrink: its pages are used again.
        """
        if not self.keeping.archives:
            return 0
        first = self.first_seq()
        needed = [self.settled(uplink) for uplink in self.keeping.uplinks]
        needed += [self._with_gone(self._receipted, uplink) for uplink in self.keeping.archives]
        cut = min(first + _TRIM_BATCHES, self.last_seq, *(r.missing_after(first - 1) for r in needed))
        with self._sure():
            (stays,) = self._row(_STAYS, cut, keep_before_ns) or (None,)
        cut = cut if stays is None else stays
        if cut > first:
            with self._writing():
                self._db.execute("DELETE FROM batch WHERE seq < ?", (cut,))
                self._db.execute("DELETE FROM pack WHERE first < ?", (cut,))
                self._db.execute("DELETE FROM gone WHERE last < ?", (cut,))
        return int(max(0, cut - first))

    def _everywhere(self, first: int, last: int) -> bool:
        """Whether all uplinks have settled all of `first`..`last`."""
        uplinks = self.keeping.uplinks
        return bool(uplinks) and all(_holds(self._settled, uplink, first, last) for uplink in uplinks)

    def delivered(self, first: int, last: int) -> bool:
        """Whether these are settled everywhere and receipted by a platform: gone here, they are no loss."""
        receipts = self.keeping.receipts
        return self._everywhere(first, last) and any(
            _holds(self._receipted, u, first, last) for u in receipts
        )

    # -- room --------------------------------------------------------------------------------------------

    def _make_room(self, need_bytes: int) -> None:
        """Get out of the trap of a full disk: the ballast goes, the WAL empties, the oldest readings go.

        Raises:
            StoreFull: the disk has no room even for pushing out.
        """
        self._ballast.drop()
        with suppress(StoreFull):
            self.checkpoint_wal()
        need_bytes = max(2 * need_bytes, self.keeping.database_bytes // 64, 16 * PAGE_BYTES)
        while self._pragma("freelist_count") * PAGE_BYTES < need_bytes and self._push_out(need_bytes):
            self.checkpoint_wal()
        pages, most = self._pragma("page_count"), self._pragma("max_page_count")
        if pages < most:  # it is the disk that is full, so from here on the store lives in what it has
            self._db.pragma("max_page_count", pages)

    def _push_out(self, want_bytes: int) -> int:
        """Delete the oldest readings, or without any the oldest of the others; returns how many rows.

        What was not delivered is a loss: its gap record is committed with the deletion or not at all.
        """
        with self._writing():
            rows = self._oldest(want_bytes)
            lost: list[Gap] = []
            runs = []
            for first, last, since_ns, until_ns, records, _ in rows:
                delivered = self.delivered(first, last)
                for a, b in self._runs(first, last):
                    runs.append((a, b))
                    self._note_gone(a, b, "delivered" if delivered else "pushed-out")
                    if not delivered:
                        whole = (a, b) == (first, last)
                        gap = Gap(
                            "pushed-out", self.stream, a, b, since_ns, until_ns, records if whole else None
                        )
                        _join(lost, gap)
                self._db.execute("DELETE FROM pack WHERE first = ?", (first,))
                if first == last:
                    self._db.execute("DELETE FROM batch WHERE seq = ?", (first,))
            batches = self._insert([gap.draft(self._clock) for gap in lost], (), ())
        for a, b in runs:
            self._gone.add(a, b)
        self._announced(batches, lost)
        return len(rows)

    def _oldest(self, want_bytes: int) -> list[tuple[Any, ...]]:
        """Rows to push out, at least `want_bytes` where there are so many: class by class, oldest first."""
        rows: list[Any] = []
        size = 0
        for sql in (_OLDEST_READINGS, _OLDEST_OTHERS):
            for row in self._db.execute(sql, (self.last_seq, _PUSH_ROWS)).fetchall():
                rows.append(row)
                size += int(row[5] or 0)
                if size >= want_bytes:
                    break
            if rows:
                break
        return rows

    def _runs(self, first: int, last: int) -> list[tuple[int, int]]:
        """What a row stands for: `first`..`last` without the loose batches between."""
        if first == last:
            return [(first, last)]
        between = "SELECT seq FROM batch WHERE seq BETWEEN ? AND ?"
        others = Ranges((seq, seq) for (seq,) in self._db.execute(between, (first, last)))
        runs = []
        while first <= last:
            first, end = others.gap_after(first - 1)
            end = last if end is None else min(end, last)
            if first <= end:
                runs.append((first, end))
            first = end + 1
        return runs

    def _note_gone(self, first: int, last: int, reason: str) -> None:
        """In the transaction; rows of one reason that touch become one."""
        grow = (
            "UPDATE gone SET last = ?2 WHERE first = (SELECT max(first) FROM gone WHERE first < ?1) "
            "AND last = ?1 - 1 AND reason = ?3"
        )
        self._db.execute(grow, (first, last, reason))
        if not self._db.changes():
            self._db.execute("INSERT INTO gone VALUES (?, ?, ?)", (first, last, reason))

    def _announced(self, batches: Sequence[Batch], gaps: Iterable[Gap]) -> None:
        self.announced.extend(gaps)
        if batches:
            self._advance(batches)
            self._write_head()

    def tend(self) -> None:
        """Take back what was given up when the disk was full, as far as it has room again."""
        if self._head is not None and self._ballast.restore():
            with self._sure():
                self._db.pragma("max_page_count", self.keeping.database_bytes // PAGE_BYTES)

    def days_left(self) -> float:
        """How long an outage that begins now may last, at the mean rate of what is here; NaN: too new to say.

        After that the store would have to push out what was not delivered. What is unsettled already counts
        as the part of the outage that has passed; without an uplink that receipts, all of it is.
        """
        first = self.first_seq()
        oldest_ns, newest_ns = self.time_of(first), self.time_of(self.last_seq)
        span_s = 0.0 if oldest_ns is None or newest_ns is None else (newest_ns - oldest_ns) / 1e9
        if span_s < _SPAN_LEAST_S:
            return nan
        used = (self._pragma("page_count") - self._pragma("freelist_count")) * PAGE_BYTES
        most = min(self.keeping.database_bytes, self._pragma("max_page_count") * PAGE_BYTES)
        lasts_s = min(most, used + self._disk_free_bytes()) / (used / span_s)
        needed = [self.settled(uplink) for uplink in self.keeping.uplinks]
        receipted = [self._with_gone(self._receipted, uplink) for uplink in self.keeping.receipts]
        safe = min((r.missing_after(first - 1) for r in needed), default=first)
        safe = min(safe, max((r.missing_after(first - 1) for r in receipted), default=first))
        waiting_ns = self.time_of(safe)
        waiting_s = 0.0 if waiting_ns is None or newest_ns is None else (newest_ns - waiting_ns) / 1e9
        return max(0.0, lasts_s - waiting_s) / 86400

    def _disk_free_bytes(self) -> int:
        if self._head is None:
            return 0
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    # -- damage ------------------------------------------------------------------------------------------

    def announce_damage(self) -> int:
        """Commit a gap record for what was found damaged since the last call; the rows stay for salvage."""
        found, gaps = list(self._damaged.values()), []
        if not found:
            return 0
        with self._writing():
            for gap in found:
                assert gap.from_seq is not None and gap.to_seq is not None  # noqa: PT018 -- `_found_damage` sets both
                runs = self._runs(gap.from_seq, gap.to_seq)
                for a, b in runs:
                    self._note_gone(a, b, "damaged")
                    count = gap.count if len(runs) == 1 else None
                    gaps.append(replace(gap, from_seq=a, to_seq=b, count=count))
            batches = self._insert([gap.draft(self._clock) for gap in gaps], (), ())
        for gap in gaps:
            self._gone.add(gap.from_seq or 0, gap.to_seq)
        self._damaged.clear()
        self._announced(batches, gaps)
        return len(gaps)


def _sound(row: packs.Row, digest: object) -> bool:
    """Whether it is what was committed; a column that has rotted may be of any type."""
    numbers = (row.boot, row.mono_ns, row.records)
    types = isinstance(row.payload, bytes) and sane(row.time_ns) and all(isinstance(n, int) for n in numbers)
    return types and sha256(row.payload).digest() == digest


def _holds(known: Mapping[str, Ranges], uplink: str, first: int, last: int) -> bool:
    return uplink in known and known[uplink].count(first, last) > last - first


def _join(gaps: list[Gap], gap: Gap) -> None:
    """Append, or where it follows the last one without a break, make that one longer."""
    before = gaps[-1] if gaps else None
    if before is None or before.to_seq is None or before.to_seq + 1 != gap.from_seq:
        gaps.append(gap)
        return
    count = None if before.count is None or gap.count is None else before.count + gap.count
    gaps[-1] = replace(before, to_seq=gap.to_seq, until_ns=gap.until_ns, count=count)
