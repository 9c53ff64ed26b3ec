"""The promise that no other test shows on the whole: levels and sirens need neither disk, network nor detectors."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[1]
SPEED = "240"  # the storm reaches orange after about 25 bench minutes
WITHIN_S = 40.0
RUN = Path("build/run")


@contextmanager
def program(folder: Path, *arguments: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """`python -m ...` in `folder`; ended at the latest with the test."""
    child = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def said(child: subprocess.Popen[str], words: str) -> None:
    """Wait until the daemon's log has `words`; pytest's timeout bounds it."""
    assert child.stderr is not None
    lines = []
    for line in child.stderr:
        lines.append(line)
        if words in line:
            return
    raise AssertionError(f"it ended without saying {words!r}:\n{''.join(lines)}")


def siren_sounds(folder: Path) -> bool:
    """Whether the contact is closed, asked of the bench and not of the daemon."""
    with socket.socket(socket.AF_UNIX) as bench:
        bench.connect(str(folder / RUN / "bench.sock"))
        bench.sendall(b'{"do": "relays"}\n')
        closed: list[bool] = json.loads(bench.makefile().readline())["closed"]
    return closed[0]


def site_without_network_and_detectors(facts: Mapping[str, Any]) -> str:
    """The demo's site on the bench's ports; nobody listens where its uplink leads."""
    text = (ROOT / "config/demo.toml").read_text()
    for written, ours in (
        ("127.0.0.1:15020", facts["lines"]["weather"]),
        ("127.0.0.1:18830", "127.0.0.1:1"),
        ("127.0.0.1:9464", "127.0.0.1:0"),
        ('start = "child"', 'start = "off"'),
    ):
        assert written in text
        text = text.replace(written, ours)
    return text


def test_the_siren_is_switched_while_disk_network_and_rules_are_away(tmp_path: Path) -> None:
    (tmp_path / RUN).mkdir(parents=True)
    facts_file, site = tmp_path / RUN / "bench.json", tmp_path / "site.toml"
    with ExitStack() as stack:
        bench = ["hardware_sim", "storm", "--run-dir", str(RUN), "--speed", SPEED]
        stack.enter_context(program(tmp_path, *bench, environment={}))
        deadline_s = time.monotonic() + WITHIN_S
        while not facts_file.exists():
            assert time.monotonic() < deadline_s, "the bench did not start"
            time.sleep(0.02)
        facts = json.loads(facts_file.read_text())
        site.write_text(site_without_network_and_detectors(facts))
        daemon = stack.enter_context(
            program(
                tmp_path,
                *("daemon.commands", "--config", str(site), "run"),
                environment={"PONDWATCH_RUN": str(RUN), "PONDWATCH_BENCH_CLOCK": facts["clock"]},
            )
        )
        said(daemon, "output siren-n is off, read back")
        # From now on no write to any file succeeds: the kernel answers EFBIG.
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (0, 0))
        said(daemon, "the store cannot be used")
        assert not siren_sounds(tmp_path), "the disk was gone before the level was reached"
        said(daemon, "output siren-n is on, read back")
        assert siren_sounds(tmp_path)
