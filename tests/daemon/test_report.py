"""The monthly return against figures counted by hand."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from daemon.archive import Archive
from daemon.commands import main
from daemon.config import Site
from daemon.report import season
from daemon.report.figures import Span, collect
from daemon.store import Draft, Store
from tests.system.running import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemon.batch import Kind, Mode

ZONE = ZoneInfo("Asia/Shanghai")
BEGAN = datetime(2026, 11, 1, tzinfo=ZONE)
HEAD = b'"site":"demo","gateway":"gw1",'


def stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.000Z"


def draft(kind: Kind, at: datetime, record: dict[str, Any], mode: Mode | None = None) -> Draft:
    ns = round(at.timestamp()) * 10**9
    return Draft(kind, HEAD + json.dumps(record).encode()[1:-1], ns, ns, 1, mode)


def reading(at: datetime, quality: str, channel: str = "n.pond.level") -> Draft:
    value = None if quality.startswith("bad") else 84.0
    row: dict[str, Any] = {
        "channel": channel,
        "time": stamp(at),
        "value": value,
        "unit": "m",
        "quality": quality,
        "raw": {},
    }
    return draft("readings", at, {"readings": [row]})


def alarm(
    name: str, raised: datetime, response: str, at: datetime, level: str = "yellow", mode: Mode | None = None
) -> Draft:
    midnight = (raised + timedelta(days=1)).replace(hour=0, minute=0, second=0)
    record = {
        "id": f"channel:{name}:{raised.astimezone(UTC):%Y%m%dT%H%M%S}.000Z",
        "kind": "channel", "level": level, "was": "none", "condition": "present", "response": response,
        "pond": "n", "time": stamp(at), "due": stamp(midnight), "reason": {"zh": "库水位", "en": "level"},
    }  # fmt: skip
    return draft("alarms", at, record, mode)


def happened() -> Iterator[Draft]:
    """November: a value every ten minutes of the first three days, some of them bad, uncertain or by hand."""
    yield reading(BEGAN - timedelta(minutes=10), "good")  # October's
    for n in range(3 * 144):
        quality = "good" if n % 4 else "uncertain:clock"
        yield reading(BEGAN + timedelta(minutes=10 * n, seconds=3), "bad:no-reply" if n >= 400 else quality)
    yield reading(BEGAN + timedelta(minutes=4100), "uncertain:manual")
    day = BEGAN.replace(day=5, hour=10)
    for name, handled in (("a", day + timedelta(hours=3)), ("b", day + timedelta(days=1)), ("c", None)):
        yield alarm(name, day, "new", day)
        if handled is not None:
            yield alarm(name, day, "acknowledged", day + timedelta(minutes=5), "red")
            yield alarm(name, day, "handled", handled, "red")
    yield alarm("drilled", day, "new", day, mode="test")
    last = BEGAN.replace(day=30, hour=23)
    yield alarm("d", last, "new", last)
    yield alarm("d", last, "handled", last + timedelta(minutes=30))
    order: dict[str, Any] = {
        "time": stamp(day),
        "what": "mute",
        "by": "王工",
        "from": None,
        "to": {},
        "subject": "n",
        "uid": 0,
    }
    yield draft("audit", day, order | {"why": "电话听不清"})
    limits = {"levels": {"rising": True, "blue": 84.2, "yellow": 84.8}}
    raised = {"levels": {"rising": True, "blue": 84.2, "yellow": 85.1}}
    changes = [
        {"name": "channel n.pond.level", "from": limits, "to": raised},
        {"name": "channel n.pond.level", "from": {"span": [75, 95]}, "to": {"span": [75, 96]}},
    ]
    told = {
        "time": stamp(day),
        "what": "config",
        "by": "pondwatch",
        "from": "a",
        "to": "b",
        "changes": changes,
    }
    yield draft("audit", day, told)
    gap = {
        "of": "s",
        "from_seq": 1,
        "to_seq": 2,
        "from": None,
        "to": stamp(day),
        "count": 7,
        "reason": "memory-full",
    }
    yield draft("gaps", day, gap)
    yield reading(BEGAN + timedelta(days=31), "good")  # December's


@pytest.fixture
def site(tmp_path: Path) -> Path:
    text = (ROOT / "config/demo.toml").read_text().replace("build/run/store", str(tmp_path))
    slower = text.replace(
        'profile = "vegapuls"\nunit = 2\nevery = "1 min"', 'profile = "vegapuls"\nunit = 2\nevery = "10 min"'
    )
    assert slower != text
    path = tmp_path / "site.toml"
    path.write_text(slower)
    store = Store.open(tmp_path, "simulated", "boot-1")
    store.commit(sorted(happened(), key=lambda each: each.time_ns))
    store.close()
    return path


def test_a_month_is_counted_as_by_hand(site: Path) -> None:
    span = Span.of_month(2026, 11, ZONE)
    assert span.end_ns - span.first_ns == 30 * 86400 * 10**9
    with Archive(site.parent / "spool.db") as archive:
        month = collect(archive, span, {"n.pond.level": 600.0})
    channel = month.channels["n.pond.level"]
    assert channel.complete(span) == pytest.approx(400 / (30 * 144))
    assert (channel.good, channel.uncertain, dict(channel.bad)) == (300, 101, {"no-reply": 32})
    assert len(channel.by_hand) == 1
    due = {name.split(":")[1]: each.in_time for name, each in month.alarms.items() if each in month.due()}
    assert due == {"a": True, "b": False, "c": False, "d": True}
    assert {name.split(":")[1]: each.worst for name, each in month.alarms.items()} == {
        "a": "red", "b": "red", "c": "yellow", "d": "yellow",
    }  # fmt: skip
    assert month.rehearsed == 1
    assert [change["to"]["levels"]["yellow"] for _, change in month.thresholds()] == [85.1]
    assert [gap["count"] for gap in month.gaps] == [7]


def test_an_alarm_that_rings_again_after_it_was_handled_is_open_again(tmp_path: Path) -> None:
    day = BEGAN.replace(day=9, hour=9)
    store = Store.open(tmp_path, "simulated", "boot-1")
    rings = [alarm("a", day, "new", day), alarm("a", day, "handled", day + timedelta(hours=1))]
    store.commit([*rings, alarm("a", day, "new", day + timedelta(hours=2), "red")])
    store.close()
    with Archive(tmp_path / "spool.db") as archive:
        (only,) = collect(archive, Span.of_month(2026, 11, ZONE), {}).alarms.values()
    assert (only.handled_ns, only.in_time, only.worst) == (None, False, "red")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_return_says_it_on_screen_on_paper_and_to_machines(
    site: Path, language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--config", str(site), "report", "--month", "2026-11", "--language", language]
    assert main(asked) == 0
    text = capsys.readouterr().out
    for figure in ("50.0%", "9.3%", "no-reply 32", "yellow=84.8", "yellow=85.1", "王工", "memory-full"):
        assert figure in text, text
    to = site.parent / "november.html"
    assert main([*asked, "--to", str(to)]) == 0
    html = to.read_text()
    assert "50.0%" in html
    assert "<script" not in html
    assert not re.findall(r'(?:src|href)="', html)
    capsys.readouterr()
    assert main(["--json", *asked]) == 0
    assert any("rows" in part for part in json.loads(capsys.readouterr().out)["parts"])


def test_what_cannot_be_reported_is_one_sentence(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code, said in (
        (["--month", "2026-13"], 2, "is no month"),
        (["--month", "2020-01"], 1, "nothing of that month"),
        (["--season", "autumn"], 2, "is no date"),
        (["--to", "report.pdf"], 2, ".html or .txt"),
    ):
        assert main(["--config", str(site), "report", *words]) == code
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_the_check_before_the_season_finds_what_is_not_ready(site: Path) -> None:
    text = site.read_text()
    with Archive(site.parent / "spool.db") as archive:
        month = collect(archive, Span.of_month(2026, 11, ZONE), {"n.pond.level": 600.0})
    loaded = Site.load(site)
    found = {
        point.en: point.open for point in season.check(loaded, month, date(2026, 11, 30), date(2026, 9, 30))
    }
    assert found["every limit has its source and approver"]  # the demo names no approver
    assert found["every channel is complete"] == ("n.pond.level 9%",)
    assert found["surveys and calibrations are not too old"] == ("n.beach.length: -",)
    assert found["somebody is on duty"] == ("[[duty]]",)
    assert found["every pond has an output that sounds"] == ()
    assert len(found["no alarm is left unhandled"]) == 1
    site.write_text(text.replace('mode = "simulated"', 'mode = "simulated"\nshadow = true'))
    shadow = season.check(Site.load(site), month, date(2026, 11, 30), date(2026, 9, 30))
    assert next(p.open for p in shadow if "sounds" in p.en) == ("[site] shadow",)
    limit = '\nlimit = [{ kind = "flood-season", from = "2026-06-01", until = "2026-08-31", levels = { rising = true, red = 87.5, source = "plan" } }]\n'
    dated = text.replace('kind = "wet"\ngrade = 5', f'kind = "wet"\ngrade = 5{limit}')
    levels = re.search(r"offset = 75\.0 }\n(levels = .*\n)", dated)
    assert levels is not None
    site.write_text(dated.replace(levels[1], ""))
    for until, short in ((date(2026, 9, 30), True), (date(2026, 8, 31), False)):
        points = season.check(Site.load(site), month, date(2026, 7, 1), until)
        assert bool(points[0].open) is short


def test_the_check_leaves_room_for_what_only_a_person_can_see(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(site), "report", "--season", "2026-09-30", "--language", "en"]) == 1
    text = capsys.readouterr().out
    for _, en in season.BY_HAND:
        assert en in text
