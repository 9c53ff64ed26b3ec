"""The rules process as a process, over a real socket; the core's end of it is played here."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edge_rules.advice import cache
from edge_rules.advice.messages import Config, Line, Position
from edge_rules.advice.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHANNELS = [
    {"id": "pz", "unit": "kPa", "advice": {"hampel": True, "resolution": 0.01}},
    {
        "id": "g",
        "unit": "mm",
        "advice": {"hampel": True, "resolution": 0.1, "trend_noise": 2.0, "trend_rate_per_day": 2.0},
    },
]
START = datetime(2026, 11, 23, 8, tzinfo=UTC)
BATCHES = 620
MAIN = (
    "import sys, pathlib; from edge_rules.advice import worker; worker.main(*map(pathlib.Path, sys.argv[1:]))"
)


def payload(stream: str, seq: int, noise: random.Random) -> bytes:
    """One stored batch: an hour of a piezometer with spikes and holes, and of a creeping GNSS."""
    time = f"{START + timedelta(hours=seq):%Y-%m-%dT%H:%M:%S}.{seq % 1000:03d}Z"
    pressure = 100.0 + noise.gauss(0.0, 0.02) + (5.0 if noise.random() < 0.02 else 0.0)
    missing = noise.random() < 0.05
    rate = 3.0 if 200 < seq < 400 else 0.0
    east = rate * max(0, seq - 200) / 24 + noise.gauss(0.0, 2.0)
    readings: list[dict[str, Any]] = [
        {"channel": "pz", "value": None if missing else pressure, "unit": "kPa"},
        {"channel": "g", "value": east, "unit": "mm"},
        {"channel": "unarmed", "value": 1.0, "unit": "m"},
    ]
    for reading in readings:
        quality = "bad:no-reply" if reading["value"] is None else "good"
        reading |= {"time": time, "quality": quality, "raw": {"vw1.freq03": 2828.4}}
    head = {
        "v": 1,
        "mode": "test",
        "stream": stream,
        "seq": seq,
        "prev": "0" * 64,
        "site": "s",
        "gateway": "g",
    }
    return json.dumps(head | {"readings": readings}).encode()


class Core:
    """The core's end: greets, shows what the worker has not judged, keeps each verdict once."""

    def __init__(self, path: Path, stream: str = "s1", sha256: str = "c" * 64) -> None:
        self.path, self.stream, self.sha256 = path, stream, sha256
        noise = random.Random(42)
        self.batches = {seq: payload(stream, seq, noise) for seq in range(1, BATCHES + 1)}
        self.hellos: list[dict[str, Any]] = []
        self.verdicts: dict[tuple[int, str, str], bytes] = {}
        self.repeats = 0
        self.judged = 0
        self.stop_after = BATCHES
        self.reached = asyncio.Event()
        self.before_batches: list[bytes] = []
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Core]:
        server = await asyncio.start_unix_server(self._talk, self.path)
        try:
            yield self
        finally:
            server.close()
            self.drop()
            self.path.unlink(missing_ok=True)

    def drop(self) -> None:
        """End every connection, as a core that dies does."""
        for writer in self._writers:
            writer.close()
        self._writers = []

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            hello = json.loads(await reader.readline())
            self.hellos.append(hello)
            first = hello["seq"] + 1 if hello["stream"] == self.stream else 1
            config = {"stream": self.stream, "config_sha256": self.sha256, "channels": CHANNELS}
            writer.write(json.dumps({"config": config}).encode() + b"\n")
            for line in self.before_batches:
                writer.write(line + b"\n")
            self.before_batches = []
            for seq in range(first, self.stop_after + 1):
                writer.write(self.batches[seq] + b"\n")
                while not await self._is_judged(reader, seq):
                    pass
            self.reached.set()
            await reader.read()
        except (ConnectionError, ValueError):
            pass  # the worker was killed, perhaps within a line
        finally:
            writer.close()

    async def _is_judged(self, reader: asyncio.StreamReader, seq: int) -> bool:
        text = await reader.readline()
        line = json.loads(text)
        if "judged" in line:
            assert line["judged"] == {"stream": self.stream, "seq": seq}
            self.judged = seq
            return True
        verdict = line["verdict"]
        assert (verdict["stream"], verdict["seq"]) == (self.stream, seq)
        key = (seq, verdict["channel"], verdict["rule"])
        self.repeats += key in self.verdicts
        assert self.verdicts.setdefault(key, text) == text, "a repeat differs"
        return False


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@asynccontextmanager
async def worker(
    core: Core, state: Path, compiled: Path, *, end_with: signal.Signals = signal.SIGKILL
) -> AsyncIterator[asyncio.subprocess.Process]:
    state.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MAIN, str(core.path), str(state), str(compiled)
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(end_with)
        await process.wait()


