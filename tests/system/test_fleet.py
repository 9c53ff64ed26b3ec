"""Gateways, one mosquitto, consumers of a shared subscription and PostgreSQL: everything once, whatever ends meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.fault.way import MOSQUITTO, Mosquitto
from tests.system.fleet import Consumer, Gateways, assert_everything_once
from tests.system.postgres import wants_postgres
from tests.system.running import Program, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.system.postgres import Postgres

pytestmark = [
    pytest.mark.peer,
    wants_postgres,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto"),
    pytest.mark.timeout(240),
]


@contextlib.asynccontextmanager
async def fleet(
    folder: Path, conninfo: str, groups: int, count: int, **options: float
) -> AsyncIterator[tuple[Mosquitto, list[Consumer], list[Gateways]]]:
    """Two consumers, and `groups` processes of `count` gateways each."""
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(folder / "broker"))
        consumers = [
            await stack.enter_async_context(Consumer(f"consumer-{n}", folder, broker.port, conninfo))
            for n in range(2)
        ]
        gateways = [
            await stack.enter_async_context(Gateways(folder, n * count, count, broker.port, **options))
            for n in range(groups)
        ]
        yield broker, consumers, gateways


async def verified(folder: Path, conninfo: str) -> str:
    """What the consumer's own verifier says, which must find nothing wrong."""
    command = [sys.executable, "-m", "hardware_sim.consumer", "--verify", "--database", conninfo]
    log = folder / "verify.log"
    async with Program(command, log) as verifier:
        assert await verifier.wait() == 0, log.read_text()
    return log.read_text()


async def test_ten_gateways_arrive_once_through_killed_consumers_and_a_broker_restart(
    tmp_path: Path, postgres: Postgres
) -> None:
    conninfo = postgres.fresh()
    options = {"every": 0.25, "readings": 3, "receipt_deadline": 1.0}
    async with fleet(tmp_path, conninfo, 1, 10, **options) as (broker, (first, second), (gateways,)):

        async def grown(by: int) -> None:
            wanted = gateways.progress()["settled"] + by
            await until(lambda: gateways.progress()["settled"] >= wanted, f"{by} batches more are settled")

        await grown(50)
        await first.kill()
        await grown(30)
        await first.start()
        await broker.stop()
        await broker.start()
        await grown(50)
        await second.kill()
        await grown(30)
        progress = await gateways.settled()
        assert await first.stop() == 0
    count = assert_everything_once(postgres, [gateways], 3)
    assert count == progress["committed"]
    said = await verified(tmp_path, conninfo)
    assert said.count("first key") == 10
    assert "sealed up to 0" not in said
    postgres.psql(
        "UPDATE batch SET payload = payload || ' ' WHERE seq = 5 AND stream_id = (SELECT min(id) FROM stream)"
    )
    with pytest.raises(AssertionError, match="batch 5 is not what was received"):
        await verified(tmp_path, conninfo)


@pytest.mark.campaign
async def test_two_hundred_gateways_arrive_once_through_killed_consumers_and_a_broker_restart(
    tmp_path: Path, postgres: Postgres
) -> None:
    conninfo = postgres.fresh()
    options = {"every": 4.0, "readings": 20, "receipt_deadline": 15.0}
    async with fleet(tmp_path, conninfo, 2, 100, **options) as (broker, consumers, gateways):
        await until(lambda: all(g.progress()["settled"] > 300 for g in gateways), "all begin", 120)
        end_s = time.monotonic() + 60
        kills = 0
        while time.monotonic() < end_s:
            await asyncio.sleep(5)
            await consumers[kills % 2].kill()
            await asyncio.sleep(2)
            await consumers[kills % 2].start()
            kills += 1
            if kills == 4:
                broker.send(signal.SIGKILL)
                await broker.wait()
                await broker.start()
        progress = [await each.settled(240) for each in gateways]
    count = assert_everything_once(postgres, gateways, 20)
    repeats = sum(each["sent"] for each in progress) - count
    await verified(tmp_path, conninfo)
    told = f"{kills} kills, {count} batches, {repeats} sent more than once, none lost or doubled"
    print(f"200 gateways: {told}")  # noqa: T201 -- a campaign tells what it found
