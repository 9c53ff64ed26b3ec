"""The instruments on one wire and their faults: a request comes in, bytes go out, now or later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from hardware_sim import faults
from hardware_sim.faults import Exchange, Fault, FaultUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hardware_sim.instruments.base import Instrument

_MOST_DELAYED: Final = 512  # replies (or bytes) that wait to be late; more are not sent at all


class Station:
    """The instruments on one wire, their faults, and the replies still to come."""

    def __init__(self, instruments: Mapping[int, Instrument], *, rtu_faults: bool) -> None:
        self.instruments = instruments
        self._rtu_faults = rtu_faults
        self._faults: dict[int, Fault] = {}
        self.cut = False  # the wire is: nobody here hears anything
        self._delayed: set[asyncio.TimerHandle] = set()

    def set_fault(self, unit: int, fault: Fault | None) -> None:
        """Puts a unit's fault in force, in place of the one before; None ends it.

        Raises:
            FaultUnknown: no such unit here, or a fault this wire cannot have.
        """
        if unit not in self.instruments:
            known = ", ".join(str(known) for known in sorted(self.instruments))
            raise FaultUnknown(f"no unit {unit} on this line; there are {known}")
        before = self._faults.get(unit)
        if fault is None:
            self._faults.pop(unit, None)
        elif fault.kind not in faults.OF_UNITS or (fault.kind in faults.RTU_ONLY and not self._rtu_faults):
            raise FaultUnknown(f"{fault.kind} cannot happen to a unit on this line")
        else:
            self._faults[unit] = fault
        self.instruments[unit].sentinel = fault is not None and fault.kind == "sentinel"
        if before is not None and before.kind == "power_cut" and before != fault:
            self.instruments[unit].restart()

    def serve(
        self,
        request: bytes,
        unit: int,
        pdu: bytes,
        framed: Callable[[int, bytes], bytes],
        send: Callable[[bytes], None],
    ) -> None:
        """Answers one request as its unit's fault has it; an unknown unit is silent."""
        instrument = self.instruments.get(unit)
        if self.cut or instrument is None or not pdu:
            return
        fault = self._faults.get(unit)
        unheard = fault is not None and fault.kind in faults.UNHEARD
        reply = b"" if unheard else instrument.answer(pdu)
        for delay_s, data in faults.emissions(fault, Exchange(request, unit, pdu[0], reply, framed)):
            if delay_s == 0.0:
                send(data)
            elif len(self._delayed) < _MOST_DELAYED:
                self._send_later(delay_s, data, send)

    def broadcast(self, pdu: bytes) -> None:
        """Unit 0 of a serial line: everybody obeys, nobody answers."""
        if self.cut:
            return
        for unit, instrument in self.instruments.items():
            fault = self._faults.get(unit)
            if pdu and (fault is None or fault.kind not in faults.UNHEARD):
                instrument.answer(pdu)

    def forget_delayed(self) -> None:
        for handle in self._delayed:
            handle.cancel()
        self._delayed.clear()

    def _send_later(self, delay_s: float, data: bytes, send: Callable[[bytes], None]) -> None:
        def fire() -> None:
            self._delayed.discard(handle)
            send(data)

        handle = asyncio.get_running_loop().call_later(delay_s, fire)
        self._delayed.add(handle)
