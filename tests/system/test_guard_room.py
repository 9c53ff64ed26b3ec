"""An evening in the guard room, by the command line: drill, maintenance, mute, readings by hand, a tie, hand-over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.system.running import Bench, Daemon, demo_site, until

if TYPE_CHECKING:
    from pathlib import Path

PEOPLE = """
[[person]]
id = "li"
name = "李伟"
role = "duty"
[[person]]
id = "wang"
name = "王工"
role = "supervisor"
[[duty]]
id = "day"
from = "00:00"
until = "23:59"
person = "li"
supervisor = "wang"
"""


@pytest.mark.timeout(90)
async def test_an_evening_in_the_guard_room(tmp_path: Path) -> None:
    run = tmp_path / "run"
    async with Bench(run, "calm", 1) as bench:
        site = demo_site(run, bench, ('start = "child"', 'start = "off"'))
        site.write_text(site.read_text().replace('every = "1 min"', 'every = "2 s"') + PEOPLE)
        async with Daemon(site, run, bench.facts["clock"]) as daemon:
            await until(lambda: seen(daemon), "the first readings")

            async def relays() -> bool:
                return bool((await bench.ask("relays"))["closed"][0])

            # a drill sounds, calls, and is acknowledged
            why = ("--by", "wang", "--reason", "rehearsal", "--until", "10 min")
            assert await daemon.verb("drill", "n", "--level", "red", *why) == (
                0,
                "drill of pond n, red: under way\n",
            )
            await until(relays, "the siren sounds")
            code, said = await daemon.verb("alarms", "list")
            assert code == 1
            assert "演练" in said
            assert (await daemon.verb("alarms", "ack-all", "n", "--by", "li"))[0] == 0

            async def silent() -> bool:
                return not await relays()

            await until(silent, "it is silent")
            assert (await daemon.verb("drill", "--end", "--by", "wang"))[0] == 0

            # maintenance is listed, a whole pond is refused, and it ends
            why = ("--by", "li", "--reason", "zero check", "--until", "1 h")
            assert (await daemon.verb("maintain", "gnss1", *why))[0] == 0
            code, said = await daemon.verb("maintain")
            assert (code, "gnss1" in said, "zero check" in said) == (0, True, True)
            assert (await daemon.verb("maintain", "nowhere", *why))[0] == 1
            assert (await daemon.verb("maintain", "gnss1", "--by", "li"))[0] == 2

            # nothing rings, so nothing can be muted
            assert (await daemon.verb("mute", "n", *why))[0] == 1

            # a reading by hand is compared, a patrol is written down
            _, text = await daemon.verb("--json", "manual", "reading", "n.pond.level", "99", "--by", "li")
            compared = json.loads(text)
            assert compared["difference"] == pytest.approx(99 - compared["automatic"])
            code, said = await daemon.verb("manual", "patrol", "n", "toe wet", "--by", "li", "--abnormal")
            assert (code, "advice:n.patrol" in said) == (0, True)

            # a survey ties the base station of the GNSS point anew
            await tie_anew(daemon)

            # the shift ends
            code, said = await daemon.verb("alarms", "handover", "--by", "li", "--to", "王工")
            assert code == 0
            assert "under maintenance: gnss1" in said
            assert "handed over by li, taken over by 王工" in said
            assert (await daemon.verb("alarms", "handover", "--by", "li"))[0] == 2
            assert (await daemon.verb("maintain", "gnss1", "--end", "--by", "li"))[0] == 0
            assert await daemon.stop() == 0
        stored = daemon.batches()
        async with Daemon(site, run, bench.facts["clock"]) as again:
            await until(lambda: tied(again), "the tie outlived the restart")
    audit = [json.loads(batch.payload) for batch in stored if batch.kind == "audit"]
    ours = ("drill", "maint", "manual", "baseline", "handover", "alarm.")
    assert [record["what"] for record in audit if record["what"].startswith(ours)] == [
        "drill",
        "alarm.acknowledge",
        "drill.end",
        "maintenance",
        "manual.reading",
        "manual.patrol",
        "baseline",
        "handover",
        "maintenance.end",
    ]
    modes = {json.loads(batch.payload)["mode"] for batch in stored}
    assert modes == {"simulated", "test"}


async def tie_anew(daemon: Daemon) -> None:
    async def solved() -> bool:
        return await displacement(daemon, "--last", "2") is not None

    await until(solved, "two fixed solutions")
    survey = ("--surveyed", "500", "-400", "200", "--uncertainty", "50", "--last", "2")
    two = ("--by", "li", "--witness", "王工", "--reason", "survey 117")
    assert (await daemon.verb("baseline", "n.gn01.east", *survey, *two))[0] == 1, "it moved so far?"
    assert (await daemon.verb("baseline", "n.gn01.east", *survey, *two, "--moved"))[0] == 0


async def tied(daemon: Daemon) -> bool:
    return await displacement(daemon, "--last", "1") == pytest.approx([500.0, -400.0, 200.0], abs=60.0)


async def displacement(daemon: Daemon, *words: str) -> list[float] | None:
    """Displacement of the GNSS point, by as many solutions as are asked for; None while there are fewer."""
    _, text = await daemon.verb("--json", "baseline", "gnss1", *words)
    told = json.loads(text)
    mm: list[float] | None = told["displacement_mm"]
    return mm if told["n"] == int(words[-1]) else None


async def seen(daemon: Daemon) -> bool:
    return 'pondwatch_channel_value{channel="n.pond.level"' in await daemon.page()
