"""Batches into a real PostgreSQL, read back by psql: repeats, forks, junk, racing writers, and receipts after the commit."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import threading
from random import Random
from typing import TYPE_CHECKING, Any

import aiomqtt
import psycopg
import pytest
import zstandard

from hardware_sim.warehouse import MOST_REFUSED, Message, Warehouse
from tests.fault.way import MOSQUITTO, Mosquitto
from tests.system.fleet import Consumer
from tests.system.postgres import wants_postgres
from tests.system.running import until
from tests.system.test_mosquitto import Mosquitto as Strict

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.postgres import Postgres

pytestmark = [pytest.mark.peer, wants_postgres, pytest.mark.timeout(120)]
FILES = {"ca": "ca.pem", "certificate": "platform.pem", "key": "platform.key"}
TIME = "2026-11-23T08:00:00.000Z"


def chain(
    count: int, stream: str = "5eed", mode: str = "real", site: str = "n", gateway: str = "gw1"
) -> list[Message]:
    """`count` batches of one reading each, whose value is the batch's number."""
    messages: list[Message] = []
    prev = "0" * 64
    for seq in range(1, count + 1):
        reading = {"channel": "c", "time": TIME, "value": seq, "unit": "m", "quality": "good", "raw": {}}
        messages.append(batch("readings", stream, seq, prev, mode, site, gateway, readings=[reading]))
        prev = hashlib.sha256(messages[-1].payload).hexdigest()
    return messages


def batch(
    kind: str,
    stream: str,
    seq: int,
    prev: str = "0" * 64,
    mode: str = "real",
    site: str = "n",
    gateway: str = "gw1",
    **members: Any,
) -> Message:
    head = {
        "v": 1,
        "mode": mode,
        "stream": stream,
        "seq": seq,
        "prev": prev,
        "site": site,
        "gateway": gateway,
    }
    return Message(f"pondwatch/1/{site}/{gateway}/{kind}", json.dumps({**head, **members}).encode())


def settled(receipts: list[Message]) -> dict[str, Any]:
    return {receipt.topic: json.loads(receipt.payload)["settled"] for receipt in receipts}


def test_a_batch_that_comes_again_is_receipted_and_stored_once(postgres: Postgres) -> None:
    messages = chain(6)
    with Warehouse(postgres.fresh()) as warehouse:
        warehouse.found()
        assert settled(warehouse.take(messages[3:] + messages[4:5])) == {
            "pondwatch/1/n/gw1/receipts": [[4, 6]]
        }
        assert settled(warehouse.take(messages)) == {"pondwatch/1/n/gw1/receipts": [[1, 6]]}
        assert (warehouse.counts.stored, warehouse.counts.repeats) == (6, 4)
    assert postgres.psql("SELECT value FROM named_reading ORDER BY 1") == [[str(n)] for n in range(1, 7)]
    assert postgres.psql("SELECT count(*) FROM hole") == [["0"]]
    assert postgres.psql("SELECT count(*) FROM chain_break") == [["0"]]


def test_other_bytes_under_one_name_are_kept_beside_and_change_nothing(postgres: Postgres) -> None:
    messages = chain(3)
    other = batch("readings", "5eed", 2, mode="test", readings=[])
    with Warehouse(postgres.fresh()) as warehouse:
        warehouse.found()
        warehouse.take(messages)
        for _ in range(2):  # it comes again as well
            assert settled(warehouse.take([other])) == {"pondwatch/1/n/gw1/receipts": [[2, 2]]}
        within_a_group = [*chain(1, "f00d"), batch("readings", "f00d", 1, mode="test", readings=[])]
        warehouse.take(within_a_group)
    query = "SELECT stream, seq, encode(f.payload, 'escape') FROM fork f JOIN stream s ON s.id = stream_id ORDER BY 1"
    assert postgres.psql(query) == [
        ["5eed", "2", other.payload.decode()],
        ["f00d", "1", within_a_group[1].payload.decode()],
    ]
    query = "SELECT stream_id, seq, value FROM reading ORDER BY 1, 2"
    assert postgres.psql(query) == [
        ["1", "1", "1"],
        ["1", "2", "2"],
        ["1", "3", "3"],
        ["2", "1", "1"],
    ]


