"""Files for the tailings platform, read by a parser that shares nothing with the encoder."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from daemon.clock import Clock
from daemon.spool import Spool
from daemon.uplink.dialect import Parcel
from daemon.uplink.dialect_uplink import DialectUplink
from daemon.uplink.dialects import build
from daemon.uplink.folders import write
from tests.daemon.dialects import NOON_NS, alarm, reading, readings, table, whole
from tests.system.running import until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from daemon.uplink.tailings_files import TailingsFiles

POINTS = [
    {"code": "P1KSW020001", "type": "KSW", "value": "n.pond.level", "name": "库水位计;1", "installed": "2024-06-01", "install_height": "84.20", "longitude": "115.98"},
    {"code": "P1QRX00001", "type": "QRX", "value": "n.pz01.depth", "hole_depth": "25", "control_depth": "6"},
    {"code": "P1GNSS0001", "type": "GNSS", "x": "n.g01.north", "y": "n.g01.east", "horizontal": "n.g01.horizontal"},
]  # fmt: skip


def parsed(text: str) -> tuple[list[str], list[list[str]]]:
    """Header and records of a text file, as a reader on the other side would take them apart."""
    assert text.endswith("~||")
    head, *records = text.removesuffix("||").removesuffix("~").split("~")
    return head.split(";"), [record.split(";") for record in records]


def measured(folder: Path) -> Counter[tuple[str, str, str]]:
    """(code, time, value) of each real-time record in all text files."""
    found: Counter[tuple[str, str, str]] = Counter()
    for file in folder.glob("wkk/*SS_*.txt"):
        _, records = parsed(file.read_text())
        found.update((record[0], record[1], record[2]) for record in records)
    return found


def settings(folder: object) -> dict[str, Any]:
    return {
        "id": "province",
        "kind": "tailings-files",
        "project": "P1",
        "project_name": "北库",
        "folder": str(folder),
        "point": POINTS,
    }


def dialect(folder: Path) -> TailingsFiles:
    site = whole({"site": {"id": "s", "gateway": "g"}, "uplink": [settings(folder)]})
    return build(site.uplinks[0], site, Clock())  # type: ignore[arg-type, return-value]


async def sent(spool: Spool, folder: Path) -> None:
    """Everything in the store, to its end."""
    rest = {key: value for key, value in settings(folder).items() if key != "kind"}
    uplink = DialectUplink(
        table("tailings-files", rest), dialect(folder), spool, Clock(), reconnect_most_s=0.05
    )
    task = asyncio.create_task(uplink.run())

    async def settled() -> bool:
        return (await uplink.unsettled()).batches == 0

    await until(settled, "all is settled")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def moments(count: int) -> Iterable[str]:
    """Four a second: as many batches share the second that names a file."""
    begin = datetime(2026, 11, 26, 4, tzinfo=UTC)
    for n in range(count):
        yield f"{begin + timedelta(milliseconds=250 * n):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


async def test_batches_of_one_second_cost_each_other_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        for n, time in enumerate(moments(40)):
            await spool.commit([readings(reading("n.pond.level", 84 + n / 1000, time))])
        await sent(spool, folder)
    values = Counter(value for _, _, value in measured(folder).elements())
    assert values == {f"{84 + n / 1000:.3f}": 1 for n in range(40)}
    assert not list(folder.rglob("*.part"))


async def test_a_folder_that_hangs_takes_one_thread_and_goes_on_when_it_answers(tmp_path: Path) -> None:
    """A pipe without a writer stands where a file is to go, and whoever looks into it hangs."""
    pipe = tmp_path / "out" / "wkk" / "P1_KSWSS_20261126120000.txt"
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    before = threading.active_count()
    rest = {key: value for key, value in settings(tmp_path / "out").items() if key != "kind"}
    its = table("tailings-files", rest | {"ack_deadline": "50 ms"})
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        await spool.commit([readings(reading("n.pond.level", 84.0, next(iter(moments(1)))))])
        uplinks = [
            DialectUplink(its, dialect(tmp_path / "out"), spool, Clock(), reconnect_most_s=0.01)
            for _ in range(8)
        ]
        tasks = [asyncio.create_task(uplink.run()) for uplink in uplinks]
        await until(lambda: all("no acknowledgement" in each._trouble for each in uplinks), "all give up")
        await asyncio.wait_for(asyncio.to_thread(before.bit_length), 5.0)  # others have their threads
        assert threading.active_count() <= before + 8 + 3
        while not all([(await each.unsettled()).batches == 0 for each in uplinks]):
            with suppress(OSError):  # nobody looks into it just now
                os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    pipe.unlink()
    assert set(measured(tmp_path / "out")) == {("P1KSW020001", "2026-11-26 12:00:00", "84.000")}


async def test_what_is_sent_again_leaves_the_platform_with_the_same_records(tmp_path: Path) -> None:
    """The store forgot that it had settled, as after a power cut: places and times are the same."""
    folder = tmp_path / "out"
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        for n, time in enumerate(moments(12)):
            await spool.commit([readings(reading("n.pond.level", 84 + n / 1000, time))])
        await sent(spool, folder)
        before = set(measured(folder))
        uplink = {**settings(folder), "id": "again"}
        del uplink["kind"]
        again = DialectUplink(table("tailings-files", uplink), dialect(folder), spool, Clock())
        task = asyncio.create_task(again.run())

        async def settled() -> bool:
            return (await again.unsettled()).batches == 0

        await until(settled, "sent a second time")
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert set(measured(folder)) == before
    assert len(before) == 12


def test_definitions_carry_what_the_site_file_says_and_no_stray_separator(tmp_path: Path) -> None:
    files = {parcel.name: parcel.payload.decode() for parcel in dialect(tmp_path).definitions(NOON_NS)}
    head, (record,) = parsed(files["wkk/P1_KSWDY_20261126120000.txt"])
    assert head == ["P1", "北库", "2026-11-26 12:00:00"]
    assert record == [
        "P1KSW020001",
        "库水位计 1",
        "2024-06-01",
        "",
        "84.20",
        "",
        "",
        "",
        "",
        "115.98",
        "",
        "",
        "",
        "",
        "",
        "1",
    ]
    _, (record,) = parsed(files["wkk/P1_QRXDY_20261126120000.txt"])
    assert record[8:10] == ["25", "6"]
    base = json.loads(files["GNSS/P1_gnssbaseinfo_20261126120000_0000.json"])
    assert [row["equip_no"] for row in base["data"]] == ["P1GNSS0001"]
    assert all(isinstance(value, str) for row in base["data"] for value in row.values())


async def test_handling_an_alarm_clears_it_at_the_platform_with_time_and_words(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    async with Spool.open(tmp_path / "store", "real", "boot") as spool:
        await spool.commit([alarm()])
        deed = {"by": "王工", "note": "现场巡查", "time": "2026-11-26T06:12:30.000Z"}
        await spool.commit([alarm(response="acknowledged", **deed)])
        await spool.commit([alarm(response="handled", **deed)])
        await spool.commit([alarm(channel="n.other")])
        await sent(spool, folder)
    levels = [json.loads(path.read_text()) for path in sorted(folder.glob("GNSS/P1_gnssalarm_*.json"))]
    assert [each["data"][0]["alarm_level"] for each in levels] == ["3"] * 3
    assert {each["data"][0]["equip_no"] for each in levels} == {"P1GNSS0001"}
    (cleared,) = folder.glob("GNSS/P1_clearalarm_*.json")
    assert json.loads(cleared.read_text())["data"] == [
        {"equip_no": "P1GNSS0001", "alarm_time": "2026-11-26 11:30:00", "handle_time": "2026-11-26 14:12:30", "description": "王工，现场巡查"}
    ]  # fmt: skip


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parcel = Parcel("wkk/P1_KSWSS_20261126120000.txt", b"x" * 1000)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("daemon.uplink.folders.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, parcel)
    assert not list(tmp_path.glob("wkk/*.txt"))
    monkeypatch.undo()
    write(tmp_path, parcel)
    write(tmp_path, parcel)  # a repeat changes nothing
    assert [path.name for path in tmp_path.glob("wkk/*")] == ["P1_KSWSS_20261126120000.txt"]
