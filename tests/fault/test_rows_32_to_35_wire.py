"""Rows 32 to 35: what a serial line says that is no answer. Random faults of one kind on many lines at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from daemon.clock import NS, Clock
from daemon.poller import PolledLine, PolledUnit
from drivers.contract import BadReply
from drivers.framing import RtuFraming
from drivers.line import Line
from drivers.modbus import ModbusDevice
from drivers.profile import read_profile
from drivers.wire import SerialWire
from tests.drivers.rtu_server import Mode, RtuServer, adu, answer, data, read
from tests.drivers.test_line_campaign import HELD_BACK, MISATTRIBUTED, campaign
from tests.drivers.test_recorder import Witness
from tests.fault.bus import polled, share

if TYPE_CHECKING:
    from collections import Counter

    from drivers.sample import Sample
    from tests.conftest import Figure

LINES, REQUESTS = 24, 1200


def told(tally: Counter[str]) -> str:
    asked, held = sum(tally.values()), tally[HELD_BACK]
    text = f"{tally[MISATTRIBUTED]} of {asked:,} requests misattributed, {tally['right']:,} answered right"
    return text + f" ({held} disturbed by the machine's own load)" * bool(held)


@pytest.mark.fault(
    row=32, fault="late RTU reply", injected="two thirds of the replies up to `slowest_reply` late, on pseudo-terminals",
    holds="no value is another question's",
)  # fmt: skip
async def test_row_32_a_late_reply_is_nobodys_value(figure: Figure) -> None:
    tally = await campaign(LINES, REQUESTS, 32, ("late", "late_and_noisy", "just_in_time"))
    figure(told(tally))
    assert tally[MISATTRIBUTED] == 0
    assert tally["right"] > REQUESTS // 5


@pytest.mark.fault(
    row=32, fault="late RTU reply, without the silence",
    injected="the same, and the line asks on at once", holds="the test finds wrong values, or it would prove nothing",
)  # fmt: skip
async def test_row_32_without_the_silence_the_same_faults_give_wrong_values(
    figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Line, "_resync", lambda self, until: None)
    tally = await campaign(LINES, REQUESTS, 32, ("late",))
    figure(told(tally))
    assert tally[MISATTRIBUTED] > 0


TWO_ALIKE = """
schema = 1
id = "logger"
title = "Two blocks of one shape"
source = [{ doc = "made for this test", trust = "inferred" }]
speaks = "modbus"
[bus]
timeout = "300 ms"
slowest_reply = "300 ms"
[block.first]
fn = 3
at = 100
n = 2
[block.second]
fn = 3
at = 132
n = 2
[point.first]
in = "first"
at = 100
type = "u32"
[point.second]
in = "second"
at = 132
type = "u32"
"""


async def values_after_a_restart(*, waits: bool) -> tuple[int, int]:
    """Good and wrong values of a core that begins while its logger still works for the core before it."""
    server, clock, witness = RtuServer(), Clock(), Witness()
    server.plan = lambda request: [(0.25, answer(request))]
    before = Line(SerialWire(server.port, Mode()), RtuFraming(), "L")
    await before.open()
    ask = before.transact(1, read(3, 132, 2), reply_bytes=6, timeout_s=0.3, slowest_reply_s=0.3)
    asking = asyncio.create_task(ask)
    while not server.requests:
        await asyncio.sleep(0.001)
    before.close()
    await asyncio.gather(asking, return_exceptions=True)
    driver = ModbusDevice("u1", read_profile(TWO_ALIKE.encode(), "logger", "logger").compile("u1"), 1, clock)
    unit = PolledUnit(driver, NS // 20, driver.longest_s, alike_s=driver.alike_s if waits else 0.0)
    poller = PolledLine(Line(SerialWire(server.port, Mode()), RtuFraming(), "L"), [unit], clock, witness)
    task = asyncio.create_task(poller.run())
    told: list[Sample] = []
    async with asyncio.timeout(5.0):
        while len(told) < 4:
            await asyncio.sleep(0.02)
            told = [each for frame in witness.frames for each in frame if not each.quality.is_bad]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    server.close()
    right = {
        point: int.from_bytes(data(1, 3, at, 2), "big") for point, at in (("first", 100), ("second", 132))
    }
    return len(told), sum(right[each.point] != each.value for each in told)


@pytest.mark.fault(
    row=32, fault="the core is started anew while a slow logger still works for the one before",
    injected="a reply 0.25 s late to a request of before the start; a logger of two blocks of one shape",
    holds="it is not asked until `slowest_reply` has passed; asked at once it would yield wrong values",
)  # fmt: skip
async def test_row_32_the_reply_to_the_core_before_is_nobodys_value(figure: Figure) -> None:
    good, wrong = await values_after_a_restart(waits=True)
    _, wrong_at_once = await values_after_a_restart(waits=False)
    figure(f"{wrong} of {good} values wrong, {wrong_at_once} without the wait")
    assert wrong == 0 < good
    assert wrong_at_once > 0


@pytest.mark.fault(
    row=33, fault="duplicate reply", injected="two thirds of the replies twice in one piece",
    holds="the second is discarded",
)  # fmt: skip
async def test_row_33_the_second_copy_is_discarded(figure: Figure) -> None:
    tally = await campaign(LINES, REQUESTS, 33, ("doubled",))
    figure(told(tally))
    assert tally[MISATTRIBUTED] == 0
    assert tally["right"] >= 0.95 * REQUESTS  # a few callers are cancelled by the campaign itself


FOREIGN = ("another_unit", "another_function", "another_count", "foreign_right_behind", "other_master")


@pytest.mark.fault(
    row=34, fault="reply from another unit, another master's frames",
    injected="replies of other units, functions and counts, and other masters' traffic, before and behind the answer",
    holds="ignored, the time for the answer runs on",
)  # fmt: skip
async def test_row_34_what_others_say_is_ignored(figure: Figure) -> None:
    tally = await campaign(LINES, REQUESTS, 34, FOREIGN)
    figure(told(tally))
    assert tally[MISATTRIBUTED] == 0
    assert tally["right"] > REQUESTS // 3


@pytest.mark.fault(
    row=34, fault="another master that never stops talking",
    injected="requests to and replies of other units every 20 ms for 2 s, a broadcast every 100 ms",
    holds="every poll answered, with its own values",
)  # fmt: skip
async def test_row_34_a_line_shared_with_another_master_is_polled_on(figure: Figure) -> None:
    server = RtuServer()
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "shared")

    async def other_master() -> None:
        for n in range(1000):
            request = adu(40 + n % 5, read(3, n, 25))
            server.send(request + answer(request) if n % 5 else adu(0, b"\x06\x00\x01\x00\x01"))
            await asyncio.sleep(0.02)

    talking = asyncio.create_task(other_master(), name="other master")
    async with polled(line, (1, 2, 3), every_s=0.1, timeout_s=0.08) as bus:
        await asyncio.sleep(2.2)
        answered, asked = bus.on_time((1, 2, 3))
    talking.cancel()
    server.close()
    figure(f"{share(answered, asked)} polls on time, {bus.record.wrong} wrong values")
    assert bus.record.wrong == 0
    assert answered >= 0.9 * asked >= 50


@pytest.mark.fault(
    row=35, fault="garbage before and after, bad checksum",
    injected="noise, half frames, flipped bits around and in two thirds of the replies",
    holds="none accepted; an intact answer behind noise is used in the same poll",
)  # fmt: skip
async def test_row_35_garbage_is_never_a_value(figure: Figure) -> None:
    kinds = ("noise_before", "noise_that_looks_like_a_head", "bad_checksum", "truncated", "torn")
    tally = await campaign(LINES, REQUESTS, 35, kinds)
    figure(told(tally))
    assert tally[MISATTRIBUTED] == 0
    assert tally["right"] > REQUESTS // 2


@pytest.mark.fault(
    row=35, fault="noise, then the device is well again", injected="one reply with a bad checksum in the midst of others",
    holds="counted; the next poll is answered",
)  # fmt: skip
async def test_row_35_the_line_is_in_step_again_with_the_next_poll(figure: Figure) -> None:
    server = RtuServer()
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), "L")
    await line.open()
    ask: Any = {"reply_bytes": 6, "timeout_s": 0.02, "slowest_reply_s": 0.02}
    for at in range(0, 30, 3):
        server.plan = lambda request: [(0.0, answer(request)[:-1] + b"\x55")]
        with pytest.raises(BadReply):
            await line.transact(1, read(3, at, 2), **ask)
        server.plan = lambda request: [(0.0, answer(request))]
        for other in (at + 1, at + 2):
            assert (await line.transact(1, read(3, other, 2), **ask))[2:] == data(1, 3, other, 2)
    figure(f"10 bad replies, {line.bad_replies} counted, the 20 polls after them answered")
    assert line.bad_replies == 10
    line.close()
    server.close()
