"""The page's server: what it says, what it refuses, and its bounds; no browser needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from hardware_sim.bench import Bench
from hardware_sim.clock import BenchClock
from hardware_sim.faults import KINDS, Fault
from hardware_sim.looks import LOOKS
from hardware_sim.page import history
from hardware_sim.page.history import History
from hardware_sim.page.places import NAMES, PLACES
from hardware_sim.page.server import MOST_CLIENTS, Page
from hardware_sim.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def served(run_dir: Path) -> AsyncIterator[tuple[Bench, Page, aiohttp.ClientSession]]:
    async with (
        Bench(Scenario.load("calm"), run_dir, BenchClock.starting_now(60.0)) as bench,
        Page(bench, run_dir / "control.sock", 0) as page,
        aiohttp.ClientSession(page.address) as session,
    ):
        yield bench, page, session


async def posted(page: Page, session: aiohttp.ClientSession, path: str, body: Any) -> tuple[int, str]:
    origin = {"Origin": page.address.rstrip("/")}
    async with session.post(path, data=json.dumps(body), headers=origin) as answer:
        return answer.status, await answer.text()


async def events(session: aiohttp.ClientSession, many: int) -> list[tuple[str, Any]]:
    """The first events of the live stream."""
    seen: list[tuple[str, Any]] = []
    async with session.get("/live") as stream, asyncio.timeout(10):
        while len(seen) < many:
            name = (await stream.content.readline()).decode().removeprefix("event: ").strip()
            data = (await stream.content.readline()).removeprefix(b"data: ")
            await stream.content.readline()
            seen.append((name, json.loads(data)))
    return seen


def test_every_fault_says_how_it_looks_on_site_and_every_offer_is_a_fault() -> None:
    assert {str(Fault.parse(offer)) for offer in LOOKS} == set(LOOKS)
    assert {offer.partition(" ")[0] for offer in LOOKS} == set(KINDS)


def test_the_places_are_channels_of_the_demo_site() -> None:
    site = tomllib.loads((ROOT / "config/demo.toml").read_text())
    units = {channel["id"]: channel["unit"].replace("degC", "°C") for channel in site["channel"]}
    assert {place.channel: place.unit for place in PLACES}.items() <= units.items()
    assert {place.measured for place in PLACES} <= set(units)


def test_every_reason_of_a_quality_has_its_word_in_chinese_as_the_page_of_qualities_has_it() -> None:
    listed = re.findall(
        r"\| `(?:bad|uncertain):([a-z-]+)` \| ([^|]+?) \|", (ROOT / "docs/quality.md").read_text()
    )
    words = (
        (ROOT / "hardware_sim/page/words.js").read_text().partition("QUALITY = {")[2].partition("  en:")[0]
    )
    assert len(listed) > 20
    assert dict(re.findall(r'"([a-z-]+)": "([^"]+)"', words)) == dict(listed)


async def test_what_can_be_broken_has_a_name_and_its_faults(tmp_path: Path) -> None:
    async with served(tmp_path) as (bench, _, session):
        async with session.get("/facts") as answer:
            facts = await answer.json()
        assert set(facts["targets"]) == set(NAMES) == set(bench.targets())
        assert "stuck" in facts["targets"]["rs485-1/192"]
        assert "stuck" not in facts["targets"]["rs485-1/3"]
        assert "bad_crc" not in facts["targets"]["weather/1"]
        assert facts["targets"]["platform"] == ["away", "no_receipts", "no_acks", "refuse 135"]
        assert facts["targets"].pop("gateway") == ["disk_full", "clock_step 7200"]  # need a daemon
        for target, offers in facts["targets"].items():
            for offer in offers:
                bench.set_fault(target, offer)
            bench.set_fault(target, "none")
        assert bench.faults == {}


async def test_the_page_tells_the_truth_and_what_passes_on_the_lines(tmp_path: Path) -> None:
    async with served(tmp_path) as (bench, page, session):
        host, port = bench.addresses["weather"].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(bytes.fromhex("0001 0000 0006 01 03 0000 0002"))
        await reader.readexactly(13)
        assert await posted(page, session, "/fault", {"target": "rs485-1", "fault": "cut"}) == (204, "")
        seen = await events(session, 6)
        writer.close()
    latest = [data for name, data in seen if name == "instant"][-1]
    assert latest["instant"]["true"]["PZ01"] == pytest.approx(82.6, abs=0.05)
    assert latest["instant"]["believed"] == {}
    assert (latest["daemon"], latest["faults"]) == (False, {"rs485-1": "cut"})
    chunks = [c for name, data in seen if name == "bytes" for c in data if c["line"] == "weather"]
    assert [(c["dir"], c["size"]) for c in chunks] == [("in", 12), ("out", 13)]
    assert chunks[0]["hex"] == "00 01 00 00 00 06 01 03 00 00 00 02"


async def test_a_wrong_wish_is_answered_with_its_sentence(tmp_path: Path) -> None:
    async with served(tmp_path) as (bench, page, session):
        for path, body, said in (
            ("/fault", {"target": "nowhere", "fault": "cut"}, "there are rs485-1"),
            ("/fault", {"target": "weather", "fault": "float"}, "cannot happen"),
            ("/fault", {"target": "weather"}, "fault"),
            ("/scenario", {"scenario": "../../etc/passwd"}, "there are base-bumped"),
            ("/ack", {"id": "x", "by": "y"}, "no daemon listens"),
        ):
            status, text = await posted(page, session, path, body)
            assert (status, said in text) == (400, True), text
        status, _ = await posted(page, session, "/fault", {"target": "x" * 5000, "fault": "cut"})
        assert status == 413
        assert bench.faults == {}


async def test_another_scenario_begins_from_the_dam_as_it_is_and_repairs_everything(tmp_path: Path) -> None:
    async with served(tmp_path) as (bench, page, session):
        bench.set_fault("weather/2", "drift 10")
        bench._began_s -= 1800.0
        before = bench.truth()
        assert (await posted(page, session, "/scenario", {"scenario": "storm"}))[0] == 204
        assert (bench.scenario.name, bench.faults) == ("storm", {})
        assert bench.truth().rain_mm >= before.rain_mm > 0.0


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {"Host": "pond.example:80"}),
        ("GET", "/live", {"Origin": "http://pond.example"}),
        ("POST", "/fault", {}),
        ("POST", "/fault", {"Origin": "http://pond.example"}),
        ("POST", "/fault", {"Origin": "null"}),
    ],
)
async def test_no_other_page_and_no_other_name_may_look_or_touch(
    tmp_path: Path, method: str, path: str, headers: dict[str, str]
) -> None:
    async with served(tmp_path) as (bench, _, session):
        body = b'{"target":"rs485-1","fault":"cut"}'
        async with session.request(method, path, data=body, headers=headers) as answer:
            assert answer.status == 403
        assert bench.faults == {}


async def test_it_listens_on_the_loopback_only_and_sets_strict_headers(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, page, session):
        assert page.address.startswith("http://127.0.0.1:")
        for path in ("/", "/page.css", "/page.js", "/facts", "/history"):
            async with session.get(path) as answer:
                assert answer.status == 200
                policy = answer.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
                assert "unsafe" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "Set-Cookie" not in answer.headers


async def test_streams_are_bounded_and_free_their_place(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, session):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(MOST_CLIENTS):
                stream = await stack.enter_async_context(session.get("/live"))
                assert stream.status == 200
            async with session.get("/live") as one_too_many:
                assert one_too_many.status == 503
        async with asyncio.timeout(10):
            while True:
                async with session.get("/live") as again:
                    if again.status == 200:
                        break
                await asyncio.sleep(0.05)


async def test_the_page_ends_with_its_bench_and_leaves_nothing(tmp_path: Path) -> None:
    before = set(asyncio.all_tasks())
    async with served(tmp_path) as (_, page, session):
        stream = await session.get("/live")
        await stream.content.readline()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await page.__aexit__(None, None, None)
        assert loop.time() - began_s < 3.0
    await asyncio.sleep(0.05)
    assert set(asyncio.all_tasks()) == before


def test_the_history_spans_the_whole_run_in_bounded_memory() -> None:
    kept = History()
    for i in range(history.MOST * 5):
        kept.offer(str(i).encode())
    times = [int(each) for each in kept.kept]
    assert len(times) <= history.MOST
    assert times[0] == 0
    assert times[-1] >= history.MOST * 5 - 8
    assert len({b - a for a, b in pairwise(times)}) == 1
