"""The wall clock steps, or is not there at the start: polls, order and count go on, and times can be put right."""

from __future__ import annotations

import asyncio
import json
import mmap
import shutil
import struct
import subprocess
import time
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hardware_sim.platform import Platform
from hardware_sim.receiver import Receiver
from tests.fault.way import Instruments, settled, site_file, uplink
from tests.system.running import Batch, Daemon, received, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import Figure

NS = 1_000_000_000
EVERY_S = 0.2
CC = shutil.which("cc")

pytestmark = [
    pytest.mark.skipif(
        CC is None, reason="no C compiler for the shim that moves the wall clock: apt-get install gcc"
    ),
    pytest.mark.timeout(90),
]


class Wall:
    """The daemon's wall clock, ahead of this machine's by what the test says."""

    def __init__(self, folder: Path) -> None:
        source, self._shim = Path(__file__).with_name("wall.c"), folder / "wall.so"
        assert CC is not None
        subprocess.run([CC, "-O1", "-shared", "-fPIC", "-o", str(self._shim), str(source)], check=True)
        self._path = folder / "wall"
        self._path.write_bytes(bytes(8))
        self._file = self._path.open("r+b")
        self._page = mmap.mmap(self._file.fileno(), 8)
        self.ahead_ns = 0

    def set(self, ahead_s: float) -> float:
        """Step it; by how many seconds it stepped."""
        before, self.ahead_ns = self.ahead_ns, int(ahead_s * NS)
        self._page[:8] = struct.pack("<q", self.ahead_ns)
        return (self.ahead_ns - before) / NS

    def until(self, moment: datetime) -> float:
        return self.set(moment.timestamp() - time.time())

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._shim), "WALL_FILE": str(self._path)}

    def close(self) -> None:
        self._page.close()
        self._file.close()


@asynccontextmanager
async def gateway(folder: Path, wall: Wall) -> AsyncIterator[tuple[Daemon, Instruments]]:
    """A daemon under the shim, with one instrument and a platform that keeps everything."""
    receiver = Receiver(folder / "p.db")
    async with AsyncExitStack() as stack:
        stack.callback(wall.close)
        stack.callback(receiver.close)
        instruments = await stack.enter_async_context(Instruments(1).serving())
        platform = await stack.enter_async_context(Platform(receiver))
        port = int(platform.address.rpartition(":")[2])
        site = site_file(
            folder, instruments, uplink("up", port), every=f"{EVERY_S * 1000:g} ms", answer="100 ms"
        )
        daemon = await stack.enter_async_context(Daemon(site, folder, "", **wall.environment))
        yield daemon, instruments
        await until(lambda: settled(daemon), "all is settled")
        assert await daemon.stop() == 0
        summary = receiver.summary()
        assert (summary.holes, summary.chain_breaks, summary.forks, summary.malformed) == (0, 0, 0, 0)
        assert (summary.seal_findings, summary.repeats) == ([], 0)


def rebased(batches: list[Batch]) -> list[tuple[float, float, str]]:
    """(time as a platform puts it right, value, quality) of the first tag, in order of the chain.

    The rule of docs/time.md: to a reading's time add the offsets of all `clock` records that come after it.
    """
    payloads = [(batch.kind, json.loads(batch.payload)) for batch in batches]
    offsets_s = 0.0
    found: list[tuple[float, float, str]] = []
    for kind, payload in reversed(payloads):
        if kind == "audit" and payload["what"] == "clock":
            offsets_s += payload["offset_ms"] / 1000
        elif kind == "readings":
            rows = [reading for reading in payload["readings"] if reading["channel"] == "u1.c1"]
            found += [_row(reading, offsets_s) for reading in reversed(rows)]
    return found[::-1]


def _row(reading: dict[str, Any], offset_s: float) -> tuple[float, float, str]:
    value = -1.0 if reading["value"] is None else reading["value"]
    return datetime.fromisoformat(reading["time"]).timestamp() + offset_s, value, reading["quality"]


