"""A gateway: the package in a container, and the bench beside it, on pseudo-terminals and loopback there."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.package.container import ROOT, Container, until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PYTHON = "/opt/pondwatch/venv/bin/python3"
CORE = "pondwatch.service"
RULES = "pondwatch-rules.service"
PAGE = "pondwatch-page.service"
PAGE_PORT = 9465
STORE = "/var/lib/pondwatch"
SITE = "/etc/pondwatch/site.toml"
_GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
_ASK = "import json, socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('/run/bench/bench.sock'); s.sendall(sys.argv[1].encode() + b'\\n'); print(s.makefile().readline())"


class Gateway(Container):
    def __init__(self, lower: Path, folder: Path, given: Mapping[Path, str]) -> None:
        super().__init__(lower, folder, given)
        self.facts: dict[str, Any] = {}

    def start_bench(self, speed: float = 60.0) -> None:
        """It runs as the gateway's user: a pseudo-terminal belongs to who opened it. Once is enough."""
        if self.facts:
            return
        unit = [
            "systemd-run",
            "--unit=bench",
            "--property=User=pondwatch",
            "--property=RuntimeDirectory=bench",
        ]
        self.run(
            *unit,
            PYTHON,
            "-I",
            "-m",
            "hardware_sim",
            "calm",
            "--run-dir",
            "/run/bench",
            "--speed",
            str(speed),
        )
        self.facts = json.loads(until(lambda: self.run("cat", "/run/bench/bench.json").stdout, "bench.json"))

    def clock(self) -> datetime:
        """What the core's clock shows."""
        rate, _, epoch = str(self.facts["clock"]).partition("@")
        return datetime.fromtimestamp(float(epoch) + (time.time() - float(epoch)) * float(rate), UTC)

    def bench(self, do: str, **request: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(
            self.run(PYTHON, "-c", _ASK, json.dumps({"do": do, **request})).stdout
        )
        assert "error" not in answer, answer
        return answer

    def site(self) -> str:
        """config/demo.toml with the addresses of this bench and the places of a gateway."""
        text = (ROOT / "config" / "demo.toml").read_text()
        for written, here in (
            ('path = "build/run/store"', 'path = "/var/lib/pondwatch"'),
            ("build/run/", "/run/bench/"),
            ("127.0.0.1:15020", self.facts["lines"]["weather"]),
            ("127.0.0.1:18830", self.facts["platform"]),
            ('start = "child"', 'start = "unit"'),
        ):
            assert written in text, f"config/demo.toml no longer has {written}"
            text = text.replace(written, here)
        return text

    def drop_in(self, *lines: str, unit: str = CORE) -> None:
        """What `systemctl edit` would write, until the container ends."""
        name = re.sub(r"\W.*", "", lines[0])
        text = "\n".join(("[Service]", *lines, ""))
        self.run("mkdir", "--parents", f"/run/systemd/system/{unit}.d")
        self.write(f"/run/systemd/system/{unit}.d/{name}.conf", text)
        self.run("systemctl", "daemon-reload")

    def pid(self, unit: str = CORE) -> int:
        return int(self.property(unit, "MainPID"))

    def get(self, url: str) -> str:
        return self.run(PYTHON, "-c", _GET, url).stdout

    def gauge(self, name: str) -> float:
        """The sum of all samples called `name`; raises while nobody answers."""
        page = self.get("http://127.0.0.1:9464/metrics")
        found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
        return sum(map(float, found))

    def polls(self) -> None:
        """Wait until a reading comes in that was not there before."""
        before = until(lambda: self.gauge("pondwatch_readings_total") + 1, "metrics")
        until(lambda: self.gauge("pondwatch_readings_total") + 1 > before, "another reading")

    def version(self) -> str:
        page = self.get("http://127.0.0.1:9464/metrics")
        (found,) = re.findall(r'^pondwatch_build_info{version="(.*)"} ', page, re.MULTILINE)
        return str(found)

    def stream(self) -> tuple[str, int]:
        """Name of the chain and its length, from the store's file."""
        said = self.run("pondwatch", "spool", "status").stdout
        (name, length), *_ = re.findall(r"^stream (\w+), .*?(\d+) batches written", said, re.MULTILINE)
        return name, int(length)
