"""A Modbus TCP server of the bench's, where libmodbus is not there; prints "ready PORT"."""

from __future__ import annotations

import asyncio

from hardware_sim.instruments.registers import TableLogger
from hardware_sim.wires import ModbusTcpWire

UNITS, VALUES = 32, 24


async def main() -> None:
    wire = ModbusTcpWire(
        {unit: TableLogger([[float(v) for v in range(VALUES)]], unit) for unit in range(1, UNITS + 1)}
    )
    await wire.open()
    print("ready", wire.address.rpartition(":")[2], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
