"""Sirens and relays: switched by what rings at a pond, verified by read-back, tried until it holds.

An output's wanted state is a fact of the judgement; whether the relay followed is read back from it. A write
that fails is repeated every RETRY_S and told as a fault, since a siren that cannot sound is worse than one
that sounds twice. Nothing here waits for network, disk or the rules process.

A *switch* is on and off. A *pulse* is ended by the device itself and repeated while it is wanted, so that it
ends by itself when this process does. A *watchdog* is a pulse that is wanted as long as the core is well:
repeated before it ends it holds its contact, and drops it soon after the core stops. A *public* siren follows
no level, only the order of whom the site file names.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Never, Protocol

from drivers.contract import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.config import OutputTable
    from daemon.poller import PolledLine
    from drivers.line import Line

log = logging.getLogger(__name__)

RETRY_S = 2.0


class Switch(Protocol):
    """A device with writes (drivers.modbus.ModbusDevice)."""

    async def write(self, line: Line, name: str, on: bool) -> None: ...  # noqa: FBT001


class Output:
    """One siren or relay.

    Args:
        table: its settings.
        line: which it hangs on.
        device: which switches it.
        on_fault: told when it does not follow, with the error, and when it does again, with "".
        rate: of the clock; pulses repeat on its time.
    """

    def __init__(
        self,
        table: OutputTable,
        line: PolledLine,
        device: Switch,
        on_fault: Callable[[OutputTable, str], None],
        rate: float = 1.0,
    ) -> None:
        self.table = table
        self._line = line
        self._device = device
        self._on_fault = on_fault
        self._every_s = table.every_s / rate
        self._changed = asyncio.Event()
        self._failing = False
        self.wanted = False
        self.verified: bool | None = None
        self._changed.set()  # a relay may have been left in any state

    def want(self, wanted: bool) -> None:  # noqa: FBT001 -- on or off
        """Switch it, if it is not so already; returns at once."""
        if wanted is not self.wanted:
            self.wanted = wanted
            self._changed.set()

    @property
    def settled(self) -> bool:
        """Whether the relay is known to be as it is wanted."""
        return self.verified is self.wanted

    async def run(self) -> Never:
        """Bring the relay to the wanted state, and again whenever that changes; until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self.table.kind in ("pulse", "watchdog"):
                await self._pulse()
            else:
                await self._bring(wanted=self.wanted)

    async def _pulse(self) -> None:
        """Pulse after pulse while it is wanted; the last one ends by itself."""
        while self.wanted:
            await self._bring(wanted=True)
            try:
                async with asyncio.timeout(self._every_s):
                    await self._changed.wait()
            except TimeoutError:
                continue
            self._changed.clear()
        self.verified = False

    async def _bring(self, *, wanted: bool) -> None:
        while self.wanted is wanted:
            try:
                await self._line.submit(lambda line: self._device.write(line, self.table.write, wanted))
            except (WireError, RuntimeError) as error:
                self.verified = None
                if not self._failing:
                    self._failing = True
                    log.error("output %s cannot be switched: %s", self.table.id, error)  # noqa: TRY400
                    self._on_fault(self.table, str(error))
                await asyncio.sleep(RETRY_S)
            else:
                if self.verified is not wanted:
                    log.warning("output %s is %s, read back", self.table.id, "on" if wanted else "off")
                self.verified = wanted
                if self._failing:
                    self._failing = False
                    self._on_fault(self.table, "")
                return
