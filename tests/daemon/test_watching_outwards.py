"""The recipes of docs/watching.md for sites without inbound access, done with the programs that they name."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import ssl
import subprocess
import urllib.parse
import urllib.request
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from daemon.metrics import Endpoint, Metrics
from hardware_sim.ports import free_port
from tests.daemon.test_mqtt_peer import certificate
from tests.system.running import PATH, ROOT, Program, listens, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PROMETHEUS = shutil.which("prometheus", path=PATH)
PROMTOOL = shutil.which("promtool", path=PATH)
NODE_EXPORTER = shutil.which("prometheus-node-exporter", path=PATH)
CURL = shutil.which("curl", path=PATH)
ANALYZE = shutil.which("systemd-analyze", path=PATH)
RECIPES = (ROOT / "docs/watching.md").read_text().partition("## Sites without inbound access")[2]
URL, AT_HOME = "https://metrics.example/api/v1/write", "127.0.0.1:9464"
PLACE = "/var/lib/prometheus/node-exporter"
pytestmark = pytest.mark.peer


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", RECIPES, re.DOTALL)


def swapped(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def metrics() -> AsyncIterator[str]:
    """The core's own page of metrics; its host and port."""
    listen = f"127.0.0.1:{free_port()}"
    page = Metrics("0.1.0", "abc")
    page.readings.labels("rs485-1", "radar1", "good").inc(42)
    task = asyncio.create_task(Endpoint(listen, page, list, lambda: True).run())
    try:
        await until(lambda: listens(int(listen.rpartition(":")[2])), "the page")
        yield listen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Receiver(Program):
    """A Prometheus at the company that takes what is pushed, from whoever shows a certificate of its authority."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        for name, issuer in (("ca", None), ("server", "ca"), ("gw1", "ca")):
            certificate(name, folder, issuer, server=name == "server")
        (folder / "web.yml").write_text(
            "tls_server_config:\n"
            f"  cert_file: {folder}/server.pem\n  key_file: {folder}/server.key\n"
            f"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {folder}/ca.pem\n"
        )
        (folder / "nothing.yml").write_text("scrape_configs: []\n")
        self._tls = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        self._tls.load_cert_chain(folder / "gw1.pem", folder / "gw1.key")
        words = [
            f"--config.file={folder}/nothing.yml",
            f"--web.config.file={folder}/web.yml",
            f"--storage.tsdb.path={folder}/received",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--web.enable-remote-write-receiver",
        ]
        super().__init__([str(PROMETHEUS), *words], folder / "receiver.log")

    async def start(self) -> None:
        await super().start()
        await self.ready(lambda: listens(self.port), "the receiver")

    def query(self, promql: str) -> list[dict[str, Any]]:
        words = urllib.parse.urlencode({"query": promql})
        url = f"https://127.0.0.1:{self.port}/api/v1/query?{words}"
        with urllib.request.urlopen(url, timeout=5, context=self._tls) as reply:
            found: list[dict[str, Any]] = json.load(reply)["data"]["result"]
        return found


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed: apt-get install prometheus")
async def test_the_remote_write_recipe_carries_the_page_to_a_prometheus_that_asks_for_certificates(
    tmp_path: Path,
) -> None:
    (recipe,) = blocks("yaml")
    (tmp_path / "as-it-is.yml").write_text(recipe)
    words = [str(PROMTOOL), "check", "config", "--agent", "--syntax-only", str(tmp_path / "as-it-is.yml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    async with metrics() as listen, Receiver(tmp_path) as receiver:
        config = tmp_path / "agent.yml"
        config.write_text(
            swapped(
                recipe,
                (URL, f"https://127.0.0.1:{receiver.port}/api/v1/write"),
                (AT_HOME, listen),
                ("scrape_interval: 60s", "scrape_interval: 1s"),
                ("tls_config: { ", f"tls_config: {{ ca_file: {tmp_path}/ca.pem, "),
                ("/etc/pondwatch/gw1", f"{tmp_path}/gw1"),
            )
        )
        agent = [
            str(PROMETHEUS),
            "--enable-feature=agent",
            f"--config.file={config}",
            f"--storage.agent.path={tmp_path}/agent",
            f"--web.listen-address=127.0.0.1:{free_port()}",
        ]
        async with Program(agent, tmp_path / "agent.log"):
            asked = 'pondwatch_readings_total{gateway="gw1", device="radar1"}'
            (series,) = await until(lambda: asyncio.to_thread(receiver.query, asked), "what was pushed")
            assert series["value"][1] == "42"
            (up,) = await until(lambda: asyncio.to_thread(receiver.query, 'up{gateway="gw1"}'), "and `up`")
            assert up["value"][1] == "1"


@pytest.mark.skipif(
    NODE_EXPORTER is None or CURL is None,
    reason="a program is not installed: apt-get install prometheus-node-exporter curl",
)
async def test_the_textfile_recipe_puts_the_page_beside_the_node_exporters_own(tmp_path: Path) -> None:
    service, _ = blocks("ini")
    port = free_port()
    exporter = [
        str(NODE_EXPORTER),
        "--collector.disable-defaults",
        "--collector.textfile",
        f"--collector.textfile.directory={tmp_path}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    async with metrics() as listen, Program(exporter, tmp_path / "exporter.log") as running:
        for command in re.findall(r"^ExecStart=(.*)$", service, re.MULTILINE):
            words = shlex.split(command.replace(AT_HOME, listen).replace(PLACE, str(tmp_path)))
            done = await asyncio.create_subprocess_exec(*words)
            assert await done.wait() == 0, words
        await running.ready(lambda: listens(port), "the node exporter")
        asked = f"http://127.0.0.1:{port}/metrics"
        with await asyncio.to_thread(urllib.request.urlopen, asked, timeout=10) as reply:
            page = reply.read().decode()
    assert 'pondwatch_readings_total{device="radar1",line="rs485-1",quality="good"} 42' in page
    assert "node_textfile_scrape_error 0" in page
    (file,) = re.findall(r'node_textfile_mtime_seconds\{file="(.*?)"\}', page)
    assert re.fullmatch(re.findall(r'file=~"(.*?)"', RECIPES)[0], file)  # what the page's alert asks for


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed: apt-get install systemd")
def test_the_timer_and_its_service_are_understood_by_systemd(tmp_path: Path) -> None:
    for name, text in zip(("service", "timer"), blocks("ini"), strict=True):
        assert text.startswith(f"# /etc/systemd/system/pondwatch-textfile.{name}\n")
        (tmp_path / f"pondwatch-textfile.{name}").write_text(text)
    words = [str(ANALYZE), "verify", str(tmp_path / "pondwatch-textfile.timer")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    ours = [line for line in done.stderr.splitlines() if "pondwatch" in line]
    assert not ours