# How far ahead of the truth, and whether it is trusted then: a step out of 1970 is somebody setting the clock.
STEPS = {
    "+30 d": (30 * 86_400.0, 0),
    "-2 h": (-7_200.0, 0),
    "1970": (-time.time() + 60.0, 0),
    "2038": (datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC).timestamp() - time.time(), 1),
    "back": (0.0, 0),
}


@pytest.mark.fault(
    row=17,
    fault="the wall clock steps by +30 d, -2 h, to 1970, to 2038 and back",
    injected="LD_PRELOAD shim over CLOCK_REALTIME, five steps while a device is polled every 200 ms",
    holds="no poll missed or doubled, seqs and order go on, each step recorded in its place with its offset",
)
async def test_steps_of_years_either_way_lose_double_and_reorder_nothing(
    tmp_path: Path, figure: Figure
) -> None:
    wall = Wall(tmp_path)
    steps = []
    async with gateway(tmp_path, wall) as (daemon, instruments):
        await asyncio.sleep(1.0)
        assert await daemon.gauge("pondwatch_clock_trusted") == 1
        for ahead_s, trusted in STEPS.values():
            steps.append(wall.set(ahead_s))
            await asyncio.sleep(1.5)
            assert await daemon.gauge("pondwatch_clock_trusted") == trusted
        began_s, ended_s = instruments.asked_s[0], instruments.asked_s[-1]
    batches = received(tmp_path / "p.db")
    assert [batch.seq for batch in batches] == list(range(1, len(batches) + 1))
    records = [json.loads(batch.payload) for batch in batches if batch.kind == "audit"]
    recorded = [record["offset_ms"] / 1000 for record in records if record["what"] == "clock"]
    assert recorded == pytest.approx(steps, abs=0.05)

    rows = rebased(batches)
    values = [value for _, value, quality in rows if not quality.startswith("bad")]
    assert values == sorted(set(values))  # none twice, none out of order, by the instrument's own count
    gaps_s = [b - a for (a, _, _), (b, _, _) in pairwise(rows)]
    assert all(0 < gap_s < 2.5 * EVERY_S for gap_s in gaps_s), max(gaps_s)
    polled_s = [b - a for a, b in pairwise(instruments.asked_s)]
    assert max(polled_s) < 2.5 * EVERY_S  # the instrument never waited
    ticks = round((ended_s - began_s) / EVERY_S)
    assert abs(len(instruments.asked_s) - 1 - ticks) <= 2
    assert len(rows) >= len(instruments.asked_s) - 1
    figure(
        f"{len(steps)} steps, {len(rows)} readings, none missed, longest wait of the instrument "
        f"{max(polled_s) * 1000:.0f} ms of {EVERY_S * 1000:.0f}"
    )


@pytest.mark.fault(
    row=18,
    fault="start without time, set later",
    injected="the same shim: the daemon starts in 1970, the clock is set while it runs",
    holds="readings are uncertain:clock until then; put right by the record they are within 1 s of the truth",
)
async def test_what_was_recorded_before_the_clock_was_set_can_be_put_right_to_a_second(
    tmp_path: Path, figure: Figure
) -> None:
    wall = Wall(tmp_path)
    wall.until(datetime(1970, 1, 1, 0, 0, 9, tzinfo=UTC))
    async with gateway(tmp_path, wall) as (daemon, instruments):
        await asyncio.sleep(1.5)
        assert await daemon.gauge("pondwatch_clock_trusted") == 0
        assert not (await daemon.ask("status"))["clock"]["trusted"]
        wall.set(0.0)
        await asyncio.sleep(1.5)
        assert await daemon.gauge("pondwatch_clock_trusted") == 1
    truth_s = time.time() - time.monotonic()
    rows = rebased(received(tmp_path / "p.db"))
    before = [row for row in rows if row[2] == "uncertain:clock"]
    after = [row for row in rows if row[2] == "good"]
    assert len(before) >= 5
    assert len(after) >= 5
    assert rows == before + after
    asked = dict(enumerate(instruments.asked_s, 1))
    errors_s = [abs(when_s - (truth_s + asked[round(value)])) for when_s, value, _ in rows]
    assert max(errors_s) < 1.0
    figure(f"{len(before)} readings of 1970 put right, largest error {max(errors_s) * 1000:.0f} ms")
