"""Every alert rule that is shipped fires in a real Prometheus, from a fault on the bench; on a healthy one none does.

The bench's clock is fast, and an hour of an operations centre would be an hour here. So Prometheus is given a copy of
config/prometheus/ in which each `for:` is divided by the clock's rate, and nothing else is changed: expressions,
thresholds and windows are the shipped ones.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.daemon.test_mqtt_peer import certificate
from tests.daemon.test_watching import RULES, alerts
from tests.system.running import Bench, Daemon, Program, demo_site, until
from tests.system.test_mosquitto import MOSQUITTO, Mosquitto
from tests.system.test_prometheus import PROMETHEUS, QUOTA_EXCEEDED, Prometheus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

SPEED = 120
DISK_BYTES = 1_050_000_000  # of memory, and little of it is ever taken
TAKEN_BYTES = 80_000_000  # by somebody else: less than a gigabyte is left
GATEWAY_KEY = "gw1"

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed: apt-get install prometheus"),
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto"),
    pytest.mark.skipif(
        os.geteuid() != 0, reason="not root: the store's disk is a tmpfs of its own, mounted here"
    ),
    pytest.mark.timeout(300),
]


class Scene(NamedTuple):
    """What runs, and can be harmed."""

    bench: Bench
    daemon: Daemon
    rules: Program
    broker: Mosquitto
    site: Path
    disk: Path


# -- faults: each makes the rules beside it fire, for just what is named -----------------------------


async def refuse(scene: Scene) -> None:
    await scene.bench.ask("platform", refuse=QUOTA_EXCEEDED)


async def be_away(scene: Scene) -> None:
    await scene.bench.ask("platform", refuse=0, away_s=3600)


async def lose_a_gauge(scene: Scene) -> None:
    await scene.bench.ask("fault", target="rs485-1/192", fault="silent")


async def lose_the_piezometers(scene: Scene) -> None:
    """Each attempt takes the line for as long as the logger may take."""
    await scene.bench.ask("fault", target="rs485-1/1", fault="silent")


async def raise_the_pond(scene: Scene) -> None:
    await scene.bench.ask("fault", target="weather/2", fault="drift 20")


async def hang_the_rules(scene: Scene) -> None:
    scene.rules.send(signal.SIGSTOP)


async def take_the_disk(scene: Scene) -> None:
    with (scene.disk / "somebody-elses").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, TAKEN_BYTES)


async def kill_the_rules(scene: Scene) -> None:
    await scene.rules.kill()


async def refuse_every_write(scene: Scene) -> None:
    await scene.bench.ask("fault", target="gateway", fault="disk_full")


async def let_the_day_end(scene: Scene) -> None:
    """The wall clock is set to a minute after the end of the alarms' day; the receiver knows better."""
    await scene.bench.ask("fault", target="gateway", fault="none")
    await scene.daemon.shows("pondwatch_spool_durable", lambda durable: durable == 1)
    days = {datetime.fromisoformat(each["due"]) for each in await scene.daemon.ask("alarms.list")}
    rate, _, epoch = str(scene.bench.facts["clock"]).partition("@")
    left_s = max(days).timestamp() - (float(epoch) + (time.time() - float(epoch)) * float(rate))
    await scene.bench.ask("fault", target="gateway", fault=f"clock_step {left_s + 60:.0f}")


async def end_the_core(scene: Scene) -> None:
    await scene.daemon.kill()


async def come_back_poorer(scene: Scene) -> None:
    """Another disk, far smaller, and empty; the certificate was renewed by somebody for too short a time."""
    for file in scene.daemon.store.glob("spool.db*"):
        file.unlink()
    certificate(GATEWAY_KEY, scene.broker.folder, "ca", lasting=timedelta(days=29))
    text = scene.site.read_text()
    scene.site.write_text(text.replace("[store]\n", '[store]\nmax_size = "16 MB"\n'))
    await scene.bench.ask("fault", target="gateway", fault="none")
    await scene.daemon.start()


# What happens at once; within each, fault -> rule -> a label that tells whom it is about.
STEPS: list[dict[Callable[[Scene], Awaitable[None]], dict[str, dict[str, str]]]] = [
    {refuse: {"PondwatchUplinkRejects": {"uplink": "company"}}},
    {
        be_away: {
            "PondwatchUplinkAway": {"uplink": "company"},
            "PondwatchBacklogOld": {"uplink": "company"},
        },
        lose_a_gauge: {
            "PondwatchDeviceSilent": {"device": "rain1"},
            "PondwatchChannelStale": {"channel": "n.rain.depth"},
        },
        lose_the_piezometers: {
            "PondwatchSectionBlind": {"section": "2-2"},
            "PondwatchLineOverrun": {"line": "rs485-1"},
        },
        raise_the_pond: {"PondwatchPondLevel": {"pond": "n"}},
        hang_the_rules: {"PondwatchRulesLag": {}},
        take_the_disk: {"PondwatchDiskLow": {}},
    },
    {
        kill_the_rules: {"PondwatchRulesDown": {}},
        refuse_every_write: {"PondwatchStoreInMemory": {}},
    },
    {let_the_day_end: {"PondwatchAlarmOverdue": {}, "PondwatchClockNotTrusted": {}}},
    {end_the_core: {"PondwatchDown": {}}},
    {
        come_back_poorer: {
            "PondwatchGap": {"reason": "store-lost"},
            "PondwatchDaysLeft": {},
            "PondwatchChannelNeverSeen": {"channel": "n.rain.depth"},
            "PondwatchCertificateExpires": {"uplink": "authority"},
        }
    },
]
EXPECTED = {rule: labels for step in STEPS for rules in step.values() for rule, labels in rules.items()}


