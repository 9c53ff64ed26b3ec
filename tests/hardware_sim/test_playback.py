"""Recordings and tables as lines of the bench."""

from __future__ import annotations

import asyncio
import json
import math
import os
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
from pymodbus.client import AsyncModbusTcpClient

from hardware_sim import table
from hardware_sim.bench import Bench
from hardware_sim.clock import BenchClock
from hardware_sim.recording import NotPlayable, load
from hardware_sim.rtu import frame
from hardware_sim.scenario import Scenario
from hardware_sim.table import TableLine, TableWrong
from tests.system.running import Bench as Program
from tests.system.running import Daemon, demo_site, readings, until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MS = 1_000_000
RADAR_UNIT = 2


def recording(path: Path, kind: str, events: Sequence[tuple[int, str, bytes]]) -> Path:
    """A recording whose events are (ms, direction, bytes)."""
    head = {"line": "site-1", "kind": kind, "serial": "", "mode": "real", "devices": [], "trace": 1}
    rows: list[Any] = [head]
    rows += [{"time_ns": 0, "mono_ns": 7 + ms * MS, "dir": d, "hex": data.hex(" ")} for ms, d, data in events]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def bench_of(run_dir: Path, rate: float, *played: Any) -> Bench:
    return Bench(Scenario.load("calm"), run_dir, BenchClock.starting_now(rate), played=played)


async def heard(fd: int, many: int) -> bytes:
    data = b""
    async with asyncio.timeout(5):
        while len(data) < many:
            try:
                data += os.read(fd, 4096)
            except BlockingIOError:
                await asyncio.sleep(0.005)
    return data


async def test_a_recorded_serial_line_answers_as_it_did_then_and_as_late(tmp_path: Path) -> None:
    ask, other = frame(1, b"\x03\x00\x64\x00\x01"), frame(9, b"\x03\x00\x00\x00\x01")
    first, second = frame(1, b"\x03\x02\x12\x34"), frame(1, b"\x03\x02\x56\x78")
    events = [
        (0, "tx", ask),
        (150, "rx", first[:4]),
        (200, "rx", first[4:]),
        (900, "tx", ask),
        (910, "rx", second),
    ]
    playback = load(recording(tmp_path / "r.jsonl", "modbus-rtu", events), tmp_path)
    async with bench_of(tmp_path, 1.0, playback) as bench:
        fd = os.open(bench.addresses["replay-site-1"], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        began_s = time.monotonic()
        os.write(fd, ask)
        assert await heard(fd, len(first)) == first
        assert 0.19 < time.monotonic() - began_s < 0.6
        for wanted in (second, first):  # after the last the first again
            os.write(fd, other)  # never asked then: no answer
            os.write(fd, ask)
            assert await heard(fd, len(wanted)) == wanted
        os.close(fd)


async def test_a_recorded_modbus_tcp_line_answers_under_the_new_transaction(tmp_path: Path) -> None:
    events = [
        (0, "tx", bytes.fromhex("0007 0000 0006 01 04 0002 0001")),
        (5, "rx", bytes.fromhex("0007 0000 0005 01 04 02 01 2c")),
        (9, "lost", b""),
        (10, "rx", b"what was answered to something lost"),
    ]
    playback = load(recording(tmp_path / "r.jsonl", "modbus-tcp", events), tmp_path)
    async with bench_of(tmp_path, 1.0, playback) as bench:
        host, port = bench.addresses["replay-site-1"].split(":")
        client = AsyncModbusTcpClient(host, port=int(port), timeout=2, retries=0)
        assert await client.connect()
        for _ in range(3):
            assert (await client.read_input_registers(2, count=1, device_id=1)).registers == [300]
        client.close()


async def test_a_recorded_receiver_speaks_again_at_the_bench_rate(tmp_path: Path) -> None:
    events = [(0, "rx", b"$GNGGA,1*00\r\n"), (5000, "rx", b"$GNGGA,2*00\r\n")]
    playback = load(recording(tmp_path / "r.jsonl", "tcp", events), tmp_path)
    async with bench_of(tmp_path, 10.0, playback) as bench:
        reader, writer = await asyncio.open_connection(*bench.addresses["replay-site-1"].split(":"))
        began_s = time.monotonic()
        assert await asyncio.wait_for(reader.readline(), 3) in (events[0][2], events[1][2])
        while time.monotonic() - began_s < 0.3:  # the second comes after half a real second
            await asyncio.sleep(0.05)
        writer.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1:"),
        ('{"line":"a","kind":"modbus-rtu","trace":2}\n', "version 2"),
        ('{"line":"a","kind":"carrier-pigeon","trace":1}\n', "carrier-pigeon"),
        ('{"line":"a","kind":"tcp","trace":1}\nnonsense\n', ":2:"),
        ('{"line":"a","kind":"tcp","trace":1}\n', "nothing was heard"),
        ('{"line":"../a","kind":"serial","trace":1}\n', "no name of a line"),
        ('{"line":"a","kind":"tcp","trace":1}\n{"mono_ns":1,"dir":"rx","hex":"240"}\n', ":2: hex"),
    ],
)
def test_what_is_no_recording_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(NotPlayable, match=said):
        load(path, tmp_path)


async def traced(daemon: Daemon, line: str, to: Path, many: int) -> list[dict[str, Any]]:
    """The first lines of `pondwatch trace LINE --to FILE`."""
    command = (*daemon._front, "trace", line, "--to", str(to))
    process = await asyncio.create_subprocess_exec(*command, env=daemon._for_verbs, cwd=daemon._cwd)
    try:
        await until(lambda: to.exists() and to.read_text().count("\n") > many, "a recording")
    finally:
        process.terminate()
        await process.wait()
    return [json.loads(row) for row in to.read_text().splitlines()]


