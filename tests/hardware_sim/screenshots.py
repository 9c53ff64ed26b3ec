"""`make screenshots`: the page in the storm as a person sees it, into docs/images."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.hardware_sim.test_page_browser import bench_page

if TYPE_CHECKING:
    from tests.hardware_sim.chromium import Tab

IMAGES = Path(__file__).parents[2] / "docs" / "images"


async def take(page: Tab, name: str) -> None:
    await asyncio.sleep(1.2)  # a new alarm slides in for half a second
    path = IMAGES / f"bench-{name}.png"
    path.write_bytes(await page.picture())
    sys.stdout.write(f"{path}  {path.stat().st_size / 1024:.0f} KB\n")


async def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with bench_page(Path(folder), "storm") as (page, _, _):
            await page.scheme("light")
            await page.until("document.querySelectorAll('.alarm').length > 6", 60)
            await page.click('[data-target="rs485-1/192"] .head')
            await page.click('[data-fault="stuck"]')
            await page.js("document.querySelector('#bottom').scrollTop = 0")
            await take(page, "light")
            await page.scheme("dark")
            await page.click("#lang")
            await page.click('[data-tab="wires"]')
            await take(page, "dark")
            await page.scheme("light")
            await page.size(390, 844, phone=True)
            await page.js("scrollTo(0, 0)")
            await take(page, "phone")


if __name__ == "__main__":
    asyncio.run(main())
