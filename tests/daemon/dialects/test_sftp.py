"""Files by SFTP into a real OpenSSH server."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from daemon.clock import Clock
from daemon.spool import Spool
from daemon.uplink.dialect_uplink import DialectUplink
from daemon.uplink.dialects import build
from hardware_sim.ports import free_port
from tests.daemon.dialects import reading, readings, table, whole
from tests.daemon.dialects.test_tailings_files import POINTS, measured, moments
from tests.system.running import PATH, Program, listens, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SSHD = shutil.which("sshd", path=PATH)
SERVER = Path("/usr/lib/openssh/sftp-server")
STICKY = Path(__file__).with_name("sticky_sftp.py")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(
        SSHD is None or not SERVER.exists(), reason="sshd is not installed: apt-get install openssh-server"
    ),
]


class Server(Program):
    """An sshd of our own, for one key and nothing but SFTP; a second one of a folder has the same keys."""

    def __init__(self, folder: Path, options: str = "", program: str = str(SERVER)) -> None:
        self.port = free_port()
        self.inbox = folder / "inbox"
        self.inbox.mkdir(exist_ok=True)
        for name in ("host", "strange", "ours"):
            if not (folder / name).exists():
                command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
                subprocess.run(command, check=True)
        for known, key in (("known_hosts", "host"), ("wrong_hosts", "strange")):
            public = (folder / f"{key}.pub").read_text()
            with (folder / known).open("a") as lines:
                lines.write(f"[127.0.0.1]:{self.port} {public}")
        (folder / "authorized").write_text((folder / "ours.pub").read_text())
        config = folder / f"sshd_config_{self.port}"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {folder}/authorized\nPasswordAuthentication no\nUsePAM no\nPermitRootLogin yes\n"
            f"Subsystem sftp {SERVER}\nForceCommand {program} {options}\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd separates its privileges
        super().__init__([str(SSHD), "-D", "-e", "-f", str(config)], folder / f"sshd_{self.port}.log")

    async def start(self) -> None:
        await super().start()
        await self.ready(lambda: listens(self.port), "sshd")

    def to_all(self, number: signal.Signals) -> None:
        """To the server and the sessions, which lead process groups of their own."""
        for pid in [self.pid, *_below(self.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def to_all_sessions(self, number: signal.Signals) -> None:
        """To what the server has started, not to itself."""
        for pid in _below(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self.to_all(signal.SIGKILL)
        await super().kill()


def _below(pid: int) -> list[int]:
    children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(lower for child in children for lower in _below(child))]


@asynccontextmanager
async def sending(
    spool: Spool, folder: Path, port: int, known: str = "known_hosts"
) -> AsyncIterator[DialectUplink]:
    settings: dict[str, Any] = {
        "id": "province",
        "project": "P1",
        "project_name": "北库",
        "folder": f"sftp://{getpass.getuser()}@127.0.0.1:{port}{folder}/inbox",
        "key": str(folder / "ours"),
        "host_key": str(folder / known),
        "ack_deadline": "2 s",
        "point": POINTS,
    }
    site = whole({"site": {"id": "s", "gateway": "g"}, "uplink": [{"kind": "tailings-files", **settings}]})
    dialect = build(site.uplinks[0], site, Clock())  # type: ignore[arg-type]
    uplink = DialectUplink(table("tailings-files", settings), dialect, spool, Clock(), reconnect_most_s=0.2)
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_every_reading_is_in_a_file_once_though_the_server_dies_stalls_and_comes_back(
    tmp_path: Path,
) -> None:
    times = list(moments(60))
    async with Server(tmp_path) as server, Spool.open(tmp_path / "store", "real", "boot") as spool:
        async with sending(spool, tmp_path, server.port) as uplink:

            async def settled() -> bool:
                return (await uplink.unsettled()).batches == 0

            async def commit(some: range) -> None:
                for n in some:
                    await spool.commit([readings(reading("n.pond.level", 84 + n / 1000, times[n]))])

            await commit(range(20))
            await until(settled, "the first part")
            await server.kill()
            await commit(range(20, 40))
            await until(lambda: not uplink.connected, "it sees that the server is gone")
            await server.start()
            await until(settled, "the second part")
            server.to_all(signal.SIGSTOP)  # takes connections, answers nothing
            await commit(range(40, 60))
            await until(lambda: not uplink.connected, "it gives the silent connection up")
            server.to_all(signal.SIGCONT)
            await until(settled, "the rest")
        await server.kill()
    values = Counter(value for _, _, value in set(measured(server.inbox)))
    assert values == {f"{84 + n / 1000:.3f}": 1 for n in range(60)}
    definitions = list(server.inbox.glob("wkk/P1_KSWDY_*.txt"))
    assert definitions
    assert all(file.read_text().endswith("~||") for file in server.inbox.glob("wkk/*.txt"))


@pytest.mark.parametrize("where", ["start", "rename", "renamed"])
async def test_a_server_that_is_stuck_is_given_up_and_costs_no_reading(tmp_path: Path, where: str) -> None:
    times, told = list(moments(20)), tmp_path / "stuck"
    told.write_text("")
    sticky = f"{sys.executable} {STICKY} {SERVER} {told}"
    async with (
        Server(tmp_path, program=sticky) as server,
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        sending(spool, tmp_path, server.port) as uplink,
    ):

        async def settled() -> bool:
            return (await uplink.unsettled()).batches == 0

        async def commit(some: range) -> None:
            for n in some:
                await spool.commit([readings(reading("n.pond.level", 84 + n / 1000, times[n]))])

        await commit(range(10))
        await until(settled, "the first part")
        told.write_text(where)
        if where != "start":
            await commit(range(10, 15))
            await until(lambda: "no acknowledgement" in uplink._trouble, "it gives up what is live")
        server.to_all_sessions(signal.SIGKILL)  # the next one begins with the definitions
        await until(lambda: "no answer to what was asked" in uplink._trouble, "it gives up what is new")
        assert not uplink.connected
        await commit(range(15 if where != "start" else 10, 20))
        told.write_text("")
        await until(settled, "the rest")
    values = Counter(value for _, _, value in set(measured(server.inbox)))
    assert values == {f"{84 + n / 1000:.3f}": 1 for n in range(20)}
    assert not list(server.inbox.rglob("*.part"))


async def test_a_server_with_another_key_gets_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Server(tmp_path) as server, Spool.open(tmp_path / "store", "real", "boot") as spool:
        await spool.commit([readings(reading("n.pond.level", 84.0, "2026-11-26T04:00:00.000Z"))])
        async with sending(spool, tmp_path, server.port, known="wrong_hosts") as uplink:
            await until(lambda: "Host key is not trusted" in caplog.text, "it says why")
            assert (await uplink.unsettled()).batches == 1
        assert not list(server.inbox.rglob("*"))


def test_the_core_loads_no_ssh_unless_a_site_file_names_sftp() -> None:
    program = "import sys, daemon.app; sys.exit(any(m.split('.')[0] in ('asyncssh', 'google') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
