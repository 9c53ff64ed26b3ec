"""The status page as a server: GET only, three paths, no cookie, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from daemon.http import Answer, Server
from daemon.page import history
from daemon.page.core import Core
from daemon.page.view import View
from daemon.page.words import Language, Say
from daemon.reading import parse_rfc3339

if TYPE_CHECKING:
    from daemon.config import Site
    from daemon.http import Request

HISTORY_EVERY_S: Final = 20.0
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_FOLDER: Final = Path(__file__).parent


class Page:
    """Serves the page of `site` until cancelled.

    Args:
        control: the core's control socket; the core may come and go.
    """

    def __init__(self, site: Site, control: Path) -> None:
        self._site = site
        self._core = Core(control)
        self._history = history.of_site(site)
        self._history_at_s = float("-inf")
        self._reading = asyncio.Lock()
        host, _, port = site.page.listen.rpartition(":")
        known = {host, "localhost", "127.0.0.1", "[::1]"}
        self._hosts = {f"{name}:{port}" for name in known} | set(site.page.names)
        self._files = {
            "/page.css": ((_FOLDER / "page.css").read_bytes(), "text/css; charset=utf-8"),
            "/icon.svg": ((_FOLDER / "icon.svg").read_bytes(), "image/svg+xml"),
        }
        self._server = Server(site.page.listen, self._answer, makes_room=True)

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            OSError: the port is taken.
        """
        await self._server.run()

    async def _answer(self, request: Request) -> Answer:
        host = request.headers.get("host", "")
        if host not in self._hosts and host.rpartition(":")[0] not in self._site.page.names:
            # a name of somebody else's that resolves to here: another page in this browser wants to read us
            words = "this name is not one of the page's: add it to names under [page] in the site file\n"
            return Answer("403 Forbidden", words, headers=_HEADERS)
        if request.path in self._files:
            return Answer("200 OK", *self._files[request.path], headers=_HEADERS)
        if request.path != "/":
            return Answer("404 Not Found", "there is only /\n", headers=_HEADERS)
        html = await self._html(self._language(request.query))
        return Answer("200 OK", html, "text/html; charset=utf-8", _HEADERS)

    def _language(self, query: str) -> Language:
        wanted = parse_qs(query, max_num_fields=None).get("lang", [""])[0]
        return "en" if wanted == "en" else "zh" if wanted == "zh" else self._site.page.language

    async def _html(self, language: Language) -> str:
        seen = await self._core.look()
        now_ns = parse_rfc3339(seen.present.time) if seen.present else time.time_ns()
        async with self._reading:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._history_at_s >= HISTORY_EVERY_S:
                await asyncio.to_thread(self._history.look, now_ns)
                self._history_at_s = now_s
        return View(self._site, seen, self._history, now_ns, Say(language)).html()
