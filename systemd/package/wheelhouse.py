"""The wheels a gateway needs, each by the hash that the lock names; for this machine's kind or another."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from systemd.package.sbom import metadata, sha256

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from packaging.version import Version

PYTHON = "3.11"  # of Debian 12
_GLIBC = range(17, 37)  # manylinux tags that the glibc 2.36 of Debian 12 can take


class NotBuilt(Exception):
    """What was wanted cannot be made, in one sentence."""


def runtime(lock: str, roots: Iterable[str] | None = None) -> str:
    """The part of the lock that a gateway needs: what `pondwatch` requires, and what that requires."""
    blocks: dict[str, str] = {}
    for block in re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE):
        name, pinned, _ = block.partition("==")
        if pinned:  # a name may be there twice, for one Python and for another: pip takes the one for its own
            blocks[canonicalize_name(name)] = blocks.get(canonicalize_name(name), "") + block
    wanted: list[str] = []
    ahead = [*(roots if roots is not None else _required("pondwatch"))]
    while ahead:
        name = ahead.pop()
        if name in wanted:
            continue
        if name not in blocks:
            raise NotBuilt(f"requirements.lock has no {name}: run make lock")
        wanted.append(name)
        ahead += _required(name)
    return "".join(block for name, block in blocks.items() if name in wanted)


def _required(name: str) -> list[str]:
    return [canonicalize_name(each.name) for each in _asked(requires(name) or [])]


def _asked(lines: Iterable[str]) -> list[Requirement]:
    found = map(Requirement, lines)
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]


def pip(*arguments: str | Path) -> str:
    """What pip says on stdout.

    Raises:
        NotBuilt: it did not work; with pip's own last sentence.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own pip
    if done.returncode != 0:
        raise NotBuilt((done.stderr.strip().splitlines() or ["pip failed and says nothing"])[-1])
    return done.stdout


def _for(machine: str) -> list[str]:
    tags = [*(f"manylinux_2_{minor}_{machine}" for minor in reversed(_GLIBC)), f"manylinux2014_{machine}"]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    return [*platforms, "--python-version", PYTHON, "--only-binary", ":all:", "--no-deps"]


def fill(folder: Path, lock: Path, machine: str) -> list[Path]:
    """Every wheel of `lock` in `folder`, and nothing else; what is there already is not fetched again."""
    folder.mkdir(parents=True, exist_ok=True)
    hashes = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock.read_text()))
    for wheel in folder.iterdir():
        if wheel.suffix != ".whl" or sha256(wheel) not in hashes:
            wheel.unlink()
    wanted: list[str | Path] = ["--quiet", "--require-hashes", "-r", lock, "-d", folder, *_for(machine)]
    try:
        pip("download", "--no-index", "--find-links", folder, *wanted)
    except NotBuilt:
        pip("download", *wanted)
    wheels = sorted(folder.glob("*.whl"))
    wholly(wheels)
    return wheels


def resolve(lock: Path, machine: str, scratch: Path) -> list[str]:
    """The names of the wheels that another kind of machine would be given; every one must exist."""
    words = ("--dry-run", "--quiet", "--ignore-installed", "--report", "-", "--require-hashes")
    said = pip("install", *words, "--target", scratch, "-r", lock, *_for(machine))
    urls = [item["download_info"]["url"] for item in json.loads(said)["install"]]
    return sorted(url.rpartition("/")[2] for url in urls)


def wholly(wheels: Iterable[Path]) -> None:
    """Nothing that a wheel asks for is missing among them.

    Raises:
        NotBuilt: something is; with its name and who asks.
    """
    there: dict[str, Version] = {}
    asked: list[tuple[str, Requirement]] = []
    for wheel in wheels:
        name, version, _, _ = parse_wheel_filename(wheel.name)
        there[name] = version
        asked += [(wheel.name, each) for each in _asked(metadata(wheel).get_all("Requires-Dist", []))]
    for asker, each in asked:
        found = there.get(canonicalize_name(each.name))
        if found is None or not each.specifier.contains(found, prereleases=True):
            raise NotBuilt(f"{asker} needs {each}, and beside it is {found or 'none'}: run make lock")


def unpack(wheels: Iterable[Path], packages: Path) -> None:
    """Wheels as a site-packages folder, without commands of theirs: those name another Python."""
    packages.mkdir(parents=True)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                _, data, rest = name.partition(".data/")
                if data and not rest.startswith("scripts/"):
                    raise NotBuilt(f"{wheel.name} wants {rest} outside site-packages, which is not foreseen")
            archive.extractall(packages, [n for n in archive.namelist() if ".data/" not in n])
