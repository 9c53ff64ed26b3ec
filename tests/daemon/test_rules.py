"""The core's side of the rules process, spoken to over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, cast

import msgspec

from daemon.clock import Clock
from daemon.config import AdviceTable, ChannelTable, File, Site, SiteTable
from daemon.rules import RulesFeed, Verdict, Verdicts
from daemon.spool import Draft, Spool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TABLE = ChannelTable(id="c", unit="m", item="phreatic-line", pond="n", advice=AdviceTable(hampel=True))


class _File(File):
    sha256 = "f00d"


def site() -> Site:
    return cast("Site", _File(site=SiteTable(id="s", gateway="g"), channels=(TABLE,)))


def verdict(seq: int, stream: str, condition: str = "present") -> dict[str, Any]:
    return {
        "stream": stream,
        "seq": seq,
        "channel": "c",
        "rule": "hampel",
        "kind": "quality",
        "condition": condition,
        "urgency": None,
        "score": 9.0,
        "value": 1.0,
        "limit": None,
        "time": "2026-11-23T08:00:00.000Z",
        "reason": {"zh": "跳变", "en": "spike"},
        "evidence": {},
    }


class Bench:
    def __init__(self, spool: Spool, path: Path) -> None:
        self.spool, self.path = spool, path
        self.heard: list[Verdict] = []
        self.feed = RulesFeed(path, site(), spool, Clock(), self.heard.append)

    async def store(self, *kinds: str) -> None:
        drafts = [Draft(cast("Any", kind), b'"readings":[]', Clock().wall_ns(), 1, 1) for kind in kinds]
        await self.spool.commit(drafts)

    @contextlib.asynccontextmanager
    async def worker(self, seq: int, stream: str | None) -> AsyncIterator[Worker]:
        reader, writer = await asyncio.open_unix_connection(self.path)
        worker = Worker(reader, writer)
        worker.say({"hello": 1, "stream": stream, "seq": seq})
        try:
            yield worker
        finally:
            writer.close()
            await writer.wait_closed()


class Worker:
    """A rules process reduced to its words."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def say(self, line: dict[str, Any]) -> None:
        self._writer.write(json.dumps(line).encode() + b"\n")

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return cast("dict[str, Any]", json.loads(await self._reader.readline()))


@contextlib.asynccontextmanager
async def feeding(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Spool.open(tmp_path / "store", "test", "boot") as spool:
        bench = Bench(spool, tmp_path / "rules.sock")
        task = asyncio.create_task(bench.feed.run())
        while not bench.path.exists():
            await asyncio.sleep(0.001)
        try:
            yield bench
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_worker_is_sent_its_channels_and_the_readings_it_has_not_judged(tmp_path: Path) -> None:
    async with feeding(tmp_path) as bench:
        await bench.store("readings", "alarms", "readings", "readings")
        async with bench.worker(1, bench.spool.stream) as worker:
            config = (await worker.hear())["config"]
            assert [channel["id"] for channel in config["channels"]] == ["c"]
            assert config["channels"][0]["advice"]["hampel"] is True
            assert [(await worker.hear())["seq"] for _ in range(2)] == [3, 4]
            await bench.store("readings")
            assert (await worker.hear())["seq"] == 5


async def test_a_worker_that_judged_another_stream_begins_with_the_first_batch(tmp_path: Path) -> None:
    async with feeding(tmp_path) as bench:
        await bench.store("readings", "readings")
        async with bench.worker(40, "0123456789abcdef") as worker:
            await worker.hear()
            assert (await worker.hear())["seq"] == 1


async def test_verdicts_are_heard_and_the_lag_falls_as_batches_are_judged(tmp_path: Path) -> None:
    async with feeding(tmp_path) as bench:
        await bench.store("readings")
        async with bench.worker(0, None) as worker:
            await worker.hear()
            await worker.hear()
            gauges = {name: value for name, _, value in bench.feed.gauges()}
            assert gauges["pondwatch_rules_up"] == 1
            assert gauges["pondwatch_rules_lag_seconds"] > 0
            worker.say({"verdict": verdict(1, bench.spool.stream)})
            worker.say({"judged": {"stream": bench.spool.stream, "seq": 1}})
            async with asyncio.timeout(5):
                while {name: v for name, _, v in bench.feed.gauges()}["pondwatch_rules_lag_seconds"]:
                    await asyncio.sleep(0.005)
        assert [heard.seq for heard in bench.heard] == [1]
        while bench.feed.up:
            await asyncio.sleep(0.005)
        first, second = ({n: v for n, _, v in bench.feed.gauges()} for _ in range(2))
        assert 0 < first["pondwatch_rules_lag_seconds"] < second["pondwatch_rules_lag_seconds"]


async def test_the_newest_worker_takes_the_place_of_one_that_hangs(tmp_path: Path) -> None:
    async with feeding(tmp_path) as bench:
        await bench.store("readings")
        async with bench.worker(0, None) as hanging:
            await hanging.hear()
            async with bench.worker(0, None) as second:
                await second.hear()
                assert (await second.hear())["seq"] == 1
                assert bench.feed.up


async def test_what_is_no_line_of_the_protocol_costs_the_worker_its_connection_only(tmp_path: Path) -> None:
    async with feeding(tmp_path) as bench:
        async with bench.worker(0, None) as worker:
            await worker.hear()
            worker._writer.write(b"\xff{not json\n")
            assert await worker._reader.read() == b""
        async with bench.worker(0, None) as worker:
            assert "config" in await worker.hear()


def test_a_verdict_counts_once_however_often_its_batch_is_judged_and_over_a_restart() -> None:
    def said(seq: int) -> Verdict:
        return msgspec.convert(verdict(seq, "ab"), Verdict)

    before = Verdicts(site(), "ab")
    assert before.take(said(5)) == "verdict:c.hampel"
    assert before.take(said(5)) is None
    assert before.take(said(4)) is None
    after = Verdicts(site(), "ab")
    for name, state in before.states().items():
        after.restore(name, msgspec.json.decode(msgspec.json.encode(state()), type=tuple[str, int]))
    assert after.take(said(5)) is None
    assert after.take(said(6)) == "verdict:c.hampel"
    assert Verdicts(site(), "cd").take(said(7)) is None
