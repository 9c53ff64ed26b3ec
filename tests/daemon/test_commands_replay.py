"""A recording through the same code again: bit for bit the readings that the store has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from daemon.commands import main
from tests.system.running import ROOT, Bench, Daemon, demo_site, until

if TYPE_CHECKING:
    from pathlib import Path

RECORD = [
    (f'kind = "{kind}"', f'kind = "{kind}"\nrecord = "16 MB"')
    for kind in ("modbus-rtu", "modbus-tcp", "serial")
]


def by_channel(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    sorted_: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        sorted_.setdefault(row["channel"], []).append(row)
    return sorted_


async def test_a_replay_has_every_reading_of_the_store_bit_for_bit_and_says_that_it_is_simulated(
    tmp_path: Path,
) -> None:
    async with Bench(tmp_path, "storm", 120) as bench:
        site = demo_site(tmp_path, bench, *RECORD, ('start = "child"', 'start = "off"'))
        async with Daemon(site, tmp_path, str(bench.facts["clock"])) as daemon:

            def enough() -> bool:
                return len(daemon.batches()) > 12

            await until(enough, "a dozen batches")
            await daemon.stop()
            stored = [
                reading
                for batch in daemon.batches()
                if batch.kind == "readings"
                for reading in json.loads(batch.payload)["readings"]
            ]
        folders = sorted((daemon.store / "trace").iterdir())
        assert [folder.name for folder in folders] == ["gnss-1", "rs485-1", "weather"]
        code, out = await daemon.verb("--json", "replay", *map(str, folders))
    assert code == 0, "nothing differs from what was recorded"
    replayed = [json.loads(line) for line in out.splitlines()]
    assert {row.pop("mode") for row in replayed} == {"simulated"}
    had, has = by_channel(stored), by_channel(replayed)
    assert had.keys() == has.keys()
    assert sum(map(len, had.values())) > 50
    for channel, rows in had.items():
        assert has[channel] == rows
    await _dated_constants_hold_in_a_replay(site, daemon, folders, had["n.pond.level"])


async def _dated_constants_hold_in_a_replay(
    site: Path, daemon: Daemon, folders: list[Path], had: list[dict[str, Any]]
) -> None:
    """A gauge that was set anew half-way: what was measured before keeps what it was computed with."""
    half = had[len(had) // 2]["time"].replace("Z", "+00:00")
    old = 'calibration = { kind = "linear", scale = 1.0, offset = 75.0 }\n'
    was = f'[[channel.was]]\nuntil = "{half}"\nby = "王工"\n{old}'
    text = site.read_text()
    head, radar = text.split('id = "n.pond.level"', 1)
    radar, *rest = radar.split("[[channel]]")
    assert old in radar
    radar = radar.replace(old, old.replace("75.0", "76.0")) + was + "\n"
    site.write_text(head + "[[channel]]".join([f'id = "n.pond.level"{radar}', *rest]))
    code, out = await daemon.verb("--json", "replay", *map(str, folders))
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    now = [row["value"] for row in rows if row["channel"] == "n.pond.level"]
    then = [row["value"] for row in had]
    n = len(had) // 2
    assert now[:n] == then[:n]
    assert now[n:] == pytest.approx([value + 1.0 for value in then[n:]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "1: is no recording"),
        (b"{}\n", "1: is no recording"),
        (b"\xff\n", "1: is no recording"),
        (b'{"trace":2,"line":"a","kind":"modbus-rtu","serial":"","mode":"real","devices":[]}\n', "1: is no rec"),
    ],
)  # fmt: skip
def test_what_is_no_recording_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes, said: str
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(text)
    site = str(tmp_path.parent / "none.toml")
    assert main(["--config", site, "replay", str(file)]) == 3
    capsys.readouterr()
    assert main(["--config", str(ROOT / "config/demo.toml"), "replay", str(file)]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