async def test_the_daemons_own_recording_of_a_bench_line_plays_back_to_the_same_readings(
    tmp_path: Path,
) -> None:
    """Bench, daemon, `trace`, bench, daemon: the radar's number survives the way, and stays simulated."""
    run, again, file = tmp_path / "a", tmp_path / "b", tmp_path / "weather.jsonl"
    fast = ('every = "1 min"', 'every = "3 s"')
    async with Program(run, "calm", 1) as bench, Daemon(demo_site(run, bench, fast), run) as daemon:
        rows = await traced(daemon, "weather", file, 13)
    replies = [bytes.fromhex(row["hex"]) for row in rows if row.get("dir") == "rx"]
    sent = {struct.unpack(">f", reply[13:17])[0] for reply in replies if reply[6] == RADAR_UNIT}
    async with Program(again, "storm", 1, "--recording", str(file)) as bench:
        bench.facts["lines"]["weather"] = bench.facts["lines"]["replay-weather"]
        async with Daemon(demo_site(again, bench, fast), again) as daemon:
            await until(lambda: len(levels(daemon)) > 1, "the pond's level of the recording")
            assert {level["raw"]["radar1.pv"] for level in levels(daemon)} <= sent
            modes = {json.loads(batch.payload)["mode"] for batch in daemon.batches()}
    assert modes == {"simulated"}


def levels(daemon: Daemon) -> list[dict[str, Any]]:
    return [level for level in readings(daemon.batches(), "n.pond.level") if level["value"] is not None]


# -- tables ------------------------------------------------------------------------------------------


def csv_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "history.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "time,PZ01,PZ02\n2026-01-01T00:00:00Z,1.5,\n2026-01-01T01:00:00Z,2.5,9\n",
        "time,channel,value\n100,PZ01,1.5\n3700,PZ01,2.5\n3700,PZ02,9\n",
    ],
)
def test_both_forms_of_a_table_say_the_same(tmp_path: Path, text: str) -> None:
    read = table.read(csv_file(tmp_path, text))
    assert list(read.columns) == ["PZ01", "PZ02"]
    assert read.times_s[1] - read.times_s[0] == 3600.0
    assert read.rows[0][0] == 1.5
    assert math.isnan(read.rows[0][1])
    assert list(read.rows[1]) == [2.5, 9.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line"),
        ("date,a\n", "first line"),
        ("time,a\n", "columns"),
        ("time;a\n1;1\n", ":1: the first line"),
        ("time,a,a\n1,1,2\n", "two columns are called a"),
        ("time,a,\n1,1,2\n", "no name"),
        ("time,a\n1,x\n", ":2: 'x' is no number"),
        ("time,a\n1,1e39\n", ":2: '1e39' is more than a 32-bit float"),
        ("time,a\n1,inf\n", ":2: 'inf' is more"),
        ("time,a\n1,1,2\n", ":2: 3 fields under 2 columns"),
        ("time,a\nnan,1\n", ":2: 'nan' is no time"),
        ("time,a\n2026-13-40,1\n", ":2: '2026-13-40' is no time"),
        ("time,a\n1,1\n\n2,1\n1,1\n", ":5: its time lies before"),
        ("time,a\n1," + "9" * 200_000 + "\n", "field larger"),
        ("time," + ",".join(f"c{i}" for i in range(63)) + "\n0" + ",1" * 63 + "\n", "62"),
    ],
)
def test_a_wrong_table_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TableWrong, match=said):
        table.read(csv_file(tmp_path, text))


def test_a_table_in_another_encoding_is_named_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("time,库水位\n1,2\n".encode("gb18030"))
    with pytest.raises(TableWrong, match="UTF-8"):
        table.read(path)
    assert table.read(csv_file(tmp_path, "time,a\n1,2\n\n2,3\n\n")).rows == [[2.0], [3.0]]


def test_a_recording_cut_off_in_the_middle_of_a_frame_plays_up_to_there(tmp_path: Path) -> None:
    whole = recording(
        tmp_path / "r.jsonl", "tcp", [(0, "rx", b"$GNGGA,1*00\r\n"), (5, "rx", b"$GNGGA,2*00\r\n")]
    )
    whole.write_bytes(whole.read_bytes()[:-9])
    assert [data for _, data in load(whole, tmp_path).spoken] == [b"$GNGGA,1*00\r\n"]


async def test_history_plays_through_an_instrument_at_the_bench_rate(tmp_path: Path) -> None:
    read = table.read(csv_file(tmp_path, "time,a,b\n0,1.5,-2\n60,2.5,-3\n120,3.5,\n"))
    async with bench_of(tmp_path, 120.0, TableLine("table", read)) as bench:
        assert bench.facts()["tables"] == {"table": ["a", "b"]}
        host, port = bench.addresses["table"].split(":")
        client = AsyncModbusTcpClient(host, port=int(port), timeout=2, retries=0)
        assert await client.connect()
        seen: list[Any] = []
        async with asyncio.timeout(5):
            while len(seen) < 3:
                words = (await client.read_holding_registers(0, count=4, device_id=1)).registers
                row = [
                    client.convert_from_registers(words[i : i + 2], client.DATATYPE.FLOAT32, "little")
                    for i in (0, 2)
                ]
                if not seen or seen[-1][0] != row[0]:
                    seen.append(row)
                await asyncio.sleep(0.02)
        client.close()
    assert [row[0] for row in seen] == [1.5, 2.5, 3.5]
    assert math.isnan(seen[2][1])