async def reach(core: Core, seq: int) -> None:
    """A worker without a compile cache compiles first: some seconds, or a minute on a machine with much to do."""
    core.stop_after = seq
    core.reached.clear()
    await asyncio.wait_for(core.reached.wait(), 150)


@pytest.mark.timeout(240)
async def test_a_worker_killed_again_and_again_says_the_same_to_the_last_bit(
    tmp_path: Path, compiled: Path
) -> None:
    async with Core(tmp_path / "whole.sock").listening() as whole, worker(whole, tmp_path / "w", compiled):
        await reach(whole, BATCHES)
    rules = [
        (json.loads(v)["verdict"]["rule"], json.loads(v)["verdict"]["condition"])
        for v in whole.verdicts.values()
    ]
    assert {("hampel", "present"), ("hampel", "gone"), ("trend", "present"), ("trend", "gone")} <= set(rules)

    async with Core(tmp_path / "killed.sock").listening() as killed:
        for stop in (30, 230):
            async with worker(killed, tmp_path / "k", compiled):
                await reach(killed, stop)
        killed.stop_after = BATCHES
        async with worker(killed, tmp_path / "k", compiled):
            while killed.judged < 555:  # and then in mid-run
                await asyncio.sleep(0.001)
        async with worker(killed, tmp_path / "k", compiled):
            await reach(killed, BATCHES)
    assert [hello["seq"] for hello in killed.hellos] == [0, 0, 200, 400]
    assert killed.repeats > 0
    assert killed.verdicts == whole.verdicts


async def test_told_to_stop_it_leaves_a_checkpoint_and_exits_well(tmp_path: Path, compiled: Path) -> None:
    async with Core(tmp_path / "s").listening() as core:
        async with worker(core, tmp_path / "k", compiled, end_with=signal.SIGTERM) as process:
            await reach(core, 50)
        assert process.returncode == 0
        async with worker(core, tmp_path / "k", compiled):
            await reach(core, 60)
    assert [(hello["hello"], hello["stream"], hello["seq"]) for hello in core.hellos] == [
        (1, None, 0),
        (1, "s1", 50),
    ]
    assert core.repeats == 0


async def test_a_core_that_goes_and_comes_back_is_found_again_where_it_was_left(
    tmp_path: Path, compiled: Path
) -> None:
    core = Core(tmp_path / "s")
    async with worker(core, tmp_path / "k", compiled):
        async with core.listening():
            await reach(core, 40)
            core.drop()
            await reach(core, 45)
        async with core.listening():
            await reach(core, 50)
    assert [hello["seq"] for hello in core.hellos] == [0, 40, 45]
    assert core.repeats == 0


@pytest.mark.parametrize("line", [b'{"config": "not one"}', b"\xff\x00", b"[" + b"1," * 2**23 + b"1]"])
async def test_a_line_that_is_none_costs_the_connection_and_nothing_else(
    tmp_path: Path, compiled: Path, line: bytes
) -> None:
    async with Core(tmp_path / "s").listening() as core, worker(core, tmp_path / "k", compiled) as process:
        core.before_batches = [line]
        await reach(core, 10)
        assert process.returncode is None
    assert [hello["seq"] for hello in core.hellos] == [0, 0]


