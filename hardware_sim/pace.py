"""The time of a serial line: characters take as long as the baud rate says, one speaker at a time.

A pseudo-terminal hands over bytes at once, at any baud. Here a request counts as heard when its characters
would have passed, an answer begins 3.5 characters later and arrives in pieces of a UART's FIFO, each when its
last character would have passed.
Source: MODBUS over Serial Line V1.02, 2.5.1.1 (above 19200 baud the gap is 1.75 ms).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_FIFO: Final = 16  # characters that a UART of the 16550 kind collects before it tells
_BITS: Final = 10  # of a character: start, eight, stop
_FAST_BAUD: Final = 19_200
_FAST_GAP_S: Final = 0.00175


class Pace:
    """Delays what is sent by what the wire takes."""

    def __init__(self, baud: int, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._character_s = _BITS / baud
        self._gap_s = _FAST_GAP_S if baud > _FAST_BAUD else 3.5 * self._character_s
        self._free_s = 0.0  # when the line falls silent, on the loop's clock
        self._pending: set[asyncio.TimerHandle] = set()
        self.collisions = 0

    def heard(self, count: int) -> bool:
        """So many characters begin to arrive now; False if somebody is speaking, and they are lost."""
        now_s = asyncio.get_running_loop().time()
        if self._pending and now_s < self._free_s:
            self.collisions += 1
            return False
        self._free_s = max(self._free_s, now_s) + count * self._character_s
        return True

    def send(self, data: bytes) -> None:
        """Speak after whoever spoke last, and a gap."""
        loop = asyncio.get_running_loop()
        begins_s = max(self._free_s, loop.time()) + self._gap_s
        for at in range(0, len(data), _FIFO):
            piece = data[at : at + _FIFO]
            self._later(begins_s + (at + len(piece)) * self._character_s, piece)
        self._free_s = begins_s + len(data) * self._character_s

    def forget(self) -> None:
        for handle in self._pending:
            handle.cancel()
        self._pending.clear()

    def _later(self, when_s: float, piece: bytes) -> None:
        def fire() -> None:
            self._pending.discard(handle)
            self._send(piece)

        handle = asyncio.get_running_loop().call_at(when_s, fire)
        self._pending.add(handle)
