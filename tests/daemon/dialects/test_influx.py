"""Line protocol over HTTPS into a real InfluxDB, and what each answer of a server means for a batch."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import shutil
import signal
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from daemon.clock import Clock
from daemon.spool import Spool
from daemon.uplink.dialect_uplink import DialectUplink
from daemon.uplink.dialects import build
from hardware_sim.ports import free_port
from tests.daemon.dialects import alarm, reading, readings, table, whole
from tests.daemon.dialects.test_tailings_files import moments
from tests.daemon.test_mqtt_peer import certificate
from tests.system.running import PATH, Program, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

INFLUXD = shutil.which("influxd", path=PATH)
real = [
    pytest.mark.peer,
    pytest.mark.skipif(INFLUXD is None, reason="influxd is not installed: apt-get install influxdb"),
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held back is tried again soon."""
    monkeypatch.setattr("daemon.uplink.contract._RETRY_MOST_S", 0.05)


class Server(Program):
    """An influxd of our own: TLS, names and passwords."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        for name, issuer in (("ca", None), ("server", "ca"), ("strange", None)):
            certificate(name, folder, issuer, server=name == "server")
        (folder / "password").write_text("correct horse\n")
        config = folder / "influxdb.conf"
        config.write_text(
            f"""reporting-disabled = true
