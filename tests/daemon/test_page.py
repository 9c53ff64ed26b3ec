"""The status page: what it draws, and that nobody gets more out of it than that."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from daemon.archive import Archive
from daemon.config import Site
from daemon.http import CONNECTIONS, DEADLINE_S, REQUEST_BYTES, parsed
from daemon.page.history import DAY_NS, HOUR_NS, STEP_NS, History
from daemon.page.server import Page
from daemon.page.svg import Axis, Tube, Water, against_limits, cross_section, dial, nice_steps, rain_bars
from daemon.page.tables import margin
from daemon.page.words import WORDS, Say
from daemon.present import ChannelNow
from daemon.store import Draft, Store
from hardware_sim.ports import free_port
from tests.system.running import ROOT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SAY = Say("en")
LIMITS = {"blue": 83.1, "yellow": 83.7, "orange": 85.0, "red": 86.0}


# -- what is drawn -----------------------------------------------------------------------------------


def figures(drawing: str, css: str) -> list[dict[str, str]]:
    """The attributes of every element of that class."""
    found = re.findall(rf'<\w+ [^>]*class="{css}"[^>]*>', drawing)
    return [dict(re.findall(r'(\w+)="([^"]*)"', each)) for each in found]


def tube(name: str, head_m: float | None, along_m: float | None = None) -> Tube:
    return Tube(name, 70.0, head_m, "none", LIMITS, along_m)


def test_the_phreatic_line_goes_through_the_heads_and_breaks_where_one_is_missing() -> None:
    tubes = [tube("A", 80.0), tube("B", 78.0), tube("C", None), tube("D", 75.0), tube("E", 74.0)]
    drawing = cross_section(tubes, None, (), SAY, "2-2")
    lines = figures(drawing, "phreatic")
    heads = {float(each["cy"]) for each in figures(drawing, "head none")}
    assert len(lines) == 2
    assert len(heads) == 4
    assert {float(each[y]) for each in lines for y in ("y1", "y2")} == heads
    assert len(figures(drawing, "figure bad")) == 1


def test_a_higher_head_is_drawn_higher_and_limits_stand_at_their_heights() -> None:
    drawing = cross_section([tube("A", 83.7), tube("B", 70.0)], None, (), SAY, "2-2")
    heads = [float(each["cy"]) for each in figures(drawing, "head none")]
    assert heads[0] < heads[1]
    (first, _) = figures(drawing, "limit here yellow")
    assert float(first["y1"]) == heads[0]


def test_points_stand_where_the_site_file_puts_them_and_evenly_where_it_does_not() -> None:
    placed = cross_section(
        [tube("B", 75.0, 30.0), tube("A", 80.0, 0.0), tube("C", 74.0, 40.0)], None, (), SAY, ""
    )
    even = cross_section([tube("A", 80.0), tube("B", 75.0), tube("C", 74.0, 40.0)], None, (), SAY, "")
    xs = [float(each["cx"]) for each in figures(placed, "head none")]
    assert xs[1] - xs[0] == pytest.approx(3 * (xs[2] - xs[1]), abs=0.3)
    xs = [float(each["cx"]) for each in figures(even, "head none")]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


def test_a_pond_whose_level_is_missing_has_no_water() -> None:
    for level_m, shown in ((82.0, 1), (None, 0)):
        drawing = cross_section([tube("A", 80.0)], Water(level_m, "none", LIMITS), (), SAY, "")
        assert len(figures(drawing, "water")) == shown


def test_a_vector_points_where_the_point_went() -> None:
    drawing = dial(30.0, 40.0, {"red": 100.0}, 90.0, SAY, "GN01")
    (shaft,) = figures(drawing, "arrow")
    assert float(shaft["x2"]) > float(shaft["x1"])
    assert float(shaft["y2"]) < float(shaft["y1"])
    (ring,) = figures(drawing, "ring red")
    tip = [float(each) for each in re.findall(r'd="M([\d.]+) ([\d.]+)', drawing)[0]]
    moved = ((tip[0] - 130) ** 2 + (tip[1] - 130) ** 2) ** 0.5
    assert moved == pytest.approx(0.5 * float(ring["r"]), abs=0.2)  # 50 mm of 100
    assert "?" in dial(30.0, None, {"red": 100.0}, None, SAY, "GN01")


def test_an_hour_without_data_is_no_dry_hour() -> None:
    hours = [(n * HOUR_NS, str(n)) for n in range(3)]
    drawing = rain_bars({0: 4.0, HOUR_NS: 0.0}, hours, SAY, "rain")
    assert len(figures(drawing, "bar")) == 2
    assert drawing.count("·") == 1


def test_a_trend_is_broken_where_a_reading_is_missing_or_bad() -> None:
    hours = [(n * HOUR_NS, "") for n in range(3)]
    points: dict[int, float | None] = {n * STEP_NS: 80.0 for n in (0, 1, 2, 6, 7)}
    points[8 * STEP_NS] = None
    drawing = against_limits(points, LIMITS, hours, STEP_NS, SAY, "level")
    assert len(figures(drawing, "phreatic")) == 3


@pytest.mark.parametrize(("low", "high"), [(65.2, 88.9), (0.0, 1.0), (-3.0, 400.0), (84.0, 84.0)])
def test_steps_are_round_and_within(low: float, high: float) -> None:
    steps = nice_steps(low, high)
    assert all(low - 1e-9 <= step <= high + 1e-9 for step in steps)
    assert len(steps) <= 8
    assert Axis(low, high, 10, 20)(low) == 10


@pytest.mark.parametrize(
    ("value", "rising", "limits", "says"),
    [
        (82.7, True, LIMITS, "blue 0.40 m"),
        (84.0, True, LIMITS, "orange 1.00 m"),
        (86.5, True, LIMITS, ""),
        (160.0, False, {"blue": 180.0, "yellow": 150.0}, "yellow 10.00 m"),
        (None, True, LIMITS, ""),
    ],
)
def test_the_margin_is_to_the_nearest_limit_not_yet_passed(
    value: float | None, rising: bool, limits: dict[str, float], says: str
) -> None:
    assert margin(ChannelNow("c", value, "good", "", "none", limits, rising), "m", 2, SAY) == says


def test_every_word_is_said_in_both_languages() -> None:
    for word, (zh, en) in WORDS.items():
        assert re.search(r"[\u4e00-\u9fff]", zh) or word == "other", word
        assert en.strip(), word


# -- the last day ------------------------------------------------------------------------------------

BEGAN = datetime(2026, 11, 20, 3, 30, tzinfo=UTC)


def stored(folder: Path, minutes: int, batches: int) -> Path:
    """A store with a reading of rain and level in each of `batches`, `minutes` apart."""
    drafts = []
    for n in range(batches):
        at = BEGAN + timedelta(minutes=minutes * n)
        time = f"{at:%Y-%m-%dT%H:%M:%S}.000Z"
        rows = [
            {"channel": "n.rain", "time": time, "value": 0.5, "unit": "mm", "quality": "good", "raw": {}},
            {
                "channel": "n.level",
                "time": time,
                "value": 80 + n / 100,
                "unit": "m",
                "quality": "good",
                "raw": {},
            },
        ]
        ns = int(at.timestamp()) * 10**9
        drafts.append(Draft("readings", b'"readings":' + json.dumps(rows).encode(), ns, ns, 2))
    store = Store.open(folder, "test", "boot-1")
    store.commit(drafts)
    store.close()
    return folder / "spool.db"


def test_rain_is_summed_by_hour_and_only_the_last_day_is_kept(tmp_path: Path) -> None:
    path = stored(tmp_path, 10, 6 * 40)
    now_ns = int((BEGAN + timedelta(minutes=10 * (6 * 40 - 1))).timestamp()) * 10**9
    history = History(path, ["n.rain"], ["n.level"])
    history.look(now_ns)
    whole = [
        sums for hour, sums in history.rain_mm["n.rain"].items() if now_ns - DAY_NS < hour < now_ns - HOUR_NS
    ]
    assert whole == [3.0] * 23
    assert min(history.lines["n.level"]) >= now_ns - DAY_NS
    assert history.lines["n.level"][max(history.lines["n.level"])] == pytest.approx(82.39)
    before = dict(history.rain_mm["n.rain"])
    history.look(now_ns)
    assert history.rain_mm["n.rain"] == before  # nothing is counted twice


def test_where_a_day_begins_is_found_as_by_reading_everything(tmp_path: Path) -> None:
    path = stored(tmp_path, 7, 300)
    with Archive(path) as archive:
        times = [(batch.seq, batch.time_ns) for batch in archive.batches()]
        for asked_ns in (0, times[0][1], times[17][1] + 1, times[150][1], times[-1][1], times[-1][1] + 1):
            expected = max((seq for seq, time_ns in times if time_ns < asked_ns), default=0)
            assert archive.before(asked_ns) == expected


# -- who asks ----------------------------------------------------------------------------------------


def site_file(folder: Path, port: int, *changes: tuple[str, str]) -> Path:
    text = (ROOT / "config/demo.toml").read_text()
    page = f'[page]\nlisten = "127.0.0.1:{port}"\nnames = ["pond.example"]\n\n[rules]'
    for old, new in (("[rules]", page), ("build/run/store", str(folder)), *changes):
        assert old in text
        text = text.replace(old, new)
    path = folder / "site.toml"
    path.write_text(text)
    return path


@contextlib.asynccontextmanager
async def served(folder: Path, *changes: tuple[str, str]) -> AsyncIterator[int]:
    port = free_port()
    page = Page(Site.load(site_file(folder, port, *changes)), folder / "control.sock")
    serving = asyncio.create_task(page.run())
    try:
        await until(lambda: asked(port, b"GET / HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % port), "it answers")
        yield port
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def asked(port: int, request: bytes) -> str:
    """All that is answered before the connection ends; empty where it just ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(DEADLINE_S + 5):
            return (await reader.read()).decode()
    except ConnectionError:
        return ""
    finally:
        writer.close()


