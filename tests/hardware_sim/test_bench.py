"""The whole bench, in this process and as the program people start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import AsyncModbusSerialClient

from hardware_sim.bench import Bench
from hardware_sim.clock import BenchClock
from hardware_sim.faults import Fault, FaultUnknown
from hardware_sim.scenario import Outage, PlannedFault, Scenario, ScenarioWrong
from hardware_sim.site import GRAVITY_M_S2
from tests.hardware_sim.test_gnss import enu, position

REPOSITORY = Path(__file__).parents[2]


async def ask(run_dir: Path, *requests: Any) -> list[Any]:
    reader, writer = await asyncio.open_unix_connection(run_dir / "bench.sock")
    for request in requests:
        writer.write((request if isinstance(request, str) else json.dumps(request)).encode() + b"\n")
    answers = [json.loads(await asyncio.wait_for(reader.readline(), 2)) for _ in requests]
    writer.close()
    await writer.wait_closed()
    return answers


async def phreatic_m(address: str, facts: dict[str, Any], air_hpa: float) -> float:
    """PZ01's phreatic elevation, read through pymodbus and reduced by the published sheet alone."""
    client = AsyncModbusSerialClient(address, baudrate=9600, retries=0, timeout=2, reconnect_delay=0)
    assert await client.connect()
    hertz = (await client.read_holding_registers(100, count=1, device_id=1)).registers[0] / 10
    celsius = (await client.read_holding_registers(132, count=1, device_id=1)).registers[0] / 10
    client.close()
    sheet = facts["piezometers"][0]
    kpa = sheet["kpa_per_digit"] * (hertz * hertz / 1000 - sheet["zero_digits"])
    kpa += sheet["kpa_per_celsius"] * (celsius - sheet["zero_celsius"]) - (air_hpa - sheet["zero_hpa"]) / 10
    return float(sheet["tip_elevation_m"] + kpa / GRAVITY_M_S2)


async def test_a_storm_shows_at_the_piezometers_on_the_wire(tmp_path: Path) -> None:
    clock = BenchClock.starting_now(1.0)
    async with Bench(Scenario.load("storm"), tmp_path, clock) as bench:
        before = await phreatic_m(bench.addresses["rs485-1"], bench.facts(), bench.truth().pressure_hpa)
        bench._began_s -= 1800.0  # half an hour of bench time passes at once
        after = await phreatic_m(bench.addresses["rs485-1"], bench.facts(), bench.truth().pressure_hpa)
    rest_m = bench.facts()["piezometers"][0]["rest_elevation_m"]
    assert before == pytest.approx(rest_m, abs=0.02)
    assert after == pytest.approx(bench.truth().phreatic_m[0], abs=0.03)
    assert after > rest_m + 2.0


