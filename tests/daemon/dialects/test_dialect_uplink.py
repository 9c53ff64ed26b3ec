"""What every dialect gets from the uplink around it: settling, refusal, poison, withholding, reconnecting."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, ClassVar, Never

import pytest

from daemon.clock import Clock
from daemon.spool import Draft, Spool
from daemon.uplink.dialect import Parcel, Refused
from daemon.uplink.dialect_uplink import MOST_ASIDE, DialectUplink
from tests.daemon.dialects import NOON_NS, alarm, reading, readings, table
from tests.system.running import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from daemon.spool import Mode
    from daemon.uplink.dialect import Told

POINT = {"code": "K1", "type": "KSW", "value": "n.pond.level"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held back is tried again soon."""
    monkeypatch.setattr("daemon.uplink.contract._RETRY_MOST_S", 0.05)
    monkeypatch.setattr("daemon.uplink.dialect_uplink.ASIDE_FIRST_S", 0.3)


class Post:
    """A dialect of the tests: a parcel for each batch, and a post office whose mood can be set."""

    says_mode: ClassVar[bool] = False
    where = "the post office"

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.offered: list[list[str]] = []
        self.answer: Callable[[str], Exception | None] = lambda _: None
        self.silent = False
        self.opened = 0
        self.lost = asyncio.Event()

    def encode(self, told: Sequence[Told]) -> list[Parcel]:
        return [Parcel(f"{one.kind} {one.seq}", b"") for one in told if one.kind != "gaps"]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Post]:
        self.opened += 1
        self.lost.clear()
        yield self

    async def deliver(self, parcels: Sequence[Parcel]) -> None:
        names = [parcel.name for parcel in parcels]
        self.offered.append(names)
        for name in names:
            if error := self.answer(name):
                raise error
        while self.silent:
            await asyncio.sleep(0.01)
        self.taken += names

    async def watch(self) -> Never:
        await self.lost.wait()
        raise ConnectionResetError("the line is cut")


class ModalPost(Post):
    says_mode: ClassVar[bool] = True


@asynccontextmanager
async def sending(
    spool: Spool, post: Post, quarantined: list[int] | None = None, **settings: str
) -> AsyncIterator[DialectUplink]:
    its = table(
        "tailings-files",
        {"id": "up", "project": "P", "project_name": "北库", "folder": "-", "point": [POINT]} | settings,
    )
    told = quarantined if quarantined is not None else []
    uplink = DialectUplink(
        its,
        post,
        spool,
        Clock(),
        reconnect_most_s=0.05,
        random=Random(3),
        on_quarantined=lambda seq, _k, _w: told.append(seq),
    )
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def level(value: float = 1.0) -> Draft:
    return readings(reading("n.pond.level", value, "2026-11-26T04:00:00.000Z"))


async def settled(uplink: DialectUplink) -> bool:
    return (await uplink.unsettled()).batches == 0


async def test_everything_is_handed_over_once_and_settled_in_the_store(tmp_path: Path) -> None:
    post = Post()
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        for n in range(60):
            await spool.commit([level(n)])
        async with sending(spool, post) as uplink:
            await until(lambda: settled(uplink), "all is settled")
            await spool.commit([level(), alarm()])
            await until(lambda: settled(uplink), "what came later too")
        assert post.taken == [f"readings {n}" for n in range(1, 62)] + ["alarms 62"] or sorted(
            post.taken
        ) == sorted([f"readings {n}" for n in range(1, 62)] + ["alarms 62"])
        assert list(await spool.settled("up")) == [(1, 62)]
        async with sending(spool, post) as uplink:  # begun anew
            await until(lambda: post.opened == 2, "connected again")
            assert await settled(uplink)
        assert len(post.taken) == 62
        assert max(len(group) for group in post.offered) > 1  # a backlog leaves in groups


async def test_an_alarm_passes_the_backlog(tmp_path: Path) -> None:
    post = Post()
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        for n in range(200):
            await spool.commit([level(n)])
        await spool.commit([alarm()])
        async with sending(spool, post) as uplink:
            await until(lambda: settled(uplink), "all is settled")
        assert post.offered[0] == ["alarms 201"]


