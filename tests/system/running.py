"""Real processes for the tests of the whole: bench, daemon and others, started, looked at, and always ended.

Nothing here waits blindly: a thing is ready when it is seen to be. Every program leads a process group of its
own, and the whole group ends with the test, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import re
import signal
import sqlite3
import sys
import time
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import apsw
import pytest

from daemon.archive import Archive
from hardware_sim.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

ROOT = Path(__file__).parents[2]
NOT_THERE_YET = (OSError, json.JSONDecodeError, sqlite3.OperationalError, apsw.Error)
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"  # where Debian keeps servers


async def until(look: Callable[[], Any], what: str, within_s: float = 60.0) -> Any:
    """Look again and again until there is something to see; what was seen."""
    deadline_s = time.monotonic() + within_s
    while True:
        with contextlib.suppress(*NOT_THERE_YET):
            seen = look()
            if inspect.isawaitable(seen):
                seen = await seen
            if seen:
                return seen
        if time.monotonic() > deadline_s:
            pytest.fail(f"not seen within {within_s:g} s: {what}")
        await asyncio.sleep(0.02)


async def listens(port: int) -> bool:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    return True


class Program:
    """A command that can be started again after its end; what it says is appended to `log`."""

    def __init__(
        self,
        command: Iterable[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self.log = log
        self._command = list(command)
        self._environment = {**os.environ, **(environment or {})}
        self._cwd = cwd
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        with self.log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdout=out,
                stderr=out,
                env=self._environment,
                cwd=self._cwd,
                start_new_session=True,
            )

    async def ready(self, look: Callable[[], Any], what: str, within_s: float = 60.0) -> Any:
        """`until`, which fails at once when the program has ended, with its last words."""

        def looked() -> Any:
            if self._process is None or self._process.returncode is not None:
                pytest.fail(f"{self._command} ended: {self.last_words()}")
            return look()

        return await until(looked, f"{what}; {self.log}: {self.last_words()}", within_s)

    def last_words(self) -> str:
        return "\n".join(self.log.read_text().splitlines()[-15:])

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def stop(self, within_s: float = 20.0) -> int:
        """SIGTERM; its exit code."""
        assert self._process is not None
        self.send(signal.SIGTERM)
        async with asyncio.timeout(within_s):
            return await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL to it and to all it has started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    async def wait(self) -> int:
        assert self._process is not None
        return await self._process.wait()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()


class Bench(Program):
    """The simulator; `facts` is its bench.json."""

    def __init__(self, run_dir: Path, scenario: str, speed: float, *options: str) -> None:
        run_dir.mkdir(exist_ok=True)
        self._run_dir = run_dir
        self.facts: dict[str, Any] = {}
        command = [sys.executable, "-m", "hardware_sim", scenario, "--run-dir", str(run_dir)]
        super().__init__([*command, "--speed", str(speed), *options], run_dir / "bench.log")

    async def start(self) -> None:
        await super().start()
        self.facts = json.loads(await self.ready((self._run_dir / "bench.json").read_text, "bench.json"))

    def now_s(self) -> float:
        """Bench seconds since it began."""
        rate, _, epoch = str(self.facts["clock"]).partition("@")
        return (time.time() - float(epoch)) * float(rate)

    async def ask(self, do: str, **request: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await _ask(self._run_dir / "bench.sock", {"do": do, **request})
        assert "error" not in answer, answer
        return answer


class Daemon(Program):
    """`pondwatch run` on a site file; ready when its control socket and its metrics answer."""

    module = "daemon.commands"

    def __init__(self, site: Path, run_dir: Path, clock: str = "", **environment: str) -> None:
        run_dir.mkdir(exist_ok=True)
        text = site.read_text()
        self.store = Path(_value(text, "path"))
        self.listen = _value(text, "listen")
        self._run_dir = run_dir
        self._front = [sys.executable, "-m", self.module, "--config", str(site)]
        self._for_verbs = {**os.environ, "PONDWATCH_RUN": str(run_dir)}
        environment |= {"PONDWATCH_RUN": str(run_dir), "PONDWATCH_BENCH_CLOCK": clock}
        super().__init__([*self._front, "run"], run_dir / "daemon.log", environment)

    async def start(self) -> None:
        await super().start()
        await self.ready(lambda: self.ask("status"), "the control socket answers")
        await self.ready(self.metrics, "/metrics answers")

    async def ask(self, do: str, **request: Any) -> Any:
        answer = await _ask(self._run_dir / "control.sock", {"do": do, **request})
        assert "error" not in answer, answer
        return answer["ok"]

    async def page(self, path: str = "/metrics") -> str:
        return await asyncio.to_thread(_get, f"http://{self.listen}{path}")

    async def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels."""
        rows = (
            line.rpartition(" ") for line in (await self.page()).splitlines() if line[:1] not in ("", "#")
        )
        return {name: float(value) for name, _, value in rows}

    async def gauge(self, name: str) -> float:
        """The sum of all samples called `name`; 0 without any."""
        samples = (await self.metrics()).items()
        return sum(value for sample, value in samples if sample.partition("{")[0] == name)

    async def shows(self, name: str, wanted: Callable[[float], bool]) -> None:
        """Wait until the gauge or counter is as wanted."""

        async def look() -> bool:
            return wanted(await self.gauge(name))

        await until(look, f"{name} as wanted")

    async def verb(self, *words: str) -> tuple[int, str]:
        """Exit code and output of another `pondwatch` command on the same site."""
        process = await asyncio.create_subprocess_exec(
            *self._front, *words, stdout=asyncio.subprocess.PIPE, env=self._for_verbs, cwd=self._cwd
        )
        out, _ = await process.communicate()
        return await process.wait(), out.decode()

    def rules_pid(self) -> int | None:
        """The rules process it has started, if there is one at the moment."""
        for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"rules" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                    return int(child)
        return None

    def batches(self) -> list[Batch]:
        return batches(self.store / "spool.db")


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as reply:
        return str(reply.read().decode())


