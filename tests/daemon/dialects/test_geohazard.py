"""`$dp` frames through a real mosquitto, read by a parser that knows only the published shape."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiomqtt
import pytest

from daemon.clock import Clock
from daemon.spool import Spool
from daemon.uplink.dialect_uplink import DialectUplink
from daemon.uplink.dialects import build
from tests.daemon.dialects import alarm, batches, reading, readings, table, whole
from tests.daemon.test_mqtt_peer import MOSQUITTO, Broker
from tests.system.running import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto"
)

VALUES = [
    {"channel": "n.g01.north", "code": "L1_GP_1", "field": "gpsTotalX"},
    {"channel": "n.pond.level", "code": "L3_DB_1", "field": "value"},
]


def taken_apart(frame: bytes) -> dict[str, Any]:
    """A type byte, two bytes of length, high byte first, so much JSON and nothing behind it."""
    kind, high, low = frame[0], frame[1], frame[2]
    assert kind == 2
    assert len(frame) == 3 + high * 256 + low
    told = json.loads(frame[3:].decode())
    assert isinstance(told, dict)
    return told


class Platform:
    """Who listens to `$dp`; each value by device, code, time and field, and how often it came."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.values: dict[tuple[str, str, str, str], float] = {}
        self.frames = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        there = asyncio.Event()
        task = asyncio.create_task(self._listen(there))
        try:
            async with asyncio.timeout(30):
                await there.wait()
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _listen(self, there: asyncio.Event) -> None:
        while True:
            with suppress(aiomqtt.MqttError):
                async with aiomqtt.Client("127.0.0.1", self.port, identifier="platform") as client:
                    await client.subscribe("$dp", qos=1)
                    there.set()
                    async for message in client.messages:
                        assert isinstance(message.payload, bytes)
                        self._take(taken_apart(message.payload))
            await asyncio.sleep(0.05)

    def _take(self, told: dict[str, Any]) -> None:
        self.frames += 1
        for device, codes in told.items():
            for code, times in codes.items():
                for time, fields in times.items():
                    for field, value in fields.items():
                        self.values[device, code, time, field] = value


@asynccontextmanager
async def reporting(spool: Spool, broker: Broker) -> AsyncIterator[DialectUplink]:
    settings = {
        "id": "hazard", "url": f"mqtt://127.0.0.1:{broker.port}", "device": "17165802", "value": VALUES
    }  # fmt: skip
    uplinks = [{"kind": "geohazard-mqtt", **settings}]
    site = whole({"site": {"id": "s", "gateway": "g"}, "uplink": uplinks})
    dialect = build(site.uplinks[0], site, Clock())  # type: ignore[arg-type]
    uplink = DialectUplink(table("geohazard-mqtt", settings), dialect, spool, Clock(), reconnect_most_s=0.1)
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settled(uplink: DialectUplink) -> bool:
    return (await uplink.unsettled()).batches == 0


async def commit(spool: Spool, first: int, last: int) -> None:
    for n in range(first, last):
        at = f"2026-11-26T04:{n:02d}:00.000Z"
        await spool.commit(
            [readings(reading("n.g01.north", n / 10, at, "mm"), reading("n.pond.level", 84 + n, at))]
        )


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path / "broker")
    await broker.start()
    yield broker
    await broker.stop()


async def test_all_arrives_though_nobody_listens_at_first_and_the_broker_dies(
    tmp_path: Path, broker: Broker
) -> None:
    platform = Platform(broker.port)
    async with Spool.open(tmp_path / "store", "real", "boot") as spool, reporting(spool, broker) as uplink:
        await commit(spool, 0, 5)
        await until(lambda: uplink.counters.rejected > 0, "what nobody would get is refused, not settled")
        assert (await uplink.unsettled()).batches == 5
        async with platform.listening():
            await until(lambda: settled(uplink), "all is settled once somebody listens")
            await broker.stop()
            await commit(spool, 5, 12)
            await spool.commit([alarm()])
            await broker.start()
            await until(lambda: settled(uplink), "and what was committed while it was away")
            await until(lambda: len(platform.values) == 24, "has arrived")
    assert platform.values == {
        ("17165802", code, f"2026-11-26T04:{n:02d}:00.000Z", field): value
        for n in range(12)
        for code, field, value in (("L1_GP_1", "gpsTotalX", n / 10), ("L3_DB_1", "value", 84 + n))
    }


async def test_what_is_no_real_measurement_is_withheld(tmp_path: Path, broker: Broker) -> None:
    platform = Platform(broker.port)
    async with (
        platform.listening(),
        Spool.open(tmp_path / "store", "test", "boot") as spool,
        reporting(spool, broker) as uplink,
    ):
        await commit(spool, 0, 2)
        await until(lambda: settled(uplink), "it counts as settled")
        assert uplink.withheld == 2
    assert not platform.frames


def test_a_month_in_one_group_fits_the_two_bytes_of_length_and_loses_nothing() -> None:
    site = whole({
        "site": {"id": "s", "gateway": "g"},
        "uplink": [{"kind": "geohazard-mqtt", "id": "h", "url": "mqtt://h", "device": "1", "value": VALUES}],
    })  # fmt: skip
    dialect = build(site.uplinks[0], site, Clock())  # type: ignore[arg-type]
    lines = []
    for day in range(1, 31):
        rows = [
            reading(channel, day + minute / 1440, f"2026-11-{day:02d}T{minute // 60:02d}:{minute % 60:02d}:00.000Z")
            for minute in range(0, 1440, 10)
            for channel in ("n.g01.north", "n.pond.level")
        ]  # fmt: skip
        lines.append(
            json.dumps({"mode": "real", "stream": "s", "seq": day, "prev": "0" * 64, "readings": rows})
        )
    seen: set[tuple[str, str]] = set()
    frames = [taken_apart(parcel.payload) for parcel in dialect.encode(batches(lines))]
    for told in frames:
        for code, times in told["1"].items():
            assert not seen & {(code, time) for time in times}
            seen |= {(code, time) for time in times}
    assert len(frames) > 5
    assert len(seen) == 2 * 30 * 144