async def test_one_refused_batch_holds_up_no_other_and_is_tried_again(tmp_path: Path) -> None:
    post = Post()
    post.answer = lambda name: Refused("not now") if name == "readings 7" else None
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        for n in range(20):
            await spool.commit([level(n)])
        async with sending(spool, post) as uplink:
            await until(lambda: len(set(post.taken)) == 19, "the others have passed")
            assert (await uplink.unsettled()).batches == 1
            post.answer = lambda _: None
            await until(lambda: settled(uplink), "its turn has come")
        assert "readings 7" in post.taken
        assert uplink.counters.rejected


async def test_what_is_refused_for_good_ends_in_quarantine_and_stays_unsettled(tmp_path: Path) -> None:
    post = Post()
    post.answer = lambda name: Refused("no such field", for_good=True) if name == "readings 2" else None
    quarantined: list[int] = []
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        for n in range(3):
            await spool.commit([level(n)])
        async with sending(spool, post, quarantined) as uplink:
            await until(lambda: quarantined == [2], "in quarantine", 120)
            assert (await uplink.unsettled()).batches == 1
        assert list(await spool.settled("up")) == [(1, 1), (3, 3)]


async def test_a_lost_link_is_opened_again_and_nothing_is_missing(tmp_path: Path) -> None:
    post = Post()
    async with Spool.open(tmp_path / "store", "real", "boot") as spool, sending(spool, post) as uplink:
        for n in range(30):
            await spool.commit([level(n)])
            if n % 10 == 5:
                post.lost.set()
            if n % 10 == 8:
                post.answer = lambda _: ConnectionResetError("reset by peer")
                await until(lambda: post.offered, "it tries")
                post.answer = lambda _: None
        await until(lambda: settled(uplink), "all is settled")
        assert set(post.taken) == {f"readings {n}" for n in range(1, 31)}
        assert post.opened > 1


async def test_without_an_acknowledgement_in_time_the_connection_is_given_up(tmp_path: Path) -> None:
    post = Post()
    post.silent = True
    async with (
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        sending(spool, post, ack_deadline="100 ms") as uplink,
    ):
        await spool.commit([level()])
        await until(lambda: post.opened > 2, "it connects again and again")
        assert not post.taken
        assert (await uplink.unsettled()).batches == 1
        post.silent = False
        await until(lambda: settled(uplink), "settled")
    assert post.taken == ["readings 1"]


@pytest.mark.parametrize("how", ["silence", "hangs up"])
async def test_a_batch_that_is_never_answered_holds_up_no_other(tmp_path: Path, how: str) -> None:
    post = Post()
    bad = {"readings 3", "readings 4", "alarms 6"}
    answers = {"silence": TimeoutError("no answer"), "hangs up": ConnectionResetError("hung up")}
    post.answer = lambda name: answers[how] if name in bad else None
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        for n in range(5):
            await spool.commit([level(n)])
        await spool.commit([alarm()])
        async with sending(spool, post) as uplink:
            await until(lambda: {"readings 1", "readings 2", "readings 5"} <= set(post.taken), "the others")
            for n in range(20):
                await spool.commit([level(n)])
            await until(lambda: {f"readings {n}" for n in range(7, 27)} <= set(post.taken), "and all behind")
            assert not bad & set(post.taken)
            assert (await uplink.unsettled()).batches == 3
            assert uplink.counters.rejected == 0, "nobody has refused anything"
            bad.clear()
            await until(lambda: settled(uplink), "once it is answered it is settled")
    assert {"readings 3", "readings 4", "alarms 6"} <= set(post.taken)


