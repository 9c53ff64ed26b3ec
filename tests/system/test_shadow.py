"""A site in shadow from start to summary: a real daemon, a real instrument, the verbs an engineer uses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hardware_sim.platform import Platform
from hardware_sim.receiver import Receiver
from tests.fault.way import Instruments, settled, site_file, uplink
from tests.system.running import Daemon, until

if TYPE_CHECKING:
    from pathlib import Path

LEVELS = 'levels = { rising = true, blue = 2.0, red = 5.0, hysteresis = 0.1, source = "t", approver = "t" }\n'


async def test_a_trial_run_is_marked_labelled_and_summed_up(tmp_path: Path) -> None:
    receiver = Receiver()
    async with Instruments(1).serving() as instruments, Platform(receiver) as platform:
        up = uplink("up", int(platform.address.rpartition(":")[2]))
        site = site_file(
            tmp_path, instruments, up, every="200 ms", answer="100 ms", mode="real", levels=LEVELS
        )
        armed = site.read_text()
        site.write_text(armed.replace('mode = "real"\n', 'mode = "real"\nshadow = true\n'))
        async with Daemon(site, tmp_path) as core:
            await until(lambda: instruments.polls[1] >= 6, "it is above the level")
            await until(lambda: core.ask("alarms.list"), "alarms")
            (alarm,) = [a for a in await core.ask("alarms.list") if a["kind"] == "channel"]
            assert (await core.ask("status"))["shadow"] is True
            assert (await core.verb("report", "--shadow"))[0] == 1, "some have no label yet"
            label = ("alarms", "label", alarm["id"])
            assert (await core.verb(*label, "--by", "王工"))[0] == 2, "real, false or unsure?"
            assert (await core.verb(*label, "--real", "--by", "王工"))[0] == 0
            code, _ = await core.verb(*label, "--false", "--by", "王工", "--note", "仪器调试")
            assert code == 0
            assert (await core.verb("alarms", "label", "channel:none:1", "--real", "--by", "王工"))[0] == 1
            await until(lambda: settled(core), "all is settled")
            assert await core.stop() == 0
        told = [json.loads(b.payload) for b in core.batches() if b.kind == "alarms"]
        assert {(each["mode"], each["shadow"]) for each in told} == {("test", True)}
        site.write_text(armed)
        async with Daemon(site, tmp_path) as core:
            assert (await core.ask("status"))["shadow"] is False
            code, said = await core.verb("--json", "report", "--shadow", "--language", "en")
            assert await core.stop() == 0
    assert code == 1
    summary, each = json.loads(said)["parts"]
    (row,) = [row for row in summary["rows"] if row["kind"] == "channel"]
    assert (row["count"], row["real"], row["false"], row["none"]) == ("1", "0", "1", "0")
    assert len(summary["sentences"]) == 3, "one span, a rate, what has no label"
    (listed,) = [row for row in each["rows"] if row["alarm"] == alarm["id"]]
    assert (listed["label"], listed["by"], listed["note"]) == ("false", "王工", "仪器调试")
    assert receiver.summary().holes == 0
