"""The MQTT uplink against brokers that misbehave: a few lines of MQTT 5.0 on a raw socket."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Literal

import pytest

from daemon.clock import Clock
from daemon.config import UplinkTable
from daemon.spool import Draft, Spool
from daemon.uplink.mqtt import MqttUplink, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from paho.mqtt.properties import Properties

    from daemon.spool import Batch
    from daemon.uplink.ack_client import AckClient
    from tests.conftest import Figure

STATUS = Status("test", "0.1.0", "boot-1", "s", "c0ffee", "2026-11-23T08:00:00.000Z")
DESCRIPTORS = Path("/proc/self/fd")
CONNACK_OK = bytes([0x20, 3, 0, 0, 0])


@dataclass
class BadBroker:
    """Answers CONNECT with `connack`, and each PUBLISH with what `puback` makes of topic and packet id."""

    connack: bytes = CONNACK_OK
    puback: Callable[[str, bytes], bytes] = lambda _topic, packet: b"\x40\x02" + packet
    then: bytes = b""
    port: int = 0
    connections: int = 0
    topics: list[str] = field(default_factory=list)
    unacked: int = 0
    most_unacked: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, body = await packet(reader)
                if kind == 0x10:
                    writer.write(self.connack + self.then)
                elif kind == 0x80:
                    writer.write(b"\x90\x04" + body[:2] + b"\x00\x01")
                elif kind == 0x30:
                    length = int.from_bytes(body[:2])
                    self.topics.append(body[2 : 2 + length].decode())
                    self.unacked += 1
                    self.most_unacked = max(self.most_unacked, self.unacked)
                    asyncio.get_running_loop().call_later(
                        0.01, self.answer, writer, self.topics[-1], body[2 + length : 4 + length]
                    )
        writer.close()

    def answer(self, writer: asyncio.StreamWriter, topic: str, packet_id: bytes) -> None:
        self.unacked -= 1
        if not writer.is_closing():
            writer.write(self.puback(topic, packet_id))


async def packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0] & 0xF0
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return kind, await reader.readexactly(length)


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    async with Spool.open(tmp_path / "store", "test", "boot-1") as spool:
        yield spool


@contextlib.asynccontextmanager
async def against(
    broker: BadBroker,
    spool: Spool,
    *,
    ack_deadline_s: float = 30.0,
    settle: Literal["puback", "receipt"] = "puback",
) -> AsyncIterator[MqttUplink]:
    server = await asyncio.start_server(broker.serve, "127.0.0.1")
    broker.port = server.sockets[0].getsockname()[1]
    table = UplinkTable(
        "up", "mqtt", f"mqtt://127.0.0.1:{broker.port}", settle, ack_deadline_s=ack_deadline_s
    )
    uplink = MqttUplink(table, "site", "gw1", spool, STATUS, Clock(), reconnect_most_s=0.05)
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        server.close()
        await server.wait_closed()
        assert isinstance(result, asyncio.CancelledError), result


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


async def commit(spool: Spool, n: int, size: int = 1) -> None:
    await spool.commit([Draft("readings", b'"x":"' + b"x" * size + b'"', 1, 1, 1) for _ in range(n)])


@pytest.mark.fault(
    row=24,
    fault="CONNACK, never a PUBACK",
    injected="a raw socket; ack_deadline 0.2 s",
    holds="left by our own deadline, at most the window in memory",
)
async def test_a_broker_that_never_acknowledges_is_left_by_our_own_deadline(
    spool: Spool, caplog: pytest.LogCaptureFixture, figure: Figure
) -> None:
    await commit(spool, 100)
    broker = BadBroker(puback=lambda _topic, _packet: b"")
    async with against(broker, spool, ack_deadline_s=0.2) as uplink:
        await until(lambda: broker.connections >= 3)
        assert "no PUBACK for 0.2 s" in caplog.text
        assert uplink._queue is not None
        assert len(uplink._queue._sent) <= 20
    assert not await spool.settled("up")
    figure(f"left {broker.connections - 1} times, at most 20 of 100 batches in flight")


@pytest.mark.parametrize("settle", ["puback", "receipt"])
@pytest.mark.parametrize("mistaken", [False, True], ids=["as it is", "settled when sent"])
async def test_an_uplink_that_settles_what_it_sends_would_be_found(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, settle: Literal["puback", "receipt"], mistaken: bool
) -> None:
    """A broker without a PUBACK, or a platform without a receipt: nothing may be settled in the store."""
    publish = MqttUplink._publish

    def settle_and_publish(self: MqttUplink, client: AckClient, batch: Batch, properties: Properties) -> None:
        self._settled([batch.seq])
        publish(self, client, batch, properties)

    if mistaken:
        monkeypatch.setattr(MqttUplink, "_publish", settle_and_publish)
    await commit(spool, 5)
    broker = BadBroker() if settle == "receipt" else BadBroker(puback=lambda _topic, _packet: b"")
    async with against(broker, spool, ack_deadline_s=0.3, settle=settle) as uplink:
        await until(lambda: sum(topic.endswith("readings") for topic in broker.topics) >= 5)
        await until(lambda: settle == "puback" or uplink.counters.acked == 5)
    assert (await spool.settled("up")).to_list() == (
        [[1, 5]] if mistaken else []
    )  # the end makes all durable


@pytest.mark.fault(
    row=23,
    fault="accepts, never CONNACK",
    injected="a raw socket",
    holds="given up and tried again, no descriptor leaks",
)
async def test_a_broker_that_never_says_connack_costs_no_socket(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    monkeypatch.setattr("daemon.uplink.broker.CONNECT_S", 0.05)
    broker = BadBroker(connack=b"")
    async with against(broker, spool) as uplink:
        await until(lambda: broker.connections >= 3)
        before = len(list(DESCRIPTORS.iterdir()))
        await until(lambda: broker.connections >= 12)
        assert len(list(DESCRIPTORS.iterdir())) <= before + 3
        assert not uplink.connected
        assert "timed out" in uplink._trouble
    figure(f"{broker.connections} attempts, no descriptor more")


async def test_a_connection_that_is_refused_says_why(spool: Spool) -> None:
    async with against(BadBroker(connack=bytes([0x20, 3, 0, 0x89, 0])), spool) as uplink:
        await until(lambda: "Server busy" in uplink._trouble)


async def test_no_more_is_in_flight_than_the_broker_allows(spool: Spool) -> None:
    await commit(spool, 50)
    receive_maximum_3 = bytes([0x20, 6, 0, 0, 3, 0x21, 0, 3])
    broker = BadBroker(connack=receive_maximum_3)
    async with against(broker, spool) as uplink:
        await until(lambda: uplink.counters.settled == 50)
    assert broker.most_unacked <= 3 + 1  # the status beside the batches


async def test_a_batch_larger_than_the_broker_takes_is_kept_and_the_others_go(spool: Spool) -> None:
    await commit(spool, 1)
    await commit(spool, 1, size=5000)
    await commit(spool, 1)
    maximum_packet_1000 = bytes([0x20, 8, 0, 0, 5, 0x27, 0, 0, 0x03, 0xE8])
    broker = BadBroker(connack=maximum_packet_1000)
    async with against(broker, spool) as uplink:
        await until(lambda: uplink.counters.settled == 2 and uplink.counters.rejected >= 2)
        assert uplink.connected
    assert (await spool.settled("up")).to_list() == [[1, 1], [3, 3]]


async def test_quota_exceeded_is_no_delivery_and_is_tried_again(spool: Spool) -> None:
    await commit(spool, 2)
    refusals = iter([True, True])

    def puback(topic: str, packet_id: bytes) -> bytes:
        refuse = topic.endswith("readings") and next(refusals, False)
        return b"\x40\x04" + packet_id + b"\x97\x00" if refuse else b"\x40\x02" + packet_id

    async with against(BadBroker(puback=puback), spool) as uplink:
        await until(lambda: uplink.counters.rejected == 2)
        assert uplink.counters.settled == 0
        await until(lambda: uplink.counters.settled == 2)


@pytest.mark.parametrize(
    "noise",
    [
        b"\x40\x02\xff\xff",
        b"\x00" * 40,
        b"\xff" * 40,
        b"\x40\xff\xff\xff\x7f" + b"x" * 1000,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=["wrong id", "zeros", "ones", "huge", "http"],
)
@pytest.mark.fault(
    row=25,
    fault="wrong ids, garbage, a huge length",
    injected="a raw socket, five kinds",
    holds="the connection is left, all is delivered by the next sound one",
)
async def test_garbage_from_the_broker_is_survived(spool: Spool, noise: bytes, figure: Figure) -> None:
    await commit(spool, 3)
    broker = BadBroker(then=noise)
    async with against(broker, spool, ack_deadline_s=0.3) as uplink:
        await until(lambda: broker.connections >= 2 or uplink.counters.settled == 3)
        broker.then = b""
        await until(lambda: uplink.counters.settled == 3)
    figure(f"{noise[:4]!r}: 3 of 3 delivered afterwards")


async def test_pauses_between_attempts_are_full_jitter_growing_to_thirty_seconds(spool: Spool) -> None:
    longest: list[float] = []

    class Dice(Random):
        def uniform(self, a: float, b: float) -> float:
            longest.append(b)
            return a

    table = UplinkTable("up", "mqtt", "mqtt://127.0.0.1:1", "puback")
    uplink = MqttUplink(table, "site", "gw1", spool, STATUS, Clock(), random=Dice())
    task = asyncio.create_task(uplink.run())
    await until(lambda: len(longest) >= 9)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert longest[:9] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
