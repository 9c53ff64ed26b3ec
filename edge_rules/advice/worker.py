"""The rules process: shown batches by the core over a Unix socket, it answers with verdicts.

No network, no serial port, no database. It may be killed at any time: it names the last batch that its
checkpoint covers and is shown what came after, which it judges as it did before, to the last bit. A
checkpoint is made only when every verdict it rests on has left for the core.

Memory is bounded: one line at a time is read and answered before the next; the socket holds the rest, and
when that is full the core waits or drops the connection, as it sees fit.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import hashlib
import logging
import os
import random
import signal
import time
from typing import TYPE_CHECKING

import msgspec

from edge_rules.advice import cache
from edge_rules.advice.messages import Config, Hello, Line, Position

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge_rules.advice.checkpoint import Checkpoint
    from edge_rules.advice.detectors import Detectors

LINE_LIMIT = 16 * 2**20  # bytes; a batch of 2,000 readings with their raw numbers stays well below 1 MB
CHECKPOINT_BATCHES = 200
CHECKPOINT_S = 60.0
JUDGE_S = (
    30.0  # a batch takes milliseconds: judging that does not end, ends the process, which is started again
)
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 10.0
BEAT_S = 1.0  # who waits for the core makes progress, and says so as often

_PARENT = os.getppid()

log = logging.getLogger("pondwatch.rules")


class ConfigExpected(ValueError):
    """The core showed a batch before it said what is armed."""


class Worker:
    """Judges batches and keeps its memory; knows no socket."""

    def __init__(self, state_dir: Path) -> None:
        from edge_rules.advice.checkpoint import Checkpoints  # noqa: PLC0415 -- numpy, after the cache is set

        self._checkpoints = Checkpoints(state_dir)
        self._kept: Checkpoint | None = self._checkpoints.load()
        self.position = self._kept.position if self._kept else Position()
        self.unsent = False  # judged, and the answer has not left: no checkpoint may cover it
        self._detectors: Detectors | None = None
        self._config_sha256 = ""
        self._saved = self.position
        self._batches = 0
        self._saved_s = time.monotonic()

    def configure(self, config: Config) -> None:
        """Arm the detectors. Another stream: all starts afresh. Another configuration: the statistics do."""
        from edge_rules.advice.detectors import Detectors  # noqa: PLC0415 -- numba, after the cache is set

        sha256 = hashlib.sha256(msgspec.json.encode(config)).hexdigest()
        before = self._snapshot() or self._kept
        self._kept = None
        self._detectors = Detectors(config.channels)
        self._config_sha256 = sha256
        if config.stream != self.position.stream:
            log.info("stream %s: starting afresh", config.stream)
            self.position = Position(config.stream, 0)
        elif before is not None:  # noqa: SIM102
            if not self._detectors.take_over(before.tables, statistics=before.config_sha256 == sha256):
                log.info("the configuration changed: statistics start anew")

    def judge(self, batch: Line) -> bytes:
        """The lines that answer a batch: its verdicts, then that it was judged. A repeat is only confirmed.

        Raises:
            ConfigExpected: nothing is armed yet, or the batch is of another stream.
        """
        if self._detectors is None or batch.stream != self.position.stream:
            raise ConfigExpected(f"a batch of stream {batch.stream!r} came before its configuration")
        lines: list[bytes] = []
        if batch.seq > self.position.seq:
            verdicts = self._detectors.feed(batch.stream, batch.seq, batch.readings)
            self.position = Position(batch.stream, batch.seq)
            self._batches += 1
            lines = [msgspec.json.encode({"verdict": verdict}) for verdict in verdicts]
        lines.append(msgspec.json.encode({"judged": Position(batch.stream, batch.seq)}))
        return b"".join(line + b"\n" for line in lines)

    def save_if_due(self) -> None:
        if self._batches >= CHECKPOINT_BATCHES or time.monotonic() - self._saved_s >= CHECKPOINT_S:
            self.save()

    def save(self) -> None:
        """Write a checkpoint if any batch was judged since; a disk that refuses costs judging it again."""
        self._batches, self._saved_s = 0, time.monotonic()
        snapshot = self._snapshot()
        if self.unsent or snapshot is None or snapshot.position == self._saved:
            return
        try:
            self._checkpoints.save(snapshot)
        except OSError as error:
            log.warning("no checkpoint: %s", error)
        else:
            self._saved = snapshot.position

    def _snapshot(self) -> Checkpoint | None:
        from edge_rules.advice.checkpoint import Checkpoint  # noqa: PLC0415 -- numpy, after the cache is set

        if self._detectors is None:
            return None
        return Checkpoint(self.position, self._config_sha256, self._detectors.tables)


async def serve(socket: Path, state_dir: Path, progress: Callable[[], object]) -> None:
    """Judge until cancelled; a core that is away is tried again, with jitter, for ever.

    `progress` is called after each batch that was judged and answered, and while there is nothing to do.

    Returns only when the process that started it is gone: a core that died will start a worker of its own,
    and two would drive each other from the socket.

    The kernels must have been compiled (`main` does). Leaves a checkpoint when a connection ends, and when
    cancelled. Where a connection ends while an answer was leaving, memory goes back to the checkpoint
    before: that batch will be shown, judged and answered again.
    """
    worker = Worker(state_dir)
    wait_s = RETRY_FIRST_S
    while os.getppid() == _PARENT:
        try:
            reader, writer = await asyncio.open_unix_connection(socket, limit=LINE_LIMIT)
        except OSError as error:
            log.debug("core not there: %s", error)
        else:
            try:
                if await _talk(worker, reader, writer, progress):
                    wait_s = RETRY_FIRST_S
            except (OSError, ValueError) as error:  # ValueError: no such line, or one beyond the limit
                log.warning("connection dropped: %s", error)
            finally:
                writer.close()
        if worker.unsent:
            worker = Worker(state_dir)
        await _wait(wait_s * (0.5 + random.random()), progress)  # noqa: S311 -- jitter
        wait_s = min(2 * wait_s, RETRY_MOST_S)


async def _talk(
    worker: Worker,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    progress: Callable[[], object],
) -> bool:
    """One connection, to its end; whether the core said anything."""
    writer.transport.set_write_buffer_limits(high=0)  # drained now means handed to the kernel, all of it
    hello = Hello(worker.position.stream, worker.position.seq)
    writer.write(msgspec.json.encode(hello) + b"\n")
    await writer.drain()
    decode = msgspec.json.Decoder(Line).decode
    spoken = False
    try:
        while text := await _line(reader, progress):
            spoken = True
            line = decode(text)
            if line.config is not None:
                worker.configure(line.config)
                continue
            worker.unsent = True
            faulthandler.dump_traceback_later(JUDGE_S, exit=True)
            try:
                answer = worker.judge(line)
            finally:
                faulthandler.cancel_dump_traceback_later()
            writer.write(answer)
            await writer.drain()
            worker.unsent = False
            worker.save_if_due()
    finally:
        worker.save()
    return spoken


async def _wait(seconds: float, progress: Callable[[], object]) -> None:
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        progress()
        await asyncio.sleep(min(BEAT_S, left_s))


async def _line(reader: asyncio.StreamReader, progress: Callable[[], object]) -> bytes:
    """The next line, however long it takes; empty at the end. What came of it meanwhile is kept."""
    while True:
        progress()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEAT_S):
                return await reader.readline()


def main(
    socket: Path, state_dir: Path, cache_dir: Path, progress: Callable[[], object] = lambda: None
) -> None:
    """Compile, then serve until SIGTERM or SIGINT, or until the process that started this one is gone.

    Args:
        socket: the core's Unix socket.
        state_dir: existing folder for the checkpoints.
        cache_dir: existing folder below which compiled kernels are kept.
        progress: called while it gets on, from when the kernels are compiled.
    """
    folder = cache.open_cache(cache_dir)
    from edge_rules.advice.detectors import compile_kernels  # noqa: PLC0415 -- numba reads the cache's place once

    compile_kernels()
    cache.seal(folder)
    asyncio.run(_until_told(socket, state_dir, progress))


async def _until_told(socket: Path, state_dir: Path, progress: Callable[[], object]) -> None:
    serving = asyncio.create_task(serve(socket, state_dir, progress), name="serve")
    loop = asyncio.get_running_loop()
    for told in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(told, serving.cancel)
    await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()
