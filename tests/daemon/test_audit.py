"""Audit records: who changed what, in the chain; and a site file that changed between two starts."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from daemon.audit import STATE, Audit, config_state, record_config, site_rows
from daemon.clock import Clock
from daemon.config import Site
from daemon.reading import ReadingFrame
from daemon.spool import Spool
from daemon.writer import Writer
from tests.system import payloads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

EXAMPLE = Path(__file__).parents[2] / "config" / "demo.toml"


@pytest.fixture
def site() -> Site:
    return Site.load(EXAMPLE)


class Room:
    """A store, its writer and its audit."""

    def __init__(self, spool: Spool, site: Site) -> None:
        self.states: dict[str, Callable[[], object]] = {STATE: config_state(site)}
        self.spool = spool
        self.writer = Writer(spool, Clock(), site, self.states, lambda _: None)
        self.audit = Audit(self.writer, Clock(), site)

    async def records(self) -> list[dict[str, Any]]:
        return [json.loads(batch.payload) for batch in await self.spool.peek(kinds=("audit",))]


@asynccontextmanager
async def room(folder: Path, site: Site) -> AsyncIterator[Room]:
    async with Spool.open(folder, site.site.mode, "boot") as spool:
        room = Room(spool, site)
        task = asyncio.create_task(room.writer.run())
        try:
            yield room
        finally:
            room.writer.stop()
            await task


async def test_a_record_says_who_what_from_to_and_why_and_is_a_batch_of_the_chain(
    tmp_path: Path, site: Site
) -> None:
    async with room(tmp_path, site) as here:
        here.audit.record(
            "mute", by="王工", uid=1000, subject="siren-n", before="on", after="off", why="演练"
        )
        await here.spool.committed(0)
        (batch,) = await here.spool.peek()
    record = json.loads(batch.payload)
    assert batch.kind == "audit"
    assert record["seq"] == 1
    assert {key: record[key] for key in ("what", "by", "uid", "subject", "from", "to", "why")} == {
        "what": "mute",
        "by": "王工",
        "uid": 1000,
        "subject": "siren-n",
        "from": "on",
        "to": "off",
        "why": "演练",
    }
    payloads.read("audit", batch.payload)


async def test_the_first_start_records_the_site_file_and_an_equal_one_records_nothing(
    tmp_path: Path, site: Site
) -> None:
    async with room(tmp_path, site) as here:
        assert record_config(here.audit, site, None)
        await here.spool.committed(0)
        _, stored = (await here.spool.states())[STATE]
        assert not record_config(here.audit, site, stored)
        (record,) = await here.records()
    assert (record["what"], record["from"], record["to"]) == ("config", None, site.sha256)
    assert record["changes"] == []


async def test_a_changed_threshold_is_named_with_its_old_and_new_value(tmp_path: Path, site: Site) -> None:
    channel = next(each for each in site.channels if each.levels is not None)
    assert channel.levels is not None
    levels = replace(channel.levels, red=(channel.levels.red or 0.0) + 1.0)
    channels = tuple(replace(each, levels=levels) if each is channel else each for each in site.channels)
    changed = replace(
        site, channels=channels[:-1] if channels[-1] is not channel else channels, sha256="0" * 64
    )
    async with room(tmp_path, site) as here:
        record_config(here.audit, site, None)
        await here.spool.committed(0)
        _, stored = (await here.spool.states())[STATE]
        assert record_config(here.audit, changed, stored, by="李工", why="new design report")
        await here.spool.committed(1)
        *_, record = await here.records()
    changes = {change["name"]: (change["from"], change["to"]) for change in record["changes"]}
    before, after = changes[f"channel {channel.id}"]
    assert before.keys() == after.keys() == {"levels"}
    assert (before["levels"]["red"], after["levels"]["red"]) == (channel.levels.red, levels.red)
    gone = f"channel {site.channels[-1].id}"
    assert changes[gone][0]["id"] == site.channels[-1].id
    assert changes[gone][1] is None
    assert (record["by"], record["why"], record["changed"]) == ("李工", "new design report", len(changes))


async def test_a_record_in_its_place_stands_between_the_readings_of_before_and_after(
    tmp_path: Path, site: Site
) -> None:
    async with room(tmp_path, site) as here:
        here.writer.put(_frame(1))
        here.audit.record("clock", by="pondwatch", in_place=True)
        here.writer.put(_frame(2))
        here.audit.record("mute", by="王工")
        await here.spool.committed(0)
        await here.spool.committed(3)
        kinds = [batch.kind for batch in await here.spool.peek()]
    assert kinds == ["readings", "audit", "readings", "audit"]


def _frame(n: int) -> ReadingFrame:
    return ReadingFrame(["c"], ["m"], n, n, n, [float(n)], bytes(1), [{}])


def test_no_password_is_among_what_is_recorded(site: Site) -> None:
    text = json.dumps(site_rows(site))
    assert '"password_file"' in text
    assert '"password":' not in text


def test_a_stations_password_in_the_site_file_does_not_go_to_every_platform(tmp_path: Path) -> None:
    path, given = tmp_path / "site.toml", "BEEF"
    path.write_text(
        '[site]\nid = "s"\ngateway = "g"\n[[pond]]\nid = "n"\n[[uplink]]\nid = "hydro"\nkind = "sl651"\n'
        f'address = "10.0.0.9:5001"\ncentre = 1\nstation = "0012345678"\npassword = "{given}"\n'
        'station_class = "4B"\nelement = []\n'
    )
    rows = site_rows(Site.load(path))
    assert rows["uplink hydro"]["station"] == "0012345678"
    assert given not in json.dumps(rows)
