"""Blocks joined to requests: what fits, what a device refuses, and that every block reads as if alone."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.coalesce import Request, coalesce, divide
from drivers.contract import LineDown
from drivers.framing import MbapFraming, RtuFraming
from drivers.line import Line
from drivers.modbus import ModbusDevice
from drivers.profile import read_profile
from drivers.sample import Quality
from drivers.wire import SerialWire, TcpWire
from tests.drivers.rtu_server import Mode, RtuServer, adu, answer, word

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from drivers.model import CompiledBlock, Profile


def profile(blocks: Sequence[tuple[int, int, int]], bus: str = "", more: str = "") -> Profile:
    """A profile of blocks (fn, at, n), a point for each register."""
    text = (
        'schema = 1\nid = "d"\ntitle = "made for this test"\nspeaks = "modbus"\n'
        'source = [{ doc = "made for this test", trust = "inferred" }]\n'
        f'[bus]\ntimeout = "50 ms"\nslowest_reply = "100 ms"\n{bus}\n{more}\n'
    )
    for i, (fn, at, n) in enumerate(blocks):
        text += f"[block.b{i}]\nfn = {fn}\nat = {at}\nn = {n}\n"
        text += f'[point.p{i}x]\nin = "b{i}"\nat = {at}\ntype = "{"bit" if fn < 3 else "u16"}"\nrepeat = {n}\nunit = ""\n'
    return read_profile(text.encode(), "d", "d")


class Still:
    def wall_ns(self) -> int:
        return 0

    def monotonic_ns(self) -> int:
        return 0


def device(its: Profile, unit: int = 1) -> ModbusDevice:
    return ModbusDevice("d", its.compile("d"), unit, Still())


def asked(server: RtuServer) -> list[tuple[int, int, int]]:
    return [(r[1], int.from_bytes(r[2:4], "big"), int.from_bytes(r[4:6], "big")) for r in server.requests]


async def test_blocks_side_by_side_are_one_request_and_read_as_if_alone(
    server: RtuServer, line: Line
) -> None:
    logger = device(profile([(3, 100, 2), (3, 102, 3), (4, 105, 1), (3, 105, 2)]))
    frames = await logger.poll(line, 0)
    assert asked(server) == [(3, 100, 5), (4, 105, 1), (3, 105, 2)]
    assert [list(f.values) for f in frames] == [
        [word(1, fn, at + i) for i in range(n)] for fn, at, n in [(3, 100, 2), (3, 102, 3), (4, 105, 1), (3, 105, 2)]
    ]  # fmt: skip
    assert logger.words("p1x2", frames[1]) == (word(1, 3, 103),)
    assert frames[0].data == b"".join(word(1, 3, 100 + i).to_bytes(2, "big") for i in range(2))


async def test_a_request_is_never_longer_than_the_device_takes(server: RtuServer, line: Line) -> None:
    its = profile([(3, 0, 4), (3, 4, 4), (3, 8, 4), (3, 12, 4)], "max_registers = 10")
    await device(its).poll(line, 0)
    assert asked(server) == [(3, 0, 8), (3, 8, 8)]


async def test_holes_are_bridged_only_where_the_profile_allows_it(server: RtuServer, line: Line) -> None:
    blocks = [(3, 0, 2), (3, 5, 2)]
    await device(profile(blocks)).poll(line, 0)
    await device(profile(blocks, "bridge_holes = true")).poll(line, 0)
    assert asked(server) == [(3, 0, 2), (3, 5, 2), (3, 0, 7)]


@pytest.mark.parametrize("code", [2, 3])
async def test_a_bridge_that_a_device_refuses_is_given_up_for_good_and_said_once(
    server: RtuServer, line: Line, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    """Registers 3 and 4 do not exist there: first the bridge is taken away, the neighbours stay joined."""

    def plan(request: bytes) -> list[tuple[float, bytes]]:
        at, count = int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
        refused = {3, 4} & set(range(at, at + count))
        return [(0.0, adu(request[0], bytes((0x83, code))) if refused else answer(request))]

    server.plan = plan
    logger = device(profile([(3, 0, 2), (3, 2, 1), (3, 5, 2)], "bridge_holes = true"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            frames = await logger.poll(line, 0)
            assert [f.qualities[0] for f in frames] == [Quality.GOOD] * 3
    assert asked(server) == [(3, 0, 7), *[(3, 0, 3), (3, 5, 2)] * 3]
    assert [r.getMessage() for r in caplog.records] == [
        f"d refuses b0, b1, b2 in one request (unit 1 answered exception {code}: "
        + ("it has no such address" if code == 2 else "it does not accept this value or count")
        + "); now in several"
    ]


async def test_one_block_that_a_device_does_not_have_costs_only_itself(server: RtuServer, line: Line) -> None:
    def plan(request: bytes) -> list[tuple[float, bytes]]:
        at, count = int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
        return [(0.0, adu(1, b"\x83\x02") if at <= 2 < at + count else answer(request))]

    server.plan = plan
    logger = device(profile([(3, 0, 2), (3, 2, 1), (3, 3, 2)]))
    for _ in range(2):
        frames = await logger.poll(line, 0)
        assert [Quality(f.qualities[0]) for f in frames] == [Quality.GOOD, Quality.REFUSED, Quality.GOOD]
    assert asked(server) == [(3, 0, 5), *[(3, 0, 2), (3, 2, 1), (3, 3, 2)] * 2]


@pytest.mark.parametrize(("code", "quality"), [(1, Quality.REFUSED), (4, Quality.REFUSED), (5, Quality.BUSY), (6, Quality.BUSY)])  # fmt: skip
async def test_other_refusals_say_nothing_of_the_registers(
    server: RtuServer, line: Line, code: int, quality: Quality
) -> None:
    server.plan = lambda request: [(0.0, adu(1, bytes((0x83, code))))]
    logger = device(profile([(3, 0, 2), (3, 2, 1)]))
    frames = await logger.poll(line, 0)
    server.plan = lambda request: [(0.0, answer(request))]
    await logger.poll(line, 0)
    assert [f.qualities[0] for f in frames] == [quality] * 2
    assert asked(server) == [(3, 0, 3)] * 2


async def test_what_stands_between_two_reads_of_a_cycle_keeps_them_apart(
    server: RtuServer, line: Line
) -> None:
    cycle = '[cycle]\nsteps = [{ read = "b0" }, { wait = "1 ms" }, { read = "b1" }, { discard = "b2" }, { read = "b2" }]'
    await device(profile([(3, 0, 2), (3, 2, 1), (3, 3, 1)], more=cycle)).poll(line, 0)
    assert asked(server) == [(3, 0, 2), (3, 2, 1), (3, 3, 1), (3, 3, 1)]


def test_joining_saves_bus_time() -> None:
    apart, joined = (device(profile([(3, 0, 2), (3, at, 2)])).wire_seconds(Mode(9600)) for at in (3, 2))
    assert apart - joined == pytest.approx((8 + 5 + 3.5) * 10 / 9600)


def compiled(*places: tuple[int, int, int]) -> list[CompiledBlock]:
    return list(profile(places).compile("d").blocks)


PLACES = st.lists(
    st.tuples(st.sampled_from([1, 3, 3, 3, 4]), st.integers(0, 60), st.integers(1, 12)),
    min_size=1,
    max_size=7,
)


@given(PLACES, st.integers(12, 40), st.booleans())
def test_every_block_is_asked_for_once_in_its_order_and_cut_out_as_it_stood(
    places: list[tuple[int, int, int]], most: int, bridge: bool
) -> None:
    blocks = compiled(*places)
    requests = coalesce(blocks, most, bridge=bridge)
    assert [block for request in requests for block in request.blocks] == blocks
    for request in requests:
        assert request.count <= most or len(request.blocks) == 1
        assert len({block.fn for block in request.blocks}) == 1
        wanted = {r for b in request.blocks for r in range(b.at, b.at + b.count)}
        assert bridge or wanted == set(range(request.at, request.at + request.count))
        memory = bytes(range(256)) * 2
        data = memory[2 * request.at : 2 * request.at + request.data_bytes]
        for block, cut in request.parts(data):
            start = 0 if len(request.blocks) == 1 else 2 * (block.at - request.at)
            assert cut == data[start : start + block.data_bytes]
            assert len(cut) == block.data_bytes


@given(PLACES, st.booleans())
def test_a_request_divides_until_every_block_stands_alone(
    places: list[tuple[int, int, int]], bridge: bool
) -> None:
    left = coalesce(compiled(*places), 125, bridge=bridge)
    while any(len(request.blocks) > 1 for request in left):
        parts = [
            part for request in left for part in ([request] if len(request.blocks) == 1 else divide(request))
        ]
        assert len(parts) > len(left)
        left = parts
    assert [r.blocks[0].at for r in left] == [at for _, at, _ in places]


TRIGGER = """
[cycle]
steps = [{ write = "trigger" }, { wait = "40 ms" }, { read = "b0" }]
[write.trigger]
fn = 6
at = 280
value = 1
broadcast = true
"""


async def test_a_broadcast_trigger_goes_out_once_for_all_that_are_due_together(
    server: RtuServer, line: Line
) -> None:
    its = profile([(3, 0, 2)], more=TRIGGER)
    loggers = [device(its, unit) for unit in (1, 2, 3)]
    server.plan = lambda request: [(0.0, answer(request))] if request[0] else []
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for logger in loggers:
        ((frame),) = await logger.poll(line, 60)
        assert frame.qualities[0] == Quality.GOOD
    assert loop.time() - begun < 0.17  # 100 ms of rest after the broadcast, within which they measure
    assert [(r[0], r[1]) for r in server.requests] == [(0, 6), (1, 3), (2, 3), (3, 3)]
    await loggers[0].poll(line, 120)
    assert [(r[0], r[1]) for r in server.requests[4:]] == [(0, 6), (1, 3)]


async def test_a_broadcast_that_went_out_as_the_adapter_vanished_is_said_again(
    server: RtuServer, tmp_path: Path
) -> None:
    """Else a logger read in the same tick would give what it measured a tick ago."""
    name = tmp_path / "port"
    name.symlink_to(server.port)
    line = Line(SerialWire(str(name), Mode()), RtuFraming(), "rs485-2")
    await line.open()
    its = profile([(3, 0, 2)], more=TRIGGER)
    server.plan = lambda request: [(0.0, answer(request))] if request[0] else []
    first = asyncio.create_task(device(its, 1).poll(line, 60))
    while not server.requests:
        await asyncio.sleep(0.001)
    server.unplug()
    with pytest.raises(LineDown):
        await first
    server.plug_in_again()
    name.unlink()
    name.symlink_to(server.port)
    await line.open()
    await device(its, 2).poll(line, 60)
    assert [(r[0], r[1]) for r in server.requests] == [(0, 6), (0, 6), (2, 3)]
    server.unplug()  # and with nothing read in between: the write itself fails, or the loss is seen before it
    with pytest.raises(LineDown):
        await device(its, 3).poll(line, 120)
    assert not line.told
    line.close()


async def test_behind_modbus_tcp_a_broadcast_trigger_is_for_the_device_alone() -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(12):
            heard.append(head[6:])
            reply = head[7:] if head[7] == 6 else answer(head[6:] + b"\0\0")[1:-2]
            writer.write(head[:4] + (1 + len(reply)).to_bytes(2, "big") + head[6:7] + reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    line = Line(TcpWire("127.0.0.1", server.sockets[0].getsockname()[1]), MbapFraming(), "tcp")
    await line.open()
    (frame,) = await device(profile([(3, 0, 2)], more=TRIGGER), 9).poll(line, 60)
    assert frame.qualities[0] == Quality.GOOD
    assert [(h[0], h[1]) for h in heard] == [(9, 6), (9, 3)]
    line.close()
    server.close()
    await asyncio.sleep(0.01)


def test_a_request_out_of_range_is_refused_when_it_is_made() -> None:
    first, last = compiled((3, 0, 12), (3, 60, 12))
    assert Request.of(first, last).count == 72
    with pytest.raises(ValueError, match="125"):
        Request.of(*compiled((3, 0, 12), (3, 120, 12)))
