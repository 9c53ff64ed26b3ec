from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from drivers.framing import RtuFraming
from drivers.line import Line
from drivers.wire import SerialWire
from tests.drivers.rtu_server import Mode, RtuServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def server() -> AsyncIterator[RtuServer]:
    """A Modbus RTU device on a pseudo-terminal."""
    server = RtuServer()
    yield server
    server.close()


@pytest.fixture
async def line(server: RtuServer) -> AsyncIterator[Line]:
    """The line to it, open."""
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "rs485-1")
    await line.open()
    yield line
    line.close()
