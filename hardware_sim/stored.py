"""What the database has, held against chain, seals and keys: the rules of verify.py over PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from hardware_sim.verify import verify_kept

if TYPE_CHECKING:
    from collections.abc import Iterator

_WHERE = "FROM {} JOIN stream s ON s.id = stream_id WHERE s.site || '/' || s.gateway = %s"
_BATCHES = (
    f"SELECT s.stream, seq, encode(sha256, 'hex'), payload {_WHERE.format('batch')} "
    f"UNION ALL SELECT s.stream, seq, encode(sha256, 'hex'), payload {_WHERE.format('fork')} ORDER BY 1, 2"
)


class Stored:
    """One database, read by server-side cursors: a stream may be longer than memory."""

    def __init__(self, db: psycopg.Connection) -> None:
        self._db = db
        db.execute("SET search_path TO pondwatch")

    def gateways(self) -> list[str]:
        rows = self._db.execute("SELECT DISTINCT site || '/' || gateway FROM stream ORDER BY 1")
        return [name for (name,) in rows]

    def audits(self, gateway: str) -> Iterator[bytes]:
        query = f"SELECT payload {_WHERE.format('batch')} AND kind = 'audit' ORDER BY stream_id, seq"
        return self._payloads(query, gateway)

    def seals(self, gateway: str) -> Iterator[bytes]:
        query = f"SELECT payload {_WHERE.format('seal')} ORDER BY stream_id, seq"
        return self._payloads(query, gateway)

    def batches(self, gateway: str) -> Iterator[tuple[str, int, str, bytes]]:
        with self._db.cursor("batches") as cursor:
            yield from cursor.execute(_BATCHES, (gateway, gateway))

    def _payloads(self, query: str, gateway: str) -> Iterator[bytes]:
        with self._db.cursor("payloads") as cursor:
            for (payload,) in cursor.execute(query, (gateway,)):
                yield payload


def verify_stored(conninfo: str, roots: dict[str, str]) -> int:
    """Say of each gateway what holds and what does not; 1 if anything does not."""
    try:
        with psycopg.connect(conninfo) as db:
            findings, said = verify_kept(Stored(db), roots)
    except psycopg.Error as error:
        raise SystemExit(f"the database cannot be read: {' '.join(str(error).split())}") from None
    for sentence in (*said, *findings):
        print(sentence)
    print("not everything holds" if findings else "everything holds")
    return int(bool(findings))
