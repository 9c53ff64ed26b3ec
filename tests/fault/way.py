"""The whole way for tests of outages: counting instruments, the real daemon, a link that fails, a platform.

Each instrument answers with the number of its polls so far, so a value names its sample: what was lost, what came
twice and what came out of order is seen in the values, without a word of the daemon's numbering.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import struct
import time
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from hardware_sim.ports import free_port
from hardware_sim.receiver import Receiver
from tests.system.running import PATH, Daemon, Program, listens, received, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

MOSQUITTO = shutil.which("mosquitto", path=PATH)
TAGS = 5
ROOM = "pondwatch/1/fault/gw1/"


@dataclass
class Instruments:
    """`units` Modbus TCP servers on one connection; each answers any read with its own count of polls."""

    units: int
    polls: Counter[int] = field(default_factory=Counter)
    asked_s: list[float] = field(default_factory=list)  # when the first unit was asked, monotonic
    port: int = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Instruments]:
        server = await asyncio.start_server(self._serve, "127.0.0.1")
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                transaction, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
                function, _, count = struct.unpack(">BHH", (await reader.readexactly(length - 1))[:5])
                self.polls[unit] += 1
                if unit == 1:
                    self.asked_s.append(time.monotonic())
                high, low = struct.unpack(">HH", struct.pack(">f", float(self.polls[unit])))
                words = struct.pack(">HH", low, high) * (count // 2)  # CDAB, as the profile has it
                pdu = struct.pack(">BB", function, len(words)) + words
                writer.write(struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu)


class Mosquitto(Program):
    """A broker without TLS; its memory is saved every second, or only when it ends well."""

    def __init__(self, folder: Path, *, saves: bool = True, extra: str = "") -> None:
        folder.mkdir()
        self.port = free_port()
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\npersistence true\npersistence_location {folder}/\n"
            + ("autosave_interval 1\n" if saves else "")
            + ("" if "allow_anonymous" in extra else "allow_anonymous true\n")
            + "max_queued_messages 0\nmax_inflight_messages 0\n"
            + ("user root\n" if os.geteuid() == 0 else "")
            + extra
        )
        super().__init__([str(MOSQUITTO), "-c", str(config)], folder / "mosquitto.log")

    async def start(self) -> None:
        await super().start()
        await self.ready(lambda: listens(self.port), "mosquitto listens")

    async def frozen(self, seconds: float) -> None:
        self.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self.send(signal.SIGCONT)

    async def away(self, seconds: float) -> None:
        await self.stop()
        await asyncio.sleep(seconds)
        await self.start()


class Link:
    """A TCP proxy: carries, swallows what comes, or carries at most `bytes_per_s` to the platform's side."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.bytes_per_s = 0.0
        self.carried_bytes = 0  # of the slow direction
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def carrying(self) -> AsyncIterator[Link]:
        server = await asyncio.start_server(self._serve, "127.0.0.1")
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.reset()

    async def black_hole(self, seconds: float) -> None:
        """Swallow all bytes both ways, then reset the connections, as a cellular link does that comes back."""
        self.swallow()
        await asyncio.sleep(seconds)
        self.restore()

    def swallow(self) -> None:
        self._open.clear()

    def restore(self) -> None:
        self.reset()
        self._open.set()

    def reset(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open.is_set():  # SYNs are answered by this machine's kernel; nothing after them is
            self._writers.add(writer)
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        await asyncio.gather(self._carry(reader, back, slow=True), self._carry(there, writer, slow=False))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool) -> None:
        """A slow direction takes from its socket only what it has sent on: the rest waits in the kernel."""
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while data := await reader.read(1024 if slow and self.bytes_per_s else 1 << 16):
                if slow and self.bytes_per_s:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                    self.carried_bytes += len(data)
                if self._open.is_set():
                    writer.write(data)
                    await writer.drain()


