"""The pages for people are held to the program: what they show is run, loaded, decoded, counted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from daemon.alarms import Alarm
from daemon.batch import Gap
from daemon.clock import Clock
from daemon.commands import VERBS
from daemon.config import Site
from daemon.metrics import Metrics
from daemon.reading import Reading
from daemon.uplink.mqtt import Receipt, Status
from drivers import profile
from drivers.framing import RtuFraming
from drivers.line import Line
from drivers.modbus import ModbusDevice
from drivers.sample import Quality
from drivers.wire import SerialWire
from tests.drivers.rtu_server import Mode, RtuServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
EN, ZH = ((ROOT / name).read_text() for name in ("README.md", "README.zh-CN.md"))
PROFILE_PAGE = (ROOT / "docs/write-a-profile.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").rglob("*.md"))]
CHAIN = {"v", "mode", "stream", "seq", "prev"}


class Block(NamedTuple):
    language: str
    text: str


def blocks(page: str, language: str = "") -> list[Block]:
    """The fenced blocks of a page, or those of one language."""
    found = [Block(*b) for b in re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)]
    return [b for b in found if language in ("", b.language)]


def table(page: str, head: str) -> list[list[str]]:
    """The cells of the table whose first line begins with `head`."""
    (text,) = re.findall(rf"^\| {re.escape(head)}.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    rows = (line.strip("|").replace("\\|", "\0").split("|") for line in text.splitlines())
    return [[cell.strip().replace("\0", "|") for cell in row] for row in rows]


def quoted(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


# -- the two languages -------------------------------------------------------------------------------


def test_both_languages_have_the_same_headings_tables_and_blocks() -> None:
    assert [len(h) for h in re.findall(r"^(#+) ", EN, re.MULTILINE)] == [
        len(h) for h in re.findall(r"^(#+) ", ZH, re.MULTILINE)
    ]
    assert re.findall(r"^\|[-|]+$", EN, re.MULTILINE) == re.findall(r"^\|[-|]+$", ZH, re.MULTILINE)
    assert EN.count("\n|") == ZH.count("\n|")
    assert EN.count("\n- ") == ZH.count("\n- ")
    assert [b.language for b in blocks(EN)] == [b.language for b in blocks(ZH)]


@pytest.mark.parametrize("language", ["console", "json"])
def test_commands_and_samples_are_the_same_in_both_languages(language: str) -> None:
    assert blocks(EN, language) == blocks(ZH, language)


def test_site_files_differ_in_their_comments_only() -> None:
    en, zh = ([tomllib.loads(b.text) for b in blocks(page, "toml")] for page in (EN, ZH))
    assert en == zh


def test_both_languages_name_the_same_things() -> None:
    """Links, and what stands in backticks; the order may differ."""
    assert {*quoted(without_blocks(EN))} == {*quoted(without_blocks(ZH))}
    places = [{p for p in re.findall(r"\]\(([^)#]+)\)", page) if "README" not in p} for page in (EN, ZH)]
    assert places[0] == places[1]


def without_blocks(page: str) -> str:
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


# -- what is named is there --------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", without_blocks(page.read_text())):
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), target
        if anchor:
            assert anchor in {slug(h) for h in re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)}


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_and_its_variables_are_in_the_makefile(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"(?:^\$ |`)make ([^`|\n]+)", page.read_text(), re.MULTILINE):
        target, *settings = shlex.split(command)
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), command
        for name, _, value in (setting.partition("=") for setting in settings):
            assert f"$({name})" in makefile, command
            assert name != "ARGS" or value.startswith("--") or (ROOT / value).exists(), command


def test_every_promise_is_shown_by_tests_that_exist() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for promise, shown in ((row[0], row[1]) for row in table(EN, "promise")):
        named = [name for name in quoted(shown) if name.startswith("test_")]
        assert named, promise
        for name in named:
            assert f"def {name}(" in sources, name


def test_the_table_of_verbs_is_what_the_program_knows() -> None:
    assert [quoted(row[0])[0].split()[0] for row in table(EN, "verb")] == list(VERBS)


# -- site files --------------------------------------------------------------------------------------


def test_the_site_files_of_the_page_load(tmp_path: Path) -> None:
    small, piezometer = (b.text for b in blocks(EN, "toml"))
    for text, channels in ((small, 1), (small + piezometer, 3)):
        path = tmp_path / "site.toml"
        path.write_text(text)
        assert len(Site.load(path).channels) == channels


# -- MQTT --------------------------------------------------------------------------------------------


def samples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and payload of each JSON block; the kind is told by a member that only it has."""
    marks = {
        "readings": "readings",
        "settled": "receipts",
        "config_sha256": "status",
        "of": "gaps",
        "was": "alarms",
    }
    for block in blocks(EN, "json"):
        payload = json.loads(block.text)
        (kind,) = (kind for mark, kind in marks.items() if mark in payload)
        yield kind, payload


