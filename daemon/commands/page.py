"""The status page: how pond, instruments and delivery are, for whoever opens it in a browser. Read only."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

from daemon.commands.surface import control_socket, load_site
from daemon.page.server import Page

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from daemon.config import Site


def options(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve(load_site(options), control_socket(options)))
    return 0


async def _serve(site: Site, control: Path) -> None:
    serving = asyncio.create_task(Page(site, control).run(), name="page")
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    print(f"the page stands at http://{site.page.listen}/", flush=True)
    await serving
