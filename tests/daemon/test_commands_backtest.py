"""`pondwatch backtest`: history through the judge and the detectors of production, beside twins and by hand."""

from __future__ import annotations

import csv
import json
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from daemon.backtest.figures import poisson_interval
from daemon.commands import main
from tests.naive import LevelTwin

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

START = datetime(2026, 1, 1, tzinfo=UTC)
SITE = """
[site]
id = "s"
gateway = "g"
[[pond]]
id = "n"
[[line]]
id = "l"
kind = "modbus-rtu"
port = "/dev/null"
[[device]]
id = "radar"
line = "l"
profile = "vegapuls"
every = "1 h"
[[channel]]
id = "n.level"
unit = "m"
pond = "n"
item = "pond-level"
from = "radar.pv"
advice = { hampel = true, resolution = 0.001 }
levels = { rising = true, blue = 84.0, yellow = 85.0, orange = 86.0, hysteresis = 0.2, hold = "2 h", source = "design" }
[[uplink]]
id = "up"
kind = "mqtt"
url = "mqtts://broker.example"
settle = "receipt"
"""


@pytest.fixture
def site(tmp_path: Path) -> str:
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    return str(path)


def history(path: Path, values: Sequence[float | None]) -> Path:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("time", "channel", "value"))
        for hour, value in enumerate(values):
            time = START + timedelta(hours=hour)
            rows.writerow((time.isoformat(), "n.level", "" if value is None else repr(value)))
    return path


def wandering(hours: int) -> list[float | None]:
    rng = random.Random(3)
    level, values = 83.0, list[float | None]()
    for _ in range(hours):
        level += rng.gauss(0.0, 0.1) + 0.01 * (84.5 - level)
        values.append(None if rng.random() < 0.05 else level)
    return values


def test_the_levels_of_a_history_are_those_of_the_twin_with_their_times(site: str, tmp_path: Path) -> None:
    values = wandering(4000)
    data, out = history(tmp_path / "h.csv", values), tmp_path / "out.csv"
    assert main(["--config", site, "backtest", str(data), "--out", str(out)]) == 0
    with out.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["rule"] == "level"]
    twin = LevelTwin(True, {1: 84.0, 2: 85.0, 3: 86.0}, 0.2, 2 * 3600 * 10**9)
    expected = []
    for hour, value in enumerate(values):
        if value is not None and (change := twin.judge(hour * 3600 * 10**9, value, certain=True)):
            time = f"{START + timedelta(hours=hour):%Y-%m-%dT%H:%M:%S}.000Z"
            expected.append((time, ("none", "blue", "yellow", "orange")[change[1]]))
    assert len(expected) > 10
    moves = [(row["time"], row["level"]) for row in rows]
    # A missing reading makes a level unknown and the next one known again: told, but no move.
    assert [move for before, move in pairwise([("", "none"), *moves]) if move[1] != before[1]] == expected


def test_its_figures_are_counted_and_their_interval_is_exact(
    site: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    up: list[float | None] = [84.5] * 100
    values: list[float | None] = [83.0] * 200
    values += [*up, None, None, *up, *[83.0] * 200]  # seen again is no second alarm
    data = history(tmp_path / "h.csv", values)
    assert main(["--config", site, "--json", "backtest", str(data)]) == 0
    said = json.loads(capsys.readouterr().out)
    (rate,) = (each for each in said["rates"] if each["rule"] == "level")
    years = 601 / 24 / 365.25
    assert said["readings"] == 602
    assert (rate["alarms"], rate["years"]) == (1, pytest.approx(years))
    assert rate["low"] == pytest.approx(0.025318 / years, rel=1e-4)
    assert rate["high"] == pytest.approx(5.571643 / years, rel=1e-4)


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0.0, 3.688879), (1, 0.025318, 5.571643), (10, 4.795389, 18.390356)]
)
def test_the_poisson_interval_is_garwoods(count: int, low: float, high: float) -> None:
    """Printed values of the exact interval (Garwood 1936; Ulm 1990)."""
    assert list(poisson_interval(count)) == pytest.approx([low, high], abs=1e-5)


def test_a_known_beginning_gets_its_delay(
    site: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = history(tmp_path / "h.csv", [83.0] * 100 + [84.5] * 100)
    began = tmp_path / "began.csv"
    began.write_text(f"time,channel\n{(START + timedelta(hours=100)).isoformat()},n.level\n")
    assert main(["--config", site, "--json", "backtest", str(data), "--began", str(began)]) == 0
    (delay,) = json.loads(capsys.readouterr().out)["delays"]
    assert (delay["rule"], delay["days"]) == ("level", pytest.approx(2 / 24))


def test_the_picture_is_svg_with_the_series_its_levels_and_what_was_said(site: str, tmp_path: Path) -> None:
    data, picture = history(tmp_path / "h.csv", wandering(1500)), tmp_path / "h.svg"
    assert main(["--config", site, "backtest", str(data), "--picture", str(picture)]) == 0
    root = ET.fromstring(picture.read_text())
    assert root.tag.endswith("svg")
    text = " ".join(each.strip() for each in root.itertext() if each.strip())
    assert "n.level" in text
    lines = [each for each in root.iter() if each.tag.rpartition("}")[2] in ("polyline", "path", "line")]
    assert len(lines) > 4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("when,channel,value\n", "the first line must name time, channel and value"),
        ("time,channel,value\n2026-01-01T00:00Z,n.level,wet\n", "line 2 is not time,channel,value"),
        ("time,channel,value\n2026-01-01T00:00Z,n.levle,1\n", "'n.levle' is not in the site file"),
        ("time,channel,value\n", "no reading in it"),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_sentence(
    site: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str
) -> None:
    data = tmp_path / "h.csv"
    data.write_text(text)
    assert main(["--config", site, "backtest", str(data)]) in (1, 2)
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1


def test_what_is_said_does_not_depend_on_how_the_file_is_cut(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from daemon.backtest import history as module

    data = history(tmp_path / "h.csv", wandering(2000))
    said = []
    for chunk in (5000, 7):
        monkeypatch.setattr(module, "CHUNK", chunk)
        out = tmp_path / f"{chunk}.csv"
        assert main(["--config", site, "backtest", str(data), "--out", str(out)]) == 0
        said.append(out.read_text())
    assert said[0] == said[1]
