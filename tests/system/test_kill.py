"""kill -9 in the middle of a storm, again and again: what was committed is kept, and everything goes on."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from daemon.config import Site
from tests.naive import LevelTwin
from tests.system.running import (
    Bench,
    Daemon,
    assert_no_poll_was_missed,
    demo_site,
    readings,
    received,
    rows,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

    from edge_rules.law.levels import Levels
    from tests.system.running import Batch

LEVELS = ("none", "blue", "yellow", "orange", "red")
RAIN_ENDS_S = 56 * 60.0  # of the bench's storm
KILLS = 6

pytestmark = pytest.mark.timeout(300)


def holds_under_way(daemon: Daemon) -> int:
    """How many levels are being held at the moment, as the store has it."""
    states = rows(daemon.store / "spool.db", "SELECT body FROM state WHERE name LIKE 'level:%'")
    sides = [side for (body,) in states for side in json.loads(body)[2:]]
    return sum(since is not None for side in sides for since in side[2:])


async def killed_again_and_again(bench: Bench, daemon: Daemon) -> tuple[dict[int, str], int]:
    """Until the rain ends; seq -> hash of all that was committed at a kill, and the holds cut through."""
    committed: dict[int, str] = {}
    holds = 0
    moments = random.Random(5)
    for n in range(KILLS):
        await asyncio.sleep(moments.uniform(0.2, 3.0))
        if n >= KILLS // 2:
            await until(lambda: holds_under_way(daemon), "a level that is being held")
        await daemon.kill()
        committed |= {batch.seq: batch.sha256 for batch in daemon.batches()}
        holds += holds_under_way(daemon)
        open_then = {alarm for (alarm,) in rows(daemon.store / "spool.db", "SELECT id FROM alarm")}
        await daemon.start()
        assert open_then <= {alarm["id"] for alarm in await daemon.ask("alarms.list")}
    await until(lambda: bench.now_s() > RAIN_ENDS_S, "the end of the rain", 60)
    dry = len(readings(daemon.batches(), "n.rain.depth"))
    await until(lambda: len(readings(daemon.batches(), "n.rain.depth")) > dry + 1, "rain read after its end")
    return committed, holds


def alarm_ids(stored: list[Batch]) -> dict[str, set[str]]:
    """Subject -> the ids under which its alarm was reported."""
    ids = defaultdict(set)
    for batch in stored:
        if batch.kind == "alarms":
            alarm = json.loads(batch.payload)["id"]
            ids[alarm.rpartition(":")[0]].add(alarm)
    return ids


def told(stored: list[Batch], channel: str) -> list[tuple[str, str]]:
    """(time, level) of each change of a channel's level, as its alarm reports it."""
    moves = [("", "none")]
    alarms = (json.loads(batch.payload) for batch in stored if batch.kind == "alarms")
    for alarm in alarms:
        ours = (alarm["kind"], alarm["channel"]) == ("channel", channel)
        if ours and alarm["level"] != moves[-1][1]:
            moves.append((alarm["time"], alarm["level"]))
    return moves[1:]


def judged_again(stored: list[Batch], channel: str, levels: Levels) -> list[tuple[str, str]]:
    """The same from the stored readings alone, by a judge that was never interrupted."""
    limits = {n: limit for n, name in enumerate(LEVELS) if n and (limit := getattr(levels, name)) is not None}
    twin = LevelTwin(levels.rising, limits, levels.hysteresis, round(levels.hold_s * 1e9))
    moves: list[tuple[str, str]] = []
    for reading in readings(stored, channel):
        if reading["value"] is not None:
            time_ns = round(datetime.fromisoformat(reading["time"]).timestamp() * 1000) * 1_000_000
            change = twin.judge(time_ns, reading["value"], certain=reading["quality"] == "good")
            held = bool(moves) and moves[-1][1] == "red"  # red stays: nobody closes it here
            if change is not None and not held:
                moves.append((reading["time"], LEVELS[change[1]]))
    return moves


async def test_kill_9_in_a_storm_loses_nothing_and_the_alarms_holds_and_rain_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    platform = run / "platform.db"
    outage = ("--platform-store", str(platform), "--platform-outage", "9:5")
    async with Bench(run, "storm", 120, *outage) as bench:
        site = demo_site(run, bench)
        # No multiple of the period, so that the payload's milliseconds decide as the judge's nanoseconds do.
        site.write_text(re.sub(r'hold = "(\d) min"', r'hold = "\1.5 min"', site.read_text()))
        async with Daemon(site, run, bench.facts["clock"]) as daemon:
            committed, holds = await killed_again_and_again(bench, daemon)
            assert await daemon.stop() == 0
            truth = await bench.ask("truth")
            summary = await bench.ask("summary")
            code, said = await daemon.verb("spool", "verify")
        stored = daemon.batches()

    assert (code, said.splitlines()[0]) == (0, f"{len(stored)} batches, whole up to {len(stored)}")
    assert [batch.seq for batch in stored] == list(range(1, len(stored) + 1))
    assert committed.items() <= {batch.seq: batch.sha256 for batch in stored}.items()
    assert received(platform) == stored
    wrong = ("holes", "forks", "chain_breaks", "unverified", "malformed")
    assert {name: summary[name] for name in wrong} == dict.fromkeys(wrong, 0)

    assert holds > 0
    assert all(len(ids) == 1 for ids in alarm_ids(stored).values())
    armed = {channel.id: channel.levels for channel in Site.load(site).channels if channel.levels}
    moves = {channel: told(stored, channel) for channel in armed}
    assert moves == {channel: judged_again(stored, channel, levels) for channel, levels in armed.items()}
    assert sum(map(len, moves.values())) >= 8

    mm_per_tip = bench.facts["rain_mm_per_tip"]
    tips = int(truth["rain_mm"] / mm_per_tip)
    rain = readings(stored, "n.rain.depth")
    counted = sum(each["value"] for each in rain if each["value"] is not None) / mm_per_tip
    assert rain[-1]["raw"] == {"rain1.tips": tips}
    assert counted == pytest.approx(tips, abs=1e-6)
    assert tips > 100


def up(value: float) -> bool:
    return value == 1


async def test_the_rules_process_killed_or_hung_costs_the_core_no_poll_and_catches_up(tmp_path: Path) -> None:
    run = tmp_path / "run"
    async with Bench(run, "calm", 60) as bench:
        async with Daemon(demo_site(run, bench), run, bench.facts["clock"]) as daemon:
            await daemon.shows("pondwatch_rules_up", up)
            first = daemon.rules_pid()
            assert first is not None
            os.kill(first, signal.SIGKILL)
            await until(lambda: daemon.rules_pid() not in (None, first), "another rules process")
            await daemon.shows("pondwatch_rules_up", up)

            second = daemon.rules_pid()
            assert second is not None
            os.kill(second, signal.SIGSTOP)
            try:
                await daemon.shows("pondwatch_rules_lag_seconds", lambda lag_s: lag_s > 400)  # over six ticks
                assert await daemon.page("/healthz") == "ok\n"
            finally:
                os.kill(second, signal.SIGCONT)
            await daemon.shows("pondwatch_rules_lag_seconds", lambda lag_s: lag_s < 30)
            assert daemon.rules_pid() == second
            assert await daemon.stop() == 0
        assert_no_poll_was_missed(daemon.batches())
