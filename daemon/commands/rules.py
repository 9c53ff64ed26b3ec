"""Run the rules process until SIGTERM or SIGINT: it asks the core for readings and answers with verdicts."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from daemon import journal
from daemon.commands.surface import load_site
from daemon.notify import Notifier
from edge_rules.advice import worker

if TYPE_CHECKING:
    import argparse

COMPILE_S = 600.0  # eight seconds on a PC; a small gateway with much else to do takes minutes, once
_FEED_S = 1.0


def options(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    """As a unit systemd names the folders; as a child of the core they lie in the store's."""
    to = journal.handler(sys.stderr, os.environ.get("JOURNAL_STREAM", ""))
    logging.basicConfig(level=logging.INFO, handlers=[to])
    state = _folder("STATE_DIRECTORY") or load_site(options).store_folder / "rules"
    cache = _folder("CACHE_DIRECTORY") or state / "kernels"
    for folder in (state, cache):
        folder.mkdir(parents=True, exist_ok=True)
    worker.main(options.run_dir / "rules.sock", state, cache, Watchdog(Notifier.from_environment()))
    return 0


class Watchdog:
    """Fed by progress, at most each second; compiling is one step, and nothing is heard from it meanwhile."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._compiling = notifier.watchdog_s is not None and notifier.patience(COMPILE_S)
        self._fed_s = -_FEED_S

    def __call__(self) -> None:
        now_s = time.monotonic()
        if self._notifier.watchdog_s is None or now_s - self._fed_s < _FEED_S:
            return
        if self._compiling:
            self._compiling = not self._notifier.patience(self._notifier.watchdog_s)
        self._notifier.watchdog()
        self._fed_s = now_s


def _folder(variable: str) -> Path | None:
    """The first of the folders systemd.exec(5) names in a variable."""
    first = os.environ.get(variable, "").partition(":")[0]
    return Path(first) if first else None