def documented() -> dict[str, set[str]]:
    """Kind -> the members that its payload has."""
    rows = {quoted(row[0])[0]: (row[1], set(quoted(row[2]))) for row in table(EN, "kind")}
    return {
        kind: members | (CHAIN if "in the chain" in way else {"v"}) for kind, (way, members) in rows.items()
    }


def test_every_kind_has_a_sample_with_exactly_the_documented_members() -> None:
    assert {kind: set(payload) for kind, payload in samples()} == documented()


def test_the_documented_members_are_those_the_program_writes() -> None:
    envelope, head = CHAIN, {"site", "gateway"}
    gap = json.loads(b"{%b}" % Gap("store-lost", "s", 1).draft(Clock()).body)
    status = json.loads(Status("real", "v", "b", "s", "c", "t").payload("online"))
    assert documented() == {
        "status": set(status),
        "readings": envelope | head | {"readings"},
        "alarms": envelope | head | {*Alarm.__struct_fields__},
        "gaps": envelope | set(gap) - head,
        "receipts": {"v", *Receipt.__struct_fields__},
    }
    (readings,) = (payload["readings"] for kind, payload in samples() if kind == "readings")
    assert all(tuple(reading) == Reading.__struct_fields__ for reading in readings)


def test_the_two_neighbours_on_the_page_form_the_chain() -> None:
    by_seq = {payload["seq"]: payload for kind, payload in samples() if kind in ("alarms", "readings")}
    first, second = (by_seq[seq] for seq in sorted(by_seq))
    exact_bytes = json.dumps(first, separators=(",", ":"), ensure_ascii=False).encode()
    assert second["prev"] == hashlib.sha256(exact_bytes).hexdigest()
    assert second["seq"] == first["seq"] + 1


# -- metrics and reasons -----------------------------------------------------------------------------


def metrics_rows() -> list[list[str]]:
    """The rows of the metrics table, from the code that declares them."""
    rows = []
    registry = Metrics("0", "0").registry
    for collector in registry._collector_to_names:
        families = [collector] if hasattr(collector, "_documentation") else list(collector.collect())
        for family in families:
            declared: Any = family
            name, text, kind = (
                getattr(declared, f"_{part}", None) or getattr(declared, part)
                for part in ("name", "documentation", "type")
            )
            labels = ", ".join(f"`{label}`" for label in declared._labelnames)
            shown = name + "_total" * (kind == "counter")
            rows.append([f"`{shown}`", labels, text + " (histogram)" * (kind == "histogram")])
    return rows


def test_the_table_of_metrics_is_what_the_code_declares() -> None:
    rows = metrics_rows()
    assert table(EN, "name") == rows, "\n".join(f"| {' | '.join(row)} |" for row in rows)


def test_the_chinese_table_of_metrics_has_the_same_names_and_labels() -> None:
    assert [row[:2] for row in table(ZH, "名称")] == [row[:2] for row in metrics_rows()]


def test_every_metric_shown_is_in_the_table() -> None:
    families = re.findall(r"^# TYPE (\S+) ", Metrics("0", "0").text().decode(), re.MULTILINE)
    shown = {name for name in families if not name.endswith("_created")}
    assert shown == {quoted(row[0])[0] for row in table(EN, "name")}


