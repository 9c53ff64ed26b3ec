"""A platform warns, acknowledges and handles: signed, through a real broker, into a real alarm book, and back by psql."""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.fault.way import MOSQUITTO, Instruments, Mosquitto, site_file, uplink
from tests.system.fleet import Consumer
from tests.system.postgres import wants_postgres
from tests.system.running import Daemon, Program, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.postgres import Postgres

pytestmark = [
    pytest.mark.peer,
    wants_postgres,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto"),
    pytest.mark.timeout(180),
]


class Desk:
    """The platform's desk: it reads its database, and what it decides it signs and sends."""

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        self._folder = folder
        self._key = str(folder / "platform.key")
        self._postgres = postgres
        self.broker = ""

    async def key(self) -> str:
        """A new key; its public half."""
        return (await self._said("--new-key", self._key)).strip()

    async def send(self, **request: Any) -> None:
        await self._said(f"--broker={self.broker}", "--key", self._key, "fault", "gw1", json.dumps(request))

    async def _said(self, *words: str) -> str:
        log = self._folder / "request.log"
        log.unlink(missing_ok=True)
        async with Program([sys.executable, "-m", "hardware_sim.request", *words], log) as program:
            assert await program.wait() == 0, log.read_text()
        return log.read_text()

    def warning(self) -> list[str]:
        """The warning's alarm as it stands: id, level, condition, response, by, note."""
        query = "SELECT id, level, condition, response, by, note FROM alarm_now WHERE id LIKE 'advice:p.warning:%'"
        rows = self._postgres.psql(query)
        return rows[0] if rows else []


async def test_a_warning_is_handled_the_same_day_and_both_sides_see_it(
    tmp_path: Path, postgres: Postgres
) -> None:
    conninfo = postgres.fresh()
    desk = Desk(tmp_path, postgres)
    public = await desk.key()
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path / "broker"))
        desk.broker = f"mqtt://127.0.0.1:{broker.port}"
        await stack.enter_async_context(Consumer("c", tmp_path, broker.port, conninfo))
        instruments = await stack.enter_async_context(Instruments(1).serving())
        rest = f'request_keys = ["{public}"]\nreceipt_deadline = "1 s"'
        site = site_file(tmp_path, instruments, uplink("up", broker.port, rest=rest))
        daemon = await stack.enter_async_context(Daemon(site, tmp_path))
        await until(lambda: postgres.psql("SELECT 1 FROM reading LIMIT 1"), "the gateway is seen")

        words = {"source": "省气象台", "by": "调度中心", "text": "暴雨橙色预警", "ref": "W-17"}
        await desk.send(do="warning", pond="p", level="orange", until="6 h", **words)
        await until(
            lambda: desk.warning()[1:4] == ["orange", "present", "new"], "the warning is in both books"
        )
        (here,) = await daemon.ask("alarms.list")
        assert (here["id"], here["evidence"]["ref"]) == (desk.warning()[0], "W-17")
        assert "暴雨橙色预警" in here["reason"]["zh"]

        await desk.send(do="acknowledge", alarm=here["id"], by="调度员", role="platform")
        await until(lambda: desk.warning()[3:5] == ["acknowledged", "调度员"], "acknowledged by the platform")
        code, _ = await daemon.verb("alarms", "handle", here["id"], "--by", "王工", "--note", "人员已撤离")
        assert code == 0
        await until(lambda: desk.warning()[3:] == ["handled", "王工", "人员已撤离"], "handled at the dam")
        await desk.send(do="close", alarm=here["id"], by="调度员")  # the warning still holds
        refused = (
            "SELECT convert_from(payload, 'UTF8')::json->'to'->>'refused' FROM batch WHERE kind = 'audit' "
            "AND convert_from(payload, 'UTF8')::json->>'what' = 'request.done' ORDER BY seq DESC LIMIT 1"
        )
        await until(lambda: "not gone" in str(postgres.psql(refused)), "the platform reads why not")
        await desk.send(do="warning", pond="p", level="none", until="1 s", **words)
        await until(lambda: desk.warning()[2:4] == ["gone", "handled"], "taken back")
        await desk.send(do="close", alarm=here["id"], by="调度员", role="platform")
        await until(lambda: desk.warning()[3:5] == ["closed", "调度员"], "closed by the platform")
        assert await daemon.ask("alarms.list") == []
