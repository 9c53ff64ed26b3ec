"""Row 4: power cuts below the file system. ext4 on a disk that loses what was not flushed, metadata and journal included.

The store lives its short life (tests/daemon/test_spool_power.py) on a real ext4, whose every write and flush is
recorded (tests/fault/block_log.py). A crash state is the disk after any of these events: all that was flushed, and of
the later 4 KiB blocks any subset. ext4 must mount it, and the store must open on it as after any power cut.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from daemon.batch import StoreError
from tests.daemon import test_spool_power as power
from tests.fault import block_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Figure

BLOCK = 4096
DISK_BYTES = 12 << 20
IMAGES = 30
ROOT = Path(__file__).parents[2]
MARKS = ("acked", "settled", "may trim", "trimmed", "may push out")


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def mounted(image: str | Path, folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    run("mount", "-t", "ext4", *options, image, folder)
    try:
        yield folder
    finally:
        run("umount", "-l", folder)


class Marking(power.Log):
    """Puts what the store has acknowledged among the blocks; the writes themselves are seen below."""

    def __init__(self, marks: int) -> None:
        super().__init__()
        self._marks = marks

    def add(self, what: str, name: str = "", where: int = 0, data: bytes = b"") -> None:
        if what in MARKS:
            os.write(self._marks, f"{what}={where}".encode())


@contextmanager
def recorded_disk(folder: Path, image: Path, log: Path) -> Iterator[tuple[str, int]]:
    """The loop device over the file that is recorded, and where marks are written."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.fault.block_log", str(folder), str(image), str(log)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as server, ExitStack() as stack:
        stack.callback(server.kill)
        for _ in range(500):
            if (folder / "disk").exists():
                break
            if server.poll() is not None:
                assert server.stderr is not None
                raise OSError(server.stderr.read().decode().splitlines()[-1])
            time.sleep(0.02)
        stack.callback(run, "umount", "-l", folder)
        device = run("losetup", "--find", "--show", folder / "disk")
        stack.callback(run, "losetup", "--detach", device)
        marks = os.open(folder / "marks", os.O_WRONLY)
        stack.callback(os.close, marks)
        yield device, marks


@dataclass
class Recording:
    image: bytes  # the empty file system
    events: list[block_log.Event]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """The life of a store on ext4, block by block."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root, /dev/fuse and mkfs.ext4")
    folder = tmp_path_factory.mktemp("ext4")
    image, log = folder / "image", folder / "log"
    image.write_bytes(bytes(DISK_BYTES))
    try:
        run("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        with (
            recorded_disk(folder / "below", image, log) as (device, marks),
            mounted(device, folder / "above") as here,
        ):
            power.live(here / "store", Marking(marks))
    except OSError as error:
        pytest.skip(f"no disk of our own can be made here: {error}")
    return Recording(image.read_bytes(), list(block_log.events(log)))


class Blocks:
    """What is certainly on the disk, and the blocks that may or may not be."""

    def __init__(self, image: bytes) -> None:
        self.marks = power.Disk()
        self._flushed = bytearray(image)
        self._pending: list[tuple[int, bytes]] = []

    def take(self, event: block_log.Event) -> None:
        if event.what == "mark":
            what, _, seq = event.data.decode().partition("=")
            self.marks.take((what, "", int(seq), b""))
        elif event.what == "flush":
            for where, data in self._pending:
                self._flushed[where : where + len(data)] = data
            self._pending = []
        else:
            for at in range(0, len(event.data), BLOCK):
                self._pending.append((event.where + at, event.data[at : at + BLOCK]))

    def crashed(self, share: float, rng: random.Random) -> bytes:
        found = bytearray(self._flushed)
        for where, data in self._pending:
            if rng.random() < share:
                found[where : where + len(data)] = data
        return bytes(found)


def crashes(recording: Recording, folder: Path, count: int, seed: int) -> list[str]:
    """What was wrong in `count` states after randomly chosen events."""
    rng = random.Random(seed)
    points = sorted(rng.randrange(len(recording.events)) for _ in range(count))
    blocks, done, found = Blocks(recording.image), 0, []
    for point in points:
        for event in recording.events[done : point + 1]:
            blocks.take(event)
        done = point + 1
        image = folder / f"crashed-{rng.random()}"  # a new one: the last may not be let go of yet
        image.write_bytes(blocks.crashed(rng.choice((0.0, 0.3, 0.7, 1.0)), rng))
        found += [f"event {point}: {fault}" for fault in faults(blocks.marks, image, folder / "mounted")]
        image.unlink()
    return found


def faults(marks: power.Disk, image: Path, folder: Path) -> list[str]:
    try:
        with mounted(image, folder, "-o", "loop") as here:
            if marks.acked and not (here / "store/spool.db").exists():
                return ["the store's file is gone"]
            if not (here / "store").exists():
                return []
            return power.faults(marks, here / "store")
    except OSError as error:
        return [f"does not mount: {error}"]
    except (StoreError, apsw.Error) as error:
        return [f"does not open: {error}"]


@pytest.mark.fault(
    row=4,
    fault="power cut below the file system",
    injected="a real ext4 on a recorded disk; after any event all that was flushed and any subset of the later 4 KiB blocks, journal and metadata included",
    holds="ext4 mounts, the store opens, nothing acknowledged lost, the chain whole",
)
def test_no_power_cut_below_ext4_loses_what_was_acknowledged(
    tmp_path: Path, recording: Recording, figure: Figure
) -> None:
    assert crashes(recording, tmp_path, 40, seed=1) == []
    flushes = sum(event.what == "flush" for event in recording.events)
    figure(f"{IMAGES} images of {len(recording.events)} events, {flushes} of them flushes: all mount, 0 lost")


@pytest.mark.fault(
    row=4,
    fault="the same on a disk that lies about flushing",
    injected="every flush is ignored",
    holds="the test finds losses, or it would prove nothing",
)
def test_the_same_cuts_find_the_losses_of_a_disk_that_ignores_flushes(
    tmp_path: Path, recording: Recording, figure: Figure
) -> None:
    lying = Recording(recording.image, [event for event in recording.events if event.what != "flush"])
    found = crashes(lying, tmp_path, 20, seed=1)
    assert len(found) > 3
    figure(f"{len(found)} faults in 20 images")


@pytest.mark.campaign
@pytest.mark.fault(
    row=4, fault="power cut below the file system, by the thousand", injected="as above", holds="as above"
)
def test_power_cuts_below_ext4_by_the_thousand(tmp_path: Path, recording: Recording, figure: Figure) -> None:
    count = int(os.environ.get("COUNT") or 2_000)
    assert crashes(recording, tmp_path, count, seed=random.randrange(1 << 30)) == []
    figure(f"{count} images of {len(recording.events)} events: all mount, 0 lost")
