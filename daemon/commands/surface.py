"""What the verbs share: their errors, the site file, the sockets, a table, JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unicodedata import east_asian_width

import msgspec

from daemon.config import Site, SiteFileError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path


class CommandError(Exception):
    """What went wrong, as one sentence; `exit` is the exit code: 1 not well, 2 usage, 3 surroundings."""

    def __init__(self, message: str, exit: int) -> None:  # noqa: A002 -- that is what it is
        super().__init__(message)
        self.exit = exit


def load_site(options: argparse.Namespace) -> Site:
    """The site file of the command line.

    Raises:
        CommandError: it is not well, with the first problem, or cannot be read.
    """
    try:
        return Site.load(options.config)
    except SiteFileError as error:
        first, *more = error.problems
        also = f" (and {len(more)} more: pondwatch check lists them)" if more else ""
        raise CommandError(f"{options.config}: {first}{also}", 1) from None
    except OSError as error:
        raise unreadable(options.config, error) from None


def unreadable(path: Path, error: OSError) -> CommandError:
    """The site file cannot be read."""
    return CommandError(f"site file {path}: {error.strerror}; name yours with --config FILE", 3)


def control_socket(options: argparse.Namespace) -> Path:
    path: Path = options.run_dir / "control.sock"
    return path


def print_json(value: object) -> None:
    print(msgspec.json.encode(value).decode())


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Left-aligned columns, as wide as their widest cell; a Chinese character is two columns wide."""
    widths = [max(map(_width, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _width(text: str) -> int:
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)
