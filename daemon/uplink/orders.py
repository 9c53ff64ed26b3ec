"""Does what signed requests ask, one after the other, and writes down what was asked and what was refused.

The queue before it is bounded: MOST_WAITING requests, further ones are refused. Refusals are audited too, at
most REFUSALS_A_MINUTE of them and the number of the others: whoever can publish must not be able to fill the
store.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from typing import TYPE_CHECKING, Any, Never, Protocol

import msgspec

from daemon import requests
from daemon.alarms import NotAllowed
from daemon.control import Caller, Refused
from daemon.uplink import envelope
from daemon.uplink.envelope import Gate, NotAdmitted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daemon.audit import Audit
    from daemon.control import Verb
    from daemon.uplink.envelope import Envelope

log = logging.getLogger(__name__)

STATE = "requests:"  # prefix of the states in which the store keeps what was admitted, an uplink each
MOST_WAITING = 16
REFUSALS_A_MINUTE = 10
_DEEDS: Mapping[type[envelope.Wanted], type[requests.AlarmsAck]] = {
    envelope.Acknowledge: requests.AlarmsAck,
    envelope.Assign: requests.AlarmsAssign,
    envelope.Handle: requests.AlarmsHandle,
    envelope.Close: requests.AlarmsClose,
}


class Sirens(Protocol):
    """What has public sirens sound."""

    def order(self, request: envelope.Sound | envelope.Silence, key: str) -> list[str]:
        """Do it; ids of the alarms that change. Raises NotAllowed."""
        ...


class Orders:
    """Of one uplink.

    Args:
        uplink: its id.
        gate: says what may be done.
        audit: keeps what was asked, with the state that makes a repeat a replay.
        verbs: what the control socket offers; a request is done by the same verb.
        resend: sends a range of the stream again; a sentence where it cannot.
        sirens: the public ones. They are the only thing that a request can do and the control socket cannot.
    """

    def __init__(
        self,
        uplink: str,
        gate: Gate,
        audit: Audit,
        verbs: Mapping[type[requests.Request], Verb],
        resend: Callable[[str, int, int], str],
        sirens: Sirens,
    ) -> None:
        self.name = STATE + uplink
        self._uplink = uplink
        self._gate = gate
        self._audit = audit
        self._verbs = verbs
        self._resend = resend
        self._sirens = sirens
        self._waiting: deque[tuple[Envelope, envelope.Known]] = deque()
        self._some = asyncio.Event()
        self._refusals: deque[float] = deque(maxlen=REFUSALS_A_MINUTE)
        self._unsaid = 0

    def state(self) -> dict[str, int]:
        return self._gate.state()

    def take(self, payload: bytes) -> None:
        """A message on the `requests` topic; never raises."""
        if len(self._waiting) >= MOST_WAITING:
            self._refuse("too many requests are waiting", "")
            return
        try:
            admitted, request = self._gate.admit(payload)
        except NotAdmitted as refused:
            self._refuse(str(refused), refused.key)
            return
        log.info("uplink %s: request %d of key %s: %s", self._uplink, admitted.seq, admitted.key, request)
        self._audit.record(
            "request",
            by=f"key {admitted.key}",
            subject=self._uplink,
            after=request,
            states=(self.name,),
            request_seq=admitted.seq,
        )
        self._waiting.append((admitted, request))
        self._some.set()

    async def run(self) -> Never:
        """Do what is admitted, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                admitted, request = self._waiting.popleft()
                result = await self._done(request, admitted.key)
                self._audit.record(
                    "request.done",
                    by=f"key {admitted.key}",
                    subject=self._uplink,
                    after=result,
                    request_seq=admitted.seq,
                )

    async def _done(self, request: envelope.Known, key: str) -> dict[str, Any]:
        ourselves = Caller(os.getpid(), os.getuid(), os.getgid())
        try:
            match request:
                case envelope.Resend():
                    why = self._resend(request.stream, request.from_seq, request.to_seq)
                    return {"refused": why} if why else {"ok": None}
                case envelope.Measure():
                    return {"ok": await self._ask(requests.Read(request.channels), ourselves)}
                case envelope.StormWarning():
                    its = msgspec.structs.asdict(request)
                    return {"ok": await self._ask(requests.StormWarning(**its), ourselves)}
                case envelope.Sound() | envelope.Silence():
                    return {"ok": self._sirens.order(request, key)}
                case _:
                    deed = _DEEDS[type(request)](request.alarm, request.by, request.role, request.note)
                    return {"ok": await self._ask(deed, ourselves)}
        except (Refused, NotAllowed) as refused:
            return {"refused": str(refused)}

    async def _ask(self, request: requests.Request, caller: Caller) -> object:
        doing: Any = self._verbs[type(request)](request, caller)
        return msgspec.to_builtins(await doing)

    def _refuse(self, why: str, key: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if len(self._refusals) == REFUSALS_A_MINUTE and now_s - self._refusals[0] < 60.0:  # noqa: PLR2004
            self._unsaid += 1
            return
        self._refusals.append(now_s)
        log.warning("uplink %s refuses a request: %s", self._uplink, why)
        unsaid, self._unsaid = self._unsaid, 0
        by = f"key {key}" if key else "unknown"
        self._audit.record(
            "request.refused", by=by, subject=self._uplink, why=why, not_recorded_before=unsaid
        )
