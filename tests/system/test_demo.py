"""The demo as a person starts it, and every surface that it names while it runs."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.system import payloads
from tests.system.running import ROOT, Program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)


def demo(folder: Path, scenario: str, seconds: int) -> Program:
    """`make demo SECONDS=... SCENARIO=...` in a folder of its own, so that nobody's build/run is touched."""
    (folder / "config").symlink_to(ROOT / "config")
    (folder / ".venv").symlink_to(sys.prefix)
    command = [sys.executable, "-m", "hardware_sim.demo", "--seconds", str(seconds), "--scenario", scenario]
    return Program(command, folder / "demo.log", {"PYTHONPATH": str(ROOT)}, folder)


async def named(program: Program, what: str) -> str:
    """What the demo names beside `what` when it begins."""

    def look() -> re.Match[str] | None:
        return re.search(rf"^  {what} +(.+)$", program.log.read_text(), re.MULTILINE)

    found: re.Match[str] = await program.ready(look, f"the line {what!r}", 40)
    return found[1]


async def said(command: str, cwd: Path) -> tuple[int, str]:
    """A command line as it was shown, done by a shell."""
    process = await asyncio.create_subprocess_shell(
        command,
        stdout=asyncio.subprocess.PIPE,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    out, _ = await process.communicate()
    return await process.wait(), out.decode()


def summary(program: Program) -> dict[str, str]:
    _, _, end = program.log.read_text().partition("\nsummary\n")
    return {name.strip(): value for name, value in re.findall(r"^  (.{30}) (.+)$", end, re.MULTILINE)}


@pytest.mark.peer
async def test_the_storm_loses_nothing_and_shows_what_it_promises(tmp_path: Path) -> None:
    if shutil.which("mosquitto_sub") is None:
        pytest.skip("mosquitto_sub is not installed: apt-get install mosquitto-clients")
    async with demo(tmp_path, "storm", 30) as program:
        listen = await named(program, "listen in")
        code, lines = await said(f"{listen} -C 12 -W 20", tmp_path)
        page = await asyncio.to_thread(urllib.request.urlopen, await named(program, "metrics"), None, 5)
        with page:
            assert b"pondwatch_pond_level" in page.read()
        await program.ready(lambda: ">> yellow" in program.log.read_text(), "a yellow alarm", 30)
        asked, listed = await said(await named(program, "ask it"), tmp_path)
        assert await program.wait() == 0, program.last_words()
    assert asked == 1  # the book has open alarms
    assert "\nyellow" in listed
    assert code == 0
    seen = [line.partition(" ") for line in lines.splitlines()]
    kinds = [topic.removeprefix("pondwatch/1/demo/gw1/") for topic, _, _ in seen]
    assert {"status", "readings"} <= set(kinds)
    for kind, (_, _, payload) in zip(kinds, seen, strict=True):
        if kind != "receipts":
            payloads.read(kind, payload.encode())

    end = summary(program)
    polled, channels = re.findall(r"\d+", end["polled"])
    assert polled == channels
    assert (end["lost"], end["repeats after de-duplication"], end["holes or breaks in the chain"]) == (
        "0",
    ) * 3
    assert end["worst level"] in ("yellow", "orange", "red")


async def test_a_calm_day_raises_no_alarm(tmp_path: Path) -> None:
    async with demo(tmp_path, "calm", 12) as program:
        assert await program.wait() == 0, program.last_words()
    end = summary(program)
    assert (end["lost"], end["worst level"], end["alarms open"]) == ("0", "none", "none")
    assert ">>" not in program.log.read_text()
