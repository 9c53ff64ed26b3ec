"""The receiving side behind a stream engine: one of any number of consumers of a NATS JetStream stream.

    python -m hardware_sim.streamed --nats nats://127.0.0.1:4222 --database 'dbname=pondwatch'

The broker that gateways speak to carries their batches into NATS (a bridge of mosquitto's own to the server's
MQTT port; docs/fleet.md has the settings), and receipts back. Topics are subjects with dots. The order here
is the same as without a stream: committed in PostgreSQL, then acknowledged to the stream, then receipted.
What a consumer had taken and not acknowledged the stream gives to another after ACK_WAIT_S.

A bridge of MQTT 3.1.1 drops user properties, so gateways keep `encoding = "json"`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from typing import TYPE_CHECKING, Final

import nats
import psycopg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig

from hardware_sim.arrivals import SUBSCRIBED
from hardware_sim.warehouse import Message, Warehouse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext

log = logging.getLogger("consumer")

ACK_WAIT_S: Final = 30.0
_STREAM: Final = "pondwatch"
_GROUP: Final = 500
_LOOK_S, _PAUSE_S = 0.5, 1.0


class Streamed:
    """`run` until `stop`; the database has a thread of its own, so the stream sees us alive."""

    def __init__(self, url: str, durable: str, warehouse: Warehouse) -> None:
        self._url = url
        self._durable = durable
        self._warehouse = warehouse
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    async def run(self) -> None:
        async with await nats.connect(
            self._url, max_reconnect_attempts=-1, reconnect_time_wait=1, allow_reconnect=True
        ) as client:
            await self._patiently([])
            while not self._stopped:
                try:
                    await self._serve(client)
                except (NatsError, TimeoutError, OSError) as error:
                    log.warning("the stream: %s", error or type(error).__name__)
                    await asyncio.sleep(_PAUSE_S)
        log.info("stopped: %s", self._warehouse.counts)

    async def _serve(self, client: Client) -> None:
        """Take, store, acknowledge and receipt until stopped.

        Raises:
            NatsError, TimeoutError: the server is away; what was not acknowledged comes again.
        """
        stream = await self._stream(client)
        log.info("connected")
        while not self._stopped:
            messages: list[Msg] = []
            with contextlib.suppress(TimeoutError):  # nothing came
                messages = await stream.fetch(_GROUP, timeout=_LOOK_S)
            if not messages:
                if not client.is_connected:
                    raise TimeoutError("it is away")
                continue
            group = [Message(each.subject.replace(".", "/"), each.data) for each in messages]
            receipts = await self._patiently(group)
            for each in messages:
                await each.ack()
            for receipt in receipts:
                await client.publish(receipt.topic.replace("/", "."), receipt.payload)

    async def _stream(self, client: Client) -> JetStreamContext.PullSubscription:
        """Our place in the stream, both made where they are not there yet."""
        jetstream = client.jetstream()
        subjects = [f"pondwatch.1.*.*.{kind}" for kind in SUBSCRIBED]
        await jetstream.add_stream(
            StreamConfig(name=_STREAM, subjects=subjects, storage=StorageType.FILE, max_age=7 * 86_400.0)
        )
        place = ConsumerConfig(
            durable_name=self._durable,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=5000,
        )
        await jetstream.add_consumer(_STREAM, place)
        return await jetstream.pull_subscribe_bind(durable=self._durable, stream=_STREAM)

    async def _patiently(self, group: list[Message]) -> list[Message]:
        """Store a group, or make the tables for none, until the database has done it; its receipts."""
        while not self._stopped:
            try:
                if not group:
                    await asyncio.to_thread(self._warehouse.found)
                    return []
                return await asyncio.to_thread(self._warehouse.take, group)
            except psycopg.OperationalError as error:
                log.warning("the database: %s", " ".join(str(error).split()))
                self._warehouse.close()
                await asyncio.sleep(_PAUSE_S)
        raise TimeoutError("stopped")


async def _run(options: argparse.Namespace) -> None:
    with Warehouse(options.database) as warehouse:
        streamed = Streamed(options.nats, options.durable, warehouse)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, streamed.stop)
        await streamed.run()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hardware_sim.streamed")
    parser.add_argument("--nats", default="nats://127.0.0.1:4222")
    parser.add_argument("--database", required=True, help="as libpq has it: 'host=... dbname=...'")
    parser.add_argument("--durable", default="postgres", help="consumers of one name share the stream")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asyncio.run(_run(parser.parse_args(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
