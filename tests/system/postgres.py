"""A PostgreSQL of our own: Debian's server in a folder that goes with the test, and Debian's psql to read it back."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from tests.system.running import PATH

if TYPE_CHECKING:
    from collections.abc import Iterator

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
PSQL = shutil.which("psql", path=PATH)
NOBODY = "nobody"

wants_postgres = pytest.mark.skipif(
    not BINARIES or PSQL is None or (os.geteuid() == 0 and shutil.which("setpriv", path=PATH) is None),
    reason="PostgreSQL is not installed: apt-get install postgresql",
)


class Postgres:
    """`with Postgres() as postgres:` runs it until the end of the block; it listens on a Unix socket alone.

    It refuses to run as root, so there it runs as nobody, in a folder of nobody's.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pondwatch-postgres-"))
        self._as: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam(NOBODY)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def __enter__(self) -> Self:
        try:
            self._run("initdb", "-D", self.data, "-U", "pond", "-A", "trust", "-E", "UTF8", "--no-sync")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if (Path(self.data) / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def data(self) -> str:
        return f"{self.folder}/data"

    def start(self) -> None:
        server = f"-k {self.folder} -c listen_addresses='' -c max_connections=40 -c shared_buffers=64MB"
        self._run("pg_ctl", "-D", self.data, "-w", "-l", f"{self.folder}/log", "-o", server, "start")

    def stop(self, how: str = "fast") -> None:
        """`immediate` is a crash: the next start recovers from its log."""
        self._run("pg_ctl", "-D", self.data, "-w", "-m", how, "stop")

    def fresh(self) -> str:
        """Its database, with nothing in it of before; how libpq finds it."""
        self.psql("SET client_min_messages TO warning; DROP SCHEMA IF EXISTS pondwatch CASCADE")
        return self.conninfo

    @property
    def conninfo(self) -> str:
        return f"host={self.folder} user=pond dbname=postgres"

    def psql(self, query: str) -> list[list[str]]:
        """What psql prints, as rows of fields."""
        command = [str(PSQL), "-X", "-At", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", self.conninfo]
        done = subprocess.run(
            [*command, "-c", query],
            env={**os.environ, "PGOPTIONS": "-c search_path=pondwatch,public"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]

    def pid(self) -> int:
        return int((Path(self.data) / "postmaster.pid").read_text().split()[0])

    def _run(self, program: str, *words: str) -> None:
        command = [*self._as, str(BINARIES[-1] / program), *words]
        quiet = subprocess.DEVNULL
        done = subprocess.run(
            command, stdin=quiet, stdout=quiet, stderr=subprocess.PIPE, text=True, cwd="/", check=False
        )
        assert done.returncode == 0, f"{program}: {done.stderr}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all; each test begins with `fresh`."""
    with Postgres() as running:
        yield running