def test_the_page_of_reasons_is_the_closed_list() -> None:
    page = (ROOT / "docs/quality.md").read_text()
    assert [quoted(row[0])[0] for row in table(page, "quality")] == [quality.text for quality in Quality]


# -- the page about profiles -------------------------------------------------------------------------


class Stamps:
    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


def worked_profile() -> profile.Profile:
    text = blocks(PROFILE_PAGE, "toml")[0].text
    return profile.read_profile(text.encode(), tomllib.loads(text)["id"], "docs/write-a-profile.md")


async def test_the_worked_profile_asks_and_understands_as_its_golden_frames_say() -> None:
    worked = worked_profile()
    (proof,) = worked.proofs
    server = RtuServer()
    server.plan = lambda _request: [(0.0, proof.rx)]
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "rs485-1")
    await line.open()
    try:
        (frame,) = await ModbusDevice("d1", worked.compile("d1"), proof.unit, Stamps()).poll(line, 0)
    finally:
        line.close()
        server.close()
    assert server.requests == [proof.tx]
    assert dict(zip(frame.block.points, frame.values, strict=True)) == pytest.approx(dict(proof.expect))
    assert set(frame.qualities) == {Quality.GOOD}


def test_the_worked_profile_serves_a_site_once_it_lies_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, device = (b.text for b in blocks(PROFILE_PAGE, "toml"))
    (tmp_path / f"{worked_profile().id}.toml").write_text(text)
    monkeypatch.setattr(profile, "BUILT_IN", tmp_path)
    site = tmp_path / "site.toml"
    site.write_text('[site]\nid = "s"\ngateway = "g"\n[[pond]]\nid = "n"\n' + device)
    assert [d.profile for d in Site.load(site).devices] == [worked_profile().id]


def test_every_shipped_profile_that_the_page_points_to_shows_what_it_says() -> None:
    for row in table(PROFILE_PAGE, "the device"):
        key, example = quoted(row[1])[0], quoted(row[2])[0]
        text = (profile.BUILT_IN / f"{example}.toml").read_text()
        assert re.search(re.escape(key).replace(r"\.\.\.", ".*"), text), (key, example)


# -- the commands ------------------------------------------------------------------------------------


def transcript() -> list[tuple[str, list[str]]]:
    """Command -> the lines it is shown to print; `...` stands for any."""
    steps: list[tuple[str, list[str]]] = []
    for line in "".join(b.text for b in blocks(EN, "console")).splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        elif line.strip() not in ("...", ""):
            steps[-1][1].append(line)
    return steps


def shape(line: str) -> str:
    """A line without what differs from run to run: numbers, levels, how many there are of each, which items."""
    line = re.sub(r"\b(none|blue|yellow|orange|red)\b", "LEVEL", line)
    line = re.sub(r"[蓝黄橙红]色", "LEVEL", line)
    line = re.sub(r"items: ([\w-]+ LEVEL(, )?)+", "items: ITEMS", line)
    line = re.sub(r"\b(here|AWAY)\b", "PLACE", line)
    line = re.sub(r"\b[0-9A-F]{4}\b|[-+]?\d[\d.]*(e[-+]?\d+)?", "#", line)
    return re.sub(r"\s+", " ", re.sub(r"(# LEVEL(, )?)+", "COUNTS", line)).strip()


