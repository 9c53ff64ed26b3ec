"""Many gateways in one process: the daemon's own writer, store, sealer and MQTT uplink, with counters as instruments.

    python -m tests.system.gateways FOLDER --first 0 --count 50 --broker 1883 --every 2 --readings 20

What is left out is what does not matter to who receives: lines, levels, rules, metrics. Each channel counts its own
samples from 1, so a value names its sample. SIGUSR1 ends the sampling; the process ends when all is settled.
A line of JSON a second says how far it is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from daemon.audit import Audit
from daemon.clock import Clock
from daemon.config import File, SiteTable, StoreTable, UplinkTable
from daemon.reading import ReadingFrame, rfc3339
from daemon.sealer import Sealer
from daemon.spool import Spool
from daemon.uplink.mqtt import MqttUplink, Status
from daemon.writer import Writer
from drivers.sample import Quality

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from daemon.config import Site

SITE = "fleet"


@dataclass(frozen=True)
class Load:
    """What each gateway does."""

    broker: int
    every_s: float
    readings: int
    receipt_deadline_s: float
    backlog: int  # batches that are there before the uplink begins


class Gateway:
    """One store and all that stands around it."""

    def __init__(self, name: str, spool: Spool, folder: Path, load: Load) -> None:
        self.spool = spool
        self.samples = 0
        self._load = load
        site = cast(
            "Site",
            File(
                site=SiteTable(id=SITE, gateway=name, mode="test"),
                store=StoreTable(path=str(folder), linger_s=0.0),
            ),
        )
        self._clock = Clock()
        self.writer = Writer(spool, self._clock, site, {}, lambda _: None)
        status = Status("test", "0", "boot", spool.stream, "0" * 64, rfc3339(self._clock.wall_ns()))
        table = UplinkTable(
            id="fleet",
            kind="mqtt",
            url=f"mqtt://127.0.0.1:{load.broker}",
            settle="receipt",
            receipt_deadline_s=load.receipt_deadline_s,
        )
        self.uplink = MqttUplink(table, SITE, name, spool, status, self._clock, reconnect_most_s=2.0)
        audit = Audit(self.writer, self._clock, site)
        self.sealer = Sealer(spool, self._clock, audit, folder, "test", self.uplink.seal)
        self._channels = [f"c{n:03}" for n in range(load.readings)]

    async def filled(self) -> None:
        """Commit the backlog."""
        for _ in range(self._load.backlog):
            self._sample()
            seq = self.spool.last_seq
            while self.spool.last_seq == seq:
                await asyncio.sleep(0.001)

    async def sampling(self, stopped: asyncio.Event, begin_s: float) -> None:
        """A frame each period, the gateways of a fleet spread over it."""
        loop = asyncio.get_running_loop()
        next_s = loop.time() + begin_s
        while not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_s):
                    await stopped.wait()
            if not stopped.is_set():
                self._sample()
            next_s += self._load.every_s

    def _sample(self) -> None:
        self.samples += 1
        count = len(self._channels)
        now_ns = self._clock.wall_ns()
        good = bytes([int(Quality.GOOD)]) * count
        raws = [{f"d.{channel}": float(self.samples)} for channel in self._channels]
        values = [float(self.samples)] * count
        mono_ns = self._clock.monotonic_ns()
        self.writer.put(
            ReadingFrame(self._channels, ["kPa"] * count, now_ns, now_ns, mono_ns, values, good, raws)
        )


@contextlib.asynccontextmanager
async def gateway(name: str, folder: Path, load: Load) -> AsyncIterator[Gateway]:
    async with Spool.open(folder, "test", "boot") as spool:
        yield Gateway(name, spool, folder, load)


async def run(folder: Path, names: list[str], load: Load) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stopped.set)
    async with contextlib.AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(gateway(name, folder / name, load)) for name in names]
        async with asyncio.TaskGroup() as group:
            writing = [group.create_task(each.writer.run()) for each in gateways]
            sealing = [group.create_task(each.sealer.run()) for each in gateways]
            await asyncio.gather(*(each.filled() for each in gateways))
            if load.backlog:
                print("filled", flush=True)
                while not (folder / "go").exists():
                    await asyncio.sleep(0.01)
            sending = [group.create_task(each.uplink.run()) for each in gateways]
            telling = group.create_task(tell(gateways))
            if load.every_s:
                count = len(gateways)
                await asyncio.gather(
                    *(each.sampling(stopped, load.every_s * n / count) for n, each in enumerate(gateways))
                )
            for each in gateways:
                each.writer.stop()
            await asyncio.gather(*writing)
            for each in gateways:
                await each.sealer.finish()
            while any([(await each.uplink.unsettled()).batches for each in gateways]):
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)  # the last seals are on their way: nobody receipts them
            for task in (*sealing, *sending, telling):
                task.cancel()
        print(json.dumps({**progress(gateways), "done": True}), flush=True)


def progress(gateways: list[Gateway]) -> dict[str, int]:
    counters = [each.uplink.counters for each in gateways]
    return {
        "samples": sum(each.samples for each in gateways),
        "committed": sum(each.spool.last_seq for each in gateways),
        "settled": sum(each.settled for each in counters),
        "sent": sum(each.sent for each in counters),
        "resent": sum(each.resent for each in counters),
        "rejected": sum(each.rejected for each in counters),
    }


async def tell(gateways: list[Gateway]) -> None:
    while True:
        print(json.dumps(progress(gateways)), flush=True)
        await asyncio.sleep(1.0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name, what in (("first", int), ("count", int), ("broker", int), ("readings", int)):
        parser.add_argument(f"--{name}", type=what, required=True)
    parser.add_argument("--every", type=float, default=0.0)
    parser.add_argument("--backlog", type=int, default=0)
    parser.add_argument("--receipt-deadline", type=float, default=5.0)
    options = parser.parse_args()
    names = [f"g{n:04}" for n in range(options.first, options.first + options.count)]
    load = Load(options.broker, options.every, options.readings, options.receipt_deadline, options.backlog)
    asyncio.run(run(options.folder, names, load))


if __name__ == "__main__":
    main()