def test_a_hole_and_a_batch_that_does_not_follow_are_seen(postgres: Postgres) -> None:
    messages = chain(9)
    wrong = batch("readings", "bad", 2, "ab" * 32, readings=[])
    with Warehouse(postgres.fresh()) as warehouse:
        warehouse.found()
        warehouse.take(messages[1:4] + messages[6:] + chain(1, "bad") + [wrong])
    query = "SELECT stream, from_seq, to_seq FROM hole ORDER BY 1, 2"
    assert postgres.psql(query) == [["5eed", "1", "1"], ["5eed", "5", "6"]]
    assert postgres.psql("SELECT stream, seq FROM chain_break") == [["bad", "2"]]


def reading(**members: Any) -> dict[str, Any]:
    return {"channel": "c", "time": TIME, "value": 1.0, "unit": "m", "quality": "good"} | members


JUNK = {
    "no JSON": Message("pondwatch/1/n/gw1/readings", b"\xff"),
    "deep": Message("pondwatch/1/n/gw1/readings", b"[" * 100_000),
    "another version": Message("pondwatch/1/n/gw1/readings", b'{"v":2}'),
    "seq 0": batch("readings", "s", 0, readings=[]),
    "a seq beyond all numbers": batch("readings", "s", 1 << 63, readings=[]),
    "a NUL in a name": batch("readings", "s", 1, readings=[reading(channel="a\0b")]),
    "no moment": batch("readings", "s", 2, readings=[reading(time="yesterday, or so")]),
    "a moment beyond all calendars": batch(
        "readings", "s", 3, readings=[reading(time="999999-01-01T00:00:00Z")]
    ),
    "no zstd": Message("pondwatch/1/n/gw1/readings", b"{}", packed=True),
    "a bomb": Message("pondwatch/1/n/gw1/readings", zstandard.compress(b" " * (17 << 20)), packed=True),
    "somebody else's topic": Message("other/1/n/gw1/readings", b"{}"),
}


def test_junk_is_refused_by_itself_and_never_receipted(postgres: Postgres) -> None:
    sound = chain(4)
    packed = Message(sound[0].topic, zstandard.compress(sound[0].payload), packed=True)
    mixed = [packed, *sound[1:], *JUNK.values()]
    Random(1).shuffle(mixed)
    with Warehouse(postgres.fresh()) as warehouse:
        warehouse.found()
        receipts = warehouse.take(mixed)
        assert {
            seq for r in receipts for first, last in settled([r])[r.topic] for seq in range(first, last + 1)
        } == {1, 2, 3, 4}
        assert warehouse.counts.refused == len(JUNK)
        flood = [Message("pondwatch/1/n/gw1/alarms", b"%d" % n) for n in range(MOST_REFUSED + 5)]
        assert warehouse.take(flood) == []
    assert postgres.psql("SELECT count(*) FROM refused") == [[str(MOST_REFUSED)]]
    assert postgres.psql("SELECT seq FROM batch ORDER BY 1") == [["1"], ["2"], ["3"], ["4"]]


def test_a_missing_value_is_null_and_modes_never_mix(postgres: Postgres) -> None:
    bad = reading(value=None, quality="bad:no-reply")
    with Warehouse(postgres.fresh()) as warehouse:
        warehouse.found()
        warehouse.take([batch("readings", "s", 1, readings=[bad])])
        warehouse.take([batch("readings", "t", 1, mode="simulated", readings=[reading()])])
    query = "SELECT mode, value IS NULL, quality FROM named_reading ORDER BY 1"
    assert postgres.psql(query) == [["real", "t", "bad:no-reply"], ["simulated", "f", "good"]]


