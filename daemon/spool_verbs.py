"""What the control socket can ask of the store: a range of the stream sent once more, an alarm labelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import alarms, requests
from daemon.alarms import NotAllowed
from daemon.control import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.alarms import Alarm
    from daemon.audit import Audit
    from daemon.control import Caller, Verb
    from daemon.spool import Spool
    from daemon.uplink.contract import Uplink


LABEL = "alarm.label"  # of the audit records from which the summary of a trial run is made


class SpoolVerbs:
    """Verbs about batches that are already committed."""

    def __init__(self, spool: Spool, uplinks: Sequence[Uplink], audit: Audit) -> None:
        self._spool = spool
        self._uplinks = {uplink.id: uplink for uplink in uplinks}
        self._audit = audit

    def table(self) -> Mapping[type[requests.Request], Verb]:
        return {requests.SpoolResend: self._resend, requests.AlarmsLabel: self._label}

    async def _label(self, request: requests.AlarmsLabel, caller: Caller) -> Alarm:
        """Written down beside the alarm and changes nothing of it: what people did stays as they did it."""
        row = (await self._spool.alarms()).get(request.id)
        if row is None:
            raise NotAllowed(
                f"no alarm was ever called {request.id}; pondwatch alarms list has those that are open"
            )
        if not request.by.strip():
            raise NotAllowed(f"who labels {request.id}? A name is needed")
        self._audit.record(
            LABEL,
            by=request.by,
            uid=caller.uid,
            subject=request.id,
            after=request.label,
            why=request.note,
        )
        return alarms.decode(row)

    async def _resend(self, request: requests.SpoolResend, caller: Caller) -> requests.Resending:
        """Over one uplink or all; what was settled stays settled, and the platform sees a marked repeat."""
        if not self._uplinks:
            raise Refused("this site has no uplink; [[uplink]] in the site file makes one", 1)
        if request.uplink is not None and request.uplink not in self._uplinks:
            raise Refused(f"no uplink is called {request.uplink}; there are {', '.join(self._uplinks)}", 2)
        asked = tuple(self._uplinks) if request.uplink is None else (request.uplink,)
        stream, first, last = self._spool.stream, request.from_seq, request.to_seq
        taken = []
        for name in asked:
            if why := self._uplinks[name].resend(stream, first, last):
                raise Refused(f"uplink {name}: {why}")
            taken.append(name)
            self._audit.record(
                "spool.resend",
                by=request.by,
                uid=caller.uid,
                subject=name,
                after={"stream": stream, "from_seq": first, "to_seq": last},
                why=request.note,
            )
        return requests.Resending(stream, first, last, tuple(taken))
