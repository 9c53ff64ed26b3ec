"""Rows 32 to 35: what a serial line says that is no answer. Random faults of one kind on many lines at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from drivers.contract import BadReply
from drivers.framing import RtuFraming
from drivers.line import Line
from drivers.wire import SerialWire
from tests.drivers.rtu_server import Mode, RtuServer, adu, answer, data, read
from tests.drivers.test_line_campaign import HELD_BACK, MISATTRIBUTED, campaign
from tests.fault.bus import polled, share

if TYPE_CHECKING:
    from collections import Counter

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
