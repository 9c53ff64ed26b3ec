"""The store gives place to another while its uplink runs; seals, compression and requests on a real connection."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import zstandard

from daemon.clock import Clock
from daemon.config import UplinkTable
from daemon.spool import Draft, Spool
from daemon.uplink.mqtt import SETTLE_LINGER_S, MqttUplink, Status
from hardware_sim import mqtt
from hardware_sim.platform import Platform
from hardware_sim.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

STATUS = Status("test", "0.1.0", "boot-1", "?", "c0ffee", "2026-11-23T08:00:00.000Z")


@asynccontextmanager
async def way(
    folder: Path, receiver: Receiver, **settings: Any
) -> AsyncIterator[tuple[Spool, Platform, MqttUplink]]:
    """Store, uplink and platform."""
    async with AsyncExitStack() as stack:
        spool = await stack.enter_async_context(Spool.open(folder / "store", "test", "boot"))
        platform = await stack.enter_async_context(Platform(receiver))
        table = UplinkTable("up", "mqtt", f"mqtt://{platform.address}", "receipt", **settings)
        uplink = MqttUplink(table, "s", "g", spool, STATUS, Clock(), reconnect_most_s=0.2)
        heard: list[bytes] = []
        uplink.obey(heard.append)
        uplink.heard = heard  # type: ignore[attr-defined]  # for the test alone
        task = asyncio.create_task(uplink.run())
        try:
            yield spool, platform, uplink
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not true():
            await asyncio.sleep(0.01)


async def durable(spool: Spool) -> list[list[int]]:
    """What is settled, once what was gathered has been written."""
    await asyncio.sleep(3 * SETTLE_LINGER_S)
    return (await spool.settled("up")).to_list()


async def add(spool: Spool, count: int = 1, size: int = 2000) -> None:
    for _ in range(count):
        await spool.commit([Draft("readings", b'"readings":[],"x":"%b"' % (b"x" * size), 1, 1, 1)])


async def test_a_new_stream_begins_a_fresh_queue_and_no_acknowledgement_of_the_old_one_counts(
    tmp_path: Path,
) -> None:
    receiver = Receiver()
    async with way(tmp_path, receiver, receipt_deadline_s=1.0) as (spool, platform, uplink):
        await add(spool, 30)
        await until(lambda: uplink.counters.settled == 30)
        old = spool.stream
        platform.receipts = False  # those of the next batches come when their stream has ended
        await add(spool, 10)
        await until(lambda: receiver.summary().received == 40)
        await destroy(spool, tmp_path / "store")
        while spool.stream == old:
            await add(spool)
            await asyncio.sleep(0)
        platform.receipts = True
        await add(spool, 20)
        await until(lambda: uplink.counters.settled >= 20 and uplink.connected)
        async with asyncio.timeout(15):
            while (await uplink.unsettled()).batches:
                await asyncio.sleep(0.02)
        last = spool.last_seq
        streams = receiver.summary().streams
        assert streams[f"g/{spool.stream}"] == [[1, last]]  # all that is settled did arrive
        assert await durable(spool) == [[1, last]]
        assert streams[f"g/{old}"][0][1] >= 40
        assert json.loads(uplink._status.payload("online"))["stream"] == spool.stream


async def destroy(spool: Spool, folder: Path) -> None:
    """Zero the database file under the running store."""
    await spool._do(spool._store.checkpoint_wal)
    with (folder / "spool.db").open("r+b") as file:
        file.write(bytes(1 << 18))
    await spool._do(lambda: spool._store._db.pragma("shrink_memory"))


async def test_the_newest_seal_leaves_before_the_backlog_and_again_on_each_connection(tmp_path: Path) -> None:
    receiver = Receiver()
    async with way(tmp_path, receiver) as (_, platform, uplink):
        topics: list[tuple[str, bytes]] = []
        take = receiver.take

        def spy(topic: str, payload: bytes) -> int:
            topics.append((topic, payload))
            return 0 if topic.endswith("seals") else take(topic, payload)

        receiver.take = spy  # type: ignore[method-assign]
        await until(lambda: uplink.connected)
        for n in range(5):
            uplink.seal(b'{"n":%d}' % n)
        await until(lambda: ("pondwatch/1/s/g/seals", b'{"n":4}') in topics)
        assert ("pondwatch/1/s/g/seals", b'{"n":0}') not in topics  # 4 covers it
        platform.go_away(0.1)
        await until(lambda: sum(topic.endswith("seals") for topic, _ in topics) >= 2)
        assert topics[-1] == ("pondwatch/1/s/g/seals", b'{"n":4}') or topics[-2][1] == b'{"n":4}'


async def test_zstd_carries_the_same_bytes_says_so_and_is_smaller(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "p.db")
    sent: list[mqtt.Publish] = []
    async with way(tmp_path, receiver, encoding="zstd") as (spool, platform, uplink):
        published = platform._broker._on_publish
        assert published is not None

        def spy(client: str, message: mqtt.Publish) -> int | None:
            sent.append(message)
            return published(client, message)

        platform._broker._on_publish = spy
        await add(spool, 10, size=5000)
        await until(lambda: uplink.counters.settled == 10)
        stored = {batch.payload for batch in await spool.peek()}
    batches = [message for message in sent if message.topic.endswith("readings")]
    assert {zstandard.ZstdDecompressor().decompress(message.payload) for message in batches} == stored
    for message in batches:
        assert len(message.payload) < 500
        assert ("encoding", "zstd") in message.properties[mqtt.Property.USER]  # type: ignore[operator]
        assert message.properties[mqtt.Property.CONTENT_TYPE] == "application/json"
    assert receiver.summary().holes == receiver.summary().chain_breaks == 0
    receiver.close()


async def test_a_request_reaches_who_obeys_and_a_range_is_sent_again_marked(tmp_path: Path) -> None:
    receiver = Receiver()
    async with way(tmp_path, receiver) as (spool, platform, uplink):
        await add(spool, 10)
        await until(lambda: uplink.counters.settled == 10)
        platform._broker.publish(mqtt.Publish("pondwatch/1/s/g/requests", b"do", qos=1))
        await until(lambda: uplink.heard == [b"do"])  # type: ignore[attr-defined]
        assert "the stream here is" in uplink.resend("other", 1, 2)
        assert "does not lie within" in uplink.resend(spool.stream, 0, 5)
        assert "does not lie within" in uplink.resend(spool.stream, 5, 11)
        assert "does not lie within" in uplink.resend(spool.stream, 5, 4)
        assert uplink.resend(spool.stream, 3, 6) == ""
        await until(lambda: receiver.summary().repeats == 4)
        assert uplink.counters.settled == 10
        assert await durable(spool) == [[1, 10]]


async def test_a_poison_batch_is_reported_once_and_the_rest_goes_on(tmp_path: Path) -> None:
    poison: list[tuple[int, str, str]] = []

    class Picky(Receiver):
        def take(self, topic: str, payload: bytes) -> int:
            return 0x99 if b'"poison"' in payload else super().take(topic, payload)

    async with AsyncExitStack() as stack:
        spool = await stack.enter_async_context(Spool.open(tmp_path / "store", "test", "boot"))
        platform = await stack.enter_async_context(Platform(Picky()))
        table = UplinkTable("up", "mqtt", f"mqtt://{platform.address}", "receipt")
        uplink = MqttUplink(
            table, "s", "g", spool, STATUS, Clock(), on_quarantined=lambda *what: poison.append(what)
        )
        task = asyncio.create_task(uplink.run())
        stack.callback(task.cancel)
        await add(spool, 3)
        await spool.commit([Draft("readings", b'"readings":[],"poison":1', 1, 1, 1)])
        await add(spool, 3)
        await until(lambda: uplink.counters.settled == 6)
        assert uplink._queue is not None
        began_s = time.monotonic()
        while not poison and time.monotonic() - began_s < 30:  # let its pauses pass in no time
            for each in uplink._queue._sent.values():
                each.until_s = 0.0
            uplink._queue.next_deadline_s = 0.0
            uplink._wake.set()
            await asyncio.sleep(0.01)
        assert [(seq, kind) for seq, kind, _ in poison] == [(4, "readings")]
        assert "invalid" in poison[0][2].lower()
        assert (await uplink.unsettled()).batches == 1
        await add(spool)
        await until(lambda: uplink.counters.settled == 7)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