bind-address = "127.0.0.1:{free_port()}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
[monitor]
store-enabled = false
[http]
bind-address = "127.0.0.1:{self.port}"
auth-enabled = true
https-enabled = true
https-certificate = "{folder}/server.pem"
https-private-key = "{folder}/server.key"
"""
        )
        self._tls = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        super().__init__([str(INFLUXD), "-config", str(config)], folder / "influxd.log")

    async def start(self) -> None:
        await super().start()
        await self.ready(lambda: asyncio.to_thread(self.there), "influxd")

    def there(self) -> bool:
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"https://127.0.0.1:{self.port}/ping", context=self._tls, timeout=5)
        return True

    def _ask(self, path: str, **form: str) -> bytes:
        url = f"https://127.0.0.1:{self.port}{path}"
        secret = base64.b64encode(b"gw1:correct horse").decode()
        asked = urllib.request.Request(url, headers={"Authorization": f"Basic {secret}"})
        body = form.pop("body", None) or urllib.parse.urlencode(form)
        with urllib.request.urlopen(asked, body.encode(), timeout=20, context=self._tls) as answer:
            its: bytes = answer.read()
            return its

    def write(self, line: str) -> None:
        self._ask("/write?db=ponds", body=line)

    def rows(self, query: str) -> list[dict[str, Any]]:
        """One dict a row; tags are there too."""
        said = json.loads(self._ask("/query", db="ponds", epoch="ns", q=query))["results"][0]
        assert "error" not in said, said
        return [
            dict(zip(series["columns"], row, strict=True))
            for series in said.get("series", [])
            for row in series["values"]
        ]


@asynccontextmanager
async def influxd(folder: Path) -> AsyncIterator[Server]:
    async with Server(folder) as server:
        for query in (
            "CREATE USER gw1 WITH PASSWORD 'correct horse' WITH ALL PRIVILEGES",
            "CREATE DATABASE ponds",
        ):
            await asyncio.to_thread(server.rows, query)
        yield server


@asynccontextmanager
async def sending(spool: Spool, url: str, **settings: Any) -> AsyncIterator[DialectUplink]:
    its = {"id": "history", "url": url, "ack_deadline": "2 s", **settings}
    site = whole({"site": {"id": "s", "gateway": "g"}, "uplink": [{"kind": "influx", **its}]})
    dialect = build(site.uplinks[0], site, Clock())  # type: ignore[arg-type]
    uplink = DialectUplink(table("influx", its), dialect, spool, Clock(), reconnect_most_s=0.2)
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def secured(folder: Path, port: int) -> dict[str, Any]:
    return {
        "url": f"https://127.0.0.1:{port}/write?db=ponds",
        "ca": str(folder / "ca.pem"),
        "username": "gw1",
        "password_file": str(folder / "password"),
    }


async def settled(uplink: DialectUplink, but: int = 0) -> bool:
    return (await uplink.unsettled()).batches == but


class TestWithInfluxdb:
    pytestmark = real

    async def test_every_reading_is_one_point_though_the_server_dies_stalls_and_all_is_sent_twice(
        self, tmp_path: Path
    ) -> None:
        times = list(moments(60))
        async with influxd(tmp_path) as server, Spool.open(tmp_path / "store", "real", "boot") as spool:

            async def commit(some: range) -> None:
                for n in some:
                    await spool.commit(
                        [
                            readings(
                                reading("n.pond.level", 84 + n / 1000, times[n]),
                                reading("n.rain.1h", n, times[n]),
                            )
                        ]
                    )

            async with sending(spool, **secured(tmp_path, server.port)) as uplink:
                await commit(range(20))
                await until(lambda: settled(uplink), "the first part")
                await server.kill()
                await commit(range(20, 40))
                await until(lambda: not uplink.connected, "it sees that the server is gone")
                await server.start()
                await until(lambda: settled(uplink), "the second part")
                server.send(signal.SIGSTOP)  # takes connections, answers nothing
                await commit(range(40, 60))
                await until(lambda: not uplink.connected, "it gives the silent connection up")
                server.send(signal.SIGCONT)
                await until(lambda: settled(uplink), "the rest")
            async with sending(spool, **secured(tmp_path, server.port), id="again") as uplink:
                await until(lambda: settled(uplink), "all of it once more")
            level = "SELECT * FROM reading WHERE channel='n.pond.level'"
            rows = await asyncio.to_thread(server.rows, level)
            assert [row["value"] for row in rows] == [84 + n / 1000 for n in range(60)]
            assert {(row["unit"], row["mode"], row["site"], row["gateway"]) for row in rows} == {
                ("m", "real", "s", "g")
            }
            assert rows[1]["time"] - rows[0]["time"] == 250_000_000
            (count,) = await asyncio.to_thread(server.rows, "SELECT count(value) FROM reading")
            assert count["count"] == 120

    async def test_missing_odd_and_test_data_and_alarms_arrive_as_they_are(self, tmp_path: Path) -> None:
        time = "2026-11-26T04:00:00.250Z"
        odd = 'a "quoted", long\\\nnote = 好'
        async with influxd(tmp_path) as server, Spool.open(tmp_path / "store", "real", "boot") as spool:
            its = [
                reading("missing", None, time, "kPa", "bad:no-reply"),
                reading("odd", -1.5e-12, time, "a b,c=d"),
            ]
            drill = readings(reading("odd", 9.0, time, "a b,c=d"))
            await spool.commit(
                [readings(*its), type(drill)(drill.kind, drill.body, drill.time_ns, 1, 1, "test")]
            )
            await spool.commit([alarm(response="handled", by="王工", note=odd)])
            await spool.commit([alarm(response="closed", by="王工", note="done")])  # the same millisecond
            async with sending(spool, **secured(tmp_path, server.port)) as uplink:
                await until(lambda: settled(uplink), "all")
            rows = await asyncio.to_thread(server.rows, "SELECT * FROM reading")
            assert {
                (row["channel"], row["mode"], row["value"], row["unit"], row["quality"]) for row in rows
            } == {
                ("missing", "real", None, "kPa", "bad:no-reply"),
                ("odd", "real", -1.5e-12, "a b,c=d", "good"),
                ("odd", "test", 9.0, "a b,c=d", "good"),
            }
            first, second = await asyncio.to_thread(server.rows, "SELECT * FROM alarm")
            assert (first["response"], first["note"], first["limit"]) == ("handled", odd, 30.0)
            assert (second["response"], second["reason_zh"]) == ("closed", "水平位移黄色预警")
            assert first["about"] == "channel:n.g01.horizontal"

    async def test_what_the_server_cannot_take_is_refused_and_the_rest_passes(self, tmp_path: Path) -> None:
        async with influxd(tmp_path) as server, Spool.open(tmp_path / "store", "real", "boot") as spool:
            await asyncio.to_thread(server.write, "alarm level=5i")  # a number where we write text
            await spool.commit([readings(reading("n.pond.level", 84.0, "2026-11-26T04:00:00.000Z"))])
            await spool.commit([alarm()])
            await spool.commit([readings(reading("n.pond.level", 85.0, "2026-11-26T04:00:01.000Z"))])
            async with sending(spool, **secured(tmp_path, server.port)) as uplink:
                await until(lambda: uplink.counters.quarantined == 1, "the alarm is in quarantine")
                await until(lambda: settled(uplink, but=1), "the readings are settled")
            rows = await asyncio.to_thread(server.rows, "SELECT value FROM reading")
            assert [row["value"] for row in rows] == [84.0, 85.0]

    async def test_a_stranger_gets_nothing_and_a_wrong_password_settles_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with influxd(tmp_path) as server, Spool.open(tmp_path / "store", "real", "boot") as spool:
            await spool.commit([readings(reading("n.pond.level", 84.0, "2026-11-26T04:00:00.000Z"))])
            ours = secured(tmp_path, server.port)
            async with sending(spool, **(ours | {"ca": str(tmp_path / "strange.pem")})) as uplink:
                await until(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text, "it says why")
                assert not await settled(uplink)
            (tmp_path / "wrong").write_text("battery staple")
            async with sending(spool, **(ours | {"password_file": str(tmp_path / "wrong")})) as uplink:
                await until(lambda: "HTTP 401" in caplog.text, "it says why")
                assert uplink.counters.rejected == 0
                (tmp_path / "wrong").write_text("correct horse")  # read anew for each connection
                await until(lambda: settled(uplink), "with the right one it goes on")


class Answers(ThreadingHTTPServer):
    """Answers what it is told to, and keeps what came."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status = 204
        self.closes = False
        self.bodies: list[tuple[str, str | None, str]] = []
        super().__init__(("127.0.0.1", free_port()), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Answers

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status < 300:
            said = gzip.decompress(body).decode()
            self.server.bodies.append((self.path, self.headers["Authorization"], said))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if self.server.closes:
            self.close_connection = True  # without a word in the headers, as a proxy that is tired of waiting

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def answers() -> Iterator[Answers]:
    with Answers() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500, 503])