async def test_a_batch_that_waits_alone_is_not_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.uplink.dialect_uplink.ASIDE_FIRST_S", 3600.0)
    post = Post()
    post.answer = lambda _: ConnectionError("HTTP 503")
    async with Spool.open(tmp_path / "store", "real", "boot") as spool, sending(spool, post) as uplink:
        for n in range(3):
            await spool.commit([level(n)])
        await until(lambda: post.opened > 30, "it tries and tries")
        post.answer = lambda _: None
        await until(lambda: settled(uplink), "at once when it is answered")
    assert caplog.text.count("gets no answer") == 2, "the last of three waits for nobody"


async def test_while_nothing_is_answered_little_is_set_aside_and_an_alarm_goes_first_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    post = Post()
    post.answer = lambda _: TimeoutError("no answer")
    async with Spool.open(tmp_path / "store", "real", "boot") as spool, sending(spool, post) as uplink:
        for n in range(40):
            await spool.commit([level(n)])
        await until(lambda: post.opened > 60, "it connects again and again")
        await spool.commit([alarm()])
        await until(lambda: post.offered[-1] == ["alarms 41"], "the alarm is offered")
        assert 0 < caplog.text.count("gets no answer") <= MOST_ASIDE
        post.answer = lambda _: None
        await until(lambda: settled(uplink), "all is settled")
    assert post.taken[0] == "alarms 41"


async def test_what_a_dialect_cannot_say_ends_in_quarantine_and_the_others_go_on(tmp_path: Path) -> None:
    class Tongue(Post):
        def encode(self, told: Sequence[Told]) -> list[Parcel]:
            for one in told:
                for each in one.readings:
                    datetime.fromisoformat(each.time)
            return super().encode(told)

    post, quarantined = Tongue(), list[int]()
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        for time in ("2026-11-26T04:00:00.000Z", "yesterday", "2026-11-26T04:01:00.000Z"):
            await spool.commit([readings(reading("n.pond.level", 1.0, time))])
        async with sending(spool, post, quarantined) as uplink:
            await until(lambda: quarantined == [2], "in quarantine")
            assert (await uplink.unsettled()).batches == 1
    assert set(post.taken) == {"readings 1", "readings 3"}


@pytest.mark.parametrize("mode", ["test", "simulated"])
async def test_data_that_are_not_real_never_reach_a_dialect_that_cannot_say_so(
    tmp_path: Path, mode: Mode
) -> None:
    post, modal = Post(), ModalPost()
    async with Spool.open(tmp_path / "store", mode, "boot") as spool:
        await spool.commit([level(), alarm()])
        async with sending(spool, post) as uplink:
            await until(lambda: settled(uplink), "settled without a word")
            assert uplink.withheld == 2
        assert not post.offered
    async with Spool.open(tmp_path / "other", mode, "boot") as spool:
        await spool.commit([level(), alarm()])
        async with sending(spool, modal) as uplink:
            await until(lambda: settled(uplink), "settled")
        assert sorted(modal.taken) == ["alarms 2", "readings 1"]


async def test_a_drill_is_withheld_though_the_site_is_real(tmp_path: Path) -> None:
    post = Post()
    drill = Draft("alarms", alarm().body, NOON_NS, 1, 1, mode="test")
    async with Spool.open(tmp_path / "store", "real", "boot") as spool, sending(spool, post) as uplink:
        await spool.commit([drill, alarm()])
        await until(lambda: settled(uplink), "settled")
        assert post.taken == ["alarms 2"]


async def test_a_blocked_dialect_delays_no_other(tmp_path: Path) -> None:
    stuck, well = Post(), Post()
    stuck.silent = True
    async with (
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        sending(spool, stuck) as blocked,
        sending(spool, well, id="other") as uplink,
    ):
        for n in range(50):
            await spool.commit([level(n)])
        await until(lambda: settled(uplink), "the other has all")
        assert (await blocked.unsettled()).batches == 50
        assert uplink.resend(spool.stream, 3, 4) == ""
        await until(lambda: len(well.taken) == 52, "what was asked for once more")
        stuck.silent = False
        await until(lambda: settled(blocked), "and in the end both")
    assert set(stuck.taken) == set(well.taken)
    assert sorted(well.taken).count("readings 3") == 2
