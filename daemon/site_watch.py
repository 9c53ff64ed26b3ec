"""The site file beside the one in use: a bad one stops nothing, a good one is taken by a new start in place.

At each good start a copy of the site file is kept (`last-good.toml`). When the file is bad at a start, that
copy is used and said so, by an alarm that ends with the file's mistakes. SIGHUP looks at the file again: with
mistakes nothing changes; without, the core ends as ever, without waiting for its uplinks, and the same
process begins again with the new file. Any number of SIGHUPs while that is looked at are one.

`pondwatch apply` asks for the same over the control socket, with a name: the order is kept in the store, so
that the start with the new file can say in its record of the change who brought it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Never

from daemon import reasons
from daemon.alarms import Observation, Subject
from daemon.audit import ORDER
from daemon.config import Site, SiteFileError
from daemon.control import Refused
from daemon.replace import replace
from daemon.requests import Applied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.alarms import Alarm, AlarmBook
    from daemon.audit import Audit
    from daemon.clock import Clock
    from daemon.control import Caller
    from daemon.requests import Apply

log = logging.getLogger(__name__)

MOST_BYTES = 16 << 20  # a site of a thousand channels has half a megabyte
_SUBJECT = Subject("system", "site-file")
_NAME = "last-good.toml"


def folder(run_dir: Path) -> Path:
    """Where the copy is kept: the state folder that systemd names, else beside the sockets."""
    return Path(os.environ.get("STATE_DIRECTORY") or run_dir)


def load(path: Path, kept: Path) -> tuple[Site, str]:
    """The site file at `path`, or the last good one in the folder `kept` and a sentence why.

    Raises:
        SiteFileError, OSError: it is bad, and there is no last good one.
    """
    try:
        return _checked(path), ""
    except (SiteFileError, OSError) as error:
        good = last_good(kept)
        if good is None:
            raise
        return good, why(error)


def last_good(kept: Path) -> Site | None:
    """The copy in the folder `kept`, if there is one that can be used."""
    try:
        return _checked(kept / _NAME)
    except (SiteFileError, OSError):
        return None


def keep(site: Site, kept: Path) -> None:
    """Keep a copy of the file that `site` was loaded from, if it is still the same; best effort."""
    target = kept / _NAME
    try:
        text = site.path.read_bytes()
        if site.path == target or hashlib.sha256(text).hexdigest() != site.sha256:
            return
        replace(target, text, mode=0o600)
    except OSError as error:
        log.warning("%s: no copy of the site file is kept: %s", target, error.strerror)


def why(error: SiteFileError | OSError) -> str:
    """What is wrong, in one sentence."""
    if isinstance(error, SiteFileError):
        more = len(error.problems) - 1
        return f"{error.problems[0]}" + (f" (and {more} more)" if more else "")
    return f"{error.filename or 'the file'}: {error.strerror or error}"


def _checked(path: Path) -> Site:
    if path.stat().st_size > MOST_BYTES:
        raise OSError(0, f"is larger than {MOST_BYTES >> 20} MB", str(path))
    return Site.load(path)


class SiteWatch:
    """Made by the composition root; `run` looks when it is told to.

    Args:
        site: the one in use.
        path: of the file that should be in use.
        trouble: why it is not; empty if it is.
        book: takes the alarm.
        clock: stamps it.
        announce: takes changed alarms on.
        audit: is told who brought a new one.
        restart: begins anew with the file that is there now.
    """

    def __init__(
        self,
        site: Site,
        path: Path,
        trouble: str,
        book: AlarmBook,
        clock: Clock,
        announce: Callable[[Sequence[Alarm]], None],
        audit: Audit,
        restart: Callable[[], None],
    ) -> None:
        self.trouble = trouble
        self._site = site
        self._path = path
        self._book = book
        self._clock = clock
        self._announce = announce
        self._audit = audit
        self._order: dict[str, object] | None = None
        self._restart = restart
        self._told = asyncio.Event()

    def hup(self) -> None:
        """Somebody says that the file has changed."""
        self._told.set()

    async def run(self) -> Never:
        self._say()
        while True:
            await self._told.wait()
            self._told.clear()
            await self._look()

    async def apply(self, request: Apply, caller: Caller) -> Applied:
        """What SIGHUP does, for a named person and with an answer.

        Raises:
            Refused: the file has mistakes, or is another than the one that is meant; nothing changes.
        """
        try:
            fresh = await asyncio.to_thread(_checked, self._path)
        except (SiteFileError, OSError) as error:
            raise Refused(f"{self._path}: {why(error)}") from None
        if fresh.sha256 != request.sha256:
            raise Refused(f"{self._path}, where the core looks, is another file than the one meant", 3)
        self.trouble = ""
        self._say()
        was = self._site.sha256
        if fresh.sha256 == was:
            return Applied(was, restarts=False)
        who = {"by": request.by, "uid": caller.uid, "why": request.note}
        self._order = {"sha256": fresh.sha256, "who": who}
        self._audit.record(
            "config.apply",
            by=request.by,
            uid=caller.uid,
            before=was,
            after=fresh.sha256,
            why=request.note,
            states=(ORDER,),
        )
        log.warning("a new site file is taken: %s, by %s", fresh.sha256, request.by)
        self._restart()
        return Applied(was, restarts=True)

    def order(self) -> object:
        """What the store keeps of the last order, for the start that carries it out."""
        return self._order

    async def _look(self) -> None:
        try:
            fresh = await asyncio.to_thread(_checked, self._path)
        except (SiteFileError, OSError) as error:
            self.trouble = why(error)
            log.error("the site file has mistakes, the one in use stays in use: %s", self.trouble)  # noqa: TRY400
            self._say()
            return
        self.trouble = ""
        self._say()
        if fresh.sha256 == self._site.sha256:
            log.info("the site file is the one in use")
        else:
            log.warning("a new site file is taken: %s", fresh.sha256)
            self._restart()

    def _say(self) -> None:
        now_ns = self._clock.wall_ns()
        if self.trouble:
            reason, evidence = reasons.site_file_bad(self.trouble), {"in_use": self._site.sha256}
            seen = Observation("none", "present", now_ns, reason, evidence=evidence)
        else:
            seen = Observation("none", "gone", now_ns, reasons.site_file_good())
        changed = self._book.observe(_SUBJECT, seen)
        if changed is not None:
            self._announce([changed])
