"""`pondwatch VERB`: one module per verb, loaded when it is asked for."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import daemon
import drivers
import edge_rules
from daemon.commands.surface import CommandError
from daemon.requests import NotAnswered

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = {
    "run": "the core: poll, judge, keep, forward",
    "rules": "the rules process: detectors beside the core",
    "page": "the status page: read only, for a browser",
    "init": "a new gateway: lines searched, a commented site file written, keys made",
    "check": "read the site file, say everything that is wrong with it",
    "apply": "take a new site file into the running core, in somebody's name",
    "read": "measure channels now: raw words, word orders, value, round-trip time",
    "tail": "readings as they come",
    "scan": "search a line for units, reading only",
    "trace": "bytes on a line as they pass; record them; golden frames out of a recording",
    "replay": "a recording through the same code: its readings, simulated",
    "alarms": "the alarm book: list, show, ack, assign, handle, close, hand-over",
    "baseline": "a GNSS point's baseline: show it, tie a new base station by a survey",
    "manual": "readings by hand and patrols: fill-in, comparison",
    "maintain": "a device or line under maintenance, for a while",
    "drill": "a rehearsal, marked test in every payload",
    "mute": "sound off, for a while",
    "spool": "the local archive: status, verify, export, salvage, resend",
    "backup": "this gateway in one file, while it runs",
    "restore": "a gateway out of a backup",
    "doctor": "a support bundle without secrets",
    "backtest": "levels and detectors over history: alarms per year, delay, a picture",
    "report": "the monthly return; the check before the flood season",
    "bench": "the simulator alone",
}
_ABOUT = """Edge data acquisition for tailings ponds: polls, judges, keeps and forwards.

Exit codes: 0 well, 1 what was asked about is not well, 2 wrong usage, 3 the surroundings (port busy, no
permission, no such file). An error is one sentence on stderr."""
_CONFIG = "/etc/pondwatch/site.toml"
_RUN = "/run/pondwatch"
_SURROUNDINGS = 3


class _Parser(argparse.ArgumentParser):
    """Wrong usage is one sentence and exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; `arguments` without the program's name."""
    front = _Parser("pondwatch", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    front.epilog = "verbs:\n" + "\n".join(f"  {verb:9}{what}" for verb, what in VERBS.items())
    _common(front, config=Path(os.environ.get("PONDWATCH_CONFIG") or _CONFIG), json=False)
    front.add_argument("verb", choices=VERBS, metavar="VERB")
    front.add_argument("rest", nargs=argparse.REMAINDER, metavar="...")
    given = front.parse_args(arguments)
    if given.verb == "run":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the core listens; unheard it would be the end
    module = import_module(f"daemon.commands.{given.verb}")
    parser = _Parser(f"pondwatch {given.verb}", description=module.__doc__)
    _common(parser, config=given.config, json=given.json)
    module.options(parser)
    options = parser.parse_args(given.rest)
    options.run_dir = Path(os.environ.get("PONDWATCH_RUN") or _RUN)
    return _exit_code(given.verb, options, module.run)


def _common(parser: argparse.ArgumentParser, config: Path, json: bool) -> None:  # noqa: FBT001 -- a default
    parser.add_argument("--config", type=Path, default=config, metavar="FILE", help="site file (%(default)s)")
    parser.add_argument("--json", action="store_true", default=json, help="for machines")


def _exit_code(verb: str, options: argparse.Namespace, run: object) -> int:
    """Do the verb; turn what can go wrong into a sentence and its exit code."""
    assert callable(run)
    try:
        _assert_ours()
        code = run(options)
        sys.stdout.flush()
    except (CommandError, NotAnswered) as error:
        print(f"pondwatch {verb}: {error}", file=sys.stderr)
        return error.exit
    except BrokenPipeError:  # whoever read us has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"pondwatch {verb}: {name}{error.strerror or error}", file=sys.stderr)
        return _SURROUNDINGS
    except KeyboardInterrupt:
        return 0
    else:
        return int(code)


def _assert_ours() -> None:
    """`daemon` is the name of other people's packages too; ours all lie in one folder.

    Raises:
        CommandError: they do not.
    """
    places = {str(Path(package.__path__[0]).parent) for package in (daemon, drivers, edge_rules)}
    if len(places) != 1:
        raise CommandError(
            f"daemon, drivers and edge_rules come from {' and '.join(sorted(places))}: Pondwatch needs an "
            "environment of its own",
            _SURROUNDINGS,
        )
