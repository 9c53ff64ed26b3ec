"""The receiving side as a process: one of any number of consumers of a shared subscription, into PostgreSQL.

    python -m hardware_sim.consumer --broker mqtt://127.0.0.1:1883 --database 'dbname=pondwatch'
    python -m hardware_sim.consumer --verify --database 'dbname=pondwatch' --root n/gw1=9cc65411f7c5cc5c

Each message takes this way: from the broker into memory, into the database, acknowledged to the broker once
it is committed there, receipted to its gateway. A process that dies anywhere on this way loses nothing: what
it had not committed nobody has a receipt for, and the gateway sends it again; what it had committed is a
repeat then.

Memory is bounded by the receive maximum: the broker holds back what is beyond. While the database is away
nothing is acknowledged, and what was received waits. One thread: what is read between two commits makes the
next group, so a slow disk makes larger commits.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import psycopg
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from hardware_sim.arrivals import MOST_PAYLOAD_BYTES, SUBSCRIBED
from hardware_sim.stored import verify_stored
from hardware_sim.warehouse import Message, Warehouse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paho.mqtt.reasoncodes import ReasonCode

log = logging.getLogger("consumer")

RECEIVE_MAXIMUM: Final = 500  # messages with us that are not acknowledged yet
_LOOK_S: Final = 0.2
_PAUSE_FIRST_S, _PAUSE_MOST_S = 0.2, 3.0
_CONNACK_S: Final = 10.0
_QUIET_TURNS: Final = 20
_KEEPALIVE_S: Final = 30
_SAY_EVERY_S: Final = 10.0
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    broker: str
    database: str
    share: str = "pondwatch"
    client_id: str = ""
    session_s: int = 0
    username: str = ""
    password_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class Consumer:
    """`run` until `stop`; one connection to the broker, one to the database."""

    def __init__(self, options: Options, warehouse: Warehouse) -> None:
        self._options = options
        self._warehouse = warehouse
        self._waiting: list[tuple[int, mqtt.MQTTMessage]] = []  # with the connection it came by
        self._connection = 0
        self._refused_to_subscribe = ""
        self._stopped = False
        self._client = self._made()

    def stop(self) -> None:
        self._stopped = True

    def run(self) -> None:
        """Take, store and receipt; what is not acknowledged at the end the broker gives to others."""
        self._patiently(self._warehouse.found)
        said_s = time.monotonic()
        while not self._stopped:
            if not self._client.is_connected():
                self._connect()
                continue
            self._read()
            if self._refused_to_subscribe:
                raise SystemExit(f"the broker does not let us subscribe: {self._refused_to_subscribe}")
            self._store()
            if time.monotonic() - said_s > _SAY_EVERY_S:
                said_s = time.monotonic()
                log.info("%s", self._warehouse.counts)
        self._client.disconnect()
        self._client.loop(_LOOK_S)
        log.info("stopped: %s", self._warehouse.counts)

    # -- the broker ----------------------------------------------------------------------------------

    def _made(self) -> mqtt.Client:
        options = self._options
        url = urlsplit(options.broker)
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id or f"pondwatch-consumer-{socket.gethostname()}-{id(self):x}",
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
        )
        client.max_inflight_messages_set(1000)
        client.max_queued_messages_set(100_000)
        if options.username or options.password_file:
            password = options.password_file.read_text().strip() if options.password_file else None
            client.username_pw_set(options.username, password)
        if url.scheme == "mqtts":
            context = ssl.create_default_context(cafile=options.ca)
            if options.certificate is not None:
                context.load_cert_chain(options.certificate, options.key)
            client.tls_set_context(context)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_message = self._heard
        return client

    def _connect(self) -> None:
        """Try until connected or stopped; what came by a lost connection is stored and not acknowledged."""
        url = urlsplit(self._options.broker)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
        properties.SessionExpiryInterval = self._options.session_s
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        properties.MaximumPacketSize = MOST_PAYLOAD_BYTES
        pause_s = _PAUSE_FIRST_S
        while not self._stopped:
            with contextlib.suppress(OSError):
                self._client.connect(
                    url.hostname or "",
                    url.port or _PORTS[url.scheme],
                    keepalive=_KEEPALIVE_S,
                    clean_start=self._options.session_s == 0,
                    properties=properties,
                )
                end_s = time.monotonic() + _CONNACK_S
                while (
                    time.monotonic() < end_s and self._client.loop(_LOOK_S) == MQTTErrorCode.MQTT_ERR_SUCCESS
                ):
                    if self._client.is_connected():
                        return
            self._store()
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MOST_S)

    def _connected(self, client: mqtt.Client, _data: Any, _flags: Any, code: ReasonCode, _more: Any) -> None:
        if code.is_failure:
            log.warning("the broker does not let us in: %s", code)
            return
        self._connection += 1
        log.info("connected")
        topics = [(f"$share/{self._options.share}/pondwatch/1/+/+/{kind}", 1) for kind in SUBSCRIBED]
        client.subscribe(topics)

    def _subscribed(self, _c: mqtt.Client, _d: Any, _mid: int, codes: list[ReasonCode], _more: Any) -> None:
        self._refused_to_subscribe = ", ".join(str(code) for code in codes if code.is_failure)

    def _heard(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self._waiting.append((self._connection, message))

    def _read(self) -> None:
        """Wait for something, then take all that is there already."""
        quiet = 0  # a turn reads one packet, and between messages lie acknowledgements of receipts
        while quiet < _QUIET_TURNS and len(self._waiting) < RECEIVE_MAXIMUM:
            before = len(self._waiting)
            if self._client.loop(0.0 if before or quiet else _LOOK_S) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                log.warning("the connection to the broker is lost")
                return
            quiet = quiet + 1 if len(self._waiting) == before else 0

    # -- the database --------------------------------------------------------------------------------

    def _store(self) -> None:
        """Commit what waits, acknowledge it, receipt it."""
        if not self._waiting:
            return
        group, self._waiting = self._waiting, []
        messages = [
            Message(
                m.topic, bytes(m.payload), ("encoding", "zstd") in getattr(m.properties, "UserProperty", [])
            )
            for _, m in group
        ]
        receipts = self._patiently(lambda: self._warehouse.take(messages)) or []
        for connection, message in group:
            if connection == self._connection and self._client.is_connected():
                self._client.ack(message.mid, message.qos)
        for receipt in receipts:
            self._client.publish(receipt.topic, receipt.payload, qos=1, properties=_JSON)

    def _patiently(self, work: Any) -> Any:
        """Do it until the database has done it; meanwhile the broker sees us alive. None when stopped."""
        pause_s = _PAUSE_FIRST_S
        while not self._stopped:
            try:
                return work()
            except psycopg.OperationalError as error:
                log.warning("the database: %s", " ".join(str(error).split()))
                self._warehouse.close()
                end_s = time.monotonic() + pause_s
                while time.monotonic() < end_s and not self._stopped:
                    if self._client.loop(_LOOK_S) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                        time.sleep(_LOOK_S)
                pause_s = min(2 * pause_s, _PAUSE_MOST_S)
        return None


def _content_type() -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
    properties.ContentType = "application/json"
    return properties


_JSON: Final = _content_type()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hardware_sim.consumer",
        description="Takes gateways' batches from a broker, stores them in PostgreSQL, and sends receipts.",
    )
    parser.add_argument("--broker", default="mqtt://127.0.0.1:1883", help="mqtt:// or mqtts://HOST:PORT")
    parser.add_argument("--database", required=True, help="as libpq has it: 'host=... dbname=...'")
    parser.add_argument("--share", default="pondwatch", help="name of the shared subscription")
    parser.add_argument("--client-id", default="")
    parser.add_argument("--session", type=int, default=0, metavar="S", help="the broker keeps ours so long")
    parser.add_argument("--username", default="")
    for name in ("password-file", "ca", "certificate", "key"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--verify", action="store_true", help="verify what is stored, and end")
    parser.add_argument(
        "--root", action="append", default=[], metavar="SITE/GATEWAY=KEY", help="first key, as enrolled"
    )
    options = parser.parse_args(arguments)
    if any(each.count("=") != 1 for each in options.root):
        parser.error("roots are written SITE/GATEWAY=KEY")
    if urlsplit(options.broker).scheme not in _PORTS:
        parser.error("--broker begins with mqtt:// or mqtts://")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0: stopped, or everything holds; 1: not everything holds."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.verify:
        return verify_stored(options.database, dict(each.split("=") for each in options.root))
    with Warehouse(options.database) as warehouse:
        consumer = Consumer(
            Options(
                options.broker,
                options.database,
                options.share,
                options.client_id,
                options.session,
                options.username,
                options.password_file,
                options.ca,
                options.certificate,
                options.key,
            ),
            warehouse,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: consumer.stop())
        consumer.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