async def test_an_answer_that_is_not_about_the_body_is_waited_out(
    status: int, answers: Answers, tmp_path: Path
) -> None:
    answers.status = status
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        await spool.commit([readings(reading("n.pond.level", 84.0, "2026-11-26T04:00:00.000Z"))])
        async with sending(spool, f"http://127.0.0.1:{answers.server_port}/write?db=a b") as uplink:
            await until(lambda: uplink.counters.connections > 1, "it tries again")
            assert (uplink.counters.rejected, await settled(uplink)) == (0, False)
            answers.status = 204
            await until(lambda: settled(uplink), "in the end it is taken")
    assert [path for path, _, _ in answers.bodies] == ["/write?db=a+b&precision=ns"]


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_an_answer_about_the_body_leads_to_quarantine(
    status: int, answers: Answers, tmp_path: Path
) -> None:
    answers.status = status
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        await spool.commit([readings(reading("n.pond.level", 84.0, "2026-11-26T04:00:00.000Z"))])
        async with sending(spool, f"http://127.0.0.1:{answers.server_port}/write") as uplink:
            await until(lambda: uplink.counters.quarantined == 1, "quarantine")
            assert (uplink.counters.connections, await settled(uplink)) == (1, False)


async def test_a_server_that_never_answers_does_not_keep_us_from_ending(tmp_path: Path) -> None:
    got: list[bytes] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(1000):
            got.append(some)
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", free_port())
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        async with Spool.open(tmp_path / "store", "real", "boot") as spool:
            await spool.commit([readings(reading("n.pond.level", 84.0, "2026-11-26T04:00:00.000Z"))])
            async with sending(spool, f"http://127.0.0.1:{port}/write", ack_deadline="1 h"):
                await until(lambda: got, "it asks")
        threads = [each for each in threading.enumerate() if each.name.startswith("asyncio_")]
        assert threads
        await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), 30)
    assert not [each for each in threads if each.is_alive()]


async def test_a_connection_that_was_closed_while_idle_costs_nothing(
    answers: Answers, tmp_path: Path
) -> None:
    answers.closes = True
    (tmp_path / "token").write_text("s3cret\n")
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        url = f"http://127.0.0.1:{answers.server_port}/api/v2/write?org=o&bucket=b"
        async with sending(spool, url, token_file=str(tmp_path / "token")) as uplink:
            for n, time in enumerate(moments(5)):
                await spool.commit([readings(reading("n.pond.level", n, time))])
                await until(lambda: settled(uplink), "settled")
            assert uplink.counters.connections == 1
    assert {(path, who) for path, who, _ in answers.bodies} == {
        ("/api/v2/write?org=o&bucket=b&precision=ns", "Token s3cret")
    }
    assert len(answers.bodies) == 5
