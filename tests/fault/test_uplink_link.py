"""Links that are slow, stuck or torn, and uplinks beside each other."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from daemon.clock import Clock
from daemon.config import UplinkTable
from daemon.spool import Draft, Spool
from daemon.uplink.mqtt import MqttUplink, Status
from hardware_sim.platform import Platform
from hardware_sim.receiver import Receiver
from tests.fault.way import Link
from tests.system.running import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import Figure

STATUS = Status("test", "0.1.0", "boot-1", "?", "c0ffee", "2026-11-23T08:00:00.000Z")
MODEM_BYTES_PER_S = 8_000.0  # 64 kbit/s


def readings(channels: int, values: random.Random) -> bytes:
    """A batch as 200 channels every ten seconds make it: names, times, values, raw numbers."""
    rows = [
        {
            "channel": f"n.pz{n:03}.pressure",
            "time": "2026-11-23T08:00:00.123Z",
            "value": round(values.gauss(100.0, 5.0), 6),
            "unit": "kPa",
            "quality": "good",
            "raw": {f"vw{n % 8}.freq{n:02}": round(values.gauss(2800.0, 30.0), 3)},
        }
        for n in range(channels)
    ]
    return b'"site":"s","gateway":"g","readings":' + json.dumps(rows, separators=(",", ":")).encode()


def alarm(name: str) -> Draft:
    members: dict[str, Any] = {"id": name, "kind": "channel", "level": "red", "condition": "present"}
    members |= {
        "response": "new",
        "time": "2026-11-23T08:00:00.123Z",
        "reason": {"zh": "警" * 40, "en": "x" * 80},
    }
    return Draft("alarms", json.dumps(members).encode()[1:-1], 1, 1, 1)


def table(name: str, address: str, **rest: Any) -> UplinkTable:
    return UplinkTable(name, "mqtt", f"mqtt://{address}", "receipt", **rest)


@asynccontextmanager
async def sending(table: UplinkTable, spool: Spool) -> AsyncIterator[MqttUplink]:
    uplink = MqttUplink(table, "s", "g", spool, STATUS, Clock(), reconnect_most_s=0.3)
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.fault(
    row=29,
    fault="a link of 64 kbit/s with a full backlog before it",
    injected="a TCP proxy that takes 8000 bytes/s, buffers in front of it without bound; alarms at random moments",
    holds="each alarm is at the platform within 2 s: so long the link takes for what goes before it",
)
@pytest.mark.parametrize(
    ("channels", "encoding"), [(15, "json"), (200, "zstd")], ids=["2 kB batches", "27 kB batches in zstd"]
)
async def test_an_alarm_passes_a_full_backlog_on_a_slow_link_within_two_seconds(
    tmp_path: Path, channels: int, encoding: str, figure: Figure
) -> None:
    values = random.Random(7)
    receiver = Receiver()
    async with AsyncExitStack() as stack:
        spool = await stack.enter_async_context(Spool.open(tmp_path / "store", "test", "boot"))
        for _ in range(40):
            await spool.commit(
                [Draft("readings", readings(channels, values), 1, 1, channels) for _ in range(10)]
            )
        platform = await stack.enter_async_context(Platform(receiver))
        link = await stack.enter_async_context(Link(int(platform.address.rpartition(":")[2])).carrying())
        link.bytes_per_s = MODEM_BYTES_PER_S
        uplink = await stack.enter_async_context(
            sending(table("up", f"127.0.0.1:{link.port}", encoding=encoding), spool)
        )
        await until(lambda: receiver.summary().received, "the backlog moves")
        waits_s, links_s = [], []
        for n in range(8):  # early ones while the queue still learns what the link can do
            await asyncio.sleep(values.uniform(0.1, 2.0))
            raised_s, carried = time.monotonic(), link.carried_bytes
            await spool.commit([alarm(f"a{n}")])
            await until(lambda: len(receiver.summary().alarms) > n, "the alarm")  # noqa: B023
            waits_s.append(time.monotonic() - raised_s)
            links_s.append((link.carried_bytes - carried) / MODEM_BYTES_PER_S)
            await spool.commit([Draft("readings", readings(channels, values), 1, 1, channels)])
        behind = spool.last_seq - receiver.summary().received
        assert behind > 50  # or there was no backlog to pass
        assert uplink.counters.connections == 1
    figure(
        f"{len(waits_s)} alarms, the slowest {max(waits_s):.2f} s, {max(links_s):.2f} s of them on the link, "
        f"{behind} batches still waiting ({encoding})"
    )
    assert max(links_s) < 2.0  # the rest is a machine that has other work
    assert max(waits_s) < 20.0


@pytest.mark.fault(
    row=28,
    fault="one of two uplinks is blocked",
    injected="its platform takes and never acknowledges, then its link is a black hole",
    holds="the other loses no time; each settles its own; the blocked one catches up by itself",
)
async def test_two_uplinks_settle_each_for_itself_and_a_blocked_one_holds_up_nobody(
    tmp_path: Path, figure: Figure
) -> None:
    free, stuck = Receiver(), Receiver()
    async with AsyncExitStack() as stack:
        spool = await stack.enter_async_context(Spool.open(tmp_path / "store", "test", "boot"))
        good = await stack.enter_async_context(Platform(free))
        bad = await stack.enter_async_context(Platform(stuck))
        bad.acks = bad.receipts = False
        one = await stack.enter_async_context(sending(table("one", good.address, window=5), spool))
        two = await stack.enter_async_context(
            sending(table("two", bad.address, window=3, ack_deadline_s=0.5, receipt_deadline_s=0.5), spool)
        )
        for n in range(100):
            await spool.commit([Draft("readings", readings(3, random.Random(n)), 1, 1, 3)])
        await until(lambda: one.counters.settled == 100, "the free one is through")
        assert two.counters.settled == 0
        assert two._queue is not None
        assert two._queue._flying <= 3
        assert (await two.unsettled()).batches == 100
        bad.acks = bad.receipts = True
        began_s = time.monotonic()
        await until(lambda: two.counters.settled == 100, "the other has caught up")
        took_s = time.monotonic() - began_s
    assert free.summary().holes == stuck.summary().holes == 0
    figure(f"100 batches through one while the other took none; that caught up in {took_s:.1f} s")


@pytest.mark.fault(
    row=26,
    fault="the peer stops reading",
    injected="a black hole on an open connection: nothing is read, nothing is answered, nothing is closed",
    holds="the connection is given up by our own deadline, memory stays bounded, all arrives on the next",
)
async def test_a_link_that_goes_silent_is_left_by_our_own_deadline(tmp_path: Path, figure: Figure) -> None:
    receiver = Receiver()
    async with AsyncExitStack() as stack:
        spool = await stack.enter_async_context(Spool.open(tmp_path / "store", "test", "boot"))
        platform = await stack.enter_async_context(Platform(receiver))
        link = await stack.enter_async_context(Link(int(platform.address.rpartition(":")[2])).carrying())
        settings = table("up", f"127.0.0.1:{link.port}", ack_deadline_s=0.5)
        uplink = await stack.enter_async_context(sending(settings, spool))
        await until(lambda: uplink.connected, "connected")
        link.swallow()
        began_s = time.monotonic()
        await spool.commit([Draft("readings", readings(200, random.Random(0)), 1, 1, 200)])
        await until(lambda: not uplink.connected, "it notices")
        noticed_s = time.monotonic() - began_s
        for n in range(1, 300):
            await spool.commit([Draft("readings", readings(200, random.Random(n)), 1, 1, 200)])
        assert uplink._queue is not None
        assert len(uplink._queue._sent) <= settings.window
        link.restore()
        await until(lambda: uplink.counters.settled == 300, "all has arrived")
    assert (receiver.summary().holes, receiver.summary().forks) == (0, 0)
    figure(f"given up {noticed_s:.1f} s after it went silent (deadline 0.5 s); 300 batches arrived after it")


@pytest.mark.fault(
    row=22,
    fault="a broker that closes every connection at once",
    injected="a listener that accepts and closes, for five seconds",
    holds="full jitter: attempts grow rare; on the whole no more than about one a second",
)
async def test_a_broker_that_closes_at_once_is_not_flooded(tmp_path: Path, figure: Figure) -> None:
    attempts: list[float] = []

    def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(time.monotonic())
        writer.transport.abort()

    server = await asyncio.start_server(close, "127.0.0.1")
    async with server, Spool.open(tmp_path / "store", "test", "boot") as spool:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        uplink = MqttUplink(table("up", address), "s", "g", spool, STATUS, Clock(), random=random.Random(3))
        task = asyncio.create_task(uplink.run())
        await asyncio.sleep(5.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert 2 <= len(attempts) <= 10
    figure(f"{len(attempts)} attempts in 5 s")


@pytest.mark.fault(
    row=30,
    fault="deliveries that come twice",
    injected="every third receipt is lost, so that batches are sent again",
    holds="the platform keeps one of each; every repeat says that it is one",
)
async def test_repeats_after_lost_receipts_are_marked_and_kept_once(tmp_path: Path, figure: Figure) -> None:
    class Forgetful(Receiver):
        """Stores, and loses every third receipt."""

        count = 0

        def receipts(self) -> list[tuple[str, bytes]]:
            self.count += 1
            found = super().receipts()
            return [] if self.count % 3 == 0 else found

    receiver = Forgetful(tmp_path / "p.db")
    async with AsyncExitStack() as stack:
        spool = await stack.enter_async_context(Spool.open(tmp_path / "store", "test", "boot"))
        platform = await stack.enter_async_context(Platform(receiver))
        uplink = await stack.enter_async_context(
            sending(table("up", platform.address, receipt_deadline_s=0.3), spool)
        )
        for n in range(100):
            await spool.commit([Draft("readings", readings(2, random.Random(n)), 1, 1, 2)])
            await asyncio.sleep(0.01)
        await until(lambda: uplink.counters.settled == 100, "all settled")
        resent = uplink.counters.resent
        await until(lambda: receiver.summary().repeats >= resent, "what was sent again is there")
    summary = receiver.summary()
    assert summary.repeats == resent > 0
    assert (summary.received, summary.readings, summary.forks) == (100, 200, 0)
    receiver.close()
    figure(f"{resent} repeats of 100 batches, all dropped as such, no reading counted twice")
