"""`pondwatch trace` beside a real core: bytes live, recorded, and as golden frames; no verb writes to a device."""

from __future__ import annotations

import ast
import asyncio
import json
import signal
import sys
import tomllib
from typing import TYPE_CHECKING

from daemon.commands import main
from drivers import recorder
from drivers.recorder import Event, Header, Recorded
from tests.system.running import ROOT, Bench, Daemon, demo_site, until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HEADER = Header("l", "modbus-rtu", "9600 8N1", "test", (Recorded("vw1", "wenkon-vtn416", 1),))
VTN = tomllib.loads((ROOT / "drivers/profiles/wenkon-vtn416.toml").read_text())["proof"][0]


async def test_no_verb_that_looks_ever_sends_a_write(tmp_path: Path) -> None:
    """All of them, beside a core that polls, while everything that is sent is recorded."""
    async with Bench(tmp_path, "calm", 60) as bench:
        site = demo_site(tmp_path, bench, ('start = "child"', 'start = "off"'))
        async with Daemon(site, tmp_path, str(bench.facts["clock"])) as daemon:
            await until(lambda: len(daemon.batches()) > 3, "it polls, and the siren is verified off")
            file = tmp_path / "trace.jsonl"
            command = [
                sys.executable,
                "-m",
                "daemon.commands",
                "--config",
                str(site),
                "trace",
                "rs485-1",
                "--to",
            ]
            environment = {"PONDWATCH_RUN": str(tmp_path)}
            trace = await asyncio.create_subprocess_exec(*command, str(file), cwd=ROOT, env=environment)
            await until(lambda: file.stat().st_size > 600, "bytes are recorded")
            assert (await daemon.verb("read"))[0] in (0, 1)
            code, out = await daemon.verb(
                "--json", "scan", "rs485-1", "--units", "1-12", "--timeout", "20 ms"
            )
            assert code == 1, f"all units there are stand in the site file: {out}"
            code, out = await daemon.verb("scan", "nowhere")
            assert code == 2
            trace.send_signal(signal.SIGINT)
            assert await trace.wait() == 0
            code, out = await daemon.verb("replay", str(file))
            assert code == 0
            assert out.startswith("simulated:")
            code, proofs = await daemon.verb("trace", "--proof", str(file))
            assert code == 0
    with file.open("rb") as lines:
        _, read = recorder.read(lines, "trace")
        events = list(read)
    sent = [event.data for event in events if event.dir == "tx"]
    assert {data[1] for data in sent} <= {1, 2, 3, 4}
    assert {data[0] for data in sent} >= {5, 6, 7, 8}, "the scan was on the line too"
    assert any(event.dir == "frame" for event in events)
    assert "tx = " in proofs
    assert "expect = { " in proofs


def test_only_the_modbus_driver_makes_write_requests_and_only_outputs_ask_it_to() -> None:
    """What could send a write, found in the source: the builder of write requests, and who calls `write`."""
    makers, askers = set(), set()
    for path in [*(ROOT / "daemon").rglob("*.py"), *(ROOT / "drivers").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name) and node.id in (
                "write_pdu",
                "WriteSingleRegisterRequest",
                "WriteMultipleRegistersRequest",
            ):
                makers.add(path.name)
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "write"
            ):
                owner = node.func.value
                if isinstance(owner, ast.Attribute) and owner.attr in ("_device", "device", "driver"):
                    askers.add(path.name)
    assert makers == {"pdu.py", "modbus.py"}
    assert askers == {"outputs.py"}


def recorded(folder: Path, header: Header, *events: Event) -> str:
    path = folder / "r.jsonl"
    path.write_bytes(recorder.encoded(header) + b"".join(map(recorder.encoded, events)))
    return str(path)


def test_a_recorded_exchange_becomes_a_golden_frame_that_the_profile_proves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, said = (" ".join(VTN[key].split()) for key in ("tx", "rx"))
    path = recorded(
        tmp_path, HEADER, Event(1, 1, "tx", asked), Event(2, 2, "rx", said), Event(3, 3, "tx", asked)
    )
    assert main(["trace", "--proof", path]) == 0
    (proof,) = tomllib.loads(capsys.readouterr().out)["proof"]
    assert (proof["tx"], proof["rx"]) == (asked, said)
    assert proof["expect"]["freq01"] == 1256.9
    assert proof["expect"]["freq02"] == "bad"
    assert len(proof["expect"]) == 16


def test_a_device_nobody_has_a_profile_of_is_given_its_words_to_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = Header("l", "modbus-rtu", "9600 8N1", "test", ())
    asked, said = "50 03 00 34 00 01 C8 45", "50 03 02 07 0B 06 7F"
    path = recorded(tmp_path, bare, Event(1, 1, "tx", asked), Event(2, 2, "rx", said))
    assert main(["trace", "--proof", path]) == 0
    out = capsys.readouterr().out
    assert "# function 3, address 52, 1 of them: 070B" in out
    assert tomllib.loads(out)["proof"][0]["unit"] == 0x50
    assert main(["trace", "--proof", path, "--profile", "dfrobot-sen0492"]) == 0
    (proof,) = tomllib.loads(capsys.readouterr().out)["proof"]
    assert proof == {"tx": asked, "rx": said, "expect": {"distance": 1803}}


def test_wrong_use_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = recorded(tmp_path, HEADER)
    for words, code, said in (
        (["trace"], 2, "either a LINE"),
        (["trace", "l", "--proof", empty], 2, "either a LINE"),
        (["trace", "--proof", empty], 1, "holds no read"),
        (["trace", "--proof", empty, "--profile", "vegapulz"], 1, "did you mean 'vegapuls'"),
        (["trace", "--proof", str(tmp_path / "none")], 3, "No such file"),
    ):
        assert main(words) == code
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    assert json.loads(recorder.encoded(HEADER))["trace"] == 1
