"""What the documents for operators, technicians and engineers tell people to type can be typed."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from daemon.commands import VERBS

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


class Wrong(Exception):
    pass


class Parser(argparse.ArgumentParser):
    """Says what is wrong instead of ending the process."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise Wrong(message)


def commands(page: str) -> list[str]:
    """Every `pondwatch ...` of a page: typed in a console, or in backticks."""
    typed = re.findall(r"^\$ (pondwatch [^|\n]+)", page, re.MULTILINE)
    return typed + re.findall(r"`(pondwatch [^`\n]+)`", page)


def understood(command: str) -> None:
    """Parse it as the program would.

    Raises:
        Wrong: it would be refused.
    """
    words = shlex.split(command)[1:]
    front = Parser(add_help=False)
    front.add_argument("--config")
    front.add_argument("--json", action="store_true")
    front.add_argument("verb", choices=VERBS)
    front.add_argument("rest", nargs=argparse.REMAINDER)
    given = front.parse_args(words)
    parser = Parser()
    import_module(f"daemon.commands.{given.verb}").options(parser)
    if len(given.rest) > 1:
        parser.parse_args(given.rest)
    elif given.rest:  # `spool verify`, or only the name of what takes more: `manual reading`
        try:
            parser.parse_args(given.rest)
        except Wrong as wrong:
            if "are required" not in str(wrong):
                raise


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_one_that_the_program_takes(page: Path) -> None:
    for command in commands(page.read_text()):
        if "..." in command or "VERB" in command:
            continue
        try:
            understood(command)
        except Wrong as wrong:
            pytest.fail(f"{command}: {wrong}")


@pytest.mark.parametrize("bad", ["pondwatch fly", "pondwatch spool burn", "pondwatch alarms ack ID"])
def test_a_command_that_is_not_there_would_be_found(bad: str) -> None:
    with pytest.raises(Wrong):
        understood(bad)
