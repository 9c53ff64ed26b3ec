"""The Debian package is made once for all tests of this folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from systemd.package.__main__ import Made, package

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
