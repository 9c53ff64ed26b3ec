"""A headless Chromium, driven over its DevTools protocol (chromedevtools.github.io/devtools-protocol)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
STEP_S = 0.05


class Tab:
    """One page: `do` sends a command of the protocol, `js` evaluates an expression."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self.complaints: list[str] = []  # what the browser's console and its policy had to say

    async def do(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        async with asyncio.timeout(20):
            while True:
                said = await self._socket.receive_json()
                self._overhear(said)
                if said.get("id") == self._number:
                    assert "error" not in said, said
                    result: dict[str, Any] = said["result"]
                    return result

    def _overhear(self, said: dict[str, Any]) -> None:
        if said.get("method") == "Log.entryAdded":
            self.complaints.append(said["params"]["entry"]["text"])
        if said.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(said["params"]["exceptionDetails"]))

    async def js(self, expression: str) -> Any:
        said = await self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def go(self, address: str) -> None:
        await self.do("Page.navigate", url=address)

    async def until(self, expression: str, within_s: float = 45.0) -> Any:
        """The expression's value as soon as it is true."""
        deadline_s = asyncio.get_running_loop().time() + within_s
        while not (value := await self.js(expression)):
            if asyncio.get_running_loop().time() > deadline_s:
                text = await self.js("document.body.innerText")
                pytest.fail(f"not true within {within_s:g} s: {expression}\n{text}\n{self.complaints}")
            await asyncio.sleep(STEP_S)
        return value

    async def click(self, selector: str) -> None:
        """A real click in the middle of the element, brought into view first."""
        found = f"document.querySelector({json.dumps(selector)})"
        await self.until(f"!!{found}")
        await self.js(f"{found}.scrollIntoView({{block: 'center'}})")
        x, y = await self.js(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({found}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def size(self, width: int, height: int, *, phone: bool = False) -> None:
        await self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    async def scheme(self, scheme: str) -> None:
        """`light` or `dark`, as the system would prefer it."""
        wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.do("Emulation.setEmulatedMedia", features=wanted)

    async def picture(self) -> bytes:
        """What is in view, as PNG."""
        said = await self.do("Page.captureScreenshot", format="png", optimizeForSpeed=False)
        return base64.b64decode(said["data"])


@contextlib.asynccontextmanager
async def tab() -> AsyncIterator[Tab]:
    """A browser with one empty page, ended with the block; skips the test where there is no Chromium."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium fonts-noto-cjk")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = await asyncio.create_subprocess_exec(
            *(program, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    pages = [page for page in await answer.json() if page["type"] == "page"]
                address = pages[0]["webSocketDebuggerUrl"]
                async with session.ws_connect(address, max_msg_size=2**26) as socket:
                    opened = Tab(socket)
                    for domain in ("Page", "Runtime", "Log"):
                        await opened.do(f"{domain}.enable")
                    yield opened
        finally:
            browser.terminate()
            await browser.wait()


async def _port(file: Path) -> int:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(FileNotFoundError, IndexError, ValueError):
                return int(file.read_text().splitlines()[0])
            await asyncio.sleep(STEP_S)
