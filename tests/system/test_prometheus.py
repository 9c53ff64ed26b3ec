"""A real Prometheus scrapes the whole daemon; asked over its own API, it knows every documented metric."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from hardware_sim.ports import free_port
from tests.system.running import PATH, Bench, Daemon, Program, demo_site, readings, until

if TYPE_CHECKING:
    from pathlib import Path

PROMETHEUS = shutil.which("prometheus", path=PATH)
PROMTOOL = shutil.which("promtool", path=PATH)
QUOTA_EXCEEDED = 0x97  # MQTT 5.0, 3.4.2.1
OF_PROMETHEUS = {"__name__", "job", "instance"}

# Name -> its labels, as documented; of a histogram, its count.
DOCUMENTED = {
    "pondwatch_readings_total": {"line", "device", "quality"},
    "pondwatch_poll_seconds_count": {"line"},
    "pondwatch_poll_overruns_total": {"line"},
    "pondwatch_line_busy_ratio": {"line"},
    "pondwatch_device_up": {"line", "device"},
    "pondwatch_device_errors_total": {"line", "device", "reason"},
    "pondwatch_channel_value": {"pond", "item", "channel", "unit"},
    "pondwatch_channel_age_seconds": {"channel"},
    "pondwatch_channel_level": {"channel"},
    "pondwatch_channel_period_seconds": {"channel"},
    "pondwatch_section_blind": {"pond", "section"},
    "pondwatch_certificate_expires_timestamp_seconds": {"uplink"},
    "pondwatch_disk_free_bytes": set(),
    "pondwatch_item_level": {"pond", "item"},
    "pondwatch_pond_level": {"pond"},
    "pondwatch_alarms_open": {"level", "response"},
    "pondwatch_alarms_overdue": set(),
    "pondwatch_spool_bytes": set(),
    "pondwatch_spool_unsettled_batches": {"uplink"},
    "pondwatch_spool_oldest_unsettled_seconds": {"uplink"},
    "pondwatch_spool_days_left": set(),
    "pondwatch_commit_seconds_count": set(),
    "pondwatch_uplink_connected": {"uplink"},
    "pondwatch_uplink_rejected_total": {"uplink"},
    "pondwatch_rules_up": set(),
    "pondwatch_rules_lag_seconds": set(),
    "pondwatch_clock_trusted": set(),
    "pondwatch_gaps_total": {"reason"},
    "pondwatch_build_info": {"version"},
    "pondwatch_config_info": {"sha256"},
    "pondwatch_spool_durable": set(),  # beyond what was agreed: batches in memory alone are worth an alert
}
IN_TIME = {
    "pondwatch_spool_days_left": "said once the disk has filled for a while, which it may not yet have"
}
NOT_YET = {
    "pondwatch_certificate_expires_timestamp_seconds": "the demo's uplink has no certificate",
}

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed: apt-get install prometheus"),
    pytest.mark.timeout(240),
]


class Prometheus(Program):
    """Scrapes one target and evaluates `rules` every second, with a storage of its own."""

    def __init__(self, folder: Path, target: str, rules: str = "groups: []\n") -> None:
        folder.mkdir()
        self.port = free_port()
        config = folder / "prometheus.yml"
        (folder / "rules.yml").write_text(rules)
        config.write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            "rule_files: [rules.yml]\n"
            f"scrape_configs: [{{job_name: pondwatch, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        options = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
        listen = f"--web.listen-address=127.0.0.1:{self.port}"
        super().__init__([str(PROMETHEUS), *options, listen], folder / "prometheus.log")

    async def start(self) -> None:
        await super().start()
        await self.ready(lambda: self.query("up"), "its first scrape")

    async def knows(self, name: str) -> list[dict[str, Any]]:
        """The series of that name, as soon as there is one."""
        found: list[dict[str, Any]] = await until(lambda: self.query(name), f"{name} in Prometheus")
        return found

    async def query(self, promql: str) -> list[dict[str, Any]]:
        """The instant vector of an expression."""
        words = urllib.parse.urlencode({"query": promql})
        answer = await asyncio.to_thread(_get, f"http://127.0.0.1:{self.port}/api/v1/query?{words}")
        assert answer["status"] == "success"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as reply:
        return json.load(reply)


async def lose_the_store(daemon: Daemon) -> None:
    """A daemon that ran, and whose disk forgot: what comes next is announced as a gap."""
    await until(daemon.batches, "something committed")
    await daemon.kill()
    for file in daemon.store.glob("spool.db*"):
        file.unlink()
    await daemon.start()


def counted(value: float) -> bool:
    return value > 0


async def have_trouble(bench: Bench, daemon: Daemon) -> None:
    """A silent device, a platform that refuses, and a daemon that is not let run for some polls."""
    await bench.ask("fault", target="rs485-1/192", fault="silent")
    await bench.ask("platform", refuse=QUOTA_EXCEEDED)
    await daemon.shows("pondwatch_device_errors_total", counted)
    await daemon.shows("pondwatch_uplink_rejected_total", counted)
    await bench.ask("fault", target="rs485-1/192", fault="none")
    await bench.ask("platform", refuse=0)
    daemon.send(signal.SIGSTOP)
    await asyncio.sleep(3)  # three of the bench's minutes
    daemon.send(signal.SIGCONT)
    await daemon.shows("pondwatch_poll_overruns_total", counted)
    await daemon.shows("pondwatch_alarms_open", counted)


async def test_prometheus_knows_every_metric_that_is_documented(tmp_path: Path) -> None:
    run = tmp_path / "run"
    async with (
        Bench(run, "storm", 60) as bench,
        Daemon(demo_site(run, bench), run, bench.facts["clock"]) as daemon,
    ):
        await lose_the_store(daemon)
        async with Prometheus(tmp_path / "prometheus", daemon.listen) as prometheus:
            await have_trouble(bench, daemon)
            for name, labels in DOCUMENTED.items():
                if name in IN_TIME:
                    continue
                if name in NOT_YET:
                    assert not await prometheus.query(name), f"{name} is there now: take it from NOT_YET"
                    continue
                found = await prometheus.knows(name)
                assert {frozenset(each["metric"].keys() - OF_PROMETHEUS) for each in found} == {
                    frozenset(labels)
                }
            up = await prometheus.knows("up == 1")
            assert [each["metric"]["job"] for each in up] == ["pondwatch"]
            names = {
                each["metric"]["__name__"] for each in await prometheus.query('{__name__=~"pondwatch_.+"}')
            }
            (level,) = await prometheus.knows('pondwatch_channel_value{channel="n.pond.level"}')
        stored = [each["value"] for each in readings(daemon.batches(), "n.pond.level")]
        text = await daemon.page()
    seen, sure = ({_family(name) for name in some} for some in (names, DOCUMENTED.keys() - NOT_YET.keys()))
    assert seen | set(IN_TIME) == sure
    assert float(level["value"][1]) in stored
    if PROMTOOL is not None:
        await checked_by_promtool(text)


def _family(name: str) -> str:
    """What a series belongs to; the library adds when a counter was made, under the name without _total."""
    for suffix in ("_bucket", "_sum", "_count", "_created", "_total"):
        name = name.removesuffix(suffix)
    return name


async def checked_by_promtool(text: str) -> None:
    """No complaint, but that people are told of days in days: the name was agreed with whom it concerns."""
    text = "".join(line for line in text.splitlines(keepends=True) if "pondwatch_spool_days_left" not in line)
    tool = await asyncio.create_subprocess_exec(
        str(PROMTOOL), "check", "metrics", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, said = await tool.communicate(text.encode())
    assert (tool.returncode, said.decode()) == (0, "")
