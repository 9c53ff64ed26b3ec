"""A fleet on one machine: gateways, one mosquitto, consumers, PostgreSQL; and what has to be true of it at the end."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from daemon.archive import Archive
from tests.system.running import Program, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.postgres import Postgres


class Consumer(Program):
    """One process of hardware_sim/consumer.py."""

    def __init__(
        self, name: str, folder: Path, broker: int, conninfo: str, *options: str, scheme: str = "mqtt"
    ) -> None:
        command = [sys.executable, "-m", "hardware_sim.consumer", f"--broker={scheme}://127.0.0.1:{broker}"]
        command += ["--database", conninfo, "--client-id", name, *options]
        super().__init__(command, folder / f"{name}.log")

    async def start(self) -> None:
        before = self.log.read_text().count("connected") if self.log.exists() else 0
        await super().start()
        await self.ready(
            lambda: self.log.read_text().count("connected") > before, "the consumer is connected"
        )


class Gateways(Program):
    """A process of tests/system/gateways.py."""

    def __init__(self, folder: Path, first: int, count: int, broker: int, **options: float) -> None:
        self.folder, self.first, self.count = folder, first, count
        command = [sys.executable, "-m", "tests.system.gateways", str(folder), f"--first={first}"]
        command += [f"--count={count}", f"--broker={broker}"]
        command += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        super().__init__(command, folder / f"gateways-{first}.log")

    def progress(self) -> dict[str, Any]:
        """What it said last."""
        said = [
            line for line in self.log.read_text().splitlines() if line.startswith("{") and line.endswith("}")
        ]
        last: dict[str, Any] = json.loads(said[-1]) if said else {"settled": 0, "samples": 0}
        return last

    def signal_end(self) -> None:
        """No more samples; it ends when all is settled."""
        self.send(signal.SIGUSR1)

    async def settled(self, within_s: float = 60.0) -> dict[str, Any]:
        """End the sampling, wait until everything is settled; what it says at its end."""
        self.signal_end()
        await until(lambda: self.progress().get("done"), f"all settled: {self.log}", within_s)
        assert await self.wait() == 0
        return self.progress()

    def batches(self) -> dict[tuple[str, str, int], str]:
        """(gateway, stream, seq) -> SHA-256 of every batch in its stores."""
        kept = {}
        for n in range(self.first, self.first + self.count):
            name = f"g{n:04}"
            with Archive(self.folder / name / "spool.db") as archive:
                for batch in archive.batches():
                    stream = json.loads(batch.payload)["stream"]
                    kept[name, stream, batch.seq] = batch.hash.hex()
        return kept


def assert_everything_once(postgres: Postgres, gateways: list[Gateways], readings: int) -> int:
    """What psql sees is what the stores hold, batch for batch and sample for sample; how many batches."""
    query = "SELECT gateway, stream, seq, encode(sha256, 'hex') FROM batch JOIN stream ON id = stream_id"
    stored = {(g, stream, int(seq)): sha for g, stream, seq, sha in postgres.psql(query)}
    committed = {key: sha for each in gateways for key, sha in each.batches().items()}
    assert stored == committed
    for table in ("fork", "hole", "chain_break", "refused"):
        assert postgres.psql(f"SELECT count(*) FROM {table}") == [["0"]], table
    # each channel counted its samples from 1: what is lost or doubled shows in the values
    query = (
        "SELECT gateway, channel FROM named_reading GROUP BY 1, 2 "
        "HAVING count(*) <> max(value) OR count(DISTINCT value) <> max(value) OR min(value) <> 1"
    )
    assert postgres.psql(query) == []
    samples = sum(each.progress()["samples"] for each in gateways)
    query = "SELECT count(*), count(DISTINCT channel_id) FROM reading"
    count = sum(each.count for each in gateways)
    assert postgres.psql(query) == [[str(samples * readings), str(count * readings)]]
    return len(stored)
