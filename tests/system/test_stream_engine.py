"""Gateways into mosquitto, its own bridge into NATS JetStream, consumers of the stream into PostgreSQL: everything once."""

from __future__ import annotations

import shutil
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from hardware_sim.ports import free_port
from tests.fault.way import MOSQUITTO, Mosquitto
from tests.system.fleet import Consumer, Gateways, assert_everything_once
from tests.system.postgres import wants_postgres
from tests.system.running import PATH, Program, listens, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.postgres import Postgres

NATS = shutil.which("nats-server", path=PATH)
pytestmark = [
    pytest.mark.campaign,
    pytest.mark.peer,
    wants_postgres,
    pytest.mark.skipif(NATS is None, reason="NATS is not installed: apt-get install nats-server"),
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto"),
    pytest.mark.timeout(240),
]
KINDS = ("readings", "alarms", "gaps", "audit", "seals")


class Nats(Program):
    """A server with JetStream and its MQTT port."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.port, self.mqtt_port = free_port(), free_port()
        config = folder / "nats.conf"
        config.write_text(
            f'server_name: pond\nhost: "127.0.0.1"\nport: {self.port}\njetstream {{ store_dir: "{folder}" }}\n'
            f'mqtt {{ host: "127.0.0.1", port: {self.mqtt_port} }}\n'
        )
        super().__init__([str(NATS), "-c", str(config)], folder / "nats.log")

    async def start(self) -> None:
        await super().start()
        await self.ready(lambda: listens(self.mqtt_port), "NATS listens for MQTT")


class Streamed(Consumer):
    """One process of hardware_sim/streamed.py."""

    def __init__(self, name: str, folder: Path, nats: Nats, conninfo: str) -> None:
        command = [sys.executable, "-m", "hardware_sim.streamed", f"--nats=nats://127.0.0.1:{nats.port}"]
        Program.__init__(self, [*command, "--database", conninfo], folder / f"{name}.log")


def bridge(port: int) -> str:
    """mosquitto's own bridge to NATS, as docs/fleet.md has it."""
    out = "".join(f"topic pondwatch/1/+/+/{kind} out 1\n" for kind in KINDS)
    return (
        f"connection nats\naddress 127.0.0.1:{port}\nbridge_protocol_version mqttv311\ncleansession false\n"
        f"remote_clientid pondwatch\ntry_private false\nnotifications false\nrestart_timeout 1\n{out}"
        "topic pondwatch/1/+/+/receipts in 1\n"
    )


async def test_through_a_stream_engine_everything_arrives_once_through_kills_of_server_and_consumers(
    tmp_path: Path, postgres: Postgres
) -> None:
    conninfo = postgres.fresh()
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(Nats(tmp_path / "nats"))
        broker = await stack.enter_async_context(Mosquitto(tmp_path / "broker", extra=bridge(nats.mqtt_port)))
        first = await stack.enter_async_context(Streamed("first", tmp_path, nats, conninfo))
        await stack.enter_async_context(Streamed("second", tmp_path, nats, conninfo))
        options = {"every": 0.5, "readings": 3, "receipt-deadline": 1.0}
        gateways = await stack.enter_async_context(Gateways(tmp_path, 0, 6, broker.port, **options))

        async def grown(by: int) -> None:
            wanted = gateways.progress()["settled"] + by
            await until(lambda: gateways.progress()["settled"] >= wanted, f"{by} batches more are settled")

        await grown(30)
        await first.kill()
        await grown(20)
        nats.send(signal.SIGKILL)
        await nats.wait()
        await nats.start()
        await grown(20)
        progress = await gateways.settled(90)
    assert assert_everything_once(postgres, [gateways], 3) == progress["committed"]