async def _ask(path: Path, request: dict[str, Any]) -> Any:
    reader, writer = await asyncio.open_unix_connection(path, limit=2**22)
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        return json.loads(await reader.readline())
    finally:
        writer.close()


def _value(toml: str, key: str) -> str:
    found = re.search(rf'^{key} = "([^"]+)"', toml, re.MULTILINE)
    assert found is not None, f"no {key} in the site file"
    return found[1]


def demo_site(run_dir: Path, bench: Bench, *changes: tuple[str, str]) -> Path:
    """config/demo.toml with this bench's addresses; each change replaces a text that must be there."""
    text = (ROOT / "config" / "demo.toml").read_text()
    addresses = [
        ("build/run/", f"{run_dir}/"),
        ("127.0.0.1:15020", bench.facts["lines"]["weather"]),
        ("127.0.0.1:18830", bench.facts["platform"]),
        ("127.0.0.1:9464", f"127.0.0.1:{free_port()}"),
    ]
    for old, new in (*addresses, *changes):
        assert old in text, f"config/demo.toml no longer has {old}"
        text = text.replace(old, new)
    site = run_dir / "site.toml"
    site.write_text(text)
    return site


# -- what is in the store ----------------------------------------------------------------------------


class Batch(NamedTuple):
    seq: int
    kind: str
    payload: bytes
    sha256: str


def rows(path: Path, sql: str) -> list[Any]:
    """What another process's SQLite file says, read only; the process may be running, or dead."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        return db.execute(sql).fetchall()


def batches(path: Path) -> list[Batch]:
    """The chain as a store has it, loose and packed."""
    with Archive(path) as archive:
        return [Batch(b.seq, b.kind, b.payload, b.hash.hex()) for b in archive.batches()]


def received(path: Path) -> list[Batch]:
    """The chain as the platform has it; a fork would show as a seq that is there twice."""
    return [Batch(*row) for row in rows(path, "SELECT seq, kind, payload, sha256 FROM batch ORDER BY seq")]


def readings(stored: Iterable[Batch], channel: str) -> list[dict[str, Any]]:
    """The readings of a channel, in order of the chain."""
    payloads = (json.loads(batch.payload) for batch in stored if batch.kind == "readings")
    return [each for payload in payloads for each in payload["readings"] if each["channel"] == channel]


def assert_no_poll_was_missed(stored: Iterable[Batch]) -> None:
    """The demo site's pond level is there for every minute of the bench, from the first to the last."""
    levels = readings(stored, "n.pond.level")
    minutes = [datetime.fromisoformat(each["time"]).replace(second=0, microsecond=0) for each in levels]
    assert minutes == [minutes[0] + timedelta(minutes=n) for n in range(len(minutes))]
    assert all(each["value"] is not None for each in levels)
    assert len(levels) > 5