class Platform:
    """The bench's receiver behind aiomqtt; a receipt for all that it has stored."""

    def __init__(self, port: int, path: Path | None = None, room: str = ROOM) -> None:
        self.receiver = Receiver(path)
        self.messages: list[tuple[str, bytes, frozenset[tuple[str, str]]]] = []
        self._packets: set[tuple[int, bytes]] = set()
        self.receipts = True
        self._port, self._room = port, room
        self._listening = asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Platform]:
        task = asyncio.create_task(self._run(), name="platform")
        try:
            await asyncio.wait_for(self._listening.wait(), 10)
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self.receiver.close()

    async def send(self, kind: str, payload: bytes) -> None:
        async with aiomqtt.Client("127.0.0.1", self._port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            await client.publish(self._room + kind, payload, qos=1)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._listen()
            await asyncio.sleep(0.05)

    async def _listen(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
        properties.SessionExpiryInterval = 3600
        async with aiomqtt.Client(
            "127.0.0.1",
            self._port,
            identifier="platform",
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=properties,
            timeout=2.0,
        ) as client:
            await client.subscribe(self._room + "#", qos=1)
            self._listening.set()
            async for message in client.messages:
                await self._take(client, message)

    async def _take(self, client: aiomqtt.Client, message: aiomqtt.Message) -> None:
        kind = message.topic.value.rpartition("/")[2]
        if kind in ("receipts", "requests"):
            return
        assert isinstance(message.payload, bytes)
        marks = frozenset(getattr(message.properties, "UserProperty", []))
        # The broker's own redelivery has the packet id of before (MQTT 5.0, 4.4), and a DUP flag that aiomqtt
        # does not show: it is marked as the protocol has it.
        packet = (message.mid, message.payload)
        marks |= {("repeat", "true")} if packet in self._packets else set()
        self._packets.add(packet)
        self.messages.append((kind, message.payload, marks))
        self.receiver.take(message.topic.value, message.payload)
        if self.receipts:
            for topic, receipt in self.receiver.receipts():
                await client.publish(topic, receipt, qos=1)


@dataclass(frozen=True)
class Outcome:
    """What became of the samples: of each unit and tag the instrument knows how many it gave."""

    given: int
    lost: int
    unmarked_repeats: int
    repeats: int
    out_of_order: int

    def __str__(self) -> str:
        return (
            f"{self.given} samples given, {self.lost} lost, {self.repeats} batches repeated, "
            f"{self.unmarked_repeats} of them unmarked, {self.out_of_order} out of order"
        )


def outcome(instruments: Instruments, platform: Platform, path: Path) -> Outcome:
    """Count by the values themselves.

    The last poll of each unit may have been cut off by the end and is not counted. Order: what the
    platform has stored, by seq; and of what arrived, live and backlog each in their own.
    """
    values: dict[str, list[int]] = defaultdict(list)
    for batch in received(path):
        if batch.kind == "readings":
            for reading in json.loads(batch.payload)["readings"]:
                if reading["value"] is not None:
                    values[reading["channel"]].append(round(reading["value"]))
    lost = given = disorder = 0
    for unit in range(1, instruments.units + 1):
        for tag in range(1, TAGS + 1):
            got = values[f"u{unit}.c{tag}"]
            expected = set(range(1, instruments.polls[unit]))  # but for the last
            given += len(expected)
            lost += len(expected - set(got))
            disorder += sum(b <= a for a, b in pairwise(got))
    repeats, unmarked, disordered = arrivals(platform)
    return Outcome(given, lost, unmarked, repeats, disorder + disordered)


def arrivals(platform: Platform) -> tuple[int, int, int]:
    """Batches that came again, those of them without a mark, and first arrivals out of order."""
    seen: set[int] = set()
    repeats = unmarked = disordered = 0
    newest = {False: 0, True: 0}
    for kind, payload, marks in platform.messages:
        if kind in ("seals", "status"):
            continue
        seq = json.loads(payload)["seq"]
        again, backfill = ("repeat", "true") in marks, ("backfill", "true") in marks
        if seq in seen:
            repeats += 1
            unmarked += not (again or backfill)
        elif kind == "readings" and not again:
            disordered += seq < newest[backfill]
            newest[backfill] = max(newest[backfill], seq)
        seen.add(seq)
    return repeats, unmarked, disordered


def site_file(
    folder: Path,
    instruments: Instruments,
    uplinks: str,
    *,
    every: str = "1 s",
    answer: str = "500 ms",
    mode: str = "test",
    levels: str = "",
) -> Path:
    """Ten units, or fewer, of five tags each, on one line; `uplinks` is TOML."""
    text = (
        f'[site]\nid = "fault"\ngateway = "gw1"\nmode = "{mode}"\n[store]\npath = "{folder}/store"\n'
        f'[metrics]\nlisten = "127.0.0.1:{free_port()}"\n[rules]\nstart = "off"\n[[pond]]\nid = "p"\n'
        f'[[line]]\nid = "l"\nkind = "modbus-tcp"\naddress = "127.0.0.1:{instruments.port}"\n{uplinks}\n'
    )
    for unit in range(1, instruments.units + 1):
        text += (
            f'[[device]]\nid = "u{unit}"\nline = "l"\nprofile = "campbell-cr1000x"\nunit = {unit}\n'
            f'every = "{every}"\ntimeout = "{answer}"\nslowest_reply = "{answer}"\n'
        )
        for tag in range(1, TAGS + 1):
            text += (
                f'[[channel]]\nid = "u{unit}.c{tag}"\nunit = "kPa"\npond = "p"\nitem = "pore-pressure"\n'
                f'from = "u{unit}.v{tag:02}"\nspan = [-1e30, 1e30]\n{levels if unit == tag == 1 else ""}'
            )
    site = folder / "site.toml"
    site.write_text(text)
    return site


def uplink(name: str, port: int, settle: str = "receipt", rest: str = "") -> str:
    return f'[[uplink]]\nid = "{name}"\nkind = "mqtt"\nurl = "mqtt://127.0.0.1:{port}"\nsettle = "{settle}"\n{rest}\n'


async def settled(daemon: Daemon, name: str = "up") -> bool:
    """Whether nothing is left to settle, as the daemon says."""
    status = await daemon.ask("status")
    return int(status["uplinks"][name]["unsettled"]) == 0


async def grown(look: Callable[[], int], by: int, what: str, within_s: float = 20.0) -> Any:
    before = look()
    return await until(lambda: look() >= before + by, what, within_s)
