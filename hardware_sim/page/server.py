"""The technician's page: the truth from the bench itself, the daemon's view as anybody can ask for it.

    async with Page(bench, Path("build/run/control.sock"), port=8642) as page:
        page.address               # "http://127.0.0.1:8642/"

Loopback only, and only for pages it served itself: the Host must be the loopback's, and what changes anything
must come from its own origin. Bounded: MOST_CLIENTS live streams (further ones get 503), each of which is
sent the latest instant when it can take it and skips what it was too slow for; the last bytes of each line; a
history that grows coarser.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import msgspec
from aiohttp import web

from hardware_sim import site
from hardware_sim.faults import FaultUnknown
from hardware_sim.looks import LOOKS
from hardware_sim.page.believed import Believed, Refused
from hardware_sim.page.history import History
from hardware_sim.page.places import NAMES, PLACES, true_values
from hardware_sim.scenario import Scenario, ScenarioWrong, shipped

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from hardware_sim.bench import Bench

MOST_CLIENTS: Final = 8
_EVERY_S: Final = 0.4  # real, between two instants
_SEND_S: Final = 10.0  # a browser that takes nothing for so long is dropped
_MOST_CHUNKS: Final = 60  # per line; older ones fall out
_MOST_BYTES: Final = 96  # shown of a chunk
_LARGEST_REQUEST: Final = 4096
_HOUR_S: Final = 3600.0
_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/page.js": ("page.js", "text/javascript"),
    "/draw.js": ("draw.js", "text/javascript"),
    "/words.js": ("words.js", "text/javascript"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Chunk(msgspec.Struct, frozen=True):
    """Bytes that passed on a line, `in` from a client, `out` to it; `hex` may be cut, `size` not."""

    number: int
    line: str
    t: float
    dir: Literal["in", "out"]
    hex: str
    size: int


class _Break(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    target: str
    fault: str


class _Play(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    scenario: str


class _Acknowledge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    by: str


class Page:
    """Serves while entered.

    Args:
        bench: entered already.
        control: the daemon's control socket; it need not be there.
        port: 0 takes a free one.
    """

    def __init__(self, bench: Bench, control: Path, port: int) -> None:
        self._bench = bench
        self._port = port
        self._believed = Believed(control)
        self._history = History()
        self._rain_mm: deque[tuple[float, float]] = deque(maxlen=100_000)  # full: the hour begins later
        self._chunks: dict[str, deque[Chunk]] = {name: deque(maxlen=_MOST_CHUNKS) for name in bench.lines}
        self._passed = 0
        self._latest = b"{}"
        self._fresh = asyncio.Event()
        self._clients = 0
        self._ended = False
        self._stack = contextlib.AsyncExitStack()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        async with contextlib.AsyncExitStack() as stack:
            runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            listening = web.TCPSite(runner, "127.0.0.1", self._port)
            await listening.start()
            self._port = runner.addresses[0][1]
            stack.callback(self._end_streams)
            for name, line in self._bench.lines.items():
                line.tap = self._tap(name)
            for work, name in ((self._look(), "page"), (self._believed.run(), "page believed")):
                stack.push_async_callback(_end, asyncio.create_task(work, name=name))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _end_streams(self) -> None:
        self._ended = True
        self._fresh.set()

    # -- what is seen --------------------------------------------------------------------------------

    def _tap(self, line: str) -> Callable[[Literal["in", "out"], bytes], None]:
        def tap(direction: Literal["in", "out"], data: bytes) -> None:
            self._passed += 1
            now_s = self._bench.clock.now_s()
            shown = data[:_MOST_BYTES].hex(" ")
            self._chunks[line].append(Chunk(self._passed, line, now_s, direction, shown, len(data)))

        return tap

    async def _look(self) -> None:
        while True:
            instant = self._instant()
            self._history.offer(msgspec.json.encode(instant))
            self._latest = msgspec.json.encode(self._around(instant))
            self._fresh.set()
            self._fresh = asyncio.Event()
            await asyncio.sleep(_EVERY_S)

    def _instant(self) -> dict[str, Any]:
        """What the slider can go back to: each place's truth, and what is believed of it."""
        truth = self._bench.truth()
        self._rain_mm.append((truth.t_s, truth.rain_mm))
        while self._rain_mm[0][0] < truth.t_s - _HOUR_S:
            self._rain_mm.popleft()
        levels = {
            alarm["channel"]: alarm["level"] for alarm in self._believed.alarms if alarm["kind"] == "channel"
        }
        believed = {}
        for place in PLACES:
            reading = self._believed.readings.get(place.channel)
            if reading is not None:
                cause = self._believed.readings.get(place.measured, reading)
                quality = cause.quality if reading.value is None is cause.value else reading.quality
                level = levels.get(place.channel, "none")
                believed[place.id] = (reading.value, quality, level, reading.time)
        return {
            "t": self._bench.clock.now_s(),
            "rain": truth.rain_mm_per_h,
            "true": true_values(truth, truth.rain_mm - self._rain_mm[0][1]),
            "believed": believed,
            "siren": any(self._bench.relays.closed),
            "pond": max(self._believed.ponds.values(), key=_LEVELS.index, default="none"),
        }

    def _around(self, instant: dict[str, Any]) -> dict[str, Any]:
        """The instant with all that is shown of the present only."""
        wanted = ("id", "kind", "level", "condition", "response", "time", "reason", "by")
        return {
            "instant": instant,
            "scenario": self._bench.scenario.name,
            "since": self._bench.played_s,
            "faults": self._bench.faults,
            "daemon": self._believed.here,
            "uplinks": self._believed.uplinks,
            "platform": self._bench.platform.here,
            "alarms": [{key: alarm[key] for key in wanted} for alarm in self._believed.alarms],
        }

    def _facts(self) -> dict[str, Any]:
        """What does not change while the page is open."""
        bench = self._bench
        return {
            "rate": bench.clock.rate,
            "piezometers": site.PIEZOMETERS,
            "places": PLACES,
            "lines": bench.addresses,
            "scenarios": {name: (s.title_zh, s.title) for name in shipped() for s in (Scenario.load(name),)},
            "looks": LOOKS,
            "targets": {
                target: [offer for offer in LOOKS if offer.partition(" ")[0] in kinds]
                for target, kinds in bench.targets().items()
            },
            "names": NAMES,
        }

    # -- HTTP ----------------------------------------------------------------------------------------

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=_LARGEST_REQUEST)
        folder = Path(__file__).parent
        for path, (name, kind) in _FILES.items():
            app.router.add_get(path, _file((folder / name).read_text(), kind))
        app.router.add_get("/facts", self._get_facts)
        app.router.add_get("/history", self._get_history)
        app.router.add_get("/live", self._get_live)
        app.router.add_post("/fault", self._post(_Break, self._break))
        app.router.add_post("/scenario", self._post(_Play, self._play))
        app.router.add_post("/ack", self._post(_Acknowledge, self._acknowledge))
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """No other page in this browser, and no name that resolves to here, may look or touch."""
        hosts = {f"127.0.0.1:{self._port}", f"localhost:{self._port}"}
        origin = request.headers.get("Origin")
        if request.host not in hosts:
            raise web.HTTPForbidden(text="this page answers to 127.0.0.1 only", headers=_HEADERS)
        if origin not in {f"http://{host}" for host in hosts} and (request.method != "GET" or origin):
            raise web.HTTPForbidden(text="this page answers to itself only", headers=_HEADERS)
        response: web.StreamResponse = await handler(request)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    async def _get_facts(self, _request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._facts()), content_type="application/json")

    async def _get_history(self, _request: web.Request) -> web.Response:
        body = b"[" + b",".join(self._history.kept) + b"]"
        return web.Response(body=body, content_type="application/json")

    async def _get_live(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: `instant`, and `bytes` with what passed on the lines since the last."""
        if self._clients >= MOST_CLIENTS:
            raise web.HTTPServiceUnavailable(
                text=f"{MOST_CLIENTS} browsers look on already", headers=_HEADERS
            )
        response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
        self._clients += 1
        try:
            await response.prepare(request)
            seen = 0
            while not self._ended:
                fresh = self._fresh
                chunks = [c for line in self._chunks.values() for c in line if c.number > seen]
                seen = max((c.number for c in chunks), default=seen)
                async with asyncio.timeout(_SEND_S):
                    await response.write(_event("instant", self._latest))
                    await response.write(_event("bytes", msgspec.json.encode(chunks)))
                await fresh.wait()
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._clients -= 1
        return response

    def _post(self, kind: type[msgspec.Struct], do: Any) -> Any:
        async def post(request: web.Request) -> web.Response:
            try:
                await do(msgspec.json.decode(await request.read(), type=kind))
            except (msgspec.MsgspecError, FaultUnknown, ScenarioWrong, Refused) as error:
                return web.Response(status=400, text=str(error))
            return web.Response(status=204)

        return post

    async def _break(self, wanted: _Break) -> None:
        self._bench.set_fault(wanted.target, wanted.fault)

    async def _play(self, wanted: _Play) -> None:
        if wanted.scenario not in shipped():
            raise ScenarioWrong(f"no scenario {wanted.scenario!r}; there are {', '.join(shipped())}")
        self._bench.play(Scenario.load(wanted.scenario))

    async def _acknowledge(self, wanted: _Acknowledge) -> None:
        await self._believed.acknowledge(wanted.id, wanted.by)


_LEVELS: Final = ("none", "blue", "yellow", "orange", "red")


def _file(text: str, kind: str) -> Any:
    async def get(_request: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind)

    return get


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
