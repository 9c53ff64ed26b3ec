"""The Debian package: a venv of its own under /opt/pondwatch, units, user, folders, port names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from systemd.package.wheelhouse import PYTHON, NotBuilt, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
_DEBIAN = Path(__file__).with_name("debian")
_VENV = Path("opt/pondwatch/venv")
_DOC = "usr/share/doc/pondwatch"
_UNITS = ("pondwatch.service", "pondwatch-rules.service", "pondwatch-page.service")
_PORTS = "usr/share/pondwatch/60-pondwatch-ports.rules"
_SCRIPT = """#!/opt/pondwatch/venv/bin/python3 -I
import sys
from daemon.commands import main
sys.exit(main())
"""


def architecture() -> str:
    return _said("dpkg", "--print-architecture").strip()


def build(stage: Path, wheels: Iterable[Path], version: str, out: Path, contact: str = "") -> Path:
    """The package file in `out`; `stage` is emptied and holds the tree that went into it.

    `contact`: where a weakness is told to the publisher, as a mailto: or https: address.
    """
    shutil.rmtree(stage, ignore_errors=True)
    _venv(stage, wheels)
    _files(stage)
    _put(stage / _DOC / "SECURITY.md", security((ROOT / "SECURITY.md").read_text(), contact))
    _control(stage, version)
    return pack(stage, out / f"pondwatch_{version}_{architecture()}.deb")


def security(text: str, contact: str) -> str:
    """SECURITY.md with the publisher's address in it; as it is without one.

    Raises:
        NotBuilt: that is no address.
    """
    if not contact:
        return text
    if not re.fullmatch(r"(mailto:[^\s@]+@|https://)[^\s@]+", contact):
        raise NotBuilt(f"{contact!r} is no contact: give a mailto: or https: address")
    named, count = re.subn(r"\*\*Contact:\*\*.*?\n\n", f"**Contact:** <{contact}>\n\n", text, flags=re.DOTALL)
    assert count == 1, "SECURITY.md has one place for it"
    return named


def pack(stage: Path, target: Path, level: int = 3) -> Path:
    """The tree as a package. dpkg-deb takes no time later than SOURCE_DATE_EPOCH into it, and sorts."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _said("dpkg-deb", "--root-owner-group", "-Zzstd", f"-z{level}", "--build", str(stage), str(target))
    return target


def _venv(stage: Path, wheels: Iterable[Path]) -> None:
    """A venv without pip, written as the venv module writes it, for Debian's own Python: nothing in it names
    the machine it was built on.
    """
    venv = stage / _VENV
    packages = venv / "lib" / f"python{PYTHON}" / "site-packages"
    (venv / "bin").mkdir(parents=True)
    for name in ("python", "python3"):
        (venv / "bin" / name).symlink_to(f"/usr/bin/python{PYTHON}")
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    unpack(wheels, packages)
    script = venv / "bin" / "pondwatch"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    # nothing can write there once it runs, so the bytecode comes along; by hash, since dpkg sets the times
    names = (
        "-q",
        "-j0",
        "-x",
        "/tests/",
        "--invalidation-mode",
        "unchecked-hash",
        "-s",
        str(stage),
        "-p",
        "/",
    )
    _said(f"/usr/bin/python{PYTHON}", "-m", "compileall", *names, str(packages), good=(0, 1))


def _files(stage: Path) -> None:
    units = ROOT / "systemd"
    places = {
        units / "pondwatch.sysusers.conf": "usr/lib/sysusers.d/pondwatch.conf",
        units / "pondwatch.tmpfiles.conf": "usr/lib/tmpfiles.d/pondwatch.conf",
        ROOT / "config" / "site.example.toml": f"{_DOC}/site.example.toml",
        units / "60-pondwatch-ports.rules": f"{_DOC}/60-pondwatch-ports.rules",
        ROOT / "CHANGELOG.md": f"{_DOC}/CHANGELOG.md",
        ROOT / "README.md": f"{_DOC}/README.md",
        ROOT / "README.zh-CN.md": f"{_DOC}/README.zh-CN.md",
    } | {units / name: f"lib/systemd/system/{name}" for name in _UNITS}
    for source, place in places.items():
        _put(stage / place, source.read_text())
    # a site without internet reads them there; alert rules and dashboards too
    shutil.copytree(ROOT / "docs", stage / _DOC / "docs")
    for folder in ("prometheus", "grafana"):
        shutil.copytree(ROOT / "config" / folder, stage / _DOC / folder)
    # The first installation puts it into /etc and none touches it again: dpkg asks about a file that both
    # sides changed, and an upgrade that nobody sits at ends at the question, with the services stopped. The
    # examples in it are comments: they would give names to ports nobody asked about.
    rules = (units / "60-pondwatch-ports.rules").read_text()
    _put(stage / _PORTS, re.sub(r"^(?=[^#\n].*SYMLINK\+=)", "#", rules, flags=re.MULTILINE))
    (stage / "etc/pondwatch/secrets").mkdir(parents=True)
    (stage / "usr/bin").mkdir(parents=True)
    (stage / "usr/bin/pondwatch").symlink_to("/opt/pondwatch/venv/bin/pondwatch")


def _put(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def _control(stage: Path, version: str) -> None:
    # of files alone: what a folder takes differs from disk to disk, and the package must not
    size_kib = sum(path.lstat().st_size for path in stage.rglob("*") if path.is_file()) >> 10
    control = (_DEBIAN / "control").read_text()
    for key, value in (("VERSION", version), ("ARCHITECTURE", architecture()), ("SIZE", str(size_kib))):
        control = control.replace(f"@{key}@", value)
    for path in (stage, *stage.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    (stage / "etc/pondwatch").chmod(0o750)
    (stage / "etc/pondwatch/secrets").chmod(0o700)
    _put(stage / "DEBIAN" / "control", control)
    for name in ("postinst", "prerm", "postrm"):
        _put(stage / "DEBIAN" / name, (_DEBIAN / name).read_text())
        (stage / "DEBIAN" / name).chmod(0o755)
    (stage / "DEBIAN").chmod(0o755)


def _said(*command: str, good: tuple[int, ...] = (0,)) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- named here
    except FileNotFoundError:
        raise NotBuilt(f"{command[0]} is not installed: the package is built on Debian 12") from None
    if done.returncode not in good:
        raise NotBuilt(f"{command[0]}: {(done.stderr.strip() or done.stdout.strip())[-500:]}")
    return done.stdout
