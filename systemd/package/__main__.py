"""`python -m systemd.package`: wheel, Debian package, offline bundle; `--resolve arm64` only looks."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from systemd.package import bundle, deb, sbom, wheelhouse
from systemd.package.wheelhouse import NotBuilt

if TYPE_CHECKING:
    from collections.abc import Sequence

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_KEY = "PONDWATCH_SIGNING_KEY"
_CONTACT = "PONDWATCH_SECURITY_CONTACT"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m systemd.package", description=__doc__)
    parser.add_argument("--out", type=Path, default=deb.ROOT / "dist", help="folder for what is made")
    parser.add_argument("--resolve", choices=_MACHINES, help="write down the wheels of that kind of machine")
    options = parser.parse_args(arguments)
    named = os.environ.get(_KEY)
    try:
        if options.resolve:
            return _resolve(options.out, options.resolve)
        return _build(options.out, Path(named) if named else None)
    except NotBuilt as error:
        print(f"package: {error}", file=sys.stderr)
        return 1


class Made(NamedTuple):
    version: str
    kind: str
    lock: Path
    own: Path
    wheels: list[Path]
    package: Path


def package(out: Path) -> Made:
    """The Debian package and what went into it.

    Raises:
        NotBuilt: with the reason.
    """
    kind = deb.architecture()
    if kind not in _MACHINES:
        raise NotBuilt(f"{kind} is no machine this package is made for: {', '.join(_MACHINES)}")
    os.environ.setdefault("SOURCE_DATE_EPOCH", _last_change())
    lock, own = _lock(out), _wheel(out)
    version = sbom.metadata(own)["Version"]
    wheels = wheelhouse.fill(out / "wheelhouse", lock, _MACHINES[kind])
    made = deb.build(out / "stage", [*wheels, own], version, out, os.environ.get(_CONTACT, ""))
    return Made(version, kind, lock, own, wheels, made)


def _last_change() -> str:
    """The time every file is given, so that the same sources give the same package."""
    command = ["git", "-C", str(deb.ROOT), "log", "-1", "--format=%ct"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 -- named here
    except (OSError, subprocess.CalledProcessError):
        return str(int((deb.ROOT / "CHANGELOG.md").stat().st_mtime))
    return done.stdout.strip()


def _lock(out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    lock = out / "requirements.lock"
    lock.write_text(wheelhouse.runtime((deb.ROOT / "requirements.lock").read_text()))
    return lock


def _wheel(out: Path) -> Path:
    """Our own wheel, made anew."""
    for old in out.glob("pondwatch-*.whl"):
        old.unlink()
    wheelhouse.pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", out, deb.ROOT)
    (own,) = out.glob("pondwatch-*.whl")
    return own


def _resolve(out: Path, kind: str) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        names = wheelhouse.resolve(_lock(out), _MACHINES[kind], Path(scratch))
    target = out / f"wheels-{kind}.txt"
    target.write_text("".join(f"{name}\n" for name in names))
    print(f"{target}: {len(names)} wheels, each by the hash in requirements.lock")
    return 0


def _build(out: Path, key: Path | None) -> int:
    began_s = time.monotonic()
    signer = bundle.signing_key(key)
    made = package(out)
    bill = out / "sbom.cdx.json"
    bill.write_text(json.dumps(sbom.bill([*made.wheels, made.own], made.version), indent=1) + "\n")
    files = [(each, f"wheelhouse/{each.name}") for each in made.wheels]
    files += [(each, each.name) for each in (made.lock, made.own, made.package, bill)]
    folder = out / f"pondwatch-{made.version}-{made.kind}"
    bundle.collect(folder, files, signer)
    packed = bundle.pack(folder, int(os.environ["SOURCE_DATE_EPOCH"]))
    for each in (made.own, made.package, packed):
        print(f"{each}  {each.stat().st_size / 1e6:.0f} MB")
    if key is None:
        print(f"signed with a key made for this bundle alone: name the publisher's with {_KEY}")
    if not os.environ.get(_CONTACT):
        print(f"SECURITY.md names no contact for weaknesses: a publisher gives one with {_CONTACT}")
    print(f"built in {time.monotonic() - began_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
