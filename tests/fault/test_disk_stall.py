"""Row 15 with the whole core: a file system that takes no write for seconds, or for a minute."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.fault.test_core_starved import polled
from tests.fault.test_power_cut_ext4 import mounted, run
from tests.fault.way import settled
from tests.system.running import Daemon, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Figure

EVERY_S = 0.2  # a poll


async def frozen(folder: Path, seconds: float) -> str:
    """The core polls, judges and feeds its watchdog while its disk stands still; afterwards nothing lacks."""
    if os.geteuid() != 0 or shutil.which("fsfreeze") is None or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root, fsfreeze and mkfs.ext4")
    image, store = folder / "image", folder / "store"
    image.write_bytes(bytes(32 << 20))
    run("mkfs.ext4", "-q", "-F", image)
    try:
        disk = mounted(image, store, "-o", "loop")
        disk.__enter__()
    except OSError as error:
        pytest.skip(f"no disk of our own can be made here: {error}")
    try:
        async with AsyncExitStack() as stack:
            instruments, receiver, site, manager = await stack.enter_async_context(polled(folder))
            core = await stack.enter_async_context(Daemon(site, folder, **manager.environment()))
            await until(lambda: receiver.summary().received > 5, "all is well")
            fed, polls, began_s = manager.hear(), instruments.polls[1], time.monotonic()
            run("fsfreeze", "--freeze", store)
            try:
                await until(
                    lambda: manager.hear() > fed and time.monotonic() > began_s + seconds,
                    "the stall lasts and the watchdog is fed",
                    seconds + 60,
                )
                ills = (await core.ask("status"))["ills"]
            finally:
                run("fsfreeze", "--unfreeze", store)
            ended_s, polls = time.monotonic(), instruments.polls[1] - polls
            fed = manager.hear() - fed
            await until(lambda: settled(core), "all is settled")
            assert await core.stop() == 0
            stored = [json.loads(b.payload)["readings"] for b in core.batches() if b.kind == "readings"]
        summary = receiver.summary()
    finally:
        disk.__exit__(None, None, None)
    took_s = ended_s - began_s
    values = [r["value"] for readings in stored for r in readings if r["channel"] == "u1.c1"]
    assert set(range(1, instruments.polls[1])) <= set(values)
    assert (summary.holes, summary.forks, summary.chain_breaks, summary.gaps) == (0, 0, 0, 0)
    assert polls > took_s / EVERY_S / 2, f"{polls} polls in {took_s:.1f} s"
    assert fed > took_s / 4, f"fed {fed} times in {took_s:.1f} s"  # it is due every second
    asked = [s for s in instruments.asked_s if began_s <= s <= ended_s]
    longest_s = max(b - a for a, b in pairwise(asked))
    said = [ill for ill in ills if "commit hangs" in ill]
    return (
        f"{took_s:.0f} s without a write: {polls} polls, {longest_s * 1000:.0f} ms at most between two, watchdog fed "
        f"{fed} times, {said[0] if said else 'nothing said yet'}; 0 readings lost"
    )


@pytest.mark.fault(
    row=15,
    fault="the file system takes no write for seconds",
    injected="fsfreeze of a real ext4 under the store of a running core, a poll every 200 ms",
    holds="polls go on, the watchdog is fed, all that was read is committed afterwards",
)
async def test_a_disk_that_stands_still_for_seconds_stops_no_poll_and_loses_nothing(
    tmp_path: Path, figure: Figure
) -> None:
    figure(await frozen(tmp_path, 3.0))


@pytest.mark.campaign
@pytest.mark.fault(
    row=15, fault="the same for a minute", injected="as above", holds="as above; /healthz says so meanwhile"
)
async def test_a_disk_that_stands_still_for_a_minute_stops_no_poll_and_loses_nothing(
    tmp_path: Path, figure: Figure
) -> None:
    figure(await frozen(tmp_path, 62.0))