def test_every_rule_has_a_fault_here() -> None:
    assert sorted(EXPECTED) == sorted(alerts())


# -- what runs ---------------------------------------------------------------------------------------


def hastened(rules: str) -> str:
    """The rules with every `for:` divided by the clock's rate."""

    def shorter(found: re.Match[str]) -> str:
        unit_ms = {"s": 1000, "m": 60_000, "h": 3_600_000}[found[3]]
        return f"{found[1]}{int(found[2]) * unit_ms // SPEED}ms"

    text, count = re.subn(r"^( +for: )(\d+)([smh])$", shorter, rules, flags=re.MULTILINE)
    assert count == len(alerts())
    return text


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, under the store and nothing else."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def written(run: Path, bench: Bench, broker: Mosquitto, disk: Path) -> Path:
    """The demo site, every two minutes instead of each, with an uplink by certificate beside its own."""
    second = (
        f'\n[[uplink]]\nid = "authority"\nkind = "mqtt"\nurl = "mqtts://127.0.0.1:{broker.port}"\nsettle = "puback"\n'
        + "".join(
            f'{key} = "{broker.folder}/{name}"\n'
            for key, name in (
                ("ca", "ca.pem"),
                ("certificate", f"{GATEWAY_KEY}.pem"),
                ("key", f"{GATEWAY_KEY}.key"),
            )
        )
    )
    return demo_site(
        run,
        bench,
        ('every = "1 min"', 'every = "2 min"'),
        (f'path = "{run}/store"', f'path = "{disk}/store"'),
        ('start = "child"', 'start = "unit"'),
        ('name = "2-2断面"', 'name = "2-2断面"\nlive_at_least = 3'),
        ('receipt_deadline = "30 s"', f'receipt_deadline = "30 s"\n{second}'),
    )


@asynccontextmanager
async def on_stage(folder: Path, disk: Path) -> AsyncIterator[Scene]:
    run = folder / "run"
    async with Mosquitto(folder / "broker") as broker, Bench(run, "calm", SPEED) as bench:
        certificate(GATEWAY_KEY, broker.folder, "ca", lasting=timedelta(days=365))
        site = written(run, bench, broker, disk)
        places = {
            "PONDWATCH_RUN": str(run),
            "STATE_DIRECTORY": str(folder / "rules"),
            "CACHE_DIRECTORY": str(folder / "kernels"),
        }
        command = [sys.executable, "-m", "daemon.commands", "--config", str(site), "rules"]
        daemon = Daemon(site, run, bench.facts["clock"], PONDWATCH_BENCH_STEP=bench.facts["clock_step"])
        async with Program(command, folder / "rules.log", places) as rules, subscriber(broker), daemon:
            await daemon.shows("pondwatch_rules_up", lambda up: up == 1)
            yield Scene(bench, daemon, rules, broker, site, disk)


def subscriber(broker: Mosquitto) -> Program:
    """Without one the broker says that what it was given reached nobody, which settles nothing."""
    own = [f"{broker.folder}/{name}" for name in ("ca.pem", "platform.pem", "platform.key")]
    tls = ["--cafile", own[0], "--cert", own[1], "--key", own[2]]
    reach = ["-V", "mqttv5", "-h", "127.0.0.1", "-p", str(broker.port), "-t", "pondwatch/1/#", "-q", "1"]
    return Program(["mosquitto_sub", *reach, *tls, "-F", "%t"], broker.folder / "subscriber.log")


async def firing(prometheus: Prometheus, rule: str, labels: dict[str, str]) -> list[dict[str, Any]]:
    matchers = "".join(f',{name}="{value}"' for name, value in labels.items())
    return await prometheus.query(f'ALERTS{{alertname="{rule}",alertstate="firing"{matchers}}}')


async def test_each_fires_from_its_fault_and_none_before(tmp_path: Path, disk: Path) -> None:
    async with (
        on_stage(tmp_path, disk) as scene,
        Prometheus(tmp_path / "prometheus", scene.daemon.listen, hastened(RULES.read_text())) as prometheus,
    ):
        await healthy(prometheus)
        for step in STEPS:
            fired = {rule: labels for rules in step.values() for rule, labels in rules.items()}
            for rule, labels in fired.items():
                assert not await firing(prometheus, rule, labels), f"{rule} fires before its fault"
            for harm in step:
                await harm(scene)
            for rule, labels in fired.items():
                await until(partial(firing, prometheus, rule, labels), f"{rule} fires for {labels}", 90)


async def healthy(prometheus: Prometheus) -> None:
    """For so many seconds no rule even begins to hold; none has fired since the first scrape."""

    async def calm() -> bool:
        return not await prometheus.query("max_over_time(ALERTS[8s])")

    await until(lambda: prometheus.query("count_over_time(up[8s]) >= 8"), "Prometheus has looked for a while")
    await until(calm, "no rule holds")
    assert not await prometheus.query('max_over_time(ALERTS{alertstate="firing"}[1h])')
