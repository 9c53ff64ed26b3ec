"""`pondwatch page` as people have it: a real browser, a real core, a storm, and five hundred strangers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import sys
from typing import TYPE_CHECKING

import pytest

from hardware_sim.ports import free_port
from tests.hardware_sim.chromium import tab
from tests.system.running import (
    Bench,
    Daemon,
    Program,
    assert_no_poll_was_missed,
    demo_site,
    listens,
    readings,
    until,
)
from tests.system.test_limits import listening, memory_mb, sockets, threads_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

STRANGERS = 500


class PageProgram(Program):
    """`pondwatch page` beside a daemon."""

    def __init__(self, site: Path, run: Path, port: int) -> None:
        self.port = port
        command = [sys.executable, "-m", "daemon.commands", "--config", str(site), "page"]
        super().__init__(command, run / "page.log", {"PONDWATCH_RUN": str(run)})

    async def start(self) -> None:
        await super().start()
        await self.ready(lambda: listens(self.port), "the page listens")

    def address(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextlib.asynccontextmanager
async def page_beside(run: Path, scenario: str) -> AsyncIterator[tuple[PageProgram, Daemon, Bench]]:
    port = free_port()
    async with Bench(run, scenario, 60) as bench:
        listen = f'[page]\nlisten = "127.0.0.1:{port}"\n\n[rules]\n'
        site = demo_site(run, bench, ('[rules]\nstart = "child"', f'{listen}start = "off"'))
        async with Daemon(site, run, bench.facts["clock"]) as daemon, PageProgram(site, run, port) as page:
            yield page, daemon, bench


@pytest.mark.peer
async def test_people_see_the_storm_in_both_languages_on_screen_phone_and_paper(tmp_path: Path) -> None:
    run = tmp_path / "run"
    async with tab() as browser, page_beside(run, "storm") as (page, daemon, bench):
        await until(lambda: daemon.gauge("pondwatch_pond_level"), "the storm is seen")
        await bench.ask("fault", target="rs485-1/192", fault="silent")
        await until(lambda: _has(daemon, "fault"), "the gauge is missed")
        await browser.size(1180, 900)
        await browser.go(page.address("/?lang=en"))
        await browser.until("!!document.querySelector('footer')")
        text = await browser.js("document.body.innerText")
        for words in ("Simulated: this is no real pond", "rain1 silent", "company", "Open alarms"):
            assert words in text
        shown = float(await browser.js("document.querySelector('.section .figure').textContent"))
        levels = [each["value"] for each in readings(daemon.batches(), "n.pond.level")]
        assert any(abs(shown - level) < 0.006 for level in levels)  # two digits
        await browser.until("document.querySelectorAll('.section circle.head').length === 4", 40)
        assert await browser.js("document.querySelectorAll('.chart .bar').length") >= 1
        assert await browser.js("document.querySelectorAll('script').length") == 0

        await browser.size(390, 844, phone=True)
        await browser.go(page.address("/?lang=zh"))
        await browser.until("document.documentElement?.lang === 'zh' && !!document.querySelector('footer')")
        assert "库水位" in await browser.js("document.body.innerText")
        assert await browser.js("document.documentElement.scrollWidth") <= 390
        assert await browser.js("document.cookie") == ""
        origins = "[...new Set(performance.getEntriesByType('resource').map(e => new URL(e.name).origin))]"
        assert await browser.js(origins) == [page.address("")]
        printed = await browser.do("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        sheets = len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(printed["data"])))
        assert 1 <= sheets <= 5
        assert browser.complaints == []

        await daemon.kill()
        await browser.until("document.body?.innerText.includes('采集程序没有应答')", 30)
        assert await browser.js("document.querySelectorAll('.section circle.head').length") == 0


async def _has(daemon: Daemon, kind: str) -> bool:
    return any(alarm["kind"] == kind for alarm in await daemon.ask("alarms.list"))


async def test_five_hundred_strangers_at_the_page_are_bounded_and_cost_no_poll(tmp_path: Path) -> None:
    run = tmp_path / "run"
    async with page_beside(run, "calm") as (page, daemon, _):
        await until(lambda: readings(daemon.batches(), "n.pond.level"), "the first poll")
        assert "北库" in await _get(page)
        assert listening(page.pid) == {f"127.0.0.1:{page.port}"}  # as docs/security.md has it
        before, memory = sockets(page.pid), memory_mb(page.pid, "VmRSS")
        threads = threads_of(page.pid)
        slow = [asyncio.create_task(_stranger(page.port)) for _ in range(STRANGERS)]
        for _ in range(3):
            assert "北库" in await _get(page)
        assert threads_of(page.pid) <= threads + 1  # one more may look at the store
        await asyncio.gather(*slow)
        await until(lambda: sockets(page.pid) <= before, "every socket is given back")
        assert memory_mb(page.pid, "VmRSS") < memory + 15
        await until(lambda: len(readings(daemon.batches(), "n.pond.level")) > 6, "some minutes")
        assert await page.stop() == 0
        assert await daemon.stop() == 0
    assert_no_poll_was_missed(daemon.batches())


async def _get(page: PageProgram) -> str:
    """The page, as soon as it answers: among so many a place may be lost to who comes after."""

    async def look() -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
        try:
            writer.write(b"GET /?lang=zh HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % page.port)
            return (await reader.read()).decode()
        finally:
            writer.close()

    return str(await until(look, "the page answers"))


async def _stranger(port: int) -> None:
    with contextlib.suppress(ConnectionError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET /slow HTT")
            await reader.read()
        finally:
            writer.close()