def request(port: int, path: str = "/", method: str = "GET", host: str = "", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host or f'127.0.0.1:{port}'}\r\n{more}\r\n".encode()


async def test_only_the_page_its_style_and_its_icon_can_be_had(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("do not show")
    async with served(tmp_path) as port:
        for path in ("/", "/?lang=en", "/page.css", "/icon.svg"):
            assert (await asked(port, request(port, path))).startswith("HTTP/1.1 200 OK\r\n"), path
        for path in (
            "/../../etc/passwd",
            "/page.css/../../secret",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/page.css%00.html",
            "//etc/passwd",
            "/server.py",
            "/..\\..\\secret",
            "/metrics",
            "/" + "a" * 3000,
        ):
            answer = await asked(port, request(port, path))
            assert answer.startswith("HTTP/1.1 404 "), path
            assert "root:" not in answer
            assert "do not show" not in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get"])
async def test_nothing_but_get_is_done(tmp_path: Path, method: str) -> None:
    async with served(tmp_path) as port:
        answer = await asked(port, request(port, method=method))
        assert answer.startswith("HTTP/1.1 405 ")
        assert "Allow: GET, HEAD" in answer


async def test_head_has_the_length_and_no_body(tmp_path: Path) -> None:
    async with served(tmp_path) as port:
        head, _, body = (await asked(port, request(port, "/page.css", "HEAD"))).partition("\r\n\r\n")
        assert body == ""
        assert int(re.findall(r"Content-Length: (\d+)", head)[0]) > 1000


@pytest.mark.parametrize(
    "bad",
    [
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\n\r\n",
        b"\x00\xff\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_told_so(tmp_path: Path, bad: bytes) -> None:
    assert parsed(bad) is None
    async with served(tmp_path) as port:
        assert (await asked(port, bad)).startswith("HTTP/1.1 400 ")


async def test_a_head_that_is_too_long_ends_the_connection(tmp_path: Path) -> None:
    async with served(tmp_path) as port:
        long = "X-Long: " + "a" * (REQUEST_BYTES * 20) + "\r\n"
        assert await asked(port, request(port, more=long)) == ""
        assert (await asked(port, request(port))).startswith("HTTP/1.1 200 ")


async def test_a_name_that_is_not_the_pages_is_refused_so_no_other_site_can_read_it(tmp_path: Path) -> None:
    async with served(tmp_path) as port:
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "127.0.0.1:1"):
            answer = await asked(port, request(port, host=host))
            assert answer.startswith("HTTP/1.1 403 "), host
            assert "演示" not in answer
        for host in ("pond.example", f"localhost:{port}", f"pond.example:{port}"):
            assert (await asked(port, request(port, host=host))).startswith("HTTP/1.1 200 "), host


async def test_every_answer_is_strict_and_sets_no_cookie(tmp_path: Path) -> None:
    async with served(tmp_path) as port:
        for path in ("/", "/page.css", "/icon.svg", "/nothing"):
            head = (await asked(port, request(port, path))).partition("\r\n\r\n")[0]
            policy = re.findall(r"Content-Security-Policy: (.*)\r", head)[0]
            assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self'")
            assert "script" not in policy
            assert "unsafe" not in policy
            assert "X-Content-Type-Options: nosniff" in head
            assert "Cache-Control: no-store" in head
            assert "Set-Cookie" not in head
            assert "Access-Control" not in head


@pytest.mark.parametrize("first", ["TRACE / HTTP/1.1", "GET <script> HTTP/1.1", "GET /<script> HTTP/1.1"])
async def test_what_is_refused_is_as_strict_and_repeats_nothing_that_was_sent(
    tmp_path: Path, first: str
) -> None:
    async with served(tmp_path) as port:
        sent = f"{first}\r\nHost: 127.0.0.1:{port}\r\nCookie: secret\r\n\r\n".encode()
        answer = await asked(port, sent)
    assert re.match(r"HTTP/1\.1 40[045] ", answer)
    assert "default-src 'none'" in answer
    assert "frame-ancestors 'none'" in answer
    assert "X-Content-Type-Options: nosniff" in answer
    assert "script>" not in answer
    assert "secret" not in answer


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "link", "br", "line", "circle", "rect", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "circle", "rect", "path"):
            assert self.open.pop() == tag


async def test_names_of_the_site_file_are_text_and_never_markup(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>'\\\"&"
    changes = (("演示尾矿库", hostile), ("北库", hostile), ("2-2断面", hostile))
    async with served(tmp_path, *changes) as port:
        html = (await asked(port, request(port, "/?lang=en&x=<script>"))).partition("\r\n\r\n")[2]
    seen = Tags(html)
    assert not seen.open
    assert seen.tags.isdisjoint({"script", "img", "iframe", "form", "style", "object"})
    assert not [each for each in seen.attributes if each.startswith("on") or each == "style"]
    assert html.count("&lt;script&gt;") >= 3


async def test_without_a_core_the_page_says_so_and_shows_no_value(tmp_path: Path) -> None:
    async with served(tmp_path) as port:
        html = (await asked(port, request(port, "/?lang=en"))).partition("\r\n\r\n")[2]
    assert "The core does not answer" in html
    assert not re.findall(r'class="figure (?:none|blue|yellow|orange|red)"', html)
    assert "no reading yet" in html
    assert 'class="chip none' not in html


async def test_who_is_slow_gives_its_place_to_who_comes_and_is_dropped_at_the_deadline(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as port:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        slow = [asyncio.create_task(asked(port, b"GET / HT")) for _ in range(CONNECTIONS * 3)]
        await asyncio.sleep(0.3)
        assert (await asked(port, request(port))).startswith("HTTP/1.1 200 ")
        assert await asyncio.gather(*slow) == [""] * len(slow)
        assert loop.time() - began_s < DEADLINE_S + 4
