"""Outages between gateway and platform, on the whole way: nothing lost, every repeat marked, order kept."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.fault.way import (
    MOSQUITTO,
    Instruments,
    Link,
    Mosquitto,
    Outcome,
    Platform,
    outcome,
    settled,
    site_file,
    uplink,
)
from tests.system.running import Daemon, until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from tests.conftest import Figure

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]


@dataclass
class Way:
    """All that is running during one test."""

    broker: Mosquitto
    link: Link
    daemon: Daemon


async def stopped(way: Way, seconds: float) -> None:
    await way.broker.away(seconds)


async def frozen(way: Way, seconds: float) -> None:
    await way.broker.frozen(seconds)


async def black_hole(way: Way, seconds: float) -> None:
    await way.link.black_hole(seconds)


async def killed_within(way: Way, seconds: float) -> None:
    """The broker is away, and halfway through the gateway dies and is started again."""
    away = asyncio.create_task(way.broker.away(seconds))
    await asyncio.sleep(seconds / 2)
    await way.daemon.kill()
    await way.daemon.start()
    await away


OUTAGES = (stopped, frozen, black_hole, killed_within)


async def run(
    folder: Path,
    hertz: int,
    units: int,
    outage: Callable[[Way, float], Coroutine[None, None, None]],
    seconds: float,
    *,
    ack_deadline: str = "30 s",
    calm_s: float = 1.0,
) -> tuple[Instruments, str]:
    """One outage; what came of it, held to nothing lost, nothing unmarked, nothing out of order."""
    async with AsyncExitStack() as stack:
        instruments = await stack.enter_async_context(Instruments(units).serving())
        broker = await stack.enter_async_context(Mosquitto(folder / "broker"))
        link = await stack.enter_async_context(Link(broker.port).carrying())
        platform = await stack.enter_async_context(Platform(broker.port, folder / "p.db").listening())
        rest = f'ack_deadline = "{ack_deadline}"\nreceipt_deadline = "10 s"'
        site = site_file(
            folder, instruments, uplink("up", link.port, rest=rest), mode="simulated", answer="900 ms"
        )
        # The devices are polled every second of a clock that runs `hertz` times as fast; networks stay real.
        daemon = await stack.enter_async_context(Daemon(site, folder, f"{hertz}@{time.time()}"))
        await asyncio.sleep(calm_s)
        await outage(Way(broker, link, daemon), seconds)
        await asyncio.sleep(calm_s)
        await until(lambda: settled(daemon), "the backlog is settled", 60 + 2 * seconds)
        assert await daemon.stop() == 0
        await until(lambda: platform.receiver.summary().received >= len(daemon.batches()), "the last batches")
        found = outcome(instruments, platform, folder / "p.db")
        summary = platform.receiver.summary()
        assert (summary.forks, summary.holes, summary.chain_breaks) == (0, 0, 0)
        assert summary.seal_findings == []
        # What a killed process had read and not yet committed is lost; at most the linger time of it.
        lost_at_most = 0
        if outage is killed_within:
            lost_at_most = round((0.2 * hertz + 3) * units * 5)  # and the ticks of a commit under way
        assert found.lost <= lost_at_most, str(found)
        assert found.unmarked_repeats == 0, str(found)
        assert found.out_of_order == 0, str(found)
        assert found.given > units * 5 * hertz * seconds / 2
    return instruments, f"{hertz} Hz, {seconds:g} s: {found}"


@pytest.mark.fault(
    row=28,
    fault="broker stopped, frozen, link black-holed, gateway killed in an outage",
    injected="SIGTERM, SIGSTOP, a proxy that swallows all bytes and then resets, kill -9; short versions",
    holds="0 lost, 0 unmarked repeats, order kept; at a kill at most what was read in the last 200 ms",
)
@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.__name__)
async def test_a_short_outage_loses_nothing_marks_every_repeat_and_keeps_the_order(
    tmp_path: Path, outage: Callable[[Way, float], Coroutine[None, None, None]], figure: Figure
) -> None:
    _, text = await run(tmp_path, 10, 2, outage, 2.5, ack_deadline="1 s")
    figure(f"{outage.__name__.replace('_', ' ')}: {text}")


@pytest.mark.campaign
@pytest.mark.fault(
    row=28,
    fault="the outages of the peers' runs",
    injected="as above, 30 s and a black hole of 150 s, ten units of five tags at 2, 10 and 50 Hz",
    holds="0 lost, 0 unmarked repeats, order kept; at a kill at most what was read in the last 200 ms",
)
@pytest.mark.parametrize("hertz", [2, 10, 50])
@pytest.mark.parametrize(
    ("outage", "seconds"),
    [(stopped, 30.0), (frozen, 30.0), (black_hole, 30.0), (black_hole, 150.0), (killed_within, 30.0)],
    ids=["stopped 30 s", "frozen 30 s", "black hole 30 s", "black hole 150 s", "killed in 30 s"],
)
async def test_the_outages_that_cost_the_peers_their_samples(
    tmp_path: Path,
    outage: Callable[[Way, float], Coroutine[None, None, None]],
    seconds: float,
    hertz: int,
    figure: Figure,
) -> None:
    short = float(os.environ.get("SECONDS") or seconds)
    _, text = await run(tmp_path, hertz, 10, outage, min(short, seconds), calm_s=10.0)
    figure(f"{outage.__name__.replace('_', ' ')} {seconds:g} s: {text}")


async def killed_after_puback(folder: Path, settle: str) -> tuple[Outcome, int]:
    """Four times the broker acknowledges and dies with its memory; what came of it, and the kills' last seq."""
    async with AsyncExitStack() as stack:
        instruments = await stack.enter_async_context(Instruments(2).serving())
        broker = await stack.enter_async_context(Mosquitto(folder / "broker", saves=False))
        rest = 'receipt_deadline = "1 s"' if settle == "receipt" else ""
        site = site_file(
            folder, instruments, uplink("up", broker.port, settle, rest), mode="simulated", answer="900 ms"
        )
        platform = Platform(broker.port, folder / "p.db")
        async with Daemon(site, folder, f"20@{time.time()}") as daemon:
            for _ in range(
                4
            ):  # who listens meanwhile has a session that dies with the broker, and keeps nothing
                async with Platform(broker.port).listening() as deaf:
                    deaf.receipts = False
                    await until(partial(_heard, deaf), "something was acknowledged")
                broker.send(signal.SIGKILL)
                await broker.wait()
                await broker.start()
            last_seq = (await daemon.ask("status"))["last_seq"]
            async with platform.listening():
                await until(lambda: settled(daemon), "all is settled")
                assert await daemon.stop() == 0
                await asyncio.sleep(0.5)
        return outcome(instruments, platform, folder / "p.db"), last_seq


def _heard(platform: Platform) -> bool:
    return len(platform.messages) > 5


@pytest.mark.fault(
    row=27,
    fault="broker killed after its PUBACK, with all its memory",
    injected="mosquitto that saves nothing, kill -9 again and again while receipts are held back",
    holds="nothing lost end to end: what has no receipt is sent again",
)
async def test_a_broker_killed_after_its_puback_loses_nothing_end_to_end(
    tmp_path: Path, figure: Figure
) -> None:
    found, last_seq = await killed_after_puback(tmp_path, "receipt")
    assert found.lost == 0, str(found)
    figure(f"4 kills, {last_seq} batches by then: {found}")


@pytest.mark.fault(
    row=27,
    fault='the same, with settle = "puback"',
    injected="the same",
    holds="loses what the broker had: what README says of puback, and that the test above would see it",
)
async def test_settled_by_puback_the_same_kills_do_lose(tmp_path: Path, figure: Figure) -> None:
    found, last_seq = await killed_after_puback(tmp_path, "puback")
    assert found.lost > 0, str(found)
    figure(f"4 kills, {last_seq} batches by then: {found}")
