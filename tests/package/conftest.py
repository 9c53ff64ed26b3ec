"""The Debian package is made once for all tests of this folder, and booted in a container once for each module."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING

import pytest

from systemd.package.__main__ import Made, package
from tests.package.container import can_boot, mirrors
from tests.package.gateway import CORE, RULES, SITE, Gateway

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed: Debian packages are made on Debian")
    if not Path("/usr/bin/python3.11").exists():
        pytest.skip("Debian 12's own Python 3.11 is not installed: the package is made for it")
    with TemporaryDirectory(dir=_roomy(tmp_path_factory.getbasetemp())) as folder:  # a gigabyte
        yield package(Path(folder))


def _roomy(otherwise: Path) -> Path:
    """In memory where there is plenty: some disks take a minute to write and delete this much."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 4e9 else otherwise


@pytest.fixture(scope="session")
def tree(made: Made) -> Path:
    """What the package holds, as dpkg unpacks it, with its control files under DEBIAN."""
    folder = made.package.with_name("unpacked")
    subprocess.run(["dpkg-deb", "--raw-extract", made.package, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def booted(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """This machine's own Debian, seen through an overlay."""
    if why := can_boot():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("gateway") / "container"
    with Gateway(Path("/"), folder, {made.package.parent: "/mnt"}) as gateway:
        yield gateway


@pytest.fixture
def gateway(booted: Gateway, made: Made) -> Gateway:
    """With the package, polling the bench; put right again whatever the test before left."""
    installed = booted.says("dpkg-query", "--show", "--showformat=${Status} ${Version}", "pondwatch")
    if installed != f"install ok installed {made.version}":
        booted.run("dpkg", "--install", f"/mnt/{made.package.name}")
    booted.start_bench()
    booted.drop_in(f"Environment=PONDWATCH_BENCH_CLOCK={booted.facts['clock']}")
    booted.write(SITE, booted.site())
    booted.run("systemctl", "start", CORE, RULES)
    booted.polls()
    return booted


@pytest.fixture(scope="session")
def bare() -> Path:
    """A Debian 12 with systemd and nothing else, made once; what python3 needs lies ready, as on a medium."""
    if why := can_boot():
        pytest.skip(why)
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    folder = Path(gettempdir()) / f"pondwatch-debian-12-{os.geteuid()}"
    if not folder.exists():
        half = folder.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        ready = 'chroot "$1" apt-get install --download-only --yes --option APT::Install-Recommends=1 python3 udev'
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", "--include=systemd-sysv,dbus", "--skip=cleanup/apt",
             f"--customize-hook={ready}", "bookworm", half, *mirrors()],
            check=True,
        )  # fmt: skip
        half.rename(folder)
    return folder
