"""Clients nobody here wrote: pymodbus over TCP and over a pseudo-terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from hardware_sim.clock import BenchClock
from hardware_sim.dam import Dam, Truth
from hardware_sim.instruments.dfrobot_sen0575 import UNIT, Sen0575
from hardware_sim.instruments.metsens300 import MetSens300
from hardware_sim.instruments.vegapuls import VegaPuls
from hardware_sim.instruments.waveshare_relay import WaveshareRelay
from hardware_sim.instruments.wenkon_vtn416 import Vtn416
from hardware_sim.site import PIEZOMETERS, RAIN_MM_PER_TIP
from hardware_sim.wires import ModbusTcpWire, RtuWire

if TYPE_CHECKING:
    from pathlib import Path

DAM = Dam(lambda _t: 60.0, seed=1)
DAM.at(1800.0)


def truth() -> Truth:
    return DAM.at(1800.0)


async def test_pymodbus_reads_barometer_and_radar_over_tcp() -> None:
    wire = ModbusTcpWire({1: MetSens300(truth), 2: VegaPuls(truth, 75.0, 20.0)})
    await wire.open()
    host, port = wire.address.split(":")
    client = AsyncModbusTcpClient(host, port=int(port), retries=0, timeout=2, reconnect_delay=0)
    assert await client.connect()
    air = await client.read_holding_registers(0, count=2, device_id=1)
    pressure = client.convert_from_registers(air.registers, client.DATATYPE.FLOAT32)
    assert pressure == pytest.approx(DAM.at(1800.0).pressure_hpa, rel=1e-6)
    pond = await client.read_input_registers(2000, count=4, device_id=2)
    assert pond.registers[:2] == [0, 0]
    level = client.convert_from_registers(pond.registers[2:], client.DATATYPE.FLOAT32)
    assert level == pytest.approx(DAM.at(1800.0).pond_m - 75.0, rel=1e-6)
    refused = await client.read_holding_registers(40, count=2, device_id=1)
    assert refused.isError()
    assert refused.exception_code == 2
    client.close()
    wire.close()


async def test_pymodbus_reads_logger_gauge_and_relay_on_one_serial_line(tmp_path: Path) -> None:
    clock = BenchClock.starting_now(1.0)
    wire = RtuWire(
        tmp_path / "rs485-1",
        {
            1: Vtn416(truth, PIEZOMETERS),
            3: WaveshareRelay(clock.now_s),
            UNIT: Sen0575(truth, RAIN_MM_PER_TIP),
        },
    )
    await wire.open()
    client = AsyncModbusSerialClient(
        wire.address, framer=FramerType.RTU, baudrate=9600, retries=0, timeout=2, reconnect_delay=0
    )
    assert await client.connect()
    hertz = await client.read_holding_registers(100, count=20, device_id=1)
    assert all(20_000 < word < 32_000 for word in hertz.registers[:4])
    assert hertz.registers[16:] == [9999] * 4
    rain = await client.read_input_registers(8, count=4, device_id=UNIT)
    millimetres = client.convert_from_registers(
        rain.registers[:2], client.DATATYPE.UINT32, word_order="little"
    )
    assert isinstance(millimetres, int)
    assert millimetres / 10_000 == pytest.approx(DAM.at(1800.0).rain_mm, abs=RAIN_MM_PER_TIP)
    assert not (await client.write_coil(0, value=True, device_id=3)).isError()
    assert (await client.read_coils(0, count=8, device_id=3)).bits[:2] == [True, False]
    client.close()
    wire.close()
