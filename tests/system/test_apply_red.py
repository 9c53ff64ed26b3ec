"""A new site file while red stands and the siren sounds: what stood stands, and the siren does not even pause."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.running import Bench, Daemon, demo_site, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(200)
DAM = ("channel", "item", "pond")


async def standing(daemon: Daemon) -> dict[str, tuple[str, str]]:
    """Each open alarm of the dam: its level and how people responded."""
    listed: list[dict[str, Any]] = await daemon.ask("alarms.list")
    return {each["id"]: (each["level"], each["response"]) for each in listed if each["kind"] in DAM}


async def red(daemon: Daemon) -> str:
    alarms = await standing(daemon)
    return next(
        (id_ for id_, (level, _) in alarms.items() if level == "red" and id_.startswith("channel:")), ""
    )


async def apply(daemon: Daemon, file: Path, text: str) -> None:
    file.write_text(text)
    code, said = await daemon.verb("apply", str(file), "--by", "王工")
    assert code == 0, said
    before = await daemon.gauge("pondwatch_readings_total")
    await daemon.shows("pondwatch_readings_total", lambda count: count > before)


def without_the_pond_level(text: str) -> str:
    begin, end = (
        text.index('[[channel]]\nid = "n.pond.level"'),
        text.index('[[channel]]\nid = "n.rain.depth"'),
    )
    return text[:begin] + text[end:]


async def test_red_outlives_every_new_site_file_until_people_have_handled_it(tmp_path: Path) -> None:
    run, fresh = tmp_path / "run", tmp_path / "fresh.toml"
    async with Bench(run, "calm", 60) as bench:
        site = demo_site(run, bench, ('start = "child"', 'start = "off"'))
        async with Daemon(site, run, bench.facts["clock"]) as daemon:
            text = site.read_text()
            await bench.ask("fault", target="weather/2", fault="drift 60")
            id_ = await until(lambda: red(daemon), "red")
            await until(lambda: sounds(bench), "the siren sounds")
            await bench.ask("fault", target="weather/2", fault="silent")
            stood = await standing(daemon)
            for change in (
                lambda text: text.replace('timeout = "500 ms"', 'timeout = "450 ms"'),
                lambda text: text.replace("red = 50,", "red = 10,"),
                without_the_pond_level,
            ):
                await apply(daemon, fresh, change(text))
                assert (await standing(daemon)).items() >= stood.items()
                assert await sounds(bench)
            # nobody measures it any more, so people alone can end it, and red only by whom the site file names
            do = ("--by", "王工")
            assert (await daemon.verb("alarms", "ack", id_, *do))[0] == 0
            assert (await daemon.verb("alarms", "handle", id_, *do, "--note", "radar taken down"))[0] == 0
            assert (await daemon.verb("alarms", "close", id_, *do))[0] == 1
            assert (await daemon.verb("alarms", "close", id_, *do, "--role", "supervisor"))[0] == 0
            assert id_ not in await standing(daemon)


async def sounds(bench: Bench) -> bool:
    """The siren's contact is closed, and was closed once only."""
    relays = await bench.ask("relays")
    await asyncio.sleep(0)
    return bool(relays["closed"][0]) and relays["switched"] == 1