def test_writers_that_race_over_the_same_batches_neither_block_nor_double(postgres: Postgres) -> None:
    conninfo = postgres.fresh()
    messages = chain(150, "a") + chain(150, "b") + chain(150, "c", gateway="gw2")
    stored: list[int] = []
    failed: list[BaseException] = []

    def write(n: int) -> None:
        mine = list(messages)
        Random(n).shuffle(mine)
        try:
            with Warehouse(conninfo) as warehouse:
                warehouse.found()  # they race for the tables too
                for at in range(0, len(mine), 30):
                    warehouse.take(mine[at : at + 30])
                stored.append(warehouse.counts.stored)
        except BaseException as error:  # noqa: BLE001 -- a thread tells the test
            failed.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert sum(stored) == 450
    assert all(count < 450 for count in stored)
    query = "SELECT count(*), count(DISTINCT (stream_id, seq)), sum(value) FROM reading"
    assert postgres.psql(query) == [["450", "450", str(3 * 150 * 151 // 2)]]


def test_a_database_that_does_not_sync_is_refused(postgres: Postgres) -> None:
    conninfo = postgres.fresh()
    postgres.psql("ALTER SYSTEM SET fsync = off")
    postgres.psql("SELECT pg_reload_conf()")
    try:
        while postgres.psql("SHOW fsync") != [["off"]]:  # the reload takes its moment
            pass
        with Warehouse(conninfo) as warehouse, pytest.raises(SystemExit, match="fsync = off"):
            warehouse.found()
    finally:
        postgres.psql("ALTER SYSTEM RESET fsync")
        postgres.psql("SELECT pg_reload_conf()")


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto")
async def test_no_receipt_leaves_before_the_commit_and_none_is_lost_with_the_database(
    tmp_path: Path, postgres: Postgres
) -> None:
    conninfo = postgres.fresh()
    messages = chain(4)
    receipts: list[Any] = []
    async with (
        Mosquitto(tmp_path / "broker") as broker,
        Consumer("c", tmp_path, broker.port, conninfo),
        aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as gateway,
    ):
        await gateway.subscribe("pondwatch/1/+/+/receipts", qos=1)

        async def listen() -> None:
            async for message in gateway.messages:
                assert isinstance(message.payload, bytes)
                receipts.append(json.loads(message.payload)["settled"])

        listening = asyncio.create_task(listen())
        await gateway.publish(messages[0].topic, messages[0].payload, qos=1)
        await until(lambda: receipts == [[[1, 1]]], "the first receipt")
        with psycopg.connect(conninfo) as held:
            held.execute("LOCK TABLE pondwatch.batch IN EXCLUSIVE MODE")
            await gateway.publish(messages[1].topic, messages[1].payload, qos=1)
            query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            await until(lambda: postgres.psql(query) == [["1"]], "the consumer waits in its transaction")
            assert len(receipts) == 1
        await until(lambda: receipts[1:] == [[[2, 2]]], "the receipt after the commit")
        postgres.stop("immediate")
        await gateway.publish(messages[2].topic, messages[2].payload, qos=1)
        await until(lambda: "the database" in (tmp_path / "c.log").read_text(), "the consumer misses it")
        await gateway.publish(messages[3].topic, messages[3].payload, qos=1)
        assert len(receipts) == 2
        postgres.start()
        await until(lambda: [[3, 4]] in receipts or receipts[2:] == [[[3, 3]], [[4, 4]]], "the rest")
        listening.cancel()
    assert postgres.psql("SELECT seq FROM batch ORDER BY 1") == [["1"], ["2"], ["3"], ["4"]]


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto")
async def test_a_consumer_comes_in_by_its_certificate_and_under_access_rules(
    tmp_path: Path, postgres: Postgres
) -> None:
    conninfo = postgres.fresh()
    messages = chain(3, site="demo")
    async with Strict(tmp_path / "broker") as broker:
        files = [f"--{name}={broker.folder}/{file}" for name, file in FILES.items()]
        async with Consumer("c", tmp_path, broker.port, conninfo, *files, scheme="mqtts"):
            tls = ssl.create_default_context(cafile=broker.folder / "ca.pem")
            tls.load_cert_chain(broker.folder / "gw1.pem", broker.folder / "gw1.key")
            async with aiomqtt.Client(
                "127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5, tls_context=tls
            ) as gateway:
                await gateway.subscribe("pondwatch/1/demo/gw1/receipts", qos=1)
                for message in messages:
                    await gateway.publish(message.topic, message.payload, qos=1)
                async with asyncio.timeout(30):
                    assert "settled" in str((await anext(aiter(gateway.messages))).payload)
                query = "SELECT gateway, seq FROM batch JOIN stream ON id = stream_id ORDER BY seq"
                await until(
                    lambda: postgres.psql(query) == [["gw1", "1"], ["gw1", "2"], ["gw1", "3"]],
                    "all are stored",
                )
