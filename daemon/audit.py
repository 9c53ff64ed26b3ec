"""Who changed what, from, to, why: audit records, which are batches of the chain like any other.

`Audit.record` is for whoever changes anything in a running core: acknowledgements, maintenance, mutes,
baselines, a new site file. A record is committed at once; what it costs is one batch.
"""

from __future__ import annotations

import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon.config import File
from daemon.reading import rfc3339
from daemon.scrub import MASK
from daemon.spool import Draft
from daemon.writer import site_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from daemon.clock import Clock
    from daemon.config import Site
    from daemon.writer import Writer

OURSELVES: Final = "pondwatch"  # `by`, where no person is behind it
SHADOW: Final = "shadow"  # of the records from when to when the site ran in shadow
STATE: Final = "audit:config"  # name of the state in which the store keeps the site file of the last start
ORDER: Final = "audit:order"  # likewise the last order to take a new site file, and whose it was
_MOST_CHANGES = 200
_MOST_BYTES = 256 << 10


class Audit:
    """Makes the records; one for the whole core.

    Args:
        writer: takes them.
        site: names itself in each.
    """

    def __init__(self, writer: Writer, clock: Clock, site: Site) -> None:
        self._writer = writer
        self._clock = clock
        self._head = site_head(site)

    def record(
        self,
        what: str,
        *,
        by: str,
        uid: int | None = None,
        subject: str | None = None,
        before: object = None,
        after: object = None,
        why: str | None = None,
        states: Sequence[str] = (),
        in_place: bool = False,
        **about: object,
    ) -> None:
        """Commit a record at once.

        Args:
            what: the kind of change, as `alarm.acknowledge` or `config`; docs/tamper-evidence.md lists them.
            by: who says so: a person's name, the id of a key, or `OURSELVES`.
            uid: the Unix user behind it, where the kernel knows one.
            subject: what was changed.
            before: what was there before; anything msgspec can encode; written as `from`.
            after: what is there now; written as `to`.
            why: the reason given.
            in_place: it stands in the chain between the readings of before and those of after.
            states: names of states (see `Writer.mark`) that are to be stored in the same commit.
            about: further members.
        """
        draft = self.draft(
            what, by=by, uid=uid, subject=subject, before=before, after=after, why=why, **about
        )
        self._writer.mark(states)
        if in_place:
            self._writer.put_in_place(draft)
        else:
            self._writer.put_urgent([draft], {})

    def draft(
        self, what: str, *, by: str, before: object = None, after: object = None, **about: object
    ) -> Draft:
        """The record as a batch to be."""
        time_ns = self._clock.wall_ns()
        told = {"subject": None, "uid": None, "why": None} | about
        record = {"time": rfc3339(time_ns), "what": what, "by": by, "from": before, "to": after, **told}
        body = self._head + msgspec.json.encode(record)[1:-1]
        return Draft("audit", body, time_ns, self._clock.monotonic_ns(), 1)


# -- the site file -----------------------------------------------------------------------------------


def site_rows(site: Site) -> dict[str, Any]:
    """The site file's tables by name (`channel n.pz03.pressure`) as plain data; passwords in it are masked.

    Records leave for every platform, and the password that one of them was given is no other's business.
    """
    rows: dict[str, Any] = {}
    for table in fields(File):
        name = table.metadata.get("key", table.name)
        value = getattr(site, table.name)
        for row in value if isinstance(value, tuple) else (value,):
            title = f"{name} {row.id}" if isinstance(value, tuple) else name
            plain = msgspec.to_builtins(row)
            rows[title] = plain | {key: MASK for key in ("password",) if plain.get(key)}
    return rows


def config_state(site: Site) -> Callable[[], object]:
    """What the store keeps of the site file, for comparison at the next start."""
    return lambda: {"sha256": site.sha256, "rows": site_rows(site)}


def ordered(site: Site, stored: bytes | None) -> dict[str, Any]:
    """Who had `site` taken into use, as arguments of `record_config`; empty: nobody named.

    Args:
        site: as it is in use now.
        stored: the state `ORDER` as the store has it.
    """
    order = msgspec.json.decode(stored) if stored else None
    return order["who"] if order is not None and order["sha256"] == site.sha256 else {}


def record_config(audit: Audit, site: Site, stored: bytes | None, *, by: str = OURSELVES, **who: Any) -> bool:
    """Record that the site file is another than the one last used; whether it is.

    Args:
        audit: makes the record.
        site: as it is in use now.
        stored: the state `STATE` as the store has it.
        by: who brought the new file, see `ordered`.
        who: further arguments of `Audit.record`.
    """
    last: Mapping[str, Any] = msgspec.json.decode(stored) if stored else {"sha256": None, "rows": {}}
    if last["sha256"] == site.sha256:
        return False
    now = msgspec.json.decode(msgspec.json.encode(site_rows(site)))  # as it would come back from the store
    changes = list(_changes(last["rows"], now)) if stored else []
    shown = changes[:_MOST_CHANGES]
    if len(msgspec.json.encode(shown)) > _MOST_BYTES:
        shown = [{"name": change["name"]} for change in shown]
    audit.record(
        "config",
        by=by,
        before=last["sha256"],
        after=site.sha256,
        states=(STATE,),
        file=str(site.path),
        changes=shown,
        changed=len(changes),
        process_uid=os.getuid(),
        **who,
    )
    return True


def record_shadow(audit: Audit, site: Site, stored: bytes | None) -> None:
    """Record that a trial run in shadow begins or ends with this start; arguments as above."""
    rows = msgspec.json.decode(stored)["rows"] if stored else {}
    was = bool(rows.get("site", {}).get("shadow", False))
    if was is not site.site.shadow:
        audit.record(SHADOW, by=OURSELVES, before=was, after=site.site.shadow)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What differs, row by row; of a row that stays, only the members that differ."""
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if old is not None and new is not None:
            keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            old, new = ({key: row.get(key) for key in keys} for row in (old, new))
        yield {"name": name, "from": old, "to": new}