def test_a_batch_shown_again_is_confirmed_and_not_judged_again(tmp_path: Path) -> None:
    noise = random.Random(1)
    judge = Worker(tmp_path)
    config = {"stream": "s1", "config_sha256": "c", "channels": CHANNELS}
    judge.configure(msgspec.convert(config, Config))
    lines = [msgspec.json.decode(payload("s1", seq, noise), type=Line) for seq in (1, 2, 3)]
    for line in lines:
        judge.judge(line)
    judge.save()
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert judge.judge(lines[1]) == b'{"judged":{"stream":"s1","seq":2}}\n'
    assert judge.position == Position("s1", 3)
    judge.save()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


async def test_a_worker_whose_core_died_leaves_the_socket_to_that_of_the_next(
    tmp_path: Path, compiled: Path
) -> None:
    """Parent and worker hold one pipe, which ends when both are gone."""
    spawn = "import subprocess, sys; subprocess.Popen(sys.argv[1:]); sys.stdin.read()"
    async with Core(tmp_path / "s").listening() as core:
        parent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", spawn, sys.executable, "-c", MAIN),
            *(str(core.path), str(tmp_path), str(compiled)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        await reach(core, 5)
        parent.kill()
    assert parent.stdout is not None
    assert await asyncio.wait_for(parent.stdout.read(), 30) == b""
    await parent.wait()


async def test_another_stream_starts_afresh(tmp_path: Path, compiled: Path) -> None:
    state = tmp_path / "k"
    async with (
        Core(tmp_path / "s").listening() as core,
        worker(core, state, compiled, end_with=signal.SIGTERM),
    ):
        await reach(core, 250)
    async with Core(tmp_path / "t", stream="s2").listening() as other, worker(other, state, compiled):
        await reach(other, 250)
    assert other.hellos[0]["stream"] == "s1"
    assert other.verdicts.keys() == core.verdicts.keys()


async def test_another_configuration_keeps_the_place_and_starts_the_statistics_anew(
    tmp_path: Path, compiled: Path
) -> None:
    state = tmp_path / "k"
    async with Core(tmp_path / "s").listening() as core:
        async with worker(core, state, compiled, end_with=signal.SIGTERM):
            await reach(core, 100)
        before = set(core.verdicts)
        core.sha256 = "d" * 64
        async with worker(core, state, compiled):
            await reach(core, 109)
    assert core.hellos[-1]["seq"] == 100
    assert all(
        key[0] <= 100 or json.loads(core.verdicts[key])["verdict"]["condition"] == "gone"
        for key in core.verdicts
    )
    assert before <= set(core.verdicts)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("damage", ["half", "zeroed", "never sealed"])
async def test_a_damaged_compile_cache_is_compiled_anew(tmp_path: Path, compiled: Path, damage: str) -> None:
    core = Core(tmp_path / "s")
    own = tmp_path / "cache"
    shutil.copytree(compiled, own)
    folder = cache.folder_for(own)
    folder.chmod(0o700)
    assert (folder / "manifest.json").exists()
    for path in [*folder.rglob("*.nbc"), *folder.rglob("*.nbi")]:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if damage == "half" else bytes(len(whole)))
    if damage == "never sealed":
        (folder / "manifest.json").unlink()
    async with core.listening(), worker(core, tmp_path / "k", own):
        await reach(core, 5)
    assert core.judged == 5


def test_the_cache_folder_is_ours_alone_and_old_ones_go(tmp_path: Path) -> None:
    old = tmp_path / "numba-0000"
    old.mkdir()
    folder = cache.open_cache(tmp_path)
    assert not old.exists()
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "kernel.nbc").write_bytes(b"code")
    cache.seal(folder)
    assert (cache.open_cache(tmp_path) / "kernel.nbc").exists()
    cache.seal(folder)
    folder.chmod(0o770)
    assert not (cache.open_cache(tmp_path) / "kernel.nbc").exists(), "others could have written it"
