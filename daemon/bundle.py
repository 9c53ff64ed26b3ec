"""What somebody far away needs to see of a gateway, without any of its secrets.

Two nets, one behind the other. What is collected is chosen so that no secret is in it: the site file as
values without comments and with secret keys masked, folders as lists of names. Then every text is scrubbed
(`daemon/scrub.py`).
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import sqlite3
import stat
import subprocess
import tarfile
import time
import tomllib
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon import requests
from daemon.config import Site, SiteFileError
from daemon.keys import FOLDER
from daemon.requests import NotAnswered
from daemon.scrub import LEAST, files, lines_of, masked, named, scrubbed, told
from daemon.seal import HeadFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_MOST_TEXT: Final = 4 << 20
_JOURNAL_LINES: Final = "3000"
_COMMAND_S: Final = 15.0


class Bundle:
    """Collects; `write` makes the archive.

    Args:
        config: the site file, good or bad.
        run_dir: of the core's sockets.
        secrets: folder of keys and passwords; only its names are told.
    """

    def __init__(self, config: Path, run_dir: Path, secrets: Path) -> None:
        self._config = config
        self._run_dir = run_dir
        self._folder = secrets
        self._site: Site | None = None
        self._raw: dict[str, Any] = {}
        self.parts: dict[str, str] = {}
        self._trouble: dict[str, str] = {}

    def collect(self) -> None:
        """Every part by itself: what cannot be had is a sentence, and no reason to go without the rest."""
        self._part("check.txt", self._check)
        self._part("site.json", self._site_masked)
        self._part("versions.txt", _versions)
        self._part("status.json", lambda: self._asked(requests.Status()))
        self._part("present.json", lambda: self._asked(requests.Present()))
        self._part("modes.json", lambda: self._asked(requests.ModesList()))
        self._part("metrics.txt", lambda: self._page("/metrics"))
        self._part("healthz.txt", lambda: self._page("/healthz"))
        self._part("store.json", self._store)
        self._part("secrets.txt", lambda: _listed(self._folder))
        self._part("clock.txt", _clock)
        self._part("ports.txt", _ports)
        self._part("journal.txt", _journal)

    def write(self, to: Path) -> list[str]:
        """The archive, readable by its owner alone; the names of what is in it."""
        secrets = self._secrets()
        texts = {name: scrubbed(text[-_MOST_TEXT:], secrets) for name, text in self.parts.items()}
        lacks = "".join(f"{name}: {why}\n" for name, why in self._trouble.items())
        texts["missing.txt"] = scrubbed(lacks or "nothing is missing\n", secrets)
        with (
            os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
            tarfile.open(fileobj=file, mode="w:gz") as tar,
        ):
            for name, text in texts.items():
                body = text.encode(errors="replace")
                info = tarfile.TarInfo(f"pondwatch-doctor/{name}")
                info.size, info.mode, info.mtime = len(body), 0o600, int(time.time())
                tar.addfile(info, io.BytesIO(body))
        return list(texts)

    def _part(self, name: str, make: Callable[[], str]) -> None:
        try:
            self.parts[name] = make()
        except (OSError, NotAnswered, SiteFileError, subprocess.SubprocessError, sqlite3.Error) as error:
            self._trouble[name] = str(error).partition("\n")[0] or type(error).__name__

    # -- the site file -----------------------------------------------------------------------------------

    def _check(self) -> str:
        try:
            self._site = Site.load(self._config)
        except SiteFileError as error:
            return "\n".join(map(str, error.problems)) + "\n"
        warnings = "".join(f"warning: {warning}\n" for warning in self._site.warnings)
        return f"{warnings}no problem found\n"

    def _site_masked(self) -> str:
        """Its values, without comments: people write things into comments."""
        try:
            self._raw = tomllib.loads(self._config.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise OSError(0, f"{self._config} is not TOML: {error}") from None
        return json.dumps(masked(self._raw), ensure_ascii=False, indent=1, default=str)

    # -- the core ----------------------------------------------------------------------------------------

    def _asked(self, request: requests.Request) -> str:
        answer = requests.ask(self._run_dir / "control.sock", request)
        return msgspec.json.format(msgspec.json.encode(answer)).decode()

    def _page(self, path: str) -> str:
        if self._site is None:
            raise OSError(0, "the site file has mistakes")
        try:
            with urllib.request.urlopen(f"http://{self._site.metrics.listen}{path}", timeout=5) as reply:
                return str(reply.read(_MOST_TEXT).decode(errors="replace"))
        except urllib.error.HTTPError as error:  # 503 says what is ill
            return f"{error.code}\n{error.read(_MOST_TEXT).decode(errors='replace')}"

    # -- the store ---------------------------------------------------------------------------------------

    def _store(self) -> str:
        if self._site is None:
            raise OSError(0, "the site file has mistakes")
        folder = self._site.store_folder
        disk = os.statvfs(folder)
        about: dict[str, Any] = {
            "files": _listed(folder).splitlines(),
            "keys": _listed(folder / FOLDER).splitlines() if (folder / FOLDER).exists() else [],
            "disk_free_bytes": disk.f_bavail * disk.f_frsize,
            "inodes_free": disk.f_favail,
        }
        head = HeadFile.peek(folder / "head")
        about["head"] = None if head is None else {"stream": head.stream, "seq": head.seq}
        db = sqlite3.connect(f"file:{folder / 'spool.db'}?mode=ro", uri=True, timeout=5)
        try:
            ((about["schema"],),) = db.execute("PRAGMA user_version").fetchall()
            about["quick_check"] = [row[0] for row in db.execute("PRAGMA quick_check(5)")]
            ((about["last_loose_seq"],),) = db.execute("SELECT max(seq) FROM batch").fetchall()
        finally:
            db.close()
        return json.dumps(about, indent=1)

    # -- what must not leave -----------------------------------------------------------------------------

    def _secrets(self) -> list[str]:
        """Every secret of this machine that we can read, longest first."""
        found = {*told(self._raw)}
        places = [*files(self._folder), *(Path(name) for name in named(self._raw))]
        if self._site is not None:
            keys = files(self._site.store_folder / FOLDER)
            places += [path for path in keys if path.suffix in (".key", ".bad", ".new")]
        for path in places:
            found |= lines_of(path)
        return sorted((each for each in found if len(each) >= LEAST), key=len, reverse=True)


# -- the machine -------------------------------------------------------------------------------------------


def _versions() -> str:
    lines = [
        f"{name} {metadata.version(name)}"
        for name in sorted({d.metadata["Name"] for d in metadata.distributions()})
    ]
    about = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "sqlite": sqlite3.sqlite_version,
        "processors": str(os.cpu_count()),
    }
    release = Path("/etc/os-release")
    os_name = (
        re.findall(r'^PRETTY_NAME="?([^"\n]*)', release.read_text(), re.MULTILINE) if release.exists() else []
    )
    head = [
        *(f"{key} {value}" for key, value in about.items()),
        *(f"distribution {name}" for name in os_name),
    ]
    return "\n".join([*head, "", *lines]) + "\n"


def _listed(folder: Path) -> str:
    """Names, sizes, modes, owners; no content."""
    rows = []
    for path in sorted(folder.iterdir()):
        about = path.lstat()
        rows.append(
            f"{stat.filemode(about.st_mode)} {about.st_uid}:{about.st_gid} {about.st_size} {path.name}"
        )
    return "\n".join(rows) + "\n"


def _clock() -> str:
    up = Path("/proc/uptime").read_text().split()[0]
    said = f"wall {time.time():.3f}  monotonic {time.monotonic():.3f}  up {up} s\n"
    for command in (["timedatectl", "show"], ["chronyc", "-n", "tracking"]):
        said += _said(command)
    return said


def _ports() -> str:
    rows = []
    for pattern in ("dev/pondwatch/*", "dev/serial/by-id/*", "dev/ttyUSB*", "dev/ttyACM*", "dev/ttyS*"):
        for path in sorted(Path("/").glob(pattern)):
            about = path.stat()
            rows.append(
                f"{path} -> {path.resolve()} {stat.filemode(about.st_mode)} {about.st_uid}:{about.st_gid}"
            )
    listening = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":  # TCP_LISTEN, include/net/tcp_states.h
                listening.append(f"{name} {int(local.rpartition(':')[2], 16)}")
    return "\n".join(["serial ports:", *rows, "listening:", *sorted(set(listening))]) + "\n"


def _journal() -> str:
    if shutil.which("journalctl") is None:
        raise OSError(0, "there is no journalctl on this machine")
    units = ["--unit=pondwatch", "--unit=pondwatch-rules", "--unit=pondwatch-page"]
    return _said(["journalctl", *units, "--no-pager", "--output=short-iso", f"--lines={_JOURNAL_LINES}"])


def _said(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    if shutil.which(command[0]) is None:
        return f"$ {command[0]} is not here\n"
    done = subprocess.run(  # noqa: S603 -- fixed commands
        command,
        capture_output=True,
        timeout=_COMMAND_S,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    return f"$ {' '.join(command)}\n{(done.stdout + done.stderr).decode(errors='replace')}\n"
