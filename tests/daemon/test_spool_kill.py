"""kill -9: another process appends, is killed at a random moment, and what it had acknowledged must be there."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.archive import first_bad
from daemon.seal import verify
from daemon.store import Store

if TYPE_CHECKING:
    from tests.conftest import Figure

ROOT = Path(__file__).parents[2]
APPEND = """
import os, sys
from pathlib import Path
from daemon.store import Draft, Store

def append(folder):
    store = Store.open(folder, "test", "boot")
    n = store.last_seq
    while True:
        n += 1
        body = b'"x":"' + b"x" * (n * 7919 % 9000) + b'"'
        drafts = [Draft("readings", body, n, n, 1)] * (1 + n % 3)
        last = store.commit(drafts, [("a", b"%d" % n)], [("s", b"%d" % n)])[-1]
        os.write(1, b"%d\\n" % last.seq)
        if n % 7 == 0:
            store.settle("up", [(1, last.seq)])
        if n % 11 == 0:
            store.checkpoint_wal()
        if n % 13 == 0:
            store.pack(1 << 62)

while sys.stdin.readline():  # one process for each line, forked from this one: Python starts only once
    child = os.fork()
    if child == 0:
        append(Path(sys.argv[1]))
    os.write(1, b"pid %d\\n" % child)
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""


class Appender:
    """A process that appends to the store in `folder`, started again and again and killed each time."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-c", APPEND, str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)

    def until_killed(self, rng: random.Random) -> int:
        """Returns the last seq that the process acknowledged before its death; 0 if none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        said: list[bytes] = []
        pid = 0
        lines = 2 if rng.random() < 0.9 else 1  # most kills hit appending, some the start
        while not (pid and len(said) >= lines):
            said.append(self._process.stdout.readline())
            if said[-1].startswith(b"pid"):
                pid = int(said[-1].split()[1])
        time.sleep(rng.random() ** 3 * 0.08)
        os.kill(pid, signal.SIGKILL)
        while said[-1] != b"dead\n":
            said.append(self._process.stdout.readline())
        return max((int(line) for line in said if line.strip().isdigit()), default=0)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def killed(folder: Path, kills: int, seed: int) -> int:
    rng = random.Random(seed)
    acked = 0
    stream = None
    appender = Appender(folder)
    for _ in range(kills):
        acked = max(acked, appender.until_killed(rng))
        store = Store.open(folder, "test", "boot")
        assert store.lost is None
        assert store.stream == (stream or store.stream)
        stream = store.stream
        assert store.last_seq >= acked
        covered, _ = store.states()["s"]
        assert covered == store.last_seq  # states are of the very batch they say
        store.close()
    appender.close()
    store = Store.open(folder, "test", "boot")
    assert [batch.seq for batch in store.walk()] == list(range(1, store.last_seq + 1))
    assert verify(store.walk()) is None
    store.close()
    return acked


@pytest.mark.fault(
    row=1,
    fault="kill -9 at random",
    injected="another process appends, settles, packs; killed at a random moment",
    holds="nothing acknowledged lost, the same stream, the chain whole",
)
def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path, figure: Figure) -> None:
    acked = killed(tmp_path / "store", kills=30, seed=3)
    assert acked > 30
    figure(f"30 kills, {acked} batches acknowledged, 0 lost")


CYCLE = """
import sys
from pathlib import Path
from daemon.room import Keeping
from daemon.store import Draft, Store
up = frozenset({"up"})
store = Store.open(Path(sys.argv[1]), "test", "boot", keeping=Keeping(("up",), up, up))
for n in range(70):
    last = store.commit([Draft("readings", b'"n":%d' % n, n, n, 1)], [("a", b"1")], [("s", b"1")])[-1]
    print(last.seq, flush=True)
store.settle("up", [(1, last.seq)])
store.checkpoint_wal()
store.pack(0)
store.trim(1 << 62)
store._push_out(1000)
store.close()
print("done", flush=True)
"""


def cycle_killed_at(folder: Path, calls: str, nth: int) -> tuple[bool, int]:
    """One whole life under strace, killed at its nth call of `calls`: whether it ended by itself, what it acked."""
    inject = f"inject={calls}:signal=KILL:when={nth}"
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject]
    command += [sys.executable, "-c", CYCLE, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    said = done.stdout.decode().split("\n")[:-1]
    seqs = [int(word) for word in said if word.isdigit()]
    return "done" in said, max(seqs, default=0)


@pytest.mark.campaign
@pytest.mark.parametrize("calls", ["pwrite64", "fdatasync", "ftruncate"])
@pytest.mark.fault(
    row=2,
    fault="kill -9 at each write, sync, truncation",
    injected="strace kills at the nth call of one whole cycle, for every n",
    holds="the same",
)
def test_kill_9_at_every_nth_system_call_of_one_cycle(tmp_path: Path, calls: str, figure: Figure) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    most = int(os.environ.get("COUNT") or 1_000)
    for nth in range(1, most + 1):
        folder = tmp_path / "store"
        shutil.rmtree(folder, ignore_errors=True)
        ended, acked = cycle_killed_at(folder, calls, nth)
        if ended:
            break
        store = Store.open(folder, "test", "boot")
        assert store.lost is None
        assert store.last_seq >= acked
        assert first_bad(store.walk(), store._gone) is None
        store.close()
    assert nth > 2, "strace did not kill"
    figure(f"{calls}: {nth} lives, 0 lost")


@pytest.mark.campaign
@pytest.mark.fault(
    row=1,
    fault="kill -9 at random, by the thousand",
    injected="as above",
    holds="nothing acknowledged lost, the same stream, the chain whole",
)
def test_kill_9_by_the_thousand(tmp_path: Path, figure: Figure) -> None:
    kills = int(os.environ.get("COUNT") or 10_000)
    acked = killed(tmp_path / "store", kills, seed=random.randrange(1 << 30))
    figure(f"{kills} kills, {acked} batches acknowledged, 0 lost")
