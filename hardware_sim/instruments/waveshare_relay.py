"""Waveshare Modbus RTU Relay, 8 channels: a siren, a lamp and six spare contacts.

Waveshare wiki as collected in mbmap-library (maps/waveshare/modbus-rtu-relay): coils 0 to 7 by functions 1, 5
and 15; function 5 also takes 0x00FF for all, 0x01FF to toggle all, and as the vendor's own 0x0200 + n
"flash on" and 0x0400 + n "flash off", whose value is a time in units of 100 ms. A flash ends by itself, in
bench time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from hardware_sim.instruments.base import ILLEGAL_ADDRESS, ILLEGAL_VALUE, READ_COILS, Instrument, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RELAYS: Final = 8
_ALL: Final = 0x00FF
_TOGGLE_ALL: Final = 0x01FF
_ON: Final = 0xFF00
_OFF: Final = 0x0000
_FLASH_ON: Final = 0x0200
_FLASH_OFF: Final = 0x0400


class WaveshareRelay(Instrument):
    reads: ClassVar = frozenset({READ_COILS})

    def __init__(self, now_s: Callable[[], float]) -> None:
        super().__init__()
        self._now_s = now_s
        self._closed = [False] * RELAYS
        self._flash_ends_s: dict[int, float] = {}  # at most one per relay
        self.switched = 0  # how often any relay changed by command

    @property
    def closed(self) -> tuple[bool, ...]:
        """Which contacts are closed now, flashes that have ended undone."""
        now_s = self._now_s()
        for relay, end_s in list(self._flash_ends_s.items()):
            if now_s >= end_s:
                del self._flash_ends_s[relay]
                self._closed[relay] = not self._closed[relay]
        return tuple(self._closed)

    def words(self, fn: int) -> Mapping[int, int]:
        del fn
        return {i: int(closed) for i, closed in enumerate(self.closed)}

    def write_coil(self, at: int, value: int) -> None:
        closed = self.closed
        if at & 0xFF < RELAYS and at & 0xFF00 in {_FLASH_ON, _FLASH_OFF}:
            self._flash(at & 0xFF, closed=at & 0xFF00 == _FLASH_ON, for_s=value / 10.0)
            return
        if value not in {_ON, _OFF}:
            raise Refusal(ILLEGAL_VALUE)
        if at < RELAYS:
            self._set(at, closed=value == _ON)
        elif at == _ALL:
            for relay in range(RELAYS):
                self._set(relay, closed=value == _ON)
        elif at == _TOGGLE_ALL:
            for relay in range(RELAYS):
                self._set(relay, closed=not closed[relay])
        else:
            raise Refusal(ILLEGAL_ADDRESS)

    def _set(self, relay: int, *, closed: bool) -> None:
        self._flash_ends_s.pop(relay, None)
        self.switched += self._closed[relay] != closed
        self._closed[relay] = closed

    def _flash(self, relay: int, *, closed: bool, for_s: float) -> None:
        self._set(relay, closed=closed)
        self._flash_ends_s[relay] = self._now_s() + for_s
