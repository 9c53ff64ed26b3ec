"""A shared RTU line on a real pseudo-terminal, one fault at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from drivers.contract import BadReply, Busy, LineDown, NoReply, Refused, WireError
from drivers.framing import ModbusBusy, ModbusRefused, RtuFraming
from drivers.line import Line
from drivers.wire import SerialWire
from tests.drivers.rtu_server import Mode, RtuServer, adu, answer, crc, data, read

TIMEOUT_S = 0.05
SLOWEST_S = 0.15


async def ask(line: Line, at: int, *, unit: int = 1, fn: int = 3, count: int = 2, **options: Any) -> bytes:
    """The data bytes of a read."""
    options = {"timeout_s": TIMEOUT_S, "slowest_reply_s": SLOWEST_S} | options
    reply = await line.transact(unit, read(fn, at, count), reply_bytes=2 + 2 * count, **options)
    assert reply[:2] == bytes((fn, 2 * count))
    return reply[2:]


async def test_a_reply_is_what_the_device_said(line: Line) -> None:
    assert await ask(line, 100) == data(1, 3, 100, 2)
    assert await ask(line, 7, unit=9, fn=4, count=125) == data(9, 4, 7, 125)
    assert (line.requests, line.bytes_sent, line.bytes_received) == (2, 16, 9 + 255)
    assert (line.timeouts, line.bad_replies, line.resyncs) == (0, 0, 0)


@pytest.mark.parametrize("late_s", [0.08, 0.14], ids=["while the line is silent", "at the last moment"])
async def test_a_late_reply_is_never_another_registers_value(
    server: RtuServer, line: Line, late_s: float
) -> None:
    server.plan = lambda request: [(late_s if request[2:4] == b"\0\x64" else 0.0, answer(request))]
    begun = asyncio.get_running_loop().time()
    with pytest.raises(NoReply, match="no answer on line rs485-1"):
        await ask(line, 100)
    assert asyncio.get_running_loop().time() - begun < 0.08  # the silence is not charged to this caller
    assert await ask(line, 500) == data(1, 3, 500, 2)
    assert await ask(line, 700) == data(1, 3, 700, 2)
    assert line.resyncs == 1


async def test_a_late_reply_during_another_shape_is_passed_over(server: RtuServer, line: Line) -> None:
    server.plan = lambda request: [(0.06 if request[1] == 3 else 0.03, answer(request))]
    with pytest.raises(NoReply):
        await ask(line, 100, slowest_reply_s=0.0)  # the profile is wrong here: 60 ms are possible
    assert await ask(line, 500, fn=4) == data(1, 4, 500, 2)
    assert await ask(line, 500, fn=4, count=5) == data(1, 4, 500, 5)


async def test_the_late_reply_itself_ends_the_silence(server: RtuServer, line: Line) -> None:
    server.plan = lambda request: [(0.08 if request[2:4] == b"\0\x64" else 0.0, answer(request))]
    begun = asyncio.get_running_loop().time()
    with pytest.raises(NoReply):
        await ask(line, 100, slowest_reply_s=5.0)
    assert await ask(line, 500) == data(1, 3, 500, 2)
    assert asyncio.get_running_loop().time() - begun < 1.0
    assert line.busy_s < 1.0


async def test_a_doubled_reply_is_used_once(server: RtuServer, line: Line) -> None:
    server.plan = lambda request: [(0.0, answer(request) * 2)]
    assert await ask(line, 100) == data(1, 3, 100, 2)
    assert await ask(line, 500) == data(1, 3, 500, 2)
    server.plan = lambda request: [(0.0, answer(request)), (1e-6, answer(request))]  # in a piece of its own
    assert await ask(line, 100) == data(1, 3, 100, 2)
    assert await ask(line, 500) == data(1, 3, 500, 2)


@pytest.mark.parametrize(
    "before",
    [
        adu(2, b"\x03\x04\x11\x22\x33\x44"),
        adu(1, b"\x04\x04\x11\x22\x33\x44"),
        adu(1, b"\x03\x02\x11\x22"),
        adu(1, b"\x03\x06\x11\x22\x33\x44\x55\x66"),
        adu(1, b"\x03\x04\x11\x22\x33\x44")[:-1],
        adu(1, b"\x03\x04\x11\x22\x33\x44")[:-2] + b"\0\0",
        adu(1, read(3, 100, 2)),
        adu(1, b"\x84\x02"),
        b"\0",
        b"\xff\xff\xff",
        b"\x01",
        b"\x01\x03",
        b"\x01\x03\x04",
    ],
    ids=[
        "another unit",
        "another function",
        "too few registers",
        "too many registers",
        "truncated",
        "bad checksum",
        "our own echo",
        "another function's exception",
        "a zero",
        "ones",
        "our unit as noise",
        "unit and function as noise",
        "a whole head as noise",
    ],
)
async def test_what_is_no_answer_is_passed_over_and_never_believed(
    server: RtuServer, line: Line, before: bytes
) -> None:
    server.plan = lambda request: [(0.0, before), (0.005, answer(request))]
    assert await ask(line, 100) == data(1, 3, 100, 2)
    server.plan = lambda request: [(0.0, before + answer(request) + before)]
    assert await ask(line, 100) == data(1, 3, 100, 2)
    server.plan = lambda request: [(0.0, before)]
    silent = before == adu(1, read(3, 100, 2))  # hearing oneself is no answer at all
    with pytest.raises(NoReply if silent else BadReply):
        await ask(line, 100)
    server.plan = lambda request: [(0.0, answer(request))]
    assert await ask(line, 500) == data(1, 3, 500, 2)


async def test_an_echo_is_not_taken_for_the_reply_to_a_write(server: RtuServer, line: Line) -> None:
    server.plan = lambda request: [(0.0, request), (0.005, answer(request))]
    await ask(line, 100)  # here the line hears that it hears itself
    write = b"\x05\x00\x03\xff\x00"
    options: Any = {"reply_bytes": 5, "timeout_s": TIMEOUT_S, "slowest_reply_s": SLOWEST_S}
    assert await line.transact(1, write, **options) == write
    server.plan = lambda request: [(0.0, request)]
    with pytest.raises(NoReply):
        await line.transact(1, write, **options)


async def test_a_device_that_trickles_does_not_hold_the_line(server: RtuServer, line: Line) -> None:
    def trickle(request: bytes) -> list[tuple[float, bytes]]:
        return [(0.05 * i, bytes((b,))) for i, b in enumerate(answer(request))]

    server.plan = trickle
    begun = asyncio.get_running_loop().time()
    with pytest.raises(BadReply, match="no valid answer on line rs485-1, only: 01"):
        await ask(line, 100)
    assert asyncio.get_running_loop().time() - begun < 0.09
    server.plan = lambda request: [(0.0, answer(request))]
    assert await ask(line, 500) == data(1, 3, 500, 2)  # the rest of the trickle is still coming


async def test_exceptions_say_their_code(server: RtuServer, line: Line) -> None:
    code = 2
    server.plan = lambda request: [(0.0, adu(request[0], bytes((request[1] | 0x80, code))))]
    with pytest.raises(Refused, match="exception 2: it has no such address") as refused:
        await ask(line, 100)
    assert isinstance(refused.value, ModbusRefused)
    assert refused.value.code == 2
    for code in (5, 6):
        with pytest.raises(Busy, match=f"exception {code}") as busy:
            await ask(line, 100)
        assert isinstance(busy.value, ModbusBusy)
        assert busy.value.code == code
    code = 11
    with pytest.raises(NoReply, match="the gateway heard nothing"):
        await ask(line, 100)
    assert line.resyncs == 0  # each of them was an answer


async def test_an_unplugged_adapter_is_known_at_once_and_a_new_one_serves(
    server: RtuServer, line: Line
) -> None:
    server.plan = lambda request: []
    loop = asyncio.get_running_loop()
    loop.call_later(0.02, server.unplug)
    waiting = [asyncio.create_task(ask(line, at, timeout_s=30.0), name=f"ask {at}") for at in (1, 2, 3)]
    begun = loop.time()
    for ended in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(ended, LineDown)
    assert loop.time() - begun < 1.0
    assert not line.is_open
    with pytest.raises(LineDown, match="is not open"):
        await ask(line, 4)


async def test_a_stable_name_finds_the_port_after_a_replug(server: RtuServer, tmp_path: Path) -> None:
    name = tmp_path / "rs485-1"
    name.symlink_to(server.port)
    line = Line(SerialWire(str(name), Mode()), RtuFraming(), "rs485-1")
    await line.open()
    assert await ask(line, 1) == data(1, 3, 1, 2)
    server.unplug()
    async with asyncio.timeout(5):
        while line.is_open:
            await asyncio.sleep(0.001)
    with pytest.raises(LineDown):
        await line.open()
    server.plug_in_again()
    name.unlink()
    name.symlink_to(server.port)
    await line.open()
    assert await ask(line, 2) == data(1, 3, 2, 2)
    line.close()


async def test_a_cancelled_caller_leaves_no_reply_to_the_next(server: RtuServer, line: Line) -> None:
    server.plan = lambda request: [(0.03, answer(request))]
    first = asyncio.create_task(ask(line, 100), name="first")
    await asyncio.sleep(0.01)
    first.cancel()
    assert await ask(line, 500) == data(1, 3, 500, 2)
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_caller_cancelled_in_the_queue_gives_up_its_place(server: RtuServer, line: Line) -> None:
    server.plan = lambda request: [(0.03, answer(request))]
    tasks = [asyncio.create_task(ask(line, at), name=f"ask {at}") for at in (1, 2, 3)]
    await asyncio.sleep(0.01)
    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[0] == data(1, 3, 1, 2)
    assert isinstance(results[1], asyncio.CancelledError)
    assert results[2] == data(1, 3, 3, 2)
    assert [r[3] for r in server.requests] == [1, 3]


async def test_turns_are_in_order_and_urgent_ones_come_first(server: RtuServer, line: Line) -> None:
    server.plan = lambda request: [(0.005, answer(request))]
    await asyncio.sleep(0.005)  # the line is free: the first goes at once
    routine = [asyncio.create_task(ask(line, at), name=f"ask {at}") for at in (1, 2, 3)]
    await asyncio.sleep(0)
    urgent = [asyncio.create_task(ask(line, at, urgent=True), name=f"ask {at}") for at in (11, 12)]
    await asyncio.gather(*routine, *urgent)
    assert [r[3] for r in server.requests] == [1, 11, 12, 2, 3]


async def test_an_urgent_request_overtakes_those_who_wait_for_the_silence(
    server: RtuServer, line: Line
) -> None:
    server.plan = lambda request: [] if request[3] == 1 else [(0.0, answer(request))]
    with pytest.raises(NoReply):
        await ask(line, 1)
    routine = asyncio.create_task(ask(line, 2), name="routine")
    await asyncio.sleep(0.01)
    urgent = asyncio.create_task(ask(line, 11, urgent=True), name="urgent")
    await asyncio.gather(routine, urgent)
    assert [r[3] for r in server.requests] == [1, 11, 2]


async def test_a_broadcast_waits_for_nobody_but_gives_the_devices_their_rest(
    server: RtuServer, line: Line
) -> None:
    server.plan = lambda request: []
    loop = asyncio.get_running_loop()
    begun = loop.time()
    reply = await line.transact(
        0, b"\x06\0\1\0\1", reply_bytes=5, timeout_s=1.0, slowest_reply_s=1.0, turnaround_s=0.05
    )
    assert reply == b""
    assert loop.time() - begun < 0.04
    server.plan = lambda request: [(0.0, answer(request))]
    assert await ask(line, 5) == data(1, 3, 5, 2)
    assert loop.time() - begun >= 0.05


async def test_frames_keep_their_distance_unless_pacing_is_off(server: RtuServer) -> None:
    async def ten(**options: Any) -> float:
        line = Line(SerialWire(server.port, Mode(baud=1200)), RtuFraming(), "slow", **options)
        await line.open()
        begun = asyncio.get_running_loop().time()
        for at in range(10):
            await ask(line, at)
        line.close()
        return asyncio.get_running_loop().time() - begun

    assert await ten() >= 9 * 3.5 * 10 / 1200
    assert await ten(paced=False) < 9 * 3.5 * 10 / 1200


async def test_on_a_line_that_is_never_quiet_the_checksum_still_finds_the_answer(
    server: RtuServer, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.line._NOISE_PATIENCE_S", 0.1)

    async def noise() -> None:
        while True:
            server.send(os.urandom(11))
            await asyncio.sleep(0.001)

    flood = asyncio.create_task(noise(), name="noise")
    await asyncio.sleep(0.01)
    right = 0
    for at in range(5):
        with contextlib.suppress(WireError):
            assert await ask(line, at) == data(1, 3, at, 2)
            right += 1
    flood.cancel()
    assert right >= 4
    assert line.bytes_received > 100


async def test_the_trace_shows_both_directions(line: Line) -> None:
    seen: list[tuple[str, bytes]] = []
    line.on_trace = lambda direction, _time_ns, bytes_: seen.append((direction, bytes_))
    await ask(line, 100)
    request = adu(1, read(3, 100, 2))
    assert seen == [("tx", request), ("rx", answer(request))]


DATA = Path(os.environ.get("PONDWATCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
FAULTS = DATA / "modbus_rtu_faults" / "rtu_faults.json"


def faults() -> list[dict[str, Any]]:
    return json.loads(FAULTS.read_text()) if FAULTS.is_file() else []


@pytest.mark.skipif(not FAULTS.is_file(), reason=f"needs {FAULTS}")
@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault["id"])
async def test_faults_that_people_met_are_passed_over(
    server: RtuServer, line: Line, fault: dict[str, Any]
) -> None:
    """Captured bytes arrive as they did; whole, as the wire must have brought them; and before a right answer."""
    received = bytes.fromhex(fault["received"])
    unit, fn = received.lstrip(b"\0")[:2]
    count = received.lstrip(b"\0")[2] // 2 if received[0] == 0 else 2
    cut_off = bytes.fromhex(fault.get("after_dropping_first_byte_missing_crc_hi", ""))
    server.plan = lambda request: [(0.0, received)]
    with pytest.raises(BadReply):
        await ask(line, 0x18, unit=unit, fn=fn, count=count)
    server.plan = lambda request: [(0.0, received), (0.01, answer(request))]
    assert await ask(line, 0x18, unit=unit, fn=fn, count=count) == data(unit, fn, 0x18, count)
    if cut_off:  # the answer was there all along, behind one zero
        server.plan = lambda request: [(0.0, received + cut_off)]
        whole = received[1:] + cut_off
        assert crc(whole[:-2]) == whole[-2:]
        assert await ask(line, 0x18, unit=unit, fn=fn, count=count) == whole[3:-2]
