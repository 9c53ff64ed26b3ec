"""Requests as bytes, built and range-checked by pymodbus; at configuration, never per poll."""

from __future__ import annotations

from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

_READ = {
    1: ReadCoilsRequest,
    2: ReadDiscreteInputsRequest,
    3: ReadHoldingRegistersRequest,
    4: ReadInputRegistersRequest,
}
_REGISTERS = 16


def read_pdu(fn: int, at: int, count: int) -> bytes:
    """The request that reads `count` coils (fn 1, 2) or registers (fn 3, 4) from address `at`.

    Raises:
        ValueError: address or count out of range.
    """
    request = _READ[fn](address=at, count=count)
    return bytes((fn,)) + bytes(request.encode())


def write_pdu(fn: int, at: int, word: int) -> bytes:
    """The request that writes one coil (fn 5) or one register (fn 6, 16).

    A coil's request has a register's shape; some makers put other numbers than FF00 and 0000 in it.
    """
    if fn == _REGISTERS:
        return bytes((fn,)) + bytes(WriteMultipleRegistersRequest(address=at, registers=[word]).encode())
    return bytes((fn,)) + bytes(WriteSingleRegisterRequest(address=at, registers=[word]).encode())
