"""A Modbus RTU server on the master side of a real pseudo-terminal, which can misbehave in every way.

It shares no code with the drivers: the checksum is computed bit by bit, the registers hold a number
made from unit, function and address, so that a value tells which question it answers.
"""

from __future__ import annotations

import asyncio
import os
import pty
import tty
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from drivers.line import Line

    Plan = list[tuple[float, bytes]]  # (seconds after the request, bytes)


@dataclass(frozen=True)
class Mode:
    """What the drivers expect of a serial mode."""

    baud: int = 115200
    data_bits: int = 8
    parity: str = "N"
    stop_bits: float = 1.0

    @property
    def bits_per_character(self) -> float:
        return 1 + self.data_bits + (self.parity != "N") + self.stop_bits


def crc(data: bytes) -> bytes:
    """Modbus over Serial Line 1.02, 6.2.2, bit by bit, low byte first."""
    register = 0xFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ 0xA001 if register & 1 else register >> 1
    return register.to_bytes(2, "little")


def word(unit: int, fn: int, at: int) -> int:
    """The number that stands in this register: another one for every question."""
    return (unit * 40503 + fn * 9973 + at * 257 + 1) & 0xFFFF


def data(unit: int, fn: int, at: int, count: int) -> bytes:
    return b"".join(word(unit, fn, at + i).to_bytes(2, "big") for i in range(count))


def read(fn: int, at: int, count: int) -> bytes:
    """The PDU that reads registers."""
    return bytes((fn,)) + at.to_bytes(2, "big") + count.to_bytes(2, "big")


def adu(unit: int, pdu: bytes) -> bytes:
    body = bytes((unit,)) + pdu
    return body + crc(body)


def answer(request: bytes) -> bytes:
    """The right reply to a request that reads registers, or writes one of them."""
    unit, fn = request[0], request[1]
    if fn in (5, 6):
        return request
    at, count = int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
    return adu(unit, bytes((fn, 2 * count)) + data(unit, fn, at, count))


class RtuServer:
    """`plan` says for each request what is sent, and when; it may be replaced at any time."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.plan: Callable[[bytes], Plan] = lambda request: [(0.0, answer(request))]
        self.last_moment_s = float("inf")  # a device never answers later than its slowest reply
        self._asked: dict[bytes, float] = {}
        self._received = b""
        self._loop = asyncio.get_running_loop()
        self._plug()

    def _plug(self) -> None:
        self.master, self._keeper = pty.openpty()
        tty.setraw(self._keeper)
        os.set_blocking(self.master, False)
        self.port = os.ttyname(self._keeper)
        self._loop.add_reader(self.master, self._readable)

    def watch(self, line: Line, also: Callable[[str, bytes, float], None] | None = None) -> None:
        """Count the slowest reply from the moment the line sends, whatever the event loop does between."""

        def trace(direction: str, _time_ns: int, bytes_: bytes) -> None:
            now = self._loop.time()
            if direction == "tx":
                self._asked[bytes_] = now
            if also is not None:
                also(direction, bytes_, now)

        line.on_trace = trace

    def send(self, data: bytes, not_after: float = float("inf")) -> None:
        if self.master >= 0 and self._loop.time() <= not_after:
            os.write(self.master, data)

    def unplug(self) -> None:
        self._loop.remove_reader(self.master)
        os.close(self.master)
        os.close(self._keeper)
        self.master = -1

    def plug_in_again(self) -> None:
        """Another device file, as after a replug."""
        self._plug()

    def close(self) -> None:
        if self.master >= 0:
            self.unplug()

    def _readable(self) -> None:
        self._received += os.read(self.master, 4096)
        while len(self._received) >= 8:
            request, self._received = self._received[:8], self._received[8:]
            assert crc(request[:6]) == request[6:]
            self.requests.append(request)
            not_after = self._asked.pop(request, self._loop.time()) + self.last_moment_s
            for delay_s, reply in self.plan(request):
                if delay_s:
                    self._loop.call_later(delay_s, self.send, reply, not_after)
                else:
                    self.send(reply, not_after)