async def test_the_receiver_speaks_once_per_interval_of_bench_time(tmp_path: Path) -> None:
    clock = BenchClock.starting_now(100.0)
    async with Bench(Scenario.load("calm"), tmp_path, clock, gnss_every_s=10.0) as bench:
        fd = os.open(bench.addresses["gnss-1"], os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        heard = b""
        while heard.count(b"\r\n") < 8:
            await asyncio.sleep(0.02)
            try:
                heard += os.read(fd, 4096)
            except BlockingIOError:
                continue
        os.close(fd)
    ggas = [line for line in heard.decode().splitlines() if line.startswith("$GNGGA")]
    seconds = [float(line.split(",")[1][4:]) for line in ggas]
    assert all((b - a) % 60 == 10 for a, b in pairwise(seconds))
    assert all(abs(axis) < 0.02 for line in ggas for axis in enu(*position(line)))


async def test_the_control_socket_answers_each_line_in_order(tmp_path: Path) -> None:
    async with Bench(Scenario.load("calm"), tmp_path, BenchClock.starting_now(1.0)) as bench:
        summary, truth, relays, facts = await ask(
            tmp_path, {"do": "summary"}, {"do": "truth"}, {"do": "relays"}, {"do": "facts"}
        )
        assert summary["received"] == summary["holes"] == summary["chain_breaks"] == 0
        assert len(truth["phreatic_m"]) == 4
        assert relays == {"closed": [False] * 8, "switched": 0}
        assert facts["lines"] == bench.addresses
        answers = await ask(
            tmp_path,
            {"do": "fault", "target": "rs485-1/192", "fault": "silent"},
            {"do": "fault", "target": "rs485-2", "fault": "silent"},
            {"do": "fault", "target": "weather/1", "fault": "echo"},
            {"do": "dance"},
            "not json",
            {"do": "platform", "refuse": 135, "acks": False},
        )
        assert answers[0] == {"target": "rs485-1/192", "fault": "silent"}
        assert all(list(answer) == ["error"] for answer in answers[1:5])
        assert answers[5] == {
            "here": True,
            "receipts": True,
            "acks": False,
            "keeps": True,
            "refuse": 135,
        }
        assert bench.platform.refuse == 135


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("rs485-1", "silent"),
        ("rs485-1/x", "silent"),
        ("gnss-1/1", "silent"),
        ("weather", "float"),
        ("nowhere", "unplug"),
        ("rs485-1/1", "unplug"),
    ],
)
async def test_a_fault_that_cannot_happen_to_its_target_is_refused(
    tmp_path: Path, target: str, fault: str
) -> None:
    bench = Bench(Scenario.load("calm"), tmp_path, BenchClock.starting_now(1.0))
    with pytest.raises(FaultUnknown):
        bench.set_fault(target, fault)


async def test_lines_can_be_unplugged_and_the_receiver_blinded(tmp_path: Path) -> None:
    async with Bench(Scenario.load("calm"), tmp_path, BenchClock.starting_now(1.0)) as bench:
        for line in ("rs485-1", "gnss-1"):
            bench.set_fault(line, "unplug")
            assert not Path(bench.addresses[line]).exists()
            bench.set_fault(line, "none")
            assert Path(bench.addresses[line]).exists()
        bench.set_fault("gnss-1", "float")
        assert bench.gnss.fault == Fault("float")
        bench.set_fault("gnss-1", "none")
        assert bench.gnss.fault is None


async def test_a_scenario_stages_its_faults_and_outages(tmp_path: Path) -> None:
    planned = PlannedFault(at_min=1.0, length_min=3.0, target="gnss-1", fault="no_lines")
    scenario = Scenario("x", "x", 1, fault=(planned,), outage=(Outage(0.05, 0.15),))
    seen: list[tuple[Fault | None, bool]] = []
    async with Bench(scenario, tmp_path, BenchClock.starting_now(600.0)) as bench:
        for _ in range(60):
            await asyncio.sleep(0.01)
            now = (bench.gnss.fault, bench.platform.here)
            if not seen or seen[-1] != now:
                seen.append(now)
    assert (Fault("no_lines"), True) in seen
    assert any(not here for _, here in seen)
    assert seen[-1] == (None, True)


@pytest.mark.parametrize(
    ("target", "fault"), [("nowhere", "cut"), ("weather", "float"), ("rs485-1/192", "lat 0.9")]
)
async def test_a_scenario_with_a_fault_that_cannot_happen_is_refused_before_it_begins(
    tmp_path: Path, target: str, fault: str
) -> None:
    wrong = Scenario("mine", "x", 1, fault=(PlannedFault(at_min=40.0, target=target, fault=fault),))
    with pytest.raises(ScenarioWrong, match="mine: fault at 40 min"):
        Bench(wrong, tmp_path, BenchClock.starting_now(600.0))
    async with Bench(Scenario.load("calm"), tmp_path, BenchClock.starting_now(600.0)) as bench:
        bench.set_fault("weather", "cut")
        with pytest.raises(ScenarioWrong):
            bench.play(wrong)
        assert (bench.scenario.name, bench.faults) == ("calm", {"weather": "cut"})


