"""A scenario run against the real daemon, faster than real time: which alarms reached the platform."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

from hardware_sim.scenario import Scenario
from tests.system.running import ROOT, Bench, Daemon, demo_site

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OUTAGES_FIT = 60.0  # the speed at which [[outage]], in real seconds, falls where it belongs
LEVELS = ("none", "blue", "yellow", "orange", "red")


def expected(name: str) -> dict[str, str]:
    """Subject -> worst level, as the scenario says."""
    expect = Scenario.load(name).expect
    assert expect is not None
    return {alarm.subject: alarm.level for alarm in expect.alarms}


def worst(alarms: list[dict[str, Any]]) -> dict[str, str]:
    """Subject -> the worst level its alarm ever had; a subject is an id without its instant."""
    found: dict[str, str] = {}
    for alarm in alarms:
        subject = alarm["id"].rpartition(":")[0]
        found[subject] = max(found.get(subject, "none"), alarm["level"], key=LEVELS.index)
    return found


async def outcome(run_dir: Path, name: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Run a shipped scenario to its end on the demo site; the alarms the platform received.

    On the way: nothing was lost, whatever happened.
    """
    scenario = Scenario.load(name)
    expect = scenario.expect
    assert expect is not None
    sooner = OUTAGES_FIT / expect.speed
    outages = [f"{outage.begin_s * sooner}:{outage.length_s * sooner}" for outage in scenario.outage]
    options = [option for outage in outages for option in ("--platform-outage", outage)]
    async with Bench(run_dir, name, expect.speed, *options) as bench:
        site = demo_site(
            run_dir,
            bench,
            ('every = "1 min"', f'every = "{expect.every}"'),
            ('receipt_deadline = "30 s"', 'receipt_deadline = "3 s"'),  # real; the rest runs faster too
        )
        async with Daemon(site, run_dir, bench.facts["clock"], **(environment or {})) as daemon:
            await asyncio.sleep((expect.after_min * 60.0 - bench.now_s()) / expect.speed)
            await daemon.shows("pondwatch_spool_unsettled_batches", lambda batches: batches <= 1)
            summary = await bench.ask("summary")
    assert (summary["holes"], summary["forks"], summary["chain_breaks"], summary["malformed"]) == (0, 0, 0, 0)
    assert summary["readings"] > expect.after_min / 10.0
    return worst(summary["alarms"])


def tree_with(folder: Path, profile: str, *changes: tuple[str, str]) -> dict[str, str]:
    """An environment in which the daemon runs with one shipped profile changed, all else as it is."""
    shutil.copytree(ROOT / "drivers", folder / "drivers", ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("daemon", "edge_rules"):
        (folder / package).symlink_to(ROOT / package)
    changed = folder / "drivers" / "profiles" / f"{profile}.toml"
    text = changed.read_text()
    for old, new in changes:
        assert old in text, f"{profile} no longer has {old}"
        text = text.replace(old, new)
    changed.write_text(text)
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
