"""The simulator alone: instruments on pseudo-terminals and TCP, a receiving platform, a page to look at."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import argparse


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--speed", metavar="N", help="bench seconds per real second")
    parser.add_argument(
        "--page", nargs="?", const="", metavar="PORT", help="serve the technician's page on 127.0.0.1"
    )
    parser.add_argument(
        "rest", nargs="...", metavar="[SCENARIO] ...", help="as python -m hardware_sim takes them"
    )


def run(options: argparse.Namespace) -> NoReturn:
    """Becomes the simulator: bench and daemon share no process."""
    command = [sys.executable, "-m", "hardware_sim", *(options.rest or ["calm"])]
    if options.speed is not None:
        command += ["--speed", options.speed]
    if options.page is not None:
        command += ["--page", *([options.page] if options.page else [])]
    os.execv(sys.executable, command)  # noqa: S606 -- our own program
