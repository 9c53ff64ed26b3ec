"""Sirens and relays: switched by the level of a pond, verified by read-back, tried until it holds.

An output's wanted state is a fact of the judgement; whether the relay followed is read back from it.
A write that fails is repeated every RETRY_S and told as a fault, since a siren that cannot sound is worse
than one that sounds twice. Nothing here waits for network, disk or the rules process.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from drivers.contract import WireError
from edge_rules.law.levels import Level

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
    """One siren or relay."""

    def __init__(
        self,
        table: OutputTable,
        line: PolledLine,
        device: Switch,
        on_fault: Callable[[OutputTable, str], None],
    ) -> None:
        self.table = table
        self._line = line
        self._device = device
        self._on_fault = on_fault
        self._at = Level[table.at.upper()]
        self._changed = asyncio.Event()
        self.wanted = False
        self.verified: bool | None = None
        self._changed.set()  # a relay may have been left in any state

    def pond_level(self, level: Level) -> None:
        """The pond it guards stands at `level` now."""
        wanted = level >= self._at
        if wanted is not self.wanted:
            self.wanted = wanted
            self._changed.set()

    async def run(self) -> None:
        """Bring the relay to the wanted state, and again whenever that changes; until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._bring(self.wanted)

    async def _bring(self, wanted: bool) -> None:  # noqa: FBT001
        failing = False
        while self.wanted is wanted:
            try:
                await self._line.submit(lambda line: self._device.write(line, self.table.write, wanted))
            except (WireError, RuntimeError) as error:
                self.verified = None
                if not failing:
                    failing = True
                    log.error("output %s cannot be switched: %s", self.table.id, error)  # noqa: TRY400
                    self._on_fault(self.table, str(error))
                await asyncio.sleep(RETRY_S)
            else:
                self.verified = wanted
                log.warning("output %s is %s, read back", self.table.id, "on" if wanted else "off")
                if failing:
                    self._on_fault(self.table, "")
                return