async def test_a_staged_fault_without_its_daemon_is_said_and_the_bench_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = (
        PlannedFault(at_min=0.5, target="gateway", fault="disk_full"),
        PlannedFault(at_min=1.0, target="gnss-1", fault="float"),
    )
    async with Bench(Scenario("x", "x", 1, fault=planned), tmp_path, BenchClock.starting_now(600.0)) as bench:
        async with asyncio.timeout(5):
            while "gnss-1" not in bench.faults:
                await asyncio.sleep(0.01)
        assert "gateway" not in bench.faults
    assert "disk_full of gateway is left out: no daemon listens" in capsys.readouterr().err


async def test_the_end_of_a_staged_fault_ends_no_other_that_somebody_put_in_its_place(tmp_path: Path) -> None:
    staged = PlannedFault(at_min=1.0, length_min=1.0, target="gnss-1", fault="float")
    after = PlannedFault(at_min=3.0, target="weather", fault="cut")
    async with Bench(
        Scenario("x", "x", 1, fault=(staged, after)), tmp_path, BenchClock.starting_now(600.0)
    ) as bench:
        async with asyncio.timeout(5):
            while bench.faults != {"gnss-1": "float"}:
                await asyncio.sleep(0.01)
            bench.set_fault("gnss-1", "no_lines")
            while "weather" not in bench.faults:
                await asyncio.sleep(0.01)
        assert bench.faults["gnss-1"] == "no_lines"


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    before = set(asyncio.all_tasks())
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    async with Bench(Scenario.load("storm"), tmp_path, BenchClock.starting_now(60.0)):
        pass
    await asyncio.sleep(0.02)
    assert set(asyncio.all_tasks()) == before
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    assert list(tmp_path.iterdir()) == []


async def start(run_dir: Path, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hardware_sim", *options, "--run-dir", str(run_dir)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )


async def test_the_program_writes_bench_json_when_all_is_ready_and_ends_on_sigterm(tmp_path: Path) -> None:
    process = await start(tmp_path, "storm", "--speed", "60", "--platform-outage", "0.1:5")
    facts_file = tmp_path / "bench.json"
    async with asyncio.timeout(5):
        while not facts_file.exists():
            await asyncio.sleep(0.02)
    facts = json.loads(facts_file.read_text())
    assert set(facts["lines"]) == {"rs485-1", "rs485-1-tcp", "gnss-1", "weather"}
    assert BenchClock.parse(facts["clock"]).rate == 60.0
    assert (await ask(tmp_path, {"do": "truth"}))[0]["t_s"] >= 0.0
    _, writer = await asyncio.open_connection(*facts["lines"]["weather"].split(":"))
    writer.close()
    await writer.wait_closed()
    while (await ask(tmp_path, {"do": "platform"}))[0]["here"]:
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, error = await asyncio.wait_for(process.communicate(), 5)
    assert (process.returncode, error) == (0, b"")
    assert len(out.splitlines()) == 9
    assert list(tmp_path.iterdir()) == []


async def test_a_second_bench_in_the_folder_is_refused_and_takes_nothing_from_the_first(
    tmp_path: Path,
) -> None:
    async with Bench(Scenario.load("calm"), tmp_path, BenchClock.starting_now(1.0)) as bench:
        bench.write_facts()
        before = {path.name: path.lstat().st_ino for path in tmp_path.iterdir()}
        process = await start(tmp_path, "calm")
        _, error = await asyncio.wait_for(process.communicate(), 10)
        assert (process.returncode, b"already" in error, b"Traceback" in error) == (3, True, False)
        assert {path.name: path.lstat().st_ino for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("strom",), b"shipped scenarios are base-bumped"),
        (("storm", "--platform-outage", "5"), b"an outage is AT:FOR"),
        (("storm", "--speed", "0"), b"positive"),
        (("storm", "--speed", "inf"), b"finite"),
    ],
)
async def test_wrong_usage_is_one_sentence_and_exit_2(
    tmp_path: Path, options: tuple[str, ...], said: bytes
) -> None:
    process = await start(tmp_path, *options)
    _, error = await asyncio.wait_for(process.communicate(), 5)
    assert process.returncode == 2
    assert said in error
    assert b"Traceback" not in error