class Demo:
    """`make demo` in a folder of its own: its recipe as make gives it, faster and with an earlier outage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._out = folder / "demo.out"
        (folder / "config").symlink_to(ROOT / "config")
        (folder / ".venv").symlink_to(sys.prefix)
        storm = (ROOT / "hardware_sim/scenarios/storm.toml").read_text()
        for written, sooner in (("begin_s = 20.0", "begin_s = 2.0"), ("length_s = 20.0", "length_s = 4.0")):
            assert written in storm
            storm = storm.replace(written, sooner)
        (folder / "storm.toml").write_text(storm)
        self.environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
        self.environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def __enter__(self) -> Demo:
        make = ["make", "--no-print-directory", "-n", "demo", "SPEED=240", "SCENARIO=storm.toml"]
        recipe = subprocess.run(
            make, cwd=ROOT, env=self.environment, check=True, capture_output=True, text=True
        )
        with self._out.open("wb") as out:
            self._process = subprocess.Popen(
                shlex.split(recipe.stdout.splitlines()[-1]),
                cwd=self._folder,
                env=self.environment,
                stdout=out,
                stderr=out,
            )
        return self

    def __exit__(self, *_: object) -> None:
        """The demo ends its children itself; whatever still runs in this folder after that is ended here."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.ctrl_c()
        self._process.kill()
        self._process.wait()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # gone meanwhile, or another user's
                if (process / "cwd").readlink() == self._folder.resolve():
                    os.kill(int(process.name), signal.SIGKILL)

    def ctrl_c(self) -> int:
        """Its exit code; it may wait 20 s for receipts and 10 s for each of its children."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(45)

    @property
    def printed(self) -> str:
        return self._out.read_text()

    def until_printed(self, shapes: set[str]) -> None:
        self._until(lambda: shapes <= {shape(line) for line in self.printed.splitlines()}, f"{shapes}")

    def until_platform_is_back(self) -> None:
        away_and_here = re.compile("platform AWAY.*platform here", re.DOTALL)
        self._until(lambda: away_and_here.search(self.printed) is not None, away_and_here.pattern)

    def _until(self, seen: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + 40.0
        while not seen():
            assert self._process.poll() is None, self.printed
            assert time.monotonic() < deadline_s, f"not all printed: {what}\n{self.printed}"
            time.sleep(0.05)

    def run(self, command: str) -> list[str]:
        """What a command of the page prints here; of one that goes on for ever, the first line."""
        (port,) = re.findall(r"mosquitto_sub .* -p (\d+)", self.printed)
        words = shlex.split(self._with_open_alarms(re.sub(r"(?<=-p )\d+", port, command)))
        endless = words[0] == "mosquitto_sub" or "tail" in words
        child = subprocess.Popen(
            words,
            cwd=self._folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if not endless:
            out, err = child.communicate(timeout=20)
            assert not err, (command, err)
            return out.splitlines()
        assert child.stdout is not None
        line = child.stdout.readline()
        child.terminate()
        child.communicate()
        return [line]

    def _with_open_alarms(self, command: str) -> str:
        """Alarm ids name the instant they came; those on the page are taken for today's of the same subject."""
        found = re.search(r"\S+(?=:\d{8}T\S+Z)", command)
        if found is None:
            return command
        listed = json.loads(self.run(".venv/bin/pondwatch --json alarms list")[0])
        (today,) = (a["id"] for a in listed if a["id"].rpartition(":")[0] == found[0])
        return re.sub(r"\S+:\d{8}T\S+Z", today, command)


def test_every_command_of_the_page_prints_what_it_shows(tmp_path: Path) -> None:
    steps = transcript()
    (demo_shown,) = (shown for command, shown in steps if command.startswith("make demo"))
    running = {shape(line) for line in demo_shown[: demo_shown.index("summary")]}
    with Demo(tmp_path) as demo:
        demo.until_printed(running)
        demo.until_platform_is_back()
        for command, shown in steps:
            if command.startswith("make"):  # the demo is running; the tests are this
                continue
            if command.startswith("export "):
                demo.environment |= dict(word.split("=", 1) for word in shlex.split(command)[1:])
                continue
            if command.startswith("mosquitto_sub") and shutil.which("mosquitto_sub") is None:
                continue
            printed = demo.run(command)
            missing = {shape(line) for line in shown} - {shape(line) for line in printed}
            assert not missing, f"{command} prints\n" + "\n".join(printed)
            if command.startswith("mosquitto_sub"):
                assert printed[0].startswith("pondwatch/1/demo/gw1/")
        assert demo.ctrl_c() == 0, demo.printed
    ended = demo.printed.splitlines()
    assert {shape(line) for line in demo_shown} <= {shape(line) for line in ended}
    assert ended[-1] == demo_shown[-1] == "nothing was lost"
