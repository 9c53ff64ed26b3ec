"""`pondwatch apply`: a site file taken into a running core in somebody's name, or everything as it was."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from daemon.commands import main
from daemon.replace import replace
from tests.fault.test_site_file import BAD, gateway
from tests.system.running import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fault.test_site_file import Gateway

pytestmark = pytest.mark.timeout(90)


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


def records(here: Gateway, what: str) -> list[dict[str, Any]]:
    audits = [json.loads(batch.payload) for batch in here.daemon.batches() if batch.kind == "audit"]
    return [each for each in audits if each["what"] == what]


async def test_a_new_site_file_is_in_use_in_the_name_of_who_brought_it(tmp_path: Path) -> None:
    async with gateway(tmp_path) as here:
        here.site.chmod(0o640)
        fresh = tmp_path / "fresh.toml"
        fresh.write_text(here.good.replace('timeout = "100 ms"', 'timeout = "90 ms"'))
        pid = here.daemon.pid
        order = ("apply", str(fresh), "--by", "王工", "--reason", "slower line")
        code, said = await here.daemon.verb(*order)
        assert (code, here.daemon.pid) == (0, pid)
        assert "in use, by 王工" in said
        assert here.site.read_text() == fresh.read_text()
        assert here.site.stat().st_mode & 0o777 == 0o640
        await here.polls_on()
        await until(lambda: len(records(here, "config")) == 2, "the change is recorded")
        (asked,), (_, changed) = records(here, "config.apply"), records(here, "config")
        who = {"by": "王工", "uid": os.getuid(), "why": "slower line"}
        assert all({key: each[key] for key in who} == who for each in (asked, changed))
        assert (asked["from"], asked["to"]) == (changed["from"], changed["to"])
        assert [(each["name"], each["to"]) for each in changed["changes"]] == [
            ("device u1", {"timeout_s": 0.09})
        ]
        # once more: nothing to do; and a change that nobody stood up for is nobody's
        assert (await here.daemon.verb(*order))[0] == 0
        here.site.write_text(here.good)
        here.daemon.send(signal.SIGHUP)
        await until(lambda: len(records(here, "config")) == 3, "the change without a name is recorded")
        assert [(each["by"], each["uid"]) for each in records(here, "config")][2] == ("pondwatch", None)


async def test_a_file_with_mistakes_one_the_core_cannot_use_and_another_cores_file_change_nothing(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path) as here:
        hash_ = await here.hash()
        fresh = tmp_path / "fresh.toml"
        fresh.write_text(BAD["mistake"](here.good))
        assert (await here.daemon.verb("apply", str(fresh), "--by", "王工"))[0] == 1
        assert records(here, "config.apply") == []
        (tmp_path / "no-folder").touch()
        fresh.write_text(here.good.replace(str(here.daemon.store), str(tmp_path / "no-folder" / "store")))
        assert (await here.daemon.verb("apply", str(fresh), "--by", "王工"))[0] == 1
        assert here.site.read_text() == here.good
        await until(lambda: here.alarm_is("gone"), "the core is content with the old file")
        elsewhere = tmp_path / "elsewhere.toml"
        elsewhere.write_text("old")
        fresh.write_text(here.good + "\n# another\n")
        code, _ = await here.daemon.verb("--config", str(elsewhere), "apply", str(fresh), "--by", "王工")
        assert (code, elsewhere.read_text()) == (3, "old")
        assert await here.hash() == hash_
        await here.polls_on()


async def test_an_alarm_about_what_the_site_file_has_no_more_can_be_closed_by_people(tmp_path: Path) -> None:
    async with gateway(tmp_path) as here:

        async def fault() -> str:
            alarms = await here.daemon.ask("alarms.list")
            return next((each["id"] for each in alarms if each["id"].startswith("fault:u9:")), "")

        async def does(deed: str, *words: str) -> int:
            code, _ = await here.daemon.verb("alarms", deed, id_, "--by", "王工", *words)
            return code

        fresh = tmp_path / "fresh.toml"
        device = here.good[here.good.index("[[device]]") :]
        silent = await asyncio.start_server(say_nothing, "127.0.0.1")
        port = silent.sockets[0].getsockname()[1]
        nobody = f'[[line]]\nid = "l9"\nkind = "modbus-tcp"\naddress = "127.0.0.1:{port}"\n'
        alone = '[alarms]\ngather = "1 s"\n'
        moved = device.replace("u1", "u9").replace('line = "l"', 'line = "l9"')
        fresh.write_text(here.good + nobody + moved + alone)
        assert (await here.daemon.verb("apply", str(fresh), "--by", "王工"))[0] == 0
        id_ = await until(fault, "nobody answers there")
        assert [await does("ack"), await does("handle", "--note", "typing error"), await does("close")] == [
            0,
            0,
            1,
        ]
        fresh.write_text(here.good)
        assert (await here.daemon.verb("apply", str(fresh), "--by", "王工"))[0] == 0
        assert await fault() == id_, "nothing closes it by itself"
        assert await does("close") == 0
        assert await fault() == ""
        silent.close()


def test_without_a_core_or_a_name_nothing_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PONDWATCH_RUN", str(tmp_path))
    site, fresh = tmp_path / "site.toml", tmp_path / "fresh.toml"
    site.write_text("old")
    fresh.write_text('[site]\nid = "s"\ngateway = "g"\n[[pond]]\nid = "n"\n')
    words = ["--config", str(site), "apply"]
    assert main([*words, str(fresh), "--by", "王工"]) == 3
    assert "no core listens" in capsys.readouterr().err
    assert main([*words, str(fresh)]) == 2
    assert main([*words, str(site), "--by", "王工"]) == 2
    assert site.read_text() == "old"


def test_a_file_is_replaced_through_a_link_and_with_its_mode_or_not_at_all(tmp_path: Path) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "link.toml"
    real.write_text("old")
    real.chmod(0o604)
    link.symlink_to(real)
    replace(link, b"new")
    assert link.is_symlink()
    assert (real.read_text(), real.stat().st_mode & 0o777) == ("new", 0o604)
    real.chmod(0o600)
    (tmp_path / ".real.toml.new").mkdir()  # what it needs beside the file cannot be made
    with pytest.raises(OSError, match="directory"):
        replace(real, b"newer")
    assert real.read_text() == "new"
