"""The gateway that everybody writes first, to measure ours against: pymodbus, sqlite3, aiomqtt, json.

One task per device; a row per value, a commit per poll, a message per poll at QoS 1. It decodes and scales; it
judges nothing, keeps no chain, and forgets what the broker acknowledged.

    python -m tests.bench.plain DATABASE MQTT_HOST:PORT PERIOD_S DEVICES MODBUS_HOST:PORT ...
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time

import aiomqtt
from pymodbus.client import AsyncModbusTcpClient

POINTS = 24


async def poll(
    client: AsyncModbusTcpClient,
    broker: aiomqtt.Client,
    db: sqlite3.Connection,
    name: str,
    unit: int,
    every_s: float,
) -> None:
    due_s = time.monotonic()
    while True:
        reply = await client.read_holding_registers(0, count=2 * POINTS, device_id=unit)
        now = time.time()
        if not reply.isError():
            values = client.convert_from_registers(
                reply.registers, client.DATATYPE.FLOAT32, word_order="little"
            )
            assert isinstance(values, list)
            rows = [(now, f"{name}.c{i:02}", 0.5 * float(v) + 1.0) for i, v in enumerate(values, 1)]
            with db:
                db.executemany("INSERT INTO reading VALUES (?, ?, ?)", rows)
            payload = json.dumps([{"channel": c, "time": t, "value": v, "unit": "kPa"} for t, c, v in rows])
            await broker.publish(f"plain/{name}", payload, qos=1)
        due_s = max(due_s + every_s, time.monotonic())
        await asyncio.sleep(due_s - time.monotonic())


async def main() -> None:
    database, mqtt, every_s, devices, *servers = sys.argv[1:]
    db = sqlite3.connect(database)
    db.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE reading (time, channel, value)"
    )
    host, _, port = mqtt.rpartition(":")
    async with (
        aiomqtt.Client(
            host, int(port), protocol=aiomqtt.ProtocolVersion.V5, max_inflight_messages=20
        ) as broker,
        asyncio.TaskGroup() as group,
    ):
        broker.pending_calls_threshold = 1_000_000
        for n, server in enumerate(servers):
            host, _, port = server.rpartition(":")
            client = AsyncModbusTcpClient(host, port=int(port))
            await client.connect()
            for d in range(int(devices)):
                group.create_task(poll(client, broker, db, f"d{n}-{d}", d + 1, float(every_s)))


if __name__ == "__main__":
    asyncio.run(main())
