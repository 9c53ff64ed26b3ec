"""docs/bench.md is held to the bench: its tables, its words, and its five minutes."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from hardware_sim.__main__ import _options
from hardware_sim.looks import LOOKS
from hardware_sim.scenario import Scenario, shipped
from tests.system.running import ROOT, Program, until

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (ROOT / "docs/bench.md").read_text()
COMMANDS = re.findall(r"^ *\$ (.+)$", PAGE, re.MULTILINE)


def rows(head: str) -> dict[str, str]:
    (text,) = re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return dict(re.findall(r"^\| `(.+?)` \| (.+) \|$", text, re.MULTILINE))


def test_the_tables_are_the_benchs_own() -> None:
    assert rows("fault") == {offer: look.looks_en for offer, look in LOOKS.items()}
    assert rows("scenario") == {name: Scenario.load(name).title for name in shipped()}


def test_what_is_to_be_pressed_is_written_so_on_the_page() -> None:
    words = (ROOT / "hardware_sim/page/words.js").read_text()
    words += (ROOT / "hardware_sim/page/places.py").read_text() + "".join(
        look.name_en for look in LOOKS.values()
    )
    pressed = re.findall(r"(?<!\*)\*([A-Za-z485 -]+)\*(?!\*)", PAGE)
    assert len(pressed) == 8
    for each in pressed:
        assert each in words


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(".venv/bin/pondwatch bench")])
def test_the_simulator_takes_every_command_of_the_page(command: str) -> None:
    _options(shlex.split(command)[2:])


def test_the_page_shows_commands_of_the_bench() -> None:
    assert sum(".venv/bin/pondwatch bench" in command for command in COMMANDS) == 4


@pytest.mark.timeout(120)
async def test_the_five_minutes_from_a_start_to_a_broken_wire_and_its_alarm(tmp_path: Path) -> None:
    async with demo(tmp_path) as program, aiohttp.ClientSession() as session:
        shown: re.Match[str] = await program.ready(
            lambda: re.search(r"look at it +(\S+)$", program.log.read_text(), re.MULTILINE), "the page", 40
        )
        page = shown[1]
        assert page.startswith("http://127.0.0.1:")

        async def press(path: str, **body: str) -> None:
            headers = {"Origin": page.rstrip("/")}
            async with session.post(page + path, data=json.dumps(body), headers=headers) as answer:
                assert answer.status == 204, await answer.text()

        await press("scenario", scenario="storm")
        await until(lambda: listed(tmp_path, lambda a: a["level"] == "blue"), "a blue level", 40)
        await press("fault", target="rs485-1", fault="cut")
        (fault, *_) = await until(lambda: listed(tmp_path, lambda a: a["kind"] == "fault"), "a fault", 20)
        assert re.search("vw1|rain1", fault["reason"]["en"])
        await press("ack", id=fault["id"], by="Li Na")
        (seen,) = listed(tmp_path, lambda a: a["id"] == fault["id"])
        assert (seen["response"], seen["by"]) == ("acknowledged", "Li Na")
        await press("fault", target="rs485-1", fault="none")
        await until(
            lambda: listed(tmp_path, lambda a: a["id"] == fault["id"] and a["condition"] == "gone"),
            "repaired",
            30,
        )
        program.send(signal.SIGINT)
        await asyncio.wait_for(program.wait(), 40)


def demo(folder: Path) -> Program:
    """The page's own `make demo ...`, on a free port and in a folder of its own."""
    (command,) = [c for c in COMMANDS if c.startswith("make demo")]
    command = re.sub(r"PAGE=\d+", "PAGE=0", command)
    recipe = subprocess.run(
        ["make", "--no-print-directory", "-n", *shlex.split(command)[1:]],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    (folder / "config").symlink_to(ROOT / "config")
    (folder / ".venv").symlink_to(sys.prefix)
    words = shlex.split(recipe.stdout.splitlines()[-1])
    return Program(words, folder / "demo.log", {"PYTHONPATH": str(ROOT)}, folder)


def listed(folder: Path, wanted: Any) -> list[dict[str, Any]]:
    """The open alarms as the page's last command lists them, for machines."""
    environment, _, command = next(c for c in COMMANDS if "alarms list" in c).partition(" ")
    name, _, value = environment.partition("=")
    program, *verb = shlex.split(command)
    answer = subprocess.run(
        [program, "--json", *verb],
        cwd=folder,
        env={name: value, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return [alarm for alarm in json.loads(answer.stdout) if wanted(alarm)]
