"""The receiving platform: the receiver's judgement over the broker's transport, and its bad days.

It can go away (listener and connections closed), withhold receipts, refuse what is published with a reason
code, take without ever acknowledging, and acknowledge without keeping.
"""

from __future__ import annotations

import asyncio
import contextlib
from math import inf
from typing import TYPE_CHECKING, Final, Self

import zstandard

from hardware_sim import mqtt
from hardware_sim.broker import Broker

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from hardware_sim.receiver import Receiver

_MOST_PAYLOAD_BYTES: Final = 16 * 1024 * 1024
_TICK_S: Final = 0.05  # receipts are gathered for so long; real seconds


class Platform:
    """`async with Platform(Receiver()) as platform:` listens until the end of the block.

    Attributes:
        refuse: PUBACK reason code for all a gateway publishes (0x87, 0x97, ...); 0 takes it.
        acks: False takes and stores, and never sends a PUBACK.
        keeps: False sends a PUBACK and stores nothing.
        receipts: False keeps receipts back; they are sent when it is True again.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        credentials: tuple[str, str] | None = None,
        receive_maximum: int = 100,
    ) -> None:
        self.receiver = receiver
        self.refuse = 0
        self.acks = self.keeps = True
        self.receipts = True
        self._broker = Broker(
            self._published,
            host=host,
            port=port,
            tls=tls,
            credentials=credentials,
            receive_maximum=receive_maximum,
        )
        self._back_s: float | None = None
        self._ticker: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return self._broker.address

    @property
    def here(self) -> bool:
        return self._broker.listening

    async def __aenter__(self) -> Self:
        await self._broker.start()
        self._ticker = asyncio.create_task(self._tick(), name="platform")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._ticker is not None
        self._ticker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._ticker
        self._broker.stop()
        await asyncio.sleep(0)  # aborted transports say so to their protocols in the next turn of the loop

    def go_away(self, for_s: float = inf) -> None:
        """Closes the listener and every connection, for so many real seconds from now."""
        self._broker.stop()
        self._back_s = asyncio.get_running_loop().time() + for_s

    def come_back(self) -> None:
        """Ends an absence within the next tick."""
        if self._back_s is not None:
            self._back_s = 0.0

    def _published(self, client_id: str, message: mqtt.Publish) -> int | None:
        del client_id
        if self.refuse:
            return self.refuse
        payload = _plain(message)
        if payload is None:
            return mqtt.Reason.PAYLOAD_INVALID
        code = self.receiver.take(message.topic, payload) if self.keeps else mqtt.Reason.SUCCESS
        return code if self.acks else None

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            back_s = self._back_s
            if back_s is not None and loop.time() >= back_s:
                with contextlib.suppress(OSError):  # somebody sits on the port: still away, tried again
                    await self._broker.start()
                    if self._back_s is back_s:
                        self._back_s = None
                    else:  # sent away again in the meantime
                        self._broker.stop()
            if self.receipts and self.here:
                for topic, payload in self.receiver.receipts():
                    self._broker.publish(mqtt.Publish(topic, payload, qos=1, properties=_JSON))


def _plain(message: mqtt.Publish) -> bytes | None:
    """The payload before compression; None if it says that it is zstd and is not, or is far too long."""
    marks = message.properties.get(mqtt.Property.USER)
    if not isinstance(marks, list) or ("encoding", "zstd") not in marks:
        return message.payload
    try:
        return zstandard.ZstdDecompressor().decompress(message.payload, max_output_size=_MOST_PAYLOAD_BYTES)
    except zstandard.ZstdError:
        return None


_JSON: Final[mqtt.Properties] = {mqtt.Property.CONTENT_TYPE: "application/json"}
