"""What every uplink promises, and what all of them share: which batch goes next, and what becomes of it.

`SendQueue` is pure: seqs, sizes and times go in, decisions come out. A batch that was sent is in one of four
states until it is settled:

    FLYING   published, no acknowledgement yet          acked -> WAITING (or settled, where an ack settles)
    WAITING  acknowledged, its receipt is due           deadline passed -> DUE
    HELD     refused by the broker; tried again later   its time has come -> DUE
    DUE      to be sent again as soon as there is room  sent -> FLYING

A lost connection makes all that fly DUE. What is refused for good POISON_REFUSALS times goes into quarantine:
it stays unsettled in the store and is not sent again by this process, unless somebody asks for it. Each dict
and list here is bounded: by the window, by MOST_QUARANTINED and MOST_RESENDS, and by MOST_WAITING and
MOST_REFUSED for each lane; a lane that is full looks for nothing new until something of it is settled, and
the store keeps the rest.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple, Never, Protocol

from daemon.ranges import Ranges
from daemon.spool import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.spool import Batch, Kind

WINDOW_BYTES = 2 << 20
_FIRST_BUDGET_BYTES = (
    8 << 10
)  # doubles with every round trip: two seconds of 64 kbit/s are the most to begin with
_LEAST_BUDGET_BYTES = 4 << 10
_SLOW_ACK_S = 0.5  # beyond the quickest: what waits in buffers on the way
MOST_WAITING = 4096
MOST_REFUSED = 256
POISON_REFUSALS = 5
MOST_QUARANTINED = 1000  # beyond, what is refused for good is held like anything refused
MOST_RESENDS = 16
_RETRY_FIRST_S = 1.0
_RETRY_MOST_S = 60.0
_MOST_PATIENCE = 4


class Unsettled(NamedTuple):
    """What an uplink still owes, and the age of the oldest such batch (0 without one)."""

    batches: int
    oldest_s: float


@dataclass(slots=True)
class Counters:
    """Since the start of the process."""

    sent: int = 0
    resent: int = 0
    acked: int = 0
    rejected: int = 0
    settled: int = 0
    quarantined: int = 0
    receipts_refused: int = 0
    connections: int = 0


class Uplink(Protocol):
    """One way out, with settled ranges of its own."""

    id: str
    connected: bool

    @property
    def counters(self) -> Counters: ...

    async def run(self) -> Never:
        """Send and settle until cancelled; reconnects by itself, with jitter."""
        ...

    async def unsettled(self) -> Unsettled: ...

    def resend(self, stream: str, first: int, last: int) -> str:
        """Send `first`..`last` of `stream` once more; a sentence why not, or nothing."""
        ...


class State(Enum):
    FLYING = auto()
    WAITING = auto()
    HELD = auto()
    DUE = auto()


@dataclass(slots=True, eq=False)
class Lane:
    """Batches of `kinds`, walked once in order of seq: those above `after`, up to and with `upto`."""

    kind: Kind
    backfill: bool = False
    kinds: Sequence[Kind] = ()
    after: int = 0
    upto: int = 0
    due: list[int] = field(default_factory=list)
    waiting: int = 0
    refused: int = 0


@dataclass(slots=True, eq=False)
class Sent:
    """One batch on its way; `until_s` is when its state ends by itself."""

    lane: Lane
    size: int
    state: State
    until_s: float
    sent_s: float
    times: int = 1
    refusals: int = 0
    poison: int = 0


class Ask(NamedTuple):
    """What to look for in the store: batches of `lane.kinds` with after < seq <= upto."""

    lane: Lane
    after: int
    upto: int
    limit: int
    max_bytes: int
    again: bool


class SendQueue:
    """Alarms before gaps before audit before live readings before those of an outage.

    Readings leave a part of the window free, and of its bytes use only what the link acknowledges within
    about a second, so that an alarm raised behind a full backlog does not wait for the backlog.

    Args:
        settled: what is settled already; the queue adds to its own copy.
        by_receipt: a receipt settles, an acknowledgement only frees the window; else it settles.
        window: so many batches in flight at most.
        ack_deadline_s: without an acknowledgement for so long the connection is given up.
        receipt_deadline_s: without a receipt for so long the batch is sent again, then after twice
            as long, up to 16 times: a platform that was away for a day must not find it seven hundred times.
        drain_bytes_per_s: what the backlog may take of the link; inf for no limit.
        random: spreads the retries of refused batches.
    """

    def __init__(
        self,
        settled: Ranges,
        *,
        by_receipt: bool,
        window: int,
        ack_deadline_s: float,
        receipt_deadline_s: float,
        drain_bytes_per_s: float = inf,
        random: Random | None = None,
    ) -> None:
        self.settled: Final = settled.copy()
        self.counters = Counters()
        self._by_receipt = by_receipt
        self._configured_window = self._window = window
        self._ack_deadline_s = ack_deadline_s
        self._receipt_deadline_s = receipt_deadline_s
        self._random = random or Random()  # noqa: S311 -- jitter
        self._drain_bytes_per_s = drain_bytes_per_s
        self._drained_s = 0.0  # until then the backlog has had its share
        self._now_s = 0.0
        self._live = Lane("readings", kinds=("readings",))
        self._backfill = Lane("readings", backfill=True, kinds=("readings",))
        first = (Lane(kind, kinds=(kind,)) for kind in ("alarms", "gaps", "audit"))
        self._lanes = (*first, self._live, self._backfill)
        self._again = Lane("readings", backfill=True, kinds=KINDS)  # what somebody asked for once more
        self._asked_again: deque[tuple[int, int]] = deque()
        self.quarantined = Ranges()
        self._sent: dict[int, Sent] = {}
        self._flying = 0
        self._flying_bytes = 0
        self.next_deadline_s = inf
        self._budget_bytes, self._quickest_s, self._cut_s = _FIRST_BUDGET_BYTES, inf, -inf
        self._begun = False
        self._before = 0  # up to here another process may have sent it

    # -- what the connection says --------------------------------------------------------------------

    def begin(self, latest: Mapping[Kind, int], floor: int, window: int) -> None:
        """A connection is up: what flew is due again, and readings committed until now are backfill.

        Args:
            latest: the newest seq of each kind.
            floor: the oldest seq still in the store.
            window: what the other end allows in flight.
        """
        self._window = max(1, min(self._configured_window, window))
        self._budget_bytes, self._quickest_s, self._cut_s = _FIRST_BUDGET_BYTES, inf, -inf
        if not self._begun:
            for lane in self._lanes:
                lane.after = self.settled.missing_after(floor - 1) - 1
            self._begun = True
            self._before = max(latest.values())
        for seq, sent in [item for item in self._sent.items() if item[1].state is State.FLYING]:
            if seq in self.settled and sent.lane is not self._again:
                self._forget(seq, sent)
            else:
                self._due(seq, sent)
        self._flying = self._flying_bytes = 0
        self._backfill.upto = self._live.after = max(self._live.after, latest["readings"])
        self.committed(latest)

    def committed(self, latest: Mapping[Kind, int]) -> None:
        """The store has grown."""
        for lane in self._lanes:
            if lane is not self._backfill:
                lane.upto = latest[lane.kind]

    def acked(self, seq: int, now_s: float) -> bool:
        """The broker took it; returns whether that settles it."""
        sent = self._landed(seq)
        if sent is None:
            return False
        self.counters.acked += 1
        self._pace(sent, now_s)
        if self._by_receipt and seq not in self.settled:
            patience = 2 ** min(sent.times - 1, _MOST_PATIENCE)
            self._enter(sent, State.WAITING, now_s + self._receipt_deadline_s * patience)
            sent.lane.waiting += 1
            return False
        self._settle(seq)
        self._forget(seq, sent)
        return not self._by_receipt

    def resend(self, first: int, last: int) -> bool:
        """Send `first`..`last` once more, settled or not, behind all else; False: too many were asked for."""
        if len(self._asked_again) >= MOST_RESENDS:
            return False
        self._asked_again.append((first, last))
        return True

    def refused(self, seq: int, now_s: float, *, for_good: bool = False) -> float:
        """The broker did not take it: it is held back, longer each time; returns for how long (s).

        `for_good`: it would not take it at another time either; after POISON_REFUSALS of these the batch is
        in quarantine, and inf is returned.
        """
        sent = self._landed(seq)
        if sent is None:
            return 0.0
        self.counters.rejected += 1
        if seq in self.settled:  # its receipt was quicker
            self._forget(seq, sent)
            return 0.0
        sent.lane.refused += sent.refusals == 0
        sent.refusals += 1
        sent.poison += for_good
        if sent.poison >= POISON_REFUSALS and self.counters.quarantined < MOST_QUARANTINED:
            self._forget(seq, sent)
            self.quarantined.add(seq)
            self.counters.quarantined += 1
            return inf
        longest_s = min(_RETRY_MOST_S, _RETRY_FIRST_S * 2.0 ** min(sent.refusals, 16))
        pause_s = longest_s * self._random.uniform(0.5, 1.0)
        self._enter(sent, State.HELD, now_s + pause_s)
        return pause_s

    def aside(self, seq: int) -> None:
        """Nothing came back of it, which was out alone: held back until `release`."""
        sent = self._landed(seq)
        if sent is not None:
            self._enter(sent, State.HELD, inf)

    def others(self, seq: int) -> bool:
        """Whether there is anything beside `seq` that could be sent."""
        if any(sent.state is not State.HELD for other, sent in self._sent.items() if other != seq):
            return True
        return any(self.settled.gap_after(lane.after)[0] <= lane.upto for lane in self._lanes)

    def release(self, seq: int, *, behind_all: bool) -> bool:
        """What was set aside is due again, in its own lane or behind all else; False: no room for it yet."""
        sent = self._sent.get(seq)
        if sent is None or sent.state is not State.HELD:
            return True
        if not behind_all:
            self._due(seq, sent)
        elif self.resend(seq, seq):
            self._forget(seq, sent)
        else:
            return False
        return True

    def receipt(self, ranges: Ranges) -> tuple[list[int], bool]:
        """A receipt came: the seqs it newly settles, and whether it named any that was never sent.

        Only what this process has sent can be settled by it; a seq that was sent before a restart is sent
        again, and its next receipt counts. A range that goes beyond the newest batch settles nothing at all.
        """
        newest = max(lane.upto for lane in self._lanes)
        sound = Ranges((first, last) for first, last in ranges if last <= newest)
        known = [*self._sent, *(seq for first, last in self.quarantined for seq in range(first, last + 1))]
        newly = [seq for seq in dict.fromkeys(known) if seq in sound and seq not in self.settled]
        for seq in newly:
            self._settle(seq)
            if (
                seq in self._sent and self._sent[seq].state is not State.FLYING
            ):  # else its acknowledgement frees the window
                self._forget(seq, self._sent[seq])
        strange = any(self.settled.count(first, last) <= last - first for first, last in ranges)
        return newly, strange

    # -- what to do ----------------------------------------------------------------------------------

    def tick(self, now_s: float) -> bool:
        """Let deadlines pass; returns whether an acknowledgement is overdue: then the connection is dead."""
        self._now_s = now_s
        if now_s < self.next_deadline_s:
            return False
        overdue = False
        for seq, sent in self._sent.items():
            if sent.until_s <= now_s:
                if sent.state is State.FLYING:
                    overdue = True
                else:
                    self._due(seq, sent)
        self.next_deadline_s = min((sent.until_s for sent in self._sent.values()), default=inf)
        return overdue

    def ask(self) -> Ask | None:
        """What to look for next, or None: there is nothing to send, or no room."""
        if self._again.after >= self._again.upto and self._asked_again:
            first, last = self._asked_again.popleft()
            self._again.after, self._again.upto = first - 1, last
        for lane in (*self._lanes, self._again):
            limit, room_bytes = self._room(lane)
            if limit <= 0:
                continue
            while lane.due:
                seq = lane.due[0]
                if seq in self._sent and self._sent[seq].state is State.DUE:
                    return Ask(lane, seq - 1, seq, 1, room_bytes, again=True)
                del lane.due[0]
            if lane.waiting >= MOST_WAITING or lane.refused >= MOST_REFUSED:
                continue
            if lane is self._again:
                if lane.after < lane.upto:
                    return Ask(lane, lane.after, lane.upto, limit, room_bytes, again=False)
                continue
            first, end = self.settled.gap_after(lane.after)
            if first <= lane.upto:
                upto = lane.upto if end is None else min(end, lane.upto)
                return Ask(lane, first - 1, upto, limit, room_bytes, again=False)
        return None

    def found(self, ask: Ask, batches: list[Batch], now_s: float) -> list[Batch]:
        """What the store gave for `ask`; returns what is to be published now, in flight from this moment."""
        lane = ask.lane
        self._now_s = max(self._now_s, now_s)
        if ask.again:
            del lane.due[0]
            batches = [b for b in batches if b.seq in self._sent]  # else it was settled meanwhile
        else:
            lane.after = batches[-1].seq if batches else ask.upto
            batches = [b for b in batches if b.seq not in self._sent]
            if lane is not self._again:
                batches = [b for b in batches if b.seq not in self.settled]
        for batch in batches:
            self._fly(batch, lane, now_s)
        return batches

    def is_repeat(self, seq: int) -> bool:
        """Whether `seq`, in flight, was sent before, as far as this process knows."""
        sent = self._sent[seq]
        return sent.times > 1 or sent.lane is self._again

    def is_backfill(self, lane: Lane, seq: int) -> bool:
        """Whether `seq` is of an outage, or of before this process, which may have sent it already."""
        return lane.backfill or seq <= self._before

    # -- inside --------------------------------------------------------------------------------------

    def _room(self, lane: Lane) -> tuple[int, int]:
        """How many batches and bytes `lane` may add to the flight; one always may when nothing flies."""
        if lane.kind != "readings":
            return self._window - self._flying, WINDOW_BYTES
        if lane.backfill and self._now_s < self._drained_s:
            self.next_deadline_s = min(self.next_deadline_s, self._drained_s)
            return 0, 0
        if self._flying == 0:
            return 1, WINDOW_BYTES
        room_bytes = self._budget_bytes - self._flying_bytes
        reserved = min(2, self._window - 1)
        return (self._window - reserved - self._flying if room_bytes > 0 else 0), room_bytes

    def _pace(self, sent: Sent, now_s: float) -> None:
        """What readings may have in flight: doubled with each round trip until an acknowledgement is slow.

        From then on as TCP avoids congestion (RFC 5681): halved when one is slow, at most once for what was
        sent before the last time, else a batch more with each round trip.
        """
        took_s = now_s - sent.sent_s
        self._quickest_s = min(self._quickest_s, took_s)
        if took_s <= self._quickest_s + _SLOW_ACK_S:
            share = 1.0 if self._cut_s == -inf else min(1.0, sent.size / self._budget_bytes)
            self._budget_bytes = min(WINDOW_BYTES, self._budget_bytes + round(sent.size * share))
        elif sent.sent_s >= self._cut_s:
            self._budget_bytes = max(_LEAST_BUDGET_BYTES, self._budget_bytes // 2)
            self._cut_s = now_s

    def _fly(self, batch: Batch, lane: Lane, now_s: float) -> None:
        size = len(batch.payload)
        sent = self._sent.get(batch.seq)
        if sent is None:
            sent = self._sent[batch.seq] = Sent(lane, size, State.FLYING, inf, now_s)
        else:
            sent.times += 1
            sent.sent_s = now_s
            self.counters.resent += 1
        if lane.backfill and self._drain_bytes_per_s < inf:
            self._drained_s = max(self._drained_s, now_s) + size / self._drain_bytes_per_s
        self._enter(sent, State.FLYING, now_s + self._ack_deadline_s)
        self._flying += 1
        self._flying_bytes += size
        self.counters.sent += 1

    def _enter(self, sent: Sent, state: State, until_s: float) -> None:
        sent.state, sent.until_s = state, until_s
        self.next_deadline_s = min(self.next_deadline_s, until_s)

    def _landed(self, seq: int) -> Sent | None:
        """No longer in flight; None when it was not, as after an acknowledgement that came twice."""
        sent = self._sent.get(seq)
        if sent is None or sent.state is not State.FLYING:
            return None
        self._flying -= 1
        self._flying_bytes -= sent.size
        return sent

    def _due(self, seq: int, sent: Sent) -> None:
        if sent.state is State.WAITING:
            sent.lane.waiting -= 1
        sent.state, sent.until_s = State.DUE, inf
        sent.lane.due.append(seq)

    def _settle(self, seq: int) -> None:
        if seq not in self.settled:
            self.settled.add(seq)
            self.counters.settled += 1

    def _forget(self, seq: int, sent: Sent) -> None:
        if sent.state is State.WAITING:
            sent.lane.waiting -= 1
        sent.lane.refused -= sent.refusals > 0
        del self._sent[seq]
