"""The outbox that everybody writes first, to measure the store against: sqlite3, json, aiomqtt.

A message is a row; fully synchronised when the commit returns; published at QoS 1, oldest first, twenty at a time, and
deleted when the broker has acknowledged. No chain, no receipts, no order of classes, nothing packed.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TYPE_CHECKING

import aiomqtt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WINDOW = 20


class Outbox:
    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        self._db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY, kind TEXT, payload BLOB)"
        )

    def put(self, kind: str, payloads: Sequence[bytes]) -> None:
        with self._db:
            self._db.executemany(
                "INSERT INTO outbox (kind, payload) VALUES (?, ?)", [(kind, p) for p in payloads]
            )

    def oldest(self) -> list[tuple[int, str, bytes]]:
        return self._db.execute(
            "SELECT id, kind, payload FROM outbox ORDER BY id LIMIT ?", (WINDOW,)
        ).fetchall()

    def delete(self, upto: int) -> None:
        with self._db:
            self._db.execute("DELETE FROM outbox WHERE id <= ?", (upto,))

    def close(self) -> None:
        self._db.close()


async def drain(outbox: Outbox, address: str, seconds: float) -> tuple[int, float]:
    """Publish and delete for so long; how many messages, and in how many seconds."""
    host, _, port = address.rpartition(":")
    sent = 0
    async with aiomqtt.Client(host, int(port), protocol=aiomqtt.ProtocolVersion.V5) as broker:
        broker.pending_calls_threshold = 2 * WINDOW
        began_s = time.monotonic()
        while time.monotonic() < began_s + seconds and (rows := outbox.oldest()):
            await asyncio.gather(
                *(broker.publish(f"plain/{kind}", payload, qos=1) for _, kind, payload in rows)
            )
            outbox.delete(rows[-1][0])
            sent += len(rows)
        return sent, time.monotonic() - began_s
