"""The technician's page as a person has it: a real browser, a real bench, a real daemon."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from tests.hardware_sim.chromium import Tab, tab
from tests.system.running import Bench, Daemon, demo_site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]
SPEED = 60.0
POLL_S = 60.0 / SPEED  # the demo site's poll, in real seconds
WIRE_S = 25.0  # real at any speed: timeouts of three devices, the silence after each, the page's own look
ALL_SEEN = "document.querySelectorAll('.tile:not(.bad)').length === 8"


@contextlib.asynccontextmanager
async def bench_page(run_dir: Path, scenario: str) -> AsyncIterator[tuple[Tab, Bench, Daemon]]:
    """The page in English on a wide screen, when every value is there."""
    async with (
        tab() as page,
        Bench(run_dir, scenario, SPEED, "--page", "0") as bench,
        Daemon(demo_site(run_dir, bench), run_dir, bench.facts["clock"]) as daemon,
    ):
        await page.size(1280, 800)
        await page.go(bench.facts["page"])
        await page.until("document.querySelectorAll('.tile').length === 8")
        if await page.js("document.documentElement.lang") != "en":
            await page.click("#lang")
        await page.until(ALL_SEEN)
        yield page, bench, daemon


def alarm(subject: str) -> str:
    return f"document.querySelector('[data-alarm^=\"{subject}:\"]')"


async def test_a_technician_starts_a_storm_pulls_a_wire_and_acknowledges_its_alarm(tmp_path: Path) -> None:
    async with bench_page(tmp_path, "calm") as (page, _, daemon):
        assert await page.js("document.querySelector('#alarms').textContent") == "No alarm"
        await page.js(
            "(s => { s.value = 'storm'; s.dispatchEvent(new Event('change')); })(document.querySelector('#scenario'))"
        )
        await page.until("document.querySelectorAll('.rain line').length > 10")
        await page.until(f"{alarm('channel:n.pond.level')}?.className.includes('blue')", 30)

        await page.click('[data-target="rs485-1"] .head')
        await page.click('[data-fault="cut"]')
        pulled_s = time.monotonic()
        await page.until("document.querySelector('.tile[data-place=PZ01]').className.includes('bad')")
        fault = "document.querySelector('.alarm.fault')"
        await page.until(f"{fault}?.innerText.includes('vw1')")
        assert time.monotonic() - pulled_s < POLL_S + WIRE_S
        assert "no-reply" in await page.js(f"{fault}.innerText")

        await page.js("document.querySelector('#by').value = 'Li Na'")
        await page.click(".alarm.fault .ack")
        await page.until(f"{fault}.innerText.includes('acknowledged Li Na')")
        (listed,) = [each for each in await daemon.ask("alarms.list") if each["id"].startswith("fault:vw1")]
        assert (listed["response"], listed["by"]) == ("acknowledged", "Li Na")

        await page.click("#repair")
        await page.until(
            "document.querySelector('.alarm.gone')?.innerText.includes('acknowledged Li Na')", 30
        )
        await page.until(ALL_SEEN, 90)  # the logger is not believed for 30 s: its power may have been away
        assert page.complaints == []


async def test_the_slider_goes_back_over_what_has_passed(tmp_path: Path) -> None:
    async with bench_page(tmp_path, "storm") as (page, _, _):
        level = "Number(document.querySelector('.tile[data-place=LV01] strong').innerText)"
        await page.until(f"{level} > 84.5", 30)
        await page.js(
            "(s => { s.value = 0; s.dispatchEvent(new Event('input')); })(document.querySelector('#slider'))"
        )
        await page.until("document.body.classList.contains('past')")
        assert await page.js("document.querySelector('.truth').innerText") == "true 82.60"
        drawn = await page.js("document.querySelector('path.true').getAttribute('d')")
        await asyncio.sleep(1.0)
        assert await page.js("document.querySelector('path.true').getAttribute('d')") == drawn
        await page.click("#live")
        await page.until(f"{level} > 84.5")
        assert await page.js("document.querySelector('path.true').getAttribute('d')") != drawn


async def test_another_bench_on_the_same_port_has_another_past_and_a_refusal_can_be_read(
    tmp_path: Path,
) -> None:
    async with tab() as page:
        async with Bench(tmp_path / "a", "calm", 6000.0, "--page", "0") as bench:
            address = bench.facts["page"]
            await page.go(address)
            await page.until("document.querySelectorAll('.tile').length === 8")
            if await page.js("document.documentElement.lang") != "en":
                await page.click("#lang")
            await page.until("document.querySelector('#clock').innerText.includes('×6000')")
            await page.click('[data-target="gateway"] .head')
            await page.click('[data-fault="disk_full"]')
            await page.until("document.querySelector('#notice').innerText.includes('no daemon listens')")
            await asyncio.sleep(1.2)  # three instants later it can still be read
            assert "no daemon listens" in await page.js("document.querySelector('#notice').innerText")
        await page.until("document.querySelector('#notice').innerText.includes('out of reach')")
        port = address.rstrip("/").rpartition(":")[2]
        async with Bench(tmp_path / "b", "storm", SPEED, "--page", port):
            await page.until("document.querySelector('#clock').innerText.includes('×60')", 60)
            await page.until("document.querySelector('#scenario').value === 'storm'")
            await page.until("Number(document.querySelector('#slider').max) > 60")
            assert await page.js("Number(document.querySelector('#slider').max)") < 3600


async def test_it_fits_a_laptop_and_a_phone_light_and_dark_without_a_network(tmp_path: Path) -> None:
    async with bench_page(tmp_path, "calm") as (page, bench, _):
        for scheme, background in (("light", "rgb(233, 238, 242)"), ("dark", "rgb(10, 17, 22)")):
            await page.scheme(scheme)
            await page.until(f"getComputedStyle(document.body).backgroundColor === '{background}'")
        assert await page.js("document.documentElement.scrollHeight") <= 800
        await page.click('[data-tab="wires"]')
        await page.until("document.querySelector('#wires code').innerText.length > 10")
        rows = await page.js("document.querySelectorAll('#wires li').length")
        assert 0 < rows <= 3 * 12
        assert "$GNGGA" in await page.js("document.querySelector('#wires').innerText")
        await page.size(390, 844, phone=True)
        await page.until("document.querySelector('#section').getAttribute('viewBox') === '0 0 560 350'")
        assert await page.js("document.documentElement.scrollWidth") <= 390
        figures = "parseFloat(getComputedStyle(document.querySelector('.tile strong')).fontSize)"
        assert await page.js(figures) >= 36
        await page.click("#lang")
        await page.until("document.querySelector('#alarms').innerText === '没有报警'")
        origins = await page.js(
            "[...new Set(performance.getEntriesByType('resource').map(each => new URL(each.name).origin))]"
        )
        assert origins == [bench.facts["page"].rstrip("/")]
        assert await page.js("document.cookie") == ""
        assert page.complaints == []


async def test_without_a_daemon_the_truth_is_shown_and_that_it_is_alone(tmp_path: Path) -> None:
    async with tab() as page, Bench(tmp_path, "calm", SPEED, "--page", "0") as bench:
        await page.go(bench.facts["page"])
        await page.until("document.querySelectorAll('.tile.bad').length === 8")
        await page.until("!document.querySelector('#notice').hidden")
        assert "82.60" in await page.js("document.querySelector('.tile[data-place=PZ01] .truth').innerText")
        assert await page.js("document.querySelectorAll('circle.head').length") == 0
