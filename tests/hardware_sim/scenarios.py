"""A scenario run against the real daemon, faster than real time: which alarms reached the platform."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

from hardware_sim.scenario import Expect, Scenario
from tests.system.running import ROOT, Bench, Daemon, demo_site, until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OUTAGES_FIT = 60.0  # the speed at which [[outage]], in real seconds, falls where it belongs
HOURS_A_SECOND = 3600.0  # from this speed on, what the machine pauses is hours to the instruments


def expected(name: str) -> dict[str, str]:
    """Subject -> worst level, as the scenario says."""
    expect = Scenario.load(name).expect
    assert expect is not None
    return {alarm.subject: alarm.level for alarm in expect.alarms}


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
            *_site(expect),
            ('receipt_deadline = "30 s"', 'receipt_deadline = "3 s"'),  # real; the rest runs faster too
        )
        async with Daemon(site, run_dir, bench.facts["clock"], **(environment or {})) as daemon:
            await asyncio.sleep((expect.after_min * 60.0 - bench.now_s()) / expect.speed)
            if any(
                alarm.subject.startswith("advice:") for alarm in expect.alarms
            ):  # on a busy machine it is late
                await daemon.shows("pondwatch_rules_up", bool)
                await daemon.shows("pondwatch_rules_lag_seconds", lambda lag_s: lag_s < 2.0 * expect.speed)
            await daemon.shows("pondwatch_spool_unsettled_batches", lambda batches: batches <= 1)
            summary = await until(lambda: _whole(bench), "what the platform has is whole")
    assert (summary["forks"], summary["chain_breaks"], summary["malformed"]) == (0, 0, 0)
    assert summary["readings"] > expect.after_min / 20.0
    worst: dict[str, str] = summary["worst"]
    return worst


async def _whole(bench: Bench) -> dict[str, Any] | None:
    """The platform's summary at a moment at which nothing is under way past something else."""
    summary = await bench.ask("summary")
    return None if summary["holes"] else summary


def _site(expect: Expect) -> list[tuple[str, str]]:
    """What of the demo site is otherwise in the run.

    Beyond `HOURS_A_SECOND` a pause of the machine by half a second lasts for hours at the pond, and nothing may
    hang on whether a reply came a millisecond later: deadlines on wires, which are real, allow for a pause, and
    periods are as long as one. The rain gauge alone is read each hour, and each of its readings counts once. The
    GNSS unit is reduced once a day and stands in a pond of its own: its own levels hold as ever, but no warning
    of the other pond, nor its rain, has it read each half hour.
    """
    if expect.speed <= HOURS_A_SECOND:
        return [('every = "1 min"', f'every = "{expect.every}"')]
    patience = '"\ntimeout = "3 s"\nslowest_reply = "3 s"'
    return [
        ("\ntimeout = ", "\n# "),
        ("\nslowest_reply = ", "\n# "),
        ('every = "1 min"\nbaseline', 'every = "1 d"\nbaseline'),
        ('unit = 192\nevery = "1 min"', 'unit = 192\nevery = "1 h' + patience),
        ('window = "1 h"', 'window = "30 min"'),
        ('every = "1 min"', f'every = "{expect.every}{patience}'),
        ('every = "10 min"', f'every = "{expect.every}{patience}'),
        ("[[section]]", '[[pond]]\nid = "bank"\nkind = "wet"\ngrade = 5\n\n[[section]]'),
        (
            'unit = "mm"\npond = "n"\nsection = "2-2"',
            'unit = "mm"\npond = "bank"',
        ),  # GNSS alone is in mm there
    ]


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
