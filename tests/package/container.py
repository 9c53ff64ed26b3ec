"""A Debian that a real systemd boots, in a container without a network: `systemd-nspawn` over an overlay.

The tree underneath is not changed: what is written lies in memory and goes with the container. Commands are run inside by
entering its namespaces. Wants root, systemd-nspawn and a kernel with overlayfs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
CGROUPS = Path("/sys/fs/cgroup")
# In a mount namespace of its own, so that every mount goes with the last process in it.
BOOT = """
mount -t tmpfs -o size=2G tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
shift 2
exec systemd-nspawn --directory="$OLDPWD/root" "$@"
"""


def can_boot() -> str:
    """Why no container can be booted here; empty: one can."""
    if os.geteuid() != 0:
        return "not root: a container wants root"
    for program in ("systemd-nspawn", "nsenter", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: systemd-container, util-linux)"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "this kernel has no overlayfs"
    if not _unified().joinpath("cgroup.procs").exists() or not os.access(_unified(), os.W_OK):
        return "there is no cgroup v2 hierarchy that can be written"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"nothing may be mounted here: {tried.stderr.strip()}" if tried.returncode else ""


def _unified() -> Path:
    return CGROUPS if (CGROUPS / "cgroup.procs").exists() else CGROUPS / "unified"


def _hierarchies() -> list[Path]:
    both = [_unified(), CGROUPS / "systemd"]
    return [each for each in both if (each / "cgroup.procs").exists()]


def until(look: Callable[[], Any], what: str, within_s: float = 60.0) -> Any:
    """Look again and again until there is something to see; what was seen."""
    deadline_s = time.monotonic() + within_s
    while True:
        with contextlib.suppress(subprocess.CalledProcessError):
            if seen := look():
                return seen
        if time.monotonic() > deadline_s:
            pytest.fail(f"not seen within {within_s:g} s: {what}")
        time.sleep(0.1)


class Container:
    """`given`: folders of this machine that are seen inside, read only, under another name."""

    def __init__(self, lower: Path, folder: Path, given: Mapping[Path, str]) -> None:
        self._lower = lower
        self._folder = folder
        self._given = given
        self._name = f"pondwatch-test-{os.getpid()}-{time.monotonic_ns() % 10**9}"
        self._console = folder.with_suffix(".console")
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._first = 0

    def __enter__(self) -> Self:
        self._folder.mkdir()
        for each in _hierarchies():
            (each / self._name).mkdir()
        try:
            self._boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _boot(self) -> None:
        options = ["--boot", "--register=no", "--keep-unit", "--private-network", "--link-journal=no"]
        options += [f"--machine={self._name}", "--console=pipe"]
        options += [f"--bind-ro={here}:{there}" for here, there in self._given.items()]
        with self._console.open("wb") as out:
            self._nspawn = subprocess.Popen(
                ["unshare", "--mount", "sh", "-ec", BOOT.replace("$OLDPWD", str(self._folder)), "sh", str(self._folder),
                 str(self._lower), *options, "systemd.unit=basic.target", "systemd.mask=systemd-udevd.service"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                preexec_fn=self._join,  # noqa: PLW1509 -- this process has no thread that holds a lock
            )  # fmt: skip
        self._first = until(self._pid_1, f"systemd in the container; {self._console.read_text()[-500:]}")
        until(lambda: self.says("systemctl", "is-active", "basic.target") == "active", "it is booted")

    def _join(self) -> None:
        for each in _hierarchies():
            (each / self._name / "cgroup.procs").write_text(str(os.getpid()))

    def _pid_1(self) -> int | None:
        """The child of nspawn that has become systemd."""
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            pytest.fail(f"the container ended: {self._console.read_text()[-2000:]}")
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        for child in map(int, children):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    return child
        return None

    def run(
        self, *command: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        enter = [
            "nsenter",
            f"--target={self._first}",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--root",
        ]
        done = subprocess.run(
            [*enter, "--wd", "--", *command],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL": "C.UTF-8",
                "DEBIAN_FRONTEND": "noninteractive",
            },
        )
        if check and done.returncode != 0:
            raise Failed(done.returncode, command, done.stdout)
        return done

    def says(self, *command: str) -> str:
        """Its output whatever it ends with."""
        return self.run(*command, check=False).stdout.strip()

    def write(self, path: str, text: str) -> None:
        self.run("tee", path, stdin=text)

    def property(self, unit: str, name: str) -> str:
        return self.says("systemctl", "show", "--value", "--property", name, unit)

    def journal(self, unit: str) -> str:
        return self.says("journalctl", "--no-pager", "--output=cat", "--unit", unit)

    def __exit__(self, *_: object) -> None:
        if self._first:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._first, signal.SIGKILL)  # pid 1 of its namespace: everything inside ends with it
        if self._nspawn is not None:
            self._nspawn.kill()
            self._nspawn.wait()
        for each in _hierarchies():
            until(partial(_removed, each / self._name), "the container's cgroups are empty", 20)
        with contextlib.suppress(OSError):
            self._folder.rmdir()


class Failed(subprocess.CalledProcessError):
    """As CalledProcessError, with what the command said."""

    def __str__(self) -> str:
        return f"{' '.join(self.cmd)} ended with {self.returncode}:\n{self.output[-3000:]}"


def _removed(group: Path) -> bool:
    try:
        for folder in sorted(_inside(group), key=lambda each: len(each.parts), reverse=True):
            folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _inside(group: Path) -> Iterator[Path]:
    return (Path(folder) for folder, _, _ in os.walk(group))


def mirrors() -> list[str]:
    """Where this machine's own apt gets Debian from, as lines of a sources.list; nothing else is asked."""
    said = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout  # fmt: skip
    found = re.findall(r"^Debian (\S+) (bookworm\S*) (main)$", said, re.MULTILINE)
    return sorted({f"deb {place} {release} {component}" for place, release, component in found})
