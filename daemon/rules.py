"""The rules process seen from the core: shown what is committed, heard when it has a verdict.

The core listens on a Unix socket. A worker says which batch it judged last; from there on it is sent the
stored payloads of readings, exactly as they lie in the store, and answers with verdicts and with how far
it came. Whatever happens to it (killed, hung, out of memory) costs the core nothing but its advice: the
worker comes back and asks for the rest. Only one worker is heard at a time, the newest.

As a child (`[rules] start = "child"`) it is started here and started again when it ends; as a unit
systemd does that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from daemon.reading import parse_rfc3339
from edge_rules.law.levels import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from daemon.clock import Clock
    from daemon.config import ChannelTable, Site
    from daemon.spool import Spool

log = logging.getLogger(__name__)

LINE_BYTES = 64 * 1024  # longest line heard from the worker
AHEAD_BATCHES = 200  # sent and not yet judged; beyond that the feed waits
CHUNK_BATCHES = 50
RESTART_S = 1.0
HANG_S = 15.0  # shown batches and nothing judged for so long: the child hangs
LOOK_S = 1.0
STOP_S = 5.0


class Verdict(msgspec.Struct, frozen=True):
    """What a detector found; it rests on batch (stream, seq)."""

    stream: str
    seq: int
    channel: str
    rule: str
    kind: str
    condition: str
    urgency: str | None
    score: float
    value: float | None
    limit: float | None
    time: str
    reason: Mapping[str, str]
    evidence: Mapping[str, Any]


RULES = (  # as the rules process names them
    "hampel",
    "flatline",
    "noise",
    "gap",
    "trend",
    "step",
    "onset",
    "forecast",
    "response",
    "common-mode",
    "corroborated",
)
HEARD = "verdict:"  # prefix among the stored states


class Verdicts:
    """Which verdicts were heard already: a worker that comes back judges some batches a second time.

    A verdict counts once for its channel and rule: what rests on an earlier batch than the last one heard is
    a repeat. The numbers are stored with the alarms they led to, so a restart of both forgets nothing.
    """

    def __init__(self, site: Site, stream: str) -> None:
        self._stream = stream
        self._last: dict[str, tuple[str, int]] = {
            f"{HEARD}{channel.id}.{rule}": ("", 0)
            for channel in site.channels
            if channel.advice is not None
            for rule in RULES
        }

    def take(self, verdict: Verdict) -> str | None:
        """The name of the state that moved, or None for a repeat or for a channel that takes no advice."""
        name = f"{HEARD}{verdict.channel}.{verdict.rule}"
        if name not in self._last or verdict.stream != self._stream:
            return None
        stream, seq = self._last[name]
        if stream == verdict.stream and verdict.seq <= seq:
            return None
        self._last[name] = (verdict.stream, verdict.seq)
        return name

    def follow(self, stream: str) -> None:
        """Another store is in use: verdicts on the batches of the one before count no more."""
        self._stream = stream

    def states(self) -> dict[str, Callable[[], object]]:
        return {name: partial(self._last.__getitem__, name) for name in self._last}

    def restore(self, name: str, state: tuple[str, int]) -> None:
        if name in self._last:
            self._last[name] = (state[0], state[1])


class _Judged(msgspec.Struct, frozen=True):
    stream: str
    seq: int


class _Said(msgspec.Struct, frozen=True):
    """One line of the worker; exactly one member is there."""

    hello: int | None = None
    stream: str | None = None
    seq: int = 0
    verdict: Verdict | None = None
    judged: _Judged | None = None


class RulesFeed:
    """Listens for the rules process, feeds it, and passes its verdicts on."""

    def __init__(
        self, socket: Path, site: Site, spool: Spool, clock: Clock, on_verdict: Callable[[Verdict], None]
    ) -> None:
        self._socket = socket
        self._site = site
        self._spool = spool
        self._clock = clock
        self._on_verdict = on_verdict
        self._judged_seq = 0
        self._progress = asyncio.Event()
        self._unjudged: dict[int, int] = {}  # seq -> newest time in it, sent and not judged
        self._gone_ns = clock.wall_ns()
        self._progress_s = 0.0  # of the loop: when the worker was last seen to be well
        self._current: asyncio.Task[None] | None = None
        self._decoder = msgspec.json.Decoder(_Said)

    @property
    def up(self) -> bool:
        return self._current is not None

    def stalled_s(self) -> float:
        """For how long a connected worker has had something to judge and judged nothing."""
        if not self.up or not self._unjudged:
            return 0.0
        return asyncio.get_running_loop().time() - self._progress_s

    def gauges(self) -> Iterable[tuple[str, tuple[str, ...], float]]:
        yield "pondwatch_rules_up", (), float(self.up)
        oldest_ns = min(self._unjudged.values(), default=0 if self.up else self._gone_ns)
        lag_s = max(0.0, (self._clock.wall_ns() - oldest_ns) / 1e9) if oldest_ns else 0.0
        yield "pondwatch_rules_lag_seconds", (), lag_s

    def renew(self) -> None:
        """Another store is in use: the rules process is to connect anew and say what it knows of it."""
        if self._current is not None:
            self._current.cancel()

    async def run(self) -> None:
        """Listen until cancelled."""
        self._socket.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._connected, self._socket, limit=LINE_BYTES)
        self._socket.chmod(0o660)
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._current is not None:
            self._current.cancel()
        task = self._current = asyncio.current_task()
        try:
            said = self._decoder.decode(await reader.readline())
            after = said.seq if said.stream == self._spool.stream else 0
            log.info("rules process connected, judged up to %d", after)
            writer.write(msgspec.json.encode({"config": self._config()}) + b"\n")
            feeding = asyncio.create_task(self._feed(writer, after), name="rules feed")
            try:
                await self._hear(reader)
            finally:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
        except (msgspec.DecodeError, ConnectionError, ValueError) as error:
            log.warning("rules process dropped: %s", error)
        finally:
            if self._current is task:
                self._current = None
                self._gone_ns = self._clock.wall_ns()  # from now on nothing is judged
                log.warning("rules process is gone; trigger levels go on without it")
            writer.close()

    def _config(self) -> dict[str, Any]:
        return {
            "stream": self._spool.stream,
            "config_sha256": self._site.sha256,
            "channels": advised(self._site),
        }

    async def _feed(self, writer: asyncio.StreamWriter, after: int) -> None:
        self._judged_seq, self._unjudged = after, {}
        while True:
            batches = await self._spool.peek(after=after, kinds=("readings",), limit=CHUNK_BATCHES)
            for batch in batches:
                if not self._unjudged:
                    self._progress_s = asyncio.get_running_loop().time()
                self._unjudged[batch.seq] = batch.time_ns
                writer.write(batch.payload + b"\n")
                await writer.drain()
                after = batch.seq
            while len(self._unjudged) >= AHEAD_BATCHES:
                self._progress.clear()
                await self._progress.wait()
            if not batches:
                await self._spool.committed(after, ("readings",))

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            said = self._decoder.decode(line)
            if said.verdict is not None:
                self._on_verdict(said.verdict)
            if said.judged is not None:
                for seq in [seq for seq in self._unjudged if seq <= said.judged.seq]:
                    del self._unjudged[seq]
                self._judged_seq = said.judged.seq
                self._progress_s = asyncio.get_running_loop().time()
                self._progress.set()


def advised(site: Site) -> list[dict[str, Any]]:
    """What the rules process is told of each channel with advice.

    `advice` as it stands in the site file; yellow, beyond which nothing is learnt, in numbers; a section is
    known by its pond and its name.
    """
    return [
        {
            "id": channel.id,
            "unit": channel.unit,
            "advice": channel.advice,
            "source": channel.source,
            "section": f"{channel.pond} {channel.section}" if channel.section else "",
            "monitoring_point": channel.monitoring_point,
            **_yellow(channel),
        }
        for channel in site.channels
        if channel.advice is not None
    ]


def _yellow(channel: ChannelTable) -> dict[str, float | None]:
    """The limits of yellow on either side, or of the next level above where there is no yellow."""
    found: dict[str, float | None] = {"yellow_low": None, "yellow_high": None}
    for side in channel.levels.sides() if channel.levels else ():
        limits = [limit for level in (2, 3, 4) if (limit := side.limit(Level(level))) is not None]
        if limits:
            found["yellow_high" if side.rising else "yellow_low"] = limits[0]
    return found


def verdict_time_ns(verdict: Verdict) -> int:
    return parse_rfc3339(verdict.time)


async def supervise(config: Path, run_dir: Path, stalled_s: Callable[[], float]) -> None:
    """Keep one `pondwatch rules` child running until cancelled; one that hangs is killed.

    Args:
        config: the site file.
        run_dir: of the sockets.
        stalled_s: for how long it has judged nothing of what it was shown.
    """
    command = [sys.executable, "-m", "daemon.commands", "--config", str(config), "rules"]
    while True:
        child = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, "PONDWATCH_RUN": str(run_dir)}
        )
        try:
            code = await _ended(child, stalled_s)
        finally:
            if child.returncode is None:
                child.terminate()
                try:
                    async with asyncio.timeout(STOP_S):
                        await child.wait()
                except TimeoutError:
                    child.kill()
                    await child.wait()
        log.warning("rules process ended with %d; starting it again", code)
        await asyncio.sleep(RESTART_S)


async def _ended(child: asyncio.subprocess.Process, stalled_s: Callable[[], float]) -> int:
    """How it ended, were it by our hand."""
    while True:
        try:
            async with asyncio.timeout(LOOK_S):
                return await child.wait()
        except TimeoutError:
            if stalled_s() > HANG_S:
                log.warning("rules process hangs: nothing judged for %.0f s; it is killed", stalled_s())
                child.kill()
