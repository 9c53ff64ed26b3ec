"""Run the rules process until SIGTERM or SIGINT: it asks the core for readings and answers with verdicts."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from daemon import journal
from daemon.commands.surface import load_site
from edge_rules.advice import worker

if TYPE_CHECKING:
    import argparse


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
    worker.main(options.run_dir / "rules.sock", state, cache)
    return 0


def _folder(variable: str) -> Path | None:
    """The first of the folders systemd.exec(5) names in a variable."""
    first = os.environ.get(variable, "").partition(":")[0]
    return Path(first) if first else None
